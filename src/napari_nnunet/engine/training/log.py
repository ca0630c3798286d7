"""What a training writes down about every epoch: nnU-Net's eight lists, one entry per epoch in each."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from napari_nnunet.engine.training.learner import Matches
from napari_nnunet.schema.trainers import LOG_LISTS

_MEMORY = 0.9  # of the moving average


@dataclass
class TrainingLog:
    """One entry per finished epoch in every list, and the best moving average.

    Parameters
    ----------
    lists : dict of str to list
        As in nnU-Net's checkpoints.
    best : float, optional
        Largest moving average of the pseudo Dice.
    """

    lists: dict[str, list[Any]] = field(default_factory=lambda: {name: [] for name in LOG_LISTS})
    best: float | None = None

    @property
    def epochs(self) -> int:
        """Finished epochs."""
        return len(self.lists["train_losses"])

    def add(
        self, *, train_loss: float, val_loss: float, dice: Sequence[float], rate: float, begun: float, ended: float
    ) -> bool:
        """Add an epoch; returns whether its moving average is the best so far.

        Parameters
        ----------
        train_loss, val_loss : float
            Means over the epoch.
        dice : sequence of float
            Pseudo Dice per class, NaN where there was nothing.
        rate, begun, ended : float
            Learning rate; seconds since 1970.
        """
        known = [value for value in dice if not math.isnan(value)]
        mean = sum(known) / len(known) if known else math.nan
        before = self.lists["ema_fg_dice"][-1] if self.lists["ema_fg_dice"] else math.nan
        # An epoch without any foreground in its patches says nothing; nnU-Net's average would stay NaN for ever.
        average = (
            mean if math.isnan(before) else before if math.isnan(mean) else _MEMORY * before + (1 - _MEMORY) * mean
        )
        values = (mean, average, [float(v) for v in dice], train_loss, val_loss, rate, begun, ended)
        for name, value in zip(LOG_LISTS, values, strict=True):
            self.lists[name].append(value)
        better = not math.isnan(average) and (self.best is None or average > self.best)
        if better:
            self.best = average
        return better

    def cut(self, epochs: int) -> None:
        """Keep the first epochs only."""
        for values in self.lists.values():
            del values[epochs:]

    @classmethod
    def restore(cls, lists: Mapping[str, Sequence[Any]], best: float | None) -> TrainingLog:
        """Return the log of a checkpoint; numpy scalars become numbers, lists that are missing stay empty."""
        log = cls()
        for name in LOG_LISTS:
            log.lists[name] = [_plain(value) for value in lists.get(name, ())]
        log.best = None if best is None else float(best)
        log.cut(min(len(values) for values in log.lists.values()))
        return log


def _plain(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [float(v) for v in value]
    return float(value)


def pseudo_dice(matches: Sequence[Matches]) -> list[float]:
    """Return ``2 tp / (2 tp + fp + fn)`` per class over all validation steps, NaN if there is nothing."""
    hits, wrong, missed = (
        [sum(column) for column in zip(*rows, strict=True)]
        for rows in (
            [m.hits for m in matches],
            [m.false_positives for m in matches],
            [m.false_negatives for m in matches],
        )
    )
    return [2 * h / (2 * h + w + m) if h + w + m else math.nan for h, w, m in zip(hits, wrong, missed, strict=True)]
