"""How thick the slabs are in which objects are found, and what they take."""

from __future__ import annotations

import math
from collections.abc import Sequence

WORK_BYTES = 64  # that are held for a voxel of a slab and the planes around it, at most; 42 to 45 were measured
_PIECE = 1 << 22  # voxels decoded at once


def usual_planes(shape: Sequence[int], steps: int) -> int:
    """Return the planes of a slab of a picture ([Z,] Y, X) whose seeds grow by some steps: four million voxels."""
    return max(2 * steps, _PIECE // max(1, math.prod(shape[1:])))


def planes_within(shape: Sequence[int], steps: int, allowed: float) -> int:
    """Return how many planes may be looked at together.

    Parameters
    ----------
    shape : sequence of int
        Of the picture, ([Z,] Y, X).
    steps : int
        By how many voxels seeds grow: with as many planes around a slab.
    allowed : float
        Bytes that they may take.

    Returns
    -------
    int
        As `decode_into` takes it; 0 or less where not even one fits.
    """
    fits = int(min(allowed / (WORK_BYTES * math.prod(shape[1:])), shape[0] + 2 * steps)) - 2 * steps
    return min(fits, usual_planes(shape, steps))


def least_bytes(shape: Sequence[int], steps: int) -> float:
    """Return what decoding a picture plane by plane takes."""
    return float(WORK_BYTES * math.prod(shape[1:])) * (1 + 2 * steps)
