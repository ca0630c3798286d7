"""One training in detail: how far it is, its curves, its validation cases, and what can be done with it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qtpy.QtCore import Qt
from qtpy.QtGui import QResizeEvent
from qtpy.QtWidgets import QGridLayout, QGroupBox, QProgressBar, QPushButton, QVBoxLayout

from napari_nnunet.events import Job
from napari_nnunet.formats.model.fold import CONTINUED_FILE
from napari_nnunet.formats.results.summary import Summary
from napari_nnunet.jobs.choosing.evaluate_objects import OBJECTS_FILE, read_scores
from napari_nnunet.processes.follow import Training
from napari_nnunet.schema.json_text import message
from napari_nnunet.widgets.frame.parts import CopyButton, Sentence, Table, button, make_next
from napari_nnunet.widgets.frame.words import failure_text, label_names
from napari_nnunet.widgets.frame.worker import Latest
from napari_nnunet.widgets.training.views import Curves, ScoreTable
from napari_nnunet.widgets.training.words import (
    dataset_of,
    note_line,
    objects_line,
    report_of,
    status_line,
    validation_line,
)

_BESIDE_TITLE = 30  # pixels that a style leaves beside the title of a box
_BUTTONS = {
    "stop": ("Pause", "Save and stop, without starting remaining folds. Resume continues here."),
    "resume": ("Resume", "Continue exactly where it stopped."),
    "finish": ("Finish soon…", "Lower the learning rate to zero over a few more epochs, and end."),
    "discard": ("Discard…", "Move checkpoints and logs of this fold to the trash of the model."),
    "segment": ("Segment with it now", "Open the Segment dock with the best state so far."),
    "improve": (
        "Improve…",
        "Continue this model with the cases and classes there are now, as another model: this one stays, and both are "
        "compared at the end.",
    ),
    "film": ("Watch it learn", "Open a slice of a validation case with the labels after every few epochs."),
    "next": ("Label next…", "Open the Next dock: which of your unlabelled images are best labelled next."),
}


@dataclass(frozen=True)
class Validated:
    """How good a training is.

    Parameters
    ----------
    summary : Summary
        Of the classes.
    names : dict of str to str
        Of its labels and regions.
    objects : dict of str to dict
        What objects.json says of every case, and of all under an empty name; empty for a dataset of classes.
    compared : list of list of str
        Rows of the comparison with the model that was continued.
    doubt : str
        What is to be said of that comparison.
    """

    summary: Summary
    names: dict[str, str]
    objects: dict[str, dict[str, Any]]
    compared: list[list[str]]
    doubt: str = ""


class TrainingDetails(QGroupBox):
    """Shows a :class:`Training`; the dock decides what its buttons do."""

    def __init__(self) -> None:
        super().__init__()
        self._name = ""
        self._scored: tuple[Path, float, bool] | None = None
        self._reading = Latest(self)
        self.bar = QProgressBar()
        self.bar.setAccessibleName("Progress of the training")
        self.line, self.note, self.scores_title = Sentence(), Sentence(), Sentence()
        self.buttons: dict[str, QPushButton] = {}
        grid = QGridLayout()
        for i, (name, (text, tip)) in enumerate(_BUTTONS.items()):
            self.buttons[name] = button(text, tip)
            grid.addWidget(self.buttons[name], i // 2, i % 2)
        self.curves = Curves()
        self.scores = ScoreTable()
        self.compared = Table("Before and after", ["Dice on the same cases", "Before", "After"])
        self.compared.setToolTip("Of the cases that both models validated, with the labels there are now.")
        self.doubt = Sentence()
        self._compares = False
        self.correct = button(
            "Save the corrected reference",
            "Select the labels of a validation case, correct them, and save them as the case's reference. The old one "
            "is kept in the dataset's trash folder.",
        )
        self._report: Callable[[], str] = str
        self.report = CopyButton("Copy report", lambda: self._report())
        self.report.setToolTip("Copy where the training failed, for a bug report.")
        column = QVBoxLayout(self)
        for part in (self.bar, self.line, self.note, self.report):
            column.addWidget(part)
        column.addLayout(grid)
        for part in (self.curves, self.compared, self.doubt, self.scores_title, self.scores, self.correct):
            column.addWidget(part)

    def show_training(self, training: Training, *, asked: bool) -> None:
        """Show a training as it was found; ``asked`` where it was asked to pause and did not yet."""
        self._name = training.title
        self._fit_title()
        self.line.setText(status_line(training))
        self.note.setText(note_line(training))
        self.note.setVisible(bool(self.note.text()))
        self._report = lambda: report_of(training)
        self.report.setVisible(not training.alive and training.ended is not None and bool(training.ended.report))
        self._show_bar(training)
        self._show_buttons(training, asked=asked)
        self.curves.setVisible(bool(training.epochs))
        self.curves.show_epochs(training.epochs)
        self._show_scores(training)

    def resizeEvent(self, event: QResizeEvent | None) -> None:
        """Show as much of the title as fits now."""
        super().resizeEvent(event)
        self._fit_title()

    def _fit_title(self) -> None:
        room = self.width() - _BESIDE_TITLE
        self.setTitle(self.fontMetrics().elidedText(self._name, Qt.TextElideMode.ElideMiddle, room))
        self.setAccessibleName(self._name)

    def _show_bar(self, training: Training) -> None:
        self.bar.setVisible(training.alive)
        share = None if training.status == "waiting" else _share(training)
        self.bar.setRange(0, 0 if share is None else 1000)
        if share is not None:
            self.bar.setValue(round(1000 * share))

    def _show_buttons(self, training: Training, *, asked: bool) -> None:
        status, saved = training.status, bool(training.checkpoints)
        stop, tip = _BUTTONS["stop"]
        if asked:
            stop, tip = "Stop at once", "End the process; what it saved last is kept."
        elif status == "waiting":
            stop, tip = "Do not start", "Take it out of the queue."
        self.buttons["stop"].setToolTip(tip)
        for name, text in (("stop", stop), ("resume", "Train on…" if status == "finished" else "Resume")):
            self.buttons[name].setText(text)
            self.buttons[name].setAccessibleName(text)
        paused = saved and not training.alive
        for name, possible in (
            ("stop", training.alive),
            ("resume", paused),
            ("finish", status == "running" or (paused and status != "finished")),
            ("discard", not training.alive),
            ("segment", saved),
            ("improve", paused),
            ("film", bool(training.frames)),
            ("next", saved),
        ):
            self.buttons[name].setEnabled(possible)
        make_next(self.buttons["segment"], on=status == "finished" and saved)

    def _show_scores(self, training: Training) -> None:
        """Read the validation on a thread, when it is another or was written anew."""
        if training.scored is None:
            self._scored = None
            self._reading.stop()
            self._set_scores_visible(False)
        elif self._scored != (seen := (training.folder.path, training.scored, training.alive)):
            self._scored = seen  # the comparison with the model before is written after the scores
            self._reading.start(_read_scores(training), returned=self._scores_read, errored=self._not_read)

    def _scores_read(self, found: Validated) -> None:
        self.compared.fill(found.compared)
        self._compares = bool(found.compared)
        self.doubt.setText(found.doubt)
        if found.objects:
            self.scores.show_objects(found.summary.worst_first, found.objects)
            self.scores_title.setText(objects_line(found.summary, found.objects))
        else:
            self.scores.show_scores(found.summary.worst_first, found.names)
            self.scores_title.setText(validation_line(found.summary, found.names))
        self._set_scores_visible(True)

    def _not_read(self, error: BaseException) -> None:
        self._set_scores_visible(False)
        self.scores_title.setText(failure_text(error))
        self.scores_title.setVisible(True)

    def _set_scores_visible(self, visible: bool) -> None:
        for part in (self.scores, self.scores_title, self.correct):
            part.setVisible(visible)
        self.compared.setVisible(visible and self._compares)
        self.doubt.setVisible(visible and self._compares and bool(self.doubt.text()))


def _share(training: Training) -> float | None:
    """Return how much is done: of all epochs, or of what else is being done; None where that is not known."""
    progress = training.progress
    within = None if progress is None else min(1.0, progress.done / max(progress.total, 1))
    match training.stage.split():
        case ["Epoch", number, "of", epochs] if number.isdecimal() and epochs.isdecimal():
            return min(1.0, (int(number) - 1 + (within or 0.0)) / max(int(epochs), 1))
    return within


def _read_scores(training: Training) -> Job[Validated]:
    yield from ()
    info = dataset_of(training)
    ending = ".nii.gz" if info is None else info.file_ending
    folder = training.folder.validation
    summary = Summary.read(folder / "summary.json", ending=ending)
    objects = read_scores(folder / OBJECTS_FILE) if (folder / OBJECTS_FILE).is_file() else {}
    names = {} if info is None else label_names(info)
    return Validated(summary, names, objects, *_before_and_after(training.folder.path))


def _before_and_after(folder: Path) -> tuple[list[list[str]], str]:
    """Return the rows of the comparison with the model that was continued, and its doubt; none where it was not."""
    content = message(folder / CONTINUED_FILE) if (folder / CONTINUED_FILE).is_file() else {}
    dice = content.get("dice")
    pairs = dice.items() if isinstance(dice, dict) else ()
    rows = [[name, f"{pair[0]:.4f}", f"{pair[1]:.4f}"] for name, pair in pairs if _is_pair(pair)]
    return rows, str(content.get("note", ""))


def _is_pair(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(isinstance(part, int | float) for part in value)
