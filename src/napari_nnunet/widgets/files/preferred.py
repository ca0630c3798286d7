"""Who opens a file: napari asks where several plugins claim it, which can be answered here once and for all."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import napari
import numpy as np
from napari.layers import Labels
from napari.settings import get_settings
from napari.utils.notifications import show_info
from npe2 import PluginManager
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QHBoxLayout, QVBoxLayout, QWidget

from napari_nnunet.widgets.files.place import KEPT
from napari_nnunet.widgets.files.reader import labels_in
from napari_nnunet.widgets.frame.layers import activate, pointer_away, remove_layer
from napari_nnunet.widgets.frame.parts import Sentence, button
from napari_nnunet.widgets.frame.words import as_text

_PLUGIN, _NAPARI = "napari-nnunet", "napari"
_PICTURES = (".tif", ".tiff", ".png")
#: What this plugin opens with geometry and classes, and napari by itself does not.
PATTERNS = ("*.nii", "*.nii.gz", "*.nrrd", "*.mha", "*.mhd", "*.gipl", *(f"*{ending}" for ending in KEPT))
#: Likewise for folders, and what they are called. napari asks about any other folder in them as it did before.
FOLDERS = {"*Dataset[0-9][0-9][0-9]_*/": "folders of datasets", "*Trainer*__*Plans*__*/": "folders of models"}


def follow_pictures(viewer: napari.viewer.Viewer) -> None:
    """Show results that napari opens by itself, TIFF and PNG, as the labels they are, from now on."""
    viewer.layers.events.inserted.connect(_opened)


def _opened(event: Any) -> None:
    layer, source = event.value, event.value.source
    if source.reader_plugin == _NAPARI and str(source.path).lower().endswith(_PICTURES):
        QTimer.singleShot(0, lambda: _exchange(layer, Path(source.path)))  # napari is still opening it


def _exchange(layer: Any, path: Path) -> None:
    viewer = napari.current_viewer()
    found = labels_in(path) if viewer is not None and layer in viewer.layers else None
    if found is None or np.shape(found[0]) != np.shape(layer.data):  # several files may be one layer
        return
    labels, place = Labels(found[0], **found[1]), viewer.layers.index(layer)
    remove_layer(viewer, layer)
    with pointer_away(viewer):
        viewer.layers.insert(place, labels)
    activate(viewer, labels)
    show_info(as_text(f"{path.name} holds labels and is shown as such, with its classes."))


def undecided() -> list[str]:
    """Return the patterns that another plugin claims too and that nobody has decided about."""
    decided = get_settings().plugins.extension2reader
    return [pattern for pattern in (*PATTERNS, *FOLDERS) if pattern not in decided and _claimed(pattern)]


def _claimed(pattern: str) -> bool:
    """Whether another plugin opens such files; any folder that there is stands for all folders."""
    path = os.curdir if pattern in FOLDERS else pattern.replace("*", "a")
    return {reader.plugin_name for reader in PluginManager.instance().iter_compatible_readers([path])} > {_PLUGIN}


def prefer() -> None:
    """Let napari open these files with this plugin, without a question; other preferences stay."""
    plugins = get_settings().plugins
    ours = dict.fromkeys(undecided(), _PLUGIN)
    plugins.extension2reader = {**ours, **plugins.extension2reader}  # *.nnunet.tif before what was said about *.tif


class ReaderOffer(QWidget):
    """A line with two buttons; it is there only while napari would ask."""

    def __init__(self) -> None:
        super().__init__()
        self.text = Sentence()
        self.yes = button("Always with nnU-Net", "napari asks no more; Preferences > Plugins has the list.")
        self.no = button("Not now", "Ask again next time.")
        row = QHBoxLayout()
        for part in (self.yes, self.no):
            row.addWidget(part)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 6)
        column.addWidget(self.text)
        column.addLayout(row)
        self.yes.clicked.connect(self._prefer)
        self.no.clicked.connect(self.hide)
        kinds = [FOLDERS.get(pattern, pattern.removeprefix("*")) for pattern in undecided()]
        self.text.setText(f"napari asks each time what opens {', '.join(kinds)}. Open them with geometry and classes?")
        if not kinds:
            self.hide()

    def _prefer(self) -> None:
        prefer()
        self.hide()
