"""Arrays that somebody has open are read from their files meanwhile: these must not be exchanged without a word."""

import numpy as np
import pytest

from formats_large import ome_zarr
from helpers import smooth_image
from napari_nnunet.errors import ImageError
from napari_nnunet.events import Painted, drain
from napari_nnunet.formats.large.opening import image_of
from napari_nnunet.jobs.large.layer import predict_layer
from napari_nnunet.schema.requests.large import PredictImageSettings

zarr = pytest.importorskip("zarr", reason="zarr is not installed: it comes with napari-nnunet[large]")
pytest.importorskip("yaozarrs", reason="yaozarrs is not installed: it comes with napari-nnunet[large]")
pytestmark = pytest.mark.usefixtures("known_arithmetic", "small_blocks")
SHAPE = (20, 40, 40)
ASKED = PredictImageSettings(device="cpu", backend="torch", precision="float32", mirroring=False, chunk=(8, 16, 16))


@pytest.fixture
def file(tmp_path):
    return ome_zarr(tmp_path / "image.zarr", [smooth_image(SHAPE)[0]], unit="millimeter")


class Elsewhere:
    """An array that can be read whatever becomes of its file."""

    def __init__(self, array):
        self._array, self.shape, self.dtype, self.ndim = array, array.shape, array.dtype, array.ndim

    def __getitem__(self, key):
        return self._array[key]


def opened(array):
    return image_of(array, spacing=(1.0, 1.0, 1.0), axes="ZYX")


def rewriting(file, count):
    """Return what writes a chunk of a file when the first of the result's blocks is finished."""

    def look(event):
        if isinstance(event, Painted):
            count.append(event)
            if len(count) == 1:
                zarr.open(str(file / "0"), mode="r+")[0, 0, 0] = 7

    return look


def test_a_file_that_is_rewritten_while_its_layer_is_read_ends_the_job(tmp_path, model, file):
    image, seen = opened(zarr.open(str(file / "0"), mode="r")), []
    target = tmp_path / "result.zarr"
    with pytest.raises(ImageError, match="was changed while it was read, so that its parts do not belong together"):
        drain(predict_layer(model, image, [file], target, ASKED), rewriting(file, seen))
    assert seen and not target.exists()


def test_files_that_are_out_of_reach_for_a_moment_end_nothing_for_good(tmp_path, model, file):
    """As on a network disk; that was taken for a change, after which a result could not be continued any more."""
    array = zarr.open(str(file / "0"), mode="r")[:]
    image, away = opened(Elsewhere(array)), file.with_name("away.zarr")
    target = tmp_path / "result.zarr"

    def leave(event):
        if isinstance(event, Painted) and file.exists():
            file.rename(away)

    with pytest.raises(ImageError, match="cannot be reached any more"):
        drain(predict_layer(model, image, [file], target, ASKED), leave)
    away.rename(file)
    found = drain(predict_layer(model, image, [file], target, ASKED.replace(carry_on=True)))
    assert found.path.exists()


def test_what_is_in_memory_does_not_depend_on_its_file_any_more(tmp_path, model, file):
    image = opened(np.asarray(zarr.open(str(file / "0"), mode="r")[:]))
    found = drain(predict_layer(model, image, [file], tmp_path / "result.zarr", ASKED), rewriting(file, []))
    assert found.path.exists()


def test_a_result_among_the_files_is_no_change_of_them(tmp_path, model, file):
    image = opened(zarr.open(str(file / "0"), mode="r"))
    assert drain(predict_layer(model, image, [file], file / "labels" / "organ", ASKED)).path.exists()
    other = ome_zarr(tmp_path / "folder" / "image.zarr", [smooth_image(SHAPE)[0]], unit="millimeter")
    image = opened(zarr.open(str(other / "0"), mode="r"))
    assert drain(predict_layer(model, image, [other.parent], other.parent / "result.zarr", ASKED)).path.exists()
