"""What would be read of files, and how: the table of ``napari-nnunet look``, before anything runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QHBoxLayout, QHeaderView, QPushButton, QVBoxLayout, QWidget

from napari_nnunet.errors import counted
from napari_nnunet.schema.requests.dataset import LookRequest
from napari_nnunet.widgets.frame.panel import RunDialog, RunPanel
from napari_nnunet.widgets.frame.parts import CopyButton, Sentence, Table, button
from napari_nnunet.widgets.frame.words import as_text
from napari_nnunet.widgets.frame.worker import lazy

if TYPE_CHECKING:
    from napari_nnunet.jobs.dataset.look import Look, look
else:
    Look = Any
    look = lazy("napari_nnunet.jobs.dataset.look:look")

_TIP = "Show of every file its size, voxel size, orientation, type and values, and what looks odd. Nothing is changed."
_ODD = "What looks odd"


def look_button(paths: Callable[[], Sequence[Path]], subfolders: Callable[[], bool] = lambda: False) -> QPushButton:
    """Return a button that shows what would be read of the files and folders that are chosen when it is pressed."""
    made = button("What will be read…", _TIP)
    made.clicked.connect(lambda: LookDialog(paths(), made.window(), subfolders=subfolders()).open())
    return made


class LookDialog(RunDialog):
    """A table with a line for every file; selecting one says what looks odd about it.

    Parameters
    ----------
    paths : sequence of Path
        Files, folders with images, folders with a DICOM series, raw datasets.
    parent : QWidget, optional
        The dock or dialog.
    subfolders : bool
        Look into subfolders too.
    """

    def __init__(self, paths: Sequence[Path], parent: QWidget | None = None, *, subfolders: bool = False) -> None:
        super().__init__(parent)
        self.paths, self.subfolders = tuple(paths), subfolders
        self.found: Sequence[Look] = ()
        self.setWindowTitle("What will be read")
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self.resize(900, 480)
        self.panel = RunPanel("Look again", stops="Stop looking.")
        self.table = Table("Files", most=14)
        self.text = Sentence()
        self.copy = CopyButton("Copy the table", self._as_text)
        close = button("Close", "Nothing was changed.")
        row = QHBoxLayout()
        row.addWidget(self.copy)
        row.addWidget(close)
        column = QVBoxLayout(self)
        for part in (self.panel, self.table, self.text):
            column.addWidget(part)
        column.addStretch(1)
        column.addLayout(row)
        self.table.currentCellChanged.connect(lambda *_: self._say())
        close.clicked.connect(self.reject)
        self.panel.start = self.look
        self.look()

    def look(self) -> None:
        """Read the files once more."""
        if self.paths:
            self.panel.run(look(LookRequest(paths=self.paths, subfolders=self.subfolders)), done=self._show)
        else:
            self.panel.say("Choose a folder first.")

    def _show(self, found: Sequence[Look]) -> str:
        self.found = found
        self.table.set_heads([head.capitalize() for head in (*found[0].cells, _ODD)])
        header = self.table.horizontalHeader()
        header.setSectionResizeMode(0, QHeaderView.ResizeMode.ResizeToContents)
        header.setStretchLastSection(True)
        self.table.fill([(*entry.cells.values(), _odd(entry)) for entry in found])
        for row, entry in enumerate(found):
            for column in (0, self.table.columnCount() - 1):
                item = self.table.item(row, column)
                if item is not None:
                    item.setToolTip(as_text(_odd(entry) if column else str(entry.path)))
        self._say()
        return ""

    def _say(self) -> None:
        """Say what looks odd about the selected file, or how many look odd."""
        row = self.table.currentRow()
        if 0 <= row < len(self.found):
            self.text.setText(f"{self.found[row].path.name}: {_odd(self.found[row]) or 'nothing looks odd'}.")
            return
        odd = sum(bool(_odd(entry)) for entry in self.found)
        more = f"; {odd} look odd: select one to read why" if odd else ", none looks odd"
        self.text.setText(f"{counted(len(self.found), 'file')}{more}." if self.found else "")

    def _as_text(self) -> str:
        heads = [*self.found[0].cells, _ODD.lower()] if self.found else []
        rows = [heads, *([*entry.cells.values(), _odd(entry)] for entry in self.found)]
        return "\n".join("\t".join(row) for row in rows)


def _odd(entry: Look) -> str:
    """Return what looks odd about a file, or why it cannot be read."""
    return entry.in_window.rstrip(".") or "; ".join(text.rstrip(".") for text in entry.remarks)
