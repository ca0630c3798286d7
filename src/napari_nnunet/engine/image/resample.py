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
from functools import lru_cache
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_nnunet.errors import ImageError
from napari_nnunet.schema.plans import Resampling

ArrayT = TypeVar("ArrayT", bound=Any)

ANISOTROPY = 3.0  # nnU-Net's threshold: a voxel over three times as thick as wide is not interpolated across slices
_DECAY = 14  # voxels after which the response of a cubic spline is below 1e-8 (0.268 per voxel)
_SLAB_VOXELS = 4e6  # held between two operators
_ROWS = {0: 64, 1: 32, 3: 48}  # output rows per block: wide enough for BLAS, narrow enough for a thin band


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


@lru_cache(maxsize=64)
def axis_matrix(size: int, new_size: int, order: int) -> NDArray[np.float64]:
    """Return the (new_size, size) matrix of spline interpolation along one axis.

    Half-pixel centres, edge replication, no anti-aliasing: its columns are scipy's response to unit vectors, which is
    what scikit-image's ``resize(mode="edge", anti_aliasing=False)`` computes.
    """
    unit = np.eye(size)
    if order == 0:
        matrix = unit[nearest_index(size, new_size)]
    elif order == 1:
        matrix = _linear_matrix(size, new_size)
    else:
        # Only the first axis is filtered and sampled; the second is carried along as independent columns.
        padded = np.pad(unit, ((12, 12), (0, 0)), mode="edge")
        coefficients = ndimage.spline_filter1d(padded, order, axis=0, output=np.float64, mode="mirror")
        positions = (np.arange(new_size) + 0.5) * size / new_size - 0.5 + 12
        matrix = _sample_spline(coefficients, positions, order)
    matrix.setflags(write=False)
    return matrix


def _neighbours(size: int, new_size: int) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float64]]:
    """Return the voxels below and above every output position of an axis, and the weight of the upper one."""
    positions = np.clip((np.arange(new_size) + 0.5) * size / new_size - 0.5, 0, size - 1)
    lower = np.minimum(np.floor(positions).astype(np.intp), size - 1)
    return lower, np.minimum(lower + 1, size - 1), positions - lower


def _linear_matrix(size: int, new_size: int) -> NDArray[np.float64]:
    lower, upper, weight = _neighbours(size, new_size)
    matrix = np.zeros((new_size, size))
    rows = np.arange(new_size)
    np.add.at(matrix, (rows, lower), 1 - weight)
    np.add.at(matrix, (rows, upper), weight)
    return matrix


def _sample_spline(
    coefficients: NDArray[np.float64], positions: NDArray[np.float64], order: int
) -> NDArray[np.float64]:
    """Evaluate B-spline coefficients (n, k) at positions along axis 0; returns (len(positions), k)."""
    if order != 3:
        grid = np.broadcast_to(positions[:, None], (len(positions), coefficients.shape[1]))
        columns = np.broadcast_to(np.arange(coefficients.shape[1])[None], grid.shape)
        rows = [
            ndimage.map_coordinates(coefficients[:, k], [grid[:, k]], order=order, mode="nearest", prefilter=False)
            for k in range(columns.shape[1])
        ]
        return np.stack(rows, axis=1)
    # A sample in the outermost half voxel leaves the image: scipy clamps to the replicated edge.
    base = np.floor(positions).astype(int)
    t = positions - base
    weights = ((1 - t) ** 3 / 6, (3 * t**3 - 6 * t**2 + 4) / 6, (3 * (1 - t) ** 3 - 6 * (1 - t) ** 2 + 4) / 6, t**3 / 6)
    out = np.zeros((len(positions), coefficients.shape[1]))
    for offset, weight in zip((-1, 0, 1, 2), weights, strict=True):
        out += weight[:, None] * coefficients[np.clip(base + offset, 0, len(coefficients) - 1)]
    return out


def nearest_index(size: int, new_size: int) -> NDArray[np.intp]:
    """Return the source index of every output index: ``floor((i + 0.5) * size / new_size)``, clipped."""
    return np.clip(np.floor((np.arange(new_size) + 0.5) * size / new_size), 0, size - 1).astype(np.intp)


@dataclass(frozen=True, eq=False)
class AxisOperator:
    """A banded matrix along one axis, cut into blocks of rows.

    Parameters
    ----------
    size, new_size : int
        Extent before and after.
    blocks : tuple of (row start, row stop, column start, column stop, matrix)
        The dense parts of the band.
    """

    size: int
    new_size: int
    blocks: tuple[tuple[int, int, int, int, NDArray[np.float32]], ...]


@lru_cache(maxsize=64)
def axis_operator(size: int, new_size: int, order: int) -> AxisOperator | None:
    """Return the operator of one axis, None if it is the identity."""
    if size == new_size:
        return None
    matrix = axis_matrix(size, new_size, order)
    reach = _DECAY if order > 1 else 0
    rows = _ROWS.get(order, 48)
    blocks = []
    for start in range(0, new_size, rows):
        stop = min(start + rows, new_size)
        first = (start + 0.5) * size / new_size - 0.5
        last = (stop - 0.5) * size / new_size - 0.5
        lo = max(0, math.floor(first) - reach)
        hi = min(size, math.floor(last) + 2 + reach)
        lo, hi = min(lo, size - 1), max(hi, 1)
        blocks.append((start, stop, lo, hi, np.ascontiguousarray(matrix[start:stop, lo:hi], dtype=np.float32)))
    return AxisOperator(size, new_size, tuple(blocks))


def apply_operator(x: ArrayT, operator: AxisOperator | None, axis: int) -> ArrayT:
    """Apply a banded matrix along one axis of a float32 numpy array or torch tensor."""
    if operator is None:
        return x
    shape = tuple(x.shape)
    before, after = math.prod(shape[:axis]), math.prod(shape[axis + 1 :])
    new_shape = (*shape[:axis], operator.new_size, *shape[axis + 1 :])
    flat = x.reshape(before, operator.size, after)
    out = _empty_like(x, (before, operator.new_size, after))
    for start, stop, lo, hi, matrix in operator.blocks:
        weights = _as_kind(matrix, x)
        if after == 1:
            out[:, start:stop, 0] = flat[:, lo:hi, 0] @ weights.T
        else:
            out[:, start:stop] = weights @ flat[:, lo:hi]
    return out.reshape(new_shape)


def take(x: ArrayT, index: NDArray[np.intp], axis: int) -> ArrayT:
    """Pick indices along one axis of a numpy array or torch tensor."""
    if isinstance(x, np.ndarray):
        picked: Any = np.take(x, index, axis=axis)
        return picked
    import torch

    return x.index_select(axis, torch.from_numpy(index).to(x.device))


def _empty_like(x: Any, shape: tuple[int, ...]) -> Any:
    return np.empty(shape, dtype=x.dtype) if isinstance(x, np.ndarray) else x.new_empty(shape)


def _as_kind(matrix: NDArray[np.float32], x: Any) -> Any:
    if isinstance(x, np.ndarray):
        return matrix.astype(x.dtype, copy=False)
    import torch

    return torch.tensor(matrix, dtype=x.dtype, device=x.device)


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
        raise ImageError(f"Resampling {old} voxels to {target} would leave an axis empty; check the spacing {current}.")
    if rule.function == "no_resampling_hack" or target == old:
        return image
    order = 1 if rule.function == "resample_torch_fornnunet" else rule.order
    clip = rule.function == "resample_data_or_seg_to_shape" and order > 1
    axis = separate_axis(current, new, rule.force_separate_z, rule.separate_z_anisotropy_threshold)
    out = _empty_like(image, (int(image.shape[0]), *target))
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
    values = np.unique(labels)
    if len(values) == 1:
        return np.full(target, values[0], dtype=labels.dtype)
    if rule.order == 0:
        return _nearest(labels, target)
    plane = tuple(labels.shape[a] if a == axis else target[a] for a in range(3))
    result = _nearest(labels, plane)
    half = rule.function == "resample_torch_fornnunet"
    corners = [_Corners.of(n, t) for n, t in zip(labels.shape, plane, strict=True)]
    for lo, hi in _row_chunks(plane):
        _decide_borders(labels, corners, (lo, hi), result[lo:hi], half=half)
    return result if axis is None else take(result, nearest_index(labels.shape[axis], target[axis]), axis)


def _nearest(labels: NDArray[Any], target: tuple[int, ...]) -> NDArray[Any]:
    """Return a new array with the label of the nearest voxel."""
    nearest = labels
    for axis in range(3):
        if labels.shape[axis] != target[axis]:
            nearest = np.take(nearest, nearest_index(labels.shape[axis], target[axis]), axis=axis)
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
        lower, upper, weight = _neighbours(size, new_size)
        return cls(lower, upper, weight, False)


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
