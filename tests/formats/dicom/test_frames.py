"""DICOM files with frames: in the order of their places, whatever their order in the file, or refused with the reason."""

from __future__ import annotations

import sys

import numpy as np
import pytest

pytest.importorskip("highdicom", reason="highdicom is not installed: it comes with napari-nnunet[dicom]")

from dicom_files import fill, write_enhanced, write_series
from napari_nnunet.errors import ImageError, NnunetError, ResourceError
from napari_nnunet.formats import room
from napari_nnunet.formats.dicom import extra
from napari_nnunet.formats.dicom.frames import along_normal, read_frames
from napari_nnunet.formats.dicom.series import read_series

SLICES = np.arange(4 * 6 * 7, dtype=np.int16).reshape(4, 6, 7) - 50


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 2, 1, 0), (2, 0, 3, 1)])
def test_frames_lie_as_the_same_slices_of_a_series_do(tmp_path, order):
    array, geometry = read_frames(write_enhanced(tmp_path / "a.dcm", SLICES, order=list(order)))
    slices, place = read_series(write_series(tmp_path / "series", SLICES))
    np.testing.assert_array_equal(array, slices)
    assert array.dtype == np.int16
    np.testing.assert_allclose(geometry.spacing, place.spacing)
    np.testing.assert_allclose(geometry.origin, place.origin)
    np.testing.assert_allclose(geometry.direction, place.direction, atol=1e-9)


def test_frames_with_scales_of_their_own_become_values(tmp_path):
    array, _ = read_frames(write_enhanced(tmp_path / "a.dcm", SLICES, slopes=[1, 2, 0.5, 3]))
    assert array.dtype == np.float64
    np.testing.assert_allclose(array[0], SLICES * np.reshape([1, 2, 0.5, 3], (4, 1, 1)))
    whole, _ = read_frames(write_enhanced(tmp_path / "b.dcm", SLICES, slopes=[1000] * 4))
    assert whole.dtype == np.int32  # int16 would turn around
    np.testing.assert_array_equal(whole[0], SLICES.astype(np.int32) * 1000)


def missing(file):
    del file.PerFrameFunctionalGroupsSequence[1]
    file.NumberOfFrames = 3
    fill(file, SLICES[:3])


def twice(file):
    groups = file.PerFrameFunctionalGroupsSequence
    groups[1].PlanePositionSequence = groups[0].PlanePositionSequence


def nowhere(file):
    for group in file.PerFrameFunctionalGroupsSequence:
        del group.PlanePositionSequence


def unturned(file):
    del file.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence


def coloured(file):
    file.SamplesPerPixel, file.PhotometricInterpretation, file.PlanarConfiguration = 3, "RGB", 0
    file.BitsAllocated = file.BitsStored = 8
    file.HighBit, file.PixelRepresentation = 7, 0
    file.PixelData = bytes(3 * SLICES.size)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (missing, "do not form a straight stack with equal distances. Is one missing"),
        (twice, "Several of its frames have the same position"),
        (nowhere, "frames do not say where they lie. Export it again"),
        (unturned, "frames do not say how they lie. Export it again"),
        (coloured, "is in colour; export its channels one by one"),
    ],
)
def test_frames_that_make_no_volume_are_refused_with_the_reason(tmp_path, change, said):
    with pytest.raises(ImageError, match=said):
        read_frames(write_enhanced(tmp_path / "a.dcm", SLICES, change=change))


@pytest.mark.parametrize("lean", [0.35, -0.35])
def test_frames_of_a_tilted_gantry_are_not_straightened_without_a_word(tmp_path, lean):
    with pytest.raises(ImageError, match="or was the gantry tilted"):
        read_frames(write_enhanced(tmp_path / "a.dcm", SLICES, lean=lean))


@pytest.mark.parametrize("content", [b"", b"DICM", b"\0" * 128 + b"DICM", b"\0" * 128 + b"DICM" + b"\xff" * 500])
def test_a_file_without_frames_ends_in_a_sentence(tmp_path, content):
    path = tmp_path / "a.dcm"
    path.write_bytes(content)
    with pytest.raises(NnunetError, match=r"a\.dcm"):
        read_frames(path)


def test_a_file_that_is_cut_off_is_not_filled_with_zeros(tmp_path):
    path = write_enhanced(tmp_path / "a.dcm", SLICES)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ImageError):
        read_frames(path)


def test_more_frames_than_memory_has_room_for_are_refused_by_the_header(tmp_path, monkeypatch):
    monkeypatch.setattr(room, "_CERTAIN", 0)
    monkeypatch.setattr(room, "available_memory", lambda: 1)
    with pytest.raises(ResourceError, match="holds 4 x 6 x 7 voxels"):
        read_frames(write_enhanced(tmp_path / "a.dcm", SLICES))


def test_an_affine_leads_along_the_normal_and_keeps_the_place_of_every_slice():
    straight = np.array([[0, 0, 0.5, -7], [0, 0.6, 0, 9], [2.0, 0, 0, 5], [0, 0, 0, 1]])
    np.testing.assert_array_equal(along_normal(straight, 4), straight)
    against = straight.copy()
    against[:3, 0] *= -1
    against[2, 3] = 11  # the highest slice is the first
    np.testing.assert_array_equal(along_normal(against, 4), straight)
    np.testing.assert_array_equal(against[2], [-2, 0, 0, 11])  # what was given is as it was


@pytest.mark.parametrize("gone", ["highdicom", "highdicom.seg"])
def test_where_the_extra_is_missing_it_is_named(monkeypatch, gone):
    assert extra.highdicom().__name__ == "highdicom"
    assert extra.pydicom("pydicom.uid").__name__ == "pydicom.uid"
    monkeypatch.setitem(sys.modules, gone, None)
    with pytest.raises(ResourceError, match=r"need highdicom, which is not installed.*napari-nnunet\[dicom\]"):
        extra.highdicom()
