"""A label image in OME-Zarr becomes a Labels layer of several levels; of its voxels what is on the screen is read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import napari
import numpy as np
from napari.layers import Labels
from napari.utils.colormaps import DirectLabelColormap
from napari.utils.notifications import show_info, show_warning
from numpy.typing import NDArray

from napari_nnunet.errors import ImageError, NnunetError
from napari_nnunet.formats.images.pixel_sizes import UNITS
from napari_nnunet.formats.large.corrections import finish_correction
from napari_nnunet.formats.large.finished import FinishedLabels, open_finished
from napari_nnunet.formats.large.label_image import CLOCK
from napari_nnunet.schema.dataset import BACKGROUND
from napari_nnunet.widgets.files.place import LayerData
from napari_nnunet.widgets.frame.layers import colormap_of_values
from napari_nnunet.widgets.frame.words import as_text, failure_text

#: Key of a layer's metadata: the result on disk that it shows.
RESULT = "nnunet_result_on_disk"
_ON_DISK = "nnunet_labels_on_disk"  # that its voxels are read as they are shown, and cannot be painted in


def read_label_images(path: str | list[str]) -> list[LayerData]:
    """Open label images in OME-Zarr: a layer each, or one for each of their channels."""
    paths = [Path(p) for p in (path if isinstance(path, list) else [path])]
    for folder in paths:
        try:
            if finish_correction(folder):
                show_info(as_text(f"The corrections of {folder.name} were not saved to the end before; now they are."))
        except NnunetError as error:  # what is there can be looked at all the same
            show_warning(as_text(f"A correction of {folder.name} is not saved to the end. {failure_text(error)}"))
    viewer = napari.current_viewer()
    if viewer is not None:
        lock_what_is_on_disk(viewer)
    return [layer for folder in paths for layer in label_image_layers(open_finished(folder))]


def lock_what_is_on_disk(viewer: napari.viewer.Viewer) -> None:
    """Let nobody paint in layers of labels on disk, now and from now on: strokes in them are saved nowhere."""
    for layer in viewer.layers:
        _lock(layer)
    viewer.layers.events.inserted.connect(_lock_inserted)


def _lock_inserted(event: Any) -> None:
    _lock(event.value)


def _lock(layer: Any) -> None:
    if isinstance(layer, Labels) and _ON_DISK in layer.metadata and not isinstance(layer.data, np.ndarray):
        layer.editable = False


def refuse_unfinished(path: str | list[str]) -> list[LayerData]:
    """Say what can be done with a result that is not complete."""
    first = Path(path[0] if isinstance(path, list) else path)
    raise ImageError(
        f"{first.name} is not complete. To finish it, open its image, choose {first.with_suffix('').name} as Result of "
        "'Labels on disk' in the Segment dock, and press Continue."
    )


def label_image_layers(found: FinishedLabels) -> list[LayerData]:
    """Return the layers of a label image, where its metadata place it."""
    axis = found.level.letters.find("C")
    arrays: list[Sequence[Any]] = [found.arrays]
    if axis >= 0:  # layers of images have no axis of channels either
        arrays = [[OneChannel(a, axis, c) for a in found.arrays] for c in range(found.level.shape[axis])]
    name = found.path.name.removesuffix(".zarr")
    place = _placement(found, axis)
    about = _names_and_colours(found)
    own_result = {RESULT: str(found.path.absolute())} if found.origin and axis < 0 else {}
    more = {"metadata": {_ON_DISK: True, **own_result}}
    several = len(found.arrays) > 1  # napari takes a single level for a list of slices
    keywords = {"multiscale": several, **place, **about, **more}
    names = [name] if len(arrays) == 1 else [f"{name} {c}" for c in range(len(arrays))]
    return [
        (list(levels) if several else levels[0], {"name": own, **keywords}, "labels")
        for own, levels in zip(names, arrays, strict=True)
    ]


def _placement(found: FinishedLabels, channel: int) -> dict[str, Any]:
    level = found.level
    axes = [axis for axis in range(len(level.axes)) if axis != channel]
    return {
        "scale": [level.scale[axis] for axis in axes],
        "translate": [level.translation[axis] for axis in axes],
        "units": [_unit(level.axes[axis].get("unit")) for axis in axes],
        "axis_labels": [str(level.axes[axis].get("name") or f"axis {axis}") for axis in axes],
    }


def _unit(unit: Any) -> str:
    """Return a unit as napari knows it; what is none counts voxels."""
    word = str(unit).lower()
    return "angstrom" if word == "å" else word if word in (*UNITS, *CLOCK) else "pixel"


def _names_and_colours(found: FinishedLabels) -> dict[str, Any]:
    known: dict[str, Any] = {}
    if found.names or found.colours:
        colours: dict[Any, Any] = dict(colormap_of_values({*found.names, *found.colours}).color_dict)
        colours.update({value: np.array(rgba, dtype=np.float32) for value, rgba in found.colours.items() if value})
        known["colormap"] = DirectLabelColormap(color_dict=colours)
    if found.names:
        names = {0: BACKGROUND, **found.names}
        known["features"] = {"index": list(names), "name": list(names.values())}
    return known


class OneChannel:
    """An array without its axis of channels; what is asked for is read when it is sliced.

    Parameters
    ----------
    array : array-like
        With the axis.
    axis, channel : int
        Which axis, and which channel.
    """

    def __init__(self, array: Any, axis: int, channel: int) -> None:
        self._array, self._axis, self._channel = array, axis, channel
        self.shape = (*array.shape[:axis], *array.shape[axis + 1 :])
        self.dtype, self.ndim = np.dtype(array.dtype), len(self.shape)

    def __getitem__(self, key: Any) -> NDArray[Any]:
        parts = list(key) if isinstance(key, tuple) else [key]
        parts += [slice(None)] * (self.ndim - len(parts))
        return np.asarray(self._array[(*parts[: self._axis], self._channel, *parts[self._axis :])])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self[()], dtype=dtype)
