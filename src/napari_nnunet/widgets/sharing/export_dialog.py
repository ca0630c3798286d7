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
from napari_nnunet.widgets.frame.forms import FieldRows


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
        own: dict[str, dict[str, Any]] = {
            "title": {"value": folder.parent.name},
            "light": {"value": True},
            "thumbnail": {"filter": "*.png"},
        }
        self.rows = FieldRows(ExportSettings, own)
        self.rows.add_to(form, self._check)
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
        self.file.textChanged.connect(self._check)
        column = QVBoxLayout(self)
        column.addLayout(form)
        column.addWidget(self.reason)
        column.addWidget(self.ok)
        self._check()

    def _browse_file(self) -> None:
        path, _ = QFileDialog.getSaveFileName(self, "Export to", self.file.text(), "Zip files (*.zip)")
        if path:
            self.file.setText(path if path.endswith(".zip") else f"{path}.zip")

    def _check(self, _: Any = None) -> None:
        """Say what is missing, and let OK be pressed when nothing is."""
        problem = ""
        picture = self.rows.values()["thumbnail"]
        if not self.folders():
            problem = "Choose at least one model."
        elif not self.file.text().strip().endswith(".zip"):
            problem = "The file's name must end in .zip."
        elif not self.target().parent.is_dir():
            problem = f"The folder {self.target().parent} does not exist."
        elif picture is not None and not (picture.suffix.lower() == ".png" and picture.is_file()):
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
        return ExportSettings.of(replace_zip=True, **self.rows.values())
