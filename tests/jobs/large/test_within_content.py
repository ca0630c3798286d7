"""Models that normalise within what is not 0 segment images larger than memory as those in memory."""

from __future__ import annotations

import numpy as np
import pytest

from formats_large import ome_zarr
from helpers import Recipe, make_model, smooth_image
from napari_nnunet import predict, predict_image
from napari_nnunet.engine.large import blocks, case, parts
from napari_nnunet.errors import ResourceError
from napari_nnunet.events import Note, Painted, Stage

zarr = pytest.importorskip("zarr", reason="zarr is not installed: it comes with napari-nnunet[large]")
pytest.importorskip("yaozarrs", reason="yaozarrs is not installed: it comes with napari-nnunet[large]")
pytestmark = pytest.mark.usefixtures("known_arithmetic")
FAST = {"device": "cpu", "backend": "torch", "precision": "float32", "mirroring": False}


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Cut tiny volumes as large ones are, and look at them in slabs of few planes."""
    monkeypatch.setattr(blocks, "_MOST_VOXELS", 3000)
    monkeypatch.setattr(case, "_MOST_SLAB", 7000)
    monkeypatch.setattr(parts, "PIECE_VOXELS", 2000)
    monkeypatch.setattr(parts, "_SMALLEST", 4)


def stripped(shape, channels=1):
    """Return an image with an oblique empty corner within its box, and holes: one across slabs, one that is open."""
    image = smooth_image(shape, channels=channels) + 3
    places = np.indices(shape)
    image[:, sum(places) < shape[-1] // 2] = 0
    z, y, x = ((1, *shape)[-3:][i] // 2 for i in range(3))
    hole = (slice(None), *((slice(max(1, z - 4), z + 5),) if len(shape) == 3 else ()))
    image[(*hole, slice(y, y + 6), slice(x, x + 5))] = 0
    image[(*hole, slice(0, y - 8), slice(x + 6, x + 8))] = 0
    return image


CASES = {
    "as it is": (Recipe(use_mask=True), (1.0, 1.0, 1.0), (24, 40, 50), (7, 11, 13)),
    "resampled": (Recipe(use_mask=True, spacing=(1.5, 0.8, 0.8)), (1.0, 1.0, 1.0), (20, 30, 34), (9, 16, 13)),
    "thick slices": (Recipe(use_mask=True, spacing=(5.0, 1.0, 1.0)), (4.0, 0.7, 0.7), (14, 41, 53), (5, 16, 16)),
    "turned": (
        Recipe(use_mask=True, transpose=(2, 0, 1), spacing=(1.2, 1.0, 1.0)), (1.0, 1.0, 0.9), (20, 40, 36), (9, 13, 8),
    ),
    "channels": (
        Recipe(use_mask=True, channels=("CT", "MR"), schemes=("CTNormalization", "ZScoreNormalization")),
        (1.0, 1.0, 1.0), (20, 32, 40), (7, 13, 13),
    ),
    "picture": (
        Recipe(use_mask=True, patch=(16, 16), spacing=(1.0, 1.0), configuration="2d"), (1.3, 1.3), (140, 151), (29, 40),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_labels_equal_those_in_memory(tmp_path, name):
    recipe, spacing, shape, chunk = CASES[name]
    model, image = make_model(tmp_path, recipe), stripped(shape, len(recipe.channels))
    image[(0, *(n // 3 for n in shape))] = np.nan
    whole = predict(model, image, spacing=spacing, **FAST).labels
    said = []
    how = {"spacing": spacing, "chunk": chunk, "on_event": said.append, **FAST}
    found = predict_image(model, image, tmp_path / "a.zarr", **how)
    labels = zarr.open(tmp_path / "a.zarr/0", mode="r")[:]
    assert found.blocks > 3 and len(np.unique(whole)) > 2
    assert np.mean(whole != labels) < 1e-4
    assert any(isinstance(event, Stage) and event.name == "Looking for what is not 0" for event in said)
    assert any(isinstance(event, Note) and "1 voxel was NaN" in event.text for event in said)
    assert not (found.path / "content").exists()


class _StopError(Exception):
    pass


def test_what_was_ended_keeps_what_it_found(tmp_path):
    model = make_model(tmp_path, Recipe(use_mask=True))
    image = ome_zarr(tmp_path / "image.zarr", [stripped((20, 40, 40))[0]], unit="millimeter")

    def stop(event):
        if isinstance(event, Painted):
            raise _StopError

    how, said = {"chunk": (7, 11, 13), **FAST}, []
    with pytest.raises(_StopError):
        predict_image(model, image, tmp_path / "a.zarr", on_event=stop, **how)
    predict_image(model, image, tmp_path / "a.zarr", carry_on=True, on_event=said.append, **how)
    predict_image(model, image, tmp_path / "whole.zarr", **how)
    labels = [zarr.open(tmp_path / f"{name}.zarr/0", mode="r")[:] for name in ("a", "whole")]
    np.testing.assert_array_equal(*labels)
    assert not any(isinstance(event, Stage) and event.name.startswith("Looking") for event in said)


def test_a_plane_that_does_not_fit_is_said(tmp_path, monkeypatch):
    from napari_nnunet.jobs.large.budget import Budget

    monkeypatch.setattr(Budget, "left_now", 10_000.0)
    model = make_model(tmp_path, Recipe(use_mask=True))
    with pytest.raises(ResourceError, match="A plane of 40 x 40 voxels takes"):
        predict_image(model, stripped((20, 40, 40)), tmp_path / "a.zarr", spacing=(1.0, 1.0, 1.0), **FAST)
