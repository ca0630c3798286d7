"""The way back from the network grid to the image grid, axis by axis, as a whole or for a part of the image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_nnunet.engine.image.axis_operators import (
    AxisOperator,
    apply_operator,
    axis_operator,
    nearest_index,
    neighbours,
    operator_part,
    take,
)
from napari_nnunet.engine.image.prepare import Box3, PrepareRecord
from napari_nnunet.engine.image.resample import separate_axis
from napari_nnunet.engine.prediction.cells import Corners
from napari_nnunet.schema.plans import Resampling


@dataclass(frozen=True, eq=False)
class AxisSampling:
    """How one axis of the image grid is read from the network grid.

    Parameters
    ----------
    size, new_size : int
        Network planes and image planes.
    corners : Corners
        The network planes between which every image plane lies.
    operator : AxisOperator or None
        Interpolates; None where planes are taken as they are.
    index : ndarray of int or None
        The network plane of every image plane, where the nearest is taken.
    """

    size: int
    new_size: int
    corners: Corners
    operator: AxisOperator | None = None
    index: NDArray[np.intp] | None = None

    @property
    def is_identity(self) -> bool:
        """Whether planes are taken as they are."""
        return self.operator is None and self.index is None

    def apply(self, x: Tensor, axis: int) -> Tensor:
        """Sample an axis of a tensor."""
        if self.index is not None:
            return take(x, self.index, axis)
        return apply_operator(x, self.operator, axis)


Samplings = tuple[AxisSampling, AxisSampling, AxisSampling]


class CornerSampling:
    """The same way back for all channels at once, by the two planes on each side: few and large operations, for a GPU.

    What it needs lies on the device: a matrix brought there for every channel and block would make the device wait
    for thousands of copies.

    Parameters
    ----------
    axes : tuple of AxisSampling
        From the network grid to the image grid.
    device : torch.device
        Of the planes.
    """

    def __init__(self, axes: Samplings, device: torch.device) -> None:
        self._axes = axes
        self._corners = [
            (
                torch.from_numpy(corners.lower).to(device),
                torch.from_numpy(corners.upper).to(device),
                torch.from_numpy(corners.weight.astype(np.float32)).to(device),
            )
            for corners in (axis.corners for axis in axes)
        ]

    def __call__(self, planes: Tensor, first: int, lo: int, hi: int) -> Tensor:
        """Return image planes ``lo:hi`` (C, k, Y, X) of the network planes (C, n, y, x) from ``first`` on."""
        found = self._along(planes, 0, slice(lo, hi), first)
        for axis in plane_axes(self._axes):
            if not self._axes[axis].is_identity:
                found = self._along(found, axis, slice(None), 0)
        return found

    def _along(self, x: Tensor, axis: int, part: slice, first: int) -> Tensor:
        lower, upper, weight = (each[part] for each in self._corners[axis])
        below = x.index_select(axis + 1, lower - first)
        if self._axes[axis].corners.is_exact:
            return below
        return below.lerp_(x.index_select(axis + 1, upper - first), weight.view(-1, *(1,) * (2 - axis)))


def plane_axes(axes: Samplings) -> list[int]:
    """Return the axes of a plane as they are interpolated: the smaller it gets first, the less there is to do."""
    return sorted((1, 2), key=lambda axis: axes[axis].new_size / axes[axis].size)


def _sampling(size: int, new_size: int, order: int) -> AxisSampling:
    if size == new_size:
        own = np.arange(size)
        return AxisSampling(size, new_size, Corners(own, own, np.zeros(size)))
    if order == 0:
        index = nearest_index(size, new_size)
        return AxisSampling(size, new_size, Corners(index, index, np.zeros(new_size)), index=index)
    return AxisSampling(size, new_size, _between(size, new_size), operator=axis_operator(size, new_size, order))


def _between(size: int, new_size: int) -> Corners:
    lower, upper, weight = neighbours(size, new_size)
    # A sample exactly on a plane needs no neighbour.
    return Corners(lower, np.where(weight > 0, upper, lower), weight)


def _orders(record: PrepareRecord, rule: Resampling) -> list[int]:
    """Return the order of interpolation of every axis, 0 for the nearest plane.

    Logits are interpolated linearly; where spacings are anisotropic, the coarse axis takes the nearest plane.
    """
    axis = separate_axis(
        record.network_spacing, record.spacing, rule.force_separate_z, rule.separate_z_anisotropy_threshold
    )
    order = 1 if rule.function == "resample_torch_fornnunet" else min(rule.order, 1)
    return [0 if a == axis and rule.order_z == 0 else order for a in range(3)]


def samplings(record: PrepareRecord, rule: Resampling) -> Samplings:
    """Return the way back from the network grid to the cropped image grid, axis by axis."""
    z, y, x = map(_sampling, record.network_shape, record.cropped_shape, _orders(record, rule))
    return z, y, x


def sampling_parts(record: PrepareRecord, rule: Resampling, part: Box3) -> tuple[Samplings, Box3]:
    """Return the way back to a part of the image.

    Parameters
    ----------
    record : PrepareRecord
        The grids of the whole image.
    rule : Resampling
        ``resample_probabilities`` of the plans.
    part : tuple of (int, int)
        Half-open box within the cropped image, in transposed order.

    Returns
    -------
    samplings : tuple of AxisSampling
        From the network planes that the part needs, counted from the first of them.
    needed : tuple of (int, int)
        The half-open box of those in the network grid.
    """
    found = [
        _part(size, new_size, order, *ends)
        for size, new_size, order, ends in zip(
            record.network_shape, record.cropped_shape, _orders(record, rule), part, strict=True
        )
    ]
    (z, along_z), (y, along_y), (x, along_x) = found
    return (z, y, x), (along_z, along_y, along_x)


def _part(size: int, new_size: int, order: int, start: int, stop: int) -> tuple[AxisSampling, tuple[int, int]]:
    count = stop - start
    if size == new_size:
        return _sampling(count, count, order), (start, stop)
    if order == 0:
        index = nearest_index(size, new_size)[start:stop]
        first, last = int(index[0]), int(index[-1]) + 1
        corners = Corners(index - first, index - first, np.zeros(count))
        return AxisSampling(last - first, count, corners, index=index - first), (first, last)
    operator, first, last = operator_part(size, new_size, order, start, stop)
    corners = _between(size, new_size).part(start, stop, first)
    return AxisSampling(last - first, count, corners, operator=operator), (first, last)
