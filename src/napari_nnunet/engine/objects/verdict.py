"""What became of every object: found, missed, invented, split or merged; as a map to look at and as a list."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_nnunet.engine.objects.match import Matching

Fate = Literal["found", "missed", "invented", "split", "merged"]
#: Values of the map; what is wrong is painted over what is right.
FATES: dict[Fate, int] = {"found": 1, "missed": 2, "invented": 3, "split": 4, "merged": 5}


@dataclass(frozen=True)
class Verdict:
    """What became of one object.

    Parameters
    ----------
    fate : str
        A match with an IoU of at least 0.5 is *found*. A reference that holds the greater part of several predictions
        is *split*, a prediction that holds the greater part of several references *merged*, whether one of them
        matches or not. Other references are *missed*, other predictions *invented*.
    references, predictions : tuple of int
        The numbers of those concerned.
    iou : float
        Of the pair that was found; else 0.
    place : tuple of float
        Voxel ([Z,] Y, X) in its middle.
    """

    fate: Fate
    references: tuple[int, ...]
    predictions: tuple[int, ...]
    iou: float
    place: tuple[float, ...]


def verdicts(
    reference: NDArray[Any], prediction: NDArray[Any]
) -> tuple[Matching, NDArray[np.uint8], tuple[Verdict, ...]]:
    """Match two maps of numbered objects and say what became of each.

    Parameters
    ----------
    reference, prediction : ndarray of int, shape ([Z,] Y, X)
        Object numbers, 0 where no object is.

    Returns
    -------
    matching : Matching
        For scores.
    painted : ndarray of uint8, same shape
        See :data:`FATES`; 0 where neither has an object.
    verdicts : tuple of Verdict
        What is wrong first.
    """
    found = Matching.of(reference, prediction)
    names, others = found.reference_numbers, found.prediction_numbers
    first = np.full(len(names), FATES["missed"], dtype=np.uint8)
    second = np.full(len(others), FATES["invented"], dtype=np.uint8)
    pairs = found.pairs()
    first[found.reference[pairs]] = second[found.prediction[pairs]] = FATES["found"]
    parts = 2 * found.shared > found.predictions[found.prediction]
    members = 2 * found.shared > found.references[found.reference]
    listed: list[tuple[Fate, NDArray[np.int64], NDArray[np.int64], float]] = []
    for one in found.split:
        own = found.prediction[parts & (found.reference == one)]
        first[one] = second[own] = FATES["split"]
        listed.append(("split", np.array([one]), own, 0.0))
    for one in found.merged:
        own = found.reference[members & (found.prediction == one)]
        second[one] = first[own] = FATES["merged"]
        listed.append(("merged", own, np.array([one]), 0.0))
    nothing = np.zeros(0, dtype=np.int64)
    listed += [("missed", np.array([i]), nothing, 0.0) for i in np.flatnonzero(first == FATES["missed"])]
    listed += [("invented", nothing, np.array([i]), 0.0) for i in np.flatnonzero(second == FATES["invented"])]
    iou = found.iou
    listed += [
        ("found", np.array([r]), np.array([p]), float(iou[pair]))
        for pair in pairs
        if first[r := found.reference[pair]] == FATES["found"] == second[p := found.prediction[pair]]
    ]
    painted = np.maximum(_painted(reference, names, first), _painted(prediction, others, second))
    middles = _middles(reference, names), _middles(prediction, others)
    return (
        found,
        painted,
        tuple(
            Verdict(
                fate,
                tuple(int(names[i]) for i in own),
                tuple(int(others[i]) for i in theirs),
                value,
                tuple(middles[0][own[0]] if len(own) else middles[1][theirs[0]]),
            )
            for fate, own, theirs, value in listed
        ),
    )


def verdicts_by_kind(
    reference: NDArray[Any],
    prediction: NDArray[Any],
    references: Mapping[int, str],
    predictions: Mapping[int, str],
) -> tuple[Matching, NDArray[np.uint8], tuple[Verdict, ...]]:
    """Say what became of each object as :func:`verdicts` does; objects of different kinds are no match.

    Parameters
    ----------
    reference, prediction : ndarray of int, shape ([Z,] Y, X)
        Object numbers, 0 where no object is.
    references, predictions : dict of int to str
        The kind of every object by its number. Where a side with objects tells none, kinds are not told apart.
    """
    if (not references and reference.any()) or (not predictions and prediction.any()):
        return verdicts(reference, prediction)
    matching, painted, found = Matching.none(), np.zeros(reference.shape, np.uint8), list[Verdict]()
    for kind in dict.fromkeys([*references.values(), *predictions.values()]):
        own, marked, fates = verdicts(_of_kind(reference, references, kind), _of_kind(prediction, predictions, kind))
        matching += own
        painted = np.maximum(painted, marked)
        found += fates
    return matching, painted, wrong_first(found)


def wrong_first(found: Sequence[Verdict]) -> tuple[Verdict, ...]:
    """Return verdicts with those of found objects at the end."""
    return tuple(sorted(found, key=lambda verdict: verdict.fate == "found"))


def _of_kind(objects: NDArray[Any], kinds: Mapping[int, str], kind: str) -> NDArray[Any]:
    """Return the objects of a kind, 0 elsewhere."""
    return np.where(np.isin(objects, [number for number, own in kinds.items() if own == kind]), objects, 0)


def _painted(objects: NDArray[Any], numbers: NDArray[np.int64], fates: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the fate of the object at every voxel."""
    if not len(numbers):
        return np.zeros(objects.shape, dtype=np.uint8)
    places = np.minimum(np.searchsorted(numbers, objects), len(numbers) - 1)
    return np.where(objects != 0, fates[places], 0).astype(np.uint8)


def _middles(objects: NDArray[Any], numbers: NDArray[np.int64]) -> list[tuple[float, ...]]:
    """Return the middle of every object's bounding box."""
    if not len(numbers):
        return []
    places = np.searchsorted(numbers, objects) + 1
    places[objects == 0] = 0
    boxes = ndimage.find_objects(places, len(numbers))
    return [tuple((part.start + part.stop - 1) / 2 for part in box) for box in boxes]
