"""The view goes to an object."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from napari.layers import Labels

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
    world = layer.data_to_world(place)
    offset = viewer.dims.ndim - layer.ndim
    shown = [axis for axis in viewer.dims.displayed if axis >= offset]
    for axis in range(layer.ndim):
        if axis + offset not in shown:
            viewer.dims.set_point(axis + offset, world[axis])
    low, high = layer.corner_pixels
    seen = all(low[axis - offset] <= place[axis - offset] <= high[axis - offset] for axis in shown)
    if closer or not seen:
        viewer.scene.camera.center = tuple(world[axis - offset] for axis in shown)
    if closer:
        step = max(layer.scale[axis - offset] for axis in shown)
        viewer.scene.camera.zoom = max(viewer.scene.camera.zoom, _CLOSE / step)
