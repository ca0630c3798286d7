"""Check my computer: what there is, what is missing, and the command that installs it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtGui import QFontDatabase
from qtpy.QtWidgets import QHBoxLayout, QPlainTextEdit, QVBoxLayout

from napari_nnunet.events import Job, Stage
from napari_nnunet.widgets.frame.dock import Dock
from napari_nnunet.widgets.frame.panel import RunPanel
from napari_nnunet.widgets.frame.parts import CopyButton
from napari_nnunet.widgets.pages.browser import HelpButton

if TYPE_CHECKING:
    import napari


class DoctorWidget(Dock):
    """Shows the doctor's report, to read and to copy.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
        Injected by napari.
    """

    def __init__(self, viewer: napari.viewer.Viewer) -> None:
        super().__init__(viewer)
        self.text = QPlainTextEdit("Looking…")
        self.text.setReadOnly(True)
        self.text.setTabChangesFocus(True)
        self.text.setAccessibleName("Report about this computer")
        self.text.setFont(QFontDatabase.systemFont(QFontDatabase.SystemFont.FixedFont))
        self.panel = RunPanel("Check again", stops="Stop looking.")
        self.panel.start = self.check
        self.copy = CopyButton("Copy", self.text.toPlainText)
        column = QVBoxLayout(self)
        row = QHBoxLayout()
        row.addWidget(self.copy, 1)
        row.addWidget(HelpButton("start.md"))
        column.addWidget(self.text)
        column.addLayout(row)
        column.addWidget(self.panel)
        self.setMinimumWidth(420)
        self.check()

    def check(self) -> None:
        """Look again, on a thread."""
        self.panel.run(_examine(), done=self.text.setPlainText)


def _examine() -> Job[str]:
    from napari_nnunet.jobs.doctor import examine  # loads torch, on a thread

    yield Stage(name="Checking this computer")
    return str(examine())
