"""The thresholds of decoding, chosen on pictures whose objects are known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
from numpy.typing import NDArray

from napari_nnunet.engine.objects.decode import Rule, decode
from napari_nnunet.engine.objects.match import THRESHOLDS, Matching

_SEEDS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98)
_INSIDES = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
_CUTS = (0.5, 0.75, 1.0, 1.5)  # network edges
_SEEDS_TO_CUT = (0.5, 0.7, 0.8, 0.9)  # what is cut may begin larger
_NECKS = (0.4, 0.6, 0.8)  # shares of a middle's height
_SEEDS_WITH_NECKS = (0.2, 0.3, 0.5, 0.7)  # lower ones too: what they join is cut again
_SMALL_SEEDS = (0.0, 0.125, 0.25, 0.5)  # of the size that all but one in a hundred of the known objects exceed
_SMALL = (0.25, 0.5, 1.0)  # the same for objects
_PERCENTS = (5, 10, 25)  # of the known objects: a weak network invents more small ones than there are
_NOISE = 0.001  # of the score: less says nothing about other pictures, and the earlier, plainer rule stays
_SURE = (0.0, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)


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


@dataclass(frozen=True, eq=False)
class _Found:
    """What a rule finds in all pictures before anything is left out, and how it agrees with what is known.

    Parameters
    ----------
    known : int
        Number of objects that there are.
    sizes, means : ndarray of float64, shape (found,)
        Of the found objects: size as a multiple of the network's finest voxel, and mean probability of being inside.
    iou : ndarray of float64, shape (found,)
        With the known object that each is matched to; 0 where there is none.
    """

    known: int
    sizes: NDArray[np.float64]
    means: NDArray[np.float64]
    iou: NDArray[np.float64]

    @classmethod
    def by(cls, rule: Rule, pictures: Sequence[KnownObjects]) -> _Found:
        everything, known = replace(rule, smallest=1, sure=0.0), 0
        sizes, means, overlaps = [], [], []
        for picture in pictures:
            objects = decode(picture.core, picture.inside, everything, picture.voxel)
            matching = Matching.of(picture.objects, objects)
            counts = np.bincount(objects.reshape(-1))
            numbers = matching.prediction_numbers
            inside = np.bincount(objects.reshape(-1), picture.inside.reshape(-1))
            iou, pairs = np.zeros(len(numbers)), matching.pairs()
            iou[matching.prediction[pairs]] = matching.iou[pairs]
            sizes.append(counts[numbers] * np.prod(picture.voxel))
            means.append(inside[numbers] / counts[numbers])
            overlaps.append(iou)
            known += len(matching.references)
        return cls(known, np.concatenate(sizes), np.concatenate(means), np.concatenate(overlaps))

    def score(self, smallest: float, sure: float) -> float:
        """Return the mean average precision at IoU 0.5 to 0.95 of what is left."""
        kept = (self.sizes >= smallest) & (self.means >= sure)
        total = self.known + int(kept.sum())
        hits = [int((self.iou[kept] >= threshold).sum()) for threshold in THRESHOLDS]
        return float(np.mean([hit / (total - hit) for hit in hits])) if total else 0.0


def best_rule(pictures: Sequence[KnownObjects], rule: Rule) -> tuple[Rule, float]:
    """Choose thresholds and smallest sizes by trying, all pictures counted together.

    First the two thresholds together, then whether and where seeds are cut, by a length or by a share, then the
    smallest seed; with each, how small and how doubtful objects may be. What is better by less than a thousandth
    leaves what was tried before.

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
    sizes = np.concatenate(
        [np.unique(k.objects[k.objects != 0], return_counts=True)[1] * np.prod(k.voxel) for k in pictures]
    )
    low = float(np.percentile(sizes, 1)) if len(sizes) else 0.0
    percents = [float(np.percentile(sizes, percent)) for percent in _PERCENTS] if len(sizes) else []
    small = sorted({1, *(max(1, round(size)) for size in (*(part * low for part in _SMALL), *percents))})

    def tried(candidate: Rule) -> tuple[Rule, float]:
        found = _Found.by(candidate, pictures)
        best, height = replace(candidate, smallest=rule.smallest, sure=rule.sure), -1.0
        for smallest, sure in product(small, _SURE):
            if (reached := found.score(smallest, sure)) > height + 1e-9:
                best, height = replace(candidate, smallest=smallest, sure=sure), reached
        return best, height

    best, height = tried(rule)
    stages = (
        [{"seed": s, "inside": i} for s, i in product(_SEEDS, _INSIDES) if s >= i - 0.2],
        [{"split": cut, "seed": s} for cut, s in product(_CUTS, _SEEDS_TO_CUT)]
        + [{"split": None, "neck": neck, "seed": s} for neck, s in product(_NECKS, _SEEDS_WITH_NECKS)],
        [{"smallest_seed": max(1, round(part * low))} for part in _SMALL_SEEDS],
    )
    for stage in stages:
        for change in stage:
            candidate = replace(best, **change)
            if candidate != best and (found := tried(candidate))[1] > height + _NOISE:
                best, height = found
    return best, height
