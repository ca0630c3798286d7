"""The Dice that a network's probabilities expect of its own segmentation."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_nnunet.schema.dataset import LabelScheme, Region


def targets_of_heads(scheme: LabelScheme, *, background: bool = True) -> Sequence[Region]:
    """Return what the heads of a network stand for, in their order: regions, or classes with or without background."""
    if scheme.has_regions:
        return scheme.regions
    return (0, *scheme.foreground_labels) if background else scheme.foreground_labels


def expected_dice(
    probabilities: Iterable[NDArray[np.float32]], seen: NDArray[Any], scheme: LabelScheme
) -> dict[Region, float]:
    """Return the expected Dice of each class or region that a network sees.

    It is ``2 sum(p m) / (sum(p) + sum(m))`` with the probability p and the segmentation m.

    Parameters
    ----------
    probabilities : iterable of ndarray of float32, shape ([Z,] Y, X)
        One per head of the network; each is looked at once, so that one is in memory at a time.
    seen : ndarray of int, same shape
        The network's labels.
    scheme : LabelScheme
        What they mean.
    """
    found = {}
    for target, p in zip(targets_of_heads(scheme), probabilities, strict=True):
        own = np.isin(seen, target)
        voxels = int(np.count_nonzero(own))
        if voxels and target != 0:
            hit = float(np.sum(p, where=own, dtype=np.float64))
            found[target] = 2 * hit / (float(np.sum(p, dtype=np.float64)) + voxels)
    return found
