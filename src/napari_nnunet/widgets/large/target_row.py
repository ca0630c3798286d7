"""The row of a form that says where a result on disk goes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from qtpy.QtCore import QObject, Signal
from qtpy.QtWidgets import QFileDialog, QFormLayout, QHBoxLayout, QLineEdit, QWidget

from napari_nnunet.formats.large.label_image import ENDING, Destination
from napari_nnunet.widgets.frame.parts import button
from napari_nnunet.widgets.frame.words import as_text

_TIP = f"Where the labels are written: a name that ends with {ENDING}."


class TargetRow(QObject):
    """Proposes a place beside the image's file until somebody types another one; emits ``changed``.

    Parameters
    ----------
    form : QFormLayout
        Gets the row.
    """

    changed = Signal()

    def __init__(self, form: QFormLayout) -> None:
        super().__init__()
        self._form, self._proposed = form, ""
        self.edit = QLineEdit()
        self.edit.setAccessibleName("Result on disk")
        self.edit.setToolTip(_TIP)
        browse = button("Browse…", _TIP)
        browse.setAccessibleName("Browse to the result on disk")
        browse.clicked.connect(lambda _=False: self.browse())
        self.line = QWidget()
        row = QHBoxLayout(self.line)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self.edit, 1)
        row.addWidget(browse)
        form.addRow("Result", self.line)
        self.edit.textChanged.connect(self._changed)

    def _changed(self, text: str) -> None:
        # A path is wider than a dock.
        self.edit.setToolTip(f"{as_text(text)}\n{_TIP}" if text else _TIP)
        self.changed.emit()

    @property
    def text(self) -> str:
        """What was typed or proposed."""
        return self.edit.text().strip()

    def show(self, *, visible: bool) -> None:
        """Show or hide the row."""
        self._form.setRowVisible(self.line, visible)

    def propose(self, layer: Any, model: str) -> None:
        """Propose a place for a layer, as long as none was typed; none where its file is not known."""
        if self.text not in ("", self._proposed):
            return
        source = getattr(getattr(layer, "source", None), "path", None)
        folder = Path(source).absolute().parent if source and "://" not in str(source) else None
        name = re.sub(r'[\\/:*?"<>|\x00-\x1f]+', "_", f"{layer.name} {model}") if layer is not None else ""
        self._proposed = str(folder / f"{name}{ENDING}") if folder is not None and folder.is_dir() and name else ""
        self._put(self._proposed)

    def propose_other(self) -> None:
        """Put a name that is free, which stays as one that was typed."""
        path = Path(self.text)
        named = (path.with_name(f"{path.stem}_{i}{path.suffix}") for i in range(2, 10_000))
        places = (Destination(one) for one in named)
        self._put(str(next(place.path for place in places if not place.path.exists() and not place.begun)))

    def _put(self, text: str) -> None:
        if self.edit.text() != text:
            self.edit.setText(text)

    def browse(self) -> None:
        """Ask for a place."""
        found, _ = QFileDialog.getSaveFileName(self.edit, "Where the labels go", self.text, f"OME-Zarr (*{ENDING})")
        if found:
            self.edit.setText(found if Path(found).suffix else f"{found}{ENDING}")
