"""The cases of a dataset as thumbnails, and which of them belong together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QSignalBlocker, QSize, Qt, Signal
from qtpy.QtGui import QIcon
from qtpy.QtWidgets import (
    QAbstractItemView,
    QHBoxLayout,
    QLineEdit,
    QListWidget,
    QListWidgetItem,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_nnunet.errors import NnunetError, counted
from napari_nnunet.events import CaseDone, CaseFailed
from napari_nnunet.formats.dataset.groups import change_groups, likely_pattern, put_aside, read_groups, stored_groups
from napari_nnunet.widgets.frame.parts import Sentence, Table, button
from napari_nnunet.widgets.frame.words import as_text, failure_text, telling_parts
from napari_nnunet.widgets.frame.worker import Latest, lazy

if TYPE_CHECKING:
    from napari_nnunet.jobs.dataset.cases import thumbnails
else:
    thumbnails = lazy("napari_nnunet.jobs.dataset.cases:thumbnails")

_SIDE = 84  # pixels: three of them fit beside each other
_TIP = (
    "A regular expression whose brackets find the group in a case's name, such as ^(patient[0-9]+), or a CSV file with "
    "the columns case, group."
)


class CaseList(QWidget):
    """Thumbnails of a dataset's cases: double-click opens, a button removes.

    Emits ``opened`` and ``dropped`` with the name of a case, and ``listed`` with all names.
    """

    opened = Signal(str)
    dropped = Signal(str)
    listed = Signal(list)

    def __init__(self) -> None:
        super().__init__()
        self._drawing = Latest(self)
        self.title = Sentence()
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
        self.open = button("Open", "Open the images and labels of the selected case (or double-click it).")
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
        items = (self.list.item(i) for i in range(self.list.count()))
        named = {item.data(Qt.ItemDataRole.UserRole): item for item in items if item is not None}
        for name, text in telling_parts(list(named), self._fits).items():
            named[name].setText(text)
        self.listed.emit(list(named))
        self.title.setText(f"<b>{counted(count, 'case')}</b> – double-click to open")

    def _fits(self, text: str) -> bool:
        return self.list.fontMetrics().horizontalAdvance(text) <= _SIDE

    def _add(self, event: Any) -> None:
        if not isinstance(event, CaseDone | CaseFailed):
            return
        item = QListWidgetItem(event.case)
        item.setData(Qt.ItemDataRole.UserRole, event.case)
        item.setToolTip(as_text(event.case if isinstance(event, CaseDone) else f"{event.case}: {event.message}"))
        if isinstance(event, CaseDone):
            item.setIcon(QIcon(event.path))
        self.list.addItem(item)


class GroupTable(QWidget):
    """Cases and their groups; what is typed is kept in the dataset at once, in groups.csv."""

    def __init__(self) -> None:
        super().__init__()
        self._folder: Path | None = None
        self.about = Sentence()
        self.table = Table("Cases and their groups", ("Case", "Group"))
        self.table.setEditTriggers(QTableWidget.EditTrigger.AllEditTriggers)
        self.pattern = QLineEdit()
        self.pattern.setAccessibleName("Pattern of the groups")
        self.pattern.setToolTip(_TIP)
        self.find = button("Fill in", "Fill the column by the pattern; what is typed by hand is replaced.")
        self.aside = button("Put this table aside", "Keep groups.csv under another name, and start from scratch.")
        self.aside.hide()  # while it can be read
        row = QHBoxLayout()
        row.addWidget(self.pattern, 1)
        row.addWidget(self.find)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(self.about)
        column.addWidget(self.aside)
        column.addLayout(row)
        column.addWidget(self.table)
        self.aside.clicked.connect(self._put_aside)
        self.find.clicked.connect(self._fill_in)
        self.table.itemChanged.connect(self._typed)

    def show_dataset(self, folder: Path | None) -> None:
        """Show nothing of another dataset than before, until its cases are known."""
        if folder != self._folder:
            self.show_cases(None, ())

    def show_cases(self, folder: Path | None, names: Sequence[str]) -> None:
        """Show the cases of a raw dataset with their groups, and propose a pattern that the names show."""
        self._folder = folder
        self.pattern.setText("")
        self.pattern.setPlaceholderText("such as ^(patient[0-9]+)")
        groups: dict[str, str] = {}
        text = ""
        try:
            stored = None if folder is None else stored_groups(folder)
            if stored is not None:
                found = read_groups(names, stored)
                groups = {name: group for name, group in found.of.items() if name not in found.alone}
            else:
                self.pattern.setText(likely_pattern(names) or "")
        except (NnunetError, OSError) as error:
            text = failure_text(error)
        self._show(names, groups)
        self.aside.setVisible(bool(text))
        if text:
            self.about.setText(text)

    def _put_aside(self) -> None:
        if self._folder is None:
            return
        try:
            kept = put_aside(self._folder)
        except (NnunetError, OSError) as error:
            self.about.setText(failure_text(error))
            return
        self.show_cases(self._folder, self._names())
        self.about.setText(f"{self.about.text()} The former table is {kept.name} now.")

    def _names(self) -> list[str]:
        return [item.text() for row in range(self.table.rowCount()) if (item := self.table.item(row, 0)) is not None]

    def groups(self) -> dict[str, str]:
        """Return the group of every case that has one."""
        found = {}
        for row in range(self.table.rowCount()):
            case, group = self.table.item(row, 0), self.table.item(row, 1)
            if case is not None and group is not None and group.text().strip():
                found[case.text()] = group.text().strip()
        return found

    def _show(self, names: Sequence[str], groups: dict[str, str]) -> None:
        with QSignalBlocker(self.table):
            self.table.fill([(name, groups.get(name, "")) for name in names])
            for row in range(self.table.rowCount()):
                item: QTableWidgetItem | None = self.table.item(row, 0)
                if item is not None:
                    item.setFlags(item.flags() & ~Qt.ItemFlag.ItemIsEditable)
        self._say()

    def _say(self) -> None:
        groups = self.groups()
        if not groups:
            self.about.setText("No groups: every case stands alone. Cases of a patient, slide or well belong together.")
            return
        alone = self.table.rowCount() - len(groups)
        rest = f", {alone} alone" if alone else ""
        several = counted(len(set(groups.values())), "group")
        self.about.setText(
            f"{counted(len(groups), 'case')} in {several}{rest}. Folds that are made keep them together; the Train "
            "dock shows the folds."
        )

    def _typed(self, item: QTableWidgetItem) -> None:
        case = self.table.item(item.row(), 0)
        if case is not None and self._keep({case.text(): item.text()}):
            self._say()

    def _fill_in(self) -> None:
        names = self._names()
        try:
            found = read_groups(names, self.pattern.text().strip())
        except NnunetError as error:
            self.about.setText(error.in_window)
            return
        groups = {name: group for name, group in found.of.items() if name not in found.alone}
        if not self._keep({name: groups.get(name, "") for name in names}):
            return
        self._show(names, groups)
        if found.remark:
            self.about.setText(f"{self.about.text()} {found.remark}.")

    def _keep(self, changed: Mapping[str, str]) -> bool:
        """Write the groups of some cases into the table there is; others in it, of another window too, stay."""
        if self._folder is None:
            return False
        try:
            change_groups(self._folder, self._names(), changed)
        except (NnunetError, OSError) as error:
            self.about.setText(f"The groups could not be saved. {failure_text(error)}")
            return False
        return True
