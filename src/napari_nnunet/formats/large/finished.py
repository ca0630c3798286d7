"""Label images in OME-Zarr that are there already: told at a glance, and opened without reading a voxel."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_nnunet.errors import ImageError
from napari_nnunet.formats.large.journal import NAME
from napari_nnunet.formats.large.label_image import ENDING, MADE_HERE
from napari_nnunet.formats.large.level import Level
from napari_nnunet.formats.large.ome_zarr import open_group, open_level, read_levels
from napari_nnunet.formats.regular import regular

_ATTRIBUTES = ("zarr.json", ".zattrs")  # of version 3 and 2
_MARK = b'"image-label"'
_MOST_BYTES = 64 << 20  # of attributes; a colour for each of a million objects takes as many
_UNFINISHED = f"{ENDING}.unfinished"
_MOST_VALUE = np.iinfo(np.int64).max


@dataclass(frozen=True, eq=False)
class FinishedLabels:
    """A label image on disk.

    Parameters
    ----------
    path : Path
        Its folder.
    arrays : tuple of zarr.Array
        Its levels, finest first; a chunk is read when it is sliced. Masks of true and false are given as 1 and 0.
    level : Level
        The finest: axes, voxel size, place.
    names : dict of int to str
        Names of values, as far as it says them; without background.
    colours : dict of int to tuple of float
        Red, green, blue and opacity from 0 to 1, likewise.
    origin : dict
        Where it comes from, if this program wrote it; empty otherwise.
    """

    path: Path
    arrays: tuple[Any, ...]
    level: Level
    names: dict[int, str]
    colours: dict[int, tuple[float, ...]]
    origin: Mapping[str, Any]


def is_label_image(folder: Path) -> bool:
    """Whether a folder holds a label image of OME-Zarr, by the first of its files: no other is opened."""
    for name in _ATTRIBUTES:
        try:
            path = regular(folder / name)
            if path.stat().st_size <= _MOST_BYTES and _MARK in path.read_bytes():
                return "image-label" in _content(json.loads(path.read_bytes()), name)
        except (OSError, ValueError, RecursionError):
            continue
    return False


def _content(stored: Any, name: str) -> Mapping[str, Any]:
    """Return what OME-Zarr says in a file of attributes."""
    attributes = stored.get("attributes") if name == "zarr.json" and isinstance(stored, dict) else stored
    content = attributes.get("ome", attributes) if isinstance(attributes, dict) else None
    return content if isinstance(content, dict) else {}


def is_unfinished(folder: Path) -> bool:
    """Whether a folder is a result of this program that is not complete."""
    return folder.name.lower().endswith(_UNFINISHED) and (folder / NAME).is_file()


def open_finished(path: Path) -> FinishedLabels:
    """Open a label image; nothing of its voxels is read.

    Raises
    ------
    ImageError
        If it is none, or damaged, or its levels contradict each other.
    """
    group, name = open_group(path), path.name
    levels = read_levels(group, name)
    attributes = group.attrs.asdict()
    arrays = tuple(open_level(group, level, name) for level in levels)
    for array, level in zip(arrays, levels, strict=True):
        if np.dtype(array.dtype).kind not in "biu":
            raise ImageError(
                f"Level {level.path} of {name} holds values of type {array.dtype}; labels are whole numbers. Open it "
                "as an image."
            )
    about = attributes.get("ome", attributes).get("image-label")
    about, origin = about if isinstance(about, dict) else {}, attributes.get(MADE_HERE)
    names = {value: str(entry["name"]) for value, entry in _entries(about, "properties") if entry.get("name")}
    colours = {value: rgba for value, entry in _entries(about, "colors") if (rgba := _colour(entry.get("rgba")))}
    names.pop(0, None)
    arrays = tuple(_Numbers(array) if np.dtype(array.dtype).kind == "b" else array for array in arrays)
    return FinishedLabels(path, arrays, levels[0], names, colours, origin if isinstance(origin, dict) else {})


class _Numbers:
    """A mask of true and false as numbers, which viewers want of labels; read when it is sliced."""

    def __init__(self, array: Any) -> None:
        self._array, self.shape, self.ndim = array, tuple(array.shape), array.ndim
        self.dtype = np.dtype(np.uint8)

    def __getitem__(self, key: Any) -> NDArray[np.uint8]:
        return np.asarray(self._array[key]).astype(np.uint8)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self[...], dtype=dtype)


def _entries(about: Mapping[str, Any], key: str) -> list[tuple[int, Mapping[str, Any]]]:
    """Return what a list of 'image-label' says of label values; entries that are none are passed over."""
    listed = about.get(key)
    entries = [entry for entry in listed if isinstance(entry, dict)] if isinstance(listed, list) else []
    found = [(entry.get("label-value"), entry) for entry in entries]
    return [(value, entry) for value, entry in found if type(value) is int and abs(value) <= _MOST_VALUE]


def _colour(rgba: Any) -> tuple[float, ...] | None:
    """Return a colour from 0 to 1; None for what is none. Versions before 0.5 had fractions in some files."""
    if not isinstance(rgba, list) or len(rgba) != 4:
        return None
    if not all(type(part) in (int, float) and 0 <= part <= 255 for part in rgba):
        return None
    return tuple(part / 255 for part in rgba)
