"""A mask file as people have it: numbers of any type, a palette, grey kept as colours, or drawn in colours."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from napari_nnunet.errors import ImageError, memory_told, some
from napari_nnunet.formats.dicom import series as dicom
from napari_nnunet.formats.dicom.segmentation import overlap_of
from napari_nnunet.formats.dicom.structures import read_segments, segments_in
from napari_nnunet.formats.dicom.syntax import Syntax, syntax_of
from napari_nnunet.formats.images import natural
from napari_nnunet.formats.images.files import adapter_for, ending_of, read_stored
from napari_nnunet.formats.images.header import opened_once
from napari_nnunet.schema.geometry import Geometry

_JPEG = (".jpg", ".jpeg")
CLEAR = "its transparent pixels count as 0, whatever value they hide"


@dataclass(frozen=True, eq=False)
class StoredMask:
    """The voxels of a mask as they are stored; nothing is rounded.

    Parameters
    ----------
    array : ndarray, shape ([Z,] Y, X)
        Numbers; indices where there is a palette; 0xRRGGBB where the file is drawn in colours.
    geometry : Geometry
        Of its grid.
    colours : bool
        Whether the numbers are colours.
    palette : tuple of int
        The colour of each index, 0xRRGGBB; empty where the file has none.
    lossy : bool
        Whether the file is a JPEG, which changes values.
    plain : bool
        Whether nnU-Net reads the file as labels: one channel, no palette, no transparency.
    classes : tuple of str
        Names, where the mask was joined of one file per class.
    names : dict of int to str
        Classes by their values, where the file itself names them, as DICOM-SEG does.
    """

    array: NDArray[Any]
    geometry: Geometry
    colours: bool = False
    palette: tuple[int, ...] = ()
    lossy: bool = False
    plain: bool = True
    classes: tuple[str, ...] = ()
    names: Mapping[int, str] = field(default_factory=dict)


def inside_of(mask: StoredMask, name: str) -> NDArray[np.bool_]:
    """Return where a mask of a single class is set, shape ([Z,] Y, X).

    Raises
    ------
    ImageError
        If it has more than 0 and one other value.
    """
    values = np.unique(mask.array)
    if np.count_nonzero(values) > 1 or not np.isfinite(values).all():
        listed = some([f"{value:g}" for value in values], 6)
        raise ImageError(f"{name} has the values {listed}; a file for one class has 0 and one other value.")
    return np.asarray(mask.array != 0)


def joined_classes(
    parts: Iterable[tuple[int, NDArray[np.bool_]]], shape: tuple[int, ...], classes: int
) -> NDArray[np.int64]:
    """Return one array for files of single classes, nothing lost where they overlap.

    Parameters
    ----------
    parts : iterable of (int, ndarray of bool)
        Number of a class, from 1 on, and where it is.
    shape : tuple of int
        ``([Z,] Y, X)``.
    classes : int
        How many there are.

    Returns
    -------
    ndarray of int64
        The number where there is one class; where there are several, their numbers as digits to the base
        ``classes + 1`` (see :func:`numbers_of`).

    Raises
    ------
    ImageError
        If more classes overlap than 64 bits hold.
    """
    array, base = np.zeros(shape, np.int64), classes + 1
    for number, inside in parts:
        before = array[inside]
        if before.size and int(before.max()) > (np.iinfo(np.int64).max - number) // base:
            raise ImageError(f"More classes overlap in one voxel than can be distinguished; {classes} have files.")
        array[inside] = before * base + number
    return array


def numbers_of(value: int, classes: int) -> tuple[int, ...]:
    """Return the numbers of the classes that a value of :func:`joined_classes` stands for."""
    found = []
    while value:
        value, number = divmod(value, classes + 1)
        found.append(number)
    return tuple(reversed(found))


@opened_once
def read_mask(path: Path, images: Sequence[Path] = ()) -> StoredMask:
    """Read a mask file, or a folder with the slices of a DICOM series, a DICOM-SEG, or radiotherapy structures.

    Colours that are all grey are one number; a colour that is wholly transparent is black.

    Parameters
    ----------
    path : Path
        File or folder.
    images : sequence of Path
        Its image, for structures, which lie on the voxels of the series in which they were drawn.

    Raises
    ------
    ImageError
        If it cannot be read, or has channels that are no colours.
    """
    if path.is_dir():
        return _read_folder(path, images)
    syntax = syntax_of(path)
    if syntax is not None:
        return _read_dicom(path, syntax, images)
    ending = ending_of(path)
    array, geometry = read_stored(path, adapter_for(path).name)
    if ending in (".png", ".bmp") and (found := _palette(path)) is not None:
        return StoredMask(found[0], geometry, palette=found[1], plain=False)
    lossy = ending in _JPEG
    if len(array) == 1:
        return _grey(array[0], geometry, path, lossy=lossy)
    if len(array) not in (3, 4):
        raise ImageError(f"{path.name} has {len(array)} channels; a mask has one, or is drawn in colours.")
    red, green, blue = array[:3]
    clear = array[3] == 0 if len(array) == 4 else None
    if np.array_equal(red, green) and np.array_equal(red, blue):
        return StoredMask(red if clear is None else np.where(clear, 0, red), geometry, lossy=lossy, plain=False)
    if array.dtype == np.uint16:
        array = _of_8_bits(array[:3])
        red, green, blue = array
    if array.dtype.kind not in "iu" or array[:3].max() > 255 or array[:3].min() < 0:
        raise ImageError(f"{path.name} is drawn in colours of type {array.dtype}; save it with 8 bits per colour.")
    packed = (red.astype(np.int32) << 16) | (green.astype(np.int32) << 8) | blue.astype(np.int32)
    drawn = packed if clear is None else np.where(clear, 0, packed)
    return StoredMask(drawn, geometry, colours=True, lossy=lossy, plain=False)


def _of_8_bits(colours: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """Return colours in 8 bits where 16 hold them without loss (0xABAB or 0xAB00 for 0xAB), others as they are."""
    for step in (257, 256):
        if not (colours % step).any():
            return colours // step
    return colours


def _grey(array: NDArray[Any], geometry: Geometry, path: Path, *, lossy: bool) -> StoredMask:
    """Return a mask of one channel; where a picture is wholly transparent it is 0, as coloured ones are."""
    opaque = natural.opacity(path)
    if opaque is None:
        return StoredMask(array, geometry, lossy=lossy, plain=not lossy)
    drawn = np.where(opaque == 0, 0, array)
    if set(np.unique(opaque)) <= {0, np.iinfo(opaque.dtype).max}:
        remarks = tuple(text for text in geometry.remarks if text != natural.SEEN_THROUGH)
        told = () if np.array_equal(drawn, array) else (CLEAR,)
        geometry = geometry.model_copy(update={"remarks": (*remarks, *told)})
    return StoredMask(drawn, geometry, plain=False)


def _read_folder(path: Path, images: Sequence[Path]) -> StoredMask:
    """Read a series of DICOM slices, or the one file with segments of a folder without a series."""
    if not dicom.is_series(path):
        raise ImageError(
            f"{path} is a folder of files; a mask is one file with a value for each class, or one file per class, "
            "named like CASE/CLASS, CLASS/CASE or CASE_CLASS."
        )
    found = segments_in(path) if not dicom.series_in(path) else ()
    if len(found) > 1:
        raise ImageError(
            f"{path} holds {len(found)} files with segments ({some([file.name for file in found], 6)}). Keep one "
            "of them there."
        )
    if found:
        return read_mask(found[0], images)
    array, geometry = dicom.read_series(path)
    return StoredMask(array[0], geometry, plain=False)


def _read_dicom(path: Path, syntax: Syntax, images: Sequence[Path]) -> StoredMask:
    """Read a DICOM-SEG or structures, segments by their numbers, or another DICOM file."""
    if not syntax.holds_segments:
        array, geometry = dicom.read_series(path)
        return StoredMask(array[0], geometry, plain=False)
    found = read_segments(path, images)
    if found.labels is None:
        raise ImageError(
            f"{overlap_of(path, found)} Export those you want as files of their own; opened in napari, each is a layer."
        )
    names = {number: " ".join(name.split()) or f"segment_{number}" for number, name in found.names.items()}
    return StoredMask(found.labels, found.geometry, plain=False, names=names)


def _palette(path: Path) -> tuple[NDArray[Any], tuple[int, ...]] | None:
    """Return indices and colours of a picture with a palette, None for other pictures."""
    try:
        with memory_told(), Image.open(path) as picture:
            if picture.mode != "P" or picture.palette is None:
                return None
            parts = iter(picture.getpalette("RGB") or ())
            colours = tuple((r << 16) | (g << 8) | b for r, g, b in zip(parts, parts, parts, strict=True))
            return np.asarray(picture), colours
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError):
        return None  # whoever reads it as a picture finds the words


def on_palette(indices: NDArray[Any], palette: tuple[int, ...]) -> NDArray[np.int32]:
    """Return the colours 0xRRGGBB of indices; an index without a colour is black."""
    table = np.zeros(max(256, len(palette)), dtype=np.int32)
    table[: len(palette)] = palette
    return table[indices]
