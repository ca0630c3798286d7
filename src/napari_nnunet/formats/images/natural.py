"""Two-dimensional pictures: PNG, BMP, JPEG, 2-D TIFF; grey, RGB, RGBA."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import imageio.v3 as iio
import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL.PngImagePlugin import PngInfo

from napari_nnunet.errors import ImageError
from napari_nnunet.formats.images import tiff
from napari_nnunet.formats.images.label_note import NOTE_KEY, LabelNote
from napari_nnunet.schema.geometry import Geometry

_COLOURS = (3, 4)


def _is_tiff(path: Path) -> bool:
    return path.name.lower().endswith((".tif", ".tiff"))


def is_natural(path: Path) -> bool:
    """True if a TIFF holds one picture: two axes, or a third that is colour and not said to be z.

    A damaged file is none; whoever reads it finds the words.
    """
    try:
        with tifffile.TiffFile(path) as file:
            shape, axes = file.series[0].shape, file.series[0].axes
    except Exception:  # of many kinds: tifffile trusts what a file says of itself
        return False
    if "Z" in axes:
        return False
    return len(shape) == 2 or (len(shape) == 3 and (shape[-1] in _COLOURS or shape[0] in _COLOURS))


def read(path: Path) -> tuple[NDArray[Any], Geometry]:
    """Return (array (C, Y, X), geometry); the size of a pixel is not known."""
    array = tifffile.imread(path) if _is_tiff(path) else iio.imread(path)
    if array.dtype == bool:
        array = array.astype(np.uint8)
    if array.ndim == 3:
        # Colours stand last, but for planar TIFFs.
        array = np.moveaxis(array, -1, 0) if array.shape[-1] in (*_COLOURS, 2) else array
        if array.shape[0] == 2:
            array = array[:1]  # grey with transparency
    elif array.ndim == 2:
        array = array[None]
    else:
        raise ImageError(f"{path.name} has {array.ndim} dimensions; a picture has 2, plus colour channels.")
    return array, Geometry(spacing=(1.0, 1.0), spacing_known=False)


def header(path: Path) -> tuple[tuple[int, ...], int, tuple[float, ...] | None]:
    """Return (shape (C, Y, X), bytes per value, spacing) from the file's header."""
    if _is_tiff(path):
        with tifffile.TiffFile(path) as file:
            shape, itemsize = tuple(file.series[0].shape), int(file.series[0].dtype.itemsize)
    else:
        properties = iio.improps(path)
        shape, itemsize = tuple(properties.shape), int(properties.dtype.itemsize)
    if len(shape) == 2:
        return (1, *shape), itemsize, None
    colours_last = shape[-1] in (*_COLOURS, 2)
    return (shape[-1], *shape[:-1]) if colours_last else shape, itemsize, None


def note(path: Path) -> str | None:
    """Return the text of the note in a PNG or TIFF."""
    if _is_tiff(path):
        return tiff.note(path)
    text = iio.immeta(path).get(NOTE_KEY)
    return None if text is None else str(text)


def write(labels: NDArray[Any], geometry: Geometry, path: Path, note: LabelNote | None = None) -> None:
    """Write labels (Y, X) without loss."""
    if labels.ndim != 2:
        raise ImageError(
            f"{path.name} is a picture and cannot store a volume or a time series; write .nii.gz, .nrrd or .tif."
        )
    if path.name.lower().endswith((".jpg", ".jpeg")):
        raise ImageError("JPEG changes label values; write labels as .png or .tif.")
    if _is_tiff(path):
        about = {} if note is None else {"metadata": tiff.about("YX", note)}
        tifffile.imwrite(path, labels, compression="zlib", photometric="minisblack", **about)
    elif path.name.lower().endswith(".bmp") and labels.dtype != np.uint8:
        raise ImageError("BMP stores labels up to 254; write them as .png.")
    elif labels.dtype not in (np.uint8, np.uint16):
        raise ImageError(f"PNG stores whole numbers from 0 to 65535, not {labels.dtype}; write a .tif.")
    elif note is not None and path.name.lower().endswith(".png"):
        text = PngInfo()
        text.add_text(NOTE_KEY, note.text())
        iio.imwrite(path, labels, pnginfo=text)
    else:
        iio.imwrite(path, labels)
