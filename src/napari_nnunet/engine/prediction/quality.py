"""How good a segmentation probably is, and whether its image is unlike those a model knows.

The Dice that a network's probabilities expect (mirrors and folds that disagree pull them towards the middle, so that
it falls) is turned into the Dice that is to be expected in truth: a line on the logit scale, fitted to cases that the
networks did not see and to degraded copies of them, with further signs (:mod:`napari_nnunet.engine.choosing.signs`, and
how strange the image looks) as far as they help to predict cases that were left out. Where there is little to fit, it
stays near what the probabilities say (ridge). The interval is the spread of the same cases, each left out in turn with
its copies.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from scipy import ndimage

from napari_nnunet.engine.choosing.signs import USUAL
from napari_nnunet.engine.prediction.regression import Fit, Measured, fitted
from napari_nnunet.schema.geometry import Geometry

LEAST_CASES = 5  # that a calibration needs
MEAN = "mean"
_COVER = 0.9
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

    @property
    def shape(self) -> dict[str, float]:
        """Those of the histogram, without scale."""
        return {title: value for title, value in self.figures.items() if self.kinds[title] == "shape"}


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
    signs : dict of str to dict
        By class; files of earlier versions have none.
    look : dict of str to float
        Of its image: ``CaseLook.shape``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    case: str
    plain: bool
    expected: dict[str, float]
    dice: dict[str, float]
    signs: dict[str, dict[str, float]] = {}
    look: dict[str, float] = {}


class Judged(BaseModel):
    """How good a segmentation probably is.

    Parameters
    ----------
    dice : dict of str to (float, float, float)
        By class, and of their mean: predicted Dice, and the ends of the interval that holds the truth in nine of ten
        cases like those of the calibration.
    unlike : tuple of str
        In what the image is unlike the known cases, in words; the interval does not hold for such images.
    averaged : str
        Where several folds were averaged, and what was learnt is of single ones: a sentence that says so.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    dice: dict[str, tuple[float, float, float]]
    unlike: tuple[str, ...] = ()
    averaged: str = ""

    @property
    def mean(self) -> float:
        """Predicted mean Dice; NaN where the network sees nothing."""
        return self.dice[MEAN][0] if MEAN in self.dice else math.nan

    @property
    def text(self) -> str:
        """The same in a line, with what it was learnt from."""
        return f"{self.brief} {self.averaged}".strip()

    @property
    def brief(self) -> str:
        """The same in a line."""
        parts = [f"{name} {v:.2f} ({lo:.2f} to {hi:.2f})" for name, (v, lo, hi) in self.dice.items() if name != MEAN]
        said = "Predicted Dice: " + (", ".join(parts) or "unknown, as nothing was found") + "."
        if self.unlike:
            said += f" Unlike the training data, so that this may be too high: {'; '.join(self.unlike)}."
        return said


def averaged_in_words(folds: int) -> str:
    """Return what is to be said where so many folds are averaged; nothing of a single one.

    Each fold has seen the cases that the others validated, so their mean has no validation cases of its own.
    """
    if folds < 2:
        return ""
    return f"This was learnt from one fold at a time; the mean of {folds} folds may be better than predicted."


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

    def judge(
        self, expected: Mapping[str, float], look: CaseLook, signs: Mapping[str, Mapping[str, float]] | None = None
    ) -> Judged:
        """Return how good a segmentation probably is.

        Parameters
        ----------
        expected : mapping of str to float
            By class that the network sees: the Dice that its probabilities expect.
        look : CaseLook
            Of its image.
        signs : mapping of str to mapping, optional
            By class what :func:`~napari_nnunet.engine.choosing.signs.signs_of` says.
        """
        own = dict(expected)
        if own:
            own[MEAN] = float(np.mean(list(expected.values())))
        told = self._told(signs, look.shape) if signs and self._has_signs else {}
        dice = {name: self._predict(name, value, told.get(name)) for name, value in own.items()}
        return Judged(dice=dice, unlike=self.unlike(look))

    def _predict(self, name: str, expected: float, signs: Measured | None) -> tuple[float, float, float]:
        fit = self._fits(signs is not None).get(name) or self._fits(signs is not None).get(MEAN)
        if fit is None:  # nothing is known
            return expected, 0.0, 1.0
        return fit.interval(expected, np.zeros(0) if signs is None else signs, _COVER)

    def _fits(self, with_signs: bool) -> dict[str, Fit]:
        return self._with_signs if with_signs else self._plain

    @cached_property
    def _plain(self) -> dict[str, Fit]:
        return self._fitted(with_signs=False)

    @cached_property
    def _with_signs(self) -> dict[str, Fit]:
        return self._fitted(with_signs=True)

    def _fitted(self, *, with_signs: bool) -> dict[str, Fit]:
        told = [self._told(entry.signs, entry.look) if with_signs else {} for entry in self.scored]
        found, nothing = {}, np.zeros(0)
        for name in dict.fromkeys(name for entry in self.scored for name in entry.expected if name in entry.dice):
            rows = [(entry, row) for entry, row in zip(self.scored, told, strict=True) if name in entry.expected]
            known = [(entry, row) for entry, row in rows if name in entry.dice]
            found[name] = fitted(
                np.array([entry.expected[name] for entry, _ in known]),
                np.array([entry.dice[name] for entry, _ in known]),
                np.stack([row.get(name, nothing) for _, row in known]),
                [entry.case for entry, _ in known],
            )
        return found

    @cached_property
    def _has_signs(self) -> bool:
        return all(entry.look and set(entry.expected) <= {MEAN, *entry.signs} for entry in self.scored)

    @cached_property
    def _usual(self) -> dict[tuple[str, str], float]:
        """Size and surface of each class in the middle case."""
        plain = [entry.signs for entry in self.scored if entry.plain]
        names = dict.fromkeys(name for signs in plain for name in signs)
        return {
            (name, sign): float(np.median([signs[name][sign] for signs in plain if name in signs]))
            for name in names
            for sign in USUAL
        }

    def _told(self, signs: Mapping[str, Mapping[str, float]], figures: Mapping[str, float]) -> dict[str, Measured]:
        """Return by class, and of their mean, the signs as numbers that can be weighed."""
        strange = self._strangeness(figures)
        told = {}
        for name, own in signs.items():
            values = []
            for sign, value in own.items():
                usual = self._usual.get((name, sign), value)
                values.append(abs(value - usual) if sign in USUAL else value)
            told[name] = np.array([*values, strange])
        if told:
            told[MEAN] = np.mean(list(told.values()), axis=0)
        return told

    def _strangeness(self, figures: Mapping[str, float]) -> float:
        """Return how far an image lies from the middle known one, in mean deviations of the known ones."""
        far = []
        for title, value in figures.items():
            known = np.array([look.figures[title] for look in self.looks if title in look.figures])
            if len(known):
                middle = np.median(known)
                far.append(abs(value - middle) / max(float(np.abs(known - middle).mean()), _LEAST["shape"] / 10))
        return math.log1p(float(np.mean(far))) if far else 0.0

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
_MILD, _SEVERE = 0.3, 2.5  # how bad: standard deviations of noise, half of those of blur in voxels, powers of two


def degrade(array: NDArray[np.float32], how: str, rng: np.random.Generator) -> NDArray[np.float32]:
    """Return a worse copy of an image (C, [Z,] Y, X), from hardly worse to spoiled, as chance has it."""
    spatial = array.ndim - 1
    spread = array.reshape(len(array), -1).std(axis=1).reshape(-1, *[1] * spatial)
    amount = float(np.exp(rng.uniform(math.log(_MILD), math.log(_SEVERE))))
    if how == "noise":
        result = array + rng.normal(size=array.shape) * spread * amount
    elif how == "blur":
        result = ndimage.gaussian_filter(array, (0, *[2 * amount] * spatial))
    elif how == "contrast":
        low, high = array.min(), array.max()
        result = low + (high - low) * ((array - low) / max(high - low, 1e-6)) ** 2.0 ** (rng.choice((-1, 1)) * amount)
    else:
        step = 2 + round(2 * amount)
        steps = (slice(None, None, step),) * spatial
        small = array[(slice(None), *steps)]
        for axis in range(1, array.ndim):
            small = np.repeat(small, step, axis=axis)
        result = small[tuple(slice(0, n) for n in array.shape)]
    return np.asarray(result, dtype=np.float32)
