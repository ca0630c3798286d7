"""What lies there already is continued, or taken as complete, only for the image and model that it was made of."""

import os
import shutil

import numpy as np
import pytest

from formats_large import ome_zarr
from helpers import make_model, smooth_image
from napari_nnunet import predict_image
from napari_nnunet.errors import SettingsError
from napari_nnunet.formats.large.label_image import LabelImage

zarr = pytest.importorskip("zarr", reason="zarr is not installed: it comes with napari-nnunet[large]")
pytest.importorskip("yaozarrs", reason="yaozarrs is not installed: it comes with napari-nnunet[large]")
pytestmark = pytest.mark.usefixtures("known_arithmetic", "small_blocks")
HOW = {"device": "cpu", "backend": "torch", "precision": "float32", "mirroring": False, "chunk": (8, 16, 16)}
SHAPE = (20, 40, 40)


class _Stop(Exception):
    pass


@pytest.fixture
def image(tmp_path):
    return ome_zarr(tmp_path / "image.zarr", [smooth_image(SHAPE)[0]], unit="millimeter")


@pytest.fixture
def stopped(monkeypatch):
    """Return a function that begins a result and stops at its second block."""

    def begin(model, source, target, **how):
        write, count = LabelImage.write, []

        def stop(self, *args):
            count.append(1)
            if len(count) > 1:
                raise _Stop
            write(self, *args)

        with monkeypatch.context() as patch:
            patch.setattr(LabelImage, "write", stop)
            with pytest.raises(_Stop):
                predict_image(model, source, target, **HOW, **how)

    return begin


@pytest.mark.parametrize(("changed", "said"), [
    ("model", r"another model \(.*\)"), ("settings", r"other settings \(step 0.5, now 1.0\)"),
    ("image", "another state of the image's files"),
])  # fmt: skip
def test_a_complete_result_of_something_else_is_not_taken_for_what_is_asked(tmp_path, model, image, changed, said):
    target, how = tmp_path / "result.zarr", dict(HOW)
    predict_image(model, image, target, **how)
    assert predict_image(model, image, target, carry_on=True, **how).blocks == 0
    if changed == "model":
        model = make_model(tmp_path, seed=5)
    elif changed == "settings":
        how["step"] = 1.0
    else:
        zarr.open(str(image / "0"), mode="r+")[0, 0, 0] = 7
    with pytest.raises(SettingsError, match=f"is complete, but was made with {said}. Delete it"):
        predict_image(model, image, target, carry_on=True, **how)


def test_a_part_that_is_put_back_as_it_was_before_is_noticed(tmp_path, model, image, stopped):
    chunk = next(path for path in sorted((image / "0").rglob("*")) if path.is_file() and path.suffix != ".json")
    os.utime(chunk, ns=(10**18, 10**18))
    kept = shutil.copy2(chunk, tmp_path / "kept")
    os.utime(chunk, ns=(2 * 10**18, 2 * 10**18 - 5))
    stopped(model, image, tmp_path / "result.zarr")
    shutil.copy2(kept, chunk)
    with pytest.raises(SettingsError, match="was begun with another state of the image's files"):
        predict_image(model, image, tmp_path / "result.zarr", carry_on=True, **HOW)


def test_voxels_that_no_file_holds_are_looked_at_before_a_result_is_continued(tmp_path, model, stopped):
    array, target = smooth_image(SHAPE)[0], tmp_path / "result.zarr"
    other = array[:, ::-1].copy()  # with the same mean, deviation and limits
    how = {"spacing": (1.0, 1.0, 1.0)}
    stopped(model, array, target, **how)
    with pytest.raises(SettingsError, match=r"is not what it was when .* was begun. Give the same voxels again"):
        predict_image(model, other, target, carry_on=True, **HOW, **how)
    assert predict_image(model, array, target, carry_on=True, **HOW, **how).kept == 1
    assert predict_image(model, array, target, carry_on=True, **HOW, **how).blocks == 0
    with pytest.raises(SettingsError, match="is not what it was"):
        predict_image(model, other, target, carry_on=True, **HOW, **how)
    whole = predict_image(model, array, tmp_path / "whole.zarr", **HOW, **how)
    assert np.array_equal(*(zarr.open(str(path / "0"), mode="r")[:] for path in (target, whole.path)))
