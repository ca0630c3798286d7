"""Pictures are told from stacks, and their colours from slices."""

from __future__ import annotations

import struct
import zlib

import imageio.v3 as iio
import numpy as np
import pytest
import tifffile
from PIL import Image

import nasty
from napari_nnunet.errors import ImageError
from napari_nnunet.formats.images import natural
from napari_nnunet.formats.images.files import ADAPTERS, adapter_for, read_header, read_labels, read_volume


@pytest.mark.parametrize(
    ("shape", "axes", "picture"),
    [
        ((6, 7), "YX", True), ((1, 1), "YX", True), ((6, 7, 3), "YXS", True), ((6, 7, 4), "YXS", True),
        ((3, 6, 7), "SYX", True), ((3, 6, 7), "ZYX", False), ((4, 6, 7), "ZYX", False), ((9, 6, 7), "ZYX", False),
        ((2, 9, 6, 7), "CZYX", False),
    ],
)  # fmt: skip
def test_a_tiff_is_a_picture_unless_it_has_slices(tmp_path, shape, axes, picture):
    path = tmp_path / "Größe 1.TIF"
    colours = {"photometric": "rgb"} if "S" in axes else {"photometric": "minisblack"}
    options = {"planarconfig": "separate"} if axes == "SYX" else {}
    tifffile.imwrite(path, np.zeros(shape, np.uint8), metadata={"axes": axes}, **colours, **options)
    assert natural.is_natural(path) == picture
    assert adapter_for(path) is ADAPTERS["NaturalImage2DIO" if picture else "Tiff3DIO"]


@pytest.mark.parametrize("planar", [False, True])
def test_colours_come_first_however_a_tiff_has_them(tmp_path, planar):
    picture = np.arange(3 * 6 * 7, dtype=np.uint16).reshape(3, 6, 7)
    stored = picture if planar else np.moveaxis(picture, 0, -1)
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="rgb", planarconfig="separate" if planar else "contig")
    array, geometry = natural.read(tmp_path / "a.tif")
    np.testing.assert_array_equal(array, picture)
    assert not geometry.spacing_known
    assert natural.header(tmp_path / "a.tif")[:2] == ((3, 6, 7), 2)


def test_transparency_of_a_grey_picture_is_no_channel(tmp_path):
    picture = np.dstack([np.arange(42, dtype=np.uint8).reshape(6, 7), np.full((6, 7), 9, np.uint8)])
    iio.imwrite(tmp_path / "a.png", picture, mode="LA")
    array, _ = natural.read(tmp_path / "a.png")
    np.testing.assert_array_equal(array, picture[None, ..., 0])


@pytest.mark.parametrize(("opacity", "said"), [(0.25, True), (1.0, False)])
def test_transparency_of_fractions_is_told_from_none(tmp_path, opacity, said):
    picture = np.stack([np.linspace(0, 1, 42).reshape(6, 7), np.full((6, 7), opacity)], axis=-1).astype(np.float32)
    tifffile.imwrite(
        tmp_path / "a.tif", picture, photometric="minisblack", planarconfig="contig", extrasamples=["unassalpha"]
    )
    array, geometry = natural.read(tmp_path / "a.tif")
    np.testing.assert_array_equal(array, picture[None, ..., 0])
    assert (natural.SEEN_THROUGH in geometry.remarks) is said


def test_black_and_white_becomes_0_and_1(tmp_path):
    mask = np.eye(5, dtype=bool)
    tifffile.imwrite(tmp_path / "a.tif", mask)
    labels, _ = read_labels(tmp_path / "a.tif")
    np.testing.assert_array_equal(labels, mask.astype(np.int32))


@pytest.mark.parametrize("ending", [".png", ".bmp", ".jpg", ".tif"])
@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (6, 7), (6, 7, 3)])
def test_a_header_says_what_reading_gives(tmp_path, ending, shape):
    path = tmp_path / f"a{ending}"
    iio.imwrite(path, np.zeros(shape, np.uint8))
    volume = read_volume([path], as_stored=True)
    assert read_header(path) == (volume.array.shape, volume.array.dtype.itemsize, volume.geometry)


def test_a_film_is_no_picture(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((2, 9, 6, 7), np.uint8), photometric="minisblack")
    with pytest.raises(ImageError, match="4 dimensions; a picture has 2"):
        natural.read(tmp_path / "a.tif")


@pytest.mark.parametrize("axes", ["YX", "ZYX"])
def test_a_tiff_damaged_anywhere_is_read_or_an_error_of_images(tmp_path, axes):
    tifffile.imwrite(
        tmp_path / "a.tif",
        np.ones((3, 4, 5)[-len(axes) :], np.uint8),
        photometric="minisblack",
        metadata={"axes": axes},
    )
    path, said = tmp_path / "b.tif", []
    for data in nasty.damaged((tmp_path / "a.tif").read_bytes(), count=25):
        path.write_bytes(data)
        for read in (read_labels, read_header, lambda path: read_volume([path])):
            try:
                read(path)
            except ImageError as error:
                said.append(str(error))
    assert len(said) > 30
    assert all("b.tif" in text for text in said)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16", "transparent"])
def test_a_picture_is_read_as_the_library_reads_it(tmp_path, mode):
    colours = np.random.default_rng(0).integers(0, 255, (6, 9, 3), dtype=np.uint8)
    path, more = tmp_path / "a.png", {}
    picture = Image.fromarray(colours)
    if mode == "transparent":
        more = {"transparency": (1, 2, 3)}
    elif mode == "I;16":
        picture = Image.fromarray(colours[..., 0].astype(np.uint16) * 257)
    else:
        picture = picture.convert(mode)
    picture.save(path, **more)
    expected = iio.imread(path)
    with natural._opened(path, voxels=True) as (image, _):
        plain, _ = natural._pixels(image, path)
    found = expected if plain is None else plain
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("read", [read_labels, read_header])
def test_a_tiff_of_unknown_kind_is_opened_once_and_closed(tmp_path, monkeypatch, read):
    path = tmp_path / "p.tif"
    tifffile.imwrite(path, np.zeros((5, 6), np.uint8))
    files, open_file = [], tifffile.TiffFile
    monkeypatch.setattr(tifffile, "TiffFile", lambda *a, **k: files.append(open_file(*a, **k)) or files[-1])
    read(path)
    assert len(files) == 1
    assert files[0].filehandle.closed


@pytest.mark.parametrize("count", [2, 3])
def test_an_animation_is_refused_and_not_taken_for_colours(tmp_path, count):
    pictures = [Image.fromarray(np.full((6, 9), value, np.uint8)) for value in range(count)]
    pictures[0].save(tmp_path / "a.png", save_all=True, append_images=pictures[1:])
    with pytest.raises(ImageError, match=rf"a\.png holds {count} pictures \(an animation\)"):
        read_volume([tmp_path / "a.png"])


def test_grey_with_transparency_has_one_channel_before_and_after_it_is_read(tmp_path):
    Image.fromarray(np.full((6, 9), 7, np.uint8)).convert("LA").save(tmp_path / "a.png")
    assert read_header(tmp_path / "a.png").shape == read_volume([tmp_path / "a.png"]).array.shape == (1, 6, 9)


def turned_jpeg(path):
    way = Image.Exif()
    way[274] = 6
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(path, exif=way)


def deep_png(path):
    path.write_bytes(iio.imwrite("<bytes>", np.zeros((4, 5, 3), np.uint8), extension=".png"))
    content = path.read_bytes()
    ihdr = content[12:24] + b"\x10" + content[25:29]
    pixels = zlib.compress(bytes(4 * (1 + 5 * 3 * 2)))
    parts = [content[:8], content[8:12], ihdr, struct.pack(">I", zlib.crc32(ihdr))]
    for kind, data in ((b"IDAT", pixels), (b"IEND", b"")):
        parts += [struct.pack(">I", len(data)), kind, data, struct.pack(">I", zlib.crc32(kind + data))]
    path.write_bytes(b"".join(parts))


ODD = {
    "turned.jpg": (turned_jpeg, "to be shown turned or mirrored (orientation 6)"),
    "deep.png": (deep_png, "16 bits per colour were read as 8"),
    "print.jpg": (lambda path: Image.new("CMYK", (8, 8)).save(path), "those of print (CMYK)"),
    "times.tif": (
        lambda path: tifffile.imwrite(path, np.zeros((3, 8, 8), np.uint8), metadata={"axes": "TYX"},
                                      photometric="minisblack"),
        "3 planes are named time points (T), and were read as the colours of one picture",
    ),
    "turned.tif": (
        lambda path: tifffile.imwrite(path, np.zeros((8, 8), np.uint8), extratags=[(274, 3, 1, 3, True)]),
        "to be shown turned or mirrored (orientation 3)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ODD)
def test_what_a_picture_loses_or_may_not_mean_is_said(tmp_path, name):
    make, said = ODD[name]
    make(tmp_path / name)
    assert said in " ".join(read_volume([tmp_path / name]).geometry.remarks)


CHANNELS = {
    "ImageJ": {"imagej": True, "metadata": {"axes": "CYX"}},
    "planar": {"photometric": "minisblack", "planarconfig": "separate"},
    "side by side": {"photometric": "minisblack", "planarconfig": "contig"},
    "OME": {"ome": True, "metadata": {"axes": "CYX"}, "photometric": "minisblack"},
}


@pytest.mark.parametrize("count", [2, 5])
@pytest.mark.parametrize("kind", CHANNELS)
def test_no_channel_of_a_tiff_is_taken_for_transparency_or_for_rows(tmp_path, kind, count):
    values = np.random.default_rng(0).integers(0, 60000, (count, 6, 9), np.uint16)
    stored = np.moveaxis(values, 0, -1) if kind == "side by side" else values
    tifffile.imwrite(tmp_path / "a.tif", stored, **CHANNELS[kind])
    np.testing.assert_array_equal(read_volume([tmp_path / "a.tif"], reader="NaturalImage2DIO").array, values)
    assert read_header(tmp_path / "a.tif", reader="NaturalImage2DIO").shape == values.shape
    with pytest.raises(ImageError, match=f"a.tif has {count} channels; a label file must have one"):
        read_labels(tmp_path / "a.tif", reader="NaturalImage2DIO")


@pytest.mark.parametrize("planes", ["contig", "separate"])
def test_a_tiff_that_names_its_transparency_is_grey_and_says_what_was_left_out(tmp_path, planes):
    values = np.random.default_rng(0).integers(0, 200, (6, 9, 2), np.uint8)
    stored = np.moveaxis(values, -1, 0) if planes == "separate" else values
    how = {"photometric": "minisblack", "planarconfig": planes, "extrasamples": ["unassalpha"]}
    tifffile.imwrite(tmp_path / "a.tif", stored, **how)
    volume = read_volume([tmp_path / "a.tif"], reader="NaturalImage2DIO")
    np.testing.assert_array_equal(volume.array, values[None, ..., 0])
    assert volume.geometry.remarks == (natural.SEEN_THROUGH,)
    assert read_header(tmp_path / "a.tif", reader="NaturalImage2DIO").shape == (1, 6, 9)


@pytest.mark.parametrize("samples", [3, 4])
@pytest.mark.parametrize("planes", ["contig", "separate"])
def test_colours_of_a_tiff_keep_their_16_bits_as_for_nnunet(tmp_path, samples, planes):
    values = np.random.default_rng(0).integers(0, 65536, (samples, 6, 9), np.uint16)
    stored = np.moveaxis(values, 0, -1) if planes == "contig" else values
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="rgb", planarconfig=planes)
    volume = read_volume([tmp_path / "a.tif"], reader="NaturalImage2DIO")
    np.testing.assert_array_equal(volume.array, values)
    assert not volume.geometry.remarks
