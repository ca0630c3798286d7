"""Labels in OME-Zarr open in napari as a lazy Labels layer, where they lie, with names and colours."""

from __future__ import annotations

import numpy as np
import pytest
from napari.layers import Labels

from formats_large import ome_zarr
from helpers import make_model, smooth_image
from napari_nnunet import predict_image
from napari_nnunet.errors import ImageError
from napari_nnunet.formats.large import pyramid
from napari_nnunet.schema.colours import class_rgb
from napari_nnunet.widgets.files.reader import get_reader

zarr = pytest.importorskip("zarr", reason="zarr is not installed: it comes with napari-nnunet[large]")
pytest.importorskip("yaozarrs", reason="yaozarrs is not installed: it comes with napari-nnunet[large]")
SHAPE = (20, 40, 36)


@pytest.fixture
def placed(tmp_path):
    """An image in micrometres that does not begin at 0."""

    def make(version="0.5"):
        path = ome_zarr(
            tmp_path / f"image-{version}.zarr", [smooth_image(SHAPE)[0]], version=version, unit="micrometer",
            scales=[(1000.0, 1000.0, 1000.0)],
        )  # fmt: skip
        group = zarr.open_group(str(path), mode="r+")
        known = group.attrs.asdict()
        entry = (known["ome"] if version == "0.5" else known)["multiscales"][0]
        entry["datasets"][0]["coordinateTransformations"].append(
            {"type": "translation", "translation": [5000.0, -2000.0, 300.0]}
        )
        group.attrs.put(known)
        return path

    return make


@pytest.fixture(autouse=True)
def cut(monkeypatch):
    monkeypatch.setattr(pyramid, "_COARSEST", 10)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_a_result_is_opened_where_its_image_lies_with_names_and_colours(viewer, tmp_path, placed, version, monkeypatch):
    source = placed(version)
    target = source / "labels" / "organs"
    predict_image(make_model(tmp_path), source, target, mirroring=False, chunk=(8, 16, 16), device="cpu")
    if version == "0.5":
        target = target.rename(tmp_path / "organs.zarr")
    read = []
    getitem = zarr.Array.__getitem__
    monkeypatch.setattr(zarr.Array, "__getitem__", lambda self, key: read.append(self) or getitem(self, key))
    get_reader(str(target))(str(target))
    assert not read
    (layer,) = viewer.open(str(target), plugin="napari-nnunet")
    assert isinstance(layer, Labels) and layer.multiscale and len(layer.data) == 3 and layer.name == "organs"
    assert np.array_equal(layer.data[0][:], zarr.open(str(target / "0"), mode="r")[:])
    np.testing.assert_allclose(layer.scale, (1000, 1000, 1000))
    np.testing.assert_allclose(layer.translate, (5000, -2000, 300))
    assert [str(unit) for unit in layer.units] == ["micrometer"] * 3 and layer.axis_labels == ("z", "y", "x")
    assert list(layer.features["name"]) == ["background", "organ", "lesion"]
    np.testing.assert_allclose(layer.colormap.color_dict[2][:3], np.array(class_rgb(2)) / 255, atol=1e-3)
    assert layer.metadata["nnunet_result_on_disk"] == str(target)


def test_a_time_series_and_channels_of_another_program_are_opened(viewer, tmp_path):
    labels = np.random.default_rng(0).integers(0, 5, (3, 2, 4, 16, 16), dtype=np.uint16)
    path = ome_zarr(tmp_path / "cells.zarr", [labels], axes="tczyx", scales=[(2.0, 1, 1, 1, 1)], unit="furlong")
    group = zarr.open_group(str(path), mode="r+")
    group.attrs["ome"] = {**group.attrs["ome"], "image-label": {"version": "0.5"}}
    layers = viewer.open(str(path), plugin="napari-nnunet")
    assert [layer.name for layer in layers] == ["cells 0", "cells 1"]
    for c, layer in enumerate(layers):
        assert np.array_equal(np.asarray(layer.data), labels[:, c])
        assert layer.axis_labels == ("t", "z", "y", "x") and layer.scale[0] == 2
        assert {str(unit) for unit in layer.units} == {"pixel"}
        assert "nnunet_result_on_disk" not in layer.metadata


def test_images_are_left_to_others(tmp_path, placed):
    assert get_reader(str(placed())) is None
    assert get_reader(str(placed() / "0")) is None


def test_an_unfinished_result_says_how_to_finish_it(tmp_path):
    folder = tmp_path / "organs.zarr.unfinished"
    folder.mkdir()
    (folder / ".napari-nnunet.jsonl").write_text("{}\n")
    with pytest.raises(ImageError, match=r"choose organs.zarr as Result of 'Labels on disk' .* press Continue"):
        get_reader(str(folder))(str(folder))


def test_a_damaged_result_is_a_sentence(tmp_path):
    path = ome_zarr(tmp_path / "bad.zarr", [np.zeros((4, 8, 8), np.uint8)])
    group = zarr.open_group(str(path), mode="r+")
    group.attrs["ome"] = {**group.attrs["ome"], "image-label": {"version": "0.5"}}
    (path / "0" / "zarr.json").unlink()
    with pytest.raises(ImageError, match="name the level 0, which is not there"):
        get_reader(str(path))(str(path))
