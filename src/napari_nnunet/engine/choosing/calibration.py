"""Temperature scaling: one number that makes probabilities mean what they say (Guo et al., ICML 2017)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_TINY = 1e-7
_RANGE = (math.log(0.1), math.log(20.0))
_BINS = 15


@dataclass(frozen=True)
class Calibration:
    """How sure a model may be.

    Parameters
    ----------
    temperature : float
        Probabilities are raised to 1 / temperature and normalised. Above 1: the model was too sure.
    loss_before, loss_after : float
        Mean negative log-likelihood of the true classes.
    error_before, error_after : float
        Expected calibration error: how far the stated confidence and the share of hits lie apart, 0 to 1.
    voxels, cases : int
        What this rests on.
    """

    temperature: float
    loss_before: float
    loss_after: float
    error_before: float
    error_after: float
    voxels: int
    cases: int = 0


def fit_temperature(probabilities: NDArray[np.floating], truth: NDArray[np.integer]) -> Calibration:
    """Find the temperature under which the true classes are likeliest.

    Parameters
    ----------
    probabilities : ndarray, shape (N, C)
        Of N voxels.
    truth : ndarray of int, shape (N,)
        Their classes, 0 to C - 1.

    Raises
    ------
    ValueError
        If there is no voxel.
    """
    if not len(truth):
        raise ValueError("there is no voxel to calibrate with")
    from scipy.optimize import minimize_scalar  # a second to load, which predictions need not wait

    logs = np.log(np.clip(np.asarray(probabilities, dtype=np.float64), _TINY, 1))
    rows = np.arange(len(truth))

    def loss(log_temperature: float) -> float:
        scaled = logs / math.exp(log_temperature)
        return float(np.mean(np.logaddexp.reduce(scaled, axis=1) - scaled[rows, truth]))

    best = float(minimize_scalar(loss, bounds=_RANGE, method="bounded", options={"xatol": 1e-4}).x)
    if loss(best) > loss(0.0):
        best = 0.0
    return Calibration(
        temperature=math.exp(best),
        loss_before=loss(0.0),
        loss_after=loss(best),
        error_before=_error(logs, truth),
        error_after=_error(logs / math.exp(best), truth),
        voxels=len(truth),
    )


def _error(logs: NDArray[np.float64], truth: NDArray[np.integer]) -> float:
    """Return the expected calibration error of the likeliest class."""
    p = np.exp(logs - np.logaddexp.reduce(logs, axis=1)[:, None])
    sure, hit = p.max(axis=1), p.argmax(axis=1) == truth
    bins = np.minimum((sure * _BINS).astype(int), _BINS - 1)
    count = np.bincount(bins, minlength=_BINS)
    apart = np.bincount(bins, weights=sure - hit, minlength=_BINS)
    return float(np.abs(apart[count > 0]).sum() / len(truth))
