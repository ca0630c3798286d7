"""How well a segmentation agrees with its reference: nnU-Net's counts and quotients (facts part 2, 5.2)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_nnunet.schema.dataset import LabelScheme, Region

Metrics = dict[str, float | int]
_NAMES = ("Dice", "FN", "FP", "IoU", "TN", "TP", "n_pred", "n_ref")


def evaluated(scheme: LabelScheme) -> tuple[Region, ...]:
    """Return what is measured: every foreground label, or every region."""
    return scheme.regions if scheme.has_regions else scheme.foreground_labels


def measure(
    reference: NDArray[Any], prediction: NDArray[Any], labels: Sequence[Region], ignore_label: int | None = None
) -> dict[Region, Metrics]:
    """Count voxels of every label or region, plane by plane.

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
        Per label TP, FP, FN, TN, n_pred, n_ref (voxels), Dice and IoU; the last two NaN where there is nothing.
    """
    if reference.shape != prediction.shape:
        raise ValueError(f"the reference has shape {reference.shape}, the prediction {prediction.shape}")
    highest = 1 + max(int(reference.max(initial=0)), int(prediction.max(initial=0)))
    joint = np.zeros(highest * highest, dtype=np.int64)
    for r, p in zip(reference, prediction, strict=True):
        joint += np.bincount((r.astype(np.int64) * highest + p).ravel(), minlength=highest * highest)
    table = joint.reshape(highest, highest)
    if ignore_label is not None and ignore_label < highest:
        table[ignore_label] = 0
    total = int(table.sum())
    found = {}
    for label in labels:
        members = [v for v in (label if isinstance(label, tuple) else (label,)) if v < highest]
        hits = int(table[np.ix_(members, members)].sum())
        real, predicted = int(table[members].sum()), int(table[:, members].sum())
        found[label] = _metrics(hits, predicted - hits, real - hits, total)
    return found


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


def summarize(cases: Sequence[Mapping[Region, Metrics]], labels: Sequence[Region]) -> dict[str, Any]:
    """Return ``mean`` per label over all cases (NaN left out) and ``foreground_mean`` over the labels."""
    mean = {str(label): {name: _mean([case[label][name] for case in cases]) for name in _NAMES} for label in labels}
    over = {name: float(np.mean([values[name] for values in mean.values()])) for name in _NAMES}
    return {"foreground_mean": over, "mean": mean}


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return float(np.mean(known)) if known else math.nan
