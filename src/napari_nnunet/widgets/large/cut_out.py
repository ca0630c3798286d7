"""A region of images larger than memory becomes ordinary layers, to paint in and to keep as a training case."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image, Labels
from numpy.typing import NDArray
from qtpy.QtWidgets import QVBoxLayout, QWidget

from napari_nnunet.jobs.large.correct import read_parts
from napari_nnunet.widgets.files.place import place_key
from napari_nnunet.widgets.frame.layers import activate, add_layer, full_resolution
from napari_nnunet.widgets.frame.parts import Sentence, button
from napari_nnunet.widgets.frame.ready import NotReadyError
from napari_nnunet.widgets.frame.words import failure_text
from napari_nnunet.widgets.frame.worker import follow
from napari_nnunet.widgets.large.correct import in_words, placed_at, region_in_view

if TYPE_CHECKING:
    import napari


class CutOutRow(QWidget):
    """A button that is there while an image is open that is not in memory.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
        Whose layers are cut.
    """

    def __init__(self, viewer: napari.viewer.Viewer) -> None:
        super().__init__()
        self.viewer, self.busy = viewer, False
        self.cut = button(
            "Cut out what is in view", "Make layers of this part of the image, and Labels to paint in, as a case."
        )
        self.said = Sentence()
        self.said.hide()
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(self.cut)
        column.addWidget(self.said)
        self.cut.clicked.connect(lambda _=False: self._cut())
        for event in (viewer.layers.events.inserted, viewer.layers.events.removed):
            event.connect(self.look)
        self.look()

    def look(self, _: Any = None) -> None:
        """Show the button while it can do something."""
        self.setVisible(bool(self._lazy()))
        self.cut.setEnabled(not self.busy)

    def _lazy(self) -> list[Any]:
        found = [layer for layer in self.viewer.layers if isinstance(layer, Image)]
        return [layer for layer in found if not isinstance(full_resolution(layer), np.ndarray)]

    def _say(self, text: str) -> None:
        self.said.setText(text)
        self.said.setVisible(bool(text))

    def _cut(self) -> None:
        """Read the region of the selected image, and of its channels that lie on the same voxels."""
        lazy, active = self._lazy(), self.viewer.layers.selection.active
        if active not in lazy and len(lazy) > 1 and len({_grid(layer) for layer in lazy}) > 1:
            self._say("Select the image in the layer list first: several are open.")
            return
        first = active if active in lazy else lazy[0]
        layers = [layer for layer in lazy if _grid(layer) == _grid(first)]
        try:
            box = region_in_view(first, self.viewer.dims)
        except NotReadyError as reason:
            self._say(str(reason))
            return
        self.busy = True
        self.look()
        self._say("Reading the region…")
        follow(
            self,
            read_parts([(layer.name, full_resolution(layer)) for layer in layers], box),
            returned=lambda found: self._show(layers, box, found),
            errored=lambda error: self._ended(failure_text(error)),
            cancelled=lambda: self._ended(""),
        )

    def _ended(self, text: str) -> None:
        self.busy = False
        self.look()
        self._say(text)

    def _show(self, layers: Sequence[Any], box: list[tuple[int, int]], found: Sequence[NDArray[Any]]) -> None:
        corner = [lo for lo, _ in box]
        for layer, voxels in zip(layers, found, strict=True):
            name, limits = f"{layer.name} – region", layer.contrast_limits
            add_layer(
                self.viewer, Image(voxels, name=name, rgb=layer.rgb, contrast_limits=limits, **placed_at(layer, corner))
            )
        empty = np.zeros([hi - lo for lo, hi in box], dtype=np.uint8)
        labels = Labels(empty, name=f"{layers[0].name} – region labels", **placed_at(layers[0], corner))
        add_layer(self.viewer, labels)
        activate(self.viewer, labels)
        self._ended(
            f"Cut out {in_words(layers[0], box)}. Paint in '{labels.name}', choose both above, and press Add case."
        )


def _grid(layer: Any) -> tuple[Any, ...]:
    """Return what layers on the same voxels have in common."""
    return tuple(full_resolution(layer).shape), place_key(layer)
