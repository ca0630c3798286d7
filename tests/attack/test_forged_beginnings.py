"""An unfinished result of a large image that somebody else made: its arrays name other codecs, or other chunks."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest

from napari_nnunet.errors import ImageError
from napari_nnunet.formats.large.label_image import Destination, LabelImage
from napari_nnunet.formats.large.opening import image_of
from napari_nnunet.schema.dataset import LabelScheme

zarr = pytest.importorskip("zarr", reason="zarr is not installed: it comes with napari-nnunet[large]")
pytest.importorskip("yaozarrs", reason="yaozarrs is not installed: it comes with napari-nnunet[large]")
_SHAPE, _CHUNK = (8, 12, 12), (4, 6, 6)
_BOX = [(0, 4), (0, 6), (0, 6)]


class _Order:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.fixture
def begun(tmp_path):
    """A result of which one block is written."""
    image = image_of(np.zeros(_SHAPE, np.uint8), (1.0, 1.0, 1.0))
    scheme = LabelScheme(labels={"background": 0, "cell": 1})
    made = LabelImage(Destination(tmp_path / "out.zarr"), image, scheme, _CHUNK)
    made.open(begun=False)
    made.write(_BOX, np.ones(_CHUNK, np.uint8))
    return LabelImage(made.place, image, scheme, _CHUNK)


def test_what_was_begun_is_taken_up(begun):
    begun.open(begun=True)
    assert (begun.read(_BOX) == 1).all()
    begun.write([(4, 8), *_BOX[1:]], np.ones(_CHUNK, np.uint8))
    begun.complete({})
    begun.settle()
    assert zarr.open(begun.place.path / "0", mode="r")[:].sum() == 2 * np.prod(_CHUNK)


@pytest.mark.parametrize("more", [{"compressor": {"id": "pickle"}}, {"filters": [{"id": "pickle"}]}])
def test_nothing_in_its_chunks_is_carried_out(begun, tmp_path, more):
    canary, folder = tmp_path / "executed", begun.place.unfinished / "0"
    (folder / "zarr.json").unlink()
    about = {"zarr_format": 2, "shape": _SHAPE, "chunks": _CHUNK, "dtype": "|u1", "fill_value": 0, "order": "C"}
    (folder / ".zarray").write_text(json.dumps({**about, "filters": None, "compressor": None, **more}))
    (folder / "0.0.0").write_bytes(pickle.dumps(_Order(canary)))
    with pytest.raises(ImageError, match="Delete .* and begin again"):
        begun.open(begun=True)
    assert not canary.exists()


@pytest.mark.parametrize(
    ("key", "value"), [("shape", [8, 12, 1 << 40]), ("chunk", [1, 1, 1]), ("chunk", [1 << 20] * 3)]
)
def test_it_has_the_shape_and_the_chunks_of_what_was_begun(begun, key, value):
    path = begun.place.unfinished / "0" / "zarr.json"
    about = json.loads(path.read_text())
    if key == "shape":
        about["shape"] = value
    else:
        about["chunk_grid"]["configuration"]["chunk_shape"] = value
    path.write_text(json.dumps(about))
    with pytest.raises(ImageError, match="was begun for an image of another shape, or in other parts"):
        begun.open(begun=True)
