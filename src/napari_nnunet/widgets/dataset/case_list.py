"""The cases of a dataset as thumbnails."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QSize, Qt, Signal
from qtpy.QtGui import QIcon
from qtpy.QtWidgets import (
    QAbstractItemView,
    QHBoxLayout,
    QLabel,
    QListWidget,
    QListWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_nnunet.events import CaseDone, CaseFailed
from napari_nnunet.widgets.frame.parts import button
from napari_nnunet.widgets.frame.words import counted, failure_text
from napari_nnunet.widgets.frame.worker import Latest, lazy

if TYPE_CHECKING:
    from napari_nnunet.jobs.dataset.cases import thumbnails
else:
    thumbnails = lazy("napari_nnunet.jobs.dataset.cases:thumbnails")

_SIDE = 96


class CaseList(QWidget):
    """Thumbnails of a dataset's cases: double click opens, a button removes.

    Emits ``opened`` and ``dropped`` with the name of a case.
    """

    opened = Signal(str)
    dropped = Signal(str)

    def __init__(self) -> None:
        super().__init__()
        self._drawing = Latest(self)
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
        self.open = button("Open", "Open the images and labels of the selected case (or double click it).")
        self.drop = button("Remove", "Move the files of the selected case to the dataset's trash folder.")
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
        self._drawing.stop()
        self.list.clear()
        self.setVisible(folder is not None)
        if folder is None:
            return
        self.title.setText("Looking for cases…")
        self._drawing.start(thumbnails(folder), happened=self._add, returned=self._count, errored=self._not_drawn)

    def _not_drawn(self, error: BaseException) -> None:
        self.title.setText(failure_text(error))

    def _count(self, count: int) -> None:
        self.title.setText(f"<b>{counted(count, 'case')}</b> – double click to open")

    def _add(self, event: Any) -> None:
        if not isinstance(event, CaseDone | CaseFailed):
            return
        item = QListWidgetItem(event.case)
        item.setData(Qt.ItemDataRole.UserRole, event.case)
        item.setToolTip(event.case if isinstance(event, CaseDone) else f"{event.case}: {event.message}")
        if isinstance(event, CaseDone):
            item.setIcon(QIcon(event.path))
        self.list.addItem(item)
