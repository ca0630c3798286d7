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

UNDECIDED = -1
_AHEAD = 1e-5  # of its value: how far from its threshold a region must be, about 80 times what rounding can change
_AT_ONCE = 2**20  # values that are compared together: a few such arrays fit into the cache


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

    @cached_property
    def is_exact(self) -> bool:
        """Whether every voxel is met exactly."""
        return bool(np.array_equal(self.lower, self.upper))


def winners(plane: Tensor, classes: Callable[[Tensor], Tensor], count: int, *, threshold: float | None) -> Tensor:
    """Return which class is ahead of all others at every point of a plane.

    Parameters
    ----------
    plane : Tensor of float32, shape (K, y, x)
        What ``classes`` turns into classes.
    classes : callable
        From (K, n) to the values (C, n).
    count : int
        C.
    threshold : float, optional
        Where classes are regions: the value from which a voxel belongs to one.

    Returns
    -------
    Tensor of int32, shape (y, x)
        The class, or for regions 1 + the last region that is there (0 for none); -1 where it is not clear.
    """
    flat = plane.flatten(1)
    code = torch.empty(flat.shape[1], dtype=torch.int32)
    step = max(1, _AT_ONCE // count)
    for lo in range(0, len(code), step):
        values = classes(flat[:, lo : lo + step])
        code[lo : lo + step] = ahead(values) if threshold is None else _there(values, threshold)
    return code.view(plane.shape[1:])


def ahead(values: Tensor) -> Tensor:
    """Return the class (n,) with the largest of the values (C, n), -1 where the next one is close.

    The number of the class takes the place of the last binary digits of its value, so that the quickest operation there
    is, a maximum, finds both.
    """
    digits = max(1, (len(values) - 1).bit_length())
    lowest = (1 << digits) - 1
    numbered = values.view(torch.int32) & ~lowest
    numbered |= torch.arange(len(values), dtype=torch.int32)[:, None]
    keys = numbered.view(torch.float32)
    best = keys.amax(0)
    code = best.view(torch.int32) & lowest
    keys.scatter_(0, code[None].long(), -torch.inf)
    second = keys.amax(0)
    # Twice what the lost digits can change in either, and far more than rounding can.
    clear = best - second > 2.0 ** (digits - 21) * torch.maximum(best.abs(), second.abs())
    return code.masked_fill_(~clear, UNDECIDED)


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
        See :func:`winners`.
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


class Samples:
    """Interpolates single voxels of the image.

    Parameters
    ----------
    where : Tensor of bool, shape (z, y, x)
        The voxels.
    axes : sequence of Corners
        One per axis.
    shape : tuple of int
        Of the network grid.
    order : sequence of int
        The axes in the order in which they are interpolated.
    """

    def __init__(self, where: Tensor, axes: Sequence[Corners], shape: Sequence[int], order: Sequence[int]) -> None:
        positions = torch.nonzero(where, as_tuple=True)
        strides = (shape[1] * shape[2], shape[2], 1)
        self._indices = [torch.zeros(len(positions[0]), dtype=torch.int32)]
        self._weights: list[tuple[Tensor, Tensor]] = []
        # The axis that is interpolated first is the last one to double the corners.
        for axis in reversed(order):
            corners, own, stride = axes[axis], positions[axis], strides[axis]
            sides = [corners.lower] if corners.is_exact else [corners.lower, corners.upper]
            offsets = [torch.from_numpy((side * stride).astype(np.int32))[own] for side in sides]
            self._indices = [index + offset for index in self._indices for offset in offsets]
            if not corners.is_exact:
                pair = ((1 - corners.weight).astype(np.float32), corners.weight.astype(np.float32))
                self._weights.insert(0, (torch.from_numpy(pair[0])[own], torch.from_numpy(pair[1])[own]))

    def __call__(self, channel: Tensor) -> Tensor:
        """Return the values (n,) of a channel (z, y, x) at the voxels."""
        flat = channel.reshape(-1)
        values = [flat.index_select(0, index) for index in self._indices]
        for below, above in self._weights:
            values = [
                low.mul_(below).addcmul_(high, above) for low, high in zip(values[::2], values[1::2], strict=True)
            ]
        return values[0]
