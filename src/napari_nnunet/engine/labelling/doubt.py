"""How surely a network that never saw a case contradicts its labels.

The network's own probabilities say what Dice it expects of its segmentation; where the labels agree with it much less
than that, either the network is wrong and sure of it, or the labels are. The probability that a voxel's label is wrong
is one minus what the network gives to that label ("self-confidence" in Northcutt et al., Confident Learning, 2021).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import cc3d
import numpy as np
from numpy.typing import NDArray

from napari_nnunet.engine.choosing.expected import targets_of_heads
from napari_nnunet.engine.labelling.kept import mark_of
from napari_nnunet.schema.dataset import LabelScheme, Region

SURE = 0.9  # a voxel's label counts as contradicted from here on
_LARGEST = 20  # parts of a case that are named
_LEAST = 8  # voxels of a part: what is smaller is the edge of a structure
_SHARE = 0.02  # of the evidence of a case: what is less is not worth a look


@dataclass(frozen=True)
class ClassDoubt:
    """A class, or region, of a case.

    Parameters
    ----------
    dice : float
        Of the network's segmentation with the labels; NaN where neither has the class.
    expected : float
        What the network's probabilities say of it: ``2 sum(p m) / (sum(p) + sum(m))`` with the probability p and the
        segmentation m; of a class that the network does not see, how sure it is that it is not where it is drawn. NaN
        where there are no probabilities, or neither has the class.
    labelled, seen : int
        Voxels in the labels, and in the network's segmentation.
    """

    dice: float
    expected: float
    labelled: int
    seen: int

    @property
    def gap(self) -> float:
        """How much less the labels agree than the network expects; NaN where that is not known."""
        return self.expected - self.dice


@dataclass(frozen=True)
class Part:
    """A connected part of a case whose labels the network contradicts.

    Parameters
    ----------
    label, seen : int
        What is drawn there, and what the network sees.
    voxels : int
        Its size.
    certainty : float
        Mean probability, by the network, that the label is wrong.
    evidence : float
        Sum of ``-log(1 - certainty)`` over the voxels: large and certain parts weigh most.
    place : tuple of int
        A voxel of the part near its middle, in the order of the array's axes.
    box : tuple of (int, int)
        The first voxel and the one after the last along each axis.
    mark : str
        What is drawn within the box, see :func:`~napari_nnunet.engine.labelling.kept.mark_of`.
    """

    label: int
    seen: int
    voxels: int
    certainty: float
    evidence: float
    place: tuple[int, ...]
    box: tuple[tuple[int, int], ...] = ()
    mark: str = ""


@dataclass(frozen=True, eq=False)
class Doubt:
    """What a network says of the labels of a case.

    Parameters
    ----------
    classes : dict of Region to ClassDoubt
        Every foreground label, or every region.
    parts : tuple of Part
        Those that weigh most, the heaviest first.
    """

    classes: Mapping[Region, ClassDoubt]
    parts: tuple[Part, ...]


def doubt_of(
    reference: NDArray[Any],
    seen: NDArray[Any],
    probabilities: Iterable[NDArray[np.float32]] | None,
    scheme: LabelScheme,
) -> Doubt:
    """Hold the labels of a case against a network's segmentation and probabilities.

    Parameters
    ----------
    reference, seen : ndarray of int, shape ([Z,] Y, X)
        What was drawn, and what the network sees, on the same grid.
    probabilities : iterable of ndarray of float32, optional
        One per head of the network, of the same shape; each is looked at once, so that one is in memory at a time.
        Without them every contradicted voxel counts as certain, and nothing is expected.
    scheme : LabelScheme
        Classes, regions and the ignore label: voxels with that in the reference do not count.
    """
    counts = np.ones(reference.shape, dtype=bool)
    if scheme.ignore_label is not None:
        counts = reference != scheme.ignore_label
    targets = targets_of_heads(scheme, background=False)
    if probabilities is None:
        wrong = np.asarray(reference != seen, dtype=np.float32)
        expected: dict[Region, float] = dict.fromkeys(targets, math.nan)
    else:
        wrong, expected = _weigh(reference, seen, probabilities, scheme, counts)
    classes = {}
    for target in targets:
        drawn, found = np.isin(reference, target) & counts, np.isin(seen, target) & counts
        both = int(np.count_nonzero(drawn)) + int(np.count_nonzero(found))
        dice = 2 * int(np.count_nonzero(drawn & found)) / both if both else math.nan
        classes[target] = ClassDoubt(dice, expected[target], int(np.count_nonzero(drawn)), int(np.count_nonzero(found)))
    return Doubt(classes, parts_of(reference, seen, wrong, counts))


def _weigh(
    reference: NDArray[Any],
    seen: NDArray[Any],
    probabilities: Iterable[NDArray[np.float32]],
    scheme: LabelScheme,
    counts: NDArray[np.bool_],
) -> tuple[NDArray[np.float32], dict[Region, float]]:
    """Return by voxel how probably its label is wrong, and by target what Dice the network expects."""
    wrong = np.zeros(reference.shape, dtype=np.float32)
    heads = targets_of_heads(scheme)
    expected: dict[Region, float] = {}
    for target, p in zip(heads, probabilities, strict=True):
        drawn = np.isin(reference, target)
        if scheme.has_regions:
            np.maximum(wrong, np.where(drawn, 1 - p, p), out=wrong)
        else:
            wrong[drawn] = 1 - p[drawn]
        found = np.isin(seen, target) & counts
        voxels = int(np.count_nonzero(found))
        total = float(np.sum(p, where=counts, dtype=np.float64))
        hit = float(np.sum(p, where=found, dtype=np.float64))
        if voxels:
            expected[target] = 2 * hit / (total + voxels)
        else:  # how sure it is that nothing of what is drawn is there
            expected[target] = float(np.mean(1 - p[drawn & counts])) if np.any(drawn & counts) else math.nan
    return wrong, expected


def parts_of(
    reference: NDArray[Any], seen: NDArray[Any], wrong: NDArray[np.float32], counts: NDArray[np.bool_]
) -> tuple[Part, ...]:
    """Return the connected parts that a network surely contradicts, those of most evidence first.

    Voxels that touch, at a corner too, belong together where both what is drawn and what is seen are the same.
    """
    where = np.flatnonzero((reference != seen) & (wrong >= SURE) & counts)
    if not len(where):
        return ()
    drawn, found = reference.reshape(-1)[where].astype(np.int64), seen.reshape(-1)[where].astype(np.int64)
    pairs, code = np.unique(np.stack([drawn, found]), axis=1, return_inverse=True)
    coded = np.zeros(reference.size, dtype=np.uint32)
    coded[where] = code.reshape(-1) + 1
    flat = reference.ndim == 2
    numbers = cc3d.connected_components(coded.reshape(reference.shape), connectivity=8 if flat else 26)
    part = numbers.reshape(-1)[where].astype(np.int64) - 1
    certainty = np.minimum(wrong.reshape(-1)[where], np.float32(1 - 1e-6))
    sizes = np.bincount(part)
    evidence = np.bincount(part, weights=-np.log1p(-certainty.astype(np.float64)))
    mean = np.bincount(part, weights=certainty) / np.maximum(sizes, 1)
    first = np.full(len(sizes), -1)
    first[part[::-1]] = code.reshape(-1)[::-1]
    heaviest = np.argsort(-evidence, kind="stable")[:_LARGEST]
    least = _SHARE * evidence.sum()
    result = []
    for i in heaviest:
        if sizes[i] >= _LEAST and evidence[i] >= least:
            points = np.stack(np.unravel_index(where[part == i], reference.shape), axis=1)
            box = tuple((int(lo), int(hi) + 1) for lo, hi in zip(points.min(axis=0), points.max(axis=0), strict=True))
            label, other = int(pairs[0, first[i]]), int(pairs[1, first[i]])
            weight = (int(sizes[i]), float(mean[i]), float(evidence[i]))
            result.append(Part(label, other, *weight, _middle(points), box, mark_of(reference, box)))
    return tuple(result)


def _middle(points: NDArray[np.int64]) -> tuple[int, ...]:
    """Return the voxel of a part that is nearest to its centre of mass, which may lie outside of it."""
    nearest = np.argmin(((points - points.mean(axis=0)) ** 2).sum(axis=1))
    return tuple(int(n) for n in points[nearest])


def mask_of_part(reference: NDArray[Any], seen: NDArray[Any], part: Part) -> NDArray[np.bool_]:
    """Return the voxels around the place of a part where the same is drawn and the same is seen."""
    same = (reference == part.label) & (seen == part.seen)
    numbers = cc3d.connected_components(same, connectivity=8 if same.ndim == 2 else 26)
    mask: NDArray[np.bool_] = numbers == numbers[part.place]
    return mask & same
