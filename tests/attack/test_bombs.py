"""Files of some kilobytes that unpack to gigabytes take no more memory than what they are part of says."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import pickle
import struct
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest

from napari_nnunet.errors import ImageError, NnunetError
from napari_nnunet.formats.large.opening import open_image

zarr = pytest.importorskip("zarr", reason="zarr is not installed: it comes with napari-nnunet[large]")
_HELD, _SHAPE = 32 << 20, (4, 8, 8)
_ZEROS = bytes(_HELD)


def zstd(count, size=None, mark=b"\x28\xb5\x2f\xfd"):
    """Return a frame of so many blocks of 128 KB of one value, which promises a size, or none."""
    head = b"\x00\x58" if size is None else b"\xe0" + struct.pack("<Q", size)
    blocks = [((1 << 17) << 3 | 2 | (i == count - 1)).to_bytes(3, "little") + b"\7" for i in range(count)]
    return mark + head + b"".join(blocks)


def blosc():
    """Return a header of blosc that promises gigabytes."""
    return b"\2\1\x13\2" + struct.pack("<III", (1 << 31) - 100, 1 << 20, 2_000) + bytes(2_000)


PACKED = {
    "gzip": lambda: gzip.compress(_ZEROS),
    "gzip in members": lambda: gzip.compress(_ZEROS[: 1 << 20]) * 32,
    "zlib": lambda: zlib.compress(_ZEROS),
    "bz2": lambda: bz2.compress(_ZEROS),
    "lzma": lambda: lzma.compress(_ZEROS, preset=0),
    "lz4": lambda: struct.pack("<I", (1 << 31) - 100) + bytes(100),
    "blosc": blosc,
    "zstd": lambda: zstd(256, _HELD),
    "zstd of no size": lambda: zstd(256),
    "zstd of frames": lambda: zstd(1, 1 << 17) * 256,
    "zstd behind others": lambda: struct.pack("<II", 0x184D2A50, 4) + b"more" + zstd(1, 1 << 17) + zstd(256),
}


def version_2(path, **more):
    """Write an array of one chunk, whose metadata name what it is packed with."""
    about = {"zarr_format": 2, "shape": _SHAPE, "chunks": _SHAPE, "dtype": "<u2", "fill_value": 0, "order": "C"}
    path.mkdir()
    (path / ".zarray").write_text(json.dumps({**about, "filters": None, "compressor": None, **more}))
    return path / "0.0.0"


def version_3(path, codec):
    """Write an array of the third version likewise."""
    zarr.create_array(str(path), shape=_SHAPE, chunks=_SHAPE, dtype="<u2", compressors=None)
    about = json.loads((path / "zarr.json").read_text())
    about["codecs"].append(codec)
    (path / "zarr.json").write_text(json.dumps(about))
    chunk = path / "c" / "0" / "0" / "0"
    chunk.parent.mkdir(parents=True, exist_ok=True)
    return chunk


def read_whole(path):
    return open_image([path]).read([(0, n) for n in _SHAPE])


@pytest.mark.parametrize("kind", PACKED)
@pytest.mark.parametrize("version", [2, 3, "a filter"])
@pytest.mark.filterwarnings("ignore::UserWarning:zarr")  # of codecs that are in no standard
def test_a_chunk_unpacks_to_no_more_than_it_holds(tmp_path, version, kind):
    path, name = tmp_path / "a.zarr", kind.split()[0]
    if version == 3:
        known = {"blosc": {"typesize": 2, "cname": "lz4", "clevel": 5, "shuffle": "shuffle", "blocksize": 0},
                 "gzip": {"level": 5}, "zstd": {"level": 0, "checksum": False}}  # fmt: skip
        called = name if name in known else f"numcodecs.{name}"
        chunk = version_3(path, {"name": called, "configuration": known.get(name, {})})
    else:
        chunk = version_2(path, **({"compressor": {"id": name}} if version == 2 else {"filters": [{"id": name}]}))
    chunk.write_bytes(PACKED[kind]())
    read = open_image([path])
    tracemalloc.start()
    try:
        with pytest.raises(ImageError, match=r"cannot be read: a chunk unpacks to more than the [\d,]+ bytes"):
            read.read([(0, n) for n in _SHAPE])
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("packed", ["gzip", "zlib", "bz2", "lzma", "zstd"])
def test_a_chunk_that_is_cut_off_is_no_background(tmp_path, packed):
    chunk = version_2(tmp_path / "a.zarr", compressor={"id": packed})
    data = np.random.default_rng(0).integers(1, 60_000, _SHAPE).astype("<u2")
    zarr.open(str(tmp_path / "a.zarr"), mode="r+")[...] = data
    assert (read_whole(tmp_path / "a.zarr")[0] == data).all()
    for kept in (-1, len(chunk.read_bytes()) // 2):
        whole = chunk.read_bytes()
        chunk.write_bytes(whole[:kept])
        with pytest.raises(ImageError, match="cannot be read"):
            read_whole(tmp_path / "a.zarr")
        chunk.write_bytes(whole)


class _Order:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("dtype", ["<u2", "|O"])
@pytest.mark.parametrize("more", [
    {"compressor": {"id": "pickle"}}, {"filters": [{"id": "pickle"}]}, {"filters": [{"id": "vlen-utf8"}, {"id": "pickle"}]},
    {"filters": [{"id": "json2"}]}, {"compressor": {"id": "zstd"}, "filters": [{"id": "delta", "dtype": "<u2", "astype": "|O"}]},
    {"filters": [{"id": "astype", "encode_dtype": "<u2", "decode_dtype": "<U99999999"}]}, {"compressor": {"id": "no such"}},
])  # fmt: skip
def test_no_codec_makes_objects_of_a_chunk(tmp_path, dtype, more):
    canary = tmp_path / "executed"
    version_2(tmp_path / "a.zarr", dtype=dtype, **more).write_bytes(pickle.dumps(_Order(canary)))
    with pytest.raises(NnunetError):
        read_whole(tmp_path / "a.zarr")
    assert not canary.exists()


def test_an_unknown_codec_is_named_with_those_that_are_known(tmp_path):
    version_2(tmp_path / "a.zarr", filters=[{"id": "base64"}])
    with pytest.raises(
        ImageError, match=r"a\.zarr are compressed with 'base64', which is not supported.*blosc, zstd, gzip"
    ):
        open_image([tmp_path / "a.zarr"])
