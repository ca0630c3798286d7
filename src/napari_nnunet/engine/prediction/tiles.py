"""Sliding-window tiles, their Gaussian weights, and sums that are given away once complete.

Neighbouring tiles overlap by half a patch by default; the Gaussian's sigma is an eighth of the patch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

SIGMA = 1 / 8  # of the tile edge; nnU-Net's value
PEAK = 10.0  # maximum of the importance map; nnU-Net's value, chosen there for float16


@dataclass(frozen=True)
class Tile:
    """A window in the padded network grid.

    Parameters
    ----------
    start : tuple of int
        First voxel (z, y, x).
    size : tuple of int
        Extent; 1 along z for a slice-wise network.
    """

    start: tuple[int, int, int]
    size: tuple[int, int, int]

    def slices(self) -> tuple[slice, slice, slice]:
        """Slices of the window."""
        z, y, x = (slice(s, s + n) for s, n in zip(self.start, self.size, strict=True))
        return z, y, x


def starts(size: int, tile: int, step: float) -> list[int]:
    """Return where tiles begin along one axis: evenly spread, never further apart than ``step * tile``.

    Raises
    ------
    ValueError
        If the image is smaller than the tile (pad it first).
    """
    if size < tile:
        raise ValueError(f"an axis of {size} voxels is smaller than the tile of {tile}; pad it first")
    count = math.ceil((size - tile) / (tile * step)) + 1
    distance = (size - tile) / (count - 1) if count > 1 else 0.0
    return [round(distance * i) for i in range(count)]


@dataclass(frozen=True)
class TileGrid:
    """All windows over a grid, and the padding that makes the grid as large as a window.

    Parameters
    ----------
    shape : tuple of int
        Network grid (z, y, x).
    patch : tuple of int
        Window, always three entries.
    step : float
        Largest distance as a fraction of the window.
    """

    shape: tuple[int, int, int]
    patch: tuple[int, int, int]
    step: float

    @property
    def padding(self) -> tuple[tuple[int, int], ...]:
        """Voxels to add before and after each axis; the odd one goes after."""
        return tuple(
            (max(p - n, 0) // 2, max(p - n, 0) - max(p - n, 0) // 2)
            for n, p in zip(self.shape, self.patch, strict=True)
        )

    @property
    def padded_shape(self) -> tuple[int, int, int]:
        """Shape after padding."""
        z, y, x = (max(n, p) for n, p in zip(self.shape, self.patch, strict=True))
        return z, y, x

    def axis_starts(self) -> tuple[list[int], list[int], list[int]]:
        """Start positions along each axis."""
        z, y, x = (starts(n, p, self.step) for n, p in zip(self.padded_shape, self.patch, strict=True))
        return z, y, x

    @property
    def count(self) -> int:
        """Number of windows."""
        return math.prod(len(s) for s in self.axis_starts())

    def tiles(self, focus: Sequence[float | None] = (None, None, None)) -> Iterator[Tile]:
        """Yield all windows, row by row along the first axis.

        Parameters
        ----------
        focus : sequence of float or None
            Position (z, y, x) in the unpadded grid to begin with; None means that the axis does not matter. The rows
            then run from the focus to the end and from the beginning to the focus, so that few sums are open at any
            time, and each row begins at the window closest to the focus.
        """
        z, y, x = self.axis_starts()
        centre = [None if f is None else f + before for f, (before, _) in zip(focus, self.padding, strict=True)]
        first = _closest(z, self.patch[0], centre[0])
        windows = [(b, c) for b in y for c in x]
        windows.sort(key=lambda w: _distance(w, self.patch[1:], centre[1:]))
        for a in z[first:] + z[:first]:
            for b, c in windows:
                yield Tile((a, b, c), self.patch)

    def part(self, box: Sequence[tuple[int, int]]) -> GridPart:
        """Return the windows that touch a half-open box (z, y, x) of the unpadded grid, at the places they have here.

        Their sums are those of all windows wherever the box is.
        """
        found = []
        for starting, size, (before, _), (lo, hi) in zip(
            self.axis_starts(), self.patch, self.padding, box, strict=True
        ):
            near = [begin - before for begin in starting if lo < begin - before + size and begin - before < hi]
            found.append((near[0], [begin - near[0] for begin in near], (lo - near[0], near[-1] + size - hi)))
        z, y, x = (first for first, _, _ in found)
        nz, ny, nx = (hi - lo for lo, hi in box)
        begins, around = tuple(each for _, each, _ in found), tuple(ends for _, _, ends in found)
        return GridPart((nz, ny, nx), self.patch, self.step, (z, y, x), begins, around)


@dataclass(frozen=True)
class GridPart(TileGrid):
    """The windows that touch a box of a larger grid; ``shape`` is the box's.

    Parameters
    ----------
    first : tuple of int
        Where the first window begins in the larger, unpadded grid; negative where that is padded.
    begins : tuple of three lists
        Where windows begin along each axis, counted from the first one.
    around : tuple of (int, int)
        How far windows reach beyond the box, before and after each axis.
    """

    first: tuple[int, int, int] = (0, 0, 0)
    begins: tuple[list[int], ...] = ()
    around: tuple[tuple[int, int], ...] = ()

    @property
    def padding(self) -> tuple[tuple[int, int], ...]:
        """Voxels that windows take before and after the box."""
        return self.around

    @property
    def padded_shape(self) -> tuple[int, int, int]:
        """Shape of what the windows cover."""
        z, y, x = (n + before + after for n, (before, after) in zip(self.shape, self.around, strict=True))
        return z, y, x

    def axis_starts(self) -> tuple[list[int], list[int], list[int]]:
        """Start positions along each axis."""
        z, y, x = self.begins
        return z, y, x

    @property
    def covered(self) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
        """The half-open box of the larger, unpadded grid that the windows cover."""
        z, y, x = ((begin, begin + n) for begin, n in zip(self.first, self.padded_shape, strict=True))
        return z, y, x


def _closest(begins: list[int], patch: int, position: float | None) -> int:
    if position is None:
        return 0
    return min(range(len(begins)), key=lambda i: abs(begins[i] + patch / 2 - position))


def _distance(window: tuple[int, int], patch: Sequence[int], centre: Sequence[float | None]) -> float:
    return sum(
        0.0 if c is None else (begin + size / 2 - c) ** 2 for begin, size, c in zip(window, patch, centre, strict=True)
    )


@lru_cache(maxsize=8)
def importance(patch: tuple[int, ...]) -> NDArray[np.float16]:
    """Return the Gaussian weight of every voxel of a window, as nnU-Net rounds it.

    Parameters
    ----------
    patch : tuple of int
        Two or three axes.

    Returns
    -------
    ndarray of float16, shape ``patch``
        Maximum 10; what float16 would round to 0 holds the smallest nonzero value.
    """
    weights = np.ones(())
    for size in patch:
        impulse = np.zeros(size)
        impulse[size // 2] = 1
        line = ndimage.gaussian_filter1d(impulse, size * SIGMA, mode="constant")
        weights = np.multiply.outer(weights, line)
    rounded = (weights / weights.max() * PEAK).astype(np.float16)
    rounded[rounded == 0] = rounded[rounded > 0].min()
    rounded.setflags(write=False)
    return rounded


class Accumulator:
    """Weighted sums of overlapping windows, kept only between their first and their last window.

    The first axis is cut wherever a window begins or ends; every such segment is complete once its last window was
    added, is then divided by its weights, handed out and forgotten. At no time are the sums of the whole grid held.

    Parameters
    ----------
    grid : TileGrid
        The windows that will be added, in any order.
    heads : int
        Channels of a window's logits.
    weights : Tensor, shape (z, y, x)
        Importance of a window's voxels, float32, on the device of the sums.
    """

    def __init__(self, grid: TileGrid, heads: int, weights: Any) -> None:
        self._grid = grid
        self._heads = heads
        self._weights = weights
        begins, depth = grid.axis_starts()[0], grid.patch[0]
        per_row = grid.count // len(begins)
        cuts = sorted({*begins, *(b + depth for b in begins)})
        self._segments = list(pairwise(cuts))
        self._open = {(lo, hi): per_row * sum(b <= lo and hi <= b + depth for b in begins) for lo, hi in self._segments}
        self._sums: dict[tuple[int, int], Any] = {}

    def add(self, tile: Tile, logits: Any) -> list[tuple[int, int, Any]]:
        """Add the logits (C, z, y, x) of a window; return the segments that are now complete.

        Returns
        -------
        list of (start, stop, Tensor)
            Range along the first axis of the unpadded grid, and the mean logits (C, stop - start, y, x) there.
        """
        z, y, x = tile.start
        depth, height, width = tile.size
        done = []
        for lo, hi in self._segments:
            if hi <= z or lo >= z + depth:
                continue
            sums = self._sums.get((lo, hi))
            if sums is None:
                _, ny, nx = self._grid.padded_shape
                sums = logits.new_zeros((self._heads + 1, hi - lo, ny, nx), dtype=self._weights.dtype)
                self._sums[lo, hi] = sums
            part = slice(lo - z, hi - z)
            weights = self._weights[part]
            window = sums[:, :, y : y + height, x : x + width]
            window[:-1].addcmul_(logits[:, part], weights)
            window[-1] += weights
            self._open[lo, hi] -= 1
            if self._open[lo, hi] == 0:
                done.extend(self._finish(lo, hi))
        return done

    def _finish(self, lo: int, hi: int) -> list[tuple[int, int, Any]]:
        sums = self._sums.pop((lo, hi))
        mean = sums[:-1]
        mean /= sums[-1]
        (pz, _), (py, _), (px, _) = self._grid.padding
        nz, ny, nx = self._grid.shape
        start, stop = max(lo - pz, 0), min(hi - pz, nz)
        if start >= stop:
            return []
        return [(start, stop, mean[:, start + pz - lo : stop + pz - lo, py : py + ny, px : px + nx])]


def peak_planes(grid: TileGrid, *, wrapped: bool) -> int:
    """Return how many planes along the first axis are open at once, at most."""
    depth = grid.patch[0]
    begins = grid.axis_starts()[0]
    planes = min(depth, grid.padded_shape[0])
    if wrapped and len(begins) > 1:
        # The row the walk began with keeps its overlap with the row below open until the end.
        planes += depth - (begins[1] - begins[0])
    return min(planes, grid.padded_shape[0])
