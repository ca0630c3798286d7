"""PNG marks one value, colour or some indices as transparent: they keep their values, as for nnU-Net, and it is said."""

from __future__ import annotations

import struct
import zlib

import imageio.v3 as iio
import numpy as np
import pytest
from PIL import Image

from napari_nnunet.formats.images.files import read_header, read_volume
from napari_nnunet.formats.images.natural import SEEN_THROUGH
from napari_nnunet.formats.masks.stored import read_mask

VALUES = np.arange(42, dtype=np.uint8).reshape(6, 7) % 3
COLOURS = np.stack([VALUES * 100, VALUES * 50, VALUES * 20], axis=-1)


def picture(kind):
    if kind == "palette":
        image = Image.fromarray(VALUES, "P")
        image.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
        return image
    arrays = {"black and white": VALUES > 0, "grey": VALUES, "16 bits": VALUES.astype(np.uint16) * 300}
    return Image.fromarray(arrays.get(kind, COLOURS))


KINDS = {
    "black and white": (1, 0),
    "grey": (1, 0),
    "16 bits": (300, 0),
    "colours": ((100, 50, 20), (0, 0, 0)),
    "palette": (b"\xff\x80\xff", b"\x00\xff\xff"),
}
ABSENT = {"grey": 9, "16 bits": 1, "colours": (100, 50, 21), "palette": b"\xff\xff\xff\x00"}


@pytest.mark.parametrize("kind", KINDS)
def test_the_values_of_an_image_stay_and_what_is_left_out_is_said(tmp_path, kind):
    path = tmp_path / "a.png"
    for marked in KINDS[kind]:
        picture(kind).save(path, transparency=marked)
        volume = read_volume([path])
        whole = np.asarray(picture(kind).convert("RGB")) if kind == "palette" else iio.imread(path)
        np.testing.assert_array_equal(volume.array, np.moveaxis(np.atleast_3d(whole), -1, 0))
        assert volume.geometry.remarks == (SEEN_THROUGH,)
        assert read_header(path).shape == volume.array.shape


@pytest.mark.parametrize("kind", ABSENT)
def test_a_mark_that_no_pixel_has_needs_no_word(tmp_path, kind):
    picture(kind).save(tmp_path / "a.png", transparency=ABSENT[kind])
    assert not read_volume([tmp_path / "a.png"]).geometry.remarks


@pytest.mark.parametrize("kind", KINDS)
def test_classes_of_a_mask_that_are_transparent_stay_and_are_said_but_not_a_background(tmp_path, kind):
    path = tmp_path / "a.png"
    for marked, said in zip(KINDS[kind], ((SEEN_THROUGH,), ()), strict=True):
        picture(kind).save(path, transparency=marked)
        mask = read_mask(path)
        assert len(np.unique(mask.array)) == (2 if kind == "black and white" else 3)
        assert mask.geometry.remarks == said


def test_colours_of_16_bits_are_compared_with_all_of_their_bits(tmp_path):
    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    rows = b"".join(b"\0" + (row.astype(">u2") * 257).tobytes() for row in COLOURS)
    parts = [chunk(b"IHDR", struct.pack(">IIBBBBB", 7, 6, 16, 2, 0, 0, 0)),
             chunk(b"tRNS", struct.pack(">HHH", 25700, 12850, 5140)),
             chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")]  # fmt: skip
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    assert SEEN_THROUGH in read_volume([tmp_path / "a.png"]).geometry.remarks
