"""The Models dock: what is there, its card, and how models come and go."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from napari.utils.notifications import show_info
from qtpy.QtCore import QUrl
from qtpy.QtGui import QDesktopServices, QPixmap
from qtpy.QtWidgets import (
    QFileDialog,
    QGridLayout,
    QGroupBox,
    QInputDialog,
    QLabel,
    QListWidget,
    QListWidgetItem,
    QMessageBox,
    QVBoxLayout,
    QWidget,
)

from napari_nnunet.errors import NnunetError, counted, some
from napari_nnunet.events import Job
from napari_nnunet.formats.model.bundle import inspect
from napari_nnunet.formats.model.card import ModelCard, classes_of
from napari_nnunet.formats.model.folder import TrainedModel, load_model
from napari_nnunet.formats.model.known_models import forget_model, known_models, remember_model
from napari_nnunet.formats.model.model_trash import bring_training_back, models_in_trash, trash_model
from napari_nnunet.jobs.sharing.cards import card_model, read_card
from napari_nnunet.jobs.sharing.export import export_models
from napari_nnunet.schema.model_name import label_of
from napari_nnunet.schema.names import Fold
from napari_nnunet.schema.requests.sharing import DownloadRequest, ExportSettings, InstallRequest, QuantizeRequest
from napari_nnunet.widgets.files.trash import Rubbish, TrashButton
from napari_nnunet.widgets.frame.dock import Dock
from napari_nnunet.widgets.frame.head import Head
from napari_nnunet.widgets.frame.panel import RunPanel
from napari_nnunet.widgets.frame.parts import Sentence, button, html_label
from napari_nnunet.widgets.frame.state import state_of
from napari_nnunet.widgets.frame.tabs import open_dock
from napari_nnunet.widgets.frame.words import as_text, failure_text, size_text, telling_names
from napari_nnunet.widgets.frame.worker import lazy
from napari_nnunet.widgets.sharing.catalogue_dialog import CatalogueDialog
from napari_nnunet.widgets.sharing.export_dialog import CarryDialog, ExportDialog

if TYPE_CHECKING:
    import napari

    from napari_nnunet.formats.model.eight_bit import EightBit
    from napari_nnunet.jobs.sharing.carry import export_model
    from napari_nnunet.jobs.sharing.install import download_model, install_zip
    from napari_nnunet.jobs.sharing.quantize import quantize
else:
    export_model = lazy("napari_nnunet.jobs.sharing.carry:export_model")
    download_model = lazy("napari_nnunet.jobs.sharing.install:download_model")
    install_zip = lazy("napari_nnunet.jobs.sharing.install:install_zip")
    quantize = lazy("napari_nnunet.jobs.sharing.quantize:quantize")

T = TypeVar("T")
_LOW = 56  # pixels, of the list of few models
_NOT_INSTALLED = "Cancelled. Nothing was installed."
_BUTTONS = {
    "use": ("Segment with it", "Open the Segment dock with this model."),
    "export": ("Export…", "Write it into a zip, to share it."),
    "carry": (
        "Carry elsewhere…",
        "Write it as ONNX, OpenVINO or a bioimage.io package, to segment where this program is not installed.",
    ),
    "eight_bit": (
        "Make 8-bit",
        "Prepare it for 8-bit arithmetic with its training cases; measure time and Dice on the validation cases.",
    ),
    "folder": ("Open folder", "Show its files."),
    "remove": ("Remove…", "Move it to the trash folder of the workspace, or remove it from this list."),
}
_PICTURE = 220  # width of the thumbnail


class ModelsWidget(Dock):
    """List the models of this user, take in others, give them away.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
        Injected by napari.
    """

    in_workspace = True

    def __init__(self, viewer: napari.viewer.Viewer) -> None:
        super().__init__(viewer)
        self.head = Head(state_of(viewer), page="carried-models.md")
        self.list = QListWidget()
        self.list.setAccessibleName("Models")
        self.list.setMinimumHeight(_LOW)
        self.empty = Sentence("No model is known yet. Train one, install a zip, or add the folder of one.")
        self.card = html_label()
        self.picture = QLabel()
        self.trash = TrashButton(self._rubbish)
        self.install = button("Install zip…", "Install the models of a zip. You can also drop the zip on napari.")
        self.download = button("Download…", "Download a zip from an address and install its models.")
        self.catalogue = button("Catalogue…", "Choose a model of a catalogue by its card, download and install it.")
        self.add = button("Add folder…", "Add the folder of a model outside the workspace.")
        self.buttons = {name: button(text, tip) for name, (text, tip) in _BUTTONS.items()}
        self.panel = RunPanel("Install", stops="Stop; nothing is left behind.")
        self.panel.button.setVisible(False)
        self.panel.idle.connect(lambda: self.panel.button.setVisible(False))
        self.lay_out(self._lay_out_list(), self._lay_out_card(), self.panel)
        self._connect()
        self.refresh()

    def _lay_out_list(self) -> QWidget:
        box = QGroupBox("Models")
        column = QVBoxLayout(box)
        for part in (self.head, self.list, self.empty):
            column.addWidget(part)
        grid = QGridLayout()
        for i, part in enumerate((self.install, self.catalogue, self.download, self.add)):
            grid.addWidget(part, i // 2, i % 2)
        column.addLayout(grid)
        column.addWidget(self.trash)
        return box

    def _lay_out_card(self) -> QWidget:
        self.card_box = box = QGroupBox("Card")
        column = QVBoxLayout(box)
        column.addWidget(self.picture)
        column.addWidget(self.card)
        grid = QGridLayout()
        for i, part in enumerate(self.buttons.values()):
            grid.addWidget(part, i // 2, i % 2)
        column.addLayout(grid)
        return box

    def _connect(self) -> None:
        self.head.changed.connect(self.refresh)
        self.head.state.trained.connect(self.refresh)
        self.list.currentRowChanged.connect(self._show_card)
        self.install.clicked.connect(self._choose_zip)
        self.download.clicked.connect(self._ask_address)
        self.catalogue.clicked.connect(lambda: self.catalogue_dialog().open())
        self.add.clicked.connect(self._add_folder)
        self.trash.emptied.connect(self._brought_back)
        for name, action in (
            ("use", self.use),
            ("export", self._export),
            ("carry", self._carry),
            ("eight_bit", self._quantize),
            ("folder", self._open_folder),
            ("remove", self._remove),
        ):
            self.buttons[name].clicked.connect(lambda _=False, action=action: action())

    def refresh(self, select: Path | None = None) -> None:
        """Look for models again."""
        chosen = select or self.chosen()
        paths = known_models(self.head.workspace)
        self.list.blockSignals(True)
        self.list.clear()
        for path, name in zip(paths, telling_names(paths), strict=True):
            item = QListWidgetItem(name)
            item.setData(0x0100, str(path))
            item.setToolTip(str(path))
            self.list.addItem(item)
        self.list.blockSignals(False)
        self.list.setVisible(bool(paths))
        self.list.setMaximumHeight(max(_LOW, self.list.sizeHintForRow(0) * len(paths) + 10))
        self.empty.setVisible(not paths)
        if paths:
            self.list.setCurrentRow(paths.index(chosen) if chosen in paths else 0)
        self.trash.look_again()
        self._show_card()

    def _rubbish(self) -> list[Rubbish]:
        """Return the models that were removed or replaced."""
        return [
            Rubbish(
                f"{home.parent.name} / {label_of(home.name)}", entry.time, partial(bring_training_back, entry, home)
            )
            for entry, home in models_in_trash(self.head.workspace.results)
        ]

    def _brought_back(self, text: str) -> None:
        self.head.state.trained.emit()
        self.panel.say(text)

    def chosen(self) -> Path | None:
        """Return the folder of the model that is selected."""
        item = self.list.currentItem()
        return None if item is None else Path(item.data(0x0100))

    def _show_card(self, _: int = 0) -> None:
        folder = self.chosen()
        self.card_box.setVisible(folder is not None)
        if folder is None:
            return
        try:
            model = load_model(folder)
        except (NnunetError, OSError) as error:
            self.card.setText(html.escape(failure_text(error)))
            self.picture.setVisible(False)
            return
        card = read_card(folder.parent)
        self.card.setText(_card_html(model, card_model(model, model.folds()), card))
        picture = QPixmap(str(folder.parent / card.thumbnail)) if card is not None and card.thumbnail else QPixmap()
        self.picture.setVisible(not picture.isNull())
        if not picture.isNull():
            self.picture.setPixmap(picture.scaledToWidth(min(_PICTURE, picture.width())))

    def offer(self, path: Path) -> None:
        """Look through a zip and ask whether its models shall be installed."""
        try:
            bundle = inspect(path)
        except (NnunetError, OSError) as error:
            self.panel.say(failure_text(error))
            return
        results = self.head.workspace.results
        there = [name for name in bundle.models if (results / bundle.dataset / name).exists()]
        several = "s" if len(bundle.models) > 1 else ""
        text = f"{path.name} holds {len(bundle.models)} model{several} of {bundle.dataset}: "
        text += ", ".join(label_of(name) for name in bundle.models) + f" ({bundle.size / 1e6:.0f} MB)."
        if bundle.card is not None and bundle.card.licence:
            text += f"\nLicence: {bundle.card.licence}"
        if there:
            text += f"\n\n{len(there)} of them already exist and will be moved to the trash folder."
        answer = QMessageBox.question(self, "Install models?", text + f"\n\nInstall into {results}?")
        if answer == QMessageBox.StandardButton.Yes:
            job = install_zip(self.head.workspace, InstallRequest(source=path, replace_models=bool(there)))
            self._run("Install", job, done=self._installed, cancelled=_NOT_INSTALLED)

    def _free(self, name: str) -> bool:
        """Whether nothing runs here; else it is said that something else is not begun."""
        if self.busy:
            show_info(
                f"'{name}' was not started: another job runs in the Models dock. Press it again when that has ended."
            )
        return not self.busy

    def _run(self, name: str, job: Job[T], *, done: Callable[[T], str], cancelled: str) -> None:
        if self._free(name):
            self.panel.rename(name)
            self.panel.button.setVisible(True)
            self.panel.run(job, done=done, cancelled=lambda _: cancelled)

    def _installed(self, result: Any) -> str:
        for folder in reversed(result.folders):
            remember_model(folder)
        self.refresh(result.folders[0])
        self.head.state.trained.emit()
        return f"Installed {', '.join(label_of(folder.name) for folder in result.folders)}."

    def _choose_zip(self) -> None:
        path, _ = QFileDialog.getOpenFileName(self, "Choose a zip with models", "", "Zip files (*.zip)")
        if path:
            self.offer(Path(path))

    def _ask_address(self) -> None:
        url, ok = QInputDialog.getText(self, "Download a model", "Address of a zip (https://…):")
        if ok and url.strip():
            job = download_model(self.head.workspace, DownloadRequest(url=url.strip()))
            self._run("Download", job, done=self._installed, cancelled=_NOT_INSTALLED)

    def catalogue_dialog(self) -> CatalogueDialog:
        """Return a new dialog with the models of a catalogue."""
        dialog = CatalogueDialog(self.head.workspace, self)
        dialog.panel.guard = self.panel.guard
        dialog.fetched.connect(self._installed)
        return dialog

    def _add_folder(self) -> None:
        folder = QFileDialog.getExistingDirectory(self, "Choose the folder of a trained model")
        if not folder:
            return
        try:
            model = load_model(Path(folder))
        except (NnunetError, OSError) as error:
            self.panel.say(failure_text(error))
            return
        remember_model(model.folder)
        self.refresh(model.folder)
        self.head.state.trained.emit()

    def use(self) -> None:
        """Open the Segment dock with the model that is selected."""
        folder = self.chosen()
        if folder is not None:
            open_dock(self.viewer, "Segment").add_model(folder)

    def _quantize(self) -> None:
        folder = self.chosen()
        if folder is not None:
            job = quantize(self.head.workspace, QuantizeRequest(model=folder))
            self._run("Make 8-bit", job, done=self._quantized, cancelled="Cancelled. The model is as it was.")

    def _quantized(self, found: EightBit) -> str:
        self.refresh()
        self.head.state.trained.emit()
        return f"{found.measured} {found.advice}"

    def _open_folder(self) -> None:
        folder = self.chosen()
        if folder is not None:
            QDesktopServices.openUrl(QUrl.fromLocalFile(str(folder)))

    def _export(self) -> None:
        folder = self.chosen()
        if folder is None or not self._free("Export"):
            return
        siblings = [path for path in known_models(self.head.workspace) if path.parent == folder.parent]
        dialog = ExportDialog(self, folder, siblings)
        if dialog.exec():
            self._run(
                "Export",
                _export(dialog.folders(), dialog.target(), dialog.settings()),
                done=lambda path: f"Exported to {path}.",
                cancelled="Cancelled. No zip was written.",
            )

    def _carry(self) -> None:
        folder = self.chosen()
        if folder is None or not self._free("Carry elsewhere"):
            return
        dialog = CarryDialog(self, folder)
        if dialog.exec():
            job = export_model(dialog.request())
            done = "Exported to {}."
            self._run("Export", job, done=done.format, cancelled="Cancelled. No zip was written.")

    def _remove(self) -> None:
        folder = self.chosen()
        if folder is None:
            return
        inside = folder.is_relative_to(self.head.workspace.results)
        what = (
            "Move it to the trash folder of the workspace?" if inside else "Remove it from this list? Its files stay."
        )
        answer = QMessageBox.question(self, "Remove the model?", f"{folder.parent.name} / {folder.name}\n\n{what}")
        if answer != QMessageBox.StandardButton.Yes:
            return
        try:
            forget_model(folder)
            text = f"Moved to {trash_model(folder)}." if inside else "Removed from the list. Its files stay."
        except (NnunetError, OSError) as error:
            text = failure_text(error)
        self.head.state.trained.emit()
        self.panel.say(text)
        show_info(as_text(text))


def _card_html(model: TrainedModel, own: Any, card: ModelCard | None) -> str:
    """Return the card of a model (rich text)."""
    classes = card.classes if card is not None else classes_of(model.dataset)
    lines = []
    if card is not None:
        lines.append(f"<b>{html.escape(card.title or card.dataset)}</b>")
        lines += [html.escape(card.description)] if card.description else []
    dots = [f'<span style="color:{entry.colour}">●</span> {html.escape(entry.name)}' for entry in classes]
    lines.append(f"Finds {some(dots, 20)}")
    lines.append(f"In {html.escape(', '.join(model.dataset.channel_names))}, at {size_text(own.spacing)}")
    folds: tuple[Fold, ...] = model.folds()
    lines.append(f"{len(folds)} fold{'s' if len(folds) != 1 else ''}, patch {' × '.join(map(str, own.patch))}")
    if own.dice is not None:
        per_class = ", ".join(f"{html.escape(name)} {dice:.3f}" for name, dice in list(own.dice_per_class.items())[:8])
        lines.append(
            f"Dice {own.dice:.3f} in {counted(own.cases, 'validation case')}" + (f" ({per_class})" if per_class else "")
        )
    if card is not None:
        lines += [
            f"{name.capitalize()}: {html.escape(getattr(card, name))}"
            for name in ("authors", "licence", "citation")
            if getattr(card, name)
        ]
    return "<br>".join(lines)


def _export(folders: Sequence[Path], target: Path, settings: ExportSettings) -> Job[Path]:
    return (yield from export_models([load_model(folder) for folder in folders], target, settings))
