"""Labels are saved where they lie and come back as they were."""

from __future__ import annotations

from pathlib import Path

import napari_builtins
import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from napari.layers import Image, Labels
from napari.settings import get_settings
from napari.utils.colormaps import DirectLabelColormap
from npe2 import PluginManifest

from napari_nnunet.errors import DatasetError, ImageError
from napari_nnunet.schema.colours import class_colour
from napari_nnunet.widgets.files import place as place_of_layers
from napari_nnunet.widgets.files import writer
from napari_nnunet.widgets.files.preferred import prefer
from napari_nnunet.widgets.files.reader import get_reader
from napari_nnunet.widgets.files.writer import write_labels_layer
from napari_nnunet.widgets.frame.layers import class_names_of

SHAPE = (4, 5, 6)
CORNERS = np.array([(z, y, x) for z in (0, 3) for y in (0, 4) for x in (0, 5)], float)


def _open(path):
    ((data, keywords, kind),) = get_reader(str(path))(str(path))
    return {"labels": Labels, "image": Image}[kind](data, **keywords)


def _save(layer, path):
    data, attributes, _ = layer.as_layer_data_tuple()
    write_labels_layer(str(path), data, attributes)
    return path


def _labels(shape=SHAPE, **place):
    values = np.random.default_rng(0).integers(0, 3, shape).astype(np.uint8)
    return Labels(values, **{"units": ["mm"] * len(shape), **place})


def _same_place(one, other, corners=CORNERS):
    a, b = (np.array([layer.data_to_world(corner) for corner in corners]) for layer in (one, other))
    np.testing.assert_allclose(a, b, atol=1e-3)


def _itk(path):
    image = sitk.GetImageFromArray(np.random.default_rng(0).integers(0, 3, SHAPE).astype(np.uint8))
    image.SetSpacing((0.7, 0.8, 2.5))
    image.SetOrigin((10.0, -20.0, 30.0))
    c, s = np.cos(0.3), np.sin(0.3)
    image.SetDirection((-c, s, 0, s, c, 0, 0, 0, -1))
    sitk.WriteImage(image, str(path))
    return path


def test_nii_lies_where_nii_gz_lies_and_its_labels_are_not_mirrored(tmp_path):
    plain, packed = (_open(_itk(tmp_path / f"a{ending}")) for ending in (".nii", ".nii.gz"))
    _same_place(plain, packed)
    assert plain.data.dtype == packed.data.dtype
    painted = _labels(scale=plain.scale, translate=plain.translate, affine=plain.affine, metadata=plain.metadata)
    saved = sitk.ReadImage(str(_save(painted, tmp_path / "p.nii.gz")))
    source = sitk.ReadImage(str(tmp_path / "a.nii"))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(saved), painted.data)
    np.testing.assert_allclose(saved.GetDirection(), source.GetDirection(), atol=1e-5)
    np.testing.assert_allclose(saved.GetOrigin(), source.GetOrigin(), atol=1e-4)


def test_a_nii_with_four_axes_opens_like_a_nii_gz(tmp_path):
    four = np.arange(2 * 3 * 4 * 5, dtype=np.float32).reshape(2, 3, 4, 5)
    for ending in (".nii", ".nii.gz"):
        nibabel.save(nibabel.Nifti1Image(four, np.diag([1, 2, 3, 1])), tmp_path / f"a{ending}")
    layers = [get_reader(str(tmp_path / name))(str(tmp_path / name)) for name in ("a.nii", "a.nii.gz")]
    assert len(layers[0]) == len(layers[1]) == 5
    for (one, _, _), (other, _, _) in zip(*layers, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_sheared_file_opens_sheared(tmp_path):
    affine = np.array([(0.7, 0.2, 0, 1), (0, 0.8, 0, 2), (0, 0, 2.5, 3), (0, 0, 0, 1)])
    nibabel.save(nibabel.Nifti1Image(np.zeros(SHAPE[::-1], np.uint8), affine), tmp_path / "a.nii.gz")
    layer = _open(tmp_path / "a.nii.gz")
    for z, y, x in CORNERS:
        expected = np.diag([-1, -1, 1, 1]) @ affine @ (x, y, z, 1)
        np.testing.assert_allclose(layer.data_to_world((z, y, x)), expected[2::-1], atol=1e-4)


@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".nrrd", ".mha", ".tif"])
@pytest.mark.parametrize(
    "place",
    [
        {"scale": (2.5, 0.8, 0.7), "translate": (3, -4, 5)},
        {"scale": (2.5, 0.8, 0.7), "rotate": (20, 30, 40), "translate": (3, -4, 5)},
        {"scale": (2.5, 0.8, 0.7), "shear": (0.2, 0.0, -0.1), "translate": (3, -4, 5)},
        {"scale": (-2.5, 0.8, 0.7)},
        {"scale": (2.5, 0.8, 0.7), "units": ["um"] * 3},
    ],
    ids=["moved", "turned", "sheared", "mirrored", "micrometres"],
)
def test_labels_lie_where_they_lay_when_they_were_saved(tmp_path, ending, place):
    layer = _labels(**place)
    again = _open(_save(layer, tmp_path / f"a{ending}"))
    assert isinstance(again, Labels)
    np.testing.assert_array_equal(again.data, layer.data)
    factor = 1e-3 if "units" in place else 1.0
    wanted = np.array([np.multiply(layer.data_to_world(corner), factor) for corner in CORNERS])
    np.testing.assert_allclose([again.data_to_world(corner) for corner in CORNERS], wanted, atol=1e-4)


def test_a_scale_corrected_by_hand_is_saved_and_an_untouched_place_is_the_files_own(tmp_path):
    layer = _open(_save(_labels(scale=(2, 1, 1), translate=(1, 2, 3)), tmp_path / "a.nii.gz"))
    layer.scale = (4, 1, 1)
    corrected = _open(_save(layer, tmp_path / "b.nii.gz"))
    np.testing.assert_allclose(corrected.scale, (4, 1, 1))
    _same_place(corrected, layer)
    source = _labels(metadata=_open(_itk(tmp_path / "c.nii.gz")).metadata)
    assert source.metadata["nnunet_geometry"]["origin"] != (0, 0, 0)
    moved = _open(_save(source, tmp_path / "d.nii.gz"))  # a layer that lies elsewhere than its metadata say
    _same_place(moved, source)


def test_a_place_that_a_format_cannot_hold_is_refused(tmp_path):
    flat = _labels(SHAPE[1:], shear=(0.3,), scale=(0.8, 0.7))
    with pytest.raises(ImageError, match=r"\.nii\.gz cannot hold where these voxels lie .*Save as \.nrrd"):
        _save(flat, tmp_path / "a.nii.gz")
    assert not list(tmp_path.iterdir())
    _same_place(_open(_save(flat, tmp_path / "a.nrrd")), flat, CORNERS[:, 1:])


def test_names_and_colours_come_back_and_a_new_class_is_seen(tmp_path):
    colours = {None: "red", 0: "transparent", 1: "#102030", 2: class_colour(2)}
    names = {"index": [0, 1, 2], "name": ["background", "Kern µ", "shell"]}
    layer = _labels(features=names, colormap=DirectLabelColormap(color_dict=colours))
    for ending in (".nii.gz", ".nrrd", ".mha", ".tif"):
        again = _open(_save(layer, tmp_path / f"a{ending}"))
        assert dict(zip(again.features["index"], again.features["name"], strict=True)) == {
            0: "background", 1: "Kern µ", 2: "shell"
        }  # fmt: skip
        np.testing.assert_allclose(again.get_color(1), layer.get_color(1), atol=1 / 255)
        assert again.get_color(9)[3] == 1
        assert again.get_color(999)[3] == 1


@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".nrrd", ".mha", ".tif"])
@pytest.mark.parametrize("shape", [(3, 4, 5, 6), (3, 5, 6)])
def test_a_time_series_comes_back_as_one_layer(tmp_path, shape, ending):
    n = len(shape)
    place = {
        "scale": (4.5, 2.5, 0.8, 0.7)[-n:] if n == 4 else (4.5, 0.8, 0.7),
        "translate": (0, 1, 2, 3)[:n],
        "units": ["second", *["mm"] * (n - 1)],
        "axis_labels": ["t", "z", "y", "x"] if n == 4 else ["t", "y", "x"],
    }
    layer = _labels(shape, **place)
    again = _open(_save(layer, tmp_path / f"a{ending}"))
    np.testing.assert_array_equal(again.data, layer.data)
    np.testing.assert_allclose(again.scale, layer.scale)
    np.testing.assert_allclose(again.translate, layer.translate)
    assert list(again.axis_labels) == place["axis_labels"]
    assert str(again.units[0]) == "second"


def test_time_that_is_not_the_first_axis_is_put_there(tmp_path):
    layer = _labels((4, 3, 5, 6), axis_labels=["z", "time", "y", "x"], scale=(2.5, 4.5, 0.8, 0.7))
    again = _open(_save(layer, tmp_path / "a.nii.gz"))
    np.testing.assert_array_equal(again.data, layer.data.swapaxes(0, 1))
    np.testing.assert_allclose(again.scale, (4.5, 2.5, 0.8, 0.7))


def test_what_no_file_holds_is_refused_with_the_reason(tmp_path):
    with pytest.raises(ImageError, match="picture and cannot store a volume or a time series"):
        _save(_labels((3, 5, 6), axis_labels=["t", "y", "x"]), tmp_path / "a.png")
    with pytest.raises(DatasetError, match="Labels with 5 axes cannot be saved"):
        _save(_labels((2, 2, 2, 3, 3)), tmp_path / "a.nii.gz")
    drift = np.eye(5)
    drift[1, 0] = 0.5
    with pytest.raises(ImageError, match="changes along an axis"):
        _save(_labels((2, 2, 3, 3), affine=drift), tmp_path / "a.nii.gz")


def test_what_was_changed_while_an_image_was_read_is_said(tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(place_of_layers, "show_warning", said.append)
    values = np.zeros(SHAPE, np.float32)
    values[0, 0, :2] = np.nan
    nibabel.Nifti1Image(values, np.eye(4)).to_filename(tmp_path / "a.nii.gz")
    _open(tmp_path / "a.nii.gz")
    assert said == ["a.nii.gz: 2 of its voxels are NaN or infinite and were read as 0."]


def test_rows_of_a_features_table_that_are_no_label_values_name_no_class(tmp_path):
    """Tables of other tools count in fractions, or have a row for what has no value; saving failed with them."""
    names = {"index": [0.0, 1.0, 2.5, np.nan, np.inf], "name": ["background", "organ", "a", "b", "c"]}
    again = _open(_save(_labels(features=names), tmp_path / "named.nii.gz"))
    assert class_names_of(again.features)[1] == "organ"
    assert class_names_of({"index": ["x", None, 3], "name": ["a", "b", "c"]}) == {3: "c"}
    assert class_names_of({"index": ["0", "1", "2.5"], "name": ["background", "organ", "a"]}) == {1: "organ"}


@pytest.mark.parametrize(("ending", "shape"), [(".nnunet.tif", SHAPE), (".nnunet.png", SHAPE[1:])])
def test_pictures_and_stacks_of_ours_come_back_as_labels_in_a_window(viewer, npe2pm, tmp_path, ending, shape):
    """napari's own reader and writer of .tif and .png lost classes, colours and voxel size without a word."""
    get_settings().plugins.extension2reader = {"*.tif": "napari", "*.png": "napari"}
    with npe2pm.tmp_plugin(manifest=PluginManifest.from_file(Path(napari_builtins.__file__).parent / "builtins.yaml")):
        place = {"scale": (2.5, 0.8, 0.7)[-len(shape) :], "units": ["mm"] * len(shape)}
        saved = viewer.add_labels(
            _labels(shape).data, **place, features={"index": [0, 1], "name": ["background", "Kern"]}
        )
        (path,) = viewer.layers.save(str(tmp_path / f"cells{ending}"), selected=True)
        prefer()
        (again,) = viewer.open(path, plugin=None)
    assert isinstance(again, Labels) and again.name == "cells"
    assert class_names_of(again.features) == {1: "Kern"}
    np.testing.assert_array_equal(again.data, saved.data)
    np.testing.assert_allclose(again.scale, saved.scale)


def test_who_saves_a_stack_that_napari_opens_itself_is_told(tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(writer, "show_info", said.append)
    _save(_labels(), tmp_path / "a.tif")
    assert said == ["napari by itself opens a.tif as pixels. a.nnunet.tif keeps classes and place."]
    _save(_labels(), tmp_path / "a.nnunet.tif")
    _save(_labels(), tmp_path / "a.nii.gz")
    assert len(said) == 1
