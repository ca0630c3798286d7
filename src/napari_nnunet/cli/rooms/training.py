"""Folds are trained, validated, asked to stop."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from napari_nnunet.errors import SettingsError
from napari_nnunet.formats.model.fold import FoldFolder
from napari_nnunet.processes.launch import relaunch_distributed
from napari_nnunet.processes.queue import ahead_of, ticket
from napari_nnunet.schema.model_name import ModelName
from napari_nnunet.schema.requests.words import words

if TYPE_CHECKING:
    from pathlib import Path

    from napari_nnunet.cli.shell import Shell
    from napari_nnunet.formats.workspace import Workspace
    from napari_nnunet.schema.requests.training import TrainCommand

_BETWEEN_LOOKS = 1.0  # seconds, while waiting for other trainings


def train(requests: Sequence[TrainCommand], shell: Shell) -> int:
    """Train fold after fold; whoever stops one stops them all."""
    command = requests[0]
    _check(command)
    workspace = shell.workspace
    if command.continue_from is not None:
        requests = shell.run(_job().continued(workspace, list(requests)))
        command = requests[0]
    dataset = workspace.dataset_name(command.dataset)
    model = workspace.model(dataset, ModelName(command.trainer, command.plans, command.configuration))
    folds = [FoldFolder.at(model, request.fold) for request in requests]
    if command.stop or (command.finish_in is not None and not command.resume):
        _ask(command, folds, workspace)
        return 0
    if command.processes > 1 and "RANK" not in os.environ:
        _check_device(command)
    if "RANK" in os.environ:  # one of several processes, of which the first one stands in line
        return _each(requests, shell)
    with ticket(workspace.results, [fold.path for fold in folds]) as own:
        if command.wait and not _wait(own, workspace.results):
            print("Cancelled while queued.")
            return 0
        if command.processes > 1 and not command.validate_only:  # one process validates
            alone = [request.replace(processes=1, wait=False) for request in requests]  # each of several
            return relaunch_distributed(command.processes, ["train", *words(alone), *shell.words])
        return _each(requests, shell)


def _job() -> Any:
    """Return the module that trains, which loads torch."""
    from napari_nnunet.jobs.training import train as job  # what is stopped or asked needs no torch

    return job


def _check_device(command: TrainCommand) -> None:
    """Judge the device of several processes once, before each of them would, and before anything is written.

    Raises
    ------
    ResourceError, SettingsError
        If it is not there, or there are fewer GPUs than processes.
    """
    text = _job().require_gpus(command, command.device, command.processes)
    if text:
        print(f"Warning: {text}", file=sys.stderr)


def _each(requests: Sequence[TrainCommand], shell: Shell) -> int:
    for i, request in enumerate(requests):
        if not _one(request, shell):
            left = ", ".join(str(later.fold) for later in requests[i + 1 :])
            print(f"Fold {request.fold} was stopped; --c resumes it." + (f" Not started: {left}." if left else ""))
            break
    return 0


def _wait(own: Any, results: Path) -> bool:
    """Wait for the trainings before; returns False where this one was cancelled meanwhile."""
    said = None
    while (ahead := ahead_of(own, results)) != 0:
        if ahead is None:
            return False
        if ahead != said:
            print(f"Waiting for {ahead} training{'s' if ahead > 1 else ''} before this one.", flush=True)
            said = ahead
        time.sleep(_BETWEEN_LOOKS)
    return True


def _check(command: TrainCommand) -> None:
    for one, first, other, second in (
        (command.resume, "--c", command.validate_only, "--val"),
        (command.resume, "--c", command.pretrained, "-pretrained_weights"),
        (command.resume, "--c", command.continue_from, "--continue_from"),
        (command.pretrained, "-pretrained_weights", command.continue_from, "--continue_from"),
        (command.processes > 1, "-num_gpus", command.continue_from, "--continue_from"),
        (command.validate_best, "--val_best", not command.checkpoints, "--disable_checkpointing"),
    ):
        if one and other:
            raise SettingsError(f"{first} and {second} cannot be combined.")


def _ask(command: TrainCommand, folds: Sequence[Any], workspace: Workspace) -> None:
    """Ask trainings that run to end."""
    workspace.model_folder(
        command.dataset, trainer=command.trainer, plans=command.plans, configuration=command.configuration
    )
    for place in folds:
        if place.runner() is None:
            hint = (
                f"resume it with --c --finish_in {command.finish_in}"
                if command.finish_in
                else "there is nothing to stop"
            )
            raise SettingsError(f"Fold {place.fold} of {place.path.parent.name} is not being trained now; {hint}.")
        if command.stop:
            place.ask(stop=True)
            print(f"Fold {place.fold} will save and stop.")
        else:
            place.ask(finish_in=command.finish_in)
            print(f"Fold {place.fold} will end after {command.finish_in} more epochs.")


def _one(request: TrainCommand, shell: Shell) -> bool:
    """Train or validate a fold and print how good it is; returns False where it was stopped."""
    result = shell.run(_job().train(shell.workspace, request))
    print(result.folder.path)
    found = result.validation
    if found is not None:
        for label, dice in found.per_class.items():
            print(f"Dice of label {label}: {dice:.4f}")
        print(f"Mean validation Dice: {found.dice:.4f}" if found.dice is not None else "No validation Dice.")
        for case, reason in found.failed.items():
            print(f"{case} FAILED: {reason}", file=sys.stderr)
    return bool(result.finished or request.validate_only)
