"""napari asks who opens a file that several plugins claim; this offers to answer once and for all."""

from __future__ import annotations

import os

from napari.settings import get_settings
from npe2 import PluginManager
from qtpy.QtWidgets import QHBoxLayout, QVBoxLayout, QWidget

from napari_nnunet.widgets.files.place import KEPT
from napari_nnunet.widgets.frame.parts import Sentence, button

_PLUGIN = "napari-nnunet"
#: What this plugin opens with geometry and classes, and napari by itself does not.
PATTERNS = ("*.nii", "*.nii.gz", "*.nrrd", "*.mha", "*.mhd", "*.gipl", *(f"*{ending}" for ending in KEPT))
#: Likewise for folders, and what they are called. napari asks about any other folder in them as it did before.
FOLDERS = {"*Dataset[0-9][0-9][0-9]_*/": "folders of datasets", "*Trainer*__*Plans*__*/": "folders of models"}


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
