"""Resampling as nnU-Net does it, one axis after the other.

nnU-Net interpolates with a dense three-dimensional spline (64 taps per voxel). A tensor-product spline is separable:
each axis is a small banded matrix, equal to what scipy computes for unit vectors. The matrices are applied in blocks of
rows, so only their band is multiplied. Everything works on numpy arrays and on torch tensors of any device alike.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_nnunet.engine.image.axis_operators import (
    ArrayT,
    apply_operator,
    axis_operator,
    empty_like,
    nearest_index,
    neighbours,
    take,
)
from napari_nnunet.errors import ImageError
from napari_nnunet.schema.plans import ANISOTROPY, Resampling

Ends = tuple[int, int]
_SLAB_VOXELS = 4e6  # held between two operators


def separate_axis(
    current: Sequence[float], new: Sequence[float], force: bool | None, threshold: float = ANISOTROPY
) -> int | None:
    """Return the axis along which slices are not interpolated, or None.

    Parameters
    ----------
    current, new : sequence of float
        Spacings in mm before and after, array order.
    force : bool or None
        ``force_separate_z`` of the plans: True takes the coarsest axis of ``current``, False never separates, None
        decides by the threshold, first on ``current``, then on ``new``.
    threshold : float
        Ratio of the largest to the smallest spacing above which an axis is separated.

    Notes
    -----
    Where two or three axes share the largest spacing, nothing is separated.
    """
    if force is False:
        return None
    if force or max(current) / min(current) > threshold:
        deciding = current
    elif max(new) / min(new) > threshold:
        deciding = new
    else:
        return None
    coarsest = [axis for axis, spacing in enumerate(deciding) if spacing == max(deciding)]
    return coarsest[0] if len(coarsest) == 1 else None


def new_shape(shape: Sequence[int], spacing: Sequence[float], target: Sequence[float]) -> tuple[int, ...]:
    """Return the shape after resampling: ``round(old spacing / new spacing * n)`` per axis, half to even."""
    return tuple(round(old / new * n) for old, new, n in zip(spacing, target, shape, strict=True))


def resample_image(
    image: ArrayT,
    shape: Sequence[int],
    current: Sequence[float],
    new: Sequence[float],
    rule: Resampling,
) -> ArrayT:
    """Resample a float32 image or logits to a new grid.

    Parameters
    ----------
    image : ndarray or Tensor, shape (C, Z, Y, X)
        float32.
    shape : sequence of int
        New spatial shape.
    current, new : sequence of float
        Spacings in mm, (z, y, x); they only decide whether one axis is kept apart.
    rule : Resampling
        Function and orders from the plans.

    Returns
    -------
    ndarray or Tensor, shape (C, *shape)
        Same kind and type as ``image``; the input itself if nothing changes.

    Raises
    ------
    ImageError
        If an axis of the target is empty.
    """
    old = tuple(int(n) for n in image.shape[1:])
    target = tuple(int(n) for n in shape)
    if 0 in target:
        text = f"Resampling {old} voxels to {target} would leave an axis empty"
        raise ImageError(f"{text}; check the voxel size {current}.")
    if rule.function == "no_resampling_hack" or target == old:
        return image
    order = 1 if rule.function == "resample_torch_fornnunet" else rule.order
    clip = rule.function == "resample_data_or_seg_to_shape" and order > 1
    axis = separate_axis(current, new, rule.force_separate_z, rule.separate_z_anisotropy_threshold)
    out = empty_like(image, (int(image.shape[0]), *target))
    for c in range(int(image.shape[0])):
        _resample_channel(image[c], out[c], order, axis, rule.order_z, clip=clip)
    return out


def _resample_channel(channel: Any, out: Any, order: int, axis: int | None, order_z: int, *, clip: bool) -> None:
    """Resample one channel into ``out``.

    The last operators run on slabs of an axis that they leave alone, so that what lies between is small.
    """
    target = tuple(int(n) for n in out.shape)
    reduce_over = None if axis is None else tuple(a for a in range(3) if a != axis)
    bounds = _range(channel, reduce_over) if clip else None
    # Shrinking axes first: less is left for the others.
    axes = sorted(
        (a for a in range(3) if a != axis and target[a] != channel.shape[a]), key=lambda a: target[a] / channel.shape[a]
    )

    def within(piece: Any, limits: Any) -> Any:
        for a in axes:
            piece = apply_operator(piece, axis_operator(int(piece.shape[a]), target[a], order), a)
        return piece if limits is None else piece.clip(*limits)

    if axis is None:
        along = next((a for a in range(3) if a not in axes), None)
        if along is None:
            along = axes.pop(0)
            channel = apply_operator(channel, axis_operator(int(channel.shape[along]), target[along], order), along)
        for slab in _slabs(channel.shape, along):
            out[slab] = within(channel[slab], bounds)
    elif order_z == 0:
        index = nearest_index(int(channel.shape[axis]), target[axis])
        for slab in _slabs(out.shape, axis):
            used, again = np.unique(index[slab[axis]], return_inverse=True)
            limits = None if bounds is None else tuple(take(bound, used, axis) for bound in bounds)
            out[slab] = take(within(take(channel, used, axis), limits), again, axis)
    else:
        whole = within(channel, bounds)
        out[...] = apply_operator(whole, axis_operator(int(channel.shape[axis]), target[axis], order_z), axis)


def _slabs(shape: Sequence[int], axis: int) -> Iterator[tuple[slice, ...]]:
    """Cut a grid along one axis into parts of some millions of voxels."""
    step = max(1, int(_SLAB_VOXELS // max(1, math.prod(shape) // shape[axis])))
    for lo in range(0, int(shape[axis]), step):
        yield tuple(slice(lo, lo + step) if a == axis else slice(None) for a in range(3))


def _range(channel: Any, axes: tuple[int, ...] | None) -> tuple[Any, Any]:
    """Smallest and largest value, over everything or per slice (kept broadcastable)."""
    if axes is None:
        return channel.min(), channel.max()
    if isinstance(channel, np.ndarray):
        return channel.min(axis=axes, keepdims=True), channel.max(axis=axes, keepdims=True)
    return channel.amin(dim=axes, keepdim=True), channel.amax(dim=axes, keepdim=True)


def resample_labels(
    labels: NDArray[Any],
    shape: Sequence[int],
    current: Sequence[float],
    new: Sequence[float],
    rule: Resampling,
) -> NDArray[Any]:
    """Resample a label map: every label's indicator is interpolated, the largest wins.

    Exact ties go to the nearest voxel's label where it is among the winners, else to the smallest label
    (as in batchgenerators >= 0.25.4).

    Parameters
    ----------
    labels : ndarray, shape (Z, Y, X)
        Integers, -1 allowed.
    shape, current, new, rule
        As for :func:`resample_image`.

    Returns
    -------
    ndarray, shape ``shape``
        Same type as ``labels``.
    """
    target = tuple(int(n) for n in shape)
    if 0 in target:
        raise ImageError(f"Resampling {labels.shape} voxels to {target} would leave an axis empty.")
    if rule.function == "no_resampling_hack" or target == labels.shape:
        return labels
    axis = separate_axis(current, new, rule.force_separate_z, rule.separate_z_anisotropy_threshold)
    if labels.size and bool((labels == labels.flat[0]).all()):
        return np.full(target, labels.flat[0], dtype=labels.dtype)
    axes = [_LabelAxis.of(size, n, (0, n)) for size, n in zip(labels.shape, target, strict=True)]
    return _resampled_labels(labels[tuple(slice(*each.source) for each in axes)], axes, axis, rule)


def label_part_source(sizes: Sequence[int], shape: Sequence[int], part: Sequence[Ends]) -> list[Ends]:
    """Return the half-open box of a label map that a part of it takes when it is resampled.

    Parameters
    ----------
    sizes, shape : sequence of int
        Of the whole map before and after.
    part : sequence of (int, int)
        Half-open box of the result.
    """
    return [_LabelAxis.of(*axis).source for axis in zip(sizes, shape, part, strict=True)]


def resample_label_part(
    labels: NDArray[Any],
    sizes: Sequence[int],
    shape: Sequence[int],
    part: Sequence[Ends],
    current: Sequence[float],
    new: Sequence[float],
    rule: Resampling,
) -> NDArray[Any]:
    """Return a part of what :func:`resample_labels` makes of a whole label map.

    Parameters
    ----------
    labels : ndarray, shape (z, y, x)
        The box that :func:`label_part_source` names.
    sizes, shape, part
        As there.
    current, new, rule
        As for :func:`resample_labels`.
    """
    if rule.function == "no_resampling_hack" or tuple(shape) == tuple(sizes):
        return labels
    axis = separate_axis(current, new, rule.force_separate_z, rule.separate_z_anisotropy_threshold)
    axes = [_LabelAxis.of(*each) for each in zip(sizes, shape, part, strict=True)]
    return _resampled_labels(labels, axes, axis, rule)


def _resampled_labels(
    labels: NDArray[Any], axes: Sequence[_LabelAxis], separate: int | None, rule: Resampling
) -> NDArray[Any]:
    """Resample labels along axes, of which one may take the nearest planes."""
    if rule.order == 0:
        return _nearest(labels, axes)
    within = [axis.kept() if number == separate else axis for number, axis in enumerate(axes)]
    result = _nearest(labels, within)
    half = rule.function == "resample_torch_fornnunet"
    for lo, hi in _row_chunks(result.shape):
        _decide_borders(labels, [axis.corners for axis in within], (lo, hi), result[lo:hi], half=half)
    return result if separate is None else take(result, axes[separate].nearest, separate)


def _nearest(labels: NDArray[Any], axes: Sequence[_LabelAxis]) -> NDArray[Any]:
    """Return a new array with the label of the nearest voxel."""
    nearest = labels
    for number, axis in enumerate(axes):
        if not axis.corners.identity:
            nearest = np.take(nearest, axis.nearest, axis=number)
    return nearest.copy() if nearest is labels else nearest


def _row_chunks(target: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    """Cut the output into runs of slices so that what is held for one run stays small."""
    step = max(1, int(4e6 // math.prod(target[1:])))
    for lo in range(0, target[0], step):
        yield lo, min(lo + step, target[0])


@dataclass(frozen=True, eq=False)
class _Corners:
    """The two voxels between which every output of one axis lies, and the weight of the upper one."""

    lower: NDArray[np.intp]
    upper: NDArray[np.intp]
    weight: NDArray[np.float64]
    identity: bool

    @classmethod
    def of(cls, size: int, new_size: int) -> _Corners:
        if size == new_size:
            own = np.arange(size)
            return cls(own, own, np.zeros(size), True)
        lower, upper, weight = neighbours(size, new_size)
        return cls(lower, upper, weight, False)


@dataclass(frozen=True, eq=False)
class _LabelAxis:
    """How an axis of a label map, or a part of it, is made of what was cut out of the map for it."""

    source: Ends
    nearest: NDArray[np.intp]
    corners: _Corners

    @classmethod
    def of(cls, size: int, new_size: int, part: Ends) -> _LabelAxis:
        start, stop = part
        if size == new_size:
            return cls(part, np.arange(stop - start), _Corners.of(stop - start, stop - start))
        whole, index = _Corners.of(size, new_size), nearest_index(size, new_size)[start:stop]
        lower, upper = whole.lower[start:stop], whole.upper[start:stop]
        first, last = int(min(lower[0], index[0])), int(max(upper[-1], index[-1])) + 1
        corners = _Corners(lower - first, upper - first, whole.weight[start:stop], False)
        return cls((first, last), index - first, corners)

    def kept(self) -> _LabelAxis:
        """Return the axis as it was before it is resampled."""
        size = self.source[1] - self.source[0]
        return _LabelAxis.of(size, size, (0, size))


def _decide_borders(
    labels: NDArray[Any], corners: Sequence[_Corners], rows: tuple[int, int], result: NDArray[Any], *, half: bool
) -> None:
    """Decide the voxels of some output rows that lie between different labels; ``result`` holds the nearest ones.

    Where all neighbours agree, which is nearly everywhere, the nearest label is the winner already. ``half`` follows
    nnU-Net's torch variant: thousandths in float16, the smallest label wins a tie.
    """
    lower, upper = corners[0].lower[rows[0] : rows[1]], corners[0].upper[rows[0] : rows[1]]
    first = int(lower[0])
    mixed = _mixed(labels[first : int(upper[-1]) + 1], [axis for axis in range(3) if not corners[axis].identity])
    at_border = mixed.take(lower - first, axis=0).take(corners[1].lower, axis=1).take(corners[2].lower, axis=2)
    voxels = np.nonzero(at_border)
    if not len(voxels[0]):
        return
    voxels = (voxels[0] + rows[0], *voxels[1:])
    around, weights = _neighbourhood(labels, corners, voxels)
    nearest = result[voxels[0] - rows[0], voxels[1], voxels[2]]
    best = np.full(len(nearest), -1.0)
    winner = np.zeros_like(nearest)
    at_nearest = np.zeros(len(nearest))
    for label in around:
        score = np.zeros(len(nearest))
        for other, weight in zip(around, weights, strict=True):
            score += np.where(other == label, weight, 0.0)
        # Rounding noise must not decide a tie: equal weights sum up in another order for another label.
        score[:] = np.float16(1000 * score) if half else np.round(score, 12)
        better = (score > best) | ((score == best) & (label < winner))
        np.copyto(winner, label, where=better)
        np.copyto(best, score, where=better)
        np.copyto(at_nearest, score, where=label == nearest)
    chosen = winner if half else np.where(at_nearest == best, nearest, winner)
    result[voxels[0] - rows[0], voxels[1], voxels[2]] = chosen


def _mixed(labels: NDArray[Any], axes: Sequence[int]) -> NDArray[np.bool_]:
    """Return for every voxel whether it and the next ones along the axes hold different labels."""
    low, high = labels, labels
    for axis in axes:
        index = np.minimum(np.arange(labels.shape[axis]) + 1, labels.shape[axis] - 1)
        low, high = np.minimum(low, low.take(index, axis=axis)), np.maximum(high, high.take(index, axis=axis))
    differs: NDArray[np.bool_] = low != high
    return differs


def _neighbourhood(
    labels: NDArray[Any], corners: Sequence[_Corners], voxels: tuple[NDArray[np.intp], ...]
) -> tuple[list[NDArray[Any]], list[NDArray[np.float64]]]:
    """Return labels and weights of the two, four or eight voxels around each output voxel."""
    around, weights = [], []
    sides = [(False,) if corner.identity else (False, True) for corner in corners]
    for choice in itertools.product(*sides):
        index, weight = [], np.ones(len(voxels[0]))
        for corner, up, position in zip(corners, choice, voxels, strict=True):
            index.append((corner.upper if up else corner.lower)[position])
            share = corner.weight[position]
            weight = weight * (share if up else 1 - share)
        around.append(labels[tuple(index)])
        weights.append(weight)
    return around, weights
