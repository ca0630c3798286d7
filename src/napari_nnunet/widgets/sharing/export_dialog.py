"""What goes into a zip of models: asked once, before it is written."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from qtpy.QtWidgets import (
    QCheckBox,
    QDialog,
    QDialogButtonBox,
    QFileDialog,
    QFormLayout,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_nnunet.schema.model_name import label_of
from napari_nnunet.schema.requests.sharing import ExportSettings

_TEXTS = {
    "title": "What the model is called.",
    "description": "What it is for, and on which images it was trained.",
    "authors": "Who made it.",
    "licence": "Under which others may use the weights, e.g. CC BY 4.0.",
    "citation": "What to cite.",
}


class ExportDialog(QDialog):
    """Asks for models, texts of the card, size and file.

    Parameters
    ----------
    parent : QWidget
        The dock.
    folder : Path
        The model that was selected.
    siblings : sequence of Path
        All models of its dataset.
    """

    def __init__(self, parent: QWidget, folder: Path, siblings: Sequence[Path]) -> None:
        super().__init__(parent)
        self.setWindowTitle("Export models")
        self.setMinimumWidth(460)
        self._siblings = list(siblings) or [folder]
        form = QFormLayout()
        self.boxes = []
        models = QVBoxLayout()
        for path in self._siblings:
            box = QCheckBox(label_of(path.name))
            box.setToolTip(path.name)
            box.setChecked(path == folder)
            box.toggled.connect(self._check)
            models.addWidget(box)
            self.boxes.append(box)
        form.addRow("Models", models)
        self.texts = {}
        for name, tip in _TEXTS.items():
            self.texts[name] = edit = QLineEdit(folder.parent.name if name == "title" else "")
            edit.setToolTip(tip)
            edit.setAccessibleName(name.capitalize())
            form.addRow(name.capitalize(), edit)
        self.picture = QLineEdit()
        self.picture.setPlaceholderText("none – remember that it may show a patient")
        self.picture.setAccessibleName("Picture")
        browse = QPushButton("Browse…")
        browse.clicked.connect(self._browse_picture)
        row = QHBoxLayout()
        row.addWidget(self.picture, 1)
        row.addWidget(browse)
        form.addRow("Picture", row)
        self.light = QCheckBox("Only what segmenting needs: half the size, cannot be trained further")
        self.light.setChecked(True)
        form.addRow("", self.light)
        self.file = QLineEdit(str(Path.home() / f"{folder.parent.name}.zip"))
        self.file.setAccessibleName("File")
        choose = QPushButton("Browse…")
        choose.clicked.connect(self._browse_file)
        row = QHBoxLayout()
        row.addWidget(self.file, 1)
        row.addWidget(choose)
        form.addRow("File", row)
        self.reason = QLabel()
        self.reason.setWordWrap(True)
        self.ok = QDialogButtonBox(QDialogButtonBox.StandardButton.Ok | QDialogButtonBox.StandardButton.Cancel)
        self.ok.accepted.connect(self.accept)
        self.ok.rejected.connect(self.reject)
        for edit in (self.file, self.picture):
            edit.textChanged.connect(self._check)
        column = QVBoxLayout(self)
        column.addLayout(form)
        column.addWidget(self.reason)
        column.addWidget(self.ok)
        self._check()

    def _browse_file(self) -> None:
        path, _ = QFileDialog.getSaveFileName(self, "Export to", self.file.text(), "Zip files (*.zip)")
        if path:
            self.file.setText(path if path.endswith(".zip") else f"{path}.zip")

    def _browse_picture(self) -> None:
        path, _ = QFileDialog.getOpenFileName(self, "Choose a picture", "", "PNG (*.png)")
        if path:
            self.picture.setText(path)

    def _check(self, _: Any = None) -> None:
        """Say what is missing, and let OK be pressed when nothing is."""
        problem = ""
        picture = self.picture.text().strip()
        if not self.folders():
            problem = "Choose at least one model."
        elif not self.file.text().strip().endswith(".zip"):
            problem = "The file's name must end in .zip."
        elif not self.target().parent.is_dir():
            problem = f"The folder {self.target().parent} does not exist."
        elif picture and not (picture.lower().endswith(".png") and Path(picture).is_file()):
            problem = "The picture must be a PNG file that exists."
        elif self.target().exists():
            self.reason.setText(f"{self.target().name} exists and will be replaced.")
        if problem or not self.target().exists():
            self.reason.setText(problem)
        button = self.ok.button(QDialogButtonBox.StandardButton.Ok)
        if button is not None:
            button.setEnabled(not problem)

    def folders(self) -> list[Path]:
        """Return the models that were chosen."""
        return [path for path, box in zip(self._siblings, self.boxes, strict=True) if box.isChecked()]

    def target(self) -> Path:
        """Return the file."""
        return Path(self.file.text().strip()).expanduser()

    def settings(self) -> ExportSettings:
        """Return what goes in; the file dialog asked before it gave a name that exists."""
        picture = self.picture.text().strip()
        card = {name: edit.text().strip() or None for name, edit in self.texts.items()}
        return ExportSettings.of(
            light=self.light.isChecked(), thumbnail=Path(picture) if picture else None, replace_zip=True, **card
        )
