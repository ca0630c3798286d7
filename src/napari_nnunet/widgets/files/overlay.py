"""Do two layers lie over each other? If not, one can be laid over the other, as a layer of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import napari
import pint
from napari.layers import Image, Labels
from napari.utils.notifications import show_warning

from napari_nnunet.errors import NnunetError
from napari_nnunet.grid import TOLERANCE, Apart, Grid, Same, Turned, relation
from napari_nnunet.widgets.files.place import STORED, grid_of, is_unnamed, shown_order, time_of
from napari_nnunet.widgets.frame.layers import (
    FOLLOWED,
    KIND,
    ORIGIN,
    SPARSE,
    VALUES,
    add_layer,
    full_resolution,
    length_in_mm,
    placement_of,
)
from napari_nnunet.widgets.frame.panel import RunPanel
from napari_nnunet.widgets.frame.ready import NotReadyError, Remedy
from napari_nnunet.widgets.frame.worker import lazy

if TYPE_CHECKING:
    from napari_nnunet.jobs.lay_over import lay_over
else:
    lay_over = lazy("napari_nnunet.jobs.lay_over:lay_over")


class ApartError(NotReadyError):
    """Two layers do not lie over each other.

    Parameters
    ----------
    reason : str
        With both names.
    first, other : Layer
        The layers.
    axes : str
        Of both.
    mendable : bool
        Whether they show the same place, so that one can be resampled to the other.
    units : bool
        Whether the units of both were looked at (see :func:`require_over`).
    """

    def __init__(self, reason: str, first: Any, other: Any, axes: str, *, mendable: bool, units: bool = True) -> None:
        super().__init__(reason)
        self.first, self.other, self.axes, self.mendable, self.units = first, other, axes, mendable, units


def grid_of_layer(layer: Any, axes: str, *, as_shown: bool = False) -> Grid:
    """Return where the spatial axes of a layer lie, in mm; pixels count as mm. ``as_shown``: where they are seen."""
    place = placement_of(layer)
    if as_shown:
        del place["axis_labels"]
    try:
        return grid_of(full_resolution(layer).shape[: layer.ndim], place, axes)
    except NnunetError as error:
        raise NotReadyError(f"'{layer.name}': {error.in_window}") from error


def _grids(first: Any, other: Any, axes: str, *, units: bool) -> tuple[Grid, Grid]:
    """Return where two layers lie.

    As they are shown, where one without names of its axes has just the voxels of one that is shown in another order
    than the world's: it was made over it. If it has not, nobody knows whether it was, or came from elsewhere.

    Raises
    ------
    ApartError
        If the axes of one have no names, and nothing else tells how it lies.
    """
    as_shown, real = (_both(first, other, axes, as_shown=seen, units=units) for seen in (True, False))
    places = [placement_of(layer) for layer in (first, other)]
    if not any(map(is_unnamed, places)) or all(shown_order(place) is None for place in places):
        return real
    if isinstance(relation(*as_shown), Same | Turned):
        return as_shown
    if isinstance(relation(*real), Same | Turned):
        return real
    unnamed, named = (first, other) if is_unnamed(places[0]) else (other, first)
    raise ApartError(
        f"'{unnamed.name}' does not say what its axes are, and '{named.name}' is stored in another orientation than "
        "the world's axes, so it is not known whether they lie over each other. Open it from its file, or "
        "make it while "
        f"'{named.name}' alone is selected.",
        first,
        other,
        axes,
        mendable=False,
        units=units,
    )


def _both(first: Any, other: Any, axes: str, *, as_shown: bool, units: bool) -> tuple[Grid, Grid]:
    one, two = (grid_of_layer(layer, axes, as_shown=as_shown) for layer in (first, other))
    if units or one.geometry.spacing_known == two.geometry.spacing_known:
        return one, two
    one, two = (replace(g, geometry=g.geometry.model_copy(update={"spacing_known": True})) for g in (one, two))
    return one, two


def named_as_open(
    attributes: Mapping[str, Any], shape: Sequence[int], axes: str, *, warn: Callable[[str], object] | None = None
) -> Mapping[str, Any]:
    """Return the description of a layer that was made in the window with the names of axes of what it lies over.

    Those of the layer on the same voxels. Where there is none, those of all volumes that are open, if all have the same
    ones; a volume of another plugin may lie anywhere, and a warning (by ``warn``, else napari's) says what is assumed.
    """
    viewer = napari.current_viewer()
    if viewer is None or axes != "ZYX" or not is_unnamed(attributes) or attributes.get("metadata", {}).get(STORED):
        return attributes
    volumes = [layer for layer in viewer.layers if isinstance(layer, Image | Labels) and layer.ndim == len(axes)]
    named = [layer for layer in volumes if not is_unnamed(placement_of(layer))]
    own = grid_of(shape, attributes, axes)
    over = [layer for layer in named if isinstance(relation(grid_of_layer(layer, axes, as_shown=True), own), Same)]
    orders = {tuple(map(str, layer.axis_labels)) for layer in over or named}
    unknown = [layer for layer in volumes if isinstance(layer, Image) and layer not in named]
    if len(orders) == 1 and (over or not unknown):
        return {**attributes, "axis_labels": orders.pop()}
    if any(shown_order(placement_of(layer)) is not None for layer in named):
        (warn or show_warning)(
            f"'{attributes.get('name', 'The layer')}' does not say what its axes are, and lies on the voxels of no "
            "volume that does. It is saved as if they were z, y, x."
        )
    return attributes


def require_over(first: Any, other: Any, axes: str, *, units: bool = True) -> None:
    """Check that two layers of the same axes have the same voxels in the same places.

    Parameters
    ----------
    first, other : Layer
        The layers.
    axes : str
        A letter for each axis of both.
    units : bool
        Whether it counts that one is in pixels and the other one is not; else the numbers are compared, as napari
        draws them.

    Raises
    ------
    ApartError
        If they have not; says in what.
    NotReadyError
        If that cannot be told: one is in pixels and the other one is not.
    """
    _require_times(first, other, axes)
    one, two = _grids(first, other, axes, units=units)
    if one.geometry.spacing_known != two.geometry.spacing_known:
        pixels, sized = (other, first) if one.geometry.spacing_known else (first, other)
        raise NotReadyError(
            f"'{pixels.name}' is in pixels and '{sized.name}' has a voxel size, so it is not known whether they lie "
            "over each other. Give both the same units and scale."
        )
    match relation(one, two):
        case Same():
            return
        case Turned() as turned:
            reason = f"'{other.name}' has the voxels of '{first.name}' in another orientation: {turned}."
            raise ApartError(reason, first, other, axes, mendable=True, units=units)
        case Apart() as apart:
            how, mendable = str(apart), not apart.elsewhere
    if not mendable:
        how = f"show different places: {how}"
        reason = f"'{first.name}' and '{other.name}' {how}. Choose layers of the same place, or move one."
    else:
        reason = f"'{first.name}' and '{other.name}' do not lie over each other: {how}."
    raise ApartError(reason, first, other, axes, mendable=mendable, units=units)


def _require_times(first: Any, other: Any, axes: str) -> None:
    """Check that the time points of two series are at the same times; without common units, the numbers are."""
    if "T" not in axes:
        return
    (start, step, unit), (start_2, step_2, unit_2) = (time_of(placement_of(layer), axes) for layer in (first, other))
    factor = _per(unit_2, unit)
    last = max(full_resolution(first).shape[axes.index("T")] - 1, 0)
    moved = [abs(start_2 * factor - start), abs((start_2 + last * step_2) * factor - (start + last * step))]
    if max(moved) <= TOLERANCE * abs(step):
        return
    raise ApartError(
        f"'{first.name}' and '{other.name}' show different times: every {step:g} {unit} from {start:g} on, and every "
        f"{step_2:g} {unit_2} from {start_2:g} on. Give both the same scale, translate and units along time.",
        first,
        other,
        axes,
        mendable=False,
    )


def in_units_of(first: Any, other: Any, sizes: Sequence[float]) -> tuple[float, ...]:
    """Return voxel sizes of another layer with its times in the units of the first; lengths stay as they are."""
    return tuple(
        size if length_in_mm(theirs) is not None else size * _per(str(theirs), str(own))
        for own, theirs, size in zip(first.units, other.units, sizes, strict=True)
    )


def _per(unit: str, other: str) -> float:
    """Return how much of another unit a unit is; 1 where the two cannot be compared, such as pixels and seconds."""
    try:
        return float(pint.get_application_registry()(unit).to(other).magnitude)
    except (pint.PintError, AttributeError):
        return 1.0


def with_remedy(
    error: ApartError, viewer: napari.viewer.Viewer, panel: RunPanel, laid: Callable[[Any, Any], object]
) -> NotReadyError:
    """Return the error with a button that lays the second layer over the first.

    Parameters
    ----------
    error : ApartError
        What was found.
    viewer : napari.viewer.Viewer
        Where the new layer is added.
    panel : RunPanel
        Which runs the job.
    laid : callable
        Given the layer that was moved and the new one, to choose it instead.
    """
    if not error.mendable:
        return error
    first, other, axes = error.first, error.other, error.axes
    target, own = _grids(first, other, axes, units=error.units)

    def done(array: Any) -> str:
        kind = Labels if isinstance(other, Labels) else type(other)
        shown = {"colormap": other.colormap} if kind is Labels else {"contrast_limits": other.contrast_limits}
        if kind is Labels:
            shown["features"] = other.features
        shown["metadata"] = {
            key: other.metadata[key] for key in (ORIGIN, KIND, SPARSE, VALUES, FOLLOWED) if key in other.metadata
        }
        layer = kind(array, name=f"{other.name} over {first.name}", **shown, **placement_of(first))
        add_layer(viewer, layer)
        laid(other, layer)
        return f"'{layer.name}' was added: '{other.name}' on the voxels of '{first.name}'."

    def act() -> None:
        job = lay_over(full_resolution(other), axes, own, target, labels=isinstance(other, Labels))
        panel.run(job, done=done)

    return NotReadyError(str(error), Remedy(f"Lay '{other.name}' over '{first.name}'", act))
