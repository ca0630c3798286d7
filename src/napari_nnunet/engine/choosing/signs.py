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

#: Signs of which only the distance from what is usual says something.
USUAL = ("size", "surface")
_TINY = 1e-3  # share of voxels, so that its logarithm exists
_SURE = 1e-6
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
    doubtful = np.clip(p[rim].astype(np.float64), _SURE, 1 - _SURE)
    entropy = -(doubtful * np.log2(doubtful) + (1 - doubtful) * np.log2(1 - doubtful))
    inside = float(np.sum(1 - p, where=core, dtype=np.float64))
    outside = float(np.sum(probability, dtype=np.float64)) - float(np.sum(p, where=grown, dtype=np.float64))
    parts = cc3d.connected_components(mask, connectivity=8 if mask.ndim == 2 else 26)
    largest = int(np.bincount(parts.ravel())[1:].max())
    return {
        "border": float(entropy.mean()) if entropy.size else 0.0,
        "inside": float(np.log(inside / voxels + _TINY)),
        "outside": float(np.log(max(0.0, outside) / voxels + _TINY)),
        "scattered": 1 - largest / voxels,
        "size": float(np.log(voxels * np.prod(spacing))),
        "surface": float(np.log(max(1, int(np.count_nonzero(rim)))) - 2 / 3 * np.log(voxels)),
    }


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
