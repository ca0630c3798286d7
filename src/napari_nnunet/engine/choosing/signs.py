"""What a network's own probabilities tell of how good a segmentation is, beyond the Dice that they expect.

A rim of one voxel on both sides of the outline is doubtful in every segmentation; doubt beyond it, an outline that is
vaguer than usual, scattered parts, and a size or surface that no known case has, are not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cc3d
import numpy as np
from numpy.typing import NDArray

#: Memory that :func:`signs_of` takes at most, in bytes per voxel of the image; measured where a class fills it.
SIGNS_BYTES = 20
#: Signs of which only the distance from what is usual says something.
USUAL = ("size", "surface")
_TINY = 1e-3  # share of voxels, so that its logarithm exists
_SURE = 1e-6
_AT_ONCE = 1 << 16  # voxels of a rim: one that is everywhere would take 40 bytes a voxel
_COARSE = 2.0  # times the finest spacing: across such an axis the rim would be everything


def signs_of(probability: NDArray[Any], own: NDArray[np.bool_], spacing: Sequence[float]) -> dict[str, float]:
    """Return what the probabilities of a class tell of its segmentation.

    Parameters
    ----------
    probability : ndarray of float, shape ([Z,] Y, X)
        Of the class.
    own : ndarray of bool, same shape
        Where the segmentation has it: somewhere.
    spacing : sequence of float
        mm, in the order of the axes.

    Returns
    -------
    dict of str to float
        "border": mean entropy of the rim, in bits. "inside", "outside": logarithm of the doubt within, and of the
        probability outside of the rim, per voxel of the class. "scattered": share outside of its largest part. "size":
        logarithm of its mm³ (mm²). "surface": logarithm of the voxels of the rim per voxels to the power of 2/3.
    """
    box = _around(own)
    mask, p = own[box], np.asarray(probability[box], dtype=np.float32)
    axes = [axis for axis in range(own.ndim) if spacing[axis] < _COARSE * min(spacing)]
    grown, core = _grown(mask, axes), ~_grown(~mask, axes)
    rim = grown & ~core
    voxels = int(np.count_nonzero(mask))
    inside = float(np.sum(1 - p, where=core, dtype=np.float64))
    outside = float(np.sum(probability, dtype=np.float64)) - float(np.sum(p, where=grown, dtype=np.float64))
    parts = cc3d.connected_components(mask, connectivity=8 if mask.ndim == 2 else 26)
    largest = int(np.bincount(parts.ravel())[1:].max())
    return {
        "border": _mean_entropy(p[rim]),
        "inside": float(np.log(inside / voxels + _TINY)),
        "outside": float(np.log(max(0.0, outside) / voxels + _TINY)),
        "scattered": 1 - largest / voxels,
        "size": float(np.log(voxels * np.prod(spacing))),
        "surface": float(np.log(max(1, int(np.count_nonzero(rim)))) - 2 / 3 * np.log(voxels)),
    }


def _mean_entropy(probability: NDArray[np.float32]) -> float:
    """Return the mean entropy of being of a class or not, in bits; 0 without any voxel."""
    total = 0.0
    for start in range(0, probability.size, _AT_ONCE):
        q = np.clip(probability[start : start + _AT_ONCE].astype(np.float64), _SURE, 1 - _SURE)
        total -= float(np.sum(q * np.log2(q) + (1 - q) * np.log2(1 - q)))
    return total / max(1, probability.size)


def _around(mask: NDArray[np.bool_]) -> tuple[slice, ...]:
    """Return the box of a mask and one voxel around it."""
    spans = []
    for axis in range(mask.ndim):
        there = np.flatnonzero(mask.any(axis=tuple(other for other in range(mask.ndim) if other != axis)))
        spans.append(slice(max(0, int(there[0]) - 1), int(there[-1]) + 2))
    return tuple(spans)


def _grown(mask: NDArray[np.bool_], axes: Sequence[int]) -> NDArray[np.bool_]:
    """Return a mask and its neighbours along some axes."""
    result = mask.copy()
    for axis in axes:
        ahead, behind = ([slice(None)] * mask.ndim for _ in range(2))
        ahead[axis], behind[axis] = slice(1, None), slice(None, -1)
        result[tuple(ahead)] |= mask[tuple(behind)]
        result[tuple(behind)] |= mask[tuple(ahead)]
    return result
