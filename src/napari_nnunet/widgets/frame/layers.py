"""Between napari layers and the engine's volumes: axes, channels, spacing, geometry, classes."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import pint
from napari.layers import Image
from napari.utils.colormaps import DirectLabelColormap
from numpy.typing import NDArray

from napari_nnunet.formats.large.source import LargeImage, TimePoint
from napari_nnunet.schema.colours import DIFFERENCES, class_colour
from napari_nnunet.schema.dataset import LabelScheme
from napari_nnunet.schema.geometry import Geometry
from napari_nnunet.volume import Volume
from napari_nnunet.widgets.frame.ready import NotReadyError

#: Metadata key of layers that are a training case: its dataset's folder and its name.
ORIGIN = "nnunet_case"
#: Metadata key of a Labels layer whose 0 means "nobody looked here", as sparse painting is shown.
SPARSE = "nnunet_sparse"
#: Metadata key of a Labels layer that was saved as a case: the dataset's value of each value in it.
VALUES = "nnunet_values"
#: Metadata key of a layer whose objects have the same number at every time.
FOLLOWED = "nnunet_followed"
#: Metadata key of a layer whose values are numbers of objects: what these are.
KIND = "nnunet_kind"
_COLOURED = 256  # label values that have a colour before anybody paints them
_PLACEMENT = ("scale", "translate", "rotate", "shear", "affine", "units", "axis_labels")


def full_resolution(layer: Image) -> Any:
    """Return the layer's array, level 0 of a multiscale one."""
    return layer.data[0] if layer.multiscale else layer.data


def axes_choices(layer: Image, *, channels: int, layers: int) -> list[str]:
    """Return the ways to read a layer's axes, the likeliest first.

    Parameters
    ----------
    layer : Image
        Colours of an RGB layer are not counted.
    channels : int
        Channels the model expects.
    layers : int
        Number of layers that are combined; more than one means that no axis holds channels.

    Returns
    -------
    list of str
        Such as "ZYX", "TYX", "CZYX", "TCZYX"; empty where no reading makes sense.
    """
    ndim, shape = layer.ndim, tuple(full_resolution(layer).shape)
    if ndim < 2:
        return []
    letters = "TCZ" if channels > 1 and layers == 1 and not layer.rgb else "TZ"
    readings = ["".join(lead) + "YX" for lead in itertools.permutations(letters, ndim - 2)]
    if "C" in letters:
        # The model's channels must be somewhere, and of the right number.
        readings = [r for r in readings if "C" in r and shape[r.index("C")] == channels]
    named = [str(label).lower() for label in layer.axis_labels]
    return sorted(readings, key=lambda r: (-_agreement(r, named), "T" in r, r.index("C") if "C" in r else 0))


def _agreement(reading: str, named: Sequence[str]) -> int:
    """How many axis names speak for a reading."""
    words = {"T": ("t", "time", "frame", "frames"), "C": ("c", "channel", "channels"), "Z": ("z", "plane", "slice")}
    return sum(name in words.get(letter, ()) for letter, name in zip(reading, named, strict=False))


def voxel_size_mm(
    layer: Image, spatial: Iterable[int] = (-2, -1)
) -> tuple[tuple[float, ...] | None, tuple[float, ...]]:
    """Return the voxel size along every data axis, in mm and in the layer's own unit.

    Parameters
    ----------
    layer : Image
        The layer.
    spatial : iterable of int
        Which of its axes are space; time has no mm.

    Returns
    -------
    mm : tuple of float or None
        None where a spatial axis of the layer is in pixels: its size is not known.
    own : tuple of float
        Length of one voxel step in world units.
    """
    origin = np.asarray(layer.data_to_world(np.zeros(layer.ndim)))
    steps = [np.asarray(layer.data_to_world(row)) - origin for row in np.eye(layer.ndim)]
    own = tuple(float(np.linalg.norm(step)) for step in steps)
    factors = [length_in_mm(unit) for unit in layer.units]
    if any(factors[axis] is None for axis in spatial):
        return None, own
    return tuple(s * (f if f is not None else 1.0) for s, f in zip(own, factors, strict=True)), own


@dataclass(frozen=True)
class Frame:
    """One image to segment, and where its result goes.

    Parameters
    ----------
    volume : Volume
        What the engine gets.
    index : int or None
        Time point, None without a time axis.
    """

    volume: Volume
    index: int | None


def frames_of(
    layers: Sequence[Image], axes: str, geometry: Geometry, *, channels: int, times: Sequence[int] | None
) -> list[Frame]:
    """Cut layers into volumes (C, [Z,] Y, X), one per time point; nothing is loaded or copied.

    Parameters
    ----------
    layers : sequence of Image
        One with all channels, or one per channel.
    axes : str
        From :func:`axes_choices`.
    geometry : Geometry
        Of every volume.
    channels : int
        Channels of the model.
    times : sequence of int or None
        Time points wanted; all where None.
    """
    if len(layers) > 1 or not isinstance(full_resolution(layers[0]), np.ndarray):
        image = image_of_layers(layers, axes, geometry, channels=channels)
        wanted = (range(image.times) if times is None else times) if "T" in axes else (None,)
        return [Frame(Volume(TimePoint(image, time or 0), geometry), time) for time in wanted]
    array = _channels_first(layers[0], axes, channels)
    if "T" not in axes:
        return [Frame(Volume(array, geometry), None)]
    return [Frame(Volume(array[:, t], geometry), t) for t in (range(array.shape[1]) if times is None else times)]


def image_of_layers(layers: Sequence[Image], axes: str, geometry: Geometry, *, channels: int) -> LargeImage:
    """Return layers as one image that is read box by box; see :func:`frames_of`. No array is arranged for it.

    Arrays of dask would be given a graph for every chunk, which takes a second for an image of many.
    """
    first = layers[0]
    arrays = [full_resolution(layer) for layer in layers]
    if first.rgb:
        return LargeImage((_Colours(arrays[0], max(channels, 3)),), f"{axes}C", geometry, first.name)
    return LargeImage(tuple(arrays), axes, geometry, first.name)


class _Colours:
    """An image whose last axis are colours, without transparency where a model knows none."""

    def __init__(self, array: Any, most: int) -> None:
        self._array, self._most = array, min(most, int(array.shape[-1]))
        self.shape, self.dtype = (*array.shape[:-1], self._most), array.dtype

    def __getitem__(self, key: tuple[slice, ...]) -> NDArray[Any]:
        return np.asarray(self._array[key])[..., : self._most]


def _channels_first(layer: Image, axes: str, channels: int) -> NDArray[Any]:
    """Return the layer's array in memory as (C, [T,] [Z,] Y, X)."""
    array = full_resolution(layer)
    if layer.rgb:
        array = np.moveaxis(array, -1, 0)[: max(channels, 3)]
        axes = "C" + axes
    order = "".join(letter for letter in "CTZYX" if letter in axes)
    array = array.transpose([axes.index(letter) for letter in order])
    return array if "C" in axes else array[None]


def result_shape(layer: Image, axes: str) -> tuple[int, ...]:
    """Return the shape of a result: the layer's without channels, in the layer's own axis order."""
    shape = full_resolution(layer).shape
    return tuple(int(n) for n, letter in zip(shape, axes, strict=False) if letter != "C")


def canvas_view(canvas: NDArray[Any], axes: str, time: int | None, *, leading: int = 0) -> NDArray[Any]:
    """Return the ([Z,] Y, X) part of a result array that belongs to one time point.

    ``leading`` axes of the canvas (probabilities have one) stay in front.
    """
    own = axes.replace("C", "")
    head = list(range(leading))
    order = "".join(letter for letter in "TZYX" if letter in own)
    view = canvas.transpose(head + [leading + own.index(letter) for letter in order])
    if "T" not in own or time is None:
        return view
    return view[(slice(None),) * leading + (time,)]


def placement_of(layer: Any) -> dict[str, Any]:
    """Return the keywords that place a layer of the same axes exactly over another."""
    return {name: getattr(layer, name) for name in _PLACEMENT}


def geometry_of(layer: Image, axes: str) -> dict[str, Any]:
    """Return the keywords that place a result exactly over its source, the channel axis dropped."""
    keep = [i for i, letter in enumerate(axes) if letter != "C"]
    picked = np.ix_(keep, keep)
    with_origin = np.ix_([*keep, layer.ndim], [*keep, layer.ndim])
    return {
        "scale": np.asarray(layer.scale)[keep],
        "translate": np.asarray(layer.translate)[keep],
        "rotate": np.asarray(layer.rotate)[picked] if np.ndim(layer.rotate) == 2 else layer.rotate,
        "shear": _shear(np.asarray(layer.shear), layer.ndim, keep),
        "affine": np.asarray(layer.affine.affine_matrix)[with_origin],
        "units": [layer.units[i] for i in keep],
        "axis_labels": [layer.axis_labels[i] for i in keep],
    }


def _shear(shear: NDArray[Any], ndim: int, keep: Sequence[int]) -> NDArray[Any]:
    if shear.ndim == 2:
        return shear[np.ix_(keep, keep)]
    full = np.zeros((ndim, ndim))
    full[np.triu_indices(ndim, 1)] = shear
    part = full[np.ix_(keep, keep)]
    return part[np.triu_indices(len(keep), 1)]


def colormap_of(scheme: LabelScheme) -> DirectLabelColormap:
    """Return fixed colours for the classes of a model."""
    return colormap_of_values(scheme.names)


def colormap_of_values(values: Iterable[int]) -> DirectLabelColormap:
    """Return fixed colours for label values; classes that somebody paints later have theirs already."""
    known = {*values, *range(1, _COLOURED)} - {0}
    colours: dict[int | None, str] = {value: class_colour(value) for value in known}
    return DirectLabelColormap(color_dict={None: class_colour(_COLOURED), 0: "transparent", **colours})


def differences_colormap() -> DirectLabelColormap:
    """Return the colours of a layer that shows what two segmentations differ by."""
    colours: dict[int | None, str] = {None: "transparent", 0: "transparent"}
    return DirectLabelColormap(color_dict=colours | DIFFERENCES)


def features_of(scheme: LabelScheme) -> dict[str, list[Any]]:
    """Return the table that puts class names into napari's status bar."""
    names = dict(sorted(scheme.names.items()))
    return {"index": list(names), "name": list(names.values())}


def format_volume(mm3: float | None) -> str:
    """Return a volume with the unit people use at that size: µm³, mm³ or mL."""
    if mm3 is None:
        return "–"
    if mm3 >= 1000:
        return f"{mm3 / 1000:,.2f} mL"
    if mm3 >= 0.1 or mm3 == 0:
        return f"{mm3:,.2f} mm³"
    return f"{mm3 * 1e9:,.1f} µm³"


@contextmanager
def pointer_away(viewer: Any) -> Iterator[None]:
    """Let napari not look what lies below the pointer: in 3-D it fails until the mouse was moved over the canvas."""
    over, viewer.mouse_over_canvas = viewer.mouse_over_canvas, False
    try:
        yield
    finally:
        viewer.mouse_over_canvas = over


def add_layer(viewer: Any, layer: Any) -> Any:
    """Add a layer to a viewer, wherever the pointer is, and return it; napari would return a wrapper of it."""
    with pointer_away(viewer):
        viewer.add_layer(layer)
    return layer


def remove_layer(viewer: Any, layer: Any) -> None:
    """Remove a layer; another one becomes the active one."""
    with pointer_away(viewer):
        viewer.layers.remove(layer)


def activate(viewer: Any, layer: Any) -> None:
    """Make a layer the active one, and select no other."""
    with pointer_away(viewer):
        viewer.layers.selection.active = layer


def units_per_world(layer: Any, dims: Any) -> NDArray[np.float64]:
    """Return how many of a layer's units one step of the sliders is, along each axis of the layer.

    napari counts in the smallest unit of all layers, and in plain numbers where units of layers do not fit together.
    """
    own = layer.units
    if dims.units is None or len(dims.units) < len(own):
        return np.ones(len(own))
    pairs = zip(dims.units[-len(own) :], own, strict=True)
    return np.array([float((1 * a).to(b).magnitude) if a.is_compatible_with(b) else 1.0 for a, b in pairs])


def seen_axes(layer: Any, dims: Any) -> list[int]:
    """Return the axes of a layer that are on the screen; the sliders move along the others."""
    offset = dims.ndim - layer.ndim
    return [axis - offset for axis in dims.order if axis >= offset][-dims.ndisplay :]


def position_in(layer: Any, dims: Any) -> list[float | None]:
    """Return which slice of a layer napari shows, in voxels along its axes; None along axes that are on the screen.

    As napari itself has it, of oblique layers too: what lies along axes on the screen does not count.
    """
    seen = seen_axes(layer, dims)
    point = np.zeros(layer.ndim)
    own = dims.point[-layer.ndim :]
    point[layer.ndim - len(own) :] = own
    point[seen] = 0
    found = layer.world_to_data(point * units_per_world(layer, dims))
    return [None if axis in seen else float(place) for axis, place in enumerate(found)]


def voxel_in(layer: Any, dims: Any) -> tuple[int | None, ...]:
    """Return the slice of a layer that is seen, as :func:`position_in`; it may lie outside of the layer."""
    return tuple(None if place is None else round(place) for place in position_in(layer, dims))


def place_seen(layer: Any, axis: int, place: float | None, what: str) -> int:
    """Return the slice or time point that is seen, along an axis of :func:`position_in`; may raise NotReadyError."""
    count = full_resolution(layer).shape[axis]
    if place is None:
        raise NotReadyError(
            f"No {what} of '{layer.name}' is the current one, as all are on the screen at once. Show it in 2-D, with "
            f"a slider for the {what}s."
        )
    if not 0 <= round(place) < count:
        raise NotReadyError(
            f"The slider stands at {what} {round(place)} of '{layer.name}', which has those from 0 to {count - 1}. "
            "Move it to one of them."
        )
    return round(place)


def focus_of(layer: Image, axes: str, dims: Any) -> tuple[float | None, ...]:
    """Return where to begin: the slice on the screen; along displayed axes nothing is preferred."""
    found = dict(zip(axes, position_in(layer, dims), strict=False))
    return tuple(found[letter] for letter in "ZYX" if letter in found)


def length_in_mm(unit: Any) -> float | None:
    """Return mm per unit; None for pixels, seconds and the like."""
    try:
        quantity = (1 * unit) if hasattr(unit, "dimensionality") else pint.get_application_registry()(str(unit))
        return float(quantity.to("mm").magnitude)
    except (pint.PintError, AttributeError, TypeError):
        return None


def class_names_of(features: Any) -> dict[int, str]:
    """Return the class names in a layer's features table, without background; empty where it has none."""
    return _by_value(features, "name")


def kinds_of_features(features: Any) -> dict[int, str]:
    """Return the kind of each object in a layer's features table; empty where it has none."""
    return _by_value(features, "kind")


def _by_value(features: Any, column: str) -> dict[int, str]:
    """Return what a features table says of label values; other tools write tables whose index is no such value."""
    if "index" not in features or column not in features:
        return {}
    found = {}
    for index, said in zip(features["index"], features[column], strict=True):
        with suppress(TypeError, ValueError, OverflowError):  # a name, nothing, infinity
            if (value := int(index)) != 0 and (isinstance(index, str) or value == index):
                found[value] = str(said)
    return found
