"""What the Ensemble dock says of how good a model or a fold was in its validation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

from napari_nnunet.errors import NnunetError
from napari_nnunet.formats.model.folder import TrainedModel
from napari_nnunet.formats.results.inference_information import Best
from napari_nnunet.formats.results.summary import find_summary
from napari_nnunet.jobs.choosing.crossval import mean_precision
from napari_nnunet.schema.names import Fold
from napari_nnunet.schema.objects import ObjectScheme
from napari_nnunet.widgets.frame.words import label_names, no_mean

NONE = "–"


class Measure(NamedTuple):
    """What models are compared by: a short name, and what it means."""

    name: str
    meaning: str


DICE = Measure("Dice", "Mean Dice of whole validation cases, over cases, then over classes.")
PRECISION = Measure("AP", "Mean average precision of the objects of whole validation cases, at an IoU of 0.5 to 0.95.")


def measure_of(model: TrainedModel) -> Measure:
    """Return what a model is compared by: models of objects by the objects they find."""
    return DICE if ObjectScheme.of(model.dataset) is None else PRECISION


def fold_scores(model: TrainedModel) -> dict[str, float]:
    """Return how good each fold was in its validation, by its name; those of which it is not known are missing."""
    if measure_of(model) is DICE:
        return model.validation_dice
    found = {}
    for folder in sorted(model.folder.glob("fold_*/validation")):
        with suppress(NnunetError):  # of a file that is damaged nothing is known
            value = mean_precision(folder)
            if value is not None and math.isfinite(value):
                found[folder.parent.name] = value
    return found


def score_text(value: float | None) -> str:
    """Return a score, or a dash."""
    return NONE if value is None or math.isnan(value) else f"{value:.3f}"


def mean_score_text(model: TrainedModel) -> str:
    """Return the mean of the folds that have a score."""
    values = list(fold_scores(model).values())
    return score_text(sum(values) / len(values) if values else None)


def best_score_text(best: Best, model: TrainedModel, identifier: str) -> str:
    """Return the score of one that was compared, of the measure that its model is compared by."""
    return score_text((best.results if measure_of(model) is DICE else best.objects).get(identifier))


def unscored(model: TrainedModel, folds: Sequence[Fold]) -> str:
    """Return which folds have no score and why, as a sentence; empty where all have one."""
    why: dict[str, list[str]] = {}
    known = fold_scores(model)
    for fold in folds:
        if f"fold_{fold}" in known:
            continue
        summary = find_summary(model.folder / f"fold_{fold}" / "validation")
        if summary is None:
            reason = "not validated yet"
        elif measure_of(model) is PRECISION:
            reason = "its objects were not looked for, or there are none"
        else:
            reason = no_mean(summary, label_names(model.dataset))
        why.setdefault(reason, []).append(str(fold))
    return " ".join(
        f"Fold{'s' if len(found) > 1 else ''} {', '.join(found)}: {reason}." for reason, found in why.items()
    )
