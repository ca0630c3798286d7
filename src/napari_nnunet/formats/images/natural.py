"""Two-dimensional pictures: PNG, BMP, JPEG, 2-D TIFF; grey, RGB, RGBA."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import imageio.v3 as iio
import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from napari_nnunet.errors import ImageError
from napari_nnunet.formats.images import tiff
from napari_nnunet.formats.images.header import Header
from napari_nnunet.formats.images.label_note import NOTE_KEY, LabelNote
from napari_nnunet.formats.images.pages.chain import opened
from napari_nnunet.formats.images.pages.series import TURNED, Pages, looked_through, pages_of
from napari_nnunet.formats.images.pixel_sizes import PngFacts, png_facts, sizes_of
from napari_nnunet.formats.room import require_room
from napari_nnunet.schema.geometry import Geometry

_COLOURS = (3, 4)
_GREY = 2  # samples of grey with transparency
_SAMPLES = "YXS"  # values of one pixel side by side, which no stack has
_CHANNELS = (_SAMPLES, "SYX", "CYX")  # axes of a picture with channels; those of the last two may be slices as well
_OPACITY = ((1,), (2,))  # kinds of a further sample in TIFF 6.0: how opaque the others are
_NO_PICTURE = "{name} has {count} dimensions; a picture has 2, plus colour channels."
SEEN_THROUGH = "it is transparent in places; its transparency was left out"


def _is_png(path: Path) -> bool:
    return path.name.lower().endswith(".png")


def _is_tiff(path: Path) -> bool:
    return path.name.lower().endswith((".tif", ".tiff"))


def is_natural(path: Path) -> bool:
    """True if a TIFF holds one picture: two axes, or a third that is colour and not said to be z.

    A damaged file is none; whoever reads it finds the words.
    """
    try:
        with opened(path) as file:
            pages = pages_of(file, path)
    except Exception:  # of many kinds: tifffile trusts what a file says of itself
        return False
    return _is_picture(pages)


def may_be_channels(path: Path) -> bool:
    """Whether the planes of a TIFF with three axes are named channels or colours, and are no pages of a stack."""
    with opened(path) as file:
        return pages_of(file, path).axes in _CHANNELS


def _is_picture(pages: Pages) -> bool:
    shape, axes = pages.shape, pages.axes
    if "Z" in axes or (axes == "QYX" and len(pages.parts) > 1):
        return False
    return len(shape) == 2 or axes == _SAMPLES or (len(shape) == 3 and (shape[-1] in _COLOURS or shape[0] in _COLOURS))


def read_values(path: Path) -> tuple[NDArray[Any], Geometry]:
    """Return what :func:`read` does, with all 16 bits of a PNG that has them: labels are numbers, not shades."""
    return read(path, all_bits=True)


def read(path: Path, *, all_bits: bool = False) -> tuple[NDArray[Any], Geometry]:
    """Return (array (C, Y, X), geometry); the size of a pixel where the file says it.

    Pillow, and nnU-Net with it, keeps 8 of the 16 bits of PNG files with colours; grey ones keep all of theirs.
    """
    if _is_tiff(path):
        with opened(path) as file:
            pages = pages_of(file, path)
            _refuse_stacks(pages, path)
            pages = looked_through(pages, path)
            array, geometry = pages.read(path), _geometry(sizes_of(file, 2), _named(pages))
            axis, grey = _colours_of(pages)
    else:
        with _opened(path, voxels=True) as (image, found):
            plain, remarks = _pixels(image, path)
            deep = found is not None and found.itemsize > 1
            if "transparency" in image.info and _any_clear(image, deep=deep, background=not all_bits):
                remarks = (*remarks, SEEN_THROUGH)
        array = _by_imageio(path) if plain is None else plain
        if found is not None and found.itemsize > array.dtype.itemsize:
            deep = all_bits or found.shape[-1] == _GREY  # which Pillow makes four channels of
            array = _deep(path, found.shape) if deep else array
            remarks = remarks if deep else (*remarks, "its 16 bits per colour were read as 8, as nnU-Net does")
        axis, grey = -1, array.ndim == 3 and array.shape[-1] == _GREY
        geometry = _geometry(found and found.spacing, remarks)
    whole = np.iinfo(array.dtype).max if array.dtype.kind in "iu" else 1
    if grey and array.dtype != bool and (np.take(array, 1, axis) < whole).any():
        geometry = geometry.model_copy(update={"remarks": (*geometry.remarks, SEEN_THROUGH)})
    if array.dtype == bool:
        array = array.astype(np.uint8)
    if array.ndim == 2:
        return array[None], geometry
    if array.ndim != 3:
        raise ImageError(_NO_PICTURE.format(name=path.name, count=array.ndim))
    array = np.moveaxis(array, axis, 0)
    return (array[:1] if grey else array), geometry


def opacity(path: Path) -> NDArray[Any] | None:
    """Return how opaque the pixels (Y, X) of a grey PNG or TIFF are, 0 for clear ones; None of one without that."""
    if not has_opacity(path):
        return None
    if _is_tiff(path):
        with opened(path) as file:
            pages = pages_of(file, path)
            return np.take(pages.read(path), 1, _colours_of(pages)[0])
    with path.open("rb") as file:
        found = png_facts(file, path)
    return (_deep(path, found.shape) if found.itemsize > 1 else np.asarray(iio.imread(path)))[..., -1]


def _by_imageio(path: Path) -> NDArray[Any]:
    with warnings.catch_warnings():  # Pillow says on the console that transparency is left out; a remark says it
        warnings.filterwarnings("ignore", "Palette images with Transparency", UserWarning)
        return np.asarray(iio.imread(path))


_SIZES = slice(16, 24)  # width and height in IHDR, the first chunk of a PNG
_CHANGING = (b"sBIT", b"tRNS")  # ITK shifts values by the first, and makes a channel of transparency of the second


def _deep(path: Path, shape: tuple[int, ...]) -> NDArray[np.uint16]:
    """Return the values (Y, X, C) of a PNG with 16 bits per colour.

    ITK reads colours, but no grey with transparency. That has four bytes per pixel, as colours with transparency have
    at 8 bits, which Pillow reads: the bytes are the same, only the header names them otherwise.
    """
    content = path.read_bytes()
    if shape[-1] != 2:
        plain = _without(content, _CHANGING)
        if plain == content:
            return _by_itk(path)
        with TemporaryDirectory() as folder:
            (copy := Path(folder) / "plain.png").write_bytes(plain)
            return _by_itk(copy)
    named = b"IHDR" + content[_SIZES] + b"\x08\x06" + content[26:29]
    renamed = content[:12] + named + struct.pack(">I", zlib.crc32(named)) + content[33:]
    with Image.open(io.BytesIO(renamed), formats=("PNG",)) as image:
        return np.ascontiguousarray(image).view(">u2").astype(np.uint16)


def _by_itk(path: Path) -> NDArray[np.uint16]:
    itk = import_module("SimpleITK")  # which few pictures need
    return np.asarray(itk.GetArrayFromImage(itk.ReadImage(str(path), imageIO="PNGImageIO")), np.uint16)


def _without(content: bytes, kinds: Collection[bytes]) -> bytes:
    """Return a PNG without chunks of some kinds."""
    kept, at = [content[:8]], 8
    while at < len(content):
        end = at + 12 + int.from_bytes(content[at : at + 4], "big")  # length and kind before, a checksum behind
        if content[at + 4 : at + 8] not in kinds:
            kept.append(content[at:end])
        at = end
    return b"".join(kept)


def has_opacity(path: Path) -> bool:
    """Whether a file is a grey PNG or TIFF with transparency, which nnU-Net does not read; ImageError if it is none."""
    if _is_tiff(path):
        with opened(path) as file:
            return _colours_of(pages_of(file, path))[1]
    if not _is_png(path):
        return False
    with path.open("rb") as file:
        return png_facts(file, path).shape[-1] == 2


_OPAQUE = 255
_ORIENTATION = 274  # EXIF and TIFF 6.0
_PLAIN = ("L", "RGB", "RGBA", "I;16")  # Pillow's names of what pictures usually hold


@contextmanager
def _opened(path: Path, *, voxels: bool) -> Iterator[tuple[Image.Image, PngFacts | None]]:
    """Give a picture before its pixels are read, and what a PNG says of itself; the file is opened once for both."""
    if not _is_png(path):
        with Image.open(path) as image:
            yield image, None
        return
    with path.open("rb") as file:
        found = png_facts(file, path)
        if voxels:
            require_room(path, found.shape, found.itemsize)
        file.seek(0)
        with Image.open(file, formats=("PNG",)) as image:
            yield image, found


def _pixels(image: Image.Image, path: Path) -> tuple[NDArray[Any] | None, tuple[str, ...]]:
    """Return the pixels (Y, X[, C]) of a picture, and what else is in the file or is not as it seems.

    Plain ones are read by Pillow itself, to the same values: imageio looks anew, for every file, for a plugin that few
    people have, which takes longer than the reading of a small picture. Of others, None is returned.
    """
    if (pictures := getattr(image, "n_frames", 1)) > 1:
        raise ImageError(
            f"{path.name} holds {pictures} pictures (an animation). Save each of them as a picture of its own."
        )
    remarks: tuple[str, ...] = ()
    if image.mode == "CMYK":
        remarks = ("its colours are those of print (CMYK) and were read as four channels",)
    # Of a PNG, Pillow would look for it behind the pixels as well.
    way = image.getexif().get(_ORIENTATION, 1) if "exif" in image.info else 1
    if way not in (0, 1):
        remarks = (*remarks, TURNED.format(way=way))
    plain = image.mode in _PLAIN and "transparency" not in image.info
    return (np.array(image) if plain else None), remarks


def _any_clear(image: Image.Image, *, deep: bool, background: bool) -> bool:
    """Whether a picture has pixels of the one value, colour or index that it marks as transparent.

    Parameters
    ----------
    image : Image
        Of which imageio, and nnU-Net with it, keeps the values and leaves out what is marked.
    deep : bool
        Whether the file has 16 bits per value; Pillow keeps the upper 8 of those of colours.
    background : bool
        Whether pixels of value 0 count: those of masks are transparent often, and mean the same.
    """
    marked, clear = image.info["transparency"], set[Any]()
    if isinstance(marked, bytes):
        clear = {index for index, opaque in enumerate(marked) if opaque < _OPAQUE}
    else:
        clear = {min(marked, 1)} if image.mode == "1" else {marked}  # for white, Pillow writes 255
    clear -= set() if background else {0, (0, 0, 0)}
    values = np.asarray(image)
    if values.ndim == 2:
        return bool(np.isin(values, list(clear)).any())
    return any(bool((values == [v >> 8 if deep else v for v in colour]).all(-1).any()) for colour in clear)


def _refuse_stacks(pages: Pages, path: Path) -> None:
    if len(pages.parts) > 1:
        raise ImageError(
            f"{path.name} holds {len(pages.parts)} pages; a picture has one. Save every page as a picture of its own."
        )


def _colours_of(pages: Pages) -> tuple[int, bool]:
    """Return which of three axes holds the colours, and whether these are grey and how opaque it is.

    It is the one that the file names so, and else the last one where it looks like that, as for nnU-Net. Two channels
    that are not said to be that are two.
    """
    shape, axes = pages.shape, pages.axes
    axis = next((axes.index(letter) for letter in "SC" if letter in axes), -1 if shape[-1] in _COLOURS else 0)
    opaque = tuple(pages.parts[0].keyframe.extrasamples) in _OPACITY
    return axis, len(shape) == 3 and shape[axis] == 2 and opaque


def _named(pages: Pages) -> tuple[str, ...]:
    """Return what is odd about the pages of a picture: planes that are not said to be colours."""
    what = {"TYX": "named time points (T)", "QYX": "not named"}.get(pages.axes)
    if what is None:
        return pages.remarks
    return *pages.remarks, f"its {pages.shape[0]} planes are {what}, and were read as the colours of one picture"


def _geometry(found: tuple[tuple[float, ...], str] | None, remarks: tuple[str, ...] = ()) -> Geometry:
    if found is None:
        return Geometry(spacing=(1.0, 1.0), spacing_known=False, remarks=remarks)
    return Geometry(spacing=found[0], spacing_source=found[1], remarks=remarks)


def header(path: Path) -> Header:
    """Return what the file says without its voxels: shape (C, Y, X), bytes per value, geometry."""
    if _is_tiff(path):
        with opened(path) as file:
            pages = pages_of(file, path, voxels=False)
            _refuse_stacks(pages, path)
            shape, itemsize = pages.shape, int(pages.dtype.itemsize)
            geometry = _geometry(sizes_of(file, 2), _named(pages))
            axis, grey = _colours_of(pages)
    else:
        with _opened(path, voxels=False) as (image, found):
            shape, itemsize = (image.height, image.width), 2 if image.mode == "I;16" else 1
            shape = (*shape, len(image.mode)) if image.mode in ("RGB", "RGBA") else shape
            plain = image.mode in _PLAIN and getattr(image, "n_frames", 1) == 1
        if found is not None and found.shape[-1] == _GREY:
            shape, itemsize = found.shape, found.itemsize
        elif not plain:
            properties = iio.improps(path)
            shape, itemsize = tuple(properties.shape), int(properties.dtype.itemsize)
        geometry, axis, grey = _geometry(found and found.spacing), -1, shape[-1] == 2
    if len(shape) == 2:
        return Header((1, *shape), itemsize, geometry)
    if len(shape) != 3:
        raise ImageError(_NO_PICTURE.format(name=path.name, count=len(shape)))
    plane = [size for at, size in enumerate(shape) if at != axis % 3]
    return Header((1 if grey else shape[axis], *plane), itemsize, geometry)


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
        raise ImageError(
            f"PNG stores whole numbers from 0 to 65535, not {labels.max()} of type {labels.dtype}; write a .tif."
        )
    elif note is not None and path.name.lower().endswith(".png"):
        text = PngInfo()
        text.add_text(NOTE_KEY, note.text())
        iio.imwrite(path, labels, pnginfo=text)
    else:
        iio.imwrite(path, labels)
