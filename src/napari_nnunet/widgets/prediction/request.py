"""What the user chose, checked and worked out into what will be done: one pure function between."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import uuid4
from weakref import WeakKeyDictionary, ref

import numpy as np
from napari.layers import Image

from napari_nnunet.engine.image.voxel_size import as_trained
from napari_nnunet.errors import NnunetError, counted
from napari_nnunet.formats.model.folder import TrainedModel
from napari_nnunet.formats.model.side_files import stamps_of
from napari_nnunet.grid import Grid
from napari_nnunet.jobs.prediction.voxel_size import far_voxels
from napari_nnunet.schema.geometry import GIVEN, RESOLUTION, Geometry
from napari_nnunet.schema.requests.prediction import PredictSettings
from napari_nnunet.widgets.files.overlay import require_over
from napari_nnunet.widgets.files.place import STORED, geometry_to_save, in_digits, place_key
from napari_nnunet.widgets.frame.layers import (
    Frame,
    axes_choices,
    frames_of,
    full_resolution,
    seen_axes,
    units_per_world,
    voxel_size_mm,
)
from napari_nnunet.widgets.frame.ready import NotReadyError, typed_spacing


class FarError(NotReadyError):
    """The voxels are far from those a model was trained on.

    Parameters
    ----------
    reason : str
        With both sizes.
    spacing : tuple of float
        What can be confirmed, in mm.
    """

    def __init__(self, reason: str, spacing: tuple[float, ...]) -> None:
        super().__init__(reason)
        self.spacing = spacing


_WORDS: WeakKeyDictionary[Image, tuple[Callable[[], Any], str]] = WeakKeyDictionary()
_NAMES = {"t": "T", "time": "T", "c": "C", "channel": "C", "channels": "C", "z": "Z"}
OUTPUTS = ("Labels", "Labels and probabilities", "Probabilities")


@dataclass(frozen=True)
class Choices:
    """The state of the form.

    Parameters
    ----------
    model : TrainedModel or None
        The chosen model.
    layers : tuple of Image or None
        One per channel of the model; None means "in the first layer".
    axes : str
        How the layer's axes are read.
    spacing_text : str
        What was typed as voxel size in mm; empty uses the layer's.
    settings : PredictSettings
        Folds, mirroring and so on.
    region : tuple of (int, int) or None
        Half-open box in the voxels of the spatial axes.
    times : tuple of int or None
        Time points, all where None.
    output : str
        One of :data:`OUTPUTS`, or ON_DISK of the room of large images.
    accepted : tuple of float or None
        The voxel size that was confirmed although it is far from the model's.
    turns : bool
        Whether another model that segments the same layer turns images by their place.
    """

    model: TrainedModel | None
    layers: tuple[Image | None, ...]
    axes: str
    spacing_text: str
    settings: PredictSettings
    region: tuple[tuple[int, int], ...] | None
    times: tuple[int, ...] | None
    output: str
    accepted: tuple[float, ...] | None = None
    turns: bool = False


@dataclass(frozen=True, eq=False)
class SegmentRequest:
    """Everything a run needs.

    Parameters
    ----------
    model, settings, axes, region, output
        As chosen.
    layers : list of Image
        One per channel, or one with all of them. The result takes the geometry of the first.
    frames : list of Frame
        One per time point.
    grid : Geometry
        The voxels as the model sees them: 1 x 1 x 1 where it was trained on images without a voxel size; with their
        place where it turns images by it.
    voxel_mm : tuple of float or None
        The voxel size in mm, spatial axes; None for pictures without one.
    typed : bool
        Whether somebody typed the voxel size.
    together : str
        What else decides about the result: the members of an ensemble, and how they are joined.
    place : str
        Where the first layer lay when this was asked.
    stamps : str
        Which files of the model, and which arrays of the layers, there were when this was asked.
    """

    model: TrainedModel
    settings: PredictSettings
    layers: list[Image]
    axes: str
    frames: list[Frame]
    grid: Geometry
    voxel_mm: tuple[float, ...] | None
    typed: bool
    region: tuple[tuple[int, int], ...] | None
    output: str
    together: str = ""
    place: str = ""
    stamps: str = ""

    @property
    def source(self) -> Image:
        """The layer whose geometry the result takes."""
        return self.layers[0]

    @property
    def asked(self) -> dict[str, Any]:
        """What is asked of this image, as recipes hold it: what its file says by itself stays out."""
        said = _stored_spacing(self.source, self.grid.spacing) is not None and not self.typed
        return {
            "region": None if self.region is None else [end for pair in self.region for end in pair],
            "spacing": list(self.grid.spacing) if self.grid.spacing_known and not said else None,
            "any_spacing": self.settings.any_spacing,
            "probabilities": self.settings.probabilities,
            "layers": [layer.name for layer in self.layers] if len(self.layers) > 1 else [],
            "colours": self.source.rgb,
            "time_points": [frame.index for frame in self.frames if frame.index is not None],
        }

    @property
    def key(self) -> str:
        """The same for requests that ask for the same of the same layers in the same place, and models as they were.

        Voxels that were edited in the array of a layer are not noticed here: a run compares them with those of before.
        """
        layers = [str(layer.unique_id) for layer in self.layers]
        times = sorted(frame.index for frame in self.frames if frame.index is not None)
        grid = in_digits(self.grid.model_dump(), 6)  # where a layer lies changes the further digits of its voxel size
        asked = self.settings, layers, self.axes, grid, times, self.region, self.together, self.place, self.stamps
        return repr((str(self.model.folder), *asked))


def array_word(layer: Image) -> str:
    """Return a word that is another one when the layer shows another array; what is written into one is not noticed."""
    array = full_resolution(layer)
    known = _WORDS.get(layer)
    if known is None or known[0]() is not array:
        reference = ref(array) if type(array).__weakrefoffset__ else lambda: array
        known = _WORDS[layer] = reference, uuid4().hex
    return known[1]


def _stored_spacing(layer: Image, spacing: tuple[float, ...]) -> tuple[float, ...] | None:
    """Return the voxel size that the layer's file says, if it is this one; rounding apart."""
    stored = layer.metadata.get(STORED)
    if not stored or not stored["spacing_known"] or len(stored["spacing"]) != len(spacing):
        return None
    return tuple(stored["spacing"]) if np.allclose(stored["spacing"], spacing, rtol=1e-6, atol=0) else None


def resolve(choices: Choices) -> SegmentRequest:
    """Check the form and work out what Run would do; nothing is read but shapes.

    Raises
    ------
    NotReadyError
        With the first thing that is missing or does not fit.
    """
    model = choices.model
    if model is None:
        raise NotReadyError("Choose a model from the list, or 'Browse…' to its folder.")
    names = model.dataset.channel_names
    first = choices.layers[0] if choices.layers else None
    if first is None:
        raise NotReadyError("Open an image first (File > Open, or File > Open Sample > nnU-Net).")
    others = [layer for layer in choices.layers[1:] if layer is not None]
    layers = [first, *others]
    _check_channels(first, others, names)
    if not choices.axes:
        raise NotReadyError(_no_axes(first, len(names)))
    spatial = "".join(letter for letter in choices.axes if letter in "ZYX")
    if model.configuration.ndim == 3 and "Z" not in spatial:
        raise NotReadyError(
            f"The model is three-dimensional, but '{first.name}' is read as {choices.axes}, without a Z axis. "
            "Choose a volume, other axes, or a 2d model."
        )
    for other in others:
        require_over(first, other, choices.axes)
    voxel, typed = _voxel_size(choices, first, spatial), bool(choices.spacing_text.strip())
    grid = _as_seen(model, first, voxel, len(spatial), typed=typed)
    if (model.turns or choices.turns) and grid.ndim == 3:
        grid = _with_place(grid, first, choices.axes)
    require_confirmed(model, grid, choices.accepted)
    try:
        stamps = repr((stamps_of(model, choices.settings), [array_word(layer) for layer in layers]))
        frames = frames_of(layers, choices.axes, grid, channels=len(names), times=choices.times)
    except NnunetError as error:
        raise NotReadyError(error.in_window) from error
    if choices.region is not None and any(lo >= hi for lo, hi in choices.region):
        raise NotReadyError("The region is outside the image. Draw the rectangle over it, or move the view.")
    settings = choices.settings.replace(
        probabilities=choices.output in OUTPUTS[1:], any_spacing=choices.accepted == grid.spacing
    )
    known: dict[str, Any] = {
        "region": choices.region,
        "output": choices.output,
        "place": place_key(first),
        "stamps": stamps,
    }
    return SegmentRequest(model, settings, layers, choices.axes, frames, grid, voxel, typed, **known)


def require_confirmed(model: TrainedModel, grid: Geometry, accepted: tuple[float, ...] | None) -> None:
    """Raise NotReadyError if voxels are far from those a model was trained on, and nobody confirmed them."""
    far = None if accepted == grid.spacing else far_voxels(model, grid)
    if far is not None:
        raise FarError(f"{far.text} Correct the voxel size, or confirm it.", grid.spacing)


def _check_channels(first: Image, others: Sequence[Image], names: Sequence[str]) -> None:
    count, listed = len(names), ", ".join(names)
    if first.rgb:
        if count not in (3, 4):
            raise NotReadyError(
                f"'{first.name}' is a colour (RGB) image, but the model has {count} channel"
                f"{'s' if count > 1 else ''} ({listed}). Split or convert it: right-click the layer > Split RGB."
            )
        if count == 4 and full_resolution(first).shape[-1] != 4:
            raise NotReadyError(f"The model has 4 channels ({listed}), but '{first.name}' has three colours.")
        return
    if others and len(others) + 1 != count:
        raise NotReadyError(
            f"The model has {counted(count, 'channel')} ({listed}), but {len(others) + 1} layers are chosen. "
            "Choose a layer for each channel, or one layer that holds them all."
        )
    for i, other in enumerate(others):
        if any(other is one for one in (first, *others[:i])):
            raise NotReadyError(f"'{other.name}' is chosen for two channels. Choose a layer for each channel.")
        if other.rgb or full_resolution(other).shape != full_resolution(first).shape:
            raise NotReadyError(
                f"The channels must have the same shape: '{first.name}' has {full_resolution(first).shape}, "
                f"'{other.name}' has {full_resolution(other).shape}."
            )


def _no_axes(layer: Image, channels: int) -> str:
    shape = full_resolution(layer).shape
    if channels > 1:
        return (
            f"The model has {counted(channels, 'channel')}, but no axis of '{layer.name}' {tuple(shape)} has "
            f"{channels} entries. "
            "Choose a layer for each channel."
        )
    return (
        f"'{layer.name}' has {layer.ndim} axes {tuple(shape)}. Besides time, z, y and x there may be one for channels, "
        "but the model takes 1 channel, and no axis has one entry. Right-click the layer > Split Stack, and choose "
        "one of its parts."
    )


def _voxel_size(choices: Choices, layer: Image, spatial: str) -> tuple[float, ...] | None:
    """Return the voxel size in mm: what was typed, else the layer's; None for pictures that have none."""
    text = choices.spacing_text.strip()
    if text:
        return typed_spacing(text, spatial)
    picked = [i for i, letter in enumerate(choices.axes) if letter in "ZYX"]
    known, own = voxel_size_mm(layer, picked)
    order = sorted(picked, key=lambda i: "ZYX".index(choices.axes[i]))
    if known is not None:
        size = tuple(known[i] for i in order)
        return _stored_spacing(layer, size) or size
    model = choices.model
    if model is not None and model.plans.reader == "NaturalImage2DIO":
        return None  # pictures have no voxel size, here or in training
    hint = " x ".join(f"{own[i]:g}" for i in order)
    raise NotReadyError(
        f"'{layer.name}' has no voxel size. Type it in mm, as {' '.join(letter.lower() for letter in spatial)}"
        + (f" (the layer's scale is {hint})." if any(own[i] != 1 for i in order) else ".")
    )


def _as_seen(model: TrainedModel, layer: Image, voxel: tuple[float, ...] | None, ndim: int, *, typed: bool) -> Geometry:
    """Return the voxels as a model sees them; a layer's own size counts like one that lies inside a picture."""
    if voxel is None:
        return Geometry(spacing=(1.0,) * ndim, spacing_known=False)
    stored = layer.metadata.get(STORED)
    source = GIVEN if typed else (stored["spacing_source"] if stored else RESOLUTION)
    seen = as_trained(model.plans, model.configuration, Geometry(spacing=voxel, spacing_source=source))
    return seen if typed else seen.model_copy(update={"spacing_source": ""})


def _with_place(grid: Geometry, layer: Image, axes: str) -> Geometry:
    """Return the voxels with the place that the layer's file gave them, for models that turn images by it."""
    stored = layer.metadata.get(STORED)
    if not stored or Grid((1,) * 3, Geometry.model_validate(stored)).matrix is None:
        return grid  # it says nothing of its place, and is taken as it lies
    try:
        place = geometry_to_save(full_resolution(layer).shape[: layer.ndim], layer.as_layer_data_tuple()[1], axes)
    except NnunetError as error:
        raise NotReadyError(f"'{layer.name}': {error.in_window}") from error
    return place.with_spacing(grid.spacing, "")


def default_axes(model: TrainedModel | None, layers: Sequence[Image | None]) -> list[str]:
    """Return the readings of the first layer's axes that fit the model, the likeliest first."""
    if model is None or not layers or layers[0] is None:
        return []
    count = sum(layer is not None for layer in layers)
    readings = axes_choices(layers[0], channels=len(model.dataset.channel_names), layers=count)
    if count == 1:
        readings = [reading for reading in readings if "C" not in _named_otherwise(layers[0], reading)]
    if model.configuration.ndim == 3:
        readings.sort(key=lambda reading: (len(_named_otherwise(layers[0], reading)), "Z" not in reading))
    return readings


def _named_otherwise(layer: Image, reading: str) -> str:
    """Return what the names of axes say, where a reading takes them for something else; one entry is anything."""
    known = zip(layer.axis_labels, reading, full_resolution(layer).shape, strict=False)
    said = [(_NAMES.get(str(name).lower(), letter), letter, n) for name, letter, n in known]
    return "".join(named for named, letter, n in said if named != letter and n > 1)


def visible_box(layer: Image, axes: str, dims: Any) -> tuple[tuple[int, int], ...]:
    """Return the part of the layer that is on the screen, in voxels of the spatial axes.

    Raises
    ------
    NotReadyError
        If napari does not know it: it passes over the units of layers that differ.
    """
    shape = full_resolution(layer).shape
    corners = layer.corner_pixels
    factor = layer.downsample_factors[layer.data_level] if layer.multiscale else [1] * layer.ndim
    shown = seen_axes(layer, dims)
    if np.any(units_per_world(layer, dims)[shown] != 1):
        raise NotReadyError(
            f"What is visible of '{layer.name}' could not be determined, as layers in other units are open. Give all "
            "layers the same units, or draw a rectangle and choose it as region."
        )
    box: dict[str, tuple[int, int]] = {}
    for i, letter in enumerate(axes):
        if i in shown:
            lo, hi = (int(corners[k][i] * factor[i]) for k in (0, 1))
            box[letter] = (max(0, lo), min(int(shape[i]), hi + 1))
        else:
            box[letter] = (0, int(shape[i]))
    return tuple(box[letter] for letter in "ZYX" if letter in box)


def shape_box(layer: Image, axes: str, shapes: Any, dims: Any) -> tuple[tuple[int, int], ...]:
    """Return the bounding box of the selected (or all) shapes in voxels of the image.

    Axes along which the shapes are flat, such as the slice they were drawn on, take the image's whole extent.
    """
    chosen = sorted(shapes.selected_data) or range(len(shapes.data))
    extent = full_resolution(layer).shape
    low = [float("inf")] * layer.ndim
    high = [float("-inf")] * layer.ndim
    drawn, own = units_per_world(shapes, dims), units_per_world(layer, dims)
    for index in chosen:
        for vertex in shapes.data[index]:
            world = np.asarray(shapes.data_to_world(vertex)) / drawn
            padded = [0.0] * (layer.ndim - len(world)) + list(world)[-layer.ndim :]
            for axis, position in enumerate(layer.world_to_data(padded * own)):
                low[axis] = min(low[axis], position)
                high[axis] = max(high[axis], position)
    box: dict[str, tuple[int, int]] = {}
    for i, letter in enumerate(axes):
        flat = not high[i] - low[i] > 0.5
        box[letter] = (0, int(extent[i])) if flat else (max(0, round(low[i])), min(int(extent[i]), round(high[i]) + 1))
    return tuple(box[letter] for letter in "ZYX" if letter in box)
