"""What lies in the trash of a workspace, and the way back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QDialog, QHBoxLayout, QMessageBox, QPushButton, QVBoxLayout, QWidget

from napari_nnunet.errors import NnunetError
from napari_nnunet.widgets.frame.parts import Sentence, Table, button
from napari_nnunet.widgets.frame.words import as_text, failure_text


@dataclass(frozen=True)
class Rubbish:
    """Something that can be brought back.

    Parameters
    ----------
    title : str
        What it is.
    time : str
        When it was put into the trash.
    bring_back : callable
        Brings it back; may raise NnunetError.
    doubts : callable
        Returns why it may not fit any more, in sentences; empty where nothing speaks against it.
    """

    title: str
    time: str
    bring_back: Callable[[], object]
    doubts: Callable[[], str] = str


class TrashButton(QPushButton):
    """Says how much lies in the trash and shows it; emits ``emptied`` with a sentence when something was brought back.

    Parameters
    ----------
    look : callable
        Returns what lies there.
    """

    emptied = Signal(str)

    def __init__(self, look: Callable[[], Sequence[Rubbish]]) -> None:
        super().__init__()
        self._look = look
        self.dialog: TrashDialog | None = None
        self.setToolTip("Show what was replaced or removed, and bring it back.")
        self.clicked.connect(self._open)

    def look_again(self) -> None:
        """Count again; nothing is shown while the trash is empty."""
        count = len(self._found())
        self.setText(f"Trash ({count})…")
        self.setAccessibleName(f"Trash, {count}")
        self.setVisible(count > 0)

    def _found(self) -> Sequence[Rubbish]:
        try:
            return self._look()
        except (NnunetError, OSError):
            return ()  # a disk that is gone; the dock says so where it lists what is there

    def _open(self) -> None:
        self.dialog = TrashDialog(self._found, self)
        self.dialog.brought.connect(self._brought)
        self.dialog.open()

    def _brought(self, text: str) -> None:
        self.look_again()
        self.emptied.emit(text)


class TrashDialog(QDialog):
    """Lists what lies in the trash; emits ``brought`` with a sentence when something was brought back."""

    brought = Signal(str)

    def __init__(self, look: Callable[[], Sequence[Rubbish]], parent: QWidget) -> None:
        super().__init__(parent)
        self.setWindowTitle("Trash")
        self.setMinimumWidth(480)
        self._look = look
        self._rows: Sequence[Rubbish] = ()
        self.table = Table("What lies in the trash", ("What", "Since"), most=12)
        self.text = Sentence()
        self.back = button("Bring back", "Put it where it was; what is there now goes to the trash instead.")
        self.close_button = button("Close")
        row = QHBoxLayout()
        for part in (self.back, self.close_button):
            row.addWidget(part)
        column = QVBoxLayout(self)
        column.addWidget(self.table)
        column.addWidget(self.text)
        column.addLayout(row)
        self.back.clicked.connect(self._bring_back)
        self.close_button.clicked.connect(self.accept)
        self.table.itemSelectionChanged.connect(self._update)
        self._fill()

    def _fill(self) -> None:
        self._rows = self._look()
        self.table.fill([(row.title, row.time) for row in self._rows])
        if self._rows:
            self.table.selectRow(0)
        self._update()

    def _current(self) -> Rubbish | None:
        row = self.table.currentRow()
        return self._rows[row] if 0 <= row < len(self._rows) else None

    def _update(self) -> None:
        self.back.setEnabled(self._current() is not None)

    def _bring_back(self) -> None:
        chosen = self._current()
        if chosen is None:
            return
        try:
            doubts = chosen.doubts()
            if doubts and not self._confirmed(f"{doubts} Bring it back all the same?"):
                return
            chosen.bring_back()
        except (NnunetError, OSError) as error:
            self.text.setText(f"Not brought back: {failure_text(error)}")
            return
        text = f"Brought back: {chosen.title}."
        self.text.setText(text)
        self._fill()
        self.brought.emit(text)

    def _confirmed(self, question: str) -> bool:
        return QMessageBox.question(self, "Bring back?", as_text(question)) == QMessageBox.StandardButton.Yes
