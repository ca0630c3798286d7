"""Which class wins where, mostly without interpolating anything.

Between grid points, an interpolation gives every class the same weights, none of them negative. So a class that is
ahead of every other class at all corners of a cell is ahead everywhere in it. With trained networks nearly all cells
are decided that way; only voxels in the others are interpolated, class by class.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

UNDECIDED = -1
_AHEAD = 1e-5  # of its value: how far from its threshold a region must be, about 80 times what rounding can change
AT_ONCE = 2**17  # values that are compared together: a few such arrays fit into the cache


@dataclass(frozen=True)
class Corners:
    """What the voxels along an axis of the image are interpolated from.

    Parameters
    ----------
    lower, upper : ndarray of int
        Positions on the network grid, one per voxel; the same where a position is met exactly.
    weight : ndarray of float
        Of the upper one; of the lower one it is the rest to 1.
    """

    lower: NDArray[np.intp]
    upper: NDArray[np.intp]
    weight: NDArray[np.float64]

    def part(self, lo: int, hi: int, first: int) -> Corners:
        """Return the voxels ``lo:hi``, with positions counted from ``first``."""
        return Corners(self.lower[lo:hi] - first, self.upper[lo:hi] - first, self.weight[lo:hi])

    def among(self, positions: NDArray[np.intp]) -> Corners:
        """Return the same with positions counted among those that are there, in order."""
        return Corners(np.searchsorted(positions, self.lower), np.searchsorted(positions, self.upper), self.weight)

    @cached_property
    def is_exact(self) -> bool:
        """Whether every voxel is met exactly."""
        return bool(np.array_equal(self.lower, self.upper))


class ClassComparison:
    """Compares the classes of many points, in memory that is used again and fits into the cache.

    Parameters
    ----------
    classes : int
        C.
    head : tuple of Tensor, optional
        Weights (C, K) and biases (C,) that turn the K features of a point into classes; none where those are given.
    """

    def __init__(self, classes: int, head: tuple[Tensor, Tensor] | None) -> None:
        self.step = max(1, AT_ONCE // classes)
        self._head = head
        self._digits = max(1, (classes - 1).bit_length())
        self._numbers = torch.arange(classes, dtype=torch.int32)[:, None]
        self._keys = torch.empty((classes, self.step), dtype=torch.int32)
        if head is not None:
            self._weights = torch.cat((head[0], head[1][:, None]), dim=1)
            self._features = torch.ones((self._weights.shape[1], self.step))
            self._values = torch.empty((classes, self.step))

    def values(self, points: Tensor) -> Tensor:
        """Return the classes (C, n) of at most ``step`` points (K, n); the next call may overwrite them."""
        if self._head is None:
            return points
        if points.shape[1] < self.step:
            return torch.addmm(self._head[1][:, None], self._head[0], points)
        self._features[:-1].copy_(points)  # a last row of ones: adding biases would be another pass over all classes
        return torch.mm(self._weights, self._features, out=self._values)

    def ahead(self, values: Tensor) -> Tensor:
        """Return the class (n,) with the largest of the values (C, n), -1 where the next one is close.

        The number of the class takes the place of the last binary digits of its value, so that the quickest operation
        there is, a maximum, finds both.
        """
        lowest = (1 << self._digits) - 1
        keys = self._keys[:, : values.shape[1]]
        torch.bitwise_and(values.view(torch.int32), ~lowest, out=keys)
        keys |= self._numbers
        found = keys.view(torch.float32)
        best = found.amax(0)
        code = (best.view(torch.int32) & lowest).clamp_max_(len(values) - 1)  # of what is no number, any digits
        found.scatter_(0, code[None].long(), -torch.inf)
        second = found.amax(0)
        # Twice what the lost digits can change in either, and far more than rounding can; at 0 they are all there is.
        close = 2.0 ** (self._digits - 21) * torch.maximum(best.abs(), second.abs())
        clear = best - second > close.clamp_min_(torch.finfo(torch.float32).tiny)
        return code.masked_fill_(~clear, UNDECIDED)

    def largest(self, values: Tensor) -> Tensor:
        """Return the first class (n,) with the largest of the values (C, n)."""
        code = self.ahead(values)
        close = torch.nonzero(code < 0)[:, 0]
        if len(close):
            code[close] = values[:, close].argmax(0).to(code.dtype)
        return code

    def winners(self, plane: Tensor, threshold: float | None) -> Tensor:
        """Return which class is ahead of all others at every point of a plane.

        Parameters
        ----------
        plane : Tensor of float32, shape (K, y, x)
            Classes, or features.
        threshold : float, optional
            Where classes are regions: the value from which a voxel belongs to one.

        Returns
        -------
        Tensor of int32, shape (y, x)
            The class, or for regions 1 + the last region that is there (0 for none); -1 where it is not clear.
        """
        return self._each(plane, self.ahead if threshold is None else lambda values: _there(values, threshold))

    def best(self, plane: Tensor) -> Tensor:
        """Return the first class with the largest value at every point of a plane (K, y, x)."""
        return self._each(plane, self.largest)

    def _each(self, plane: Tensor, look: Callable[[Tensor], Tensor]) -> Tensor:
        flat = plane.flatten(1)
        code = torch.empty(flat.shape[1], dtype=torch.int32)
        for points, part in zip(flat.split(self.step, dim=1), code.split(self.step), strict=True):
            part.copy_(look(self.values(points)))
        return code.view(plane.shape[1:])


def _there(values: Tensor, threshold: float) -> Tensor:
    code = torch.zeros(values.shape[1:], dtype=torch.int32)
    for r, region in enumerate(values, start=1):
        code.masked_fill_(region > threshold, r)
    clear = (values - threshold).abs() > _AHEAD * values.abs().clamp_min(1.0)
    return code.masked_fill_(~clear.all(0), UNDECIDED)


def decided(code: Tensor, axes: Sequence[Corners]) -> Tensor:
    """Return the winner of every voxel of the image whose corners all have the same; -1 for the others.

    Parameters
    ----------
    code : Tensor of int32, shape (z, y, x)
        See :meth:`ClassComparison.winners`.
    axes : sequence of Corners
        One per axis.
    """
    for axis, corners in enumerate(axes):
        lower = code.index_select(axis, torch.from_numpy(corners.lower))
        if not corners.is_exact:
            upper = code.index_select(axis, torch.from_numpy(corners.upper))
            lower.masked_fill_(lower != upper, UNDECIDED)
        code = lower
    return code


class Points:
    """Interpolates single voxels of an image plane.

    The values of all channels at a point of the network grid are put next to each other first: what a voxel needs are
    then a few short rows, and their weighted sum is an embedding bag.

    Parameters
    ----------
    axes : sequence of Corners
        Of y and x.
    shape : tuple of int
        Of a network plane, (Y, X).
    """

    def __init__(self, axes: Sequence[Corners], shape: Sequence[int]) -> None:
        (rows, of_rows), (columns, of_columns) = (_sides(corners) for corners in axes)
        index = rows[:, None, :, None] * shape[1] + columns[None, :, None, :]
        weight = of_rows[:, None, :, None] * of_columns[None, :, None, :]
        voxels = index.shape[0] * index.shape[1]
        self._index = torch.from_numpy(index.reshape(voxels, -1).astype(np.int32))
        self._weight = torch.from_numpy(weight.reshape(voxels, -1).astype(np.float32))
        self._points = shape[0] * shape[1]
        self._held: dict[int, int] = {}  # which network plane lies in which half of the table
        self._table = torch.empty(0)

    def start(self, channels: int) -> None:
        """Forget the network planes of earlier values."""
        self._held = {}
        if self._table.shape[-1] != channels:
            self._table = torch.empty((2 * self._points, channels))

    def __call__(self, voxels: Tensor, planes: Tensor, lower: int, upper: int, weight: float) -> Tensor:
        """Return the values (n, K) of voxels between two network planes.

        Parameters
        ----------
        voxels : Tensor of int64, shape (n,)
            Positions in the image plane, row by row.
        planes : Tensor, shape (K, z, Y, X)
            Network planes.
        lower, upper : int
            Which of them; the same where one is met exactly.
        weight : float
            Of the upper one.
        """
        index, share = self._index.index_select(0, voxels), self._weight.index_select(0, voxels)
        sides = [(lower, 1.0)] if lower == upper else [(lower, 1.0 - weight), (upper, weight)]
        indices = torch.cat([index + self._half(planes, z) * self._points for z, _ in sides], dim=1)
        shares = torch.cat([share * part for _, part in sides], dim=1)
        return functional.embedding_bag(indices, self._table, per_sample_weights=shares, mode="sum")

    def _half(self, planes: Tensor, z: int) -> int:
        """Return which half of the table holds a network plane; two that follow one another find room."""
        if self._held.get(z % 2) != z:
            self._table[(z % 2) * self._points : (z % 2 + 1) * self._points] = planes[:, z].flatten(1).t()
            self._held[z % 2] = z
        return z % 2


def _sides(corners: Corners) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Return positions and weights (n, 1 or 2) of what the voxels along an axis are interpolated from."""
    if corners.is_exact:
        return corners.lower[:, None], np.ones((len(corners.lower), 1))
    return (
        np.stack([corners.lower, corners.upper], axis=1),
        np.stack([1 - corners.weight, corners.weight], axis=1),
    )
