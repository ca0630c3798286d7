"""Numbers in headers of MetaImage and NRRD that are no sizes and no places, and files that hold more or less than these say."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
import SimpleITK as sitk

from napari_nnunet.errors import ImageError
from napari_nnunet.formats.images.files import read_header, read_volume
from napari_nnunet.formats.images.text.numbers import lacks_direction
from napari_nnunet.grid import Grid, Same, relation

ARRAY = np.arange(5 * 4 * 3, dtype=np.int16).reshape(5, 4, 3)
VOXELS = ARRAY.tobytes()
READERS = ["SimpleITKIO", "SimpleITKIOWithReorient"]


def meta(folder, lines="ElementSpacing = 1 1 1\n", voxels=VOXELS, *, beside=False, packed=False):
    """Write a MetaImage with some lines in its header."""
    voxels = zlib.compress(voxels) if packed else voxels
    more = f"CompressedData = True\nCompressedDataSize = {len(voxels)}\n" if packed else ""
    head = (
        "ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\n"
        f"{more}{lines}DimSize = 3 4 5\nElementType = MET_SHORT\nElementDataFile = {'a.raw' if beside else 'LOCAL'}\n"
    )
    path = folder / ("a.mhd" if beside else "a.mha")
    path.write_bytes(head.encode() + (b"" if beside else voxels))
    if beside:
        (folder / "a.raw").write_bytes(voxels)
    return path


def nrrd(folder, lines="spacings: 1 1 1\n", voxels=VOXELS, *, beside=False):
    """Write a NRRD with some lines in its header."""
    end = "data file: a.raw\n" if beside else ""
    head = f"NRRD0004\ntype: int16\ndimension: 3\n{lines}sizes: 3 4 5\nendian: little\nencoding: raw\n{end}\n"
    path = folder / "a.nrrd"
    path.write_bytes(head.encode() + (b"" if beside else voxels))
    if beside:
        (folder / "a.raw").write_bytes(voxels)
    return path


@pytest.mark.parametrize(("written", "line"), [
    (meta, "ElementSpacing = 0.5 0.5 -2\n"), (meta, "ElementSize = 0.5 0.5 -2\n"), (nrrd, "spacings: 0.5 0.5 -2\n"),
])  # fmt: skip
def test_a_negative_size_is_an_axis_that_leads_the_other_way_and_said(tmp_path, written, line):
    path = written(tmp_path, line)
    volume = read_volume([path])
    said = (
        "its header has a negative voxel size along z (0.5 0.5 -2), which was read as an axis that leads the other way"
    )
    assert volume.geometry.remarks == (said,)
    assert (volume.geometry.spacing, volume.geometry.axes_code) == ((2, 0.5, 0.5), "LPI")
    assert read_header(path).geometry == volume.geometry
    turned = read_volume([path], reader="SimpleITKIOWithReorient")
    assert turned.geometry.remarks == (said,)
    np.testing.assert_array_equal(turned.array[0], ARRAY[::-1, ::-1, ::-1])


def test_packed_voxels_with_a_negative_size_lie_where_others_do(tmp_path):
    line = "ElementSpacing = 0.5 -0.5 -2\n"
    (tmp_path / "packed").mkdir()
    plain, packed = (
        read_volume([path]) for path in (meta(tmp_path, line), meta(tmp_path / "packed", line, packed=True))
    )
    np.testing.assert_array_equal(plain.array, packed.array)
    assert isinstance(relation(Grid(ARRAY.shape, plain.geometry), Grid(ARRAY.shape, packed.geometry)), Same)
    assert packed.geometry.axes_code == "LAI"
    one, two = (
        read_volume([path], reader="SimpleITKIOWithReorient").array
        for path in (tmp_path / "a.mha", tmp_path / "packed" / "a.mha")
    )
    np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("name", ["ElementSpacing", "ElementSize"])
@pytest.mark.parametrize(
    "value", ["0 0 0", "0.5 0.5 0", "nan 1 1", "1 inf 1", "1 1", "a b c", "1,5 1,5 2", "", "1e400 1 1"]
)
@pytest.mark.parametrize("packed", [False, True])
def test_a_line_of_a_metaimage_that_is_no_size_is_named(tmp_path, name, value, packed):
    path = meta(tmp_path, f"{name} = {value}\n", packed=packed)
    said = f"its header, which is text, has {name} = {value!r}; write one number above 0 of mm for every axis"
    for look in (read_header, lambda path: read_volume([path])):
        with pytest.raises(ImageError) as caught:
            look(path)
        assert said in caught.value.message


@pytest.mark.parametrize("line", ["Offset = nan 0 0", "Position = 1 2", "Origin = a b c", "TransformMatrix = 0 0 0 0 0 0 0 0 0",
                                  "TransformMatrix = 1 0 0", "Orientation = nan 0 0 0 1 0 0 0 1"])  # fmt: skip
def test_a_line_of_a_metaimage_that_is_no_place_is_named(tmp_path, line):
    path = meta(tmp_path, f"ElementSpacing = 1 1 1\n{line}\n")
    name, value = line.split(" = ")
    with pytest.raises(ImageError) as caught:
        read_volume([path])
    assert f"has {name} = {value!r}; write finite numbers, and axes with a length" in caught.value.message


def test_a_direction_of_a_nrrd_without_a_length_is_named(tmp_path):
    path = nrrd(tmp_path, "space: left-posterior-superior\nspace directions: (0,0,0) (0,0.5,0) (0,0,2)\n")
    for look in (read_header, lambda path: read_volume([path])):
        with pytest.raises(ImageError, match=r"has a direction of the length 0 \('space directions'\)"):
            look(path)


def test_an_axis_of_a_nrrd_without_a_direction_has_no_size(tmp_path):
    path = nrrd(tmp_path, "space: left-posterior-superior\nspace directions: none (0,0.5,0) (0,0,2)\n")
    geometry = read_volume([path]).geometry
    assert not geometry.spacing_known
    assert geometry.remarks == ("one of its axes has no direction (none); 1 mm was used for it",)


@pytest.mark.parametrize("written", [meta, nrrd])
@pytest.mark.parametrize("beside", [False, True])
@pytest.mark.parametrize("reader", READERS)
def test_a_file_that_holds_more_than_its_header_says_is_read_and_said(tmp_path, written, beside, reader):
    path = written(tmp_path, voxels=ARRAY.tobytes() + bytes(80), beside=beside)
    volume = read_volume([path], reader=reader)
    who = "a.raw" if beside else "it"
    assert volume.geometry.remarks == (
        f"{who} holds 80 bytes more than its header says, which were ignored; are the type and the number of voxels "
        "right, and where they begin?",
    )
    if reader == "SimpleITKIO":
        np.testing.assert_array_equal(volume.array[0], ARRAY)


@pytest.mark.parametrize("beside", [False, True])
@pytest.mark.parametrize(("written", "first", "last"), [
    (meta, "HeaderSize = -1", ""), (nrrd, "byte skip: -1", ""), (nrrd, "byte skip: 40", ""), (nrrd, "byteskip: 40", ""),
])  # fmt: skip
def test_bytes_that_a_header_has_passed_over_are_not_talked_of(tmp_path, written, first, last, beside):
    spacing = "ElementSpacing = 1 1 1\n" if written is meta else "spacings: 1 1 1\n"
    path = written(tmp_path, f"{spacing}{first}\n", bytes(40) + ARRAY.tobytes(), beside=beside)
    volume = read_volume([path])
    np.testing.assert_array_equal(volume.array[0], ARRAY)
    assert volume.geometry.remarks == ()
    if "-1" not in first:
        longer = written(tmp_path, f"{spacing}{first}\n", bytes(40) + ARRAY.tobytes() + bytes(2), beside=beside)
        assert "holds 2 bytes more" in read_volume([longer]).geometry.remarks[0]


@pytest.mark.parametrize("written", [meta, nrrd])
@pytest.mark.parametrize("beside", [False, True])
@pytest.mark.parametrize("ends", [False, True])
def test_a_file_that_holds_less_is_truncated(tmp_path, written, beside, ends):
    size, skip = (("ElementSpacing = 1 1 1\n", "HeaderSize = -1\n") if written is meta else
                  ("spacings: 1 1 1\n", "byte skip: -1\n"))  # fmt: skip
    path = written(tmp_path, size + skip * ends, ARRAY.tobytes()[:-20], beside=beside)
    with pytest.raises(ImageError, match=r"truncated|holds 100 of 120 bytes|cannot be read"):
        read_volume([path])
    if not ends:
        with pytest.raises(ImageError, match=r"truncated, and holds 100 of 120 bytes of voxels\. Copy it again"):
            read_volume([path])


@pytest.mark.parametrize("reader", READERS)
def test_voxels_do_not_begin_within_the_header(tmp_path, reader):
    path = meta(tmp_path, "ElementSpacing = 1 1 1\nHeaderSize = 40\n")
    for look in (read_header, lambda path, reader: read_volume([path], reader=reader)):
        with pytest.raises(
            ImageError, match=r"voxels begin at byte 40 \(HeaderSize\), within its header.*HeaderSize = -1"
        ):
            look(path, reader=reader)
    beside = meta(tmp_path, "ElementSpacing = 1 1 1\nHeaderSize = 40\n", bytes(40) + ARRAY.tobytes(), beside=True)
    np.testing.assert_array_equal(read_volume([beside]).array[0], ARRAY)


@pytest.mark.parametrize("value", ["-2", "x", "8.5"])
def test_the_size_of_a_header_is_a_number_of_bytes(tmp_path, value):
    path = meta(tmp_path, f"ElementSpacing = 1 1 1\nHeaderSize = {value}\n")
    with pytest.raises(ImageError, match=f"has HeaderSize = '{value}'; it must be a number of bytes, or -1"):
        read_volume([path])


def gipl(folder, *, sizes=(0.5, 0.75, 2.0), place=(1.0, 2.0, 3.0), more=b"", less=0, kind=np.int16):
    """Write a GIPL file, some numbers of its header replaced."""
    sitk.WriteImage(sitk.GetImageFromArray(ARRAY.astype(kind)), str(folder / "a.gipl"))
    content = bytearray((folder / "a.gipl").read_bytes())
    struct.pack_into(">3f", content, 10, *sizes)
    struct.pack_into(">3d", content, 204, *place)
    (folder / "a.gipl").write_bytes(bytes(content[: len(content) - less]) + more)
    return folder / "a.gipl"


def test_a_gipl_file_that_is_truncated_is_refused_for_itk_fills_it_up(tmp_path):
    for kind in (np.uint8, np.int8, np.int16, np.uint16, np.float32, np.float64):
        assert read_volume([gipl(tmp_path, kind=kind)]).geometry.remarks == ()
        size = ARRAY.size * np.dtype(kind).itemsize
        path = gipl(tmp_path, kind=kind, less=20)
        for look in (read_header, lambda path: read_volume([path])):
            with pytest.raises(ImageError, match=f"is truncated, and holds {size - 20} of {size} bytes of voxels"):
                look(path)
    said = read_volume([gipl(tmp_path, more=b"more")]).geometry.remarks
    assert said == ("it holds 4 bytes more than its header says, which were ignored",)


@pytest.mark.parametrize("sizes", [(0.5, 0.75, 0), (np.nan, 1, 1), (1, np.inf, 1)])
def test_sizes_and_places_of_gipl_that_are_none_are_refused(tmp_path, sizes):
    with pytest.raises(ImageError, match="its header has the voxel size .* sizes must be numbers above 0"):
        read_volume([gipl(tmp_path, sizes=sizes)])
    with pytest.raises(ImageError, match="begins at nan 0 0"):
        read_volume([gipl(tmp_path, place=(np.nan, 0, 0))])


def test_a_negative_size_of_gipl_is_an_axis_that_leads_the_other_way(tmp_path):
    path = gipl(tmp_path, sizes=(0.5, 0.75, -2))
    geometry = read_volume([path]).geometry
    assert (geometry.spacing, geometry.axes_code) == ((2, 0.75, 0.5), "LPI")
    assert "a negative voxel size along z (0.5 0.75 -2)" in geometry.remarks[0]
    assert read_header(path).geometry == geometry


@pytest.mark.parametrize("beside", [False, True])
def test_packed_voxels_at_the_end_of_a_metaimage_are_read(tmp_path, beside):
    """ITK reads those within the file as something else, and says nothing."""
    path = meta(tmp_path, "ElementSpacing = 1 1 1\nHeaderSize = -1\n", beside=beside, packed=True)
    np.testing.assert_array_equal(read_volume([path]).array[0], ARRAY)


@pytest.mark.parametrize("lines", [
    "ElementSpacing = 1 2 3 0\n", "ElementSpacing = 1 2 3\nElementSize = 0 0 0\n", "ElementSize = 0 -1 0\nElementSpacing = 1 2 3\n",
])  # fmt: skip
def test_numbers_that_itk_does_not_read_are_not_judged(tmp_path, lines):
    geometry = read_volume([meta(tmp_path, lines)]).geometry
    assert (geometry.spacing, geometry.remarks) == ((3, 2, 1), ())


@pytest.mark.parametrize(("directions", "lacks"), [
    (b"none (1,0) (0,1)", False), (b"none (1,0,0) (0,1,0) (0,0,2)", False), (b"(1,0) (0,1)", False),
    (b"none (0,1,0) (0,0,1)", True), (b"none none (0,1,0) (0,0,1)", True), (b"none none none", True),
])  # fmt: skip
def test_the_axis_of_colours_is_none_that_lacks_its_direction(directions, lacks):
    assert lacks_direction(directions) is lacks
