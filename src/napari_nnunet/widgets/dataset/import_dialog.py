"""Make a dataset of two folders, with the pairs shown first; or write the dataset.json of a folder that lacks one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Signal
from qtpy.QtWidgets import (
    QDialog,
    QFileDialog,
    QFormLayout,
    QHBoxLayout,
    QHeaderView,
    QLabel,
    QLineEdit,
    QPushButton,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_nnunet.errors import NnunetError
from napari_nnunet.formats.dataset.pairs import Pairing, pair_folders
from napari_nnunet.formats.dataset.raw_dataset import generate_dataset_json
from napari_nnunet.formats.dataset.raw_writer import update_count
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.schema.requests.dataset import ImportFoldersRequest
from napari_nnunet.widgets.frame.panel import RunPanel, State
from napari_nnunet.widgets.frame.words import failure_text
from napari_nnunet.widgets.frame.worker import lazy

if TYPE_CHECKING:
    from napari_nnunet.jobs.dataset.import_folders import import_folders
else:
    import_folders = lazy("napari_nnunet.jobs.dataset.import_folders:import_folders")

_SHOWN = 200  # pairs in the table


class ImportDialog(QDialog):
    """Two folders, the pairs that their names make, and a button that imports them.

    Emits ``imported`` with the folder of the new dataset.
    """

    imported = Signal(object)

    def __init__(self, workspace: Workspace, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.workspace = workspace
        self.pairing: Pairing | None = None
        self._asked: tuple[str, ...] = ()
        self._trouble: str | None = None
        self.setWindowTitle("Import folders of images and masks")
        self.setMinimumWidth(560)
        self.images, self.masks = QLineEdit(), QLineEdit()
        self.name = QLineEdit()
        self.name.setPlaceholderText("Nuclei")
        self.suffixes = QLineEdit()
        self.suffixes.setPlaceholderText("found from the names; or _red _green")
        self.channels = QLineEdit()
        self.channels.setPlaceholderText("CT, or DAPI, GFP")
        self.classes = QLineEdit()
        self.classes.setPlaceholderText("255=cell")
        self.about = QLabel()
        self.about.setWordWrap(True)
        self.table = QTableWidget(0, 3)
        self.table.setHorizontalHeaderLabels(["Case", "Images", "Mask"])
        self.table.setAccessibleName("Pairs of images and masks")
        self.table.setEditTriggers(QTableWidget.EditTrigger.NoEditTriggers)
        self.table.verticalHeader().setVisible(False)
        self.table.horizontalHeader().setSectionResizeMode(QHeaderView.ResizeMode.Stretch)
        self.panel = RunPanel("Import")
        self._lay_out()
        for edit in (self.images, self.masks, self.suffixes, self.name):
            edit.textChanged.connect(self._update)
        self.panel.start = self.run
        self._update()

    def _lay_out(self) -> None:
        form = QFormLayout()
        for label, edit in (("Images", self.images), ("Masks", self.masks)):
            row = QHBoxLayout()
            browse = QPushButton("Browse…")
            browse.clicked.connect(lambda _, edit=edit, label=label: self._browse(edit, label))
            row.addWidget(edit, 1)
            row.addWidget(browse)
            edit.setAccessibleName(f"Folder of {label.lower()}")
            form.addRow(label, row)
        for label, edit, tip in (
            ("Dataset name", self.name, "The next free number is put in front."),
            ("Channel suffixes", self.suffixes, "What the names of a case's channel files end in, in channel order."),
            ("Channel names", self.channels, "CT selects the rules for computed tomography. Empty: channel_0, ..."),
            ("Class names", self.classes, "VALUE=NAME for the values of the masks. Empty: class_1, ..."),
        ):
            edit.setToolTip(tip)
            form.addRow(label, edit)
        column = QVBoxLayout(self)
        column.addLayout(form)
        column.addWidget(self.about)
        column.addWidget(self.table)
        column.addWidget(self.panel)

    def _browse(self, edit: QLineEdit, label: str) -> None:
        folder = QFileDialog.getExistingDirectory(self, f"Folder of {label.lower()}")
        if folder:
            edit.setText(folder)

    def _update(self, _: Any = None) -> None:
        """Show the pairs, and what prevents the import."""
        asked = (self.images.text(), self.masks.text(), self.suffixes.text())
        if asked != self._asked:
            self._asked = asked
            self._trouble = self._pair(*asked)
        reason = self._trouble
        if reason is None and not self.name.text().strip():
            reason = "Give the dataset a name."
        self.about.setText(" ".join(part for part in (self._counts(), reason) if part))
        self.panel.set_ready(reason)

    def _pair(self, images: str, masks: str, suffixes: str) -> str | None:
        """Match the folders and show the pairs; returns what prevents it."""
        self.pairing = None
        self.table.setRowCount(0)
        if not images or not masks:
            return "Choose the folder of images and the folder of masks."
        try:
            self.pairing = pair_folders(Path(images), Path(masks), suffixes=suffixes.split())
        except (NnunetError, OSError) as error:
            return failure_text(error)
        self._show_pairs(self.pairing)
        return None

    def _counts(self) -> str:
        if self.pairing is None:
            return ""
        left = len(self.pairing.images) + len(self.pairing.masks)
        return f"<b>{len(self.pairing.pairs)} pairs</b>" + (f", {left} files without a partner." if left else ".")

    def _show_pairs(self, pairing: Pairing) -> None:
        rows = [(p.name, " + ".join(path.name for path in p.images), p.mask.name) for p in pairing.pairs[:_SHOWN]]
        rows += [("", path.name, "(no mask)") for path in pairing.images[:20]]
        rows += [("", "(no image)", path.name) for path in pairing.masks[:20]]
        self.table.setRowCount(len(rows))
        for r, texts in enumerate(rows):
            for c, text in enumerate(texts):
                item = QTableWidgetItem(text)
                item.setToolTip(text)
                self.table.setItem(r, c, item)

    def run(self) -> None:
        """Import what is shown."""
        try:
            classes = class_names(self.classes.text())
        except ValueError as reason:
            self.panel.say(str(reason))
            return
        request = ImportFoldersRequest(
            images=Path(self.images.text()),
            masks=Path(self.masks.text()),
            name=self.name.text(),
            suffixes=tuple(self.suffixes.text().split()),
            channel_names=words(self.channels.text()),
            class_names=classes,
        )
        self.panel.run(import_folders(self.workspace, request), done=self._done)

    def _done(self, folder: Path) -> None:
        self.imported.emit(folder)
        self.accept()

    def reject(self) -> None:
        """Close, but not while files are written."""
        if self.panel.state is State.IDLE:
            super().reject()
        else:
            self.panel.cancel()


def words(text: str) -> tuple[str, ...]:
    """Return the words of a list with commas or blanks between."""
    return tuple(text.replace(",", " ").split())


def class_names(text: str) -> dict[int, str]:
    """Read ``255=cell, 128=border``; raises ValueError with a sentence where it is not of that form."""
    found = {}
    for word in words(text):
        value, _, name = word.partition("=")
        if not value.isdecimal() or not name:
            raise ValueError(f"'{word}' is not understood; write class names like 255=cell.")
        found[int(value)] = name
    return found


class JsonDialog(QDialog):
    """Channels and classes for the dataset.json of a folder that has imagesTr and labelsTr."""

    def __init__(self, folder: Path, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.folder = folder
        self.setWindowTitle(f"Describe {folder.name}")
        self.setMinimumWidth(420)
        endings = sorted({"".join(p.suffixes[-2:]) if p.name.endswith(".gz") else p.suffix for p in _files(folder)})
        self.ending = QLineEdit(endings[0] if endings else ".nii.gz")
        self.channels = QLineEdit()
        self.channels.setPlaceholderText("CT, or T1, T2")
        self.labels = QLineEdit()
        self.labels.setPlaceholderText("liver=1, tumour=2")
        self.about = QLabel()
        self.about.setWordWrap(True)
        self.button = QPushButton("Write dataset.json")
        form = QFormLayout(self)
        for label, edit in (("File ending", self.ending), ("Channels", self.channels), ("Classes", self.labels)):
            form.addRow(label, edit)
        form.addRow(self.about)
        form.addRow(self.button)
        self.button.clicked.connect(self.write)

    def write(self) -> None:
        """Write the file, or say why it cannot be."""
        classes: dict[str, int] = {"background": 0}
        for word in words(self.labels.text()):
            name, _, value = word.partition("=")
            if not name or not value.isdecimal():
                self.about.setText(f"'{word}' is not understood; write classes like liver=1.")
                return
            classes[name] = int(value)
        if not words(self.channels.text()) or len(classes) < 2:
            self.about.setText("Name the channels and at least one class.")
            return
        try:
            generate_dataset_json(self.folder, words(self.channels.text()), classes, 0, self.ending.text().strip())
            update_count(self.folder)
        except NnunetError as error:
            self.about.setText(error.in_window)
            return
        self.accept()


def _files(folder: Path) -> list[Path]:
    return [path for path in sorted((folder / "imagesTr").glob("*"))[:50] if not path.name.startswith(".")]
