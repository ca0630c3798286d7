"""What a .b2nd file says of itself, looked at before blosc2 does: it trusts sizes, and does what other layers ask for.

A frame (c-blosc2, README_CFRAME_FORMAT.rst) begins with MessagePack of a fixed layout: sizes, then the names of its
layers of metadata. One of an array has the layer ``b2nd`` (README_B2ND_METALAYER.rst). Of other layers, versions of
blosc2 make objects that open other files, ask a server, or compute an expression.
"""

from __future__ import annotations

import math
import os
import struct
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from napari_nnunet.formats.regular import regular

#: Sizes in front of the layers: of the header, the frame, all bytes, unpacked and packed,
#: of a value, a block and a chunk.
_SIZES = struct.Struct(">2x8sxIxQx4sxqxqxixixi")
_LAYERS = 87  # where the list of layers begins
_LONGEST = 4096  # bytes of the header of an array; those of eight axes take 400
_MOST_AXES = 8  # B2ND_MAX_DIM is 8 in its first and 16 in later versions
_MOST_BYTES = 2**31 - 1  # of a chunk
_WORD = 0xDB  # MessagePack's kind of string whose length has four bytes: blosc2 writes no other


class ArrayHead(NamedTuple):
    """What a frame says: the array, and how it is cut.

    Parameters
    ----------
    shape, chunks, blocks : tuple of int
        Of the array and its parts.
    dtype : numpy.dtype
        Of the values.
    """

    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    blocks: tuple[int, ...]
    dtype: np.dtype[Any]


def checked_frame(path: Path) -> Path:
    """Return the path of a .b2nd file whose header is that of an array of numbers, and fits together.

    Raises
    ------
    ValueError
        If it is not.
    OSError
        If there is no such file.
    """
    handle = os.open(regular(path), os.O_RDONLY | getattr(os, "O_BINARY", 0))
    try:
        head, size = os.read(handle, _LONGEST), os.fstat(handle).st_size
    finally:
        os.close(handle)
    if head[2:10] != b"b2frame\0" or len(head) < _LAYERS + 8:
        raise ValueError("it is not a b2nd file")
    _, length, whole, *_ = _SIZES.unpack_from(head)
    if whole > size:
        raise ValueError(f"it has {size} of {whole} bytes")
    if not _LAYERS < length <= len(head):
        raise ValueError(f"its header is said to have {length} bytes")
    frame_of(head[:length])
    return path


@lru_cache(maxsize=4096)  # a training opens its cases again and again
def frame_of(head: bytes) -> ArrayHead:
    """Return what the header of a frame says; raises ValueError if it is not that of an array of numbers."""
    _, _, whole, _, unpacked, packed, itemsize, block_bytes, chunk_bytes = _SIZES.unpack_from(head)
    names = _names(head)
    if list(names) != [b"b2nd"]:
        listed = ", ".join(repr(name.decode("ascii", "replace")) for name in names) or "none"
        raise ValueError(f"it holds other things than an array of numbers (layers {listed})")
    found = _array(head, names[b"b2nd"])
    padded = math.prod(-(-chunk // block) * block for chunk, block in zip(found.chunks, found.blocks, strict=True))
    parts = math.prod(-(-n // chunk) for n, chunk in zip(found.shape, found.chunks, strict=True))
    expected = (
        parts * padded * itemsize,
        found.dtype.itemsize,
        math.prod(found.blocks) * itemsize,
        padded * itemsize,
    )
    sizes = unpacked, itemsize, block_bytes, chunk_bytes
    if sizes != expected or chunk_bytes > _MOST_BYTES or not 0 <= packed <= whole:
        raise ValueError("the sizes in its header contradict each other")
    return found


def _names(head: bytes) -> dict[bytes, int]:
    """Return the layers of metadata and where they begin."""
    kind, _, many, count = struct.unpack_from(">BxHBH", head, _LAYERS)  # a list of three: size, layers, their contents
    if kind != 0x93 or many != 0xDE or count > _MOST_AXES:
        raise ValueError("the list of its metadata is damaged")
    at, found = _LAYERS + 7, {}
    for _ in range(count):
        length = head[at] & 0x1F if at < len(head) else 0
        if at + length + 6 > len(head):
            raise ValueError("the list of its metadata is damaged")
        name = head[at + 1 : at + 1 + length]
        if name in found:  # blosc2 takes the first
            raise ValueError("the list of its metadata is damaged")
        found[name] = int.from_bytes(head[at + length + 2 : at + length + 6], "big")
        at += length + 6
    return found


def _array(head: bytes, at: int) -> ArrayHead:
    """Return what the layer of an array says."""
    try:
        kind, length, items, _, axes = struct.unpack_from(">BIBBB", head, at)
        shape, at = _numbers(head, at + 8, axes, "q")
        chunks, at = _numbers(head, at, axes, "i")
        blocks, at = _numbers(head, at, axes, "i")
        known = kind == 0xC6 and items == 0x97 and 0 < axes <= _MOST_AXES
        known = known and head[at + 1] == _WORD  # behind a byte for the kind of the name
        size = int.from_bytes(head[at + 2 : at + 6], "big")
        word = head[at + 6 : at + 6 + size].decode("ascii")
        dtype = np.dtype(word)
    except (struct.error, IndexError, KeyError, UnicodeDecodeError, TypeError, SyntaxError, ValueError) as error:
        raise ValueError("what it says of its array is damaged") from error
    if not known or dtype.kind not in "biuf" or dtype.itemsize > 8 or len(word) != size or length > len(head):
        raise ValueError("what it says of its array is damaged")
    whole = all(n >= 1 and 1 <= block <= chunk for n, chunk, block in zip(shape, chunks, blocks, strict=True))
    if not whole or math.prod(shape) * dtype.itemsize >= 2**62:
        raise ValueError(f"it is said to hold {' x '.join(map(str, shape))} values")
    return ArrayHead(shape, chunks, blocks, dtype)


def _numbers(head: bytes, at: int, axes: int, kind: str) -> tuple[tuple[int, ...], int]:
    """Return a list of numbers, a byte before each and one before all, and where it ends."""
    found = struct.unpack_from(">x" + f"x{kind}" * axes, head, at)
    if head[at] != 0x90 + axes:
        raise ValueError
    return found, at + 1 + axes * (9 if kind == "q" else 5)
