"""A result on disk lies where its image lies, or it is said that it does not."""

import numpy as np
import pytest
import SimpleITK as sitk

from formats_large import ome_zarr
from helpers import make_model, smooth_image
from napari_nnunet import predict_image
from napari_nnunet.errors import ImageError
from napari_nnunet.events import Note
from napari_nnunet.formats.images.files import read_labels
from napari_nnunet.formats.large.opening import Say, open_image

zarr = pytest.importorskip("zarr", reason="zarr is not installed: it comes with napari-nnunet[large]")
pytest.importorskip("yaozarrs", reason="yaozarrs is not installed: it comes with napari-nnunet[large]")
pytestmark = pytest.mark.usefixtures("known_arithmetic", "small_blocks")
HOW = {"device": "cpu", "backend": "torch", "precision": "float32", "mirroring": False, "chunk": (8, 16, 16)}
SHAPE, SPACING, ORIGIN = (10, 20, 22), (1.2, 1.0, 0.9), (30.0, -20.0, 10.5)  # z, y, x


@pytest.fixture(autouse=True)
def levels(monkeypatch):
    monkeypatch.setattr("napari_nnunet.formats.large.pyramid._COARSEST", 12)


def write_itk(path, direction=(1, 0, 0, 0, 1, 0, 0, 0, 1)):
    image = sitk.GetImageFromArray(smooth_image(SHAPE)[0])
    image.SetSpacing(SPACING[::-1])
    image.SetOrigin(ORIGIN[::-1])
    image.SetDirection([float(v) for v in direction])
    sitk.WriteImage(image, str(path))
    return path


def write_zarr(path, factor=1.0, unit="millimeter"):
    at = [{"type": "scale", "scale": [1.0, 1.0, 1.0]}]
    at += [{"type": "translation", "translation": [v * factor for v in ORIGIN]}]
    scales = [[v * factor for v in SPACING]]
    return ome_zarr(path, [smooth_image(SHAPE)[0]], scales=scales, unit=unit, coordinateTransformations=at)


def steps_of(path):
    return [
        {step["type"]: step[step["type"]] for step in dataset["coordinateTransformations"]}
        for dataset in zarr.open_group(str(path), mode="r").attrs["ome"]["multiscales"][0]["datasets"]
    ]


def segmented(tmp_path, source, name="result.zarr", **more):
    said = []
    predict_image(make_model(tmp_path), source, tmp_path / name, on_event=said.append, **HOW, **more)
    return tmp_path / name, [event.text for event in said if isinstance(event, Note) and event.level == "warning"]


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.nrrd", "a.zarr"])
def test_a_result_begins_where_its_image_begins_in_every_level(tmp_path, name):
    source = tmp_path / name
    write_zarr(source, 1000, "micrometer") if name == "a.zarr" else write_itk(source)
    found, warned = segmented(tmp_path, source)
    levels, factor = steps_of(found), 1000 if name == "a.zarr" else 1
    assert len(levels) > 1 and not [text for text in warned if "OME-Zarr" in text]
    for number, level in enumerate(levels):
        # Of two voxels the first is taken, and stays where it lay.
        np.testing.assert_allclose(level["translation"], np.array(ORIGIN) * factor, rtol=1e-6)
        np.testing.assert_allclose(open_image([found], Say(level=str(number))).lies.origin, ORIGIN, rtol=1e-6)


def test_voxels_without_a_unit_whose_size_is_given_keep_their_place_in_voxels(tmp_path):
    source = write_zarr(tmp_path / "a.zarr", unit=None)
    found, _ = segmented(tmp_path, source, spacing=tuple(2 * v for v in SPACING))
    np.testing.assert_allclose(steps_of(found)[0]["translation"], 2 * np.array(ORIGIN))


def test_a_file_keeps_the_place_of_an_ome_zarr(tmp_path):
    found, _ = segmented(tmp_path, write_zarr(tmp_path / "a.zarr"), "result.nrrd")
    _, geometry = read_labels(found)
    assert geometry.origin == pytest.approx(ORIGIN[::-1])


def test_channels_in_ome_zarr_that_begin_elsewhere_are_refused(tmp_path):
    write_zarr(tmp_path / "a.zarr")
    ome_zarr(tmp_path / "b.zarr", [smooth_image(SHAPE)[0]], scales=[SPACING], unit="millimeter")
    with pytest.raises(ImageError, match="does not lie on the grid of"):
        open_image([tmp_path / "a.zarr", tmp_path / "b.zarr"])


@pytest.mark.parametrize(
    ("direction", "how"),
    [
        ((-1, 0, 0, 0, -1, 0, 0, 0, 1), "is mirrored along y and x"),
        ((0, 1, 0, 1, 0, 0, 0, 0, -1), "has its axes in another order"),
        ((0.8, -0.6, 0, 0.6, 0.8, 0, 0, 0, 1), "is rotated"),
    ],
)
def test_what_ome_zarr_cannot_say_is_said(tmp_path, direction, how):
    source = write_itk(tmp_path / "a.nrrd", direction)
    found, warned = segmented(tmp_path, source)
    assert any(f"a.nrrd {how}, which OME-Zarr cannot say" in text and ".nrrd keeps it" in text for text in warned)
    np.testing.assert_allclose(steps_of(found)[0]["translation"], ORIGIN)
    _, warned = segmented(tmp_path, source, "result.nrrd")
    assert not [text for text in warned if "OME-Zarr" in text]


def test_a_direction_that_moves_no_voxel_by_a_tenth_is_not_worth_a_word(tmp_path):
    turned = np.array([[np.cos(1e-4), -np.sin(1e-4), 0], [np.sin(1e-4), np.cos(1e-4), 0], [0, 0, 1]])
    assert not open_image([write_itk(tmp_path / "a.nrrd", turned.ravel())]).unsaid
