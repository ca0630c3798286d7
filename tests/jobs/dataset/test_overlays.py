"""Pictures of cases show the most telling slice, in the colours of the layers, whatever the image is."""

from __future__ import annotations

import imageio.v3 as iio
import numpy as np
import pytest
import SimpleITK as sitk

from helpers import DATASET, make_dataset, write_nifti
from napari_nnunet.errors import DatasetError, PlanError, SettingsError
from napari_nnunet.events import CaseFailed, Note, drain
from napari_nnunet.formats.dataset.raw_dataset import TrainingCase
from napari_nnunet.formats.images.files import read_labels, write_image, write_labels
from napari_nnunet.formats.preprocessed.cases import store_case
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.jobs.dataset.overlays import draw_raw, draw_stored, overlay, plot_overlays, telling_slice
from napari_nnunet.schema.colours import class_rgb
from napari_nnunet.schema.geometry import Geometry
from napari_nnunet.schema.requests.dataset import OverlaysRequest

pytestmark = pytest.mark.usefixtures("in_one_process")


def labels_of(*counts, shape=(4, 5)):
    """Return labels with so many voxels of 1, 2, ... in each slice."""
    stack = np.zeros((len(counts), *shape), np.int16)
    for plane, of_slice in zip(stack, counts, strict=True):
        values = [value for value, count in enumerate(of_slice, 1) for _ in range(count)]
        plane.reshape(-1)[: len(values)] = values
    return stack


@pytest.mark.parametrize(
    ("counts", "slice_"),
    [
        ([(1,), (5,), (2,)], 1), ([(9, 0), (5, 1), (0, 0)], 1),  # a small class counts as much as a large one
        ([(3,), (3,)], 0), ([(), (), ()], 1), ([()], 0),
    ],
)  # fmt: skip
def test_the_slice_with_the_largest_shares_of_the_classes_is_shown(counts, slice_):
    assert telling_slice(labels_of(*counts)) == slice_


def test_voxels_outside_of_the_content_tell_nothing():
    stack = labels_of((0,), (1,), (0,))
    stack[2] = -1
    assert telling_slice(stack) == 1


@pytest.mark.parametrize("intensity", [0.0, 0.25, 1.0])
def test_colours_are_mixed_with_grey_and_nothing_else_changes(intensity):
    image = np.linspace(-50, 900, 20).reshape(4, 5)
    labels = np.zeros((4, 5), int)
    labels[1, 2], labels[3, 4], labels[0, 0] = 1, 300, -1
    plain, picture = overlay(image, np.zeros_like(labels)), overlay(image, labels, intensity)
    assert picture.dtype == np.uint8
    for place, value in (((1, 2), 1), ((3, 4), 300)):
        expected = (1 - intensity) * plain[place].astype(float) + intensity * np.array(class_rgb(value))
        np.testing.assert_allclose(picture[place], expected, atol=1.01)
    rest = labels <= 0
    np.testing.assert_array_equal(picture[rest], plain[rest])
    assert (plain.min(), plain.max()) == (0, 255)


@pytest.mark.parametrize("shape", [(1, 1), (1, 7)])
def test_an_image_of_one_grey_is_black(shape):
    assert not overlay(np.full(shape, 7.0), np.zeros(shape, int)).any()


def test_a_photograph_of_one_case_is_drawn_by_its_channel(tmp_path):
    geometry = Geometry(spacing=(1.0, 1.0))
    images = (tmp_path / "Fall ä_0000.png", tmp_path / "Fall ä_0001.png")
    for path, image in zip(images, (np.zeros((6, 7)), np.arange(42).reshape(6, 7)), strict=True):
        write_image(image.astype(np.uint8), geometry, path)
    write_labels(np.zeros((6, 7), np.uint8), geometry, tmp_path / "Fall ä.png")
    case = TrainingCase("Fall ä", images, tmp_path / "Fall ä.png")
    for channel in (0, 1):
        draw_raw(case, "NaturalImage2DIO", channel, 0.6, tmp_path / "out.png")
        picture = iio.imread(tmp_path / "out.png")
        assert picture.shape == (6, 7, 3)
        assert picture.any() == bool(channel)
    with pytest.raises(SettingsError, match="has 2 channels, numbered from 0; there is no channel 2"):
        draw_raw(case, "NaturalImage2DIO", 2, 0.6, tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()


def test_a_preprocessed_case_of_one_voxel_is_drawn(tmp_path):
    store_case(
        tmp_path, "a", np.ones((1, 1, 1, 1), np.float32), np.ones((1, 1, 1, 1), np.int16), {}, patch=(8, 8, 8),
        staging=tmp_path,
    )  # fmt: skip
    draw_stored(tmp_path, "a", 0, 1.0, tmp_path / "a.png")
    assert tuple(iio.imread(tmp_path / "a.png")[0, 0]) == class_rgb(1)


def test_a_case_that_cannot_be_drawn_is_named_and_the_others_are_drawn(tmp_path):
    raw = make_dataset(tmp_path, cases=2)
    (raw / "labelsTr" / "c0.nii.gz").write_bytes(b"x")
    job = plot_overlays(Workspace.at(tmp_path), OverlaysRequest(dataset=DATASET, target=tmp_path / "out", raw=True))
    events = []
    with pytest.raises(DatasetError, match="1 of 2 cases could not be drawn"):
        drain(job, events.append)
    (failed,) = [event for event in events if isinstance(event, CaseFailed)]
    assert failed.case == "c0"
    assert "c0.nii.gz" in failed.message
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["c1.png"]


def test_labels_with_swapped_axes_are_not_drawn_as_something_else(tmp_path):
    raw = make_dataset(tmp_path, cases=1)
    path = raw / "labelsTr" / "c0.nii.gz"
    write_nifti(path, read_labels(path)[0].transpose(1, 0, 2))
    job = plot_overlays(Workspace.at(tmp_path), OverlaysRequest(dataset=DATASET, target=tmp_path / "out", raw=True))
    with pytest.raises(DatasetError, match=r"The labels have \(24, 20, 22\) voxels, the image has \(20, 24, 22\)"):
        drain(job)


def test_data_that_were_never_preprocessed_are_told(tmp_path):
    make_dataset(tmp_path, cases=1)
    with pytest.raises(PlanError, match="no plans named"):
        next(plot_overlays(Workspace.at(tmp_path), OverlaysRequest(dataset=DATASET, target=tmp_path / "out")))


def test_voxels_that_are_no_numbers_are_black_and_spoil_no_others():
    image = np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)
    plain = overlay(image, np.zeros((8, 8), int))
    image[0, 0], image[0, 1] = np.nan, np.inf
    drawn = overlay(image, np.zeros((8, 8), int))
    assert drawn[0, 0].tolist() == [0, 0, 0] and drawn[-1, -1].tolist() == [255] * 3
    assert np.abs(drawn[1:].astype(int) - plain[1:]).max() < 12
    assert not overlay(np.full((4, 4), np.nan, np.float32), np.zeros((4, 4), int)).any()


def test_labels_that_are_stored_in_another_order_than_their_image_are_drawn_as_they_lie_and_that_is_said(tmp_path):
    raw = make_dataset(tmp_path, cases=2)
    path = sorted((raw / "labelsTr").iterdir())[0]
    sitk.WriteImage(sitk.Flip(sitk.ReadImage(str(path)), (True, False, False)), str(path))
    events = []
    request = OverlaysRequest(dataset=DATASET, target=tmp_path / "out", raw=True, workers=1)
    assert drain(plot_overlays(Workspace.at(tmp_path), request), events.append) == 2
    (said,) = [event.text for event in events if isinstance(event, Note) and event.level == "warning"]
    assert said.startswith(path.name.removesuffix(".nii.gz"))
    assert "mirrored along x" in said
    assert "The pictures show the voxels as they lie." in said
