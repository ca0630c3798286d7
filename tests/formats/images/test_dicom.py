"""A DICOM series becomes a volume whose slices lie where they were taken, or is refused."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk

from napari_nnunet.errors import ImageError
from napari_nnunet.formats.images import dicom


def write(folder, places, *, series="1.2.3", prefix="s", value=int):
    """Write slices (4, 5) at places along z in mm, in the order given; each holds its own place."""
    folder.mkdir(exist_ok=True)
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    for number, place in enumerate(places):
        image = sitk.GetImageFromArray(np.full((1, 4, 5), value(place), np.int16))
        image.SetSpacing((0.5, 0.6, 2.0))
        for tag, text in {
            "0008|0060": "CT", "0008|0018": f"{series}.{number + 1}", "0020|000d": "1.2", "0020|000e": series,
            "0020|0013": str(number + 1), "0020|0032": f"-7\\9\\{place}", "0020|0037": "1\\0\\0\\0\\1\\0",
        }.items():  # fmt: skip
            image.SetMetaData(tag, text)
        writer.SetFileName(str(folder / f"{prefix}{number}.dcm"))
        writer.Execute(image)
    return folder


def test_slices_come_in_the_order_of_their_places_whatever_their_names(tmp_path):
    array, geometry = dicom.read_series(write(tmp_path / "größe 1", [6, 0, 4, 2]))
    assert array.shape == (1, 4, 4, 5)
    assert array[0, :, 0, 0].tolist() == [0, 2, 4, 6]
    assert geometry.spacing == pytest.approx((2.0, 0.6, 0.5))
    assert geometry.origin == (-7, 9, 0)


def test_a_single_slice_is_a_volume(tmp_path):
    array, _ = dicom.read_series(write(tmp_path / "one", [3]))
    assert array.shape == (1, 1, 4, 5)


@pytest.mark.parametrize(("places", "said"), [([0, 2, 6, 8, 10], "2 to 4 mm apart"), ([0, 2, 2, 4], "0 to 2 mm apart")])
def test_a_slice_that_is_missing_or_there_twice_does_not_stretch_the_others(tmp_path, places, said):
    with pytest.raises(ImageError, match=said):
        dicom.read_series(write(tmp_path / "gap", places))


def test_places_that_a_scanner_rounded_are_even_enough(tmp_path):
    array, geometry = dicom.read_series(write(tmp_path / "rounded", [0, 1.99, 4.01, 6]))
    assert array.shape[1] == 4
    assert geometry.spacing[0] == pytest.approx(2.0, abs=0.01)


def test_two_series_in_a_folder_are_not_chosen_between(tmp_path):
    write(tmp_path / "two", [0, 2])
    write(tmp_path / "two", [0, 2], series="1.2.4", prefix="t")
    with pytest.raises(ImageError, match="2 DICOM series; give one folder per series"):
        dicom.read_series(tmp_path / "two")


def test_a_folder_without_slices_is_no_series(tmp_path):
    (tmp_path / "notes.txt").write_text("DICM")
    assert not dicom.is_series(tmp_path)
    assert not dicom.is_series(tmp_path / "notes.txt")
    assert not dicom.is_series(tmp_path / "nowhere")
    with pytest.raises(ImageError, match="no DICOM series"):
        dicom.read_series(tmp_path)


def test_a_series_is_told_by_its_first_files_hidden_ones_left_out(tmp_path):
    write(tmp_path, [0])
    (tmp_path / ".DS_Store").touch()
    (tmp_path / "DICOMDIR.txt").touch()
    assert dicom.is_series(tmp_path)


@pytest.mark.parametrize("keep", [0, 131, 132, 400])
def test_a_slice_that_was_cut_off_is_an_error_of_images(tmp_path, keep):
    path = write(tmp_path, [0]) / "s0.dcm"
    path.write_bytes(path.read_bytes()[:keep])
    assert dicom.is_dicom(path) == (keep >= 132)
    with pytest.raises(ImageError, match="DICOM series"):
        dicom.read_series(tmp_path)


@pytest.mark.parametrize("place", ["here", "nan", "1\\2", ""])
def test_slices_that_do_not_say_where_they_lie_are_refused(place, tmp_path):
    with pytest.raises(ImageError, match="does not say where its slices lie"):
        dicom._check_gaps(tmp_path, ["0\\0\\1", f"0\\0\\{place}", "0\\0\\2"])
