"""A single slice of a series is read alone, and says so where others of its series lie next to it."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

pytest.importorskip("pydicom", reason="pydicom is not installed: it comes with napari-nnunet[dicom]")

from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, generate_uid

from dicom_files import write_series
from napari_nnunet.formats.dicom import series as dicom
from napari_nnunet.formats.dicom.syntax import series_uid

SLICES = np.arange(4 * 16 * 17, dtype=np.int16).reshape(4, 16, 17)


def test_a_slice_of_a_series_that_lies_beside_it_is_said_to_be_one(tmp_path):
    folder = write_series(tmp_path / "s", SLICES)
    write_series(tmp_path / "other", SLICES[:2])
    shutil.copy(tmp_path / "other" / "s000.dcm", folder / "other.dcm")
    (folder / "damaged.dcm").write_bytes((folder / "s000.dcm").read_bytes()[:300])
    (folder / "notes.txt").write_text("nothing")
    array, geometry = dicom.read_series(folder / "s001.dcm")
    np.testing.assert_array_equal(array[0, 0], SLICES[1])
    assert geometry.remarks == (
        "it is one slice of a series, of which more lie beside it, and was read alone; give their folder "
        f"({folder}) to have the volume",
    )
    assert dicom.read_series(folder / "other.dcm")[1].remarks == ()
    assert dicom.read_series(tmp_path / "other")[1].remarks == ()


def test_films_of_one_series_that_have_no_place_are_no_slices_of_a_volume(tmp_path):
    folder = write_series(tmp_path, SLICES, change=lambda file, z: delattr(file, "ImagePositionPatient"))
    assert "more lie beside it" not in " ".join(dicom.read_series(folder / "s001.dcm")[1].remarks)


def test_to_know_whether_a_slice_lies_beside_others_four_files_are_looked_at_and_none_is_parsed(tmp_path, monkeypatch):
    folder = write_series(tmp_path / "s", np.repeat(SLICES, 5, axis=0), change=set_uid)
    read, looked = [], []
    parsed, looked_up = dicom._slices, dicom.series_uid
    monkeypatch.setattr(dicom, "_slices", lambda files: parsed(read.append(file) or file for file in files))
    monkeypatch.setattr(dicom, "series_uid", lambda file: looked.append(file.name) or looked_up(file))
    assert dicom.read_series(folder / "s010.dcm")[1].remarks == ()
    assert [file.name for file in read] == ["s010.dcm"]
    assert sorted(looked) == ["s008.dcm", "s009.dcm", "s011.dcm", "s012.dcm"]
    assert dicom.read_series(write_series(tmp_path / "t", SLICES) / "s001.dcm")[1].remarks != ()
    assert looked[4:] == ["s002.dcm"]  # the first is enough


def set_uid(file, z):
    file.SeriesInstanceUID = generate_uid()


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian])
def test_the_series_of_a_file_is_its_own_and_not_one_that_it_refers_to(tmp_path, syntax):
    def refer(file, z):
        file.file_meta.TransferSyntaxUID = syntax
        other = Dataset()
        other.SeriesInstanceUID = "1.2.99"
        file.ReferencedSeriesSequence = [other]
        file["ReferencedSeriesSequence"].is_undefined_length = z % 2 == 1
        other.is_undefined_length_sequence_item = z > 1

    folder = write_series(tmp_path, SLICES, series="1.2.3", change=refer)
    assert [series_uid(file) for file in sorted(folder.iterdir())] == ["1.2.3"] * 4
    whole = (folder / "s001.dcm").read_bytes()
    (folder / "old.dcm").write_bytes(whole[132 + 12 + int.from_bytes(whole[140:144], "little") :])  # without a mark
    assert series_uid(folder / "old.dcm") == "1.2.3"
    for name, content in {
        "empty": b"",
        "text": b"nothing of the kind",
        "cut": whole[:300],
        "mark": whole[:132],
    }.items():
        (folder / name).write_bytes(content)
        assert series_uid(folder / name) == ""
    assert series_uid(folder) == series_uid(folder / "none") == ""
