"""How good a model becomes with more labels, and how sure one can be of that: a learning curve.

``Dice(n) = a - b n^-c`` (an inverse power law, as learning curves are usually described) is fitted to models that were
trained on different amounts: cases, slices or boxes, as what is to be labelled next. How far the curve may lie beside
its points is told by drawing points anew within their standard errors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

WORTH = 0.005  # Dice: a smaller gain is within what two trainings on the same cases differ
_LEAST = 3  # different amounts
_EXPONENTS = np.linspace(0.2, 2.0, 19)
_DRAWS = 300
_SMALLEST = 0.002  # Dice: no mean of validation cases is known better


@dataclass(frozen=True)
class CurvePoint:
    """A model: what was annotated for it, the mean Dice of its validation cases, and the standard error of it."""

    amount: float
    dice: float
    error: float


@dataclass(frozen=True)
class Gain:
    """What more labels are expected to bring, in Dice: the middle, and the ends of the 90 % interval."""

    more: int
    middle: float
    low: float
    high: float
    unit: Literal["cases", "slices", "boxes"] = "cases"

    @property
    def pays(self) -> bool:
        """Whether a gain that matters is within the interval."""
        return self.high >= WORTH

    @property
    def text(self) -> str:
        """The same in a sentence."""
        span = f"{self.middle:+.3f} Dice (90 % interval {self.low:+.3f} to {self.high:+.3f})"
        one = {"cases": "case", "slices": "slice", "boxes": "box"}[self.unit]
        more = f"{self.more} more {f'{one} brings' if self.more == 1 else f'{self.unit} bring'}"
        if self.pays:
            return f"By the learning curve, {more} {span}."
        return f"Labelling more is unlikely to pay: by the learning curve, {more} {span}."


def expected_gain(
    points: Sequence[CurvePoint], more: int, unit: Literal["cases", "slices", "boxes"] = "cases", *, seed: int = 0
) -> Gain | None:
    """Return what more labels are expected to bring to the model with the most.

    Parameters
    ----------
    points : sequence of CurvePoint
        At least three different amounts; otherwise None is returned, for nothing is known.
    more : int
        How many cases, slices or boxes.
    unit : {"cases", "slices", "boxes"}
        In what both are counted.
    seed : int
        Of the draws.
    """
    n = np.array([point.amount for point in points], dtype=float)
    if len(np.unique(n)) < _LEAST or (n <= 0).any():
        return None
    dice = np.array([point.dice for point in points])
    errors = np.maximum([point.error for point in points], _SMALLEST)
    rng = np.random.default_rng(seed)
    drawn = dice + rng.normal(size=(_DRAWS, len(n))) * errors
    gains = [_gain(n, values, errors, more) for values in drawn]
    low, high = np.quantile(gains, (0.05, 0.95))
    return Gain(more, float(np.median(gains)), float(low), float(high), unit)


def _gain(n: NDArray[np.float64], dice: NDArray[np.float64], errors: NDArray[np.float64], more: int) -> float:
    """Return the gain by the best of the curves that never fall and stay below 1."""
    best, result = np.inf, 0.0
    now, later = n.max(), n.max() + more
    weights = 1 / errors**2
    for exponent in _EXPONENTS:
        x = n**-exponent
        middle = np.average(x, weights=weights)
        spread = np.sum(weights * (x - middle) ** 2)
        slope = np.sum(weights * (x - middle) * dice) / spread if spread > 0 else 0.0
        level = np.average(dice, weights=weights) - slope * middle
        if level > 1:  # the best line through a Dice of 1 for endless cases
            level, slope = 1.0, np.sum(weights * x * (dice - 1)) / np.sum(weights * x * x)
        if slope > 0:
            level, slope = np.average(dice, weights=weights), 0.0
        miss = float(np.sum(weights * (dice - level - slope * x) ** 2))
        if miss < best:
            best, result = miss, float(slope * (later**-exponent - now**-exponent))
    return result
