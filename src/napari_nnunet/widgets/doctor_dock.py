"""Check my computer: what there is, what is missing, and the command that mends it."""

from __future__ import annotations

from typing import Any

from qtpy.QtGui import QFontDatabase
from qtpy.QtWidgets import QApplication, QHBoxLayout, QPlainTextEdit, QPushButton, QVBoxLayout, QWidget

from napari_nnunet.events import Job, Stage
from napari_nnunet.widgets.frame.worker import JobWorker


class DoctorWidget(QWidget):
    """Shows the doctor's report, to read and to copy."""

    def __init__(self) -> None:
        super().__init__()
        self.text = QPlainTextEdit("Looking…")
        self.text.setReadOnly(True)
        self.text.setAccessibleName("Report about this computer")
        self.text.setFont(QFontDatabase.systemFont(QFontDatabase.SystemFont.FixedFont))
        self.again = QPushButton("Check again")
        self.copy = QPushButton("Copy")
        row = QHBoxLayout()
        row.addWidget(self.again)
        row.addWidget(self.copy)
        layout = QVBoxLayout(self)
        layout.addWidget(self.text)
        layout.addLayout(row)
        self.setMinimumWidth(420)
        self.again.clicked.connect(self.check)
        self.copy.clicked.connect(self._copy)
        self.check()

    def check(self) -> None:
        """Look again, on a thread."""
        self.again.setEnabled(False)
        self._worker = JobWorker(_examine)
        self._worker.returned.connect(self._show)
        self._worker.errored.connect(self._show)
        self._worker.start()

    def _show(self, report: Any) -> None:
        self.text.setPlainText(str(report))
        self.again.setEnabled(True)

    def _copy(self) -> None:
        clipboard = QApplication.clipboard()
        if clipboard is not None:
            clipboard.setText(self.text.toPlainText())


def _examine() -> Job[Any]:
    from napari_nnunet.jobs.doctor import examine

    yield Stage(name="Looking at this computer")
    return examine()
