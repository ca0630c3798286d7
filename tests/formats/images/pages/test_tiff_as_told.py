"""What the first page of a TIFF tells is what all its pages together are, where no other page is looked at."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile

from napari_nnunet.errors import ImageError
from napari_nnunet.formats.images.files import read_header, read_volume
from napari_nnunet.formats.images.pages import series as pages_series
from napari_nnunet.formats.images.pages.chain import open_tiff

ZYX = {"metadata": {"axes": "ZYX"}, "photometric": "minisblack"}
KINDS = {
    "picture": ((6, 7), {}),
    "colours": ((6, 7, 3), {"photometric": "rgb"}),
    "planes": ((3, 6, 7), {"photometric": "rgb", "planarconfig": "separate"}),
    "unnamed": ((5, 6, 7), {"photometric": "minisblack"}),
    "stack": ((5, 6, 7), ZYX),
    "packed": ((5, 6, 7), {**ZYX, "compression": "zlib"}),
    "channels": ((2, 5, 6, 7), {"metadata": {"axes": "CZYX"}, "photometric": "minisblack", "compression": "zlib"}),
    "tiles": ((5, 32, 32), {**ZYX, "tile": (16, 16)}),
    "volumes": ((16, 32, 32), {"photometric": "minisblack", "volumetric": True, "tile": (16, 16, 16)}),
    "rows": ((5, 1, 7), ZYX),
    "one plane": ((1, 6, 7), ZYX),
    "imagej": ((5, 6, 7), {"imagej": True}),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("voxels", [False, True])
def test_it_is_the_series_that_tifffile_finds_or_none(tmp_path, kind, voxels):
    shape, how = KINDS[kind]
    path = tmp_path / "a.tif"
    tifffile.imwrite(
        path, np.arange(np.prod(shape), dtype=np.uint16 if kind != "colours" else np.uint8).reshape(shape), **how
    )
    with open_tiff(path) as one, tifffile.TiffFile(path) as other:
        told, (series,) = pages_series._as_told(one, voxels), other.series
        assert (told is None) == (kind in ("unnamed", "imagej", "one plane") or (voxels and one.pages.is_multipage))
        if told is not None:
            assert (told.shape, told.axes, told.dtype) == (series.shape, series.axes, series.dtype)
            if voxels:
                np.testing.assert_array_equal(told.asarray(), series.asarray())


@pytest.mark.parametrize("kind", ["stack", "packed", "channels", "tiles"])
def test_headers_say_what_is_read(tmp_path, kind):
    shape, how = KINDS[kind]
    tifffile.imwrite(tmp_path / "a.tif", np.zeros(shape, np.uint16), **how)
    volume, header = (
        read_volume([tmp_path / "a.tif"], reader="Tiff3DIO"),
        read_header(tmp_path / "a.tif", reader="Tiff3DIO"),
    )
    assert header[:2] == (volume.array.shape, 2)
    assert header.geometry == volume.geometry


def test_what_is_not_as_told_is_looked_at(tmp_path):
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as file:
        for count in (5, 7):
            file.write(np.zeros((count, 6, 7), np.uint8), **ZYX, compression="zlib")
    with open_tiff(path) as file:
        assert pages_series._as_told(file, False) is None
    with pytest.raises(ImageError, match="in 2 images that do not form a stack"):
        read_header(path, reader="Tiff3DIO")
    for text in (
        '{"shape": [6, 8]}',
        '{"shape": 6}',
        '{"shape": [6, 7], "truncated": true}',
        '{"shape": [',
        '{"shape": null}',
    ):
        tifffile.imwrite(path, np.zeros((6, 7), np.uint8), description=text, metadata=None)
        with open_tiff(path) as file:
            assert pages_series._as_told(file, True) is None
