"""What the pages of a TIFF are together: one picture or stack, or nothing plain."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import tifffile
from numpy.typing import NDArray

from napari_nnunet.errors import ImageError, NnunetError, some
from napari_nnunet.formats.images.pages import strips
from napari_nnunet.formats.room import require_room

#: What is said of pictures whose file has them shown otherwise than they are stored (EXIF, TIFF 6.0).
TURNED = "it is to be shown turned or mirrored (orientation {way}), but was read as it is stored"
_KIND = 262  # TIFF 6.0
_STORED_AS = {
    0: "it stores white as 0 (MinIsWhite); its values were read as they are stored",
    3: "its values are numbers of a palette and were read as these numbers, without the colours",
    5: "its colours are those of print (CMYK) and were read as four channels",
    6: "its colours are stored as brightness and differences of colour (YCbCr) and were read as these",
    8: "its colours are stored as CIE L*a*b* and were read as these",
}
_MOST_PLANES = 1 << 20  # of a file


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
                quickly = strips.unpacked_in_turn(self.parts[0])
                return quickly if quickly is not None else np.asarray(self.parts[0].asarray())
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
            return strips.unpacked_by_pillow(self.parts, self.shape, path)


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
    if (way := first.keyframe.tags.valueof(strips.ORIENTATION, default=1)) not in (0, 1):
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
                unpacked, deflated = frame.compression == strips.UNPACKED, frame.compression in strips.DEFLATE
            if unpacked and page.is_contiguous:  # what it lacks is noticed when it is read
                continue
            counts = page.databytecounts
            lacking += len(page.dataoffsets) < pieces
            empty += counts.count(0)
            if deflated and max(counts, default=0) * strips.RATIO >= strips.CERTAIN:
                strips.refuse_bombs(page, path)
    if lacking:
        raise ImageError(
            f"{path} is damaged: parts of {lacking} of its planes are not in the file. Copy or export it again."
        )
    if not empty:
        return pages
    return replace(pages, remarks=(*pages.remarks, f"{empty} of its strips or tiles hold nothing, and were read as 0"))


def holes_in(series: tifffile.TiffPageSeries, path: Path) -> tuple[str, ...]:
    """Return what is said of parts that hold nothing; raises ImageError where parts are not there."""
    try:
        return looked_through(Pages((series,), tuple(series.shape), series.axes, ()), path).remarks
    except NnunetError:
        raise
    except Exception as error:  # of many kinds: tifffile trusts what a file says of itself
        raise ImageError(f"{path} is damaged: {error}. Copy or export it again.") from error
