"""Whole datasets are renamed, removed to the trash and brought back."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import datetime, timedelta
from pathlib import Path

from napari_nnunet.errors import DatasetError
from napari_nnunet.events import Job, Stage
from napari_nnunet.formats.atomic import write_error, write_json
from napari_nnunet.formats.claim import moving
from napari_nnunet.formats.preprocessed.plans import plan_files
from napari_nnunet.formats.trash import TIME, TRASH, Trashed, exchange, trash_path, trashed
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.schema.json_text import read_object
from napari_nnunet.schema.names import require_dataset_name


def rename_dataset(workspace: Workspace, name: str, new: str) -> Job[str]:
    """Give a dataset another name, in its images, plans and models; its number stays.

    Parameters
    ----------
    workspace : Workspace
        Where it lies.
    name : str
        ``DatasetXXX_Name``.
    new : str
        The new name, with or without the number.

    Returns
    -------
    str
        The complete new name.

    Raises
    ------
    DatasetError
        If the name cannot be that of a folder, or is taken, or the dataset is gone.
    SettingsError
        If anything is being written for the dataset.
    """
    yield Stage(name=f"Renaming {name}")
    roots = (workspace.raw, workspace.preprocessed, workspace.results)
    with _at_rest(workspace, name, f"{name} is already being renamed"):
        _require_there(name, roots)
        target = free_name(workspace, name, new)
        _rename(workspace, name, target, roots)
    return target


def free_name(workspace: Workspace, name: str, new: str) -> str:
    """Return what a dataset is called when it gets another name; may raise DatasetError as :func:`rename_dataset`."""
    number = name.partition("_")[0]
    plain = new.strip().replace(" ", "_")
    plain = plain.removeprefix(f"{number}_")
    if re.match(r"Dataset\d+_", plain):
        raise DatasetError(f"{name} keeps its number when it is renamed; type only the part after {number}_.")
    target = require_dataset_name(f"{number}_{plain}")
    places = (workspace.raw / target, workspace.preprocessed / target, workspace.results / target)
    taken = next((place for place in places if place.exists()), None)
    if taken is not None:
        raise DatasetError(f"{taken} already exists; choose another name.")
    return target


def _rename(workspace: Workspace, name: str, target: str, roots: Sequence[Path]) -> None:
    with _renamed([(root / name, root / target) for root in roots]):
        for path in (
            *plan_files(workspace.preprocessed / target),
            *(workspace.results / target).glob("*__*__*/plans.json"),
        ):
            content = read_object(path, DatasetError)
            if content.get("dataset_name") == name:
                write_json(path, {**content, "dataset_name": target})


def remove_dataset(workspace: Workspace, name: str) -> Job[None]:
    """Move images, labels, plans and preprocessed cases of a dataset to the trash; its models stay.

    Raises
    ------
    DatasetError
        If the dataset is gone.
    SettingsError
        If anything is being written for the dataset.
    """
    yield Stage(name=f"Removing {name}")
    roots = (workspace.raw, workspace.preprocessed)
    with _at_rest(workspace, name, f"{name} is already being removed"):
        _require_there(name, roots)
        with _renamed([(root / name, trash_path(root / TRASH, name)) for root in roots if (root / name).is_dir()]):
            pass


def _require_there(name: str, roots: Sequence[Path]) -> None:
    if not any((root / name).is_dir() for root in roots):
        raise DatasetError(f"{name} was renamed or removed meanwhile; choose from the datasets there are now.")


def datasets_in_trash(workspace: Workspace) -> list[Trashed]:
    """Return the datasets that were removed, the latest first."""
    return trashed(workspace.raw / TRASH)


def bring_dataset_back(workspace: Workspace, entry: Trashed) -> None:
    """Bring a dataset back, with the plans that went with it.

    Raises
    ------
    DatasetError
        If there is a dataset of that name.
    SettingsError
        If one is just being made.
    """
    with _at_rest(workspace, entry.name, f"{entry.name} is already being brought back"):
        if (workspace.raw / entry.name).exists():
            raise DatasetError(f"{entry.name} exists again. Rename it first.")
        exchange(entry, workspace.raw / entry.name)
        plans = [other for other in trashed(workspace.preprocessed / TRASH) if _went_together(other, entry)]
        plans.sort(key=lambda other: (other.when, other.number) != (entry.when, entry.number))  # the very same first
        if plans and not (workspace.preprocessed / entry.name).exists():
            exchange(plans[0], workspace.preprocessed / entry.name)


def _went_together(plans: Trashed, raw: Trashed) -> bool:
    """Whether plans were removed with a dataset: by its name, in the same second or the next."""
    moments = [datetime.strptime(entry.when, TIME) for entry in (raw, plans)]
    return plans.name == raw.name and timedelta() <= moments[1] - moments[0] <= timedelta(seconds=1)


@contextmanager
def _at_rest(workspace: Workspace, name: str, doing: str) -> Iterator[None]:
    """Refuse while something is written for a dataset, and let nobody begin to."""
    with ExitStack() as stack:
        for root in (workspace.raw, workspace.preprocessed, workspace.results):
            stack.enter_context(moving(root / name, doing))
        yield


@contextmanager
def _renamed(pairs: list[tuple[Path, Path]]) -> Iterator[None]:
    """Rename folders that exist; back again if that or what follows fails."""
    done: list[tuple[Path, Path]] = []
    try:
        for source, target in pairs:
            if source.exists():
                os.rename(source, target)
                done.append((source, target))
        yield
    except BaseException as error:
        for source, target in reversed(done):
            os.rename(target, source)
        raise write_error(pairs[0][0], error) if isinstance(error, OSError) else error from None
