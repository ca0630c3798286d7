"""Unpacking the strips and tiles of a TIFF's pages where tifffile would be slow, or could not."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from napari_nnunet.errors import ImageError
from napari_nnunet.memory import available_memory

#: Codes of TIFF 6.0 and its supplements.
ORIENTATION = 274
UNPACKED, DEFLATE, _LZW = 1, (8, 32946), 5
_KEPT_COLOURS = (1, 2)  # black is zero, and RGB, which Pillow reads as they are stored
_AS_STORED = (0, 1, 2, 3)  # grey, RGB, palette: nothing is computed when they are unpacked
CERTAIN = 256e6  # bytes that fit without a look at how much is free
RATIO = 1032  # by how much deflate packs at most
_AT_ONCE = 16  # strips that are unpacked beside each other
_PIECE = 1 << 20  # bytes
_SMALL_PAGE = 1 << 16  # bytes; tifffile takes longer for what is around such a page than for the page


def unpacked_in_turn(part: tifffile.TiffPageSeries) -> NDArray[Any] | None:
    """Return the array of a series whose pages are one small deflated strip each, as tifffile would.

    None where anything is otherwise, damage included: tifffile has the word for it.
    """
    frame, every = part.keyframe, list(part)
    plain = (
        len(every) > 1
        and frame.compression in DEFLATE
        and frame.predictor == frame.fillorder == 1
        and frame.photometric in _AS_STORED
        and math.prod(frame.chunked) == 1
        and not frame.is_tiled
        and frame.dtype is not None
        and frame.dtype.itemsize * 8 == frame.bitspersample
        and frame.nbytes == math.prod(frame.shape) * frame.dtype.itemsize <= _SMALL_PAGE
        and len(every) * math.prod(frame.shape) == math.prod(part.shape)
        and part.transform is None
    )
    if not plain:
        return None
    unpack, raw, size = tifffile.TIFF.DECOMPRESSORS[frame.compression], frame.parent.filehandle, frame.nbytes
    stored = frame.dtype.newbyteorder(frame.parent.byteorder)
    array = np.empty((len(every), size // stored.itemsize), frame.dtype)
    for page, place in zip(every, array, strict=True):
        if page is None or page.keyframe is not frame or not len(page.dataoffsets) == len(page.databytecounts) == 1:
            return None
        raw.seek(page.dataoffsets[0])
        packed = raw.read(page.databytecounts[0])
        try:
            content = unpack(packed, out=size)
        except Exception:  # of imagecodecs, which has many; whoever reads it as usual says what is wrong
            return None
        if len(packed) != page.databytecounts[0] or len(content) != size:
            return None
        place[:] = np.frombuffer(content, stored)
    return array.reshape(part.shape)


def unpacked_by_pillow(parts: Sequence[tifffile.TiffPageSeries], shape: tuple[int, ...], path: Path) -> NDArray[Any]:
    """Return the array of a TIFF that tifffile cannot unpack without imagecodecs, where Pillow keeps its values.

    Raises
    ------
    ImageError
        If it does not: of other ways of packing, colours and transparency that it would change, types that it widens
        (2 or 4 bits among them), planes that it turns, channels that lie apart.
    """
    frame = parts[0].keyframe
    every = [page for part in parts for page in part.pages]
    if frame.compression == _LZW and all(page is not None and _kept_by_pillow(page.aspage()) for page in every):
        with Image.open(path) as image, suppress(Image.DecompressionBombError):
            planes = []
            for page in every:
                image.seek(page.index)
                plane = np.asarray(image)
                planes.append(plane.astype(plane.dtype.newbyteorder("="), copy=False))
            if all(plane.dtype == parts[0].dtype and plane.shape == frame.shape for plane in planes):
                return np.stack(planes).reshape(shape)
    raise ImageError(
        f"{path.name} is compressed with {getattr(frame.compression, 'name', frame.compression)}, which "
        f"only the package "
        "imagecodecs can decompress. Install it (pip install imagecodecs), or save the file without compression."
    )


def _kept_by_pillow(page: tifffile.TiffPage) -> bool:
    """Whether Pillow gives the values of a page as they are stored."""
    return (
        page.photometric in _KEPT_COLOURS
        and page.tags.valueof(ORIENTATION, 1) in (0, 1)
        and page.planarconfig in (None, 1)
        and page.bitspersample in (8, 16, 32)
        and not page.extrasamples
    )


def refuse_bombs(page: Any, path: Path) -> None:
    """Raise ImageError if what is packed in a strip or tile could fill memory, and is more than its pixels are."""
    frame = page.keyframe
    limit = max(CERTAIN, available_memory() / _AT_ONCE)
    most = math.prod(frame.chunks) * frame.dtype.itemsize
    for offset, count in zip(page.dataoffsets, page.databytecounts, strict=False):
        if count * RATIO < limit:
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
