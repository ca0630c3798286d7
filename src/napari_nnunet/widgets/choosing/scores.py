"""What the Ensemble dock says of how good a model or a fold was in its validation."""

from __future__ import annotations

import math
from collections.abc import Sequence

from napari_nnunet.formats.model.folder import TrainedModel
from napari_nnunet.formats.results.summary import find_summary
from napari_nnunet.schema.names import Fold
from napari_nnunet.widgets.frame.words import label_names, no_mean

NONE = "–"
AVERAGED = "Mean Dice of whole validation cases, over cases, then over classes."


def dice_text(value: float | None) -> str:
    """Return a Dice, or a dash."""
    return NONE if value is None or math.isnan(value) else f"{value:.3f}"


def mean_dice_text(model: TrainedModel) -> str:
    """Return the mean of the folds that have a Dice."""
    values = list(model.validation_dice.values())
    return dice_text(sum(values) / len(values) if values else None)


def unscored(model: TrainedModel, folds: Sequence[Fold]) -> str:
    """Return which folds have no Dice and why, as a sentence; empty where all have one."""
    why: dict[str, list[str]] = {}
    for fold in folds:
        if f"fold_{fold}" not in model.validation_dice:
            summary = find_summary(model.folder / f"fold_{fold}" / "validation")
            reason = "not validated yet" if summary is None else no_mean(summary, label_names(model.dataset))
            why.setdefault(reason, []).append(str(fold))
    return " ".join(
        f"Fold{'s' if len(found) > 1 else ''} {', '.join(found)}: {reason}." for reason, found in why.items()
    )
