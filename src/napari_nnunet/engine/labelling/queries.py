"""Which places of unlabelled images are worth labelling next.

Three strategies, each of which ranks places by a network's predictions:

* ``random``: two thirds of the places are drawn where the network sees foreground, in proportion to how much of it,
  the others anywhere ("foreground aware random" in nnActive, arXiv 2511.19183, which no method there reliably beats).
* ``entropy``: the highest mean predictive entropy per voxel first.
* ``stratified``: two thirds of the places are asked for one class after the other, by the entropy where the network
  sees that class, the others by the entropy of all voxels; the logarithm of each entropy is disturbed by Gumbel noise,
  which becomes half as wide in each round: diverse at first, sharp later (after ClaSP PE, arXiv 2601.13677).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_nnunet.engine.choosing.expected import targets_of_heads
from napari_nnunet.schema.dataset import LabelScheme, Region
from napari_nnunet.schema.requests.labelling import Strategy, Unit

Span = tuple[int, int]

_AIMED = 2 / 3  # share of the places that are drawn at foreground, or asked for a class
_APART = 20  # slices of one image lie further apart than this part of its slices: neighbours look alike
_TINY = 1e-6  # entropy per voxel, so that its logarithm exists


@dataclass(frozen=True)
class Spot:
    """A place of an image that could be labelled.

    Parameters
    ----------
    case : str
        The image.
    number : int
        Which of its places.
    box : tuple of (int, int)
        Half-open, in voxels ([Z,] Y, X).
    voxels : int
        That are not annotated yet: what labelling it costs.
    entropy : float
        Mean of these voxels, from 0 (sure) to 1 (any class as likely as any other).
    classes : dict of Region to (int, float)
        Of each class that the network sees here: voxels, and their mean entropy.
    outlines : int
        Contours that are drawn to label it: classes, counted in every slice that shows them.
    middle : tuple of int
        A voxel to look at: the most doubtful one.
    spread : int
        Slices of the same image whose numbers differ by this much or less are too much alike; 0 for other places.
    partial : bool
        Whether it is a part of its image.
    """

    case: str
    number: int
    box: tuple[Span, ...]
    voxels: int
    entropy: float
    classes: dict[Region, tuple[int, float]]
    outlines: int
    middle: tuple[int, ...]
    spread: int = 0
    partial: bool = False

    @property
    def foreground(self) -> int:
        """Voxels in which the network sees a class."""
        return sum(voxels for voxels, _ in self.classes.values())

    @property
    def where(self) -> str:
        """The box in words: ``z 3``, or ``z 0 to 15, y 16 to 31, x 0 to 15``."""
        said = zip("zyx"[3 - len(self.box) :], self.box, strict=True)
        if self.spread:  # a slice
            return next(f"{axis} {lo}" for axis, (lo, hi) in said if hi - lo == 1)
        return ", ".join(f"{axis} {lo} to {hi - 1}" for axis, (lo, hi) in said)


def entropy_of(probabilities: Iterable[NDArray[np.float32]], scheme: LabelScheme) -> NDArray[np.float32]:
    """Return the predictive entropy of each voxel, from 0 to 1.

    Parameters
    ----------
    probabilities : iterable of ndarray of float32, shape ([Z,] Y, X)
        One per head of the network.
    scheme : LabelScheme
        Of regions, which do not exclude each other, the mean of their own entropies is taken.
    """
    total: Any = 0.0
    for p in probabilities:
        total = total - p * np.log(np.maximum(p, _TINY))
        if scheme.has_regions:
            total = total - (1 - p) * np.log(np.maximum(1 - p, _TINY))
    most = scheme.heads * math.log(2) if scheme.has_regions else math.log(scheme.heads)
    result: NDArray[np.float32] = np.clip(total / most, 0, 1).astype(np.float32)
    return result


def drawing_axis(spacing: Sequence[float]) -> int:
    """Return the axis of a volume across which people draw slice by slice: the coarsest, of equal ones the first."""
    return int(np.argmax(spacing)) if len(spacing) == 3 else 0


def boxes_in(shape: tuple[int, ...], unit: Unit, size: Sequence[int], axis: int) -> list[tuple[Span, ...]]:
    """Return the places of an image that could be labelled.

    Parameters
    ----------
    shape : tuple of int
        ([Z,] Y, X).
    unit : {"cases", "slices", "boxes"}
        The whole image; each slice across ``axis`` (a picture is one slice); boxes that fill it without overlapping.
    size : sequence of int
        Of the boxes; cut at the borders of the image.
    axis : int
        See ``drawing_axis``.
    """
    whole = tuple((0, n) for n in shape)
    if unit == "cases" or (unit == "slices" and len(shape) == 2):
        return [whole]
    if unit == "slices":
        return [(*whole[:axis], (i, i + 1), *whole[axis + 1 :]) for i in range(shape[axis])]
    counts = [max(1, round(n / s)) for n, s in zip(shape, size, strict=True)]
    edges = [np.linspace(0, n, count + 1).round().astype(int) for n, count in zip(shape, counts, strict=True)]
    return [
        tuple((int(edge[i]), int(edge[i + 1])) for edge, i in zip(edges, index, strict=True))
        for index in np.ndindex(*counts)
    ]


def places_of(
    case: str,
    entropy: NDArray[np.float32],
    seen: NDArray[Any],
    scheme: LabelScheme,
    boxes: Sequence[tuple[Span, ...]],
    *,
    unit: Unit,
    axis: int,
    annotated: NDArray[np.bool_] | None = None,
) -> list[Spot]:
    """Measure the places of an image.

    Parameters
    ----------
    case : str
        Its name.
    entropy : ndarray of float32, shape ([Z,] Y, X)
        From ``entropy_of``.
    seen : ndarray of int, same shape
        The network's labels.
    scheme : LabelScheme
        What they mean.
    boxes : sequence
        From ``boxes_in``.
    unit, axis
        As there.
    annotated : ndarray of bool, same shape, optional
        Voxels that are labelled already. Places of which more than half is are left out.
    """
    found = []
    spread = max(1, seen.shape[axis] // _APART) if unit == "slices" and seen.ndim == 3 else 0
    for number, box in enumerate(boxes):
        where = tuple(slice(lo, hi) for lo, hi in box)
        own, labels = entropy[where], seen[where]
        free = np.ones(own.shape, dtype=bool) if annotated is None else ~annotated[where]
        voxels = int(np.count_nonzero(free))
        if voxels <= own.size // 2:
            continue
        classes: dict[Region, tuple[int, float]] = {}
        outlines = 0
        others = tuple(a for a in range(labels.ndim) if a != axis or labels.ndim == 2)
        for target in targets_of_heads(scheme, background=False):
            there = np.isin(labels, target) & free
            count = int(np.count_nonzero(there))
            if count:
                classes[target] = (count, float(own[there].mean(dtype=np.float64)))
                outlines += int(np.count_nonzero(there.any(axis=others)))
        peak = np.unravel_index(int(np.argmax(np.where(free, own, -1))), own.shape)
        middle = tuple(int(n) + lo for n, (lo, _) in zip(peak, box, strict=True))
        mean = float(own[free].mean(dtype=np.float64))
        found.append(Spot(case, number, box, voxels, mean, classes, outlines, middle, spread, own.size < seen.size))
    return found


def choose_places(
    places: Sequence[Spot], strategy: Strategy, budget: int, *, turn: int, rng: np.random.Generator
) -> list[Spot]:
    """Return the places to label, the first one first.

    Parameters
    ----------
    places : sequence of Spot
        All there are.
    strategy : {"random", "entropy", "stratified"}
        See above.
    budget : int
        How many; fewer come back where there are no more that differ.
    turn : int
        The round, from 1 on; ``stratified`` is less noisy in later ones.
    rng : numpy.random.Generator
        Draws.
    """
    left = list(places)
    classes = sorted({target for place in places for target in place.classes}, key=str)
    noise = rng.gumbel(0, 0.5 ** (turn - 1), (len(places), len(classes) + 1))
    keys = {id(place): noise[i] for i, place in enumerate(places)}
    chosen: list[Spot] = []
    while left and len(chosen) < budget:
        if strategy == "random":
            pick = _drawn(left, rng)
        elif strategy == "entropy":
            pick = max(left, key=lambda place: place.entropy)
        else:
            aimed = bool(classes) and (len(chosen) % 3) / 3 < _AIMED
            turn_of = (len(chosen) - len(chosen) // 3) % max(len(classes), 1)
            pick = _doubtful(left, classes[turn_of] if aimed else None, keys, turn_of if aimed else -1)
        chosen.append(pick)
        left = [place for place in left if not _alike(place, pick)]
    return chosen


def _drawn(left: Sequence[Spot], rng: np.random.Generator) -> Spot:
    weights = np.array([place.foreground for place in left], dtype=float)
    if rng.random() < _AIMED and weights.sum() > 0:
        return left[int(rng.choice(len(left), p=weights / weights.sum()))]
    return left[int(rng.integers(len(left)))]


def _doubtful(left: Sequence[Spot], target: Region | None, keys: dict[int, NDArray[Any]], column: int) -> Spot:
    """Return the place of the highest disturbed log-entropy: of a class where it is seen anywhere, else of all."""
    if target is not None:
        left = [place for place in left if target in place.classes] or left

    def value(place: Spot) -> float:
        entropy = place.entropy if target not in place.classes else place.classes[target][1]
        return math.log(entropy + _TINY) + float(keys[id(place)][column])

    return max(left, key=value)


def _alike(one: Spot, other: Spot) -> bool:
    return one is other or (one.case == other.case and abs(one.number - other.number) <= one.spread > 0)
