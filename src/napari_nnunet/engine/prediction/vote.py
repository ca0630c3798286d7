"""Combine the probabilities of several members into one segmentation, class by class.

Probabilities come one class after the other and a few planes at a time, as files hold them. What is kept per voxel is
the best value so far and its label, so that memory does not grow with the number of classes or members.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from napari_nnunet.errors import ImageError
from napari_nnunet.schema.dataset import LabelScheme

Method = Literal["soft", "hard"]
Planes = NDArray[np.float32]


@dataclass(frozen=True)
class VoteSettings:
    """How members are combined.

    Parameters
    ----------
    method : {"soft", "hard"}
        "soft": the mean of the probabilities decides, as in nnU-Net. "hard": every member decides for itself, and the
        majority wins; of equal ones, that with the first member's vote.
    weights : tuple of float, optional
        One per member; equal if not given.
    uncertainty : bool
        Also compute entropy and disagreement.
    temperature : float
        The mean probabilities are raised to 1 / temperature (and normalised) for the entropy; labels do not change.
    """

    method: Method = "soft"
    weights: tuple[float, ...] | None = None
    uncertainty: bool = False
    temperature: float = 1.0


class Vote:
    """Takes the members' probabilities in the order in which files hold them, gives labels.

    Parameters
    ----------
    scheme : LabelScheme
        Classes or regions.
    shape : tuple of int
        (Z, Y, X).
    members : int
        How many there are.
    settings : VoteSettings, optional
        nnU-Net's mean if not given.
    """

    def __init__(
        self,
        scheme: LabelScheme,
        shape: tuple[int, int, int],
        members: int,
        settings: VoteSettings | None = None,
    ) -> None:
        self.settings = settings or VoteSettings()
        self.scheme = scheme
        self._weights = normalised(self.settings.weights, members)
        hard = self.settings.method == "hard" and not scheme.has_regions
        self._best = [np.zeros(shape, dtype=np.float32) for _ in range((members if hard else 1) * (not self._regions))]
        self._own = [np.zeros(shape, dtype=scheme.dtype) for _ in range(members if hard else 0)]
        self.labels: NDArray[Any] = np.zeros(shape, dtype=scheme.dtype)
        self._doubt = _Doubt(scheme, shape, members, self.settings.temperature) if self.settings.uncertainty else None

    @property
    def _regions(self) -> bool:
        return self.scheme.has_regions

    def add(self, channel: int, start: int, members: Sequence[Planes]) -> Planes:
        """Take the planes ``start:start + k`` (k, Y, X) of one class from every member; returns their mean.

        Raises
        ------
        ImageError
            If a member has a value that is no number, which no class could be told from.
        """
        where = slice(start, start + len(members[0]))
        mean = self._mean(members)
        if not np.isfinite(mean).all():
            wrong = [str(i) for i, planes in enumerate(members, start=1) if not np.isfinite(planes).all()]
            raise ImageError(
                f"The probabilities of member {' and '.join(wrong)} hold values that are not numbers (NaN or "
                "infinite). Predict its images again."
            )
        if self._doubt is not None:
            self._doubt.add(where, mean, members, self._weights)
        if self._regions:
            share = mean if self.settings.method == "soft" else self._mean([_yes(p) for p in members])
            self.labels[where][share > 0.5] = (self.scheme.regions_class_order or ())[channel]
        elif self._own:
            for best, own, planes in zip(self._best, self._own, members, strict=True):
                _better(best[where], own[where], planes, channel)
        else:
            _better(self._best[0][where], self.labels[where], mean, channel)
        return mean

    def _mean(self, members: Sequence[Planes]) -> Planes:
        """Return the mean; for equal weights by nnU-Net's own operations, so that even the last bit agrees."""
        equal = self.settings.weights is None
        total = members[0].copy() if equal else members[0] * np.float32(self._weights[0])
        for weight, planes in zip(self._weights[1:], members[1:], strict=True):
            total += planes if equal else planes * np.float32(weight)
        if equal:
            total /= len(members)
        return total

    def finish(self) -> NDArray[Any]:
        """Return the labels (Z, Y, X) once every class was added."""
        if self._own:
            self._count_votes()
        return self.labels

    def _count_votes(self) -> None:
        weights = np.asarray(self._weights)
        for z in range(len(self.labels)):
            votes = np.stack([own[z] for own in self._own])
            tally = np.stack([(votes == v).astype(np.float64).T.dot(weights).T for v in range(self.scheme.heads)])
            winner = tally.argmax(axis=0)
            own = np.take_along_axis(tally, votes[:1].astype(np.intp), axis=0)[0]
            tied = own >= tally.max(axis=0) - 1e-9
            self.labels[z] = np.where(tied, votes[0], winner)

    def uncertainty(self) -> tuple[Planes, Planes]:
        """Return entropy and disagreement (Z, Y, X), both from 0 to 1.

        Entropy is that of the mean probabilities, 1 where every class is as likely. Disagreement is the part of it
        that comes from the members disagreeing (their Jensen-Shannon divergence): 0 where all say the
        same, however unsure they are, 1 where each is sure of something else. Of several regions the worst counts.
        """
        if self._doubt is None:
            raise ValueError("uncertainty was not asked for")
        return self._doubt.finish()


def normalised(weights: Sequence[float] | None, members: int) -> tuple[float, ...]:
    """Return weights that add up to 1."""
    if weights is None:
        return (1.0 / members,) * members
    total = math.fsum(weights)
    return tuple(weight / total for weight in weights)


def _yes(planes: Planes) -> Planes:
    return (planes > 0.5).astype(np.float32)


def _better(best: Planes, labels: NDArray[Any], candidate: Planes, channel: int) -> None:
    """Take a class where it is likelier than all before; the first of equal ones stays."""
    if channel == 0:
        best[...] = candidate
        return
    labels[candidate > best] = channel
    np.maximum(best, candidate, out=best)


class _Doubt:
    """Sums behind entropy and disagreement."""

    def __init__(self, scheme: LabelScheme, shape: tuple[int, int, int], members: int, temperature: float) -> None:
        self._regions = scheme.has_regions
        self._power = 1.0 / temperature
        self._most = math.log(scheme.heads) if not self._regions else math.log(2)
        self._apart = math.log(min(scheme.heads if not self._regions else 2, max(members, 2)))
        # For classes: sum of p^a, sum of p^a log p, entropy of the mean, mean of the entropies.
        self._sums = [np.zeros(shape, dtype=np.float32) for _ in range(2 if self._regions else 4)]

    def add(self, where: slice, mean: Planes, members: Sequence[Planes], weights: Sequence[float]) -> None:
        if self._regions:
            entropy = _binary_entropy(_tempered(mean, self._power))
            own = sum(
                (np.float32(w) * _binary_entropy(p) for w, p in zip(weights, members, strict=True)),
                start=np.zeros_like(mean),
            )
            for total, value in zip(self._sums, (entropy, _binary_entropy(mean) - own), strict=True):
                np.maximum(total[where], value, out=total[where])
            return
        logs = np.log(np.maximum(mean, np.float32(1e-30)))
        powered = np.exp(np.float32(self._power) * logs)
        for total, value in zip(self._sums, (powered, powered * logs, -mean * logs), strict=False):
            total[where] += value
        for weight, planes in zip(weights, members, strict=True):
            self._sums[3][where] += np.float32(weight) * _plogp(planes)

    def finish(self) -> tuple[Planes, Planes]:
        if self._regions:
            entropy, apart = self._sums
        else:
            total, weighted, own, theirs = self._sums
            entropy = np.log(total) - np.float32(self._power) * weighted / total
            apart = own - theirs
        return np.clip(entropy / self._most, 0, 1), np.clip(apart / self._apart, 0, 1)


def _plogp(p: Planes) -> Planes:
    return np.asarray(-p * np.log(np.maximum(p, np.float32(1e-30))), dtype=np.float32)


def _binary_entropy(p: Planes) -> Planes:
    return _plogp(p) + _plogp(1 - p)


def _tempered(p: Planes, power: float) -> Planes:
    """Return the probability of one region after its odds were raised to a power."""
    yes, no = (np.maximum(v, np.float32(1e-30)) ** np.float32(power) for v in (p, 1 - p))
    return np.asarray(yes / (yes + no), dtype=np.float32)
