"""From what a network says of itself to a true Dice: a line on the logit scale, fitted to known cases.

It is fitted as shares are (fractional logit, Papke & Wooldridge 1996), so hopeless cases weigh no more than others.

Without a reason to do otherwise the Dice that the probabilities expect is believed (slope 1, nothing else counts).
Further signs count as far as cases that were left out are predicted better with them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

_RIDGE = 0.2  # a prior about as strong as one case, that the probabilities are right
_SIGNS = (0.3, 1.0, 3.0, 10.0)  # the same for "other signs say nothing"; all are tried, and no signs at all
_TURNS = 100  # of Newton's method at most; a handful is enough mostly
_CLOSE = 1e-10  # what another step would gain
_GAIN = 0.97  # of the error: signs have to earn their place
_FAR = 3.0  # standard deviations: a stranger sign counts no more than that
_FLOOR = 0.02  # Dice: spread of the best results
_LIMIT = 0.005  # Dice is kept this far from 0 and 1 on the logit scale

Measured = NDArray[np.float64]


def logit(dice: Any) -> Measured:
    """Return the logit of Dice values, which are kept away from 0 and 1."""
    kept = np.clip(np.asarray(dice, dtype=float), _LIMIT, 1 - _LIMIT)
    result: Measured = np.log(kept / (1 - kept))
    return result


def spread_at(dice: Measured) -> Measured:
    """Return how far results of a Dice scatter, up to a factor: the worse, the further."""
    return _FLOOR + (1 - dice)


@dataclass(frozen=True, eq=False)
class _Line:
    """A fitted line.

    Parameters
    ----------
    weights : ndarray, shape (2 + signs,)
        Level, slope, and one for each sign.
    centre, scale : ndarray, shape (signs,)
        That make signs comparable.
    middle : float
        Logit of the Dice that is expected in the middle.
    """

    weights: Measured
    centre: Measured
    scale: Measured
    middle: float

    def __call__(self, expected: Measured, signs: Measured) -> Measured:
        """Return the Dice, shape (n,), of expected Dice (n,) and signs (n, signs)."""
        far = np.clip((signs - self.centre) / self.scale, -_FAR, _FAR)
        level, slope, *others = self.weights
        result: Measured = expit(level + slope * (logit(expected) - self.middle) + far @ np.array(others, dtype=float))
        return result


def _line(expected: Measured, dice: Measured, signs: Measured, ridge: float) -> _Line:
    u = logit(expected)
    middle = float(u.mean())
    centre, scale = signs.mean(axis=0), np.maximum(signs.std(axis=0), 1e-3)
    far = np.clip((signs - centre) / scale, -_FAR, _FAR)
    design = np.column_stack([np.ones_like(u), u - middle, far])
    prior = np.array([middle, 1.0, *[0.0] * signs.shape[1]])
    hold = np.diag([_RIDGE, _RIDGE, *[ridge] * signs.shape[1]])

    def loss(weights: Measured) -> float:
        """Return what is made as small as possible; it has one minimum."""
        value, off = design @ weights, weights - prior
        return float(np.logaddexp(0.0, value).sum() - dice @ value + off @ hold @ off / 2)

    weights, height = prior, loss(prior)
    for _ in range(_TURNS):
        p = expit(design @ weights)
        downhill = design.T @ (dice - p) - hold @ (weights - prior)
        step = np.linalg.solve(design.T @ ((p * (1 - p))[:, None] * design) + hold, downhill)
        if downhill @ step < _CLOSE:
            break
        while (lower := loss(weights + step)) >= height and downhill @ step >= _CLOSE:
            step = step / 2  # where p is nearly 0 or 1 the curve is flat, and a whole step leads far beyond
        if lower >= height:
            break
        weights, height = weights + step, lower
    weights[1] = max(weights[1], 0.0)
    return _Line(weights, centre, scale, middle)


@dataclass(frozen=True, eq=False)
class Fit:
    """What is predicted, and how far cases that were left out missed it.

    Parameters
    ----------
    line : callable
        From expected Dice (n,) and signs (n, signs) to Dice (n,).
    signs : bool
        Whether signs count.
    misses : ndarray, shape (known,)
        Truth minus prediction, in units of :func:`spread_at`, of each known result, predicted without its case.
    cases : int
        How many known cases there are, without their copies.
    """

    line: _Line
    signs: bool
    misses: Measured
    cases: int

    def interval(self, expected: float, signs: Measured, cover: float) -> tuple[float, float, float]:
        """Return the predicted Dice and the ends of an interval that holds a share ``cover`` of the truth."""
        used = signs if self.signs else signs[:0]
        middle = float(self.line(np.array([expected]), used[None])[0])
        rank = min(1.0, cover / 2 + 0.5 + 1 / (self.cases + 1))  # copies of a case are not cases
        low, high = np.quantile(self.misses, (1 - rank, rank))
        spread = float(spread_at(np.array([middle]))[0])
        return middle, max(0.0, middle + min(low, 0) * spread), min(1.0, middle + max(high, 0) * spread)


def fitted(expected: Measured, dice: Measured, signs: Measured, cases: Sequence[str]) -> Fit:
    """Fit to known results.

    Parameters
    ----------
    expected, dice : ndarray, shape (n,)
        What the probabilities expected, and the truth.
    signs : ndarray, shape (n, signs)
        Further signs; no columns where there are none.
    cases : sequence of str, length n
        Copies of a case are left out together.
    """
    which = np.array(cases)
    nothing = signs[:, :0]
    count = len(set(cases))
    misses = _misses(expected, dice, nothing, which, 0.0)
    best = Fit(_line(expected, dice, nothing, 0.0), signs=False, misses=misses, cases=count)
    least = _GAIN * np.abs(best.misses).mean()
    for ridge in _SIGNS if signs.shape[1] and count > 1 else ():
        misses = _misses(expected, dice, signs, which, ridge)
        if np.abs(misses).mean() < least:
            least = np.abs(misses).mean()
            best = Fit(_line(expected, dice, signs, ridge), signs=True, misses=misses, cases=count)
    return best


def _misses(expected: Measured, dice: Measured, signs: Measured, cases: NDArray[Any], ridge: float) -> Measured:
    misses = np.zeros_like(dice)
    for case in dict.fromkeys(cases):
        out = cases == case
        if out.all():  # nothing is left to learn from
            predicted = expected[out]
        else:
            predicted = _line(expected[~out], dice[~out], signs[~out], ridge)(expected[out], signs[out])
        misses[out] = (dice[out] - predicted) / spread_at(predicted)
    return misses
