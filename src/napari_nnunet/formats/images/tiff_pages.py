"""What the pages of a TIFF are together: one picture or stack, or nothing plain."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from napari_nnunet.errors import ImageError
from napari_nnunet.formats.images.header import KEPT
from napari_nnunet.formats.room import require_room

#: What is said of pictures whose file has them shown otherwise than they are stored (EXIF, TIFF 6.0).
TURNED = "it is to be shown turned or mirrored (orientation {way}), but was read as it is stored"
_ORIENTATION = 274


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
        if len(self.parts) == 1:
            return np.asarray(self.parts[0].asarray())
        return np.stack([part.asarray() for part in self.parts])


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
            file = tifffile.TiffFile(path, _multifile=False)
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


def pages_of(file: tifffile.TiffFile, path: Path) -> Pages:
    """Return what the pages of a TIFF are together.

    Reduced copies of an image (pyramids, thumbnails) are left out and said; pages of one shape and type that were
    appended one by one are a stack.

    Raises
    ------
    ImageError
        If the file holds several images, or is one of several files of an OME set.
    """
    _refuse_sets(file, path)
    series = list(file.series)
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
    if len(whole) == 1:
        return Pages((first,), tuple(first.shape), first.axes, tuple(remarks))
    if all(part.shape == first.shape and part.dtype == first.dtype for part in whole) and first.axes == "YX":
        return Pages(tuple(whole), (len(whole), *first.shape), "QYX", tuple(remarks))
    raise ImageError(
        f"{path.name} holds {len(file.pages)} pages in {len(whole)} images that make no stack "
        f"({_shapes([part.shape for part in whole])}). Save each image as a file of its own."
    )


def _shapes(shapes: Sequence[Sequence[int]]) -> str:
    listed = [" x ".join(map(str, shape)) for shape in shapes[:3]]
    return ", ".join(listed) + (", ..." if len(shapes) > 3 else "")


def _refuse_sets(file: tifffile.TiffFile, path: Path) -> None:
    text = (file.ome_metadata or "") if file.is_ome else ""
    names = set(re.findall(r"<(?:\w+:)?UUID[^>]*>([^<]+)</", text))
    if len(names) > 1:
        raise ImageError(
            f"{path.name} is one of {len(names)} files of an OME set; one file does not hold the whole image. "
            "Export it as a single file."
        )
