"""Interpolation along one axis: a banded matrix, applied in blocks of rows to arrays and tensors alike."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

ArrayT = TypeVar("ArrayT", bound=Any)
_Block: TypeAlias = tuple[int, int, int, int, NDArray[np.float32]]  # rows, columns, and what is at their crossing
_DECAY = 14  # voxels after which the response of a cubic spline is below 1e-8 (0.268 per voxel)
_ROWS = {0: 64, 1: 32, 3: 48}  # output rows per block: wide enough for BLAS, narrow enough for a thin band


_CUT = 40  # voxels beyond a part of an axis after which the spline's response is below 1e-20: cut off without a trace
_EDGE = 12  # voxels that the edge is replicated by before filtering, as scipy does


def matrix_rows(
    size: int, new_size: int, order: int, rows: tuple[int, int], columns: tuple[int, int]
) -> NDArray[np.float64]:
    """Return a part of the (new_size, size) matrix of spline interpolation along one axis.

    Half-pixel centres, edge replication, no anti-aliasing: its columns are scipy's response to unit vectors, which is
    what scikit-image's ``resize(mode="edge", anti_aliasing=False)`` computes. The matrix is never made as a whole, so
    that an axis may have any length.

    Parameters
    ----------
    size, new_size : int
        Extent before and after.
    order : int
        Of the spline.
    rows, columns : tuple of int
        Half-open ranges of outputs and inputs.
    """
    (start, stop), (lo, hi) = rows, columns
    if order == 0:
        return np.equal.outer(nearest_index(size, new_size)[start:stop], np.arange(lo, hi)).astype(np.float64)
    if order == 1:
        return _linear_rows(size, new_size, rows, columns)
    first, last = max(0, lo - _CUT), min(size, hi + _CUT)
    unit = np.eye(last - first, hi - lo, k=first - lo)
    before, after = (_EDGE if end else 0 for end in (first == 0, last == size))
    padded = np.pad(unit, ((before, after), (0, 0)), mode="edge")
    # Only the first axis is filtered and sampled; the second is carried along as independent columns.
    coefficients = ndimage.spline_filter1d(padded, order, axis=0, output=np.float64, mode="mirror")
    positions = (np.arange(start, stop) + 0.5) * size / new_size - 0.5 + before - first
    return _sample_spline(coefficients, positions, order)


def neighbours(size: int, new_size: int) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float64]]:
    """Return the voxels below and above every output position of an axis, and the weight of the upper one."""
    positions = np.clip((np.arange(new_size) + 0.5) * size / new_size - 0.5, 0, size - 1)
    lower = np.minimum(np.floor(positions).astype(np.intp), size - 1)
    return lower, np.minimum(lower + 1, size - 1), positions - lower


def _linear_rows(size: int, new_size: int, rows: tuple[int, int], columns: tuple[int, int]) -> NDArray[np.float64]:
    lower, upper, weight = neighbours(size, new_size)
    matrix, (start, stop) = np.zeros((rows[1] - rows[0], columns[1] - columns[0])), rows
    for column, share in ((lower[start:stop], 1 - weight[start:stop]), (upper[start:stop], weight[start:stop])):
        inside = (column >= columns[0]) & (column < columns[1])
        np.add.at(matrix, (np.flatnonzero(inside), column[inside] - columns[0]), share[inside])
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
    blocks: tuple[_Block, ...]


@lru_cache(maxsize=64)
def axis_operator(size: int, new_size: int, order: int) -> AxisOperator | None:
    """Return the operator of one axis, None if it is the identity."""
    if size == new_size:
        return None
    return AxisOperator(size, new_size, tuple(_blocks(size, new_size, order, 0, new_size)))


def operator_part(size: int, new_size: int, order: int, start: int, stop: int) -> tuple[AxisOperator, int, int]:
    """Return the operator that makes some outputs of an axis of what they need of it.

    Parameters
    ----------
    size, new_size, order : int
        Of the whole axis.
    start, stop : int
        Half-open range of outputs.

    Returns
    -------
    operator : AxisOperator
        From ``last - first`` to ``stop - start`` voxels, with the very numbers of the whole axis's operator.
    first, last : int
        Half-open range of the inputs that it takes.
    """
    blocks = list(_blocks(size, new_size, order, start, stop))
    if order <= 1:
        blocks = [_tight(block) for block in blocks]
    first, last = min(block[2] for block in blocks), max(block[3] for block in blocks)
    moved = tuple((r - start, s - start, lo - first, hi - first, matrix) for r, s, lo, hi, matrix in blocks)
    return AxisOperator(last - first, stop - start, moved), first, last


def _tight(block: _Block) -> _Block:
    """Leave out the inputs at the ends that none of the outputs needs."""
    start, stop, lo, _, matrix = block
    used = np.flatnonzero(matrix.any(axis=0))
    first, last = int(used[0]), int(used[-1]) + 1
    return start, stop, lo + first, lo + last, matrix[:, first:last]


def _blocks(size: int, new_size: int, order: int, start: int, stop: int) -> Iterator[_Block]:
    """Give the dense parts of the band for some outputs; where they are cut does not depend on which are wanted."""
    rows = _ROWS.get(order, 48)
    for begin in range(start - start % rows, stop, rows):
        end = min(begin + rows, new_size)
        lo, hi, matrix = _block(size, new_size, order, begin, end)
        own = slice(max(start - begin, 0), min(stop, end) - begin)
        yield max(start, begin), min(stop, end), lo, hi, matrix[own]


@lru_cache(maxsize=2048)
def _block(size: int, new_size: int, order: int, start: int, stop: int) -> tuple[int, int, NDArray[np.float32]]:
    """Return from where to where the band of some rows goes, and the band."""
    reach = _DECAY if order > 1 else 0
    first = (start + 0.5) * size / new_size - 0.5
    last = (stop - 0.5) * size / new_size - 0.5
    lo = max(0, math.floor(first) - reach)
    hi = min(size, math.floor(last) + 2 + reach)
    lo, hi = min(lo, size - 1), max(hi, 1)
    matrix = np.ascontiguousarray(matrix_rows(size, new_size, order, (start, stop), (lo, hi)), dtype=np.float32)
    matrix.setflags(write=False)
    return lo, hi, matrix


def apply_operator(x: ArrayT, operator: AxisOperator | None, axis: int) -> ArrayT:
    """Apply a banded matrix along one axis of a float32 numpy array or torch tensor."""
    if operator is None:
        return x
    shape = tuple(x.shape)
    before, after = math.prod(shape[:axis]), math.prod(shape[axis + 1 :])
    new_shape = (*shape[:axis], operator.new_size, *shape[axis + 1 :])
    flat = x.reshape(before, operator.size, after)
    out = empty_like(x, (before, operator.new_size, after))
    for start, stop, lo, hi, matrix in operator.blocks:
        weights = as_kind(matrix, x)
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
    import torch  # only where the caller has it already: planning works on arrays alone

    return x.index_select(axis, torch.from_numpy(index).to(x.device))


def as_kind(matrix: NDArray[np.float32], x: Any) -> Any:
    """Return a matrix as an array or a tensor like ``x``."""
    if isinstance(x, np.ndarray):
        return matrix.astype(x.dtype, copy=False)
    return x.new_tensor(matrix)


def empty_like(x: Any, shape: tuple[int, ...]) -> Any:
    """Return an array or tensor of the same kind, in the same place."""
    return np.empty(shape, dtype=x.dtype) if isinstance(x, np.ndarray) else x.new_empty(shape)
