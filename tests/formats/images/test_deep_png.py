"""Masks in PNG files with 16 bits per colour keep their values; Pillow, and nnU-Net with it, reads 8 of them."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from napari_nnunet.errors import ImageError
from napari_nnunet.formats.images.files import read_header, read_labels, read_volume
from napari_nnunet.formats.masks.stored import read_mask

_COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}  # W3C PNG, by samples per pixel
OPAQUE = 65535


def write_deep(path, array, *more):
    """Write (Y, X, C) with 16 bits per sample, each row with another filter; more chunks as (kind, content)."""
    rows = array.astype(">u2").view(np.uint8).reshape(len(array), -1)
    step = array.shape[-1] * 2
    lines = b""
    for y, row in enumerate(rows):
        left = np.concatenate([np.zeros(step, np.uint8), row[:-step]])
        above = rows[y - 1] if y else np.zeros_like(row)
        lines += bytes([y % 3]) + (row, row - left, row - above)[y % 3].tobytes()
    head = struct.pack(">IIBBBBB", array.shape[1], len(array), 16, _COLOUR_TYPES[array.shape[-1]], 0, 0, 0)
    parts = [b"\x89PNG\r\n\x1a\n"]
    for kind, data in ((b"IHDR", head), *more, (b"IDAT", zlib.compress(lines)), (b"IEND", b"")):
        parts += [struct.pack(">I", len(data)), kind, data, struct.pack(">I", zlib.crc32(kind + data))]
    path.write_bytes(b"".join(parts))


def values():
    return np.array([[0, 1, 300, 65535], [256, 7, 255, 0], [300, 300, 2, 1], [9, 0, 512, 3]], np.uint16)


def grey(samples):
    """Return the values as grey: one sample, or equal colours, opaque where there is a fourth or second sample."""
    array = np.repeat(values()[..., None], samples, axis=-1)
    if samples in (2, 4):
        array[..., -1] = OPAQUE
    return array


@pytest.mark.parametrize("samples", _COLOUR_TYPES)
def test_a_mask_with_16_bits_per_colour_keeps_its_values(tmp_path, samples):
    path = tmp_path / "ä.png"
    write_deep(path, grey(samples))
    found = read_mask(path)
    np.testing.assert_array_equal(found.array, values())
    assert not found.colours
    assert not found.geometry.remarks


def test_grey_with_transparency_is_one_channel_with_all_its_bits(tmp_path):
    path, seen_through = tmp_path / "a.png", grey(2)
    write_deep(path, seen_through)
    volume = read_volume([path], as_stored=True)
    np.testing.assert_array_equal(volume.array, values()[None])
    assert volume.array.dtype == np.uint16
    assert volume.geometry.remarks == ()
    assert read_header(path)[:2] == ((1, 4, 4), 2)
    seen_through[0, 0, 1] = 9
    write_deep(path, seen_through)
    volume = read_volume([path], as_stored=True)
    np.testing.assert_array_equal(volume.array, values()[None])
    assert volume.geometry.remarks == ("it is transparent in places; its transparency was left out",)


@pytest.mark.parametrize("samples", _COLOUR_TYPES)
def test_a_note_of_fewer_significant_bits_does_not_shift_values(tmp_path, samples):
    write_deep(tmp_path / "a.png", grey(samples), (b"sBIT", bytes([12] * samples)))
    np.testing.assert_array_equal(read_mask(tmp_path / "a.png").array, values())


def test_a_transparent_colour_keeps_its_value_as_with_8_bits(tmp_path):
    write_deep(tmp_path / "a.png", grey(3), (b"tRNS", struct.pack(">HHH", 300, 300, 300)))
    np.testing.assert_array_equal(read_mask(tmp_path / "a.png").array, values())
    eight = np.repeat(np.array([[0, 5], [7, 5]], np.uint8)[..., None], 3, axis=-1)
    Image.fromarray(eight).save(tmp_path / "b.png", transparency=(5, 5, 5))
    np.testing.assert_array_equal(read_mask(tmp_path / "b.png").array, eight[..., 0])


def test_labels_in_grey_with_transparency_keep_their_values(tmp_path):
    write_deep(tmp_path / "a.png", grey(2))
    labels, geometry = read_labels(tmp_path / "a.png")
    np.testing.assert_array_equal(labels, values())
    assert not geometry.remarks


@pytest.mark.parametrize("samples", [2, 4])
def test_only_what_is_wholly_transparent_counts_as_0(tmp_path, samples):
    array = grey(samples)
    array[0, 2, -1] = 1  # of 65535: hardly to be seen, and not clear
    array[0, 3, -1] = 0
    write_deep(tmp_path / "a.png", array)
    assert read_mask(tmp_path / "a.png").array[0].tolist() == [0, 1, 300, 0]


@pytest.mark.parametrize("step", [257, 256])
def test_colours_of_16_bits_that_8_bits_hold_are_those(tmp_path, step):
    drawn = np.zeros((4, 5, 3), np.uint16)
    drawn[1, 2], drawn[2, 2] = (255 * step, 0, 0), (0, 128 * step, 0)
    write_deep(tmp_path / "a.png", drawn)
    found = read_mask(tmp_path / "a.png")
    assert found.colours
    assert (found.array[1, 2], found.array[2, 2]) == (0xFF0000, 0x008000)


def test_colours_that_8_bits_do_not_hold_are_refused_with_the_remedy(tmp_path):
    drawn = np.zeros((4, 5, 3), np.uint16)
    drawn[1, 2], drawn[2, 2] = (300, 0, 0), (301, 0, 0)  # one colour in 8 bits
    write_deep(tmp_path / "a.png", drawn)
    with pytest.raises(ImageError, match="drawn in colours of type uint16; save it with 8 bits per colour"):
        read_mask(tmp_path / "a.png")


def test_images_are_read_as_nnunet_reads_them_and_that_is_said(tmp_path):
    write_deep(tmp_path / "a.png", grey(3))
    volume = read_volume([tmp_path / "a.png"])
    np.testing.assert_array_equal(volume.array, np.moveaxis(np.asarray(Image.open(tmp_path / "a.png")), -1, 0))
    assert "16 bits per colour were read as 8" in " ".join(volume.geometry.remarks)
