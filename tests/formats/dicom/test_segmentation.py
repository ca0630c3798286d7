"""Labels become a DICOM-SEG of the series they were made of, and come back as they were."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("highdicom", reason="highdicom is not installed: it comes with napari-nnunet[dicom]")

import highdicom
import pydicom

from dicom_files import PATIENT, SECRET, STRUCTURES, STUDY, header, save, write_enhanced, write_series
from napari_nnunet.errors import ImageError, SettingsError
from napari_nnunet.formats.dicom import codes, segmentation
from napari_nnunet.formats.dicom import series as dicom
from napari_nnunet.formats.dicom.output import SegmentationOutput
from napari_nnunet.schema.dataset import LabelScheme

SHAPE = (6, 5, 7)  # 35 pixels: frames do not end with bytes
IMAGE = np.arange(np.prod(SHAPE), dtype=np.int16).reshape(SHAPE)
CLASSES = LabelScheme(labels={"background": 0, "left_kidney": 1, "Tumour": 2, "gizmo": 3})
REGIONS = LabelScheme(
    labels={"background": 0, "whole": (1, 2), "edema": (1,), "core": (2,)}, regions_class_order=(1, 1, 2)
)


def drawn(*boxes):
    labels = np.zeros(SHAPE, np.uint8)
    for value, z, y, x in boxes:
        labels[z, y, x] = value
    return labels


INSIDE = drawn((1, slice(2, 4), slice(1, 3), slice(2, 4)), (2, 3, 4, 6), (3, 4, 0, 0))
FULL = drawn((1, slice(None), 2, slice(None)), (2, 5, 0, 0))
NOTHING = drawn()
FIRST, LAST = drawn((2, 0, 0, 0)), drawn((2, 5, 4, 6), (1, 5, 0, 0))


def output(scheme=CLASSES, table=None):
    return SegmentationOutput.of(scheme, None, table)


@pytest.fixture
def series(tmp_path):
    return write_series(tmp_path / "series", IMAGE, direction=(0, 1, 0, 0, 0, -1))


@pytest.mark.parametrize(
    "labels", [INSIDE, FULL, NOTHING, FIRST, LAST], ids=["inside", "full", "nothing", "first", "last"]
)
def test_labels_and_their_place_come_back(series, tmp_path, labels):
    _, geometry = dicom.read_series(series)
    output().write(labels, tmp_path / "seg.dcm", source=series, series="", kinds=None)
    found = segmentation.read_segmentation(tmp_path / "seg.dcm")
    np.testing.assert_array_equal(found.labels, labels)
    assert found.names == {1: "left_kidney", 2: "Tumour", 3: "gizmo"}
    assert found.geometry.spacing == pytest.approx(geometry.spacing)
    assert found.geometry.origin == pytest.approx(geometry.origin)
    np.testing.assert_allclose(found.geometry.direction, geometry.direction, atol=1e-6)


@pytest.mark.parametrize("order", [None, [3, 1, 5, 0, 2, 4]])
@pytest.mark.parametrize("labels", [INSIDE, NOTHING, LAST], ids=["inside", "nothing", "last"])
def test_they_come_back_from_a_file_with_frames_in_any_order(tmp_path, order, labels):
    image = write_enhanced(tmp_path / "image.dcm", IMAGE, order=order)
    output().write(labels, tmp_path / "seg.dcm", source=image, series="", kinds=None)
    found = segmentation.read_segmentation(tmp_path / "seg.dcm")
    np.testing.assert_array_equal(found.labels, labels)
    assert found.geometry.origin == pytest.approx((-7, 9, 5))


def test_they_come_back_from_an_enhanced_file_of_one_frame(tmp_path):
    image = write_enhanced(tmp_path / "image.dcm", IMAGE[2:3])
    output().write(INSIDE[2:3], tmp_path / "seg.dcm", source=image, series="", kinds=None)
    found = segmentation.read_segmentation(tmp_path / "seg.dcm")
    np.testing.assert_array_equal(found.labels, INSIDE[2:3])
    assert found.geometry.origin == pytest.approx((-7, 9, 5))


def test_another_program_reads_it_and_finds_the_slices_it_was_made_of(series, tmp_path):
    output().write(INSIDE, tmp_path / "seg.dcm", source=series, series="", kinds=None)
    seg = highdicom.seg.segread(tmp_path / "seg.dcm")
    image = pydicom.dcmread(next(series.glob("*.dcm")))
    assert (seg.StudyInstanceUID, seg.FrameOfReferenceUID) == (STUDY, image.FrameOfReferenceUID)
    assert seg.ReferencedSeriesSequence[0].SeriesInstanceUID == image.SeriesInstanceUID
    assert len(seg.ReferencedSeriesSequence[0].ReferencedInstanceSequence) == 6
    assert seg.SeriesNumber == 1003
    for frame in seg.PerFrameFunctionalGroupsSequence:
        source = frame.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        (file,) = [f for f in map(pydicom.dcmread, series.glob("*.dcm")) if f.SOPInstanceUID == source]
        np.testing.assert_allclose(
            frame.PlanePositionSequence[0].ImagePositionPatient, file.ImagePositionPatient, atol=1e-6
        )
    kidney, tumour, gizmo = seg.SegmentSequence
    assert kidney.SegmentedPropertyTypeCodeSequence[0].CodeValue == "64033007"
    side = kidney.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence[0]
    assert (side.CodeMeaning, side.CodeValue) == ("Left", "7771000")
    assert tumour.SegmentedPropertyCategoryCodeSequence[0].CodeMeaning == "Morphologically Abnormal Structure"
    assert gizmo.SegmentedPropertyTypeCodeSequence[0].CodingSchemeDesignator == codes.LOCAL


def test_private_elements_stay_in_the_series(series, tmp_path):
    output().write(INSIDE, tmp_path / "seg.dcm", source=series, series="", kinds=None)
    seg = pydicom.dcmread(tmp_path / "seg.dcm")
    private = []
    seg.walk(lambda _, element: private.append(element) if element.tag.is_private else None)
    assert not private
    assert SECRET.encode() not in (tmp_path / "seg.dcm").read_bytes()
    assert seg.PatientName == PATIENT  # an archive files it by patient and study


@pytest.mark.parametrize(("charset", "name"), [("ISO_IR 100", "Müller^Jürgen"), ("ISO_IR 126", "Παπαδόπουλος^Γιώργος")])
def test_names_keep_their_letters(tmp_path, charset, name):
    def named(file, z):
        file.SpecificCharacterSet, file.PatientName = charset, name

    series = write_series(tmp_path / "series", IMAGE, change=named)
    scheme = LabelScheme(labels={"background": 0, "größe Ψ": 1})
    output(scheme).write(FIRST * 0 + 1, tmp_path / "seg.dcm", source=series, series="", kinds=None)
    seg = pydicom.dcmread(tmp_path / "seg.dcm")
    assert str(seg.PatientName) == name
    assert seg.SegmentSequence[0].SegmentLabel == "größe Ψ"


def test_what_was_removed_to_make_a_series_anonymous_is_empty(tmp_path):
    def anonymous(file, z):
        for element in ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyID", "AccessionNumber",
                        "StudyDate", "StudyTime", "ReferringPhysicianName", "SeriesNumber"):  # fmt: skip
            delattr(file, element)

    series = write_series(tmp_path / "series", IMAGE, change=anonymous)
    output().write(INSIDE, tmp_path / "seg.dcm", source=series, series="", kinds=None)
    np.testing.assert_array_equal(segmentation.read_segmentation(tmp_path / "seg.dcm").labels, INSIDE)


@pytest.mark.parametrize("element", ["StudyInstanceUID", "FrameOfReferenceUID"])
def test_a_series_that_lacks_what_must_be_repeated_is_refused(tmp_path, element):
    series = write_series(tmp_path / "series", IMAGE, change=lambda file, z: delattr(file, element))
    with pytest.raises(ImageError, match=f"lacks {element}, which DICOM-SEG and RTSTRUCT must repeat"):
        output().write(INSIDE, tmp_path / "seg.dcm", source=series, series="", kinds=None)
    assert not (tmp_path / "seg.dcm").exists()


@pytest.mark.parametrize(
    ("element", "words"),
    [
        ("PixelSpacing", "how large its pixels are .PixelSpacing is missing"),
        ("ImagePositionPatient", "where it lies .ImagePosition"),
    ],
)
def test_a_series_that_does_not_say_where_its_voxels_lie_is_refused(tmp_path, element, words):
    series = write_series(tmp_path / "series", IMAGE, change=lambda file, z: delattr(file, element))
    source = [series / f"s{z:03d}.dcm" for z in range(len(IMAGE))]
    segments = [segmentation.DicomSegment("organ", (1,), codes.codes_of("organ", 1))]
    with pytest.raises(ImageError, match=f"does not say {words}"):
        segmentation.write_segmentation(INSIDE, tmp_path / "seg.dcm", source=source, segments=segments)
    assert not (tmp_path / "seg.dcm").exists()


def test_labels_of_another_size_are_refused(series, tmp_path):
    with pytest.raises(ImageError, match=r"The labels have 5 x 5 x 7 voxels, .* has 6 x 5 x 7"):
        output().write(INSIDE[1:], tmp_path / "seg.dcm", source=series, series="", kinds=None)


def test_regions_overlap_as_they_are_and_are_masks_when_read(series, tmp_path):
    labels = np.where(INSIDE == 3, 0, INSIDE)
    output(REGIONS).write(labels, tmp_path / "seg.dcm", source=series, series="", kinds=None)
    found = segmentation.read_segmentation(tmp_path / "seg.dcm")
    assert found.labels is None
    masks = {found.names[number]: mask for number, mask in found.masks}
    np.testing.assert_array_equal(masks["whole"], labels > 0)
    np.testing.assert_array_equal(masks["core"], labels == 2)
    assert "The segments 'whole' and 'edema' of seg.dcm overlap in 8 voxels" in segmentation.overlap_of(
        tmp_path / "seg.dcm", found
    )


def test_each_object_is_a_segment_of_its_kind(series, tmp_path):
    scheme = LabelScheme(labels={"background": 0, "nodule": 1})
    SegmentationOutput.of(scheme, None, None).write(
        INSIDE, tmp_path / "seg.dcm", source=series, series="", kinds={1: "nodule", 2: "nodule", 3: "nodule"}
    )
    found = segmentation.read_segmentation(tmp_path / "seg.dcm")
    assert found.names == {1: "nodule 1", 2: "nodule 2", 3: "nodule 3"}
    np.testing.assert_array_equal(found.labels, INSIDE)


def test_what_is_no_segmentation_is_not_read_as_one(series, tmp_path):
    with pytest.raises(ImageError, match="is not a DICOM-SEG, but an image"):
        segmentation.read_segmentation(series / "s000.dcm")
    with pytest.raises(ImageError, match="is not a DICOM-SEG, but radiotherapy structures"):
        segmentation.read_segmentation(save(header(STRUCTURES), tmp_path / "rt.dcm"))
    (tmp_path / "notes.txt").write_text("no")
    with pytest.raises(ImageError, match=r"notes\.txt is not a DICOM-SEG\."):
        segmentation.read_segmentation(tmp_path / "notes.txt")


def test_a_segmentation_beside_its_series_is_no_slice(series, tmp_path):
    output().write(INSIDE, series / "seg.dcm", source=series, series="", kinds=None)
    np.testing.assert_array_equal(dicom.read_series(series)[0][0], IMAGE)
    assert not dicom.is_dicom_image(series / "seg.dcm")


# codes


def test_every_common_code_is_in_the_tables_of_dicom():
    from pydicom.sr.codedict import codes as known

    by_value = {}
    for keyword in known.SCT.dir():
        concept = getattr(known.SCT, keyword)
        by_value.setdefault(concept.value, set()).add(concept.meaning.lower())
    for (meaning, value), table in codes._CODES.items():
        assert meaning.lower() in by_value[value]
        for name, code in table.items():
            assert name in by_value[code], name
    assert set(codes._ALSO.values()) <= {name for table in codes._CODES.values() for name in table}


@pytest.mark.parametrize(
    ("name", "meaning", "side"),
    [
        ("Liver", "Liver", None), ("kidney_right", "Kidney", "Right"), ("Left Kidney", "Kidney", "Left"),
        ("left ventricle", "Left ventricle", None), ("kidneys", "Kidney", None), ("urinary-bladder", "Bladder", None),
        ("oesophagus", "Esophagus", None), ("lymph nodes", "Lymph node", None), ("tumour", "Neoplasm", None),
    ],
)  # fmt: skip
def test_common_anatomy_is_known_by_its_name(name, meaning, side):
    found = codes.codes_of(name, 1)
    assert not found.is_local
    assert found.type.meaning == meaning
    assert (found.side and found.side.meaning) == side


@pytest.mark.parametrize("name", ["Anterior", "liver tumour", "left and right kidney", "label 3", "x" * 90])
def test_what_is_not_known_gets_a_local_code_and_no_guess(name):
    found = codes.codes_of(name, 7)
    assert found.is_local
    assert found.type.value == "CLASS-7"
    assert len(found.type.meaning) <= 64


def test_the_table_that_is_written_can_be_filled_in_and_given(tmp_path):
    table = tmp_path / "codes.csv"
    text = output().table
    assert "gizmo,91723000,SCT,Anatomical Structure,CLASS-3,99NNUNET,gizmo,,," in text
    table.write_text(text.replace("CLASS-3,99NNUNET,gizmo", "78067005,SCT,Placenta"), encoding="utf-8-sig")
    filled = output(table=table)
    assert filled.unknown == []
    assert filled.codes["gizmo"].type.meaning == "Placenta"
    assert filled.codes["left_kidney"] == output().codes["left_kidney"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda text: text.replace("class,", "name,"), "has no column class; it must have"),
        (
            lambda text: text.replace("gizmo,9", "gadget,9"),
            "has gadget, but the classes are left_kidney, Tumour, gizmo",
        ),
        (
            lambda text: text.replace("CLASS-3,99NNUNET,gizmo", "CLASS-3,,gizmo"),
            "line 4: the type of gizmo needs a code",
        ),
        (lambda text: text.replace("CLASS-3", "1" * 17), "line 4: the type of gizmo is too long"),
        (lambda text: text.replace("gizmo,91723000,SCT,Anatomical Structure", "gizmo,,,"), "gizmo has no category"),
        (lambda text: "", "has no column class, category"),
    ],
)
def test_a_table_that_cannot_be_meant_is_refused(tmp_path, change, said):
    table = tmp_path / "codes.csv"
    table.write_text(change(output().table), encoding="utf-8")
    with pytest.raises(SettingsError, match=said):
        output(table=table)
    with pytest.raises(SettingsError, match="cannot be read"):
        output(table=tmp_path / "nowhere.csv")
