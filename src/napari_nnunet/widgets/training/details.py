"""One training in detail: how far it is, its curves, its validation cases, and what can be done with it."""

from __future__ import annotations

import numpy as np
from qtpy.QtWidgets import QGridLayout, QGroupBox, QLabel, QProgressBar, QPushButton, QVBoxLayout

from napari_nnunet.errors import NnunetError
from napari_nnunet.formats.dataset.raw_dataset import read_info
from napari_nnunet.formats.results.summary import Summary
from napari_nnunet.processes.follow import TrainingView
from napari_nnunet.schema.dataset import DatasetInfo
from napari_nnunet.widgets.training.views import Curves, ScoreTable
from napari_nnunet.widgets.training.words import ending, label_names, status_line

_BUTTONS = {
    "stop": ("Stop and keep", "Save after this step and end, folds after it too; Resume goes on there."),
    "resume": ("Resume", "Go on exactly where it was."),
    "finish": ("Finish soon…", "Let the learning rate go to zero over a few more epochs, and end."),
    "discard": ("Discard…", "Delete checkpoints and logs of this fold."),
    "segment": ("Segment with it now", "Open the Segment dock with the best state so far."),
    "film": ("Watch it learn", "Open a slice of a validation case with the labels after every few epochs."),
}


class TrainingDetails(QGroupBox):
    """Shows a :class:`TrainingView`; the dock decides what its buttons do."""

    def __init__(self) -> None:
        super().__init__()
        self._scored: tuple[str, float] = ("", 0.0)
        self.bar = QProgressBar()
        self.bar.setAccessibleName("Progress of the training")
        self.line, self.note, self.scores_title = QLabel(), QLabel(), QLabel()
        self.buttons: dict[str, QPushButton] = {}
        grid = QGridLayout()
        for i, (name, (text, tip)) in enumerate(_BUTTONS.items()):
            button = QPushButton(text)
            button.setToolTip(tip)
            button.setAccessibleName(text)
            grid.addWidget(button, i // 2, i % 2)
            self.buttons[name] = button
        self.curves = Curves()
        self.scores = ScoreTable()
        self.correct = QPushButton("Save the corrected reference")
        self.correct.setToolTip(
            "Select the labels of a validation case, correct them, and save them as the case's reference. The old one "
            "is kept in the dataset's trash folder."
        )
        column = QVBoxLayout(self)
        for label in (self.line, self.note, self.scores_title):
            label.setWordWrap(True)
        for part in (self.bar, self.line, self.note):
            column.addWidget(part)
        column.addLayout(grid)
        for part in (self.curves, self.scores_title, self.scores, self.correct):
            column.addWidget(part)

    def show_view(self, view: TrainingView, status: str) -> None:
        """Show a training as it is now."""
        self.setTitle(view.title)
        self.line.setText(status_line(view, status))
        alive = status in ("running", "waiting")
        self.note.setText(view.notes[-1] if view.notes and alive else ending(view))
        self.note.setVisible(bool(self.note.text()))
        self._show_bar(view, status)
        self._show_buttons(view, status)
        epochs = [view.epochs[number] for number in sorted(view.epochs)]
        self.curves.setVisible(bool(epochs))
        self.curves.show_epochs(epochs)
        self._show_scores(view)

    def _show_bar(self, view: TrainingView, status: str) -> None:
        self.bar.setVisible(status in ("running", "waiting"))
        if status == "waiting" or view.progress is None:
            self.bar.setRange(0, 0)
            return
        self.bar.setRange(0, 1000)
        within, last = view.progress.done / max(view.progress.total, 1), view.last
        if view.stage.startswith("Epoch") and last is not None:
            within = min(1.0, (last.epoch + 1 + within) / last.epochs)
        elif view.stage.startswith("Epoch"):
            within = 0.0
        self.bar.setValue(round(1000 * within))

    def _show_buttons(self, view: TrainingView, status: str) -> None:
        folder = view.folder
        alive = status in ("running", "waiting")
        self.buttons["stop"].setEnabled(alive)
        self.buttons["stop"].setText("Do not start" if status == "waiting" else "Stop and keep")
        self.buttons["resume"].setEnabled(not alive and bool(folder.checkpoints))
        self.buttons["resume"].setText("Train longer…" if status == "finished" else "Resume")
        self.buttons["finish"].setEnabled(
            status == "running" or (not alive and status != "finished" and bool(folder.checkpoints))
        )
        self.buttons["discard"].setEnabled(not alive)
        self.buttons["segment"].setEnabled(bool(folder.checkpoints))
        self.buttons["film"].setEnabled(bool(view.frames))

    def _show_scores(self, view: TrainingView) -> None:
        path = view.folder.validation / "summary.json"
        there = path.is_file()
        for part in (self.scores, self.scores_title, self.correct):
            part.setVisible(there)
        if not there or self._scored == (str(path), path.stat().st_mtime):
            return
        self._scored = (str(path), path.stat().st_mtime)
        info = dataset_of(view)
        names = {} if info is None else label_names(info)
        try:
            scores = Summary.read(path, ending=".nii.gz" if info is None else info.file_ending).worst_first
        except NnunetError as error:
            self.scores_title.setText(str(error))
            return
        self.scores.show_scores(scores, names)
        known = [score.mean for score in scores if not np.isnan(score.mean)]
        mean = f", mean Dice {np.mean(known):.3f}" if known else ""
        self.scores_title.setText(f"{len(scores)} validation cases{mean}, the worst first. Double click opens one.")


def dataset_of(view: TrainingView) -> DatasetInfo | None:
    """Return the dataset of a training, None where its file cannot be read."""
    try:
        return read_info(view.folder.path.parent)
    except (NnunetError, OSError):
        return None
