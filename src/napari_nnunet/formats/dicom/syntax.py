"""What a DICOM file says of itself before its contents: what kind of object it is, and how its pixels are packed."""

from __future__ import annotations

import mmap
import os
import struct
import zlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from heapq import nsmallest
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from napari_nnunet.errors import ImageError, ResourceError
from napari_nnunet.formats.regular import is_file, regular
from napari_nnunet.memory import available_memory

_LOOKED_AT = 1000  # names in a folder: whoever opens something else there does not wait for us
_PREAMBLE = 128  # bytes before DICOM's mark
_LONG = (b"OB", b"OW", b"UN", b"SQ", b"UT", b"OD", b"OF", b"OL", b"UC", b"UR")  # lengths of 4 bytes (PS3.5, 7.1.2)
_PIXELS, _ITEMS, _UNDEFINED = (0x7FE0, 0x0010), 0xFFFE, 0xFFFFFFFF
_KIND, _SYNTAX, _SERIES = (2, 0x0002), (2, 0x0010), (0x0020, 0x000E)
_ENDS = (0xE00D, 0xE0DD)  # of items and sequences of undefined length
_LARGEST = 1 << 16  # bytes of a group that has about 200
_DEFLATED, _RATIO = "1.2.840.10008.1.2.1.99", 1032  # how a file is packed as a whole, and by how much at most
_IMPLICIT, _BIG_ENDIAN = "1.2.840.10008.1.2", "1.2.840.10008.1.2.2"
_CERTAIN, _PIECE = 256e6, 1 << 20  # bytes that fit without a look at how much is free; that are unpacked at once
_IMAGE_FREE = "1.2.840.10008.5.1.4.1.1."
#: Kinds of objects (PS3.4, B.5) that are no images of a patient, though some have pixels: they may lie beside a series.
_BESIDE = {
    "1.2.840.10008.1.3.10": "the contents of a disc",
    f"{_IMAGE_FREE}66": "raw data",
    f"{_IMAGE_FREE}66.1": "a registration",
    f"{_IMAGE_FREE}66.2": "fiducials",
    f"{_IMAGE_FREE}66.3": "a registration",
    f"{_IMAGE_FREE}66.4": "a segmentation",
    f"{_IMAGE_FREE}66.5": "a surface",
    f"{_IMAGE_FREE}66.7": "a segmentation",
    f"{_IMAGE_FREE}104.1": "a document",
    f"{_IMAGE_FREE}104.2": "a document",
    f"{_IMAGE_FREE}481.2": "a radiotherapy dose",
    f"{_IMAGE_FREE}481.3": "radiotherapy structures",
    f"{_IMAGE_FREE}481.5": "a radiotherapy plan",
    f"{_IMAGE_FREE}481.8": "a radiotherapy plan",
}
_FAMILIES = {f"{_IMAGE_FREE}11.": "a presentation", f"{_IMAGE_FREE}88.": "a report", f"{_IMAGE_FREE}9.": "a waveform"}
#: How pixels may be packed (PS3.5, 10), by name.
_SYNTAXES = {
    "1.2.840.10008.1.2": "Implicit VR Little Endian",
    "1.2.840.10008.1.2.1": "Explicit VR Little Endian",
    "1.2.840.10008.1.2.1.99": "Deflated Explicit VR Little Endian",
    "1.2.840.10008.1.2.2": "Explicit VR Big Endian",
    "1.2.840.10008.1.2.4.50": "JPEG Baseline",
    "1.2.840.10008.1.2.4.51": "JPEG Extended",
    "1.2.840.10008.1.2.4.57": "JPEG Lossless",
    "1.2.840.10008.1.2.4.70": "JPEG Lossless SV1",
    "1.2.840.10008.1.2.4.80": "JPEG-LS Lossless",
    "1.2.840.10008.1.2.4.81": "JPEG-LS Near Lossless",
    "1.2.840.10008.1.2.4.90": "JPEG 2000 Lossless",
    "1.2.840.10008.1.2.4.91": "JPEG 2000",
    "1.2.840.10008.1.2.4.100": "MPEG2",
    "1.2.840.10008.1.2.4.101": "MPEG2",
    "1.2.840.10008.1.2.4.102": "MPEG-4",
    "1.2.840.10008.1.2.4.103": "MPEG-4",
    "1.2.840.10008.1.2.4.107": "HEVC",
    "1.2.840.10008.1.2.4.108": "HEVC",
    "1.2.840.10008.1.2.4.110": "JPEG XL Lossless",
    "1.2.840.10008.1.2.4.111": "JPEG XL",
    "1.2.840.10008.1.2.4.112": "JPEG XL",
    "1.2.840.10008.1.2.4.201": "HTJ2K Lossless",
    "1.2.840.10008.1.2.4.202": "HTJ2K Lossless",
    "1.2.840.10008.1.2.4.203": "HTJ2K",
    "1.2.840.10008.1.2.5": "RLE Lossless",
}
_PLAIN = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2")


@dataclass(frozen=True)
class Syntax:
    """The group of a file that stands before everything else.

    Parameters
    ----------
    kind : str
        UID of what kind of object it is; empty if the file does not say.
    packing : str
        UID of how its pixels are packed; likewise.
    """

    kind: str = ""
    packing: str = ""

    @property
    def is_segmentation(self) -> bool:
        """Whether it is a DICOM-SEG."""
        return _BESIDE.get(self.kind) == "a segmentation"

    @property
    def is_structures(self) -> bool:
        """Whether it holds radiotherapy structures."""
        return _BESIDE.get(self.kind) == "radiotherapy structures"

    @property
    def holds_segments(self) -> bool:
        """Whether it holds labels of an image: a DICOM-SEG, or radiotherapy structures."""
        return self.is_segmentation or self.is_structures

    @property
    def is_beside(self) -> bool:
        """Whether it is no image of a patient, but something that may lie beside one."""
        return self.kind in _BESIDE or self.kind.startswith(tuple(_FAMILIES))

    @property
    def what(self) -> str:
        """What it is, where it is no image: "a report"."""
        family = next((text for start, text in _FAMILIES.items() if self.kind.startswith(start)), "an image")
        return _BESIDE.get(self.kind, family)

    @property
    def compressed(self) -> str:
        """The name of the compression, empty where there is none."""
        return "" if not self.packing or self.packing in _PLAIN else _SYNTAXES.get(self.packing, self.packing)


def is_dicom(path: Path) -> bool:
    """True if a file has DICOM's mark after its preamble."""
    try:
        with regular(path).open("rb") as file:
            return _is_marked(file)
    except OSError:
        return False


def _is_marked(file: BinaryIO) -> bool:
    file.seek(_PREAMBLE)
    return file.read(4) == b"DICM"


def syntax_of(path: Path) -> Syntax | None:
    """Return what a file says of itself, None if it is no DICOM file; what is damaged is left out."""
    try:
        with regular(path).open("rb") as file:
            if not _is_marked(file):
                return None
            return _parsed(file.read(_LARGEST))[0]
    except OSError:
        return None


def _parsed(content: bytes) -> tuple[Syntax, int]:
    """Go through the elements of group 2, explicit and little-endian in every file; returns how long they are, too."""
    found: dict[tuple[int, int], str] = {}
    at = 0
    while at + 8 <= len(content):
        group, element, kind, length = struct.unpack_from("<HH2sH", content, at)
        if group != 2:
            break
        at += 8
        if kind in _LONG:
            if at + 4 > len(content):
                break
            (length,) = struct.unpack_from("<I", content, at)
            at += 4
        found[group, element] = content[at : at + length].rstrip(b"\0 ").decode("ascii", "replace")
        at += length
    return Syntax(found.get(_KIND, ""), found.get(_SYNTAX, "")), at


def check_lengths(path: Path, syntax: Syntax) -> None:
    """Raise ImageError if an element says that it has more bytes than its file.

    Libraries take memory for what it says, up to 4 GB, before they read. Of what is not understood here, and of files
    that are big-endian, nothing is said. What is packed as a whole raises ResourceError if it unpacks to more than the
    free memory.
    """
    if syntax.packing == _DEFLATED:
        _check_packed(path)
    if syntax.packing in (_DEFLATED, _BIG_ENDIAN):
        return
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            excess = _excess(content, len(content), explicit=syntax.packing != _IMPLICIT)
    except (OSError, ValueError):  # empty, or gone
        return
    if excess:
        raise ImageError(
            f"{path} is damaged: it says that one of its elements has {excess:,} bytes, more than the file has. "
            "Copy it again."
        )


def series_uid(path: Path) -> str:
    """Return the SeriesInstanceUID of an image, fast: nothing after it is looked at.

    It is empty where the file is no image, does not say it, or is packed as a whole or big-endian.
    """
    syntax = syntax_of(path)
    if syntax is not None and (syntax.is_beside or syntax.packing in (_DEFLATED, _BIG_ENDIAN)):
        return ""
    try:
        with regular(path).open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            if syntax is None:  # older files have no mark, but begin with their elements
                return _text_at(content, _SERIES, 0, explicit=content[4:6].isalpha())
            return _text_at(content, _SERIES, _PREAMBLE + 4, explicit=syntax.packing != _IMPLICIT)
    except (OSError, ValueError, struct.error):  # empty, gone, or it breaks off
        return ""


def _text_at(content: mmap.mmap, wanted: tuple[int, int], at: int, *, explicit: bool) -> str:
    """Return the text of an element that lies in no sequence; empty if it is not there, or not understood."""
    within = 0
    while at + 8 <= len(content):
        group, element, kind, length = struct.unpack_from("<HH2sH", content, at)
        at += 8
        if group == _ITEMS or not (explicit or group == 2):
            (length,) = struct.unpack_from("<I", content, at - 4)
        elif kind in _LONG:
            (length,) = struct.unpack_from("<I", content, at)
            at += 4
        if group == _ITEMS and element in _ENDS:
            within -= 1
        elif length == _UNDEFINED:
            if kind == b"UN" and explicit:  # what is in it is written in another way
                return ""
            within += 1
        elif not within and (group, element) >= wanted:  # elements are in order
            found = content[at : at + length].rstrip(b"\0 ").decode("ascii", "replace")
            return found if (group, element) == wanted else ""
        else:
            at += length
    return ""


def _check_packed(path: Path) -> None:
    if path.stat().st_size * _RATIO < _CERTAIN:
        return
    stream, held, free = zlib.decompressobj(-zlib.MAX_WBITS), 0, available_memory()
    with regular(path).open("rb") as file, suppress(zlib.error):  # whoever reads it says that it is damaged
        file.seek(_PREAMBLE + 4)
        file.seek(_PREAMBLE + 4 + _parsed(file.read(_LARGEST))[1])
        while not stream.eof and (packed := stream.unconsumed_tail or file.read(_PIECE)):
            held += len(stream.decompress(packed, _PIECE))
            if held > free:
                raise ResourceError(
                    f"{path} unpacks to more than the {free / 1e9:,.1f} GB of memory that are free. Close other "
                    "programs, or check where it comes from."
                )


def _excess(content: mmap.mmap, size: int, *, explicit: bool) -> int:
    """Return the bytes of the first element that has more than the file, 0 if there is none."""
    at, in_pixels = _PREAMBLE + 4, False
    while at + 8 <= size:
        group, element, kind, short = struct.unpack_from("<HH2sH", content, at)
        (length,) = struct.unpack_from("<I", content, at + 4)
        at += 8
        sequence = group == _ITEMS
        if not sequence and (explicit or group == 2):
            if not kind.isalpha() or not kind.isupper():
                return 0
            sequence, length = kind == b"SQ", short
            if kind in _LONG:
                if at + 4 > size:
                    return 0
                (length,) = struct.unpack_from("<I", content, at)
                at += 4
        if length == _UNDEFINED:
            if kind == b"UN" and explicit:  # what is in it is written in another way
                return 0
            in_pixels |= (group, element) == _PIXELS
        elif length > size:
            return int(length)
        elif in_pixels or not sequence:
            at += length
    return 0


def numbers_between(texts: Sequence[str], count: int | None) -> NDArray[np.float64] | None:
    """Return texts of numbers between backslashes as rows; None if one of them is none or infinite."""
    try:
        rows = np.array([[float(number) for number in text.split("\\")] for text in texts])
    except ValueError:
        return None
    return rows if np.isfinite(rows).all() and count in (None, rows.shape[1]) else None


def sizes_between(text: str) -> list[float]:
    """Return sizes between backslashes; none if one of them is no size. ITK would put 1 in its place."""
    rows = numbers_between([text], None)
    return [] if rows is None or not (rows > 0).all() else rows[0].tolist()


def is_series(folder: Path) -> bool:
    """True if the first files of a folder are DICOM slices."""
    if not folder.is_dir():
        return False
    with os.scandir(folder) as entries:
        names = (e.name for e in entries if not e.name.startswith(".") and e.name != "DICOMDIR" and is_file(e))
        few = islice(names, _LOOKED_AT)
        return any(is_dicom(folder / name) for name in nsmallest(3, few))


def is_dicom_image(path: Path) -> bool:
    """True for a folder with a series, and for a single DICOM file that can be an image."""
    if path.is_dir():
        return is_series(path)
    syntax = syntax_of(path)
    return syntax is not None and not syntax.is_beside


def holds_segments(path: Path) -> bool:
    """True for a DICOM file with labels of an image: a DICOM-SEG, or radiotherapy structures."""
    syntax = syntax_of(path)
    return syntax is not None and syntax.holds_segments
