"""Choose a model of a catalogue by its card, and fetch it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QFormLayout, QHBoxLayout, QLineEdit, QListWidget, QVBoxLayout, QWidget

from napari_nnunet.errors import NnunetError
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.jobs.sharing.catalogue import Catalogue, CatalogueEntry, address_of
from napari_nnunet.schema.requests.sharing import FetchModelRequest, ListModelsRequest
from napari_nnunet.widgets.frame.panel import RunDialog, RunPanel
from napari_nnunet.widgets.frame.parts import Sentence, button
from napari_nnunet.widgets.frame.preferences import read_preferences
from napari_nnunet.widgets.frame.worker import lazy

if TYPE_CHECKING:
    from napari_nnunet.jobs.sharing.catalogue import fetch_model, list_models
else:
    list_models = lazy("napari_nnunet.jobs.sharing.catalogue:list_models")
    fetch_model = lazy("napari_nnunet.jobs.sharing.catalogue:fetch_model")


class CatalogueDialog(RunDialog):
    """Shows the models of a catalogue with their cards, and fetches one; emits ``fetched`` with what was installed.

    Parameters
    ----------
    workspace : Workspace
        Which receives the models.
    parent : QWidget, optional
        The dock.
    """

    fetched = Signal(object)

    def __init__(self, workspace: Workspace, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.workspace = workspace
        self.catalogue: Catalogue | None = None
        self.setWindowTitle("Models of a catalogue")
        self.setMinimumWidth(480)
        self.address = QLineEdit(_known_address())
        self.address.setAccessibleName("Catalogue")
        self.address.setPlaceholderText("https://… or a file")
        self.address.setToolTip(
            "Whoever shares the models gives you this address. With #sha256=… at its end, only exactly that catalogue "
            "is used; with #ed25519=…, only one that is signed by this public key. napari's "
            "preferences remember it: nnU-Net > Folders > Catalogue of models."
        )
        self.look = button("Show", "Read the catalogue. No model is downloaded.")
        self.list = QListWidget()
        self.list.setAccessibleName("Models of the catalogue")
        self.card = Sentence(marked=False)
        self.panel = RunPanel("Fetch and install", stops="Stop. What arrived is kept for the next time.")
        self.panel.start = self.fetch
        self._lay_out()
        self.look.clicked.connect(self.read)
        self.list.currentRowChanged.connect(self._show_card)
        self._show_card()
        if self.address.text():
            self.read()

    def _lay_out(self) -> None:
        line = QHBoxLayout()
        line.addWidget(self.address, 1)
        line.addWidget(self.look)
        form = QFormLayout()
        form.addRow("Catalogue", line)
        column = QVBoxLayout(self)
        column.addLayout(form)
        for part in (self.list, self.card, self.panel):
            column.addWidget(part)

    def read(self) -> None:
        """Read the catalogue that is typed."""
        job = list_models(ListModelsRequest(catalogue=self.address.text()))
        self.panel.run(job, done=self._show, cancelled=lambda _: "Cancelled.")

    def _show(self, found: Catalogue) -> str:
        self.catalogue = found
        self.list.clear()
        self.list.addItems([f"{entry.title or entry.name} ({entry.size / 1e6:,.0f} MB)" for entry in found.entries])
        self.list.setCurrentRow(0)
        self._show_card()
        return "" if found.entries else "This catalogue is empty."

    def chosen(self) -> CatalogueEntry | None:
        """Return the model that is selected."""
        row = self.list.currentRow()
        return None if self.catalogue is None or row < 0 else self.catalogue.entries[row]

    def _show_card(self, _: int = 0) -> None:
        entry = self.chosen()
        self.card.setText("" if entry is None else entry.text)
        self.panel.set_ready("Choose a model." if entry is None else None)

    def fetch(self) -> None:
        """Download the model that is selected, and install it."""
        entry = self.chosen()
        if entry is not None:
            request = FetchModelRequest(catalogue=self.address.text(), name=entry.name)
            job = fetch_model(self.workspace, request)
            self.panel.run(job, done=self._fetched, cancelled=lambda _: "Cancelled. Nothing was installed.")

    def _fetched(self, installed: Any) -> str:
        self.fetched.emit(installed)
        return "Installed; its card is in the Models dock."


def _known_address() -> str:
    """Return the address of the preferences or the environment; empty where there is none."""
    try:
        return address_of(read_preferences().catalogue)
    except NnunetError:
        return ""
