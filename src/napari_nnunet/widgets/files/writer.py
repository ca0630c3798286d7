"""Save a Labels layer as a medical image or a picture, with its geometry, classes and colours."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from napari.layers import Image, Layer
from napari.utils.colormaps import DirectLabelColormap
from napari.utils.notifications import show_info
from numpy.typing import NDArray

from napari_nnunet.errors import DatasetError
from napari_nnunet.formats.dataset.changing import changing
from napari_nnunet.formats.dataset.raw_writer import save_case
from napari_nnunet.formats.images.files import ending_of, write_labels
from napari_nnunet.formats.images.label_note import LabelNote
from napari_nnunet.schema.dataset import DatasetInfo
from napari_nnunet.widgets.files.dicom_layers import write_dicom
from napari_nnunet.widgets.files.overlay import named_as_open, require_over
from napari_nnunet.widgets.files.place import (
    KEPT,
    STORED,
    axes_of,
    for_format,
    geometry_to_save,
    in_window_words,
    time_of,
)
from napari_nnunet.widgets.files.unsaved import note_saved
from napari_nnunet.widgets.frame.layers import class_names_of
from napari_nnunet.widgets.frame.ready import NotReadyError
from napari_nnunet.widgets.frame.words import as_text

_MOST_COLOURS = 256  # more values are numbered objects, whose colours mean nothing


@in_window_words()
def write_labels_layer(path: str, data: Any, attributes: dict[str, Any]) -> list[str]:
    """Write one Labels layer: a picture, a volume, or a time series of them.

    The geometry of the file the layer was read from is kept unless the layer was moved since; other layers are
    written where they lie, in mm. Names and colours of the classes go into the file's metadata.

    Parameters
    ----------
    path : str
        The ending decides the format.
    data : array-like
        Labels ([T,] [Z,] Y, X).
    attributes : dict
        napari's description of the layer.

    Raises
    ------
    DatasetError, ImageError
        If the format cannot hold the layer or the place where it lies.
    """
    labels = np.asarray(data[0] if attributes.get("multiscale") else data)
    axes = axes_of(labels.ndim, attributes)
    attributes = dict(named_as_open(attributes, labels.shape, axes))
    if path.lower().endswith(".dcm"):
        write_dicom(Path(path), labels, attributes, axes)
        note_saved(labels, Path(path))
        return [path]
    ordered = "".join(letter for letter in "TZYX" if letter in axes)
    geometry = geometry_to_save(labels.shape, attributes, axes)
    painted, labels = labels, labels.transpose([axes.index(letter) for letter in ordered])
    space = labels.shape[ordered.count("T") :]
    note = LabelNote(
        axes=ordered,
        shape=labels.shape,
        geometry=geometry,
        names=class_names_of(attributes.get("features", {})),
        colours=_colours(labels, attributes),
        **_time(axes, attributes),
    )
    file = Path(path)
    write_labels(labels, for_format(geometry, space, ending_of(file)), file, note=note)
    note_saved(painted, file)
    kept = next((ending for ending in KEPT if ending.endswith(file.suffix.lower())), None)
    if kept is not None and not file.name.lower().endswith(kept):
        show_info(as_text(f"napari by itself opens {file.name} as pixels. {file.stem}{kept} keeps classes and place."))
    return [path]


def _time(axes: str, attributes: Mapping[str, Any]) -> dict[str, Any]:
    if "T" not in axes or "scale" not in attributes:
        return {}
    start, step, unit = time_of(attributes, axes)
    if step <= 0:
        raise DatasetError(
            f"Time runs backwards in this layer, by a step of {step:g}, which files cannot say. Give it a positive "
            "scale along time."
        )
    return {"time_start": start, "time_step": step, "time_unit": unit}


def _colours(labels: NDArray[Any], attributes: Mapping[str, Any]) -> dict[int, str]:
    """Return the colours of the classes that somebody chose, as #rrggbb."""
    colours = attributes.get("colormap")
    if not isinstance(colours, DirectLabelColormap):
        return {}
    there = {int(value) for plane in labels for value in np.unique(plane)}
    values = sorted({*class_names_of(attributes.get("features", {})), *there} - {0})
    rgb = [np.round(255 * np.asarray(colours.map(value))[:3]).astype(int) for value in values[:_MOST_COLOURS]]
    return {value: "#{:02x}{:02x}{:02x}".format(*colour) for value, colour in zip(values, rgb, strict=False)}


@in_window_words()
def write_case(path: str, layers: list[tuple[Any, dict[str, Any], str]]) -> list[str]:
    """Save image layers and a Labels layer as a training case.

    Parameters
    ----------
    path : str
        ``DATASET/CASE.nnunet``: the folder must hold a dataset.json, the name is the case's. No file of that name is
        written; images and labels go where the dataset keeps them.
    layers : list
        Image layers, one per channel, and one Labels layer, on the same grid.

    Raises
    ------
    DatasetError, ImageError
        If the folder is no dataset, or the layers do not fit it.
    """
    target = Path(path)
    if not (target.parent / "dataset.json").is_file():
        raise DatasetError(
            f"{target.parent} is not a dataset: it has no dataset.json. Save into the folder of a dataset, as "
            "Dataset001_Cells/case_07.nnunet; the Training cases dock makes new datasets."
        )
    images = [(data, attributes) for data, attributes, kind in layers if kind == "image"]
    labels, about = next((data, attributes) for data, attributes, kind in layers if kind == "labels")
    array = np.asarray(labels)
    axes = "ZYX"[-array.ndim :]
    _require_together(layers, axes)
    kept = {STORED: about.get("metadata", {}).get(STORED) or images[0][1].get("metadata", {}).get(STORED)}
    placed = named_as_open({**images[0][1], "metadata": kept}, array.shape, axes)
    geometry = geometry_to_save(array.shape, placed, axes)
    channels = [np.asarray(data) for data, _ in images]
    if images[0][1].get("rgb"):
        channels = [channels[0][..., c] for c in range(3)]
    with changing(target.parent):
        ending = DatasetInfo.read(target.parent / "dataset.json").file_ending
        geometry = for_format(geometry, array.shape, ending)
        case = save_case(target.parent, target.stem, channels, array, geometry)
    return [str(file) for file in (*case.images, case.label)]


def _require_together(layers: list[tuple[Any, dict[str, Any], str]], axes: str) -> None:
    """Check that all layers of a case lie over each other."""
    made = [Layer.create(data, dict(attributes), kind) for data, attributes, kind in layers]
    first = next(layer for layer in made if isinstance(layer, Image))
    for other in made:
        try:
            if other is not first and other.ndim == first.ndim == len(axes):
                require_over(first, other, axes, units=False)
        except NotReadyError as error:
            raise DatasetError(*error.args) from error
