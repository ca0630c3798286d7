"""What the pages of a TIFF are together: one picture or stack, or nothing plain."""

from __future__ import annotations

import json
import logging
import math
import mmap
import os
import re
import struct
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO
from xml.etree import ElementTree

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from napari_nnunet.errors import ImageError, some
from napari_nnunet.formats.images.header import KEPT
from napari_nnunet.formats.room import require_room
from napari_nnunet.memory import available_memory

#: What is said of pictures whose file has them shown otherwise than they are stored (EXIF, TIFF 6.0).
TURNED = "it is to be shown turned or mirrored (orientation {way}), but was read as it is stored"
_ORIENTATION, _KIND = 274, 262  # TIFF 6.0
_STORED_AS = {
    0: "it stores white as 0 (MinIsWhite); its values were read as they are stored",
    3: "its values are numbers of a palette and were read as these numbers, without the colours",
    5: "its colours are those of print (CMYK) and were read as four channels",
    6: "its colours are stored as brightness and differences of colour (YCbCr) and were read as these",
    8: "its colours are stored as CIE L*a*b* and were read as these",
}
_MOST_PLANES = 1 << 20  # of a file
_UNPACKED, _LZW, _KEPT_COLOURS = (
    1,
    5,
    (1, 2),
)  # ways of packing; black is zero, and RGB, which Pillow reads as they are stored
_DEFLATE, _RATIO = (8, 32946), 1032  # codes of TIFF, and by how much it packs at most
_CERTAIN = 256e6  # bytes that fit without a look at how much is free
_AT_ONCE = 16  # strips that are unpacked beside each other
_PIECE = 1 << 20  # bytes
_SMALL = 1 << 18  # bytes of a file


@dataclass(frozen=True, eq=False)
class Pages:
    """The image in an open TIFF.

    Parameters
    ----------
    parts : tuple of TiffPageSeries
        One, or several pictures of one shape that make a stack.
    shape : tuple of int
        Of the array.
    axes : str
        A letter per axis as tifffile names them; Q for pages that were appended one by one.
    remarks : tuple of str
        What else is in the file and was left out.
    """

    parts: tuple[tifffile.TiffPageSeries, ...]
    shape: tuple[int, ...]
    axes: str
    remarks: tuple[str, ...]

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the values."""
        return np.dtype(self.parts[0].dtype)

    def read(self, path: Path) -> NDArray[Any]:
        """Return the array; raises ResourceError if it cannot fit into memory."""
        require_room(path, self.shape, self.dtype.itemsize)
        try:
            if len(self.parts) == 1:
                return np.asarray(self.parts[0].asarray())
            return np.stack([part.asarray() for part in self.parts])
        except (ValueError, NotImplementedError) as error:
            if "imagecodecs" not in str(error):
                raise
            if "packints" in str(error):
                raise ImageError(
                    f"{path.name} packs its values into {self.parts[0].keyframe.bitspersample} bits, which only the "
                    "package imagecodecs can read. Install it (pip install imagecodecs), or save the file with 8 or 16 "
                    "bits."
                ) from error
            return _unpacked_by_pillow(self, path)


def _unpacked_by_pillow(pages: Pages, path: Path) -> NDArray[Any]:
    """Return the array of a TIFF that tifffile cannot unpack without imagecodecs, where Pillow keeps its values.

    Raises
    ------
    ImageError
        If it does not: of other ways of packing, colours and transparency that it would change, types that it widens
        (2 or 4 bits among them), planes that it turns, channels that lie apart.
    """
    frame = pages.parts[0].keyframe
    every = [page for part in pages.parts for page in part.pages]
    if frame.compression == _LZW and all(page is not None and _kept_by_pillow(page.aspage()) for page in every):
        with Image.open(path) as image, suppress(Image.DecompressionBombError):
            planes = []
            for page in every:
                image.seek(page.index)
                plane = np.asarray(image)
                planes.append(plane.astype(plane.dtype.newbyteorder("="), copy=False))
            if all(plane.dtype == pages.dtype and plane.shape == frame.shape for plane in planes):
                return np.stack(planes).reshape(pages.shape)
    raise ImageError(
        f"{path.name} is compressed with {getattr(frame.compression, 'name', frame.compression)}, which "
        f"only the package "
        "imagecodecs can decompress. Install it (pip install imagecodecs), or save the file without compression."
    )


def _kept_by_pillow(page: tifffile.TiffPage) -> bool:
    """Whether Pillow gives the values of a page as they are stored."""
    return (
        page.photometric in _KEPT_COLOURS
        and page.tags.valueof(_ORIENTATION, 1) in (0, 1)
        and page.planarconfig in (None, 1)
        and page.bitspersample in (8, 16, 32)
        and not page.extrasamples
    )


@contextmanager
def opened(path: Path) -> Iterator[tifffile.TiffFile]:
    """Open a TIFF; other files that it names are not followed, and a chain of pages that breaks off is an error.

    Raises
    ------
    ImageError
        If tifffile found something wrong with the pages that it only notes.
    """
    kept = KEPT.get()
    file, complaints = (kept and kept.get(path)) or (None, _Complaints())
    logger = logging.getLogger("tifffile")
    logger.addHandler(complaints)
    try:
        if file is None:
            file = open_tiff(path, _multifile=False)
            if kept is not None:
                kept[path] = file, complaints  # what was found damaged once is damaged still
        yield file
    except ImageError:
        if not complaints.said:
            raise
    finally:
        logger.removeHandler(complaints)
        if file is not None and kept is None:
            file.close()
    if complaints.said:
        raise ImageError(f"{path} is damaged: {complaints.said[0]}. Copy or export it again.")


class _AsNamed:
    """A file for tifffile by the name that it was given: tifffile would look up where each part of a path leads."""

    def __init__(self, path: Path) -> None:
        self.path, self.mode = os.fspath(path), "rb"

    def open(self) -> BinaryIO:
        return open(self.path, "rb")


def open_tiff(path: Path, **how: Any) -> tifffile.TiffFile:
    """Open a TIFF; raises ImageError if its pages lead in a circle, in which tifffile would go round and round."""
    file = tifffile.TiffFile(_AsNamed(path), **how)
    try:
        if file.pages.is_multipage:
            _refuse_circles(file, path)
    except BaseException:
        file.close()
        raise
    return file


def _refuse_circles(file: tifffile.TiffFile, path: Path) -> None:
    """Follow the chain of pages (TIFF 6.0, section 2; BigTIFF): each tells where the next one lies."""
    form, raw = file.tiff, file.filehandle
    with ExitStack() as open_ones:
        content: bytes | mmap.mmap
        if raw.size <= _SMALL:  # read faster than mapped
            raw.seek(0)
            content = raw.read(raw.size)
        else:
            content = open_ones.enter_context(mmap.mmap(raw.fileno(), 0, access=mmap.ACCESS_READ))
        begin, last = 8 if form.is_bigtiff else 4, len(content) - form.offsetsize
        tags, place = struct.Struct(form.tagnoformat).unpack_from, struct.Struct(form.offsetformat).unpack_from
        (at,), seen = place(content, begin), set[int]()
        head, size = form.tagnosize, form.tagsize
        while 0 < at <= last - head:
            if at in seen:
                raise ImageError(f"{path} is damaged: its pages lead in a circle. Copy or export it again.")
            seen.add(at)
            end = at + head + tags(content, at)[0] * size
            at = place(content, end)[0] if end <= last else 0


_BROKEN = re.compile(r"invalid (?:page offset|next page|offset)|circular reference|corrupt", re.IGNORECASE)


class _Complaints(logging.Handler):
    """Collects what tifffile says; without the lock and the entry in a list of all handlers, which take longer."""

    def __init__(self) -> None:
        self.level = logging.WARNING
        self.said: list[str] = []

    def handle(self, record: logging.LogRecord) -> bool:
        text = record.getMessage()
        if _BROKEN.search(text):
            self.said.append(" ".join(text.split()).rstrip("."))
        return True


def pages_of(file: tifffile.TiffFile, path: Path, *, voxels: bool = True) -> Pages:
    """Return what the pages of a TIFF are together; without ``voxels`` what its first page tells, where that is all.

    Reduced copies of an image (pyramids, thumbnails) are left out and said; pages of one shape and type that were
    appended one by one are a stack.

    Raises
    ------
    ImageError
        If the file holds several images, or is one of several files of an OME set.
    """
    check_ome(file, path)
    told = _as_told(file, voxels)
    series = list(file.series) if told is None else [told]
    if not series:
        raise ImageError(f"{path.name} holds no image.")
    whole = [part for part in series if not part.keyframe.is_reduced] or series[:1]
    remarks = []
    levels = len(whole[0].levels) + len(series) - len(whole)
    if levels > 1:
        remarks.append(f"it has {levels} levels of resolution, of which the largest was read")
    first = whole[0]
    if (way := first.keyframe.tags.valueof(_ORIENTATION, default=1)) not in (0, 1):
        remarks.append(TURNED.format(way=way))
    if (kind := _STORED_AS.get(int(first.keyframe.photometric or 0))) is not None and first.keyframe.tags.get(_KIND):
        remarks.append(kind)
    if len(whole) == 1:
        return Pages((first,), tuple(first.shape), first.axes, tuple(remarks))
    alike = all(part.shape == first.shape and part.dtype == first.dtype for part in whole) and first.axes == "YX"
    if alike and not file.is_ome:  # each image of OME's has a name of its own
        return Pages(tuple(whole), (len(whole), *first.shape), "QYX", tuple(remarks))
    raise ImageError(
        f"{path.name} holds {len(file.pages)} pages in {len(whole)} images that do not form a stack "
        f"({_shapes([part.shape for part in whole])}). Save each image as a file of its own."
    )


def _as_told(file: tifffile.TiffFile, voxels: bool) -> tifffile.TiffPageSeries | None:
    """Return the one series of a file that tifffile wrote and described, as it would; None of others.

    tifffile looks for all its kinds of files, and at every page, which takes several times as long as what matters.
    """
    first = file.pages.first
    several = file.pages.is_multipage
    if (several and voxels) or first.subifds is not None or first.is_reduced or not first.is_shaped:
        return None
    try:
        said = json.loads(first.shaped_description)
        shape, axes = tuple(said["shape"]), said.get("axes")
    except (ValueError, KeyError, TypeError):  # of earlier versions
        return None
    named = isinstance(axes, str) and len(axes) == len(shape)
    if said.get("truncated") or first.shape != shape[len(shape) - first.ndim :] or not (named or not several):
        return None
    if several and (first.ndim == len(shape) or len(file.pages) != math.prod(shape[: -first.ndim])):
        return None
    if not several and first.shape != shape:
        return None
    return tifffile.TiffPageSeries(
        [first], shape, first.dtype, axes if named else first.axes, kind="shaped", squeeze=False
    )


def _shapes(shapes: Sequence[Sequence[int]]) -> str:
    return some([" x ".join(map(str, shape)) for shape in shapes], 3)


def check_ome(file: tifffile.TiffFile, path: Path) -> None:
    """Raise ImageError if OME-XML says that other files belong to the image, or counts more planes than any has."""
    text = (file.ome_metadata or "") if file.is_ome else ""
    if not text:
        return
    names = set(re.findall(r"<(?:\w+:)?UUID[^>]*>([^<]+)</", text))
    if len(names) > 1:
        raise ImageError(
            f"{path.name} is one of {len(names)} files of an OME set; one file does not hold the whole image. "
            "Export it as a single file."
        )
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError:  # which tifffile passes over
        return
    if not max(map(_planes_named, root.iter())) <= _MOST_PLANES:  # it may be no number
        raise ImageError(f"{path} is damaged: its OME-XML counts more planes than any file has. Export it again.")


def _planes_named(element: ElementTree.Element) -> float:
    """Return how many planes, or steps of an axis, a part of OME-XML names; tifffile makes a list as long."""
    kind, known = element.tag.rpartition("}")[2], element.attrib
    if kind == "Pixels":
        return math.prod(_number(known.get(f"Size{axis}")) for axis in "ZCT")
    if kind == "TiffData":
        names = ("IFD", "PlaneCount", "NumPlanes", "FirstZ", "FirstC", "FirstT")
        return max(_number(known.get(name)) for name in names)
    if kind.startswith("ModuloAlong"):
        span = abs(_number(known.get("End")) - _number(known.get("Start")))
        return span / (abs(_number(known.get("Step"))) or 1e-9)
    return 0.0


def _number(text: str | None) -> float:
    try:
        return 1.0 if text is None else float(text)
    except ValueError:
        return 1.0


def looked_through(pages: Pages, path: Path) -> Pages:
    """Return pages that are about to be read, with a remark on strips and tiles that hold nothing.

    Raises
    ------
    ImageError
        If planes, strips or tiles are not there, which tifffile would read as zeros, or hold far more than they say.
    """
    lacking = empty = 0
    for part in pages.parts:
        if part.dataoffset is not None:  # it lies in one piece
            continue
        frame, pieces, unpacked, deflated = None, 0, False, False
        for page in part:
            if page is None:
                lacking += 1
                continue
            if page.keyframe is not frame:
                frame = page.keyframe
                pieces = math.prod(frame.chunked)
                unpacked, deflated = frame.compression == _UNPACKED, frame.compression in _DEFLATE
            if unpacked and page.is_contiguous:  # what it lacks is noticed when it is read
                continue
            counts = page.databytecounts
            lacking += len(page.dataoffsets) < pieces
            empty += counts.count(0)
            if deflated and max(counts, default=0) * _RATIO >= _CERTAIN:
                _refuse_bombs(page, path)
    if lacking:
        raise ImageError(
            f"{path} is damaged: parts of {lacking} of its planes are not in the file. Copy or export it again."
        )
    if not empty:
        return pages
    return replace(pages, remarks=(*pages.remarks, f"{empty} of its strips or tiles hold nothing, and were read as 0"))


def _refuse_bombs(page: Any, path: Path) -> None:
    """Raise ImageError if what is packed in a strip or tile could fill memory, and is more than its pixels are."""
    frame = page.keyframe
    limit = max(_CERTAIN, available_memory() / _AT_ONCE)
    most = math.prod(frame.chunks) * frame.dtype.itemsize
    for offset, count in zip(page.dataoffsets, page.databytecounts, strict=False):
        if count * _RATIO < limit:
            continue
        stream, left, held = zlib.decompressobj(), count, 0
        page.parent.filehandle.seek(offset)
        while (left > 0 or stream.unconsumed_tail) and not stream.eof:
            packed = stream.unconsumed_tail
            if not packed:
                packed = page.parent.filehandle.read(min(left, _PIECE))
                left -= len(packed)
            if not packed:
                break
            try:
                held += len(stream.decompress(packed, _PIECE))
            except zlib.error:  # whoever reads it says that it is damaged
                break
            if held > most:
                raise ImageError(f"{path} is damaged: a strip of {most:,} bytes unpacks to more. Export it again.")
