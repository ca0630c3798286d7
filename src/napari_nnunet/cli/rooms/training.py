"""Folds are trained, validated, asked to stop, one by one or as jobs of a scheduler."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

from napari_nnunet.errors import SettingsError, counted
from napari_nnunet.formats.model.fold import FoldFolder
from napari_nnunet.processes.follow import Follower, Training, call_off
from napari_nnunet.processes.launch import relaunch_distributed
from napari_nnunet.processes.queue import ahead_of, ticket
from napari_nnunet.processes.submitted import gone_text
from napari_nnunet.schema.model_name import ModelName
from napari_nnunet.schema.requests.words import words

if TYPE_CHECKING:
    from pathlib import Path

    from napari_nnunet.cli.shell import Shell
    from napari_nnunet.formats.workspace import Workspace
    from napari_nnunet.jobs.training.train import TrainResult
    from napari_nnunet.schema.requests.training import TrainAllRequest, TrainCommand, TrainingsRequest

_BETWEEN_LOOKS = 1.0  # seconds, while waiting for other trainings
_ENDED_BY = 128  # and the number of a signal: the exit status by which shells know it


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
    for fold in folds if command.resume else ():
        fold.require_begun()  # before the first of them, not when its turn comes
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


def _job(name: str = "training.train") -> Any:
    """Return a module of jobs that loads torch, which what is stopped, asked or shown needs not."""
    return import_module(f"napari_nnunet.jobs.{name}")


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
        result = _one(request, requests[i:], shell)  # those before are trained: they are not put away
        if not (result.finished or request.validate_only):
            left = ", ".join(str(later.fold) for later in requests[i + 1 :])
            told = f" Not started: {left}." if left else ""
            if left and (request.continue_from or request.pretrained):
                told += " Start these again as before, without --c, which is refused for what was not begun."
            print(f"Fold {request.fold} was stopped; --c resumes it.{told}")
            return _ENDED_BY + result.signal if result.signal else 0
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
            print(f"Fold {place.fold} will end after {counted(command.finish_in or 0, 'more epoch')}.")


def _one(request: TrainCommand, and_after: Sequence[TrainCommand], shell: Shell) -> TrainResult:
    """Train or validate a fold and print how good it is."""
    anew = _job("training.prepare").trained_anew(and_after)
    result: TrainResult = shell.run(_job().train(shell.workspace, request, anew))
    print(result.folder.path)
    found = result.validation
    if found is not None:
        for label, dice in found.per_class.items():
            print(f"Dice of label {label}: {dice:.4f}")
        print(f"Mean validation Dice: {found.dice:.4f}" if found.dice is not None else "No validation Dice.")
        for case, reason in found.failed.items():
            print(f"{case} FAILED: {reason}", file=sys.stderr)
    return result


def train_all(request: TrainAllRequest, shell: Shell) -> int:
    """Submit trainings, or run them here, and say what became of them."""
    result = shell.run(_job("scheduling.train_all").train_all(shell.workspace, request))
    if not result.jobs:
        print("Nothing is left to train.")
    elif request.dry_run:
        print(result.script, end="")
    elif result.finished or result.failed:
        print(f"{len(result.finished)} of {len(result.jobs)} jobs are finished.")
    else:
        print(f"{len(result.submitted)} jobs are submitted. 'napari-nnunet trainings' shows and stops them.")
    for name, why in result.failed.items():
        print(f"{name} FAILED: {why}", file=sys.stderr)
    return 1 if result.failed else 0


def trainings(request: TrainingsRequest, shell: Shell) -> None:
    """Show trainings, again and again where that is asked for, or stop them."""
    workspace = shell.workspace
    follower, said = Follower(workspace), None
    while True:
        found = [training for training in follower.look() if _asked(training, request, workspace)]
        for job in follower.gone:
            print(f"{gone_text(job)} Submit it again.", flush=True)
        lines = [_line(training) for training in found]
        for line in lines:
            if said is None or line not in said:
                print(line, flush=True)
        if said is None and not lines:
            print("There are no trainings.")
        if request.stop:
            _stop(found, workspace)
        said = lines
        if not request.watch or not any(training.alive for training in found):
            return
        time.sleep(_BETWEEN_LOOKS)


def _asked(training: Training, request: TrainingsRequest, workspace: Workspace) -> bool:
    model = training.folder.path.parent
    return (
        (request.dataset is None or model.parent.name == workspace.dataset_name(request.dataset))
        and (request.configurations is None or ModelName.parse(model.name).configuration in request.configurations)
        and (request.folds is None or training.folder.fold in request.folds)
    )


def _line(training: Training) -> str:
    """Return what a training does, in a line."""
    parts = [f"{training.title}: {training.status}"]
    last = training.last
    if last is not None:
        dice = "" if last.average is None else f", Dice {last.average:.3f}"
        parts.append(f"epoch {last.epoch + 1} of {last.epochs}{dice}")
    elif training.status == "running" and training.stage:
        parts.append(training.stage)
    if training.host:
        parts.append(f"on {training.host}")
    if training.job is not None:
        parts.append(training.job.told_waiting if training.status == "waiting" else training.job.told)
    if training.ended is not None and training.status == "failed":
        parts.append(training.ended.text)
    return ", ".join(parts)


def _stop(found: Sequence[Training], workspace: Workspace) -> None:
    for training in found:
        if training.status == "running":
            training.folder.ask(stop=True)
            print(f"{training.title} will save and stop.")
        elif training.status == "waiting" and call_off(training.folder, workspace):
            print(f"{training.title} was taken out of the queue.")
