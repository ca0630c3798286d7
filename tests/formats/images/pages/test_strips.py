"""Small deflated pages are unpacked one after the other, and come out as tifffile unpacks them."""

from __future__ import annotations

import itertools
import zlib

import numpy as np
import pytest
import tifffile

from napari_nnunet.errors import ImageError
from napari_nnunet.formats.images.files import read_volume
from napari_nnunet.formats.images.pages.chain import opened
from napari_nnunet.formats.images.pages.series import looked_through, pages_of
from napari_nnunet.formats.images.pages.strips import unpacked_in_turn

TYPES = ("u1", "i1", "u2", "i2", "u4", "i4", "f4", "f8")
PLAIN = {"metadata": {"axes": "ZYX"}, "photometric": "minisblack", "compression": "zlib"}


def stack(kind, shape=(5, 6, 7)):
    """Return values of a type, each other than its neighbours."""
    return (np.arange(np.prod(shape)).reshape(shape) * 37 % 251 - 100).astype(kind)


def in_turn(path):
    """Return what our own way makes of a file, and whether it made anything; and what tifffile makes of it."""
    with opened(path) as file:
        quick = unpacked_in_turn(pages_of(file, path).parts[0])
    return quick, tifffile.imread(path)


@pytest.mark.parametrize(("kind", "order"), itertools.product(TYPES, "<>"))
def test_every_type_and_order_of_bytes_comes_out_as_stored(tmp_path, kind, order):
    tifffile.imwrite(tmp_path / "a.tif", stack(kind), byteorder=order, **PLAIN)
    quick, usual = in_turn(tmp_path / "a.tif")
    assert quick.dtype == usual.dtype
    assert quick.dtype.isnative
    np.testing.assert_array_equal(quick, usual)
    np.testing.assert_array_equal(quick, stack(kind))


@pytest.mark.parametrize("how", [
    {"photometric": "rgb", "shape": (5, 6, 7, 3)},
    {"photometric": "minisblack", "metadata": {"axes": "CZYX"}, "shape": (2, 5, 6, 7)},
    {"photometric": "miniswhite"}, {"bigtiff": True}, {"ome": True}, {"metadata": None},
])  # fmt: skip
def test_other_axes_and_files_come_out_as_tifffile_has_them(tmp_path, how):
    how = dict(how)
    tifffile.imwrite(tmp_path / "a.tif", stack("u1", how.pop("shape", (5, 6, 7))), **{**PLAIN, **how})
    with opened(tmp_path / "a.tif") as file:
        pages = looked_through(pages_of(file, tmp_path / "a.tif"), tmp_path / "a.tif")
        read = pages.read(tmp_path / "a.tif")
    np.testing.assert_array_equal(read.squeeze(), tifffile.imread(tmp_path / "a.tif"))


@pytest.mark.parametrize("how", [
    {"predictor": True}, {"tile": (16, 16)}, {"rowsperstrip": 2}, {"compression": None}, {"compression": "lzma"},
    {"photometric": "rgb", "planarconfig": "separate", "shape": (2, 3, 6, 7)}, {"shape": (3, 300, 300)},
])  # fmt: skip
def test_what_is_stored_otherwise_is_left_to_tifffile(tmp_path, how):
    how = dict(how)
    shape = how.pop("shape", (5, 32, 32))
    if len(shape) == 4:
        how["metadata"] = None
    tifffile.imwrite(tmp_path / "a.tif", stack("u1", shape), **{**PLAIN, **how})
    assert in_turn(tmp_path / "a.tif")[0] is None


def test_numbers_of_single_bits_are_left_to_tifffile(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", stack("u1") > 0, **PLAIN)
    assert in_turn(tmp_path / "a.tif")[0] is None


def with_third_strip(path, change):
    """Write a stack whose third page holds something else than was written."""
    tifffile.imwrite(path, stack("u1"), **PLAIN)
    with tifffile.TiffFile(path) as file:
        place, count = file.pages[2].dataoffsets[0], file.pages[2].databytecounts[0]
    content = bytearray(path.read_bytes())
    content[place : place + count] = change(bytes(content[place : place + count]))
    path.write_bytes(content)
    with opened(path) as file:
        return unpacked_in_turn(pages_of(file, path).parts[0])


@pytest.mark.parametrize("damage", [
    lambda strip: bytes(len(strip)),
    lambda strip: strip[: len(strip) // 2] + bytes(len(strip) - len(strip) // 2),
    lambda strip: zlib.compress(b"\x07" * 10).ljust(len(strip), b"\0"),
])  # fmt: skip
def test_a_damaged_strip_is_never_a_plane(tmp_path, damage):
    path = tmp_path / "a.tif"
    assert with_third_strip(path, damage) is None
    with pytest.raises(ImageError, match=r"a\.tif cannot be read as Tiff3DIO"):
        read_volume([path], reader="Tiff3DIO")


def test_a_strip_that_holds_more_than_its_page_is_left_to_tifffile(tmp_path):
    """Some programs fill up the last strip; with imagecodecs tifffile refuses it, without it takes the page."""
    assert (
        with_third_strip(tmp_path / "a.tif", lambda strip: zlib.compress(b"\x07" * 90).ljust(len(strip), b"\0")) is None
    )
