"""Packed voxels of MetaImage and NRRD, unpacked here: ITK does not look whether that worked, nor at their checksum."""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from napari_nnunet.errors import ImageError
from napari_nnunet.formats.images.text.headers import TextFacts

_META_TYPES = {"MET_CHAR": "i1", "MET_UCHAR": "u1", "MET_SHORT": "i2", "MET_USHORT": "u2", "MET_INT": "i4",
               "MET_UINT": "u4", "MET_LONG": "i4", "MET_ULONG": "u4", "MET_LONG_LONG": "i8", "MET_ULONG_LONG": "u8",
               "MET_FLOAT": "f4", "MET_DOUBLE": "f8"}  # fmt: skip
_NRRD_TYPES = {"i1": "signed char|int8|int8_t", "u1": "uchar|unsigned char|uint8|uint8_t",
               "i2": "short|short int|signed short|signed short int|int16|int16_t",
               "u2": "ushort|unsigned short|unsigned short int|uint16|uint16_t", "i4": "int|signed int|int32|int32_t",
               "u4": "uint|unsigned int|uint32|uint32_t",
               "i8": "longlong|long long|long long int|signed long long|signed long long int|int64|int64_t",
               "u8": "ulonglong|unsigned long long|unsigned long long int|uint64|uint64_t", "f4": "float",
               "f8": "double"}  # fmt: skip
_NRRD_CODES = {name: code for code, names in _NRRD_TYPES.items() for name in names.split("|")}
_LINE = re.compile(r"^([^:=\n]*)[:=]([^\n]*)", re.MULTILINE)
_BOTH, _GZIP = 47, 31  # streams of zlib or gzip, of gzip alone, as zlib's wbits
_PIECE = 1 << 22
_HEADER = 1 << 16  # bytes; ITK reads files with longer ones


class Packed(NamedTuple):
    """Where the packed voxels of a file are.

    Parameters
    ----------
    path : Path
        The file that has them.
    begin, length : int
        Their first byte, and how many there are at most.
    dtype : dtype
        Of a value.
    shape : tuple of int
        ``([T,] [Z,] Y, X)``.
    bits : int
        Kind of stream, as zlib takes it.
    """

    path: Path
    begin: int
    length: int | None
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    bits: int


class Own(NamedTuple):
    """Voxels that were unpacked here, ITK's reading of their header, and what is odd about them."""

    voxels: NDArray[Any]
    grid: sitk.ImageFileReader
    remarks: tuple[str, ...]


def own_voxels(path: Path, said: TextFacts, informed: Callable[[Path, bytes], sitk.ImageFileReader]) -> Own | None:
    """Return packed voxels of MetaImage and NRRD; None where ITK is to read them.

    Parameters
    ----------
    path : Path
        The file.
    said : TextFacts
        Of its header, which was checked.
    informed : callable
        ITK's reading of a header, of a file that has the bytes of ``said.header``.
    """
    found = voxels_of(path) if said.packed else None
    if found is None:
        return None
    grid = informed(path, said.header)
    fits = grid.GetNumberOfComponents() == 1 and found[0].shape == tuple(reversed(grid.GetSize()))
    return Own(found[0], grid, found[1]) if fits else None


def as_image(own: Own) -> sitk.Image:
    """Return an image of ITK."""
    image = sitk.GetImageFromArray(own.voxels, isVector=False)
    spacing, origin, direction = place_of(own.grid)
    image.SetSpacing(spacing)
    image.SetOrigin(origin)
    image.SetDirection(direction)
    return image


def place_of(grid: sitk.Image | sitk.ImageFileReader) -> tuple[Sequence[float], Sequence[float], Sequence[float]]:
    """Return spacing, origin and direction (x, y, z); ITK turns axes of negative sizes around when it reads voxels."""
    spacing, direction = grid.GetSpacing(), grid.GetDirection()
    if min(spacing) < 0:
        signs = [math.copysign(1.0, size) for size in spacing]
        direction = tuple(value * signs[i % len(spacing)] for i, value in enumerate(direction))
        spacing = tuple(map(abs, spacing))
    return spacing, grid.GetOrigin(), direction


def check_length(path: Path, said: TextFacts, needed: int) -> tuple[str, ...]:
    """Return a remark on a file that holds more voxels than its header says; it may hold fewer only if ITK refused it.

    Parameters
    ----------
    path : Path
        Of the header.
    said : TextFacts
        What it says.
    needed : int
        Bytes of the voxels that were read.

    Raises
    ------
    ImageError
        If it holds fewer, or the voxels that were read began within the header.
    """
    if said.skip is None or said.packed:
        return ()
    file = path.parent / said.file.decode("utf-8", "replace") if said.file else path
    absolute = path.name.lower().endswith((".mha", ".mhd"))
    begin = said.begin if said.skip < 0 else max(said.begin, said.skip) if absolute else said.begin + said.skip
    who, beyond = "it" if file == path else file.name, file.stat().st_size - begin - needed
    if beyond < 0:
        raise ImageError(
            f"{path} cannot be read: {who} is truncated, and holds {needed + beyond} of {needed} bytes of voxels. Copy "
            "it again."
        )
    if said.skip < 0 or not beyond:
        return ()
    return (
        f"{who} holds {beyond} bytes more than its header says, which were ignored; are the type and the "
        "number of voxels right, and where they begin?",
    )


def voxels_of(path: Path) -> tuple[NDArray[Any], tuple[str, ...]] | None:
    """Return the voxels ([T,] [Z,] Y, X) of a file whose header was checked, with remarks; None where ITK is to read.

    Raises
    ------
    ImageError
        If what is packed is damaged or less than the header says.
    """
    nrrd = path.name.lower().endswith(".nrrd")
    if not nrrd and not path.name.lower().endswith((".mha", ".mhd")):
        return None
    content = memoryview(path.read_bytes())
    packed = (_of_nrrd if nrrd else _of_meta)(bytes(content[:_HEADER]), path)
    if packed is None:
        return None
    needed = math.prod(packed.shape) * packed.dtype.itemsize
    if packed.path != path:
        content = memoryview(packed.path.read_bytes())
    content = content[packed.begin :][: packed.length]
    data, beyond = _unpacked(content, packed.bits, needed, path)
    array = np.frombuffer(data, packed.dtype).reshape(packed.shape)
    array = array if packed.dtype.isnative else array.astype(packed.dtype.newbyteorder("="))
    return array, ((f"it holds {beyond} bytes more than its header says, which were ignored",) if beyond else ())


def _unpacked(content: bytes | memoryview, bits: int, needed: int, path: Path) -> tuple[bytes, int]:
    """Return the first bytes of a stream that is whole, and how many follow; it may have several members of gzip."""
    parts, length, beyond = [], 0, 0
    try:
        while length < needed:
            stream = zlib.decompressobj(wbits=bits)
            part = stream.decompress(content, needed - length)
            while not stream.eof and (stream.unconsumed_tail or part):  # what is left is only checked
                more = stream.decompress(stream.unconsumed_tail, _PIECE)
                beyond += len(more)
                if not more and not stream.unconsumed_tail:
                    break
            parts.append(part)
            length += len(part)
            content = stream.unused_data
            if not stream.eof or not content:
                break
    except zlib.error as error:
        raise ImageError(f"{path} is damaged: its voxels cannot be unpacked ({error}). Copy or export it again.") from (
            error
        )
    if length < needed or not stream.eof:
        raise ImageError(f"{path} cannot be read: it is truncated after {length} of {needed} bytes. Copy it again.")
    return (parts[0] if len(parts) == 1 else b"".join(parts)), beyond


def _fields(text: bytes) -> dict[str, str]:
    """Return the fields of a header, none that is there twice."""
    fields: dict[str, str] = {}
    for line in _LINE.finditer(text.decode("ascii", "replace")):
        name = "".join(line[1].lower().split())
        fields[name] = "" if name in fields else line[2].strip()
    return fields


def _numbers(words: str) -> tuple[int, ...]:
    return tuple(int(word) for word in words.split() if word.isdecimal())


def _shape(words: str, axes: str) -> tuple[int, ...] | None:
    """Return the sizes of the axes, the slowest first; None of what is no image of at most four axes."""
    sizes, count = _numbers(words), _numbers(axes)
    fits = count and len(sizes) == len(words.split()) == count[0] and 2 <= count[0] <= 4 and min(sizes) > 0
    return sizes[::-1] if fits else None


def _of_meta(start: bytes, path: Path) -> Packed | None:
    last = re.search(rb"^[ \t]*ElementDataFile[ \t]*[=:][ \t]*([^\n]*)\n", start, re.MULTILINE)
    if last is None:
        return None
    said, name = _fields(start[: last.start()]), last[1].strip().decode("utf-8", "replace")
    orders = {_true(said[key]) for key in ("binarydatabyteordermsb", "elementbyteordermsb") if key in said}
    code = _META_TYPES.get(said.get("elementtype", ""))
    shape = _shape(said.get("dimsize", ""), said.get("ndims", ""))
    plain = _true(said.get("binarydata", "")) and said.get("headersize", "0") in ("0", "-1") and len(orders) < 2
    single = said.get("elementnumberofchannels", "1") == "1"
    if not (_true(said.get("compresseddata", "")) and plain and single and code and shape):
        return None
    dtype = np.dtype(code).newbyteorder(">" if True in orders else "<")
    length = int(said["compresseddatasize"]) if said.get("compresseddatasize", "").isdecimal() else None
    if name.upper() == "LOCAL":
        return Packed(path, last.end(), length or None, dtype, shape, _BOTH)
    file = path.parent / name
    if not name or name.startswith("LIST") or "%" in name or not file.is_file():
        return None
    return Packed(file, 0, None, dtype, shape, _BOTH)


def _of_nrrd(start: bytes, path: Path) -> Packed | None:
    end = re.search(rb"\n\r?\n", start)
    if end is None:
        return None
    said = _fields(start[: end.start() + 1])
    code = _NRRD_CODES.get(" ".join(said.get("type", "").lower().split()))
    shape = _shape(said.get("sizes", ""), said.get("dimension", ""))
    skips = any(key in said for key in ("lineskip", "byteskip", "subdim"))
    if said.get("encoding", "").lower() not in ("gzip", "gz") or skips or not code or not shape:
        return None
    order = said.get("endian", "little" if code.endswith("1") else "").lower()
    if order not in ("little", "big"):
        return None
    dtype = np.dtype(f"{'<' if order == 'little' else '>'}{code}")
    name = said.get("datafile", "")
    if not name:
        return Packed(path, end.end(), None, dtype, shape, _GZIP)
    file = path.parent / name
    if name.upper().startswith("LIST") or "%" in name or not file.is_file():
        return None
    return Packed(file, 0, None, dtype, shape, _GZIP)


def _true(word: str) -> bool:
    return word[:1] in ("T", "t", "1")
