"""What goes into a zip of models, or how one is carried elsewhere: asked once, before it is written."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from qtpy.QtGui import QIcon
from qtpy.QtWidgets import (
    QCheckBox,
    QDialog,
    QDialogButtonBox,
    QFileDialog,
    QFormLayout,
    QHBoxLayout,
    QLineEdit,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_nnunet.errors import NnunetError
from napari_nnunet.schema.model_name import label_of
from napari_nnunet.schema.requests.sharing import CarryRequest, ExportSettings
from napari_nnunet.widgets.frame.forms import FieldRows
from napari_nnunet.widgets.frame.parts import Sentence


class ZipDialog(QDialog):
    """Asks for a zip to write; subclasses add rows above it and say what is missing.

    Parameters
    ----------
    parent : QWidget
        The dock.
    title : str
        Of the window.
    name : str
        Of the file that is proposed, without its ending.
    """

    def __init__(self, parent: QWidget, title: str, name: str) -> None:
        super().__init__(parent)
        self.setWindowTitle(title)
        self.setMinimumWidth(460)
        self.form = QFormLayout()
        self.file = QLineEdit(str(Path.home() / f"{name}.zip"))
        self.file.setAccessibleName("File")
        self.reason = Sentence()
        self.ok = QDialogButtonBox(QDialogButtonBox.StandardButton.Save | QDialogButtonBox.StandardButton.Cancel)
        for made in self.ok.buttons():
            made.setIcon(QIcon())  # those of the system are made for its own theme

    def lay_out(self) -> None:
        """Put the file below the rows that were added, and look at everything for the first time."""
        choose = QPushButton("Browse…")
        choose.clicked.connect(self._browse_file)
        row = QHBoxLayout()
        row.addWidget(self.file, 1)
        row.addWidget(choose)
        self.form.addRow("File", row)
        self.ok.accepted.connect(self.accept)
        self.ok.rejected.connect(self.reject)
        self.file.textChanged.connect(self.check)
        column = QVBoxLayout(self)
        column.addLayout(self.form)
        column.addWidget(self.reason)
        column.addWidget(self.ok)
        self.check()

    def _browse_file(self) -> None:
        path, _ = QFileDialog.getSaveFileName(self, "Export to", self.file.text(), "Zip files (*.zip)")
        if path:
            self.file.setText(path if path.endswith(".zip") else f"{path}.zip")

    def check(self, _: Any = None) -> None:
        """Say what is missing, and let Save be pressed when nothing is."""
        problem = self.problem()
        if not problem and not self.file.text().strip().endswith(".zip"):
            problem = "The file's name must end in .zip."
        elif not problem and not self.target().parent.is_dir():
            problem = f"The folder {self.target().parent} does not exist."
        replaces = f"{self.target().name} exists and will be replaced." if self.target().exists() else ""
        self.reason.setText(problem or replaces)
        button = self.ok.button(QDialogButtonBox.StandardButton.Save)
        if button is not None:
            button.setEnabled(not problem)

    def problem(self) -> str:
        """Return what is wrong with the rows, empty where nothing is."""
        raise NotImplementedError

    def target(self) -> Path:
        """Return the file."""
        return Path(self.file.text().strip()).expanduser()


class ExportDialog(ZipDialog):
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
        super().__init__(parent, "Export models", folder.parent.name)
        self._siblings = list(siblings) or [folder]
        self.boxes = []
        models = QVBoxLayout()
        for path in self._siblings:
            box = QCheckBox(label_of(path.name))
            box.setToolTip(path.name)
            box.setChecked(path == folder)
            box.toggled.connect(self.check)
            models.addWidget(box)
            self.boxes.append(box)
        self.form.addRow("Models", models)
        own: dict[str, dict[str, Any]] = {
            "title": {"value": folder.parent.name},
            "light": {"value": True},
            "thumbnail": {"filter": "*.png"},
        }
        self.rows = FieldRows(ExportSettings, own)
        self.rows.add_to(self.form, self.check)
        self.lay_out()

    def problem(self) -> str:
        """Return what is wrong with the models or the picture."""
        picture = self.rows.values()["thumbnail"]
        if not self.folders():
            return "Choose at least one model."
        if picture is not None and not (picture.suffix.lower() == ".png" and picture.is_file()):
            return "The picture must be a PNG file that exists."
        return ""

    def folders(self) -> list[Path]:
        """Return the models that were chosen."""
        return [path for path, box in zip(self._siblings, self.boxes, strict=True) if box.isChecked()]

    def settings(self) -> ExportSettings:
        """Return what goes in; the file dialog asked before it gave a name that exists."""
        return ExportSettings.of(replace_zip=True, **self.rows.values())


class CarryDialog(ZipDialog):
    """Asks in which format a model is carried elsewhere, and to which file.

    Parameters
    ----------
    parent : QWidget
        The dock.
    folder : Path
        The model.
    """

    def __init__(self, parent: QWidget, folder: Path) -> None:
        super().__init__(parent, "Carry elsewhere", f"{folder.parent.name}_{label_of(folder.name)}".replace(" ", "_"))
        self._folder = folder
        self.rows = FieldRows(CarryRequest)
        self.rows.add_to(self.form, self.check)
        self.lay_out()

    def problem(self) -> str:
        """Return what does not fit the format."""
        try:
            self.request()
        except NnunetError as error:
            return error.in_window
        return ""

    def request(self) -> CarryRequest:
        """Return what is asked for; the file dialog asked before it gave a name that exists."""
        return CarryRequest.of(model=self._folder, target=self.target(), replace_zip=True, **self.rows.values())
