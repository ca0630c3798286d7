"""What the validation of models left: segmentations and probabilities, by case."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from napari_nnunet.errors import DatasetError, ModelError, some
from napari_nnunet.schema.dataset import DatasetInfo
from napari_nnunet.schema.model_name import ModelName
from napari_nnunet.schema.names import typed
from napari_nnunet.schema.plans import Plans

FOUND_OBJECTS = "objects"  # folder beside the classes: numbered objects, where a dataset has such
VALIDATE_FIRST = {
    "shell": "Train a fold to its end, or validate it with --val; a dataset of one case needs more cases for that.",
    "window": "Train a fold to its end in the Train dock; a dataset of one case needs more cases for that.",
}


def validation_members(models: Sequence[Path], folds: Sequence[Any], ending: str) -> dict[str, tuple[Path, ...]]:
    """Return the npz files of the validation cases that all models predicted, by case.

    Parameters
    ----------
    models : sequence of Path
        Model folders.
    folds : sequence
        Folds that count.
    ending : str
        Of the segmentations.

    Raises
    ------
    ModelError, DatasetError
        If a fold has no validation, a case is in two folds, an npz is missing, or the models validated different cases.
    """
    found: list[dict[str, Path]] = []
    for model in models:
        cases = validation_cases(model, folds, ending)
        missing = sorted(str(path) for path in cases.values() if not npz_of(path, ending).is_file())
        if missing:
            raise ModelError(
                f"{len(missing)} validation cases of {model.name} have no probabilities (.npz), {missing[0]} for "
                "instance.",
                shell=f"Write them with {validate_command(model, folds)}",
                window="Train the folds with 'Probabilities' ticked, or combine segmentations instead.",
            )
        found.append({name: npz_of(path, ending) for name, path in cases.items()})
    for model, cases in zip(models[1:], found[1:], strict=True):
        if set(cases) != set(found[0]):
            apart = sorted(set(cases) ^ set(found[0]))
            raise DatasetError(
                f"{models[0].name} and {model.name} were validated on different cases ({some(apart, 4)}): they "
                "were trained with different splits, and cannot be compared."
            )
    return {name: tuple(cases[name] for cases in found) for name in sorted(found[0])}


def validate_command(model: Path, folds: Sequence[Any]) -> str:
    """Return the command that validates folds of a model again and keeps the probabilities."""
    name = ModelName.of(model.name)
    which, more = ("CONFIGURATION", "") if name is None else (typed(name.configuration), name.flags)
    listed = " ".join(str(fold) for fold in folds)
    return f"'napari-nnunet train {typed(model.parent.name)} {which} {listed}{more} --val --npz'."


def npz_of(path: Path, ending: str) -> Path:
    """Return where the probabilities of a validation case lie."""
    return path.with_name(path.name.removesuffix(ending) + ".npz")


def validation_cases(model: Path, folds: Sequence[Any], ending: str) -> dict[str, Path]:
    """Return the segmentations of all validation cases of a model, by case.

    Raises
    ------
    ModelError, DatasetError
        If a fold has no validation, or a case is in two folds.
    """
    found: dict[str, Path] = {}
    for fold in folds:
        folder = model / f"fold_{fold}" / "validation"
        files = sorted(path for path in folder.glob(f"*{ending}") if not path.name.startswith("."))
        if not files:
            raise ModelError(f"Fold {fold} of {model.name} has no validation ({folder}).", **VALIDATE_FIRST)
        for path in files:
            name = path.name.removesuffix(ending)
            if name in found:
                raise DatasetError(
                    f"{name} was validated in two folds of {model.name}: {found[name].parent.parent.name} and "
                    f"{folder.parent.name}. The folds come from different splits."
                )
            found[name] = path
    return found


def info_beside(folder: Path) -> DatasetInfo:
    """Return the dataset.json of a folder of predictions; raises DatasetError if there is none."""
    path = folder / "dataset.json"
    if not path.is_file():
        raise DatasetError(
            f"{folder} has no dataset.json. Copy the model's dataset.json there."
            if folder.is_dir()
            else f"The folder {folder} does not exist."
        )
    return DatasetInfo.read(path)


def reader_beside(folder: Path) -> str | None:
    """Return the reader that the plans.json of a folder of predictions names, None if there is none."""
    path = folder / "plans.json"
    return Plans.read(path).reader if path.is_file() else None
