"""Which object is which: numbered objects of a reference and a prediction, matched by intersection over union.

Average precision as Caicedo et al. 2019 and StarDist (Schmidt et al. 2018) count it, panoptic quality of Kirillov et
al. 2019, SEG of the Cell Tracking Challenge (Maška et al. 2014).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy  # its parts are loaded when they are used: a prediction of classes needs none
from numpy.typing import NDArray

THRESHOLDS = tuple(round(0.5 + 0.05 * i, 2) for i in range(10))
_PIECE = 1 << 24  # voxels counted at once


@dataclass(frozen=True, eq=False)
class Matching:
    """How the objects of references and predictions overlap; those of several pictures can be added.

    Parameters
    ----------
    references, predictions : ndarray of int64
        Sizes of the objects in voxels.
    reference, prediction : ndarray of int64, shape (pairs,)
        Positions in these of two objects that share voxels.
    shared : ndarray of int64, shape (pairs,)
        Voxels that they share.
    reference_numbers, prediction_numbers : ndarray of int64
        The objects' own numbers.
    """

    references: NDArray[np.int64]
    predictions: NDArray[np.int64]
    reference: NDArray[np.int64]
    prediction: NDArray[np.int64]
    shared: NDArray[np.int64]
    reference_numbers: NDArray[np.int64]
    prediction_numbers: NDArray[np.int64]

    @classmethod
    def none(cls) -> Matching:
        """Return the matching of no pictures, to which others are added."""
        empty = np.zeros(0, dtype=np.int64)
        return cls(*(empty,) * 7)

    @classmethod
    def of(cls, reference: NDArray[Any], prediction: NDArray[Any]) -> Matching:
        """Count the overlaps of two maps of object numbers, shape ([Z,] Y, X), 0 where no object is.

        Raises
        ------
        ValueError
            If their shapes differ.
        """
        if reference.shape != prediction.shape:
            raise ValueError(f"the reference has shape {reference.shape}, the prediction {prediction.shape}")
        names, sizes = _counts(reference)
        found, extents = _counts(prediction)
        pairs: dict[int, int] = {}
        first, second = reference.reshape(-1), prediction.reshape(-1)
        for start in range(0, first.size, _PIECE):
            a, b = first[start : start + _PIECE], second[start : start + _PIECE]
            both = (a != 0) & (b != 0)
            joint = np.searchsorted(names, a[both]) * len(found) + np.searchsorted(found, b[both])
            for pair, count in zip(*np.unique(joint, return_counts=True), strict=True):
                pairs[int(pair)] = pairs.get(int(pair), 0) + int(count)
        keys = np.fromiter(pairs, dtype=np.int64, count=len(pairs))
        shared = np.fromiter(pairs.values(), dtype=np.int64, count=len(pairs))
        columns = max(len(found), 1)
        return cls(sizes, extents, keys // columns, keys % columns, shared, names, found)

    def __add__(self, other: Matching) -> Matching:
        """Join the objects of two pictures."""
        return Matching(
            np.concatenate([self.references, other.references]),
            np.concatenate([self.predictions, other.predictions]),
            np.concatenate([self.reference, other.reference + len(self.references)]),
            np.concatenate([self.prediction, other.prediction + len(self.predictions)]),
            np.concatenate([self.shared, other.shared]),
            np.concatenate([self.reference_numbers, other.reference_numbers]),
            np.concatenate([self.prediction_numbers, other.prediction_numbers]),
        )

    def by_kind(self, references: Mapping[int, str], predictions: Mapping[int, str]) -> dict[str, Matching]:
        """Return the matching of each kind; objects of different kinds are never matched.

        Parameters
        ----------
        references, predictions : dict of int to str
            The kind of every object by its number.
        """
        first = np.array([references[int(n)] for n in self.reference_numbers], dtype=object)
        second = np.array([predictions[int(n)] for n in self.prediction_numbers], dtype=object)
        return {kind: self._part(first == kind, second == kind) for kind in dict.fromkeys([*first, *second])}

    def _part(self, references: NDArray[np.bool_], predictions: NDArray[np.bool_]) -> Matching:
        """Return the matching of some objects of both sides."""
        both = references[self.reference] & predictions[self.prediction]
        return Matching(
            self.references[references],
            self.predictions[predictions],
            (np.cumsum(references) - 1)[self.reference[both]],
            (np.cumsum(predictions) - 1)[self.prediction[both]],
            self.shared[both],
            self.reference_numbers[references],
            self.prediction_numbers[predictions],
        )

    @property
    def iou(self) -> NDArray[np.float64]:
        """Intersection over union of each pair that overlaps."""
        union = self.references[self.reference] + self.predictions[self.prediction] - self.shared
        return np.asarray(self.shared / union, dtype=np.float64)

    def pairs(self, threshold: float = 0.5) -> NDArray[np.int64]:
        """Return which overlapping pairs are matches, each object in at most one.

        The largest number of pairs with an IoU of at least the threshold. From 0.5 on hardly any choice is left: of two
        objects that share half or more with the same third, both share exactly half.

        Parameters
        ----------
        threshold : float
            At least 0.5.

        Returns
        -------
        ndarray of int64
            Positions in `reference`, `prediction`, `shared` and `iou`.
        """
        if threshold < 0.5:
            raise ValueError(f"objects are matched from an IoU of 0.5 on, not {threshold}")
        good = np.flatnonzero(self.iou >= threshold)
        if not len(good):
            return good
        rows, columns = self.reference[good], self.prediction[good]
        graph = scipy.sparse.csr_array((good + 1, (rows, columns)), shape=(len(self.references), len(self.predictions)))
        partner = scipy.sparse.csgraph.maximum_bipartite_matching(graph, perm_type="column")
        return good[partner[rows] == columns]

    def counts(self, threshold: float = 0.5) -> tuple[int, int, int]:
        """Return the numbers of objects that are found, invented and missed."""
        found = len(self.pairs(threshold))
        return found, len(self.predictions) - found, len(self.references) - found

    def precision(self, threshold: float = 0.5) -> float:
        """Average precision as microscopy counts it: TP / (TP + FP + FN); NaN without objects."""
        found, invented, missed = self.counts(threshold)
        return _ratio(found, found + invented + missed)

    def f1(self, threshold: float = 0.5) -> float:
        """F1 score, 2 TP / (2 TP + FP + FN); NaN without objects."""
        found, invented, missed = self.counts(threshold)
        return _ratio(2 * found, 2 * found + invented + missed)

    @property
    def panoptic_quality(self) -> float:
        """Sum of the matches' IoU over TP + FP / 2 + FN / 2, at an IoU of 0.5; NaN without objects."""
        found, invented, missed = self.counts()
        return _ratio(float(self.iou[self.pairs()].sum()), found + (invented + missed) / 2)

    @property
    def seg(self) -> float:
        """Mean over the reference's objects of the IoU with the one prediction that covers more than half, else 0."""
        most = 2 * self.shared > self.references[self.reference]
        return _ratio(float(self.iou[most].sum()), len(self.references))

    @property
    def split(self) -> NDArray[np.int64]:
        """Positions of the reference's objects in which two or more predictions lie for the greater part."""
        inside = 2 * self.shared > self.predictions[self.prediction]
        parts = np.bincount(self.reference[inside], minlength=len(self.references))
        return np.flatnonzero(parts > 1)

    @property
    def merged(self) -> NDArray[np.int64]:
        """Positions of the predictions that hold the greater part of two or more of the reference's objects."""
        inside = 2 * self.shared > self.references[self.reference]
        parts = np.bincount(self.prediction[inside], minlength=len(self.predictions))
        return np.flatnonzero(parts > 1)


def annotated_part(objects: NDArray[Any], ignored: NDArray[np.bool_], reference: NDArray[Any]) -> NDArray[Any]:
    """Return the predicted objects of what somebody annotated, as a copy.

    Parameters
    ----------
    objects : ndarray of int, shape ([Z,] Y, X)
        Object numbers, 0 where no object is.
    ignored : ndarray of bool, same shape
        What nobody annotated. Objects that lie there for more than half are left out, others lose what lies there.
    reference : ndarray of int, same shape
        The objects that were drawn; where one is, somebody annotated, whatever ``ignored`` says.
    """
    ignored = ignored & (reference == 0)
    names, place = np.unique(objects, return_inverse=True)
    place = place.reshape(-1)
    outside = np.bincount(place[ignored.reshape(-1)], minlength=len(names))
    gone = 2 * outside > np.bincount(place, minlength=len(names))
    return np.where(ignored | gone[place].reshape(objects.shape), 0, objects)


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else float("nan")


def _counts(objects: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the numbers of the objects, ascending, and their sizes."""
    flat = objects.reshape(-1)
    if flat.size and flat.min() >= 0 and flat.max() < 1 << 24:
        sizes = np.zeros(int(flat.max()) + 1, dtype=np.int64)
        for start in range(0, flat.size, _PIECE):
            sizes += np.bincount(flat[start : start + _PIECE], minlength=len(sizes))
        sizes[0] = 0
        names = np.flatnonzero(sizes)
        return names, sizes[names]
    names, sizes = np.unique(flat, return_counts=True)
    return names[names != 0].astype(np.int64), sizes[names != 0].astype(np.int64)
