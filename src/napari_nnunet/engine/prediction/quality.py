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
from collections.abc import Collection, Mapping
from functools import cached_property

import numpy as np
from pydantic import BaseModel, ConfigDict

from napari_nnunet.engine.choosing.signs import USUAL
from napari_nnunet.engine.prediction.looks import CaseLook
from napari_nnunet.engine.prediction.missed import Missing, missing_class
from napari_nnunet.engine.prediction.regression import Fit, Measured, fitted

LEAST_CASES = 5  # that a calibration needs
MEAN = "mean"
_COVER = 0.9
_BEYOND = 0.5  # of the range of the known cases: what lies further outside is unlike them
_LEAST = {"voxel": math.log(1.3), "view": math.log(1.5), "volume": math.log(2.0), "shape": 0.1, "value": 0.0}


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
    drawn : tuple of str, optional
        The classes that its truth has, whether they are seen or not; files of earlier versions do not say it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    case: str
    plain: bool
    expected: dict[str, float]
    dice: dict[str, float]
    signs: dict[str, dict[str, float]] = {}
    look: dict[str, float] = {}
    drawn: tuple[str, ...] | None = None


class Judged(BaseModel):
    """How good a segmentation probably is.

    Parameters
    ----------
    dice : dict of str to (float, float, float)
        By class, and of their mean: predicted Dice, and the ends of the interval that holds the truth in nine of ten
        cases like those of the calibration. A class of which nothing was found although it is expected has none: 0.
    unlike : tuple of str
        In what the image is unlike the known cases, in words; the interval does not hold for such images.
    missing : tuple of str
        The classes that are probably there and of which nothing was found, in words.
    absent : tuple of str
        Those that may be there, of which nothing was found, in words.
    averaged : str
        Where several folds were averaged, and what was learnt is of single ones: a sentence that says so.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    dice: dict[str, tuple[float, float, float]]
    unlike: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()
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
        if self.missing:
            listed = "; ".join(self.missing)
            said += f" Nothing was found of {listed}: look whether it is there; in the mean it counts as 0."
        if self.absent:
            said += f" Nothing was found of {'; '.join(self.absent)}."
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
        missing = self.missing(expected)
        return Judged(
            dice=with_missing(dice, missing),
            unlike=self.unlike(look),
            missing=tuple(entry.text for entry in missing if entry.expected),
            absent=tuple(entry.text for entry in missing if not entry.expected and entry.possible),
        )

    def missing(self, found: Collection[str]) -> tuple[Missing, ...]:
        """Return the classes of which nothing was found in an image, with how probably they were missed."""
        plain = [entry for entry in self.scored if entry.plain]
        drawn = [entry.expected if entry.drawn is None else entry.drawn for entry in plain]
        names = dict.fromkeys(name for there in drawn for name in there if name != MEAN and name not in found)
        return tuple(
            missing_class(name, [name in there for there in drawn], [name in entry.expected for entry in plain])
            for name in names
        )

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


def with_missing(
    dice: Mapping[str, tuple[float, float, float]], missing: Collection[Missing]
) -> dict[str, tuple[float, float, float]]:
    """Return predicted Dice with 0 for what was probably missed, also in the mean; its interval has what may be."""
    nothing, found = (0.0, 0.0, 0.0), {name: values for name, values in dice.items() if name != MEAN}
    zeros = {entry.name: nothing for entry in missing if entry.expected}
    possible = sum(entry.possible for entry in missing)
    if not found and not zeros:
        return {}
    mean, low, high = dice.get(MEAN, nothing)
    few, more, most = len(found), len(found) + len(zeros), len(found) + possible
    share = few / more
    sure = sum(entry.sure for entry in missing)
    return {**found, **zeros, MEAN: (mean * share, low * few / most, high * few / (few + sure) if few else 0.0)}


def _said(kind: str, value: float) -> str:
    return f"is {_number(kind, value)}"


def _span(kind: str, low: float, high: float) -> str:
    one, other = _number(kind, low), _number(kind, high)
    return one if one == other else f"{one} to {other}"


def _number(kind: str, value: float) -> str:
    units = {"voxel": " mm", "view": " mm", "volume": " mm³"}
    return f"{math.exp(value):.3g}{units[kind]}" if kind in units else f"{value:.3g}"
