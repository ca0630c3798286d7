"""The view goes to a voxel, an object or a slice: sliders, and the camera."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Labels

from napari_nnunet.widgets.frame.layers import full_resolution, seen_axes, units_per_world

if TYPE_CHECKING:
    import napari

_CLOSE = 2.0  # pixels of the screen per voxel, at least, when looking at an object


def go_to(viewer: napari.viewer.Viewer, layer: Labels, place: Sequence[float], *, closer: bool = True) -> None:
    """Show a voxel of a layer in the middle of the view.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
        With the layer.
    layer : Labels
        Of which the voxel is.
    place : sequence of float
        The voxel, with all axes of the layer.
    closer : bool
        Whether the view also comes close to it. Otherwise it moves only where the voxel is out of sight.
    """
    shown, scale = seen_axes(layer, viewer.dims), units_per_world(layer, viewer.dims)
    show_voxel(viewer, layer, place)
    low, high = layer.corner_pixels
    known = np.all(scale == 1)  # napari counts the corners in plain numbers
    seen = known and all(low[axis] <= place[axis] <= high[axis] for axis in shown)
    if closer or not seen:
        viewer.scene.camera.center = on_screen(layer, place, viewer.dims)
    if closer:
        step = max(layer.scale[axis] / scale[axis] for axis in shown)
        viewer.scene.camera.zoom = max(viewer.scene.camera.zoom, _CLOSE / step)


def on_screen(layer: Any, place: Sequence[float], dims: Any) -> tuple[float, ...]:
    """Return where napari draws a voxel of a layer, for the camera: along the axes that are on the screen."""
    seen = seen_axes(layer, dims)
    inner = [part if axis in seen else 0.0 for axis, part in enumerate(place)]
    world = np.asarray(layer.data_to_world(inner)) / units_per_world(layer, dims)
    return tuple(float(world[axis]) for axis in seen)


def show_voxel(viewer: Any, layer: Any, place: Sequence[float]) -> None:
    """Set the sliders so that the slice of a layer with a voxel is seen; :func:`position_in`, backwards."""
    dims, n = viewer.dims, layer.ndim
    hidden = [axis for axis in range(n) if axis not in seen_axes(layer, dims)]
    if not hidden:
        return
    start = np.asarray(layer.world_to_data(np.zeros(n)))
    steps = np.array([np.asarray(layer.world_to_data(row)) - start for row in np.eye(n)]).T
    steps = (steps * units_per_world(layer, dims))[np.ix_(hidden, hidden)]
    point, *_ = np.linalg.lstsq(steps, (np.asarray(place, dtype=float) - start)[hidden], rcond=None)
    dims.set_point([axis + dims.ndim - n for axis in hidden], [float(value) for value in point])


def show_fullest_slice(viewer: Any, layer: Any) -> None:
    """Set the sliders to the slice of a Labels layer that holds the most, along each axis without the others."""
    data = np.asarray(full_resolution(layer))
    place = [0] * layer.ndim
    for axis in set(range(layer.ndim)) - set(seen_axes(layer, viewer.dims)):
        others = tuple(other for other in range(layer.ndim) if other != axis)
        place[axis] = int(np.argmax(np.count_nonzero(data, axis=others)))
    if data.any():
        show_voxel(viewer, layer, place)
