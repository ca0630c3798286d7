"""How the voxels of a mask's values lie: in one piece each, or in specks; and pieces of colours with numbers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_nnunet.formats.masks.facts import Pieces
from napari_nnunet.formats.masks.stored import StoredMask, on_palette

_SAMPLED = 48  # values of a file that are looked at


def pieces_of(mask: StoredMask) -> Pieces:
    """Look at how the voxels of some values of a mask lie: evenly chosen among its values but 0."""
    array = mask.array if mask.array.dtype.kind in "iub" else np.rint(mask.array).astype(np.int64)
    values, numbers = np.unique(array, return_inverse=True)
    labels = numbers.reshape(array.shape).astype(np.int32) + 1
    if values[0] == 0 or (values == 0).any():
        labels[array == 0] = 0
    boxes = ndimage.find_objects(labels)
    there = [i + 1 for i, box in enumerate(boxes) if box is not None]
    if not there:
        return Pieces(0.0, 0.0)
    chosen = [there[i] for i in sorted({int(i) for i in np.linspace(0, len(there) - 1, _SAMPLED)})]
    near = np.ones((3,) * array.ndim, dtype=bool)
    single = touching = 0
    means = []  # voxels of a piece, of each value
    for number in chosen:
        box = tuple(slice(max(0, s.start - 1), s.stop + 1) for s in boxes[number - 1])
        part = labels[box]
        own = part == number
        parts, found = ndimage.label(own, structure=near)
        sizes = np.bincount(parts.ravel())[1:]
        single += int(sizes.max() >= 0.9 * sizes.sum())
        means.append(float(sizes.sum()) / found)
        around = ndimage.binary_dilation(own, structure=near) & ~own
        touching += int(((part != 0) & around).any())
    return Pieces(single / len(chosen), float(np.median(means)), touching / len(chosen))


def drawn_apart(mask: StoredMask) -> NDArray[np.int32]:
    """Return numbers, from 1 on, for the connected pieces of each colour but black; shape ([Z,] Y, X)."""
    colours = on_palette(mask.array, mask.palette) if mask.palette and not mask.colours else mask.array  # or grey
    values, places = np.unique(colours, return_inverse=True)
    ranks = places.reshape(colours.shape).astype(np.int32) + 1
    near, objects, last = np.ones((3,) * colours.ndim, dtype=bool), np.zeros(colours.shape, np.int32), 0
    for number, (value, box) in enumerate(zip(values, ndimage.find_objects(ranks), strict=True), start=1):
        if value != 0 and box is not None:
            parts, found = ndimage.label(ranks[box] == number, structure=near)
            objects[box] += np.where(parts > 0, parts + last, 0).astype(np.int32)
            last += found
    return objects
