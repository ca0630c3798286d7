"""What the Train dock says of a training."""

from __future__ import annotations

from pathlib import Path

from napari_nnunet.processes.follow import TrainingView
from napari_nnunet.schema.dataset import DatasetInfo
from napari_nnunet.widgets.frame.words import plain_time

_LOG_LINES = 12


def label_names(info: DatasetInfo) -> dict[str, str]:
    """Return names by what summary.json calls labels and regions."""
    scheme = info.labels
    values = scheme.regions if scheme.has_regions else scheme.foreground_labels
    names = scheme.head_names if scheme.has_regions else tuple(scheme.names[v] for v in scheme.foreground_labels)
    return {str(value): name for value, name in zip(values, names, strict=True)}


def last_time(view: TrainingView) -> float:
    """Return when the last epoch ended, 0 where none did."""
    last = view.last
    return 0.0 if last is None else last.time


def status_line(view: TrainingView, status: str) -> str:
    """Return what a training is doing, in one line."""
    last = view.last
    if status == "waiting":
        return "Waiting for its turn."
    if last is None:
        return f"{view.stage}…" if status == "running" else f"{status.capitalize()} before the first epoch."
    parts = [f"Epoch {last.epoch + 1} of {last.epochs}", f"{plain_time(last.seconds)} each", f"rate {last.rate:.2g}"]
    if status == "running" and view.stage == "Validation" and view.progress is not None:
        return f"Validation: {view.progress.done} of {view.progress.total} cases."
    if status == "running" and view.progress is not None and view.progress.seconds_left is not None:
        parts.insert(1, f"{plain_time(view.progress.seconds_left)} left")
    if last.waiting > 0.05:
        parts.append(f"{100 * last.waiting:.0f} % of the time waiting for data")
    return ", ".join(parts) + "."


def ending(view: TrainingView) -> str:
    """Return how it ended, empty where it did not."""
    return "" if view.ended is None else view.ended.text


def log_tail(log: Path) -> str:
    """Return what a process that ended early said: its error, or its last lines."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return "The process ended, and left nothing to read."
    errors = [line for line in lines if line.startswith("Error: ")]
    return errors[-1].removeprefix("Error: ") if errors else "\n".join(lines[-_LOG_LINES:])
