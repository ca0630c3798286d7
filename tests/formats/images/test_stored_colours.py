"""TIFFs whose values mean something else than grey or RGB are read as they are stored, and that is said."""

from __future__ import annotations

import struct
from importlib.util import find_spec

import numpy as np
import pytest
import tifffile
from PIL import Image

from napari_nnunet.errors import ImageError
from napari_nnunet.formats.images.files import read_header, read_volume

PICTURE = np.random.default_rng(0).integers(0, 255, (20, 24, 3), np.uint8)


@pytest.mark.parametrize(
    ("mode", "channels", "said"),
    [
        ("L", 1, None),
        ("RGB", 3, None),
        ("P", 1, "numbers of a palette"),
        ("CMYK", 4, "those of print"),
        ("YCbCr", 3, "YCbCr"),
        ("LAB", 3, r"L*a*b*"),
    ],
)
def test_other_colours_are_said(tmp_path, mode, channels, said):
    Image.fromarray(PICTURE).convert(mode).save(tmp_path / "a.tif")
    volume = read_volume([tmp_path / "a.tif"])
    assert volume.channels == channels
    assert len(volume.geometry.remarks) == (said is not None)
    assert (said or "") in " ".join(volume.geometry.remarks)
    assert read_header(tmp_path / "a.tif").geometry == volume.geometry


def test_white_that_is_0_is_said(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", PICTURE[..., 0], photometric="miniswhite")
    volume = read_volume([tmp_path / "a.tif"])
    np.testing.assert_array_equal(volume.array[0], PICTURE[..., 0])
    assert "white as 0" in volume.geometry.remarks[0]


def test_images_of_an_ome_file_are_no_slices(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.ome.tif", ome=True) as writer:
        for name in ("one", "two"):
            writer.write(PICTURE[..., 0], metadata={"axes": "YX", "Name": name})
    with pytest.raises(ImageError, match="2 images that do not form a stack"):
        read_volume([tmp_path / "a.ome.tif"])


def test_values_of_12_bits_are_refused_with_the_way_out(tmp_path):
    if find_spec("imagecodecs") is not None:
        pytest.skip("imagecodecs reads them")
    data = bytes(36)
    tags = [(256, 3, 1, 6), (257, 3, 1, 4), (258, 3, 1, 12), (259, 3, 1, 1), (262, 3, 1, 1), (273, 4, 1, 8),
            (277, 3, 1, 1), (278, 3, 1, 4), (279, 4, 1, len(data))]  # fmt: skip
    content = b"II*\0" + struct.pack("<I", 8 + len(data)) + data + struct.pack("<H", len(tags))
    for tag, kind, count, value in tags:
        content += struct.pack("<HHI", tag, kind, count)
        content += struct.pack("<HH", value, 0) if kind == 3 else struct.pack("<I", value)
    (tmp_path / "a.tif").write_bytes(content + bytes(4))
    with pytest.raises(ImageError, match="a.tif packs its values into 12 bits, which only the package imagecodecs"):
        read_volume([tmp_path / "a.tif"])
