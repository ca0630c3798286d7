"""Labels become radiotherapy structures whose contours hold the same voxels, wherever their series lies."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("highdicom", reason="highdicom is not installed: it comes with napari-nnunet[dicom]")

import pydicom
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from skimage.draw import polygon

from dicom_files import FRAME, PATIENT, SECRET, STUDY, write_enhanced, write_series
from napari_nnunet.errors import ImageError
from napari_nnunet.formats.dicom.codes import codes_of
from napari_nnunet.formats.dicom.contours import outlines, write_structures
from napari_nnunet.formats.dicom.planes import SlicePlanes
from napari_nnunet.formats.dicom.segmentation import DicomSegment
from napari_nnunet.formats.dicom.series import slice_files
from napari_nnunet.formats.dicom.structures import read_structures

SHAPE = (6, 12, 14)
IMAGE = np.zeros(SHAPE, np.int16)
OTHER_WAYS = [(1, 0, 0, 0, 1, 0), (0, 1, 0, 0, 0, -1), (0.8, 0.6, 0, -0.6, 0.8, 0)]


def segment(name, *values):
    return DicomSegment(name, values, codes_of(name, values[0]))


CLASSES = [segment("left_kidney", 1), segment("Tumour", 2), segment("gizmo", 3)]


def written(labels, series, path, segments=CLASSES):
    write_structures(labels, path, source=slice_files(series), segments=segments)
    return path


def noise(shape=SHAPE, seed=0):
    return np.random.default_rng(seed).integers(0, 3, shape).astype(np.uint8)


@settings(max_examples=60, deadline=None)
@given(arrays(bool, st.tuples(st.just(1), st.integers(1, 7), st.integers(1, 7))))
def test_the_outline_of_any_shape_holds_its_voxels_and_no_others_and_has_their_area(mask):
    found, area = np.zeros(mask.shape[1:], bool), 0.0
    for z, points in outlines(mask):
        assert z == 0
        found[polygon(points[:, 0], points[:, 1], found.shape)] ^= True
        y, x = points.T
        area += abs(np.dot(y, np.roll(x, 1)) - np.dot(x, np.roll(y, 1))) / 2
    np.testing.assert_array_equal(found, mask[0])
    assert area == pytest.approx(mask.sum())


@pytest.mark.parametrize("direction", OTHER_WAYS)
def test_labels_come_back(tmp_path, direction):
    series, labels = write_series(tmp_path / "series", IMAGE, direction=direction), noise()
    found = read_structures(written(labels, series, tmp_path / "rs.dcm"), [series])
    np.testing.assert_array_equal(found.labels, labels)
    assert found.names == {1: "left_kidney", 2: "Tumour"}
    assert "gizmo have no closed contours" in " ".join(found.geometry.remarks)


def test_labels_come_back_from_frames_in_any_order(tmp_path):
    series, labels = write_enhanced(tmp_path / "ct.dcm", IMAGE, order=[3, 1, 5, 0, 2, 4]), noise()
    found = read_structures(written(labels, series, tmp_path / "rs.dcm"), [series])
    np.testing.assert_array_equal(found.labels, labels)


def test_contours_lie_in_the_slices_themselves_where_these_lean_by_less_than_a_pixel(tmp_path):
    def lean(file, z):
        file.ImagePositionPatient[1] += 0.04 * z

    series, labels = write_series(tmp_path / "series", IMAGE, change=lean), noise()
    path = written(labels, series, tmp_path / "rs.dcm")
    np.testing.assert_array_equal(read_structures(path, [series]).labels, labels)
    last = pydicom.dcmread(slice_files(series)[5])
    contours = [c for roi in pydicom.dcmread(path).ROIContourSequence[:2] for c in roi.ContourSequence]
    points = np.concatenate([np.reshape(c.ContourData, (-1, 3)) for c in contours if c.ContourData[2] == 15.0])
    assert points[:, 1].min() == pytest.approx(float(last.ImagePositionPatient[1]) - 0.3)


def uneven(heights):
    """Return a change that puts every slice of a series at a height of its own."""

    def change(file, z):
        file.ImagePositionPatient[2] = f"{heights[z]:.4f}"

    return change


@pytest.mark.parametrize(("first", "second", "count"), [(3.0, 3.2, 60), (4.85, 5.1, 40), (3.2, 3.0, 60)])
@pytest.mark.parametrize("turned", [False, True])
def test_labels_come_back_into_their_slices_where_these_lie_unevenly(tmp_path, first, second, count, turned):
    heights = np.cumsum([first] * (count // 2) + [second] * (count - count // 2))
    series = write_series(
        tmp_path / "series", np.zeros((count, 8, 9), np.int16), change=uneven(heights[::-1] if turned else heights)
    )
    labels = np.zeros((count, 8, 9), np.uint8)
    labels[count // 2 - 4 : count // 2 + 5, 2:6, 3:5] = 1
    labels[[0, -1], 1:3, 1:3] = 2
    found = read_structures(written(labels, series, tmp_path / "rs.dcm"), [series])
    np.testing.assert_array_equal(found.labels, labels)
    assert "go beyond" not in " ".join(found.geometry.remarks)


@given(
    st.lists(st.floats(1.0, 1.1), max_size=80),
    st.floats(0.5, 8.0),
    st.sampled_from([1, -1]),
    st.floats(0.0, 1.0),
)
def test_a_slice_has_the_whole_number_of_its_place_however_uneven_the_gaps_are(gaps, size, way, share):
    heights = way * size * np.concatenate([[0.0], np.cumsum(gaps)]) + 17.0
    places = heights[:, None] * [0.0, 0.0, 1.0] + [3.0, 4.0, 0.0]
    planes = SlicePlanes(places, np.array([0.5, 0, 0]), np.array([0, 0.6, 0]))
    for z in range(len(places)):
        corners = np.array([[0.0, 0.0], [2.5, -0.5]])
        depth, points = planes.in_voxels(planes.in_mm(z, corners))
        np.testing.assert_allclose(depth, z, atol=1e-9)
        np.testing.assert_allclose(points, corners, atol=1e-9)
    if gaps:  # between slices, and beyond the first and the last one, depth goes on with the gap there
        steps = np.diff(places, axis=0)
        between = np.concatenate([places[:-1] + share * steps, places[-1:]])
        depth, _ = planes.in_voxels(between)
        np.testing.assert_allclose(depth, [*(np.arange(len(between) - 1) + share), len(gaps)], atol=1e-9)
        outside = np.array([places[0] - 2.5 * steps[0], places[-1] + 1.5 * steps[-1]])
        np.testing.assert_allclose(planes.in_voxels(outside)[0], [-2.5, len(gaps) + 1.5], atol=1e-9)


def test_pieces_that_are_found_in_single_slices_are_read_as_they_were_written(tmp_path):
    series, labels = write_series(tmp_path / "series", IMAGE), np.zeros(SHAPE, np.uint8)
    labels[[0, 2, 5], 3, 4] = 1
    found = read_structures(written(labels, series, tmp_path / "rs.dcm"), [series])
    np.testing.assert_array_equal(found.labels, labels)


def test_regions_that_share_values_are_structures_that_overlap(tmp_path):
    series, labels = write_series(tmp_path / "series", IMAGE), noise()
    regions = [segment("whole", 1, 2), segment("core", 2)]
    masks = dict(read_structures(written(labels, series, tmp_path / "rs.dcm", regions), [series]).masks)
    np.testing.assert_array_equal(masks[1], labels > 0)
    np.testing.assert_array_equal(masks[2], labels == 2)


def test_values_with_gaps_come_back_as_they_were(tmp_path):
    series, labels = write_series(tmp_path / "series", IMAGE), noise()
    labels[labels == 2] = 40
    path = written(labels, series, tmp_path / "rs.dcm", [segment("Tumour", 40), segment("left_kidney", 1)])
    found = read_structures(path, [series])
    np.testing.assert_array_equal(found.labels, labels)
    assert found.names == {40: "Tumour", 1: "left_kidney"}


def test_structures_that_have_several_values_are_numbered_in_their_order(tmp_path):
    series, labels = write_series(tmp_path / "series", IMAGE), noise()
    path = written(labels, series, tmp_path / "rs.dcm", [segment("both", 1, 2), segment("none", 7)])
    assert [roi.ROINumber for roi in pydicom.dcmread(path).StructureSetROISequence] == [1, 2]
    np.testing.assert_array_equal(read_structures(path, [series]).labels, labels > 0)


def test_they_name_patient_study_images_and_codes_and_nothing_that_is_private(tmp_path):
    series = write_series(tmp_path / "series", IMAGE)
    path = written(noise(), series, tmp_path / "rs.dcm")
    file, images = pydicom.dcmread(path), [pydicom.dcmread(each) for each in slice_files(series)]
    assert (file.PatientName, file.StudyInstanceUID, file.FrameOfReferenceUID) == (PATIENT, STUDY, FRAME)
    assert SECRET.encode() not in path.read_bytes()
    (study,) = file.ReferencedFrameOfReferenceSequence[0].RTReferencedStudySequence
    (drawn_in,) = study.RTReferencedSeriesSequence
    assert drawn_in.SeriesInstanceUID == images[0].SeriesInstanceUID
    uids = [image.SOPInstanceUID for image in images]
    assert [each.ReferencedSOPInstanceUID for each in drawn_in.ContourImageSequence] == uids
    for contour in file.ROIContourSequence[0].ContourSequence:
        z = round((contour.ContourData[2] - 5.0) / 2)
        assert contour.ContourImageSequence[0].ReferencedSOPInstanceUID == uids[z]
    codes = [each.RTROIIdentificationCodeSequence[0] for each in file.RTROIObservationsSequence]
    assert [code.CodeMeaning for code in codes] == ["Kidney", "Neoplasm", "gizmo"]
    assert codes[0].SegmentedPropertyTypeModifierCodeSequence[0].CodeMeaning == "Left"


def test_a_contour_may_be_longer_than_16_bits_can_say(tmp_path):
    shape = (1, 1600, 5)
    series = write_series(tmp_path / "series", np.zeros(shape, np.int16))
    labels = np.ones(shape, np.uint8)
    labels[0, ::2, 1:] = 0  # a comb
    path = written(labels, series, tmp_path / "rs.dcm")
    (contour,) = pydicom.dcmread(path).ROIContourSequence[0].ContourSequence
    assert contour.get_item("ContourData").length > 1 << 16
    np.testing.assert_array_equal(read_structures(path, [series]).labels, labels)


@pytest.mark.parametrize(
    ("element", "what"), [("PixelSpacing", "how large its pixels are"), ("ImagePositionPatient", "where it lies")]
)
def test_a_series_that_does_not_say_where_it_lies_is_refused(tmp_path, element, what):
    series = write_series(tmp_path / "series", IMAGE[:1], change=lambda file, _: delattr(file, element))
    with pytest.raises(ImageError, match=f"does not say {what} .{element} is missing or damaged"):
        written(noise((1, *SHAPE[1:])), series, tmp_path / "rs.dcm")
    assert not (tmp_path / "rs.dcm").exists()


def test_labels_of_another_size_are_refused(tmp_path):
    series = write_series(tmp_path / "series", IMAGE)
    with pytest.raises(ImageError, match=r"The labels have 5 x 12 x 14 voxels, .* has 6 x 12 x 14"):
        written(noise()[1:], series, tmp_path / "rs.dcm")
