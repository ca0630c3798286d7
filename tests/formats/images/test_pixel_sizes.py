"""Sizes inside of TIFF and PNG files count where somebody measured them; pages make a stack or an error."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
import tifffile
from PIL import Image

from napari_nnunet.errors import ImageError, ResourceError
from napari_nnunet.formats import room
from napari_nnunet.formats.images.files import read_header, read_labels, read_volume
from napari_nnunet.formats.images.pixel_sizes import tells_pixel_size
from napari_nnunet.schema.geometry import BESIDE, IMAGEJ, OME, RESOLUTION

STACK = np.arange(5 * 6 * 7, dtype=np.uint8).reshape(5, 6, 7)


def spacing_of(path, reader=None):
    geometry = read_volume([path], reader=reader).geometry
    assert read_header(path, reader=reader).geometry == geometry
    return geometry.spacing if geometry.spacing_known else None, geometry.spacing_source


@pytest.mark.parametrize(
    ("unit", "factor"),
    [("um", 1e-3), ("micron", 1e-3), ("\\u00B5m", 1e-3), ("mm", 1), ("nm", 1e-6), ("cm", 10), ("m", 1000)],
)
def test_imagej_says_the_size_in_its_unit(tmp_path, unit, factor):
    path = tmp_path / "a.tif"
    tifffile.imwrite(
        path, STACK, imagej=True, resolution=(4.0, 5.0), metadata={"spacing": 0.5, "unit": unit, "axes": "ZYX"}
    )
    spacing, source = spacing_of(path)
    assert spacing == pytest.approx((0.5 * factor, 0.2 * factor, 0.25 * factor))
    assert source == IMAGEJ


@pytest.mark.parametrize("unit", ["pixel", "furlong", None])
def test_imagej_without_a_length_says_nothing(tmp_path, unit):
    path = tmp_path / "a.tif"
    words = {"axes": "ZYX"} | ({"unit": unit} if unit else {})
    tifffile.imwrite(path, STACK, imagej=True, resolution=(4.0, 4.0), metadata=words)
    assert spacing_of(path) == (None, "")


@pytest.mark.parametrize(
    ("unit", "factor"),
    [
        ("", 1e-3), ("nm", 1e-6), ("mm", 1), ("Å", 1e-7), ("pm", 1e-9), ("fm", 1e-12), ("in", 25.4), ("thou", 0.0254),
        ("ft", 304.8), ("yd", 914.4), ("mi", 1609344), ("dm", 100), ("km", 1e6),
    ],
)  # fmt: skip
def test_ome_says_the_size_and_its_unit(tmp_path, unit, factor):
    path = tmp_path / "a.ome.tif"
    words = {"axes": "ZYX", "PhysicalSizeX": 0.25, "PhysicalSizeY": 0.2, "PhysicalSizeZ": 0.5}
    words |= {f"PhysicalSize{axis}Unit": unit for axis in "XYZ"} if unit else {}
    tifffile.imwrite(path, STACK, metadata=words)
    spacing, source = spacing_of(path)
    assert spacing == pytest.approx((0.5 * factor, 0.2 * factor, 0.25 * factor))
    assert source == OME


@pytest.mark.parametrize("unit", ["pixel", "reference frame", "Mm", "Pm"])
def test_ome_without_a_length_of_voxels_says_nothing(tmp_path, unit):
    """Mm are megametres, and no millimetres."""
    words = {"axes": "ZYX"} | {f"PhysicalSize{axis}": 0.25 for axis in "XYZ"}
    tifffile.imwrite(tmp_path / "a.ome.tif", STACK, metadata=words | {f"PhysicalSize{a}Unit": unit for a in "XYZ"})
    assert spacing_of(tmp_path / "a.ome.tif") == (None, "")


def test_a_distance_of_slices_that_ome_lacks_is_not_invented(tmp_path):
    words = {"axes": "ZYX", "PhysicalSizeX": 0.25, "PhysicalSizeY": 0.25}
    tifffile.imwrite(tmp_path / "a.ome.tif", STACK, metadata=words)
    assert spacing_of(tmp_path / "a.ome.tif") == (None, "")


def test_the_file_beside_wins_over_what_is_inside(tmp_path):
    path = tmp_path / "a_0000.tif"
    tifffile.imwrite(path, STACK, imagej=True, resolution=(4.0, 4.0), metadata={"spacing": 0.5, "unit": "um"})
    (tmp_path / "a.json").write_text('{"spacing": [3, 2, 1]}')
    assert spacing_of(path) == ((3, 2, 1), BESIDE)


@pytest.mark.parametrize(
    ("dots", "unit", "size"), [(72, 2, None), (28.35, 3, None), (1, 2, None), (12000, 3, 0.000833)]
)
def test_resolution_tags_count_unless_programs_write_them_by_default(tmp_path, dots, unit, size):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, STACK[0], resolution=(dots, dots), resolutionunit=unit, metadata=None)
    spacing, source = spacing_of(path)
    assert spacing == (None if size is None else pytest.approx((size, size), rel=1e-3))
    assert source == ("" if size is None else RESOLUTION)
    assert spacing_of(path, "NaturalImage2DIO") == (None, "")


@pytest.mark.parametrize("dots", [72, 96, 150, 300, 600, 1200])
def test_defaults_of_screens_and_printers_are_no_measurement(dots):
    assert not tells_pixel_size(25.4 / dots)
    assert not tells_pixel_size(1000 / round(dots / 0.0254))  # as PNG rounds them
    assert tells_pixel_size(25.4 / dots * 1.01)


@pytest.mark.parametrize(("dots", "size"), [(72, None), (300, None), (25400, 0.001)])
def test_a_png_says_the_size_of_its_pixels(tmp_path, dots, size):
    path = tmp_path / "a.png"
    Image.fromarray(STACK[0]).save(path, dpi=(dots, dots))
    spacing, source = spacing_of(path)
    assert spacing == (None if size is None else pytest.approx((size, size)))
    assert source == ("" if size is None else RESOLUTION)
    assert spacing_of(path, "NaturalImage2DIO") == (None, "")


@pytest.mark.parametrize("reader", [None, "Tiff3DIO"])
@pytest.mark.parametrize("count", [2, 12])
def test_pages_appended_one_by_one_are_a_stack(tmp_path, reader, count):
    path = tmp_path / "a.tif"
    stack = np.random.default_rng(0).integers(0, 200, (count, 6, 7)).astype(np.uint8)
    for page in stack:
        tifffile.imwrite(path, page, append=path.exists())
    volume = read_volume([path], reader=reader)
    np.testing.assert_array_equal(volume.array[0], stack)
    np.testing.assert_array_equal(read_labels(path, reader=reader)[0], stack)
    assert read_header(path, reader=reader).shape == (1, count, 6, 7)


def test_a_reader_of_pictures_refuses_a_stack_with_the_number_of_its_pages(tmp_path):
    for page in STACK:
        tifffile.imwrite(tmp_path / "a.tif", page, append=(tmp_path / "a.tif").exists())
    with pytest.raises(ImageError, match=r"a\.tif holds 5 pages; a picture has one"):
        read_volume([tmp_path / "a.tif"], reader="NaturalImage2DIO")


@pytest.mark.parametrize("second", [np.zeros((3, 3), np.uint8), np.zeros((6, 7), np.uint16), STACK])
def test_images_that_make_no_stack_are_refused_with_their_number(tmp_path, second):
    tifffile.imwrite(tmp_path / "a.tif", STACK[0])
    tifffile.imwrite(tmp_path / "a.tif", second, append=True)
    with pytest.raises(ImageError, match=r"a\.tif holds \d pages in 2 images that do not form a stack"):
        read_volume([tmp_path / "a.tif"])


def test_the_largest_level_of_a_pyramid_is_read_and_that_is_said(tmp_path):
    big = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64)
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        writer.write(big, subifds=2, tile=(16, 16))
        writer.write(big[::2, ::2], subfiletype=1, tile=(16, 16))
        writer.write(big[::4, ::4], subfiletype=1, tile=(16, 16))
    volume = read_volume([tmp_path / "a.tif"])
    np.testing.assert_array_equal(volume.array[0], big)
    assert volume.geometry.remarks == ("it has 3 levels of resolution, of which the largest was read",)


def test_a_thumbnail_behind_a_stack_is_left_out_and_that_is_said(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", STACK, metadata={"axes": "ZYX"})
    tifffile.imwrite(tmp_path / "a.tif", STACK[0, ::2, ::2], subfiletype=1, append=True)
    volume = read_volume([tmp_path / "a.tif"])
    np.testing.assert_array_equal(volume.array[0], STACK)
    assert "levels of resolution" in volume.geometry.remarks[0]


@pytest.mark.parametrize("planar", [1, 2])
@pytest.mark.parametrize("tile", [None, (16, 16)])
def test_planar_and_tiled_colours_are_channels(tmp_path, planar, tile):
    colours = np.random.default_rng(1).integers(0, 255, (3, 40, 50)).astype(np.uint8)
    stored = colours if planar == 2 else np.moveaxis(colours, 0, -1)
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="rgb", planarconfig=planar, tile=tile)
    np.testing.assert_array_equal(read_volume([tmp_path / "a.tif"]).array, colours)


def test_channels_that_are_named_as_such_are_channels(tmp_path):
    two = np.stack([STACK, STACK[::-1]], axis=1)
    tifffile.imwrite(tmp_path / "a.tif", two, imagej=True, metadata={"axes": "ZCYX"})
    volume = read_volume([tmp_path / "a.tif"])
    np.testing.assert_array_equal(volume.array, two.transpose(1, 0, 2, 3))
    assert read_header(tmp_path / "a.tif").shape == (2, 5, 6, 7)


def test_time_points_are_refused_with_the_remedy(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((2, 5, 6, 7), np.uint8), imagej=True, metadata={"axes": "TZYX"})
    with pytest.raises(ImageError, match=r"TZYX: 2 x 5 x 6 x 7.*every time point as a stack of its own"):
        read_volume([tmp_path / "a.tif"])


def test_one_file_of_an_ome_set_is_refused_and_the_others_are_not_followed(tmp_path):
    words = (
        '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="urn:uuid:one">'
        '<Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint8" SizeX="7" SizeY="6" SizeZ="2" '
        'SizeC="1" SizeT="1"><TiffData FirstZ="0" IFD="0"><UUID FileName="a.tif">urn:uuid:one</UUID></TiffData>'
        '<TiffData FirstZ="1" IFD="0"><UUID FileName="../b.tif">urn:uuid:two</UUID></TiffData></Pixels></Image></OME>'
    )
    (tmp_path / "in").mkdir()
    tifffile.imwrite(tmp_path / "in" / "a.tif", STACK[0], description=words, metadata=None)
    tifffile.imwrite(tmp_path / "b.tif", STACK[1])
    with pytest.raises(ImageError, match="one of 2 files of an OME set"):
        read_volume([tmp_path / "in" / "a.tif"])


def test_a_chain_of_pages_that_breaks_off_is_damage(tmp_path):
    path = tmp_path / "a.tif"
    for page in STACK:
        tifffile.imwrite(path, page, append=path.exists(), metadata=None)
    with tifffile.TiffFile(path) as file:
        second = file.pages[1].offset
    path.write_bytes(path.read_bytes().replace(struct.pack("<I", second), struct.pack("<I", 1 << 30)))
    with pytest.raises(ImageError, match=r"a\.tif is damaged"):
        read_volume([path])


def test_bombs_are_refused_by_their_headers(tmp_path, monkeypatch):
    monkeypatch.setattr(room, "available_memory", lambda: int(1e9))
    tifffile.imwrite(tmp_path / "a.tif", STACK, metadata=None)
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+") as file:
        for page in file.pages:
            page.tags["ImageWidth"].overwrite(60000)
            page.tags["ImageLength"].overwrite(60000)
            page.tags["RowsPerStrip"].overwrite(60000)
    with pytest.raises(ResourceError, match=r"a\.tif says that it holds 5 x 60000 x 60000 voxels, which take 18.0 GB"):
        read_volume([tmp_path / "a.tif"], reader="Tiff3DIO")
    (tmp_path / "b.png").write_bytes(png_claiming(100_000, 100_000))
    with pytest.raises(ResourceError, match=r"b\.png says that it holds 100000 x 100000 x 1 voxels"):
        read_volume([tmp_path / "b.png"])


def png_claiming(width, height):
    content = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + content + struct.pack(">I", zlib.crc32(content))


@pytest.mark.parametrize("words", ["0,5", "", "nan"])
def test_a_distance_of_slices_that_is_no_number_leaves_the_size_unknown(tmp_path, words):
    path = tmp_path / "s.tif"
    stack = np.zeros((4, 6, 7), np.uint8)
    tifffile.imwrite(
        path, stack, imagej=True, resolution=(4, 4), metadata={"spacing": 0.5, "unit": "um", "axes": "ZYX"}
    )
    content = path.read_bytes()
    assert content.count(b"spacing=0.5") == 1
    path.write_bytes(content.replace(b"spacing=0.5", f"spacing={words}".ljust(11, "\n").encode()))
    volume = read_volume([path])
    assert volume.shape == (4, 6, 7)
    assert not volume.geometry.spacing_known
