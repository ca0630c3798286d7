"""Radiotherapy structures are filled on the series they were drawn in, or it is said why not."""

from __future__ import annotations

import gzip

import numpy as np
import pytest

pytest.importorskip("highdicom", reason="highdicom is not installed: it comes with napari-nnunet[dicom]")

from pydicom.uid import generate_uid

from dicom_files import PATIENT, SECRET, boxed, square, write_enhanced, write_series, write_structures
from napari_nnunet.cli.main import main
from napari_nnunet.errors import ImageError
from napari_nnunet.formats.dicom.series import read_series
from napari_nnunet.formats.dicom.structures import read_structures
from napari_nnunet.formats.images.files import read_labels, write_labels
from napari_nnunet.formats.masks.stored import read_mask
from napari_nnunet.formats.workspace import Workspace

SHAPE = (6, 20, 24)
SPACING = (2.0, 0.6, 0.5)
TURNED = (0.0, 1.0, 0.0, -1.0, 0.0, 0.0)


@pytest.fixture
def scan(tmp_path):
    """A series in a folder of its own, and its UID."""
    uid = generate_uid()
    image = np.random.default_rng(0).integers(0, 100, SHAPE).astype(np.int16)
    return write_series(tmp_path / "images" / "anna", image, series=uid), uid


def box(low, high):
    mask = np.zeros(SHAPE, bool)
    mask[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] = True
    return mask


def test_contours_become_the_voxels_within_them(tmp_path, scan):
    folder, uid = scan
    drawn = {"Liver ": boxed((1, 2, 3), (4, 10, 12)), "GTV  1": boxed((3, 12, 14), (6, 18, 22))}
    found = read_structures(write_structures(tmp_path / "rs.dcm", uid, drawn), [folder])
    assert found.names == {3: "Liver", 4: "GTV 1"}
    np.testing.assert_array_equal(found.labels == 3, box((1, 2, 3), (4, 10, 12)))
    np.testing.assert_array_equal(found.labels == 4, box((3, 12, 14), (6, 18, 22)))
    assert found.geometry.spacing == pytest.approx(SPACING)


def test_they_lie_where_a_turned_series_has_them(tmp_path):
    uid = generate_uid()
    write_series(tmp_path, np.zeros(SHAPE, np.int16), series=uid, direction=TURNED)
    drawn = {"liver": boxed((1, 2, 3), (4, 10, 12))}
    found = read_structures(write_structures(tmp_path / "rs.dcm", uid, drawn, direction=TURNED))
    np.testing.assert_array_equal(found.labels == 3, box((1, 2, 3), (4, 10, 12)))


@pytest.mark.parametrize("kind", ["CLOSED_PLANAR", "CLOSEDPLANAR_XOR"])
def test_a_contour_within_another_is_a_hole_and_one_in_that_an_island(tmp_path, scan, kind):
    folder, uid = scan
    rings = [square(z, (1 + d, 1 + d), (19 - d, 21 - d)) for z in (2, 3) for d in (0, 3, 6)]
    found = read_structures(write_structures(tmp_path / "rs.dcm", uid, {"wall": rings}, kind=kind), [folder])
    outer, hole, island = (box((2, 1 + d, 1 + d), (4, 19 - d, 21 - d)) for d in (0, 3, 6))
    np.testing.assert_array_equal(found.labels == 3, (outer & ~hole) | island)


def test_a_hole_that_is_cut_into_a_contour_like_a_keyhole_stays_one(tmp_path, scan):
    folder, uid = scan
    z, outer, inner = 2, square(2, (2, 2), (16, 18)), square(2, (6, 6), (12, 12))
    keyhole = [*outer, outer[0], *reversed([*inner, inner[0]]), outer[0]]
    found = read_structures(write_structures(tmp_path / "rs.dcm", uid, {"wall": [keyhole]}), [folder])
    np.testing.assert_array_equal(found.labels[z] == 3, (box((2, 2, 2), (3, 16, 18)) & ~box((2, 6, 6), (3, 12, 12)))[z])


def test_structures_that_overlap_are_a_mask_each_and_no_labels(tmp_path, scan):
    folder, uid = scan
    drawn = {"body": boxed((0, 1, 1), (6, 19, 23)), "liver": boxed((1, 2, 3), (4, 10, 12))}
    path = write_structures(tmp_path / "rs.dcm", uid, drawn)
    found = read_structures(path, [folder])
    assert found.labels is None
    np.testing.assert_array_equal(dict(found.masks)[4], box((1, 2, 3), (4, 10, 12)))
    with pytest.raises(ImageError, match="'body' and 'liver' of rs.dcm overlap in 216 voxels, and labels hold one"):
        read_mask(path, [folder])


def test_what_has_no_inside_is_left_out_and_what_leaves_the_series_is_cut_and_both_are_said(tmp_path, scan):
    folder, uid = scan
    drawn = {"couch": boxed((0, 15, 2), (7, 30, 9)), "isocentre": [[(2, 4, 4)]]}

    def points(file):
        file.ROIContourSequence[1].ContourSequence[0].ContourGeometricType = "POINT"

    found = read_structures(write_structures(tmp_path / "rs.dcm", uid, drawn, change=points), [folder])
    assert found.names == {3: "couch"}
    np.testing.assert_array_equal(found.labels == 3, box((0, 15, 2), (6, 20, 9)))
    said = "; ".join(found.geometry.remarks)
    assert "isocentre have no closed contours and were left out" in said
    assert "couch go beyond the series, and were cut off there" in said


def test_what_cannot_be_filled_is_refused_with_the_reason(tmp_path, scan):
    folder, uid = scan
    box_ = boxed((1, 2, 3), (4, 10, 12))

    def refused(match, series=uid, contours=box_, images=(folder,), **how):
        path = write_structures(tmp_path / "rs.dcm", series, {"liver": contours}, **how)
        with pytest.raises(ImageError, match=match):
            read_structures(path, images)

    refused("lies 0.4 slice distances beside", contours=[square(1.4, (2, 2), (9, 9))])
    refused("are not drawn in the slices of the series, but across", contours=[[(1, 2, 2), (2, 2, 9), (3, 9, 9)]])
    sparse = [square(z, (2, 2), (9, 9)) for z in (0, 2, 4)]
    refused(r"is drawn in some slices only \(0, 2, 4, ...; counted from 0\)", contours=sparse)
    refused("no closed contours", kind="OPEN_PLANAR")
    refused("does not say in which series", series="")
    refused("which is not in .*anna and .*Choose that series as their image", series=generate_uid())
    refused("which is not in", images=())

    def broken(file):
        file.ROIContourSequence[0].ContourSequence[0].ContourData = ["1", "2"]

    refused("cannot be read as radiotherapy structures", change=broken)
    with pytest.raises(ImageError, match="holds no radiotherapy structures; it is an image"):
        read_structures(folder / "s000.dcm")


def test_a_mask_folder_with_two_files_of_segments_is_refused(tmp_path, scan):
    folder, uid = scan
    for name in ("a.dcm", "b.dcm"):
        write_structures(tmp_path / "mask" / name, uid, {"liver": boxed((1, 2, 3), (4, 10, 12))})
    with pytest.raises(ImageError, match=r"holds 2 files with segments \(a.dcm, b.dcm\). Keep one of them there."):
        read_mask(tmp_path / "mask", [folder])


def test_a_folder_of_series_and_one_of_structures_become_a_dataset(tmp_path, scan, capsys):
    folder, uid = scan
    other = generate_uid()
    write_series(folder.parent / "bert", np.zeros(SHAPE, np.int16), series=other)
    liver, spleen = boxed((1, 2, 3), (4, 10, 12)), boxed((3, 12, 14), (6, 18, 22))
    write_structures(tmp_path / "masks" / "anna.dcm", uid, {"liver": liver, "spleen": spleen})
    write_structures(
        tmp_path / "masks" / "bert" / "RS.1.dcm", other, {"Spleen": spleen, "liver": liver}
    )  # a folder of its own
    words = [
        "import_folders",
        "-i",
        str(folder.parent),
        "-m",
        str(tmp_path / "masks"),
        "-n",
        "Organs",
        "--channels",
        "CT",
    ]
    assert main([*words, "--workspace", str(tmp_path / "work")]) == 0, capsys.readouterr().err
    raw = Workspace.at(tmp_path / "work").raw / "Dataset001_Organs"
    for case in ("anna", "bert"):
        labels, geometry = read_labels(raw / "labelsTr" / f"{case}.nii.gz")
        np.testing.assert_array_equal(labels == 1, box((1, 2, 3), (4, 10, 12)))
        np.testing.assert_array_equal(labels == 2, box((3, 12, 14), (6, 18, 22)))
        assert geometry.spacing == pytest.approx(SPACING, rel=1e-5)


def test_a_file_with_frames_and_a_mask_become_a_dataset_that_holds_nothing_of_the_patient(tmp_path, capsys):
    image = np.random.default_rng(0).integers(0, 100, SHAPE).astype(np.int16)
    write_enhanced(tmp_path / "images" / "anna.dcm", image)
    mask = box((1, 2, 3), (4, 10, 12)).astype(np.uint8)
    (tmp_path / "masks").mkdir()
    write_labels(mask, read_series(tmp_path / "images" / "anna.dcm")[1], tmp_path / "masks" / "anna.nii.gz")
    words = ["import_folders", "-i", str(tmp_path / "images"), "-m", str(tmp_path / "masks"), "-n", "Organs"]
    assert main([*words, "--workspace", str(tmp_path / "work")]) == 0, capsys.readouterr().err
    raw = Workspace.at(tmp_path / "work").raw / "Dataset001_Organs"
    np.testing.assert_array_equal(read_labels(raw / "labelsTr" / "anna.nii.gz")[0], mask)
    for path in (p for p in raw.rglob("*") if p.is_file()):
        content = path.read_bytes()
        content = gzip.decompress(content) if path.name.endswith(".gz") else content
        assert not any(word.encode() in content for word in (PATIENT, SECRET, "19700101"))


def test_a_look_says_what_structures_hold(tmp_path, scan, capsys):
    folder, uid = scan
    write_structures(folder / "rs.dcm", uid, {"liver": boxed((1, 2, 3), (4, 10, 12))})
    assert main(["look", str(folder / "rs.dcm")]) == 0
    said = capsys.readouterr().out
    assert "6 x 20 x 24" in said
    assert "its segments are 3 liver" in said
    assert main(["look", str(folder)]) == 0  # the series, beside which they lie
    assert "0 to 9" in capsys.readouterr().out


def numbered(first, second):
    """Return a change that gives the two structures of a file other numbers."""

    def change(file):
        for i, number in enumerate((first, second)):
            file.StructureSetROISequence[i].ROINumber = file.ROIContourSequence[i].ReferencedROINumber = number

    return change


TWO = {"liver": boxed((1, 2, 3), (4, 10, 12)), "tumour": boxed((1, 12, 14), (4, 18, 22))}


def test_a_structure_with_the_number_of_the_background_gets_another_and_that_is_said(tmp_path, scan):
    folder, uid = scan
    found = read_structures(write_structures(tmp_path / "rs.dcm", uid, TWO, change=numbered(0, 4)), [folder])
    assert found.names == {5: "liver", 4: "tumour"}
    np.testing.assert_array_equal(found.labels == 5, box((1, 2, 3), (4, 10, 12)))
    assert "liver has the number 0 in the file, which no label can have, and got 5" in found.geometry.remarks


def test_two_structures_of_one_number_are_refused(tmp_path, scan):
    folder, uid = scan
    path = write_structures(tmp_path / "rs.dcm", uid, TWO, change=numbered(7, 7))
    with pytest.raises(ImageError, match=r"several structures of the number 7, so that .* Export it again\."):
        read_structures(path, [folder])
