"""Holes of a mask that is never in memory as a whole: background that no path of face neighbours leads out of."""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, sparse
from scipy.sparse.csgraph import connected_components


class HoleSearch:
    """Finds the holes of a mask that comes slab by slab; then tells, slab by slab, what is mask or hole.

    Equal to :func:`~napari_nnunet.engine.image.prepare.fill_holes` of the whole mask. Parts of the background are
    numbered within each slab, and those that touch across a border of slabs are joined.
    """

    def __init__(self) -> None:
        self._first = [1]  # number of each slab's first part; 0 is what lies outside of the image
        self._joined: list[NDArray[np.int64]] = []
        self._last: NDArray[np.int64] | None = None
        self._outside: NDArray[np.bool_] | None = None

    def add(self, mask: NDArray[np.bool_]) -> None:
        """Take the next slab (z, y, x), all of its planes whole."""
        numbers, count = _parts(mask, self._first[-1])
        self._first.append(self._first[-1] + count)
        below = numbers[:1] if self._last is None else self._last[None]
        if self._last is None:
            self._border(below)
        elif count:
            self._join(below[0], numbers[0])
        for axis, end in itertools.product((1, 2), (0, -1)):
            self._border(np.take(numbers, end, axis=axis))
        self._last = numbers[-1]

    def finish(self) -> None:
        """Decide which parts are holes, when all slabs were shown."""
        if self._last is not None:
            self._border(self._last)
        count = self._first[-1]
        pairs = np.concatenate(self._joined, axis=1) if self._joined else np.empty((2, 0), dtype=np.int64)
        graph = sparse.coo_array((np.ones(pairs.shape[1], dtype=np.int8), (pairs[0], pairs[1])), shape=(count, count))
        _, groups = connected_components(graph, directed=False)
        self._outside = groups == groups[0]
        self._outside[0] = False  # which the mask has as its number from here on
        self._joined = []

    def has_background(self, slab: int) -> bool:
        """Whether a slab, by its number, has any; where it has none, its mask need not be looked at again."""
        return self._first[slab + 1] > self._first[slab]

    def inside(self, slab: int, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return what of a slab, by its number, is mask or hole; the mask must be the one that was shown."""
        if self._outside is None:
            raise ValueError("finish() comes first")
        numbers, _ = _parts(mask, self._first[slab])
        inside: NDArray[np.bool_] = ~self._outside[numbers]
        return inside

    def _border(self, numbers: NDArray[np.int64]) -> None:
        found = np.unique(numbers)
        found = found[found > 0]
        self._joined.append(np.stack((np.zeros_like(found), found)))

    def _join(self, below: NDArray[np.int64], above: NDArray[np.int64]) -> None:
        both = (below > 0) & (above > 0)
        self._joined.append(np.unique(np.stack((below[both], above[both])), axis=1))


def _parts(mask: NDArray[np.bool_], first: int) -> tuple[NDArray[np.int64], int]:
    """Return the number of the part of the background that each voxel belongs to, 0 for the mask; and how many."""
    if mask.all():
        return np.zeros(mask.shape, dtype=np.int64), 0
    numbers, count = ndimage.label(~mask)
    return np.where(numbers > 0, numbers.astype(np.int64) + (first - 1), 0), int(count)
