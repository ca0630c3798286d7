"""What lies there already is continued, or taken as complete, only for the image and model that it was made of."""

import os
import shutil

import numpy as np
import pytest
import tifffile

from formats_large import ome_zarr
from helpers import make_model, smooth_image
from napari_nnunet import predict_image
from napari_nnunet.errors import ImageError, SettingsError
from napari_nnunet.events import Painted, drain
from napari_nnunet.formats.large.label_image import LabelImage
from napari_nnunet.formats.large.opening import image_of, open_image
from napari_nnunet.jobs.large.predict_image import predict_image as predict_image_job
from napari_nnunet.schema.requests.large import PredictImageSettings

zarr = pytest.importorskip("zarr", reason="zarr is not installed: it comes with napari-nnunet[large]")
pytest.importorskip("yaozarrs", reason="yaozarrs is not installed: it comes with napari-nnunet[large]")
pytestmark = pytest.mark.usefixtures("known_arithmetic", "small_blocks")
HOW = {"device": "cpu", "backend": "torch", "precision": "float32", "mirroring": False, "chunk": (8, 16, 16)}
ASKED = PredictImageSettings(**HOW)
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


def changing(image):
    """Return what writes a chunk of an image when the first block is finished."""
    seen = []

    def look(event):
        if isinstance(event, Painted) and not seen:
            seen.append(event)
            zarr.open(str(image / "0"), mode="r+")[0, 0, 0] = 7

    return look


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


def test_blocks_of_an_image_that_changed_meanwhile_are_not_continued_whatever_it_is_now(tmp_path, model, image):
    target, kept = tmp_path / "result.zarr", shutil.copytree(image, tmp_path / "kept.zarr")
    place = "result.zarr.unfinished"
    with pytest.raises(
        ImageError, match=rf"image.zarr was changed while it was read, so that .* Delete .*{place}, and"
    ):
        drain(predict_image_job(model, open_image([image]), target, ASKED), changing(image))
    shutil.rmtree(image)
    shutil.copytree(kept, image)  # as it was, with its times
    with pytest.raises(
        SettingsError, match=rf"image.zarr was changed while .*{place} was computed, .* is now\. Delete"
    ):
        predict_image(model, image, target, carry_on=True, **HOW)
    shutil.rmtree(tmp_path / place)
    assert predict_image(model, image, target, carry_on=True, **HOW).kept == 0


def test_voxels_that_no_file_holds_may_not_change_while_they_are_read(tmp_path, model):
    array = smooth_image(SHAPE)[0]
    image = image_of(array, (1.0, 1.0, 1.0))

    def change(event):
        if isinstance(event, Painted):
            array[19] = 0

    with pytest.raises(ImageError, match="the array was changed while it was read"):
        drain(predict_image_job(model, image, tmp_path / "result.zarr", ASKED), change)
    assert not (tmp_path / "result.zarr").exists()


@pytest.mark.parametrize("name", ["labels.zarr", "deeper/labels.zarr", "labels.nii.gz"])
def test_a_result_among_the_voxels_of_its_image_is_refused_before_anything_is_read(tmp_path, model, name):
    planes = tmp_path / "planes"
    planes.mkdir()
    for z, plane in enumerate(smooth_image(SHAPE)[0]):
        tifffile.imwrite(planes / f"p{z:02}.tif", plane)
    with pytest.raises(SettingsError, match=r"would lie among the files of the image .*planes, which must not change"):
        predict_image(model, planes, planes / name, spacing=(1.0, 1.0, 1.0), **HOW)
    assert len(list(planes.rglob("*"))) == SHAPE[0]
