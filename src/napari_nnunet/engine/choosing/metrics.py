"""How well a segmentation agrees with its reference: voxel counts, Dice and IoU, as in nnU-Net's summary.json."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_nnunet.schema.dataset import LabelScheme, Region

Metrics = dict[str, float | int]
_NAMES = ("Dice", "FN", "FP", "IoU", "TN", "TP", "n_pred", "n_ref")


def evaluated(scheme: LabelScheme) -> tuple[Region, ...]:
    """Return what is measured: every foreground label, or every region."""
    return scheme.regions if scheme.has_regions else scheme.foreground_labels


_CHUNK = 1 << 22  # voxels counted at once: eight bytes each meanwhile
_TABLE = 1024  # values up to which a table of all pairs is kept; what is beyond is renumbered first


@dataclass(frozen=True, eq=False)
class Joint:
    """How often each value of a reference meets each value of a prediction.

    Every metric of every label and region follows from it, so the voxels are read once however many labels there are.

    Parameters
    ----------
    table : ndarray of int64, shape (n, n)
        ``table[i, j]``: voxels with ``values[i]`` in the reference and ``values[j]`` in the prediction.
    values : ndarray of int64, shape (n,)
        Ascending.
    """

    table: NDArray[np.int64]
    values: NDArray[np.int64]

    @classmethod
    def count(cls, reference: NDArray[Any], prediction: NDArray[Any]) -> Joint:
        """Count the pairs of two label maps ([Z,] Y, X) on the same grid.

        Raises
        ------
        ValueError
            If their shapes differ.
        """
        if reference.shape != prediction.shape:
            raise ValueError(f"the reference has shape {reference.shape}, the prediction {prediction.shape}")
        values = _values(reference, prediction)
        n = len(values)
        plain = n == 0 or (values[0] == 0 and values[-1] == n - 1)
        table = np.zeros(n * n, dtype=np.int64)
        first, second = reference.reshape(-1), prediction.reshape(-1)
        for lo in range(0, first.size, _CHUNK):
            r, p = first[lo : lo + _CHUNK], second[lo : lo + _CHUNK]
            rows, columns = (r, p) if plain else (np.searchsorted(values, r), np.searchsorted(values, p))
            table += np.bincount(rows.astype(np.intp) * n + columns, minlength=n * n)
        return cls(table.reshape(n, n), values)

    def metrics(self, labels: Sequence[Region], ignore_label: int | None = None) -> dict[Region, Metrics]:
        """Return nnU-Net's metrics of every label or region; voxels with ``ignore_label`` in the reference are out."""
        table = self.table
        if ignore_label is not None:
            table = table.copy()
            table[self.values == ignore_label] = 0
        total = int(table.sum())
        found = {}
        for label in labels:
            members = np.isin(self.values, label)
            hits = int(table[np.ix_(members, members)].sum())
            real, predicted = int(table[members].sum()), int(table[:, members].sum())
            found[label] = _metrics(hits, predicted - hits, real - hits, total)
        return found

    @property
    def present(self) -> tuple[int, ...]:
        """The values but 0 that occur in either map."""
        met = (self.table.sum(axis=0) + self.table.sum(axis=1)) > 0
        return tuple(int(value) for value in self.values[met] if value != 0)

    @property
    def predicted(self) -> tuple[int, ...]:
        """The values that occur in the prediction."""
        return tuple(int(value) for value in self.values[self.table.sum(axis=0) > 0])

    @property
    def expected(self) -> tuple[int, ...]:
        """The values that occur in the reference."""
        return tuple(int(value) for value in self.values[self.table.sum(axis=1) > 0])

    def without(self, removed: Joint) -> Joint:
        """Return the table after the voxels counted in ``removed`` became background in the prediction.

        Parameters
        ----------
        removed : Joint
            Of the same values (see :meth:`recount`).
        """
        table = self.table - removed.table
        table[:, int(np.searchsorted(self.values, 0))] += removed.table.sum(axis=1)
        return Joint(table, self.values)

    def of(self, label: Region) -> Joint:
        """Return the table of the voxels that have a label in the prediction."""
        return Joint(np.where(np.isin(self.values, label), self.table, 0), self.values)

    def recount(self, reference: NDArray[Any], prediction: NDArray[Any]) -> Joint:
        """Count some of the voxels again, in a table of the same values."""
        n = len(self.values)
        pairs = np.searchsorted(self.values, reference) * n + np.searchsorted(self.values, prediction)
        return Joint(np.bincount(pairs.ravel(), minlength=n * n).reshape(n, n), self.values)


def _values(reference: NDArray[Any], prediction: NDArray[Any]) -> NDArray[np.int64]:
    """Return the values that may occur: 0 to the highest, or exactly those that do if that is too many."""
    if not reference.size:
        return np.zeros(0, dtype=np.int64)
    lowest = min(int(reference.min()), int(prediction.min()), 0)
    highest = max(int(reference.max()), int(prediction.max()))
    if lowest == 0 and highest < _TABLE:
        return np.arange(highest + 1)
    return np.unique(np.concatenate([[0], np.unique(reference), np.unique(prediction)])).astype(np.int64)


def measure_labels(
    reference: NDArray[Any], prediction: NDArray[Any], labels: Sequence[Region], ignore_label: int | None = None
) -> dict[Region, Metrics]:
    """Count voxels of every label or region.

    Parameters
    ----------
    reference, prediction : ndarray of int, shape ([Z,] Y, X)
        On the same grid.
    labels : sequence of int or tuple of int
        Labels, or groups of labels.
    ignore_label : int, optional
        Voxels with this value in the reference do not count.

    Returns
    -------
    dict
        Per label TP, FP, FN, TN, n_pred, n_ref (voxels), Dice and IoU; the last two NaN if there is nothing.
    """
    return Joint.count(reference, prediction).metrics(labels, ignore_label)


def _metrics(hits: int, wrong: int, missed: int, total: int) -> Metrics:
    union = hits + wrong + missed
    return {
        "Dice": 2 * hits / (union + hits) if union else math.nan,
        "FN": missed,
        "FP": wrong,
        "IoU": hits / union if union else math.nan,
        "TN": total - union,
        "TP": hits,
        "n_pred": hits + wrong,
        "n_ref": hits + missed,
    }


def blanked(metrics: Mapping[Region, Metrics], unknown: Collection[Region]) -> dict[Region, Metrics]:
    """Return metrics in which those of labels that nobody looked for are not numbers, so that no mean counts them."""
    return {
        label: dict.fromkeys(values, math.nan) if label in unknown else dict(values)
        for label, values in metrics.items()
    }


def summarize(
    cases: Sequence[Mapping[Region, Metrics]], labels: Sequence[Region]
) -> tuple[Metrics, dict[str, Metrics]]:
    """Return the means over the labels, and those of each label over all cases (NaN left out)."""
    names = sorted({name for case in cases for values in case.values() for name in values}) or list(_NAMES)
    mean = {str(label): {name: _mean([case[label][name] for case in cases]) for name in names} for label in labels}
    over = {name: float(np.mean([values[name] for values in mean.values()])) for name in names}
    return over, mean


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return float(np.mean(known)) if known else math.nan
