"""A suggested place that was labelled becomes a case, or part of one; what nobody looked at stays open."""

from __future__ import annotations

import imageio.v3 as iio
import numpy as np
import pytest

from helpers import make_dataset, smooth_image, write_nifti
from napari_nnunet.engine.labelling.doubt import Part
from napari_nnunet.engine.labelling.queries import Spot
from napari_nnunet.errors import DatasetError
from napari_nnunet.events import drain
from napari_nnunet.formats.dataset.case_files import Case
from napari_nnunet.formats.dataset.raw_dataset import open_dataset
from napari_nnunet.formats.dataset.raw_writer import create_dataset, save_case
from napari_nnunet.formats.images.files import read_labels
from napari_nnunet.jobs.labelling.suspects import Examined
from napari_nnunet.jobs.labelling.take import take_correction, take_prediction
from napari_nnunet.schema.geometry import Geometry

SHAPE = (6, 12, 10)
WHOLE = tuple((0, n) for n in SHAPE)


@pytest.fixture
def folder(tmp_path):
    return make_dataset(tmp_path, cases=1, shape=SHAPE)


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "u_0000.nii.gz"
    write_nifti(path, smooth_image(SHAPE, seed=9)[0], (1.0, 0.8, 0.8))
    return Case("u", (path,))


def place(box, number=0):
    return Spot("u", number, box, 0, 0.0, {}, 0, (0, 0, 0))


def drawn(folder):
    case = next(case for case in open_dataset(folder).cases if case.name == "u")
    return read_labels(case.label)


def test_a_whole_image_becomes_a_case_on_its_own_grid(folder, image):
    labels = np.random.default_rng(0).integers(0, 2, SHAPE)
    drain(take_correction(folder, place(WHOLE), image, labels))
    stored, geometry = drawn(folder)
    np.testing.assert_array_equal(stored, labels)
    assert geometry.spacing == pytest.approx((1.0, 0.8, 0.8))
    assert open_dataset(folder).info.labels.ignore_label is None


def test_outside_of_a_slice_nothing_counts_as_annotated(folder, image):
    labels = np.ones(SHAPE, np.uint8)
    drain(take_correction(folder, place(((2, 3), (0, 12), (0, 10))), image, labels))
    stored, _ = drawn(folder)
    assert open_dataset(folder).info.labels.ignore_label == 2
    assert (stored[2] == 1).all()
    assert (np.delete(stored, 2, axis=0) == 2).all()


def test_a_second_place_of_an_image_is_added_to_the_first(folder, image):
    drain(take_correction(folder, place(((2, 3), (0, 12), (0, 10))), image, np.ones(SHAPE, np.uint8)))
    drain(take_correction(folder, place(((4, 5), (0, 12), (0, 10))), image, np.zeros(SHAPE, np.uint8)))
    stored, _ = drawn(folder)
    assert [int(plane.max()) for plane in stored] == [2, 2, 1, 2, 0, 2]


@pytest.mark.parametrize(
    ("labels", "said"),
    [(np.full(SHAPE, 7), "knows 0, 1 only"), (np.zeros((6, 12, 11), int), r"\(6, 12, 11\) voxels")],
)
def test_labels_that_do_not_fit_are_refused_and_nothing_is_written(folder, image, labels, said):
    with pytest.raises(DatasetError, match=said):
        drain(take_correction(folder, place(WHOLE), image, labels))
    assert [case.name for case in open_dataset(folder).cases] == ["c0"]


def examined(folder, seen, part=None):
    path = folder.parents[1] / "seen.nii.gz"
    write_nifti(path, seen, (1.0, 0.8, 0.8))
    return Examined("c0", 1.0, True, {}, () if part is None else (part,), (), (), 1.0, path)


def test_a_prediction_is_taken_for_one_part_only(folder):
    before, _ = read_labels(open_dataset(folder).cases[0].label)
    drawn = np.zeros(SHAPE, np.uint8)
    seen = drawn.copy()
    seen[1:3, 2:5, 2:5] = 1
    seen[4, 8:11, 6:9] = 1
    write_nifti(folder / "labelsTr" / "c0.nii.gz", drawn, (1.0, 0.8, 0.8))
    part = Part(label=0, seen=1, voxels=18, certainty=1.0, evidence=1.0, place=(1, 3, 3))
    path = drain(take_prediction(folder, examined(folder, seen, part), part))
    stored, _ = read_labels(path)
    assert (stored[1:3, 2:5, 2:5] == 1).all()
    assert stored.sum() == 18
    assert before.shape == stored.shape
    assert list((folder / "trash").rglob("c0.nii.gz"))


def test_a_prediction_is_taken_for_the_whole_case(folder):
    seen = np.random.default_rng(1).integers(0, 2, SHAPE).astype(np.uint8)
    stored, _ = read_labels(drain(take_prediction(folder, examined(folder, seen), None)))
    np.testing.assert_array_equal(stored, seen)


def test_what_nobody_annotated_stays_so_where_a_prediction_is_taken_for_the_whole_case(folder, image):
    drain(take_correction(folder, place(((2, 3), (0, 12), (0, 10))), image, np.ones(SHAPE, np.uint8)))
    path = folder.parents[1] / "seen.nii.gz"
    write_nifti(path, np.zeros(SHAPE, np.uint8), (1.0, 0.8, 0.8))
    stored, _ = read_labels(drain(take_prediction(folder, Examined("u", 1.0, True, {}, (), (), (), 1.0, path), None)))
    assert [np.unique(plane).tolist() for plane in stored] == [[2], [2], [0], [2], [2], [2]]


def test_another_image_of_the_same_name_is_not_taken_for_the_case(folder, image):
    drain(take_correction(folder, place(((2, 3), (0, 12), (0, 10))), image, np.ones(SHAPE, np.uint8)))
    before = drawn(folder)[0]
    write_nifti(image.files[0], smooth_image(SHAPE, seed=10)[0], (1.0, 0.8, 0.8))
    with pytest.raises(DatasetError, match="has another image with the name u: .* Give one of the two images another"):
        drain(take_correction(folder, place(((4, 5), (0, 12), (0, 10))), image, np.zeros(SHAPE, np.uint8)))
    np.testing.assert_array_equal(drawn(folder)[0], before)


def test_what_is_not_seen_any_more_is_not_taken(folder):
    part = Part(label=0, seen=1, voxels=18, certainty=1.0, evidence=1.0, place=(1, 3, 3))
    write_nifti(folder / "labelsTr" / "c0.nii.gz", np.zeros(SHAPE, np.uint8), (1.0, 0.8, 0.8))
    with pytest.raises(DatasetError, match="or what the network sees in them, changed"):
        drain(take_prediction(folder, examined(folder, np.zeros(SHAPE, np.uint8), part), part))


def test_labels_that_changed_since_are_not_overwritten(folder):
    part = Part(label=1, seen=0, voxels=18, certainty=1.0, evidence=1.0, place=(1, 3, 3))
    write_nifti(folder / "labelsTr" / "c0.nii.gz", np.zeros(SHAPE, np.uint8), (1.0, 0.8, 0.8))
    with pytest.raises(DatasetError, match="changed since they were looked at"):
        drain(take_prediction(folder, examined(folder, np.zeros(SHAPE, np.uint8), part), part))


def test_a_picture_that_was_read_as_floating_point_becomes_a_picture_of_a_dataset_of_pictures(tmp_path):
    folder = tmp_path / "Dataset003_Sections"
    values = np.arange(120, dtype=np.uint8).reshape(12, 10)
    create_dataset(folder, ("EM",), {"background": 0, "membrane": 1}, ".png")
    save_case(folder, "first", [values], (values > 50).astype(np.uint8), Geometry(spacing=(1.0, 1.0)))
    iio.imwrite(tmp_path / "u.png", values)
    labels = (values > 60).astype(np.uint8)
    spot = Spot("u", 0, ((0, 12), (0, 10)), 0, 0.0, {}, 0, (0, 0))
    case = drain(take_correction(folder, spot, Case("u", (tmp_path / "u.png",)), labels))
    stored = iio.imread(case.images[0])
    assert stored.dtype == np.uint8
    np.testing.assert_array_equal(stored, values)
    np.testing.assert_array_equal(read_labels(case.label)[0], labels)
