"""The cases of a dataset as thumbnails, and its problems with their remedies."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from qtpy.QtCore import QSize, Qt, Signal
from qtpy.QtGui import QIcon
from qtpy.QtWidgets import (
    QAbstractItemView,
    QHBoxLayout,
    QLabel,
    QListWidget,
    QListWidgetItem,
    QPushButton,
    QTreeWidget,
    QTreeWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_nnunet.events import CaseDone, CaseFailed, Job
from napari_nnunet.widgets.frame.worker import JobWorker, Listener

_SIDE = 96
_FIX_TEXTS = {
    "set_count": "Count again",
    "drop_case": "Remove case",
    "remap_labels": "Renumber labels",
    "set_spacing": "Set voxel size…",
}


class CaseList(QWidget):
    """Thumbnails of a dataset's cases: double click opens, a button removes.

    Emits ``opened`` and ``dropped`` with the name of a case.
    """

    opened = Signal(str)
    dropped = Signal(str)

    def __init__(self) -> None:
        super().__init__()
        self._worker: JobWorker | None = None
        self.title = QLabel()
        self.list = QListWidget()
        self.list.setAccessibleName("Cases of the dataset")
        self.list.setViewMode(QListWidget.ViewMode.IconMode)
        self.list.setResizeMode(QListWidget.ResizeMode.Adjust)
        self.list.setMovement(QListWidget.Movement.Static)
        self.list.setIconSize(QSize(_SIDE, _SIDE))
        self.list.setGridSize(QSize(_SIDE + 14, _SIDE + 30))
        self.list.setTextElideMode(Qt.TextElideMode.ElideMiddle)
        self.list.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.list.setMinimumHeight(2 * (_SIDE + 34))
        self.open = QPushButton("Open")
        self.open.setToolTip("Open the images and labels of the selected case (or double click it).")
        self.drop = QPushButton("Remove")
        self.drop.setToolTip("Move the files of the selected case to the dataset's trash folder.")
        row = QHBoxLayout()
        row.addWidget(self.open)
        row.addWidget(self.drop)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.title)
        layout.addWidget(self.list)
        layout.addLayout(row)
        self.open.clicked.connect(lambda: self._emit(self.opened))
        self.drop.clicked.connect(lambda: self._emit(self.dropped))
        self.list.itemDoubleClicked.connect(lambda item: self.opened.emit(item.data(Qt.ItemDataRole.UserRole)))
        self.list.currentItemChanged.connect(self._update_buttons)
        self._update_buttons()

    def _update_buttons(self, *_: Any) -> None:
        chosen = self.list.currentItem() is not None
        self.open.setEnabled(chosen)
        self.drop.setEnabled(chosen)

    def _emit(self, signal: Any) -> None:
        item = self.list.currentItem()
        if item is not None:
            signal.emit(item.data(Qt.ItemDataRole.UserRole))

    def show_dataset(self, folder: Path | None) -> None:
        """List the cases of a dataset; their pictures are drawn on a thread."""
        if self._worker is not None:
            self._worker.quit()
            self._worker = None
        self.list.clear()
        self._count = 0
        self.setVisible(folder is not None)
        if folder is None:
            return
        self.title.setText("Looking for cases…")
        worker = JobWorker(_thumbnail_job(folder))
        Listener(
            self,
            worker,
            yielded=lambda event: self._add(worker, event),
            returned=lambda count: self._done(worker, count),
            errored=lambda error: self.title.setText(str(error)),
        )
        self._worker = worker
        worker.start()

    def _add(self, worker: JobWorker, event: Any) -> None:
        if worker is not self._worker or not isinstance(event, CaseDone | CaseFailed):
            return  # of a dataset that is no longer shown
        item = QListWidgetItem(event.case)
        item.setData(Qt.ItemDataRole.UserRole, event.case)
        item.setToolTip(event.case if isinstance(event, CaseDone) else f"{event.case}: {event.message}")
        if isinstance(event, CaseDone):
            item.setIcon(QIcon(event.path))
        self.list.addItem(item)

    def _done(self, worker: JobWorker, count: int | None) -> None:
        if worker is not self._worker or count is None:
            return
        self.title.setText(f"<b>{count} case{'s' if count != 1 else ''}</b> – double click to open")

    def names(self) -> list[str]:
        """Return the names that are listed."""
        return [self.list.item(i).text() for i in range(self.list.count())]


def _thumbnail_job(folder: Path) -> Callable[[], Job[int]]:
    def start() -> Job[int]:
        from napari_nnunet.jobs.dataset.cases import thumbnails

        return thumbnails(folder)

    return start


class ProblemList(QWidget):
    """What is wrong with a dataset; selecting a line offers its remedy.

    Emits ``fix`` with the problem.
    """

    fix = Signal(object)

    def __init__(self) -> None:
        super().__init__()
        self.title = QLabel()
        self.title.setWordWrap(True)
        self.tree = QTreeWidget()
        self.tree.setHeaderLabels(["Where", "What"])
        self.tree.setAccessibleName("Problems of the dataset")
        self.tree.setRootIsDecorated(False)
        self.tree.setWordWrap(True)
        self.tree.setColumnWidth(0, 120)
        self.tree.setMinimumHeight(140)
        self.text = QLabel()
        self.text.setWordWrap(True)
        self.button = QPushButton()
        self.button.setVisible(False)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        for part in (self.title, self.tree, self.text, self.button):
            layout.addWidget(part)
        self.tree.currentItemChanged.connect(self._selected)
        self.button.clicked.connect(self._fix)
        self.setVisible(False)

    def show_report(self, report: Any) -> None:
        """Show a report of the check, errors first."""
        self.tree.clear()
        errors, warnings = len(report.errors), len(report.problems) - len(report.errors)
        if not report.problems:
            self.title.setText(f"<b>All is well</b> with the {report.cases} cases.")
        else:
            self.title.setText(
                f"<b>{_count(errors, 'error')}, {_count(warnings, 'warning')}</b> in {report.cases} cases"
            )
        for problem in report.problems:
            item = QTreeWidgetItem([problem.where, problem.text])
            item.setData(0, Qt.ItemDataRole.UserRole, problem)
            icon = "SP_MessageBoxCritical" if problem.level == "error" else "SP_MessageBoxWarning"
            style = self.style()
            item.setIcon(0, style.standardIcon(getattr(style.StandardPixmap, icon)))
            item.setToolTip(1, problem.text)
            self.tree.addTopLevelItem(item)
        self.tree.setVisible(bool(report.problems))
        self.text.setText("")
        self.button.setVisible(False)
        self.setVisible(True)

    def _current(self) -> Any:
        item = self.tree.currentItem()
        return None if item is None else item.data(0, Qt.ItemDataRole.UserRole)

    def _selected(self, *_: Any) -> None:
        problem = self._current()
        self.text.setText("" if problem is None else f"{problem.where}: {problem.text.rstrip('.')}.")
        self.button.setVisible(problem is not None and problem.fix is not None)
        if problem is not None and problem.fix is not None:
            self.button.setText(_FIX_TEXTS[problem.fix])

    def _fix(self) -> None:
        problem = self._current()
        if problem is not None:
            self.fix.emit(problem)


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"


def names_of(problem: Any, known: Sequence[str]) -> list[str]:
    """Return the cases a problem speaks of, the second of several that are the same."""
    found = [name for name in known if name in {part.strip() for part in problem.where.split(",")}]
    return found[1:2] if len(found) > 1 else found
