"""Layers of a training: the film of its learning, and a validation case with what it got wrong."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from napari.layers import Image, Labels
from napari.utils.notifications import show_info
from numpy.lib import format as npy
from numpy.typing import NDArray

from napari_nnunet.engine.objects.match import annotated_part
from napari_nnunet.errors import ImageError
from napari_nnunet.events import Job
from napari_nnunet.formats.dataset.objects import ignored_beside, reference_file
from napari_nnunet.formats.dataset.raw_dataset import read_info
from napari_nnunet.formats.dataset.read_case import grid_of_image
from napari_nnunet.formats.images.files import read_labels
from napari_nnunet.formats.preprocessed.journal import joined_by
from napari_nnunet.formats.regular import regular
from napari_nnunet.formats.results.objects import found_file
from napari_nnunet.grid import Grid, WhenApart, onto
from napari_nnunet.jobs.choosing.compare_objects import compare_objects
from napari_nnunet.jobs.choosing.validation import FOUND_OBJECTS
from napari_nnunet.schema.dataset import DatasetInfo
from napari_nnunet.schema.geometry import Geometry
from napari_nnunet.schema.model_name import label_of
from napari_nnunet.schema.objects import ObjectScheme
from napari_nnunet.widgets.files.place import STORED, LayerData
from napari_nnunet.widgets.files.reader import open_layers
from napari_nnunet.widgets.frame.forms import DERIVED
from napari_nnunet.widgets.frame.layers import (
    KIND,
    add_layer,
    colormap_of,
    colormap_of_values,
    differences_colormap,
    features_of,
    remove_layer,
    voxel_in,
)
from napari_nnunet.widgets.frame.words import as_text
from napari_nnunet.widgets.objects.look import show_voxel
from napari_nnunet.widgets.objects.verdicts import verdict_options
from napari_nnunet.widgets.objects.voxels import voxels_of

MISSED, FALSE_POSITIVE, ANOTHER = 1, 2, 3
_OWN = ("name", "colormap", "features", "metadata")  # of a layer itself, not of its place
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
        image, reference = _load(folder / "image.npy"), _load(folder / "reference.npy")
        if image is None or reference is None or image.shape != reference.shape:
            raise ImageError(
                f"{folder} holds no slice that can be shown: image.npy and reference.npy must be pictures of one "
                "shape. Train on, and it is written again."
            )
        self.epochs: list[int] = []
        self._as_made: dict[Labels, tuple[int, ...]] = {}
        title = label_of(folder.parent.parent.name)
        self.image = Image(image, name=f"{title}: slice", colormap="gray", metadata={DERIVED: True})
        self._info, self._title = info, title
        self.reference = self._labels_layer(reference.astype(np.uint8), name=f"{title}: reference", visible=False)
        self.labels = self._learning(np.zeros((1, *image.shape), np.uint8))
        for other in viewer.layers:
            other.visible = False
        for layer in (self.image, self.reference, self.labels):
            add_layer(viewer, layer)
        viewer.reset_view()

    def _labels_layer(self, labels: NDArray[Any], **keywords: Any) -> Labels:
        colours = {"colormap": colormap_of(self._info.labels), "features": features_of(self._info.labels)}
        layer = Labels(labels, metadata={DERIVED: True}, **colours, **keywords)
        self._as_made[layer] = voxels_of(layer).version(layer)
        return layer

    def _learning(self, frames: NDArray[Any]) -> Labels:
        return self._labels_layer(frames, name=f"{self._title}: learning", axis_labels=["epoch", "y", "x"])

    def _painted(self, layer: Labels) -> bool:
        """Whether somebody painted in a layer since it was shown."""
        return voxels_of(layer).version(layer) != self._as_made[layer]

    @property
    def open(self) -> bool:
        """Whether the layer is still there."""
        return self.labels in self.viewer.layers

    def remove(self) -> None:
        """Take the layers away but for those that somebody painted in; the frames stay on disk."""
        for layer in (self.image, self.reference, self.labels):
            if layer in self.viewer.layers and not (isinstance(layer, Labels) and self._painted(layer)):
                remove_layer(self.viewer, layer)

    def update(self, frames: Mapping[int, str]) -> None:
        """Append new frames; whoever looks at the last one sees the next."""
        epochs = sorted(frames)
        if epochs == self.epochs:
            return
        at_end = not self.epochs or (voxel_in(self.labels, self.viewer.dims)[0] or 0) >= len(self.epochs) - 1
        found = [(epoch, _load(Path(frames[epoch]))) for epoch in epochs]
        kept = [(epoch, frame) for epoch, frame in found if frame is not None and frame.shape == self.image.data.shape]
        if not kept:
            return
        self.epochs = [epoch for epoch, _ in kept]
        film = np.stack([frame for _, frame in kept]).astype(np.uint8)
        if self._painted(self.labels):
            self._leave(film)
        else:
            self.labels.data = film
            self._as_made[self.labels] = voxels_of(self.labels).version(self.labels)
        if at_end:
            show_voxel(self.viewer, self.labels, (len(kept) - 1, 0, 0))

    def _leave(self, film: NDArray[Any]) -> None:
        """Leave the layer to who painted in it, and show the film in another."""
        theirs = self.labels
        self.labels = self._learning(film)
        theirs.visible = False
        add_layer(self.viewer, self.labels)
        show_info(as_text(f"You painted in '{theirs.name}', so it stays as it is; '{self.labels.name}' has the film."))


def _load(path: Path) -> NDArray[Any] | None:
    """Return a picture (y, x) as numpy writes it; None where there is none, or a file that holds less than it says."""
    try:
        with regular(path).open("rb") as file:
            if npy.read_magic(file) != (1, 0):
                return None
            shape, turned, kind = npy.read_array_header_1_0(file)
            held = os.fstat(file.fileno()).st_size - file.tell()
            if len(shape) != 2 or kind.kind not in "buif" or not 0 < math.prod(shape) * kind.itemsize <= held:
                return None
            return np.fromfile(file, kind, math.prod(shape)).reshape(shape, order="F" if turned else "C")
    except (OSError, ValueError, EOFError):
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


def score_layers(raw: Path, name: str, result_file: Path) -> Job[list[LayerData]]:
    """Read a validation case: image, reference, result, and where they differ, as layer data.

    Of a dataset of objects these are numbered objects and what became of each; where none were looked for, the classes
    that the network says.
    """
    layers = yield from open_layers(raw, name, together=True)
    info, apart = read_info(raw), joined_by(raw, name)
    grid = Grid(np.shape(layers[-1][0]), Geometry.model_validate(layers[0][1]["metadata"][STORED]))
    place = {key: value for key, value in layers[-1][1].items() if key not in _OWN}
    layers[-1][1]["visible"] = False
    found = found_file(result_file.parent / FOUND_OBJECTS / result_file.name)
    if ObjectScheme.of(info) is not None and found.is_file():
        objects = _read_on(found, info, grid, apart)
        drawn = reference_file(raw, name, info)
        ignored = ignored_beside(drawn, grid_of_image(drawn, info.reader) if apart == "ignore" else grid, info.reader)
        return [*layers, *(yield from _object_layers(objects, layers[-1][0], name, ignored, place))]
    prediction = _read_on(result_file, info, grid, apart)
    small = prediction.astype(np.uint8 if prediction.max(initial=0) < 256 else np.uint16)
    result = {
        "name": f"{name} result",
        "colormap": colormap_of_values(info.labels.names),
        "features": features_of(info.labels),
        **place,
    }
    if ObjectScheme.of(info) is not None:
        return [*layers, (small, result, "labels")]  # cores and borders are not to be compared with numbers
    marked = {
        "name": f"{name} differences",
        "colormap": differences_colormap(),
        "features": {"index": [0, *_DIFFERENCES], "name": ["same", *_DIFFERENCES.values()]},
        "metadata": {DERIVED: True},
        **place,
    }
    wrong = differences(np.asarray(layers[-1][0]), small, info.labels.ignore_label)
    return [*layers, (small, result, "labels"), (wrong, marked, "labels")]


def _read_on(path: Path, info: DatasetInfo, grid: Grid, apart: WhenApart) -> NDArray[Any]:
    """Return a result on the voxels of its image; it has the header of the reference, which may not be believed."""
    labels, own = read_labels(path, reader=info.reader)
    return onto(labels, own, grid, what=f"{path} and its image", apart=apart)


def _object_layers(
    found: NDArray[Any],
    reference: Any,
    name: str,
    ignored: NDArray[np.bool_] | None,
    place: Mapping[str, Any],
) -> Job[list[LayerData]]:
    """Say what became of each of the objects that were found in a validation case."""
    small = found.astype(np.uint16 if found.max(initial=0) < 1 << 16 else np.uint32)
    compared = yield from compare_objects(
        reference, small if ignored is None else annotated_part(small, ignored, np.asarray(reference))
    )
    result = {"name": f"{name} found", "metadata": {KIND: "object"}, **place}
    return [
        (small, result, "labels"),
        (compared.painted, verdict_options(f"{name} verdicts", place), "labels"),
    ]
