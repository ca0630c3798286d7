"""What unpacks the chunks of a zarr: codecs of a closed list, none of them to more than a chunk can hold.

The metadata of an array name what its chunks are packed with, and numcodecs knows names that read pickles. A few
kilobytes of zstd or gzip unpack to gigabytes, and a chunk's own header may promise as many.
"""

from __future__ import annotations

import asyncio
import bz2
import lzma
import math
import zlib
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import cache
from importlib import import_module
from typing import Any

import numpy as np

from napari_nnunet.errors import ImageError

#: What makes its bytes fewer, and may make them many.
_PACKERS = ("blosc", "zstd", "gzip", "zlib", "lz4", "bz2", "lzma")
#: What makes other values or bytes of them, but no more than eight times as many.
_FILTERS = ("adler32", "astype", "bitround", "crc32", "crc32c", "delta", "fixedscaleoffset", "fletcher32",
            "jenkins_lookup3", "packbits", "quantize", "shuffle")  # fmt: skip
_OF_VERSION_3 = ("bytes", "endian", "transpose", "crc32c")
_FILTERED = 8  # times the bytes that a filter may need; packbits makes one byte of eight voxels
_SHARDED = 32  # the same for a shard, whose index has 16 bytes for each of its chunks
_MORE = 1 << 16  # bytes that packed ones may be more than what they hold
_BLOCK = 128 << 10  # bytes that a block of zstd unpacks to at most
_BLOCKS_OF_ZSTD = 16  # by how much honest blocks may be smaller
_FRAMES_OF_ZSTD = 10_000
_FRAME, _SKIPPED = 0xFD2FB528, 0x184D2A50  # what frames begin with
_LZMA_MEMORY = 256 << 20  # bytes; its strongest preset takes 65 MB


def bounded(array: Any, name: str) -> Any:
    """Return a zarr array whose chunks unpack to no more than they hold.

    Raises
    ------
    ImageError
        If its metadata name something else than the codecs that are known here.
    """
    metadata = array.metadata
    if metadata.zarr_format == 2:
        filters = metadata.filters or ()
        most = math.prod(array.chunks) * array.dtype.itemsize * (_FILTERED if filters else 1) + _MORE
        compressor = metadata.compressor and _of_version_2(metadata.compressor, most, name)
        checked = tuple(_of_version_2(codec, most, name) for codec in filters)
        metadata = replace(metadata, compressor=compressor, filters=checked or None)
    else:
        metadata = replace(metadata, codecs=_of_version_3(metadata.codecs, name))
    zarr = import_module("zarr")
    return zarr.Array(
        zarr.AsyncArray(metadata=metadata, store_path=array.store_path, config=getattr(array, "config", None))
    )


def _of_version_2(codec: Any, most: int, name: str) -> Any:
    _check(codec, str(codec.codec_id), name)
    return _bounded_2()(codec, most) if codec.codec_id in _PACKERS else codec


def _of_version_3(codecs: Iterable[Any], name: str) -> tuple[Any, ...]:
    listed = list(codecs)
    names = [str(codec.to_dict()["name"]) for codec in listed]
    times = _SHARDED if "sharding_indexed" in names else 2
    return tuple(_one_of_version_3(*entry, times, name) for entry in zip(listed, names, strict=True))


def _one_of_version_3(codec: Any, called: str, times: int, name: str) -> Any:
    if called == "sharding_indexed":
        inside = {part: _of_version_3(getattr(codec, part), name) for part in ("codecs", "index_codecs")}
        return replace(codec, **inside)
    if called in _OF_VERSION_3:
        return codec
    kind, settings = called.removeprefix("numcodecs."), codec.to_dict().get("configuration") or {}
    if called != kind:
        own = import_module("numcodecs").get_codec({"id": kind, **settings})
        _check(own, kind, name)
    elif kind in ("blosc", "zstd", "gzip"):
        own = import_module("numcodecs").get_codec({"id": kind})
    else:
        raise _unknown(kind, name)
    return _bounded_3()(codec, own, times) if kind in _PACKERS else codec


def _check(codec: Any, kind: str, name: str) -> None:
    """Raise ImageError unless a codec is known, and makes numbers of numbers."""
    if kind not in _PACKERS + _FILTERS:
        raise _unknown(kind, name)
    for field in ("dtype", "astype", "encode_dtype", "decode_dtype"):
        if (found := getattr(codec, field, None)) is not None and np.dtype(found).kind not in "buif":
            raise ImageError(f"The metadata of {name} name values of type {found}; an image holds real numbers.")


def _unknown(kind: str, name: str) -> ImageError:
    return ImageError(
        f"The chunks of {name} are compressed with {kind[:60]!r}, which is not supported. Write it again with one of "
        f"{', '.join(_PACKERS)}."
    )


@cache
def _bounded_2() -> Any:
    """Return the class of a codec of numcodecs, within bounds."""
    kind = import_module("numcodecs.abc").Codec

    class Bounded(kind):  # type: ignore[misc, valid-type]
        codec_id = "bounded"  # zarr looks at classes; each of these has the name of what it unpacks by

        def __init__(self, codec: Any, most: int) -> None:
            self._codec, self._most = codec, most
            self.codec_id = codec.codec_id

        def encode(self, buf: Any) -> Any:
            return self._codec.encode(buf)

        def decode(self, buf: Any, out: Any = None) -> Any:
            return unpack(self._codec, buf, self._most)

        def get_config(self) -> Any:
            return self._codec.get_config()

    return Bounded


@cache
def _bounded_3() -> Any:
    """Return the class of a codec of zarr's third version, within bounds."""
    kind = import_module("zarr.abc.codec").BytesBytesCodec

    class Bounded(kind):  # type: ignore[misc, valid-type]
        is_fixed_size = False

        def __init__(self, codec: Any, own: Any, times: int) -> None:
            self._codec, self._own, self._times = codec, own, times

        def to_dict(self) -> Any:
            return self._codec.to_dict()

        def compute_encoded_size(self, input_byte_length: int, chunk_spec: Any) -> Any:
            return self._codec.compute_encoded_size(input_byte_length, chunk_spec)

        def _unpacked(self, chunk_bytes: Any, chunk_spec: Any) -> Any:
            kind = getattr(chunk_spec.dtype, "to_native_dtype", lambda: chunk_spec.dtype)()  # zarr 3.0 has numpy's own
            most = math.prod(chunk_spec.shape) * kind.itemsize * self._times + _MORE
            return chunk_spec.prototype.buffer.from_bytes(unpack(self._own, chunk_bytes.as_numpy_array(), most))

        async def encode(self, chunks_and_specs: Iterable[Any]) -> Any:
            return await self._codec.encode(chunks_and_specs)

        async def _decode_single(self, chunk_bytes: Any, chunk_spec: Any) -> Any:
            return await asyncio.to_thread(self._unpacked, chunk_bytes, chunk_spec)

    return Bounded


def unpack(codec: Any, data: Any, most: int) -> Any:
    """Return what a codec of numcodecs makes of bytes; raises ValueError before that takes more than ``most`` bytes."""
    kind = codec.codec_id
    if kind in _STREAMS:
        return _streamed(lambda: _STREAMS[kind](codec), bytes(data), most)
    promised = {"blosc": _of_blosc, "lz4": _of_lz4, "zstd": _of_zstd}[kind](memoryview(data), most)
    if promised > most:
        raise _too_much(most)
    return codec.decode(data)


def _too_much(most: int) -> ValueError:
    return ValueError(f"a chunk unpacks to more than the {most:,} bytes that it may hold")


_STREAMS: dict[str, Callable[[Any], Any]] = {
    "gzip": lambda _: zlib.decompressobj(31),
    "zlib": lambda _: zlib.decompressobj(),
    "bz2": lambda _: bz2.BZ2Decompressor(),
    "lzma": lambda codec: lzma.LZMADecompressor(
        format=codec.format, filters=codec.filters, memlimit=None if codec.format == lzma.FORMAT_RAW else _LZMA_MEMORY
    ),
}


def _streamed(make: Callable[[], Any], data: bytes, most: int) -> bytes:
    """Return what streams one after the other hold, as those who write them allow."""
    parts: list[bytes] = []
    left = most
    while data.lstrip(b"\0") or not parts:
        stream = make()
        parts.append(stream.decompress(data, left + 1))
        left -= len(parts[-1])
        if left < 0:
            raise _too_much(most)
        if not stream.eof:
            raise ValueError("a chunk is cut off")
        data = stream.unused_data
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _of_blosc(data: memoryview, _: int) -> int:
    return int.from_bytes(data[4:8], "little")


def _of_lz4(data: memoryview, _: int) -> int:
    return int.from_bytes(data[:4], "little")


def _of_zstd(data: memoryview, most: int) -> int:
    """Return what the frames promise; where one promises nothing, what its blocks can hold at most."""
    at, promised, blocks, frames, silent = 0, 0, 0, 0, False
    limit = (most + _BLOCK) * _BLOCKS_OF_ZSTD // _BLOCK
    while at + 8 < len(data) and frames <= _FRAMES_OF_ZSTD and blocks <= limit:
        frames += 1
        mark = int.from_bytes(data[at : at + 4], "little")
        if mark & ~15 == _SKIPPED:
            at += 8 + int.from_bytes(data[at + 4 : at + 8], "little")
            continue
        if mark != _FRAME:
            break  # whoever unpacks it says so
        flags = data[at + 4]
        single, size = flags >> 5 & 1, (flags >> 5 & 1, 2, 4, 8)[flags >> 6]
        at += 6 - single + (0, 1, 2, 4)[flags & 3]
        promised += int.from_bytes(data[at : at + size], "little") + (256 if size == 2 else 0)
        silent |= not size
        at += size
        last = False
        while not last and at + 3 <= len(data) and blocks <= limit:
            header = int.from_bytes(data[at : at + 3], "little")
            at += 3 + (1 if header >> 1 & 3 == 1 else header >> 3)
            blocks, last = blocks + 1, bool(header & 1)
        at += 4 * (flags >> 2 & 1)
    return promised if frames <= _FRAMES_OF_ZSTD and (blocks <= limit or not silent) else most + 1
