"""What an image file says of itself before its voxels are read, and whether there is room for them."""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from napari_nnunet.errors import ImageError, ResourceError
from napari_nnunet.memory import available_memory
from napari_nnunet.schema.geometry import Geometry

_USUAL = 1024  # bytes of most headers
_LONGEST = 1 << 16  # bytes of a header that are looked through
_SIZES = re.compile(rb"^(?:sizes:|DimSize\s*=)\s*([\d ]+)", re.MULTILINE)
_KIND = re.compile(rb"^(?:type:|ElementType\s*=)\s*([\w ]+)", re.MULTILINE)
_ELSEWHERE = re.compile(rb"^(?:data ?file:|ElementDataFile\s*=)\s*(.+)$", re.MULTILINE | re.IGNORECASE)
_WITHIN = (b"LOCAL", b"LIST")
_GIPL = (b"\xef\xff\xe9\xb0", b"\x2a\xe3\x89\xb8")  # marks at the end of its header
_CERTAIN = 256e6  # bytes that fit without a look at how much is free


class Header(NamedTuple):
    """Size and place of an image.

    Parameters
    ----------
    shape : tuple of int
        (C, [Z,] Y, X); axes that a reader turns come in the order of the file.
    itemsize : int
        Bytes per value.
    geometry : Geometry
        Where the voxels lie, with the source of their size.
    """

    shape: tuple[int, ...]
    itemsize: int
    geometry: Geometry


def require_room(path: Path, shape: Sequence[int], itemsize: int) -> None:
    """Raise ResourceError if the voxels that a header promises take more than the free memory."""
    needed = float(itemsize) * math.prod(float(n) for n in shape)
    if needed < _CERTAIN:
        return
    free = available_memory()
    if needed > free:
        raise ResourceError(
            f"{path} says that it holds {' x '.join(map(str, shape))} voxels, which take {needed / 1e9:,.1f} GB; "
            f"{free / 1e9:,.1f} GB of memory are free. Close other programs, crop the image, or check where it "
            "comes from."
        )


def as_named(geometry: Geometry, reader: str | None) -> Geometry:
    """Return what nnU-Net's class of that name makes of a grid: its reader of pictures knows no size of a pixel."""
    if reader != "NaturalImage2DIO" or not geometry.spacing_known:
        return geometry
    return Geometry(spacing=(1.0, 1.0), spacing_known=False, remarks=geometry.remarks)


def check_text(path: Path) -> None:
    """Look at the header of a NRRD, MetaImage or GIPL file before ITK follows it.

    Raises
    ------
    ImageError
        If it names a file outside its own folder.
    ResourceError
        If the voxels take more than the free memory.
    """
    with path.open("rb") as file:
        start = file.read(_USUAL)
        if b"\n\n" not in start and b"ElementDataFile" not in start:
            start += file.read(_LONGEST)
    if path.name.lower().endswith(".gipl"):
        if start[252:256] in _GIPL:
            *shape, _ = struct.unpack(">5H", start[:10])
            require_room(path, [n for n in shape if n], 1)
        return
    end = start.find(b"\n\n") if start.startswith(b"NRRD") else -1
    text = start if end < 0 else start[: end + 1]
    elsewhere = _ELSEWHERE.search(text)
    if elsewhere is not None:
        _refuse_outside(path, elsewhere[1].strip(), text[elsewhere.end() :])
        text = text[: elsewhere.start()]
    sizes, kind = _SIZES.search(text), _KIND.search(text)
    if sizes is not None:
        require_room(path, [int(n) for n in sizes[1].split()[:8]], _value_bytes(kind[1] if kind else b""))


def _refuse_outside(path: Path, name: bytes, following: bytes) -> None:
    """Refuse files in other folders: a header from elsewhere could have any file read, and be sent on, as an image."""
    names = [name]
    if name.upper().startswith(_WITHIN):
        if name.upper().startswith(b"LOCAL"):
            return
        names = following.split(b"\n")
    folder = path.parent.resolve()
    for entry in names:
        first = entry.decode("utf-8", "replace").strip().split(" %")[0]
        target = (folder / first.replace("\\", "/")).resolve()
        if target != folder and folder not in target.parents:
            raise ImageError(
                f"{path} takes its voxels from {first!r}, outside its own folder, which is not followed. Put both "
                "files into one folder, or save the image as one file."
            )


def _value_bytes(kind: bytes) -> int:
    """Return the bytes per value of a type by its name, 1 for names that say nothing."""
    name = kind.lower().strip()
    for words, size in (
        ((b"double", b"long long", b"int64", b"longlong"), 8),
        ((b"float", b"int32", b"met_int", b"met_uint", b"met_long", b"met_ulong"), 4),
        ((b"short", b"int16"), 2),
    ):
        if any(word in name for word in words):
            return size
    return 4 if name in (b"int", b"uint", b"unsigned int", b"signed int") else 1
