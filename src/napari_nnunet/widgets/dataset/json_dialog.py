"""Write the dataset.json of a folder that lacks one."""

from __future__ import annotations

import re
from pathlib import Path

from qtpy.QtWidgets import QDialog, QFormLayout, QLineEdit, QPushButton, QWidget

from napari_nnunet.errors import NnunetError
from napari_nnunet.formats.dataset.raw_writer import describe_dataset
from napari_nnunet.widgets.frame.parts import Sentence, button
from napari_nnunet.widgets.frame.words import failure_text, split_words

_CLASS = re.compile(r"([^=,\s][^=,]*)=\s*(\d+)(?:\s*,|\s+|$)\s*")  # nano particle=1, and the comma or blank behind it


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
        self.about = Sentence()
        self.button = QPushButton("Write dataset.json")
        form = QFormLayout(self)
        for label, edit in (("File ending", self.ending), ("Channels", self.channels), ("Classes", self.labels)):
            edit.setAccessibleName(label)
            form.addRow(label, edit)
        form.addRow(self.about)
        close = button("Close")
        close.clicked.connect(self.reject)
        form.addRow(self.button)
        form.addRow(close)
        self.button.clicked.connect(self.write)

    def write(self) -> None:
        """Write the file, or say why it cannot be."""
        classes: dict[str, int] = {"background": 0}
        text = self.labels.text()
        if rest := _CLASS.sub("", text).strip():
            self.about.setText(f"'{rest}' is not understood; write classes like liver=1.")
            return
        classes |= {name.strip(): int(value) for name, value in _CLASS.findall(text)}
        if not split_words(self.channels.text()) or len(classes) < 2:
            self.about.setText("Name the channels and at least one class.")
            return
        try:
            describe_dataset(self.folder, split_words(self.channels.text()), classes, self.ending.text().strip())
        except (NnunetError, OSError) as error:
            self.about.setText(failure_text(error))
            return
        self.accept()


def _files(folder: Path) -> list[Path]:
    return [path for path in sorted((folder / "imagesTr").glob("*"))[:50] if not path.name.startswith(".")]
