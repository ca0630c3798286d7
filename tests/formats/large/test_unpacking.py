"""Chunks are unpacked by codecs of a closed list, to no more than they hold; honest ones as their library does it."""

from __future__ import annotations

import bz2
import gzip
import lzma
import struct
import zlib

import numpy as np
import pytest

pytest.importorskip("zarr", reason="zarr is not installed: it comes with napari-nnunet[large]")

import numcodecs
import zarr

from napari_nnunet.errors import ImageError
from napari_nnunet.formats.large.unpacking import bounded, unpack

NOISE = np.random.default_rng(0).integers(0, 256, 70_000, dtype=np.uint8).tobytes()
CONTENTS = {"a byte": b"\7", "zeros": bytes(300_000), "noise": NOISE}
PACKERS = ("blosc", "zstd", "gzip", "zlib", "lz4", "bz2", "lzma")


@pytest.mark.parametrize("content", CONTENTS)
@pytest.mark.parametrize("name", PACKERS)
def test_what_was_packed_comes_back_where_it_is_exactly_as_long_as_it_may_be(name, content):
    codec, data = numcodecs.get_codec({"id": name}), CONTENTS[content]
    packed = codec.encode(data)
    assert bytes(unpack(codec, packed, len(data))) == data
    with pytest.raises(ValueError, match=f"more than the {len(data) - 1:,} bytes"):
        unpack(codec, packed, len(data) - 1)


@pytest.mark.parametrize(("name", "pack"), [("gzip", gzip.compress), ("bz2", bz2.compress), ("lzma", lzma.compress)])
def test_streams_one_after_the_other_count_together(name, pack):
    codec = numcodecs.get_codec({"id": name})
    packed = pack(b"ab") + pack(b"") + pack(b"cd")
    assert unpack(codec, packed, 4) == b"abcd"
    assert unpack(codec, packed + bytes(7), 4) == b"abcd"
    with pytest.raises(ValueError, match="more than the 3 bytes"):
        unpack(codec, packed, 3)


@pytest.mark.parametrize("name", ["gzip", "zlib", "bz2", "lzma"])
def test_a_stream_without_its_end_is_cut_off(name):
    codec = numcodecs.get_codec({"id": name})
    packed = codec.encode(NOISE)
    for cut in (packed[:-5], packed[: len(packed) // 2], packed[:1]):
        with pytest.raises(ValueError, match="a chunk is cut off"):
            unpack(codec, cut, len(NOISE))
    with pytest.raises((ValueError, OSError, EOFError, zlib.error, lzma.LZMAError)):
        unpack(codec, b"no stream at all", 100)


def frame(*blocks, size=None, single=False, checked=False):
    """Return a frame of zstd made of RLE blocks: (count of bytes, value)."""
    flags, head = 0, b""
    if size is not None:
        flags, head = (0x80, struct.pack("<I", size))
    flags |= 0x20 if single else 0
    window = b"" if single else b"\x58"
    out = b"\x28\xb5\x2f\xfd" + bytes([flags | (4 if checked else 0)]) + window + head
    for i, (count, value) in enumerate(blocks):
        out += (count << 3 | 2 | (i == len(blocks) - 1)).to_bytes(3, "little") + bytes([value])
    return out


def test_a_frame_of_zstd_is_measured_by_its_promise_or_its_blocks():
    codec = numcodecs.get_codec({"id": "zstd"})
    honest = frame((100, 7), (20, 8), size=120, single=True)
    assert bytes(unpack(codec, honest, 120)) == b"\7" * 100 + b"\10" * 20
    with pytest.raises(ValueError, match="more than the 119 bytes"):
        unpack(codec, honest, 119)
    skipped = struct.pack("<II", 0x184D2A5F, 3) + b"abc"
    with pytest.raises(ValueError, match="more than the 119 bytes"):
        unpack(codec, skipped + honest, 119)
    with pytest.raises(ValueError, match="more than the 239 bytes"):
        unpack(codec, honest + honest, 239)
    silent = frame(*[(1 << 17, 7)] * 40)
    with pytest.raises(ValueError, match=r"more than the 1,000 bytes"):
        unpack(codec, silent, 1000)


@pytest.mark.parametrize("name", ["blosc", "zstd", "lz4"])
@pytest.mark.parametrize("data", [b"", b"\0", b"\xff" * 7, b"\x28\xb5\x2f\xfd", b"\x28\xb5\x2f\xfd" + b"\xff" * 9])
def test_whatever_a_chunk_holds_it_is_an_error_and_no_crash(name, data):
    with pytest.raises((ValueError, RuntimeError, OverflowError)):
        unpack(numcodecs.get_codec({"id": name}), data, 1000)


def version_2(path, **more):
    return zarr.create_array(str(path), shape=(4, 5), chunks=(2, 5), dtype="<u2", zarr_format=2, **more)


def test_arrays_are_read_and_written_as_without_bounds(tmp_path):
    data = np.arange(20, dtype="<u2").reshape(4, 5)
    for i, name in enumerate((*PACKERS, None)):
        codec = None if name is None else numcodecs.get_codec({"id": name})
        array = version_2(tmp_path / str(i), compressors=codec)
        array[:] = data
        safe = bounded(array, "a.zarr")
        np.testing.assert_array_equal(safe[:], data)
        safe[:] = data[::-1]
        np.testing.assert_array_equal(array[:], data[::-1])


def test_shards_are_bounded_inside(tmp_path):
    array = zarr.create_array(str(tmp_path / "a"), shape=(8, 8), chunks=(2, 2), shards=(8, 8), dtype="<u2")
    array[:] = np.arange(64).reshape(8, 8)
    np.testing.assert_array_equal(bounded(array, "a.zarr")[:], np.arange(64).reshape(8, 8))


def test_codecs_that_are_on_no_list_or_make_no_numbers_are_refused(tmp_path):
    for i, name in enumerate(("json2", "pickle", "base64")):
        array = version_2(tmp_path / f"b{i}", filters=[numcodecs.get_codec({"id": name})], compressors=None)
        with pytest.raises(
            ImageError, match=rf"a.zarr are compressed with '{name}', which is not supported.*blosc, zstd"
        ):
            bounded(array, "a.zarr")
    texts = numcodecs.Delta(dtype="<u2", astype="<u2")
    texts.astype = np.dtype("O")
    array = version_2(tmp_path / "d", filters=[texts], compressors=None)
    with pytest.raises(ImageError, match="name values of type object; an image holds real numbers"):
        bounded(array, "a.zarr")
