"""Series keep their times when they are saved."""

from __future__ import annotations

import numpy as np
import pytest
from napari.layers import Labels

from napari_nnunet.errors import DatasetError
from napari_nnunet.widgets.files.reader import get_reader
from napari_nnunet.widgets.files.writer import write_labels_layer

TURNED = np.array([[1, 0, 0, 0, 0], [0, 1, 0, 0, 0], [0, 0, 0.8, -0.6, 0], [0, 0, 0.6, 0.8, 0], [0, 0, 0, 0, 1.0]])


def series(shape=(3, 4, 8, 9), *, unit="s", **place):
    place.setdefault("units", (unit, *["mm"] * (len(shape) - 1)))
    return Labels(np.ones(shape, np.uint8), axis_labels=tuple("tzyx" if len(shape) == 4 else "tyx"), **place)


def saved(layer, path):
    data, attributes, _ = layer.as_layer_data_tuple()
    write_labels_layer(str(path), data, attributes)
    (again,) = get_reader(str(path))(str(path))
    return Labels(again[0], **again[1])


def later(move):
    """Return a place in mm and seconds that an affine moves."""
    affine = TURNED.copy()
    affine[0, 0], affine[0, 4] = move
    return affine


@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".nrrd", ".mha", ".tif"])
@pytest.mark.parametrize(
    "layer",
    [
        series((3, 8, 9), scale=(2, 1, 1), translate=(4, 0, 0)),
        series((3, 8, 9), affine=np.diag([2.0, 1, 1, 1])),
        series(scale=(2, 3, 1, 1), translate=(4, 1, 2, 3), affine=later((0.5, -7))),
    ],
    ids=["start", "step of an affine", "both, turned"],
)
def test_a_saved_series_keeps_its_times(tmp_path, ending, layer):
    again = saved(layer, tmp_path / f"a{ending}")
    for index in ((0,) * layer.ndim, tuple(n - 1 for n in layer.data.shape)):
        assert np.allclose(layer.data_to_world(index), again.data_to_world(index), atol=1e-3)
    assert str(again.units[0]) == "second"


def test_a_series_that_runs_backwards_is_refused(tmp_path):
    layer = series((3, 8, 9), affine=np.diag([-2.0, 1, 1, 1]))
    with pytest.raises(DatasetError, match="Time runs backwards in this layer, by a step of -2"):
        saved(layer, tmp_path / "a.nii.gz")
