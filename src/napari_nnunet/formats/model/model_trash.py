"""Models and folds in the trash of a workspace's results."""

from __future__ import annotations

import os
from pathlib import Path

from napari_nnunet.errors import ModelError
from napari_nnunet.formats.atomic import write_error
from napari_nnunet.formats.claim import moving
from napari_nnunet.formats.trash import TRASH, Trashed, exchange, trash_path, trashed


def trash_model(folder: Path) -> Path:
    """Move a model's folder to the trash of its ``nnUNet_results``; returns where it is.

    Raises
    ------
    ModelError
        If there is no such model.
    SettingsError
        If anything is being written for it: it is trained, or validated.
    ResourceError
        If it cannot be moved.
    """
    with moving(folder, f"{folder.name} is already being moved"):
        if not folder.is_dir():
            raise ModelError(f"{folder} is not a model's folder.")
        target = trash_path(folder.parent.parent / TRASH / folder.parent.name, folder.name)
        try:
            os.rename(folder, target)
        except OSError as error:
            raise write_error(target, error) from error
    return target


def models_in_trash(results: Path) -> list[tuple[Trashed, Path]]:
    """Return the models in the trash of a workspace and the folder each belongs in, the latest first."""
    datasets = [folder for folder in sorted((results / TRASH).glob("*")) if folder.is_dir()]
    found = [(entry, results / folder.name / entry.name) for folder in datasets for entry in trashed(folder)]
    return _latest_first(found)


def folds_in_trash(results: Path) -> list[tuple[Trashed, Path]]:
    """Return the folds in the trash of all models and the folder each belongs in, the latest first."""
    trashes = sorted(results.glob(f"Dataset*/*__*__*/{TRASH}"))
    found = [(entry, trash.parent / entry.name) for trash in trashes for entry in trashed(trash)]
    return _latest_first([(entry, home) for entry, home in found if home.name.startswith("fold_")])


def _latest_first(found: list[tuple[Trashed, Path]]) -> list[tuple[Trashed, Path]]:
    return sorted(found, key=lambda pair: pair[0].when, reverse=True)


def bring_training_back(entry: Trashed, home: Path) -> None:
    """Bring a model or a fold back; what is there now goes to the trash instead.

    Raises
    ------
    SettingsError
        If a process trains there, or writes something else.
    ResourceError
        If it cannot be moved.
    """
    with moving(home, f"{home.name} is already being moved"):
        exchange(entry, home)
