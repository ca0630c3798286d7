"""The row of a form that says who computes: this process, or workers of a cluster."""

from __future__ import annotations

from qtpy.QtCore import QObject, Signal
from qtpy.QtWidgets import QFileDialog, QFormLayout, QHBoxLayout, QLineEdit, QWidget

from napari_nnunet.errors import SettingsError
from napari_nnunet.processes.cluster.where import ANY, where
from napari_nnunet.widgets.frame.parts import button
from napari_nnunet.widgets.frame.ready import NotReadyError
from napari_nnunet.widgets.frame.words import as_text

_TITLE, _NOBODY = "Cluster", "this process"
_TIP = (
    "Let workers of a cluster do it: tcp://HOST:PORT (a dask scheduler), local:N (N workers on this computer), or a "
    ".toml file about Slurm, PBS, LSF or SGE. They must see the same files under the same paths."
)


class ClusterRow(QObject):
    """Names a cluster, or none; emits ``changed``.

    Parameters
    ----------
    form : QFormLayout
        Gets the row.
    """

    changed = Signal()

    def __init__(self, form: QFormLayout) -> None:
        super().__init__()
        self._form = form
        self.edit = QLineEdit()
        self.edit.setAccessibleName(_TITLE)
        self.edit.setPlaceholderText(_NOBODY)
        browse = button("File…", "Choose the settings file of a queueing system (.toml).")
        browse.setAccessibleName("Browse to the settings of a cluster")
        browse.clicked.connect(lambda _=False: self._browse())
        self.line = QWidget()
        row = QHBoxLayout(self.line)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self.edit, 1)
        row.addWidget(browse)
        form.addRow(_TITLE, self.line)
        self.edit.textChanged.connect(self._changed)
        self._changed("")

    def _changed(self, text: str) -> None:
        # A path is wider than a dock.
        self.edit.setToolTip(f"{as_text(text)}\n{_TIP}" if text else _TIP)
        self.changed.emit()

    def show(self, *, visible: bool) -> None:
        """Show or hide the row; hidden, it names no cluster."""
        self._form.setRowVisible(self.line, visible)

    def cluster(self) -> str | None:
        """Return what was typed, None for this process; raises NotReadyError if it names no cluster."""
        text = self.edit.text().strip()
        if not text:
            return None
        try:
            where(text, ANY)  # whether somebody answers there is found out when it runs
        except SettingsError as error:
            raise NotReadyError(error.in_window) from error
        return text

    def _browse(self) -> None:
        path, _ = QFileDialog.getOpenFileName(self.edit, "Settings of a cluster", "", "Settings (*.toml)")
        if path:
            self.edit.setText(path)
