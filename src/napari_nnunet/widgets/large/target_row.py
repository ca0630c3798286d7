"""The row of a form that says where a result on disk goes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from qtpy.QtWidgets import QFileDialog, QFormLayout

from napari_nnunet.formats.large.label_image import ENDING, Destination
from napari_nnunet.widgets.frame.forms import PathRow
from napari_nnunet.widgets.frame.parts import button

_TIP = f"Where the labels are written: a name that ends with {ENDING}."


class TargetRow(PathRow):
    """Proposes a place beside the image's file until somebody types another one; emits ``changed``.

    Parameters
    ----------
    form : QFormLayout
        Gets the row.
    """

    def __init__(self, form: QFormLayout) -> None:
        browse = button("Browse…", _TIP)
        browse.setAccessibleName("Browse to the result on disk")
        super().__init__(form, "Result", "Result on disk", _TIP, browse)
        self._proposed = ""

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
