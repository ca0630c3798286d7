"""How good a segmentation probably is, and whether its image is unlike those a model knows.

The Dice that a network's probabilities expect (mirrors and folds that disagree pull them towards the middle, so that
it falls) is turned into the Dice that is to be expected in truth: a line on the logit scale, fitted to cases that the
networks did not see and to degraded copies of them. Where there is little to fit, it stays near what the probabilities
say (ridge). The interval is the spread of the same cases, each left out in turn with its copies.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from scipy import ndimage

from napari_nnunet.schema.geometry import Geometry

LEAST_CASES = 5  # that a calibration needs
MEAN = "mean"
_COVER = 0.9
_RIDGE = 1.0  # a prior as strong as one case, that the probabilities are right
_FLOOR = 0.02  # Dice: spread of the best results
_LIMIT = 0.005  # Dice is kept this far from 0 and 1 on the logit scale
_POINTS = 64  # voxels along each axis that are looked at
_BEYOND = 0.5  # of the range of the known cases: what lies further outside is unlike them
_LEAST = {"voxel": math.log(1.3), "view": math.log(1.5), "volume": math.log(2.0), "shape": 0.1, "value": 0.0}


class CaseLook(BaseModel):
    """What an image looks like, in figures that can be compared.

    Parameters
    ----------
    figures : dict of str to float
        By their titles. Sizes are logarithms of mm.
    kinds : dict of str to str
        What each is: "voxel", "view" (field of view), "volume" (of a class), "shape" (of the histogram, without scale),
        "value" (an intensity).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    figures: dict[str, float]
    kinds: dict[str, str]


class KnownResult(BaseModel):
    """A segmentation whose truth is known.

    Parameters
    ----------
    case : str
        The case; its degraded copies have the same name.
    plain : bool
        Whether it is the case itself.
    expected, dice : dict of str to float
        By class: what the probabilities expected, and the truth.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    case: str
    plain: bool
    expected: dict[str, float]
    dice: dict[str, float]


class Judged(BaseModel):
    """How good a segmentation probably is.

    Parameters
    ----------
    dice : dict of str to (float, float, float)
        By class, and of their mean: predicted Dice, and the ends of the interval that holds the truth in nine of ten
        cases like those of the calibration.
    unlike : tuple of str
        In what the image is unlike the known cases, in words; the interval does not hold for such images.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    dice: dict[str, tuple[float, float, float]]
    unlike: tuple[str, ...] = ()

    @property
    def mean(self) -> float:
        """Predicted mean Dice; NaN where the network sees nothing."""
        return self.dice[MEAN][0] if MEAN in self.dice else math.nan

    @property
    def text(self) -> str:
        """The same in a line."""
        parts = [f"{name} {v:.2f} ({lo:.2f} to {hi:.2f})" for name, (v, lo, hi) in self.dice.items() if name != MEAN]
        said = "Predicted Dice: " + (", ".join(parts) or "unknown, as nothing was found") + "."
        if self.unlike:
            said += f" Unlike the training data, so that this may be too high: {'; '.join(self.unlike)}."
        return said


class QualityModel(BaseModel):
    """What was learnt from cases with known truth.

    Parameters
    ----------
    scored : tuple of KnownResult
        Cases and degraded copies.
    looks : tuple of CaseLook
        Of the cases themselves.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    scored: tuple[KnownResult, ...]
    looks: tuple[CaseLook, ...]

    def judge(self, expected: Mapping[str, float], look: CaseLook) -> Judged:
        """Return how good a segmentation probably is.

        Parameters
        ----------
        expected : mapping of str to float
            By class that the network sees: the Dice that its probabilities expect.
        look : CaseLook
            Of its image.
        """
        own = dict(expected)
        if own:
            own[MEAN] = float(np.mean(list(expected.values())))
        return Judged(dice={name: self._predict(name, value) for name, value in own.items()}, unlike=self.unlike(look))

    def _predict(self, name: str, expected: float) -> tuple[float, float, float]:
        known = [entry for entry in self.scored if name in entry.expected and name in entry.dice]
        known = known or [entry for entry in self.scored if MEAN in entry.expected and MEAN in entry.dice]
        key = name if known and name in known[0].expected else MEAN
        x = np.array([entry.expected[key] for entry in known])
        y = np.array([entry.dice[key] for entry in known])
        cases = np.array([entry.case for entry in known])
        middle = float(_line(x, y)(np.array([expected]))[0])
        misses = np.concatenate(
            [(y[cases == case] - (p := _line(x[cases != case], y[cases != case])(x[cases == case]))) / _spread(p)
             for case in dict.fromkeys(cases)]
        )  # fmt: skip
        rank = min(1.0, _COVER / 2 + 0.5 + 1 / (len(misses) + 1))
        low, high = np.quantile(misses, (1 - rank, rank))
        spread = float(_spread(np.array([middle]))[0])
        return middle, max(0.0, middle + min(low, 0) * spread), min(1.0, middle + max(high, 0) * spread)

    def unlike(self, look: CaseLook) -> tuple[str, ...]:
        """Return in what an image is unlike the known cases, in words."""
        found = []
        for title, value in look.figures.items():
            kind = look.kinds[title]
            known = [other.figures[title] for other in self.looks if title in other.figures]
            if len(known) < LEAST_CASES:
                continue
            low, high = min(known), max(known)
            margin = max(_BEYOND * (high - low), _LEAST[kind])
            if not low - margin <= value <= high + margin:
                found.append(f"{title} {_said(kind, value)}, in the known cases {_span(kind, low, high)}")
        return tuple(found)


def _said(kind: str, value: float) -> str:
    return f"is {_number(kind, value)}"


def _span(kind: str, low: float, high: float) -> str:
    one, other = _number(kind, low), _number(kind, high)
    return one if one == other else f"{one} to {other}"


def _number(kind: str, value: float) -> str:
    units = {"voxel": " mm", "view": " mm", "volume": " mm³"}
    return f"{math.exp(value):.3g}{units[kind]}" if kind in units else f"{value:.3g}"


def _logit(dice: NDArray[np.float64]) -> NDArray[np.float64]:
    kept = np.clip(dice, _LIMIT, 1 - _LIMIT)
    result: NDArray[np.float64] = np.log(kept / (1 - kept))
    return result


def _spread(dice: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return how far results of a Dice scatter, up to a factor: the worse, the further."""
    return _FLOOR + (1 - dice)


def _line(x: NDArray[np.float64], y: NDArray[np.float64]) -> Any:
    """Return the function from expected to true Dice: a line on the logit scale, near the identity where it can be."""
    if not len(x):
        return lambda new: np.asarray(new, dtype=float)
    u, v = _logit(x), _logit(y)
    centre = u.mean()
    design = np.stack([np.ones_like(u), u - centre], axis=1)
    prior = np.array([centre, 1.0])
    left = design.T @ design + _RIDGE * np.eye(2)
    level, slope = np.linalg.solve(left, design.T @ v + _RIDGE * prior)
    slope = max(slope, 0.0)
    return lambda new: 1 / (1 + np.exp(-(level + slope * (_logit(np.asarray(new, dtype=float)) - centre))))


def look_of(
    array: Any, geometry: Geometry, names: Sequence[str], absolute: Sequence[bool], volumes: Mapping[str, float]
) -> CaseLook:
    """Return what an image looks like.

    Parameters
    ----------
    array : array-like, shape (C, [Z,] Y, X)
        As it was read; some voxels of it are looked at.
    geometry : Geometry
        Its grid.
    names : sequence of str
        Of the channels.
    absolute : sequence of bool
        Whether intensities mean the same in every image (CT, pictures of 8 bits); of others only the shape of the
        histogram is compared.
    volumes : mapping of str to float
        By class that the network sees: mm³ (mm² of pictures).
    """
    figures, kinds = {}, {}

    def add(kind: str, title: str, value: float) -> None:
        if math.isfinite(value):
            figures[title], kinds[title] = value, kind

    axes = "zyx"[3 - geometry.ndim :]
    for axis, mm, n in zip(axes, geometry.spacing, array.shape[1:], strict=True):
        if geometry.spacing_known:
            add("voxel", f"voxel size along {axis}", math.log(mm))
        add("view", f"field of view along {axis}", math.log(mm * n))
    for channel, name, fixed in zip(array, names, absolute, strict=False):
        for kind, title, value in _histogram(np.asarray(_some(channel), dtype=np.float64), fixed):
            add(kind, f"{title} of {name}", value)
    for name, mm3 in volumes.items():
        if mm3 > 0:
            add("volume", f"volume of {name}", math.log(mm3))
    return CaseLook(figures=figures, kinds=kinds)


def _some(channel: Any) -> Any:
    """Return a block of whole planes from the middle: neighbours stay neighbours, so that noise is seen as it is."""
    middle = tuple(slice(max(0, (n - _POINTS) // 2), max(0, (n - _POINTS) // 2) + _POINTS) for n in channel.shape)
    return channel[middle]


def _histogram(values: NDArray[np.float64], fixed: bool) -> list[tuple[str, str, float]]:
    finite = values[np.isfinite(values)]
    if finite.size < 2:
        return []
    low, middle, high, top = np.percentile(finite, (5, 50, 95, 99.5))
    width = high - low
    if width <= 0:
        return []
    rough = [np.abs(np.diff(values, axis=axis)) for axis in range(values.ndim) if values.shape[axis] > 1]
    steps = np.concatenate([part[np.isfinite(part)].ravel() for part in rough]) if rough else np.zeros(1)
    found = [
        ("shape", "noise or sharpness", float(steps.mean() / width)),
        ("shape", "brightness", float((middle - low) / width)),
        ("shape", "bright tail", float(min(3.0, (top - high) / width))),
    ]
    if fixed:
        found += [("value", "darkest intensity", float(low)), ("value", "brightest intensity", float(high))]
    return found


DEGRADED = ("noise", "blur", "contrast", "coarse")


def degrade(array: NDArray[np.float32], how: str, rng: np.random.Generator) -> NDArray[np.float32]:
    """Return a worse copy of an image (C, [Z,] Y, X), as bad as chance has it."""
    spatial = array.ndim - 1
    spread = array.reshape(len(array), -1).std(axis=1).reshape(-1, *[1] * spatial)
    amount = float(rng.uniform(0.3, 1.0))
    if how == "noise":
        result = array + rng.normal(size=array.shape) * spread * amount
    elif how == "blur":
        result = ndimage.gaussian_filter(array, (0, *[2 * amount] * spatial))
    elif how == "contrast":
        low, high = array.min(), array.max()
        result = low + (high - low) * ((array - low) / max(high - low, 1e-6)) ** float(rng.choice((0.5, 2.0)))
    else:
        steps = (slice(None, None, 3),) * spatial
        small = array[(slice(None), *steps)]
        for axis in range(1, array.ndim):
            small = np.repeat(small, 3, axis=axis)
        result = small[tuple(slice(0, n) for n in array.shape)]
    return np.asarray(result, dtype=np.float32)
