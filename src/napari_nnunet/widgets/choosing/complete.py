"""Which models and folds of an ensemble are whole; what is not is named, with what to do."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from napari_nnunet.errors import ModelError, NnunetError, some
from napari_nnunet.formats.model.folder import CHECKPOINTS, TrainedModel, load_model
from napari_nnunet.formats.results.inference_information import Best
from napari_nnunet.widgets.frame.words import failure_text

_NAMED = 5


def whole_models(folders: Sequence[Path], names: Sequence[str]) -> tuple[list[TrainedModel], list[str]]:
    """Return the models that can vote, and sentences about the others and about folds that cannot.

    Parameters
    ----------
    folders : sequence of Path
        Of the models.
    names : sequence of str
        What they are called.
    """
    found, said = [], []
    for folder, name in zip(folders, names, strict=True):
        try:
            model = load_model(folder)
            model.resolve_folds(None, model.first_checkpoint)
        except (NnunetError, OSError) as error:
            said.append(f"Left out: {name}. {failure_text(error)}")
            continue
        found.append(model)
        said += [f"{name}: {text}" for text in [unfinished(model)] if text]
    return found, said


def unfinished(model: TrainedModel) -> str:
    """Return which folds of a model do not vote, as they were begun and lack their checkpoint; empty for none."""
    checkpoint = model.first_checkpoint
    begun = [path.name.removeprefix("fold_") for path in model.folder.glob("fold_*") if path.is_dir()]
    there = {str(fold) for fold in model.folds(checkpoint)}
    lack = sorted(fold for fold in begun if fold not in there and (fold.isdecimal() or not there))
    if not lack:
        return ""
    return (
        f"fold {some(lack, _NAMED)} {'have' if len(lack) > 1 else 'has'} no {checkpoint} and "
        f"{'are' if len(lack) > 1 else 'is'} left out. Finish the training in the Train dock to include "
        f"{'them' if len(lack) > 1 else 'it'}."
    )


def models_of_best(results: Path, best: Best) -> list[TrainedModel]:
    """Return the models of the best that was found; raises ModelError, with what to do, where one is not whole."""
    found = []
    for name in best.models:
        try:
            model = load_model(results / name.folder)
            model.resolve_folds(best.folds, CHECKPOINTS[0])
        except (NnunetError, OSError) as error:
            raise ModelError(
                f"The best that was found needs {name.configuration}, which is not whole by now. {failure_text(error)} "
                "Train what is missing, or press 'Compare all its models' to choose among those that are there."
            ) from error
        found.append(model)
    return found
