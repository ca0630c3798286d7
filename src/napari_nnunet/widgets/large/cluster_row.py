"""The row of a form that says who computes: this process, or workers of a cluster."""

from __future__ import annotations

from qtpy.QtWidgets import QFileDialog, QFormLayout

from napari_nnunet.errors import SettingsError
from napari_nnunet.processes.cluster.where import ANY, where
from napari_nnunet.widgets.frame.forms import PathRow
from napari_nnunet.widgets.frame.parts import button
from napari_nnunet.widgets.frame.ready import NotReadyError

_TITLE, _NOBODY = "Cluster", "this process"
_TIP = (
    "Let workers of a cluster do it: tcp://HOST:PORT (a dask scheduler), local:N (N workers on this computer), or a "
    ".toml file about Slurm, PBS, LSF or SGE. They must see the same files under the same paths."
)


class ClusterRow(PathRow):
    """Names a cluster, or none; emits ``changed``.

    Parameters
    ----------
    form : QFormLayout
        Gets the row.
    """

    def __init__(self, form: QFormLayout) -> None:
        browse = button("File…", "Choose the settings file of a queueing system (.toml).")
        browse.setAccessibleName("Browse to the settings of a cluster")
        super().__init__(form, _TITLE, _TITLE, _TIP, browse)
        self.edit.setPlaceholderText(_NOBODY)

    def cluster(self) -> str | None:
        """Return what was typed, None for this process; raises NotReadyError if it names no cluster."""
        if not self.text:
            return None
        try:
            where(self.text, ANY)  # whether somebody answers there is found out when it runs
        except SettingsError as error:
            raise NotReadyError(error.in_window) from error
        return self.text

    def browse(self) -> None:
        """Ask for a settings file."""
        path, _ = QFileDialog.getOpenFileName(self.edit, "Settings of a cluster", "", "Settings (*.toml)")
        if path:
            self.edit.setText(path)
