"""What the Train dock says of a training."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_nnunet.errors import NnunetError, counted, some
from napari_nnunet.formats.dataset.raw_dataset import read_info
from napari_nnunet.formats.model.fold import FoldFolder
from napari_nnunet.formats.regular import regular
from napari_nnunet.formats.results.summary import Summary
from napari_nnunet.processes.cluster.where import Local, where
from napari_nnunet.processes.follow import Training
from napari_nnunet.processes.launch import ClusterTrainings, DetachedTraining
from napari_nnunet.schema.dataset import DatasetInfo
from napari_nnunet.schema.model_name import ModelName
from napari_nnunet.widgets.frame.words import no_mean, plain_time

if TYPE_CHECKING:
    from napari_nnunet.jobs.training.prepare import Needs

_LOG_LINES = 12
_STATES = {"stopped": "paused"}  # as the buttons call it


def state_word(training: Training) -> str:
    """Return what a training is doing, in a word."""
    return _STATES.get(training.status, training.status)


def dataset_of(training: Training) -> DatasetInfo | None:
    """Return the dataset of a training, None where its file cannot be read."""
    try:
        return read_info(training.folder.path.parent)
    except (NnunetError, OSError):
        return None


def fold_folders(request: DetachedTraining) -> list[Path]:
    """Return the folders of the folds a request trains."""
    name = ModelName(request.settings.trainer, request.plans, request.configuration)
    model = request.workspace.results / request.dataset / name.folder
    return [FoldFolder.at(model, fold).path for fold in request.folds]


def what_happens(asked: DetachedTraining | ClusterTrainings) -> str:
    """Return what becomes of trainings that are started, without a full stop."""
    if isinstance(asked, DetachedTraining):
        return "training continues when napari is closed; this dock finds it again"
    place = where(asked.request.cluster)
    how = f"{place.workers} at a time on this computer" if isinstance(place, Local) else "as jobs of the cluster"
    return (
        f"trainings run {how}, continue when napari is closed, and are listed below wherever this workspace is open; "
        "what is trained is skipped"
    )


def again_question(request: DetachedTraining, trainings: Sequence[Training]) -> str:
    """Return what to ask before folds are trained anew that were trained before; empty where there are none."""
    if request.resume:
        return ""
    before = [
        training for training in trainings if training.checkpoints and training.folder.path in fold_folders(request)
    ]
    if not before:
        return ""
    listed = "; ".join(f"{training.title} ({state_word(training)})" for training in before)
    return (
        f"{listed}: train from the beginning again? What is there goes to the trash folder of the model. "
        "To continue it instead, select it in the list and press 'Resume' or 'Train on…'."
    )


def unused_question(needs: Needs) -> str:
    """Return what to ask where cases came after the folds were made."""
    listed = some(needs.unused)
    them = "it" if len(needs.unused) == 1 else "them"
    return (
        f"{counted(len(needs.unused), 'case')} came after the folds were made and would not be used ({listed}). Train "
        f"with {them} in every fold? No fold validates {them}, so that scores stay comparable."
    )


def status_line(training: Training) -> str:
    """Return what a training is doing, in one line."""
    if training.status == "waiting":
        return f"Waiting: {training.job.told_waiting}." if training.job is not None else "Waiting for its turn."
    where = "" if not training.host else f"On {training.host}. "
    return where + _progress_line(training)


def _progress_line(training: Training) -> str:
    last, progress, running = training.last, training.progress, training.status == "running"
    if running and training.stage == "Validation" and progress is not None:
        return f"Validation: {progress.done} of {progress.total} cases."
    if last is None:
        return f"{training.stage}…" if running else f"{state_word(training).capitalize()} before the first epoch."
    parts = [f"Epoch {last.epoch + 1} of {last.epochs}", f"{plain_time(last.seconds)} each", f"rate {last.rate:.2g}"]
    if running and progress is not None and progress.seconds_left is not None:
        parts.insert(1, f"{plain_time(progress.seconds_left)} left")
    if last.waiting > 0.05:
        parts.append(f"{100 * last.waiting:.0f} % of the time waiting for data")
    return ", ".join(parts) + "."


def note_line(training: Training) -> str:
    """Return what was said last while it runs, or how it ended."""
    if training.alive:
        return training.note
    if training.status == "interrupted":
        if not training.folder.path.exists():
            return "Its folder was deleted while it was trained."
        return (
            "Its process ended without a message, perhaps with the computer. Resume continues from the last checkpoint."
        )
    return "" if training.ended is None else training.ended.text


def validation_line(summary: Summary, names: Mapping[str, str]) -> str:
    """Return how many cases were validated, and the mean Dice as nnU-Net states it: over cases, then over classes.

    Parameters
    ----------
    summary : Summary
        Of the validation.
    names : mapping of str to str
        Of its labels and regions.
    """
    cases, dice = counted(len(summary.cases), "validation case"), summary.foreground.get("Dice", math.nan)
    mean = no_mean(summary, names) if math.isnan(dice) else f"mean Dice {dice:.4f} (over cases, then over classes)"
    return f"{cases}, {mean}. The worst comes first; double-click opens one."


def objects_line(summary: Summary, figures: Mapping[str, Mapping[str, Any]]) -> str:
    """Return how many cases were validated, and how well their objects are found, all counted together.

    Parameters
    ----------
    summary : Summary
        Of the validation.
    figures : mapping of str to mapping
        What objects.json says of every case, and of all under an empty name.
    """
    every = figures[""]
    cases, found = counted(len(summary.cases), "validation case"), counted(every["references"], "object")
    if every["AP@0.5"] is None or every["AP"] is None:
        return f"{cases} without an object. Double-click opens one."
    return (
        f"{cases}, {found}: average precision {every['AP@0.5']:.3f} at an IoU of 0.5, {every['AP']:.3f} over 0.5 to "
        "0.95. The worst comes first; double-click opens one."
    )


def log_tail(log: Path) -> str:
    """Return what a process that ended early said: its error, or its last lines."""
    lines = log_text(log).splitlines()
    if not lines:
        return "The process ended, and left nothing to read."
    errors = [line for line in lines if line.startswith("Error: ")]
    return errors[-1].removeprefix("Error: ") if errors else "\n".join(lines[-_LOG_LINES:])


def log_text(log: Path) -> str:
    """Return all that a process said; nothing where that cannot be read."""
    try:
        return regular(log).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def report_of(training: Training) -> str:
    """Return the traceback of a training that failed; nothing where there is none."""
    report = "" if training.alive or training.ended is None else training.ended.report
    return log_text(Path(report)) if report else ""
