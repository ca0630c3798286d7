"""Touching objects whose cores the network left in one part: cut where the part has a neck.

A part that fills the ellipse of its own second moments is one object and left alone. In any other, every voxel gets a
height: its distance from the part's edge times the squared probability of core, slightly smoothed. Maxima that stand
out from the pass between them (h-maxima, Soille 1999) are middles of objects, and a watershed (Vincent and Soille 1991)
divides the part among them. How much they stand out is a length, or a share of their own height: h-maxima of the
height's logarithm, which finds the same necks in objects of all sizes. Each part is looked at as a whole, so that
nothing depends on how a picture is cut into slabs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import skimage  # its parts are loaded when they are used: a prediction of classes needs none
from numpy.typing import NDArray
from scipy import ndimage

_FULL = 0.95  # of its ellipse; two discs that touch fill 0.89 of theirs
_LARGEST = 1 << 24  # voxels of the box of a part that is cut
_SMOOTH = 0.7  # network edges
_MIDDLE = 1.0  # network edges; what is lower is no middle when shares count, of which a ragged edge has any
_FLAT = 1e-3  # a height whose logarithm is taken for that of 0


@dataclass(frozen=True)
class Cut:
    """Where parts are cut.

    Parameters
    ----------
    height : float
        How much a middle stands out from the pass to a higher one, in network edges or as a share of itself.
    smallest : int
        Voxels below which a piece is not cut off.
    voxel : sequence of float
        Edges of a voxel as multiples of the network's finest edge.
    relative : bool
        Whether the height is a share, between 0 and 1.
    """

    height: float
    smallest: int
    voxel: Sequence[float]
    relative: bool = False

    def middles(self, height: NDArray[np.float32], inside: NDArray[np.bool_]) -> tuple[NDArray[np.int32], int]:
        """Return the maxima that stand out, numbered from 1 on, and their number."""
        least, surface, lowest = self.height, height, 0.0
        if self.relative:
            lowest = _MIDDLE
            least, surface = -math.log1p(-self.height), np.log(np.maximum(height, np.float32(_FLAT)))
        # not skimage's h_maxima, which keeps two middles of exactly one height however shallow the pass between them is
        morphology = skimage.morphology  # type: ignore[attr-defined]
        lowered = morphology.reconstruction(surface - np.float32(least), surface)
        # plateaus as these two see them, by faces, edges and corners: by faces alone a thin bent one is many
        found, count = ndimage.label(morphology.local_maxima(lowered) & inside, np.ones((3,) * height.ndim))
        kept = np.zeros(count + 1, dtype=np.int32)
        high = np.unique(found[height > lowest])
        high = high[high != 0]
        kept[high] = np.arange(1, len(high) + 1)
        return kept[found], len(high)


def cut_seeds(
    parts: NDArray[np.uint32],
    core: Callable[[tuple[slice, ...]], NDArray[np.float32]],
    slabs: Sequence[tuple[int, int]],
    numbers: NDArray[np.uint32],
    cut: Cut,
) -> NDArray[np.uint32]:
    """Cut seeds that look like several objects.

    Parameters
    ----------
    parts : ndarray of uint32, shape ([Z,] Y, X)
        Numbers of parts; those that are cut off are written as further ones.
    core : callable
        Takes a window; returns the probability of core there.
    slabs : sequence of (int, int)
        First plane and the one after the last of what is looked at together.
    numbers : ndarray of uint32, shape (parts + 1,)
        The seed that each part belongs to; 0 for none.
    cut : Cut
        Where.

    Returns
    -------
    ndarray of uint32, shape (parts + cut off + 1,)
        The same with what was cut off, which are seeds of their own.
    """
    suspects = _suspects(parts, slabs, numbers, cut.smallest)
    free = int(numbers.max(initial=0)) + 1
    more = 0
    for seed, box in _boxes(parts, slabs, numbers, suspects):
        here = parts[box]
        mask = (here < len(numbers)) & (np.take(numbers, here, mode="clip") == seed)  # not what was cut off before
        pieces = _pieces(mask, core(box), cut)
        for piece in range(2, int(pieces.max(initial=0)) + 1):
            parts[box][pieces == piece] = len(numbers) + more
            more += 1
    return np.concatenate([numbers, np.arange(free, free + more, dtype=np.uint32)])


def _suspects(
    parts: NDArray[np.uint32], slabs: Sequence[tuple[int, int]], numbers: NDArray[np.uint32], smallest: int
) -> NDArray[np.bool_]:
    """Return which seeds do not fill the ellipse (ellipsoid) of the same second moments."""
    count, axes = int(numbers.max(initial=0)) + 1, parts.ndim
    pairs = [(i, j) for i in range(axes) for j in range(i, axes)]
    sizes = np.zeros(count)
    sums, squares = np.zeros((axes, count)), np.zeros((len(pairs), count))
    for _, places, seeds in _members(parts, slabs, numbers):
        sizes += np.bincount(seeds, minlength=count)
        for axis, place in enumerate(places):
            sums[axis] += np.bincount(seeds, place, minlength=count)
        for k, (i, j) in enumerate(pairs):
            squares[k] += np.bincount(seeds, places[i] * places[j], minlength=count)
    large = np.flatnonzero(sizes >= 2 * smallest)
    means = sums[:, large] / sizes[large]
    spread = np.empty((len(large), axes, axes))
    for k, (i, j) in enumerate(pairs):
        # a voxel is no point: it has a second moment of its own
        own = squares[k, large] / sizes[large] - means[i] * means[j] + (i == j) / 12
        spread[:, i, j] = spread[:, j, i] = own
    ball = math.pi ** (axes / 2) / math.gamma(axes / 2 + 1)
    ellipses = ball * np.sqrt(np.maximum(np.linalg.det((axes + 2) * spread), 0))
    found = np.zeros(count, dtype=bool)
    found[large] = sizes[large] < _FULL * ellipses
    found[0] = False
    return found


def _members(
    parts: NDArray[np.uint32], slabs: Sequence[tuple[int, int]], numbers: NDArray[np.uint32]
) -> Iterator[tuple[int, list[NDArray[np.float64]], NDArray[np.uint32]]]:
    """Yield the first plane of each slab, the places of voxels of seeds in the picture, and their seeds."""
    for start, stop in slabs:
        seeds = numbers[parts[start:stop]]
        inside = np.nonzero(seeds)
        places = [place.astype(np.float64) for place in inside]
        places[0] += start
        yield start, places, seeds[inside]


def _boxes(
    parts: NDArray[np.uint32],
    slabs: Sequence[tuple[int, int]],
    numbers: NDArray[np.uint32],
    suspects: NDArray[np.bool_],
) -> list[tuple[int, tuple[slice, ...]]]:
    """Return the suspected seeds with their boxes, ascending; without those whose box is too large."""
    shown = np.flatnonzero(suspects)
    order = np.zeros(len(suspects), dtype=np.int32)
    order[shown] = np.arange(1, len(shown) + 1)
    table = order[numbers]
    low = np.full((len(shown), parts.ndim), np.iinfo(np.int64).max)
    high = np.zeros((len(shown), parts.ndim), dtype=np.int64)
    for start, stop in slabs:
        for place, box in enumerate(ndimage.find_objects(table[parts[start:stop]])):
            if box is not None:
                first = np.array([side.start for side in box])
                last = np.array([side.stop for side in box])
                first[0] += start
                last[0] += start
                np.minimum(low[place], first, out=low[place])
                np.maximum(high[place], last, out=high[place])
    boxes = [tuple(slice(int(a), int(b)) for a, b in zip(*sides, strict=True)) for sides in zip(low, high, strict=True)]
    small = np.prod(np.maximum(high - low, 0).astype(np.float64), axis=1) <= _LARGEST
    return [(int(shown[i]), boxes[i]) for i in np.flatnonzero(small)]


def _pieces(mask: NDArray[np.bool_], core: NDArray[np.float32], cut: Cut) -> NDArray[Any]:
    """Return a part in pieces from 1 on; one piece where it has no neck."""
    inside = np.pad(mask, 1)
    distance = np.asarray(ndimage.distance_transform_edt(inside, sampling=tuple(cut.voxel)), dtype=np.float32)
    height = ndimage.gaussian_filter(distance * np.pad(core, 1) ** 2, [_SMOOTH / edge for edge in cut.voxel]) * inside
    middles, count = cut.middles(height, inside)
    if count > 1:
        pieces = skimage.segmentation.watershed(-height, middles, mask=inside)
        small = np.bincount(pieces.reshape(-1), minlength=count + 1) < cut.smallest
        small[0] = False
        if small.any():
            middles = np.where(small[middles], 0, middles)
            pieces = skimage.segmentation.watershed(-height, middles, mask=inside)
        kept = np.unique(pieces)
        pieces = np.searchsorted(kept[kept != 0], pieces, side="right")
    else:
        pieces = inside.astype(np.int32)
    return pieces[(slice(1, -1),) * mask.ndim]
