"""Whether a place that somebody looked at, and found right, is still as it was."""

from __future__ import annotations

import hashlib
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_nnunet.events import Box

_OVERLAP = 0.5  # of two boxes, of all that they cover
_SIZE = 1.5  # times as many voxels, at most


def mark_of(labels: NDArray[Any], box: Box) -> str:
    """Return a digest of what is drawn in a box of labels; another one where a voxel in it is changed.

    Parameters
    ----------
    labels : ndarray of int, shape ([Z,] Y, X)
        What is drawn.
    box : tuple of (int, int)
        The first voxel and the one after the last along each axis; empty for all of it.
    """
    inside = labels[tuple(slice(lo, hi) for lo, hi in box)] if box else labels
    voxels = np.ascontiguousarray(inside.astype(np.uint32))
    return hashlib.sha256(repr(voxels.shape).encode() + voxels.tobytes()).hexdigest()[:16]


def same_place(before: Box, voxels_before: int, now: Box, voxels_now: int) -> bool:
    """Return whether two parts are the same one, seen by two networks that differ a little.

    Parameters
    ----------
    before, now : tuple of (int, int)
        Their boxes; empty where a whole case is meant.
    voxels_before, voxels_now : int
        Their sizes.
    """
    few, many = sorted((voxels_before, voxels_now))
    if many > _SIZE * few or len(before) != len(now):
        return False
    both = math.prod(max(0, min(b, d) - max(a, c)) for (a, b), (c, d) in zip(before, now, strict=True))
    each = sum(math.prod(hi - lo for lo, hi in box) for box in (before, now))
    return both >= _OVERLAP * (each - both)
