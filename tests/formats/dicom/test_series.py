"""A DICOM series becomes a volume whose slices lie where they were taken, or is refused."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

pytest.importorskip("pydicom", reason="pydicom is not installed: it comes with napari-nnunet[dicom]")

from pydicom.encaps import encapsulate
from pydicom.uid import ExplicitVRLittleEndian, HTJ2KLossless, ImplicitVRLittleEndian, JPEGLSLossless, RLELossless

from dicom_files import FILM, STRUCTURES, fill, header, save, write_enhanced, write_series
from napari_nnunet.errors import ImageError, ResourceError
from napari_nnunet.formats.dicom import series as dicom
from napari_nnunet.formats.dicom.syntax import numbers_between

SLICES = np.arange(4 * 16 * 17, dtype=np.int16).reshape(4, 16, 17)


def set_(**elements):
    """Return a change of one slice, the third."""

    def change(file, z):
        for name, value in elements.items():
            if z == 2:
                setattr(file, name, value)

    return change


def test_slices_come_in_the_order_of_their_places_whatever_their_names(tmp_path):
    array, geometry = dicom.read_series(write_series(tmp_path / "größe 1", SLICES, name="s{:03d}"))
    assert array.dtype == np.int16
    np.testing.assert_array_equal(array[0], SLICES)
    assert geometry.spacing == pytest.approx((2.0, 0.6, 0.5))
    assert geometry.origin == (-7, 9, 5)
    assert geometry.axes_code == "LPS"


@pytest.mark.parametrize("direction", [(0, 1, 0, 0, 0, -1), (1, 0, 0, 0, 0, -1), (0.8, 0.6, 0, -0.6, 0.8, 0)])
def test_slices_are_stacked_along_their_normal(tmp_path, direction):
    array, geometry = dicom.read_series(write_series(tmp_path, SLICES, direction=direction))
    np.testing.assert_array_equal(array[0], SLICES)
    axes = np.reshape(geometry.direction, (3, 3))
    np.testing.assert_allclose(axes[:, 2], np.cross(direction[:3], direction[3:]), atol=1e-6)
    assert geometry.origin == (-7, 9, 5)


def test_a_single_slice_is_a_volume(tmp_path):
    array, _ = dicom.read_series(write_series(tmp_path, SLICES[:1]))
    assert array.shape == (1, 1, 16, 17)
    alone, _ = dicom.read_series(tmp_path / "s000.dcm")
    np.testing.assert_array_equal(alone, array)


@pytest.mark.parametrize(("tags", "size"), [
    ({"SliceThickness": 2.5}, 2.5), ({"SliceThickness": 2.5, "SpacingBetweenSlices": 3}, 3), ({"SliceThickness": 0}, None),
    ({"SliceThickness": -1}, None),
])  # fmt: skip
def test_a_single_slice_is_as_thick_as_it_says(tmp_path, tags, size):
    def change(file, z):
        for name, value in tags.items():
            setattr(file, name, value)

    _, geometry = dicom.read_series(write_series(tmp_path, SLICES[:1], change=change))
    assert geometry.spacing == pytest.approx((size or 1.0, 0.6, 0.5))
    said = () if size else ("it is one slice and says no thickness; 1 mm was used along z",)
    assert (geometry.remarks, geometry.spacing_known) == (said, True)


@pytest.mark.parametrize("pixel", [[0, 0], [0.5, 0], [-0.5, 0.5]])
def test_pixels_whose_size_is_none_have_no_known_size(tmp_path, pixel):
    def change(file, z):
        file.PixelSpacing = pixel

    _, geometry = dicom.read_series(write_series(tmp_path, SLICES, change=change))
    assert not geometry.spacing_known


@pytest.mark.parametrize(("missing", "said"), [((1,), "2 to 4 mm apart"), ((1, 2), None)])
def test_a_slice_that_is_missing_does_not_stretch_the_others(tmp_path, missing, said):
    write_series(tmp_path, SLICES)
    for z in missing:
        (tmp_path / f"s00{z}.dcm").unlink()
    if said is None:  # two slices have one distance: nothing tells that there were more
        assert dicom.read_series(tmp_path)[0].shape[1] == 2
    else:
        with pytest.raises(ImageError, match=said):
            dicom.read_series(tmp_path)


def test_a_slice_that_is_there_twice_does_not_stretch_the_others(tmp_path):
    write_series(tmp_path, SLICES)
    shutil.copy(tmp_path / "s001.dcm", tmp_path / "copy.dcm")
    with pytest.raises(ImageError, match="0 to 2 mm apart. Is one missing, or is one doubled"):
        dicom.read_series(tmp_path)


def test_a_series_over_time_is_no_volume(tmp_path):
    write_series(tmp_path, SLICES, series="1.2")
    write_series(tmp_path, SLICES, series="1.2", name="later{}.dcm")
    with pytest.raises(ImageError, match="occurs 2 times. Was it taken at several times"):
        dicom.read_series(tmp_path)


def test_places_that_a_scanner_rounded_are_even_enough(tmp_path):
    def rounded(file, z):
        file.ImagePositionPatient = [-7, 9, [0, 1.99, 4.01, 6][z]]

    array, geometry = dicom.read_series(write_series(tmp_path, SLICES, change=rounded))
    assert array.shape[1] == 4
    assert geometry.spacing[0] == pytest.approx(2.0, abs=0.01)


@pytest.mark.parametrize(("lean", "refused"), [(0.05, False), (0.35, True), (-0.35, True)])
def test_a_tilted_gantry_is_refused_and_not_straightened_without_a_word(tmp_path, lean, refused):
    write_series(tmp_path, SLICES, lean=lean)
    if refused:
        with pytest.raises(ImageError, match=r"lean by 9\.9 degrees: the gantry was tilted. Straighten"):
            dicom.read_series(tmp_path)
    else:
        assert dicom.read_series(tmp_path)[0].shape[1] == 4


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (set_(ImageOrientationPatient=[0, 1, 0, 0, 0, 1]), "differ in direction"),
        (set_(PixelSpacing=[1, 1]), "differ in pixel size"),
        (lambda file, z: fill(file, np.zeros((16, 17 + (z == 2)), np.int16)), "differ in size"),
    ],
)
def test_slices_that_do_not_fit_on_each_other_are_refused(tmp_path, change, said):
    with pytest.raises(ImageError, match=f"{said}; they do not form a volume. Are these scouts"):
        dicom.read_series(write_series(tmp_path, SLICES, change=change))


def test_directions_that_a_scanner_rounded_are_the_same(tmp_path):
    write_series(tmp_path, SLICES, change=set_(ImageOrientationPatient=[0.9999999, 0.0000004, 0, 0, 1, 0]))
    assert dicom.read_series(tmp_path)[0].shape[1] == 4


def test_values_that_are_scaled_slice_by_slice_are_not_rounded_to_the_type_of_the_first(tmp_path):
    def scaled(file, z):
        file.RescaleSlope = 1 + 0.25 * z

    array, _ = dicom.read_series(write_series(tmp_path, SLICES, change=scaled))
    np.testing.assert_allclose(array[0], SLICES * (1 + 0.25 * np.arange(4))[:, None, None])


def test_grey_values_that_are_stored_the_other_way_round_are_said(tmp_path):
    def turned(file, z):
        file.PhotometricInterpretation = "MONOCHROME1"

    _, geometry = dicom.read_series(write_series(tmp_path, SLICES, change=turned))
    assert geometry.remarks == ("its grey values are stored from white to black (MONOCHROME1) and were inverted",)


def test_pixels_without_a_size_do_not_pretend_to_have_one(tmp_path):
    def sizeless(file, z):
        del file.PixelSpacing

    _, geometry = dicom.read_series(write_series(tmp_path, SLICES, change=sizeless))
    assert not geometry.spacing_known


def test_two_series_in_a_folder_are_not_chosen_between_unless_one_is_named(tmp_path):
    write_series(tmp_path, SLICES, series="1.2.3")
    write_series(
        tmp_path,
        SLICES[:2] + 5,
        series="1.2.4",
        name="t{}.dcm",
        change=lambda file, z: file.__setattr__("SeriesNumber", 12),
    )
    with pytest.raises(
        ImageError,
        match=r"2 DICOM series; give one folder per series. Found: series 3 \(CT, 4 slices\), series 12 "
        r"\(CT, 2 slices\)",
    ):
        dicom.read_series(tmp_path)
    np.testing.assert_array_equal(dicom.read_series(tmp_path, "1.2.4")[0][0], SLICES[:2] + 5)
    assert [series.uid for series in dicom.series_in(tmp_path)] == ["1.2.3", "1.2.4"]


def test_what_lies_beside_a_series_is_passed_over(tmp_path):
    write_series(tmp_path, SLICES)
    save(header(STRUCTURES), tmp_path / "a_structures.dcm")
    save(header("1.2.840.10008.1.3.10"), tmp_path / "DICOMDIR")
    (tmp_path / "notes.txt").write_text("DICM")
    np.testing.assert_array_equal(dicom.read_series(tmp_path)[0][0], SLICES)
    assert not dicom.is_dicom_image(tmp_path / "a_structures.dcm")
    assert dicom.is_dicom_image(tmp_path / "s001.dcm")
    with pytest.raises(ImageError, match="holds no DICOM series; it is radiotherapy structures"):
        dicom.read_series(tmp_path / "a_structures.dcm")


def test_a_folder_without_slices_is_no_series(tmp_path):
    (tmp_path / "notes.txt").write_text("DICM")
    save(header("1.2.840.10008.1.3.10"), tmp_path / "DICOMDIR")
    assert not dicom.is_series(tmp_path)
    assert not dicom.is_series(tmp_path / "notes.txt")
    assert not dicom.is_series(tmp_path / "nowhere")
    with pytest.raises(ImageError, match="no DICOM series"):
        dicom.read_series(tmp_path)


def test_a_series_is_told_by_its_first_files_hidden_ones_left_out(tmp_path):
    write_series(tmp_path, SLICES[:1])
    (tmp_path / ".DS_Store").touch()
    (tmp_path / "DICOMDIR.txt").touch()
    assert dicom.is_series(tmp_path)


@pytest.mark.parametrize("keep", [0, 131, 132, 140, 150, 400])
def test_a_slice_that_was_cut_off_is_an_error_of_images(tmp_path, keep):
    path = write_series(tmp_path, SLICES[:1]) / "s000.dcm"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ImageError, match="DICOM series"):
        dicom.read_series(tmp_path)


@pytest.mark.parametrize("place", ["here", "nan", "1\\2", ""])
def test_slices_that_do_not_say_where_they_lie_are_refused(place):
    assert numbers_between(["0\\0\\1", f"0\\0\\{place}" if place != "1\\2" else place, "0\\0\\2"], 3) is None


def test_slices_without_a_place_are_refused(tmp_path):
    def placeless(file, z):
        del file.ImagePositionPatient

    with pytest.raises(ImageError, match="does not say where its slices lie"):
        dicom.read_series(write_series(tmp_path, SLICES, change=placeless))


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless])
def test_compressed_slices_are_read(tmp_path, syntax):
    folder = write_series(tmp_path, SLICES, change=lambda file, z: file.compress(syntax))
    np.testing.assert_array_equal(dicom.read_series(folder)[0][0], SLICES)


@pytest.mark.parametrize(
    ("number", "name"), [("201", "HTJ2K Lossless"), ("110", "JPEG XL Lossless"), ("299", r"1\.2\.840\.10008.*299")]
)
def test_a_compression_without_a_decoder_is_named(tmp_path, number, name):
    def packed(file, z):
        file.file_meta.TransferSyntaxUID = HTJ2KLossless
        file.PixelData = encapsulate([b"\xff\x4f\xff\x51" + b"\0" * 40])
        file["PixelData"].VR = "OB"

    for path in write_series(tmp_path, SLICES, change=packed).iterdir():
        content = path.read_bytes()
        path.write_bytes(content.replace(HTJ2KLossless.encode(), HTJ2KLossless.replace("201", number).encode()))
    with pytest.raises(ImageError, match=rf"compressed \({name}\), and there is no decoder .* without compression"):
        dicom.read_series(tmp_path)


# files with frames


@pytest.mark.parametrize("order", [None, [2, 0, 3, 1]])
def test_frames_come_in_the_order_of_their_places(tmp_path, order):
    pytest.importorskip("highdicom")
    path = write_enhanced(tmp_path / "s" / "enhanced.dcm", SLICES, order=order)
    for place in (path, path.parent):
        array, geometry = dicom.read_series(place)
        assert array.dtype == np.int16
        np.testing.assert_array_equal(array[0], SLICES)
        assert geometry.spacing == pytest.approx((2.0, 0.6, 0.5))
        assert geometry.origin == pytest.approx((-7, 9, 5))
        assert geometry.axes_code == "LPS"


def test_frames_lie_as_the_slices_of_the_same_series(tmp_path):
    array, geometry = dicom.read_series(write_series(tmp_path / "slices", SLICES))
    other, there = dicom.read_series(write_enhanced(tmp_path / "enhanced.dcm", SLICES))
    np.testing.assert_array_equal(array, other)
    np.testing.assert_allclose(there.direction, geometry.direction, atol=1e-9)
    assert there.origin == pytest.approx(geometry.origin)


def test_frames_have_scales_of_their_own(tmp_path):
    array, _ = dicom.read_series(write_enhanced(tmp_path / "a.dcm", SLICES, slopes=[1, 1.5, 2, 2.5]))
    np.testing.assert_allclose(array[0], SLICES * np.array([1, 1.5, 2, 2.5])[:, None, None])


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"order": [0, 1, 3]}, "Is one missing, or was the gantry tilted"),
        ({"lean": 0.3}, "Is one missing, or was the gantry tilted"),
        ({"order": [0, 1, 2, 3, 0, 1, 2, 3]}, "Several of its frames have the same position"),
    ],
)
def test_frames_that_make_no_volume_are_refused(tmp_path, how, said):
    with pytest.raises(ImageError, match=said):
        dicom.read_series(write_enhanced(tmp_path / "a.dcm", SLICES, **how))


def test_a_film_is_no_volume(tmp_path):
    film = header(FILM)
    fill(film, SLICES)
    film.NumberOfFrames = 4
    with pytest.raises(ImageError, match="do not say where they lie: it is a film"):
        dicom.read_series(save(film, tmp_path / "film.dcm"))


def test_files_with_frames_are_images_of_their_own(tmp_path):
    write_enhanced(tmp_path / "a.dcm", SLICES)
    write_enhanced(tmp_path / "b.dcm", SLICES)
    with pytest.raises(ImageError, match=r"2 DICOM series.* series 3 \(CT, 4 slices\)"):
        dicom.read_series(tmp_path)


def test_frames_without_the_library_are_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "highdicom.seg", None)
    with pytest.raises(Exception, match=r"pip install napari-nnunet\[dicom\]"):
        dicom.read_series(write_enhanced(tmp_path / "a.dcm", SLICES))


@pytest.mark.parametrize("form", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_an_element_that_claims_more_than_its_file_is_refused_before_memory_is_taken_for_it(tmp_path, form):
    def change(file, z):
        file.file_meta.TransferSyntaxUID = form
        file.ReferencedImageSequence = [header(FILM)]  # sequences, and what is private, are stepped over

    write_series(tmp_path / "whole", SLICES, change=change)
    np.testing.assert_array_equal(dicom.read_series(tmp_path / "whole")[0][0], SLICES)
    path = sorted((tmp_path / "whole").iterdir())[1]
    data = bytearray(path.read_bytes())
    at = data.rindex(b"\xe0\x7f\x10\x00") + (8 if form == ExplicitVRLittleEndian else 4)
    data[at : at + 4] = (2**31).to_bytes(4, "little")
    path.write_bytes(data)
    with pytest.raises(ImageError, match=r"s001\.dcm is damaged: it says .* has 2,147,483,648 bytes"):
        dicom.read_series(tmp_path / "whole")


def test_slices_that_claim_more_pixels_than_memory_holds_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("napari_nnunet.formats.room._CERTAIN", 0)
    monkeypatch.setattr("napari_nnunet.formats.room.available_memory", lambda: 1000)
    with pytest.raises(ResourceError, match="says that it holds 4 x 16 x 17 voxels"):
        dicom.read_series(write_series(tmp_path, SLICES))


@pytest.mark.parametrize(("wide", "said"), [(2.04, ""), (2.15, "its slices lie 2 to 2.15 mm apart, and were taken as 2.08 mm apart: some are up to 1.5 mm off their place")])  # fmt: skip
def test_gaps_that_differ_a_little_and_add_up_are_said(tmp_path, wide, said):
    def change(file, z):
        file.ImagePositionPatient = [0, 0, 2 * z + (wide - 2) * max(0, z - 20)]

    folder = write_series(tmp_path, np.zeros((41, 8, 9), np.int16), change=change)
    assert " ".join(dicom.read_series(folder)[1].remarks) == said
