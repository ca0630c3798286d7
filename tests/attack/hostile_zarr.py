"""Chunks of zarr arrays, packed by every codec that is known, with something wrong in them; and metadata of codecs."""

from __future__ import annotations

import json
import shutil

import numcodecs
import numpy as np
from hostile import damage
from test_bombs import PACKED

from napari_nnunet.formats.large.opening import open_image

_SHAPE = (4, 8, 8)
_DATA = np.random.default_rng(0).integers(0, 900, _SHAPE).astype("<u2")
_CODECS = ("blosc", "zstd", "gzip", "zlib", "lz4", "bz2", "lzma")
_ODD = ("pickle", "json2", "msgpack2", "vlen-utf8", "base64", "categorize", "", "../x", 3, None, [], {"id": "zstd"})
_MORE = (
    {"id": "delta", "dtype": "<u2"}, {"id": "delta", "dtype": "|O"}, {"id": "astype", "encode_dtype": "<u2", "decode_dtype": "<U9999999"},
    {"id": "fixedscaleoffset", "offset": 0, "scale": 0, "dtype": "<f4", "astype": "|u1"}, {"id": "shuffle", "elementsize": 0},
    {"id": "shuffle", "elementsize": -1}, {"id": "packbits"}, {"id": "crc32"}, {"id": "adler32"}, {"id": "fletcher32"},
    {"id": "quantize", "digits": 10**9, "dtype": "<f4"}, {"id": "bitround", "keepbits": -3}, {"id": "zstd"}, {"id": "gzip"},
    {"id": "lzma", "format": 3, "filters": [{"id": 33, "dict_size": 1 << 31}]}, {"id": "lzma", "format": 9},
)  # fmt: skip


def zarrs(chance, folder):
    """Give (ending, bytes): JSON with what stands in .zarray of codecs, a line, and a chunk; for ever."""
    while True:
        name = chance.choice(_CODECS)
        packed = bytes(numcodecs.get_codec({"id": name}).encode(_DATA))
        about = {"compressor": {"id": name}, "filters": None}
        how = chance.randrange(6)
        if how == 0:
            packed = PACKED[chance.choice(list(PACKED))]()
        elif how == 1:
            about["filters"] = [chance.choice(_MORE) for _ in range(chance.randrange(1, 4))]
        elif how == 2:
            about[chance.choice(list(about))] = chance.choice((chance.choice(_ODD), {"id": chance.choice(_ODD)}, [{"id": chance.choice(_ODD)}]))  # fmt: skip
        else:
            packed = damage(packed, chance)
        yield ".chunk", json.dumps(about).encode() + b"\n" + packed


def read_zarr(path):
    """Read the image that a chunk is all of."""
    about, _, packed = path.read_bytes().partition(b"\n")
    folder = path.with_name("a.zarr")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    known = {"zarr_format": 2, "shape": _SHAPE, "chunks": _SHAPE, "dtype": "<u2", "fill_value": 0, "order": "C"}
    (folder / ".zarray").write_text(json.dumps({**known, **json.loads(about)}))
    (folder / "0.0.0").write_bytes(packed)
    assert open_image([folder]).read([(0, n) for n in _SHAPE]).shape == (1, *_SHAPE)
