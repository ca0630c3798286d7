"""Layers of a training: the film of its learning, and a validation case with what it got wrong."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from napari.layers import Image, Labels
from numpy.typing import NDArray

from napari_nnunet.events import Job
from napari_nnunet.formats.dataset.raw_dataset import read_info
from napari_nnunet.formats.images.files import read_labels
from napari_nnunet.schema.dataset import DatasetInfo
from napari_nnunet.schema.model_name import label_of
from napari_nnunet.widgets.files.place import LayerData
from napari_nnunet.widgets.files.reader import open_layers
from napari_nnunet.widgets.frame.forms import DERIVED
from napari_nnunet.widgets.frame.layers import colormap_of, colormap_of_values, differences_colormap, features_of

MISSED, FALSE_POSITIVE, ANOTHER = 1, 2, 3
_DIFFERENCES = {MISSED: "missed", FALSE_POSITIVE: "false positive", ANOTHER: "another class"}


class FilmLayers:
    """A Labels layer with an epoch axis over the slice that it shows.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
        Gets the layers.
    folder : Path
        ``film`` of the fold.
    info : DatasetInfo
        Classes and their colours.
    """

    def __init__(self, viewer: Any, folder: Path, info: DatasetInfo) -> None:
        self.viewer = viewer
        self.folder = folder
        image = np.load(folder / "image.npy")
        self.epochs: list[int] = []
        title = label_of(folder.parent.parent.name)
        self.image = Image(image, name=f"{title}: slice", colormap="gray", metadata={DERIVED: True})
        reference = np.load(folder / "reference.npy").astype(np.uint8)
        colours = {"colormap": colormap_of(info.labels), "features": features_of(info.labels)}
        colours["metadata"] = {DERIVED: True}
        self.reference = Labels(reference, name=f"{title}: reference", visible=False, **colours)
        self.labels = Labels(
            np.zeros((1, *image.shape), np.uint8), name=f"{title}: learning", axis_labels=["epoch", "y", "x"], **colours
        )
        for other in viewer.layers:
            other.visible = False
        for layer in (self.image, self.reference, self.labels):
            viewer.add_layer(layer)
        viewer.reset_view()

    @property
    def open(self) -> bool:
        """Whether the layer is still there."""
        return self.labels in self.viewer.layers

    def remove(self) -> None:
        """Take the layers away; the frames stay on disk."""
        for layer in (self.image, self.reference, self.labels):
            if layer in self.viewer.layers:
                self.viewer.layers.remove(layer)

    def update(self, frames: Mapping[int, str]) -> None:
        """Append new frames; whoever looks at the last one sees the next."""
        epochs = sorted(frames)
        if epochs == self.epochs:
            return
        at_end = not self.epochs or self.viewer.dims.current_step[0] >= len(self.epochs) - 1
        found = [(epoch, _load(Path(frames[epoch]))) for epoch in epochs]
        kept = [(epoch, frame) for epoch, frame in found if frame is not None and frame.shape == self.image.data.shape]
        if not kept:
            return
        self.epochs = [epoch for epoch, _ in kept]
        self.labels.data = np.stack([frame for _, frame in kept]).astype(np.uint8)
        if at_end:
            self.viewer.dims.set_current_step(0, len(kept) - 1)


def _load(path: Path) -> NDArray[Any] | None:
    try:
        return np.asarray(np.load(path))
    except (OSError, ValueError):
        return None


def differences(reference: NDArray[Any], prediction: NDArray[Any], ignore_label: int | None) -> NDArray[np.uint8]:
    """Return where a result differs: missed, false positive, another class; ignored voxels are left out."""
    out = np.zeros(reference.shape, dtype=np.uint8)
    out[(reference != 0) & (prediction == 0)] = MISSED
    out[(reference == 0) & (prediction != 0)] = FALSE_POSITIVE
    out[(reference != 0) & (prediction != 0) & (reference != prediction)] = ANOTHER
    if ignore_label is not None:
        out[reference == ignore_label] = 0
    return out


def show_largest_slice(viewer: Any, layer: Labels) -> None:
    """Go to the slice of a volume with the most labels."""
    data = np.asarray(layer.data)
    if data.ndim == 3 and data.any():
        z = int((data > 0).sum(axis=(1, 2)).argmax())
        viewer.dims.set_point(0, float(layer.data_to_world((z, 0, 0))[0]))


def score_layers(raw: Path, name: str, result_file: Path) -> Job[list[LayerData]]:
    """Read a validation case: image, reference, result and differences, as layer data."""
    layers = yield from open_layers(raw, name)
    info = read_info(raw)
    reference, place = layers[-1][0], dict(layers[-1][1])
    prediction, _ = read_labels(result_file, reader=info.reader)
    for key in ("name", "colormap", "features", "metadata"):
        place.pop(key, None)
    layers[-1][1]["visible"] = False
    small = prediction.astype(np.uint8 if prediction.max(initial=0) < 256 else np.uint16)
    wrong = differences(np.asarray(reference), small, info.labels.ignore_label)
    names = {"index": [0, *_DIFFERENCES], "name": ["same", *_DIFFERENCES.values()]}
    result = {
        "name": f"{name} result",
        "colormap": colormap_of_values(info.labels.names),
        "features": features_of(info.labels),
        **place,
    }
    marked = {
        "name": f"{name} differences",
        "colormap": differences_colormap(),
        "features": names,
        "metadata": {DERIVED: True},
        **place,
    }
    return [*layers, (small, result, "labels"), (wrong, marked, "labels")]
