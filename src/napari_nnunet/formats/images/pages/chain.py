"""Opening a TIFF: its pages are chained, and the chain may break off or lead in a circle."""

from __future__ import annotations

import logging
import mmap
import os
import re
import struct
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import tifffile

from napari_nnunet.errors import ImageError
from napari_nnunet.formats.images.header import KEPT

_SMALL = 1 << 18  # bytes of a file


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
