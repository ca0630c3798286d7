"""The thresholds of decoding, chosen on pictures whose objects are known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
from numpy.typing import NDArray

from napari_nnunet.engine.objects.decode import Rule, decode
from napari_nnunet.engine.objects.match import THRESHOLDS, Matching

_SEEDS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
_INSIDES = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
_CUTS = (0.5, 0.75, 1.0, 1.5)  # network edges
_SEEDS_TO_CUT = (0.5, 0.7, 0.8, 0.9)  # what is cut may begin larger
_SMALL = (0.0, 0.25, 0.5)  # of the size that all but one in a hundred of the known objects exceed


@dataclass(frozen=True, eq=False)
class KnownObjects:
    """A picture of which both the objects and a network's opinion are known.

    Parameters
    ----------
    core, inside : ndarray of float32, shape ([Z,] Y, X)
        Probabilities, by a network that has not learnt this picture.
    objects : ndarray of int, same shape
        The truth.
    voxel : sequence of float
        Edges of a voxel as multiples of the network's finest edge.
    """

    core: NDArray[np.float32]
    inside: NDArray[np.float32]
    objects: NDArray[np.integer]
    voxel: Sequence[float]


def score(matching: Matching) -> float:
    """Return what is made as high as possible: the mean average precision at IoU 0.5 to 0.95; 0 without objects."""
    return float(np.nan_to_num([matching.precision(t) for t in THRESHOLDS]).mean())


def best_rule(pictures: Sequence[KnownObjects], rule: Rule) -> tuple[Rule, float]:
    """Choose thresholds and smallest sizes by trying, all pictures counted together.

    First the two thresholds together, then whether and where seeds are cut, then the smallest object, then the smallest
    seed. What is no better than the default leaves the default.

    Parameters
    ----------
    pictures : sequence of KnownObjects
        At least one with objects.
    rule : Rule
        Width of the learnt border, and where to begin.

    Returns
    -------
    rule : Rule
        The best of those tried.
    score : float
        Its mean average precision at IoU 0.5 to 0.95.
    """

    def tried(candidate: Rule) -> float:
        found = Matching.none()
        for known in pictures:
            found += Matching.of(known.objects, decode(known.core, known.inside, candidate, known.voxel))
        return score(found)

    best, height = rule, tried(rule)
    sizes = np.concatenate(
        [np.unique(k.objects[k.objects != 0], return_counts=True)[1] * np.prod(k.voxel) for k in pictures]
    )
    low = float(np.percentile(sizes, 1)) if len(sizes) else 0.0
    stages = (
        [{"seed": s, "inside": i} for s, i in product(_SEEDS, _INSIDES) if s >= i - 0.2],
        [{"split": cut, "seed": s} for cut, s in product(_CUTS, _SEEDS_TO_CUT)],
        [{"smallest": max(1, round(part * low))} for part in _SMALL],
        [{"smallest_seed": max(1, round(part * low / 2))} for part in _SMALL],
    )
    for stage in stages:
        for change in stage:
            candidate = replace(best, **change)
            if candidate != best and (found := tried(candidate)) > height + 1e-9:
                best, height = candidate, found
    return best, height
