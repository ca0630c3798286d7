"""The folds of a dataset: which of them are trained, and which cases each leaves out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QEvent, QSignalBlocker, Qt, QTimer, Signal
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QDialog,
    QFileDialog,
    QFormLayout,
    QGridLayout,
    QHBoxLayout,
    QLineEdit,
    QScrollArea,
    QSpinBox,
    QVBoxLayout,
    QWidget,
)

from napari_nnunet.errors import NnunetError, counted
from napari_nnunet.formats.dataset.groups import likely_pattern, read_groups, stored_groups
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.jobs.dataset.splits import SPLITS_FILE, read_splits
from napari_nnunet.schema.names import Fold
from napari_nnunet.schema.requests.planning import FoldsRequest
from napari_nnunet.widgets.frame.panel import RunPanel, RunState
from napari_nnunet.widgets.frame.parts import Sentence, Table, button
from napari_nnunet.widgets.frame.words import failure_text
from napari_nnunet.widgets.frame.worker import Latest, lazy

if TYPE_CHECKING:
    from napari_nnunet.jobs.planning.folds import FoundFolds, fold_job
else:
    FoundFolds = Any
    fold_job = lazy("napari_nnunet.jobs.planning.folds:fold_job")

_USUAL = 5
_IN_A_ROW = 5
_ROWS = 3  # of boxes that are seen without scrolling
_LATER_MS = 300  # after the last letter of a pattern
_STORED, _OWN = "As stored", "New folds"


class FoldBoxes(QScrollArea):
    """A tick for every fold of a dataset, and one for "all"; emits ``changed``."""

    changed = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.boxes: dict[Fold, QCheckBox] = {}
        self._count = 0
        self._jobs = False
        self._before: tuple[Fold, ...] = (0,)
        self.setWidgetResizable(True)
        self.setFrameShape(QScrollArea.Shape.NoFrame)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self.show_count(_USUAL)

    def show_dataset(self, base: Path | None) -> None:
        """Offer the folds of a dataset in nnUNet_preprocessed; nnU-Net's five where there are none yet."""
        try:
            self.show_count(
                _USUAL if base is None or not (base / SPLITS_FILE).is_file() else len(read_splits(base / SPLITS_FILE))
            )
        except (NnunetError, OSError):
            self.show_count(_USUAL)  # what is wrong with the file is said when it is trained with

    def show_count(self, count: int) -> None:
        """Offer a number of folds; ticks stay."""
        if count == self._count:
            return
        ticked = (*range(count),) if self.every else self.chosen() or (0,)
        self._count = count
        self.boxes.clear()
        content = QWidget()
        grid = QGridLayout(content)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setSpacing(2)
        names: list[Fold] = [*range(count), "all"]
        for i, fold in enumerate(names):
            box = self.boxes[fold] = QCheckBox(str(fold))
            box.setChecked(fold in ticked)
            box.setVisible(not (self._jobs and fold == "all"))
            box.setToolTip(
                "Fold all: trains on all cases; nothing is left to validate."
                if fold == "all"
                else f"Fold {fold}: validates on its own share of the cases, 1 of {count}."
            )
            box.setAccessibleName(f"Fold {fold}")
            box.toggled.connect(self.changed)
            grid.addWidget(box, i // _IN_A_ROW, i % _IN_A_ROW)
        grid.setColumnStretch(_IN_A_ROW, 1)
        self.setWidget(content)
        self._fit()
        self.changed.emit()

    def _fit(self) -> None:
        """Be as high as the boxes, up to a few rows of them."""
        rows = -(-(self._count + 1) // _IN_A_ROW)
        content = self.widget()
        if content is not None:
            height = content.sizeHint().height() + self.height() - self.maximumViewportSize().height()
            self.setFixedHeight(height if rows <= _ROWS else height * _ROWS // rows)

    def event(self, event: QEvent | None) -> bool:
        """Fit again when the theme, which decides how high a box is, came or changed."""
        handled = bool(super().event(event))
        if event is not None and event.type() in (
            QEvent.Type.Polish,
            QEvent.Type.Show,
            QEvent.Type.StyleChange,
            QEvent.Type.LayoutRequest,
        ):
            self._fit()
        return handled

    def offer_jobs(self, jobs: bool) -> None:
        """Offer folds of a cross-validation only, all of them at first; or what was ticked before, and fold "all"."""
        if jobs == self._jobs:
            return
        if jobs:
            self._before = self.chosen()
        self._jobs = jobs
        for fold, box in self.boxes.items():
            box.setChecked(fold != "all" if jobs else fold in self._before)
            box.setVisible(not (jobs and fold == "all"))

    @property
    def every(self) -> bool:
        """Whether all folds of the cross-validation are to be jobs."""
        return self._jobs and len(self.chosen()) == self._count > 0

    def chosen(self) -> tuple[Fold, ...]:
        """Return the ticked folds."""
        every = ((fold, box) for fold, box in self.boxes.items() if not (self._jobs and fold == "all"))
        return tuple(fold for fold, box in every if box.isChecked())


class FoldsDialog(QDialog):
    """Shows which cases validate in which fold, and makes other folds; emits ``made``.

    Parameters
    ----------
    workspace : Workspace
        Where the dataset lies.
    name : str
        ``DatasetXXX_Name``.
    parent : QWidget, optional
        The dock.
    """

    made = Signal()

    def __init__(self, workspace: Workspace, name: str, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.workspace, self.name = workspace, name
        self.found: FoundFolds | None = None
        self._looking = Latest(self)
        self.setWindowTitle(f"Folds of {name}")
        self.setMinimumWidth(520)
        self.which = QComboBox()
        self.by = QLineEdit()
        self.by.setPlaceholderText("every case for itself")
        self.browse = button("Table…", "A CSV file with the columns case, group.")
        self.count = QSpinBox()
        self.count.setRange(2, 10_000)
        self.count.setValue(_USUAL)
        self.one_out = QCheckBox("Leave one out")
        self.about = Sentence()
        self.table = Table("Cases and their folds", ("Case", "Group", "Validates in fold"), most=14)
        self.panel = RunPanel("Make these folds")
        self._lay_out()
        self._later = QTimer(self)
        self._later.setSingleShot(True)
        self._later.setInterval(_LATER_MS)
        self._later.timeout.connect(self._look)
        self.which.currentIndexChanged.connect(self._changed)
        self.by.textChanged.connect(self._changed)
        self.count.valueChanged.connect(self._changed)
        self.one_out.toggled.connect(self._changed)
        self.browse.clicked.connect(self._browse)
        self.panel.start = self.make
        self._start(FoldsRequest(dataset=name, dry_run=True), self._first)

    def _lay_out(self) -> None:
        self.form = form = QFormLayout()
        for label, parts, tip in (
            ("Folds", (self.which,), "All trainings of the dataset use the folds that are stored."),
            (
                "Group by",
                (self.by, self.browse),
                "Keeps cases of one patient, slide or well together: a regular expression whose brackets find the "
                "group in a case's name, such as ^(patient[0-9]+), or a CSV file.",
            ),
            ("Number", (self.count, self.one_out), "Leave one out: a fold for every case, or group."),
        ):
            line = QWidget()
            row = QHBoxLayout(line)
            row.setContentsMargins(0, 0, 0, 0)
            for part in parts:
                row.addWidget(part, 0 if part is self.browse else 1)
            parts[0].setAccessibleName(label)
            parts[0].setToolTip(tip)
            form.addRow(label, line)
        column = QVBoxLayout(self)
        column.addLayout(form)
        close = button("Close")
        close.clicked.connect(self.reject)
        for part in (self.about, self.table, self.panel):
            column.addWidget(part)
        column.addStretch(1)
        column.addWidget(close)

    def _browse(self) -> None:
        path, _ = QFileDialog.getOpenFileName(self, "Table of groups", self.by.text(), "Tables (*.csv *.tsv)")
        if path:
            self.by.setText(path)

    def request(self) -> FoldsRequest:
        """Return what the dialog says."""
        if self.which.currentText() == _STORED:
            return FoldsRequest(dataset=self.name)
        folds = "loo" if self.one_out.isChecked() else self.count.value()
        return FoldsRequest(dataset=self.name, group_by=self.by.text().strip() or None, folds=folds)

    # --- what comes of it ---

    def _start(self, request: FoldsRequest, returned: Any) -> None:
        self.panel.set_ready("Looking for the cases…")
        self._looking.start(fold_job(self.workspace, request), returned=returned, errored=self._failed)

    def _first(self, found: FoundFolds) -> None:
        """Begin with the folds there are; propose groups that the names show."""
        cases = sorted(_fold_of(found))
        pattern = stored_groups(self.workspace.raw / self.name) or likely_pattern(cases)
        units = cases if pattern is None else set(read_groups(cases, pattern).of.values())
        with QSignalBlocker(self.which), QSignalBlocker(self.by), QSignalBlocker(self.count):
            self.which.addItems([_STORED, _OWN] if found.stored else [_OWN])
            self.by.setText(pattern or "")
            self.count.setValue(min(_USUAL, len(units)))
        if found.stored:
            self._show(found)
        else:
            self._look()

    def _changed(self, _: Any = None) -> None:
        self._looking.stop()
        self.panel.set_ready("Looking for the cases…")
        self._later.start()

    def _look(self) -> None:
        try:
            request = self.request().replace(dry_run=True)
        except NnunetError as error:
            self._failed(error)
            return
        self._start(request, self._show)

    def _failed(self, error: BaseException) -> None:
        self.found = None
        if not self.which.count():  # such as for a table of groups that cannot be read: a pattern can be typed instead
            with QSignalBlocker(self.which):
                self.which.addItem(_OWN)
        self.table.setVisible(False)
        self.about.setText(failure_text(error))
        self.panel.set_ready(self.about.text())
        self._show_form()

    def _show(self, found: FoundFolds) -> None:
        self.found = found
        of: Mapping[str, str] = {} if found.groups is None else found.groups.of
        folds = _fold_of(found)
        rows = sorted((of.get(case, ""), case, text) for case, text in folds.items())
        self.table.fill([(case, group, text) for group, case, text in rows])
        self.table.setVisible(True)
        groups = f" in {counted(len(set(of.values())), 'group')}" if of else ""
        sizes = sorted({len(split.val) for split in found.splits})
        span = f"{sizes[0]}" if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}"
        said = [f"<b>{counted(len(folds), 'case')}{groups}, {counted(len(found.splits), 'fold')}</b>"]
        said.append(f"each validates on {span}.")
        said += [_plain(note.text) for note in found.warnings]
        self.about.setText(f"{said[0]}; {' '.join(said[1:])}")
        self.panel.set_ready("These are the folds that are stored." if found.stored else None)
        self._show_form()

    def _show_form(self) -> None:
        own = self.which.currentText() == _OWN
        for row in (1, 2):
            self.form.setRowVisible(row, own)
        self.count.setEnabled(not self.one_out.isChecked())

    def make(self) -> None:
        """Write the folds that are shown."""
        self.panel.run(fold_job(self.workspace, self.request()), done=self._made)

    def _made(self, found: FoundFolds) -> str:
        with QSignalBlocker(self.which):
            if self.which.findText(_STORED) < 0:
                self.which.insertItem(0, _STORED)
        self._show(found)
        self.made.emit()
        return f"{counted(len(found.splits), 'fold')} written. All trainings of {self.name} use them."

    def done(self, result: int) -> None:
        """End what is still looked at."""
        self._later.stop()
        self._looking.stop()
        super().done(result)

    def reject(self) -> None:
        """Close, but not while files are written."""
        if self.panel.state is RunState.IDLE:
            super().reject()


def _plain(warning: str) -> str:
    """Return a warning without the flag that mends it in a shell; here it is the field above."""
    return warning.partition(" Where that is so,")[0]


def _fold_of(found: FoundFolds) -> dict[str, str]:
    """Return in which folds each case validates."""
    of: dict[str, list[str]] = {name: [] for split in found.splits for name in (*split.train, *split.val)}
    for i, split in enumerate(found.splits):
        for name in split.val:
            of[name].append(str(i))
    return {name: ", ".join(folds) or "–" for name, folds in of.items()}
