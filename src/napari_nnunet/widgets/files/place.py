"""Where voxels lie: from the grid of a file to a layer's placement, and from a layer back to a grid."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from napari.layers import Image, Labels
from napari.utils.notifications import show_warning
from napari.utils.transforms import Affine
from numpy.typing import NDArray

from napari_nnunet.errors import DatasetError, ImageError, NnunetError
from napari_nnunet.formats.images.files import read_labels, write_labels
from napari_nnunet.formats.results.noted import nifti_reader
from napari_nnunet.grid import Grid, Same, relation
from napari_nnunet.schema.geometry import Geometry
from napari_nnunet.widgets.frame.layers import length_in_mm, placement_of
from napari_nnunet.widgets.frame.words import as_text

#: Metadata key of the grid that a layer's file had.
STORED = "nnunet_geometry"
#: Voxels, keywords and kind of a layer, as napari's readers return them.
LayerData = tuple[Any, dict[str, Any], str]
#: Endings of pictures and stacks that napari leaves to us: it opens other ones itself, without classes and place.
KEPT = (".nnunet.tif", ".nnunet.png")
_UPRIGHT = 1e-6  # of a direction's entries
_SHEARED = 1e-4  # cosine of the angle between two axes
_TIME = ("t", "time", "frame", "frames")
#: Names of the world's axes z, y, x on layers that show them in another order (see :func:`placement`).
ACROSS = ("up-down", "front-back", "left-right")
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def placement(geometry: Geometry) -> dict[str, Any]:
    """Return the keywords that place a layer on a grid; a direction that is not upright becomes the layer's affine.

    napari cannot show slices of a volume whose array runs along the world's axes in another order, such as sagittal
    ones: what it would have to draw has no inverse. Such a layer gets the world's axes in the order of its array, and
    their names say so (:data:`ACROSS`), which :func:`grid_of` understands: it lies right over layers that were stored
    in the same order, and whatever is saved or computed goes by the real place.
    """
    ndim = geometry.ndim
    place: dict[str, Any] = {
        "scale": geometry.spacing,
        "units": ["mm" if geometry.spacing_known else "pixel"] * ndim,
        "axis_labels": list("zyx")[-ndim:],
        "metadata": {STORED: geometry.model_dump()},
    }
    matrix = Grid((1,) * ndim, geometry).matrix
    if matrix is None:
        return place
    ordered = matrix[[*range(ndim - 1, -1, -1), ndim]]  # rows from ITK's x, y, z to the array's z, y, x
    turned = ordered[:ndim, :ndim] / np.asarray(geometry.spacing)
    origin = ordered[:ndim, ndim]
    order = list(_along(turned))
    if order != list(range(ndim)):
        place["axis_labels"] = [ACROSS[axis] for axis in order]
        turned, origin = turned[order], origin[order]
    if np.allclose(turned, np.eye(ndim), atol=_UPRIGHT):
        return place | {"translate": tuple(float(v) for v in origin)}
    affine = np.eye(ndim + 1)
    affine[:ndim, :ndim], affine[:ndim, ndim] = turned, origin
    return place | {"affine": affine}


def _along(direction: NDArray[Any]) -> tuple[int, ...]:
    """Return along which axis of the world each axis of an array runs, but for what is oblique; as it is in 2-D."""
    ndim = len(direction)
    if ndim != len(ACROSS):
        return tuple(range(ndim))
    orders = itertools.permutations(range(ndim))
    return max(orders, key=lambda order: round(sum(abs(direction[axis, i]) for i, axis in enumerate(order)), 6))


def shown_order(attributes: Mapping[str, Any]) -> tuple[int, ...] | None:
    """Return which axes of the world (z, y, x) a layer shows, where that is another order than usual; else None."""
    names = [str(name) for name in attributes.get("axis_labels", ())][-len(ACROSS) :]
    return tuple(ACROSS.index(name) for name in names) if sorted(names) == sorted(ACROSS) else None


def is_unnamed(attributes: Mapping[str, Any]) -> bool:
    """Whether the axes of a layer have no names but napari's own ("-3", "-2", "-1"), as if made in a window."""
    names = [str(name) for name in attributes.get("axis_labels", ())]
    return names == [str(axis) for axis in range(-len(names), 0)]


def time_of(attributes: Mapping[str, Any], axes: str) -> tuple[float, float, str]:
    """Return when the first time point of a layer is, how far two lie apart, and the unit of both.

    Parameters
    ----------
    attributes : mapping
        napari's description of the layer.
    axes : str
        A letter for each axis; one is T.
    """
    ndim, axis = len(axes), axes.index("T")
    own = {name: attributes[name] for name in ("scale", "translate", "rotate", "shear") if name in attributes}
    world = np.asarray(attributes.get("affine", np.eye(ndim + 1)), dtype=float) @ Affine(ndim=ndim, **own).affine_matrix
    return float(world[axis, ndim]), float(world[axis, axis]), str(attributes.get("units", ["pixel"] * ndim)[axis])


def with_time(place: Mapping[str, Any], step: float, unit: str, start: float = 0.0) -> dict[str, Any]:
    """Return the keywords that place a time series of images that lie on a grid, time first."""
    ndim = len(place["scale"])
    series: dict[str, Any] = {
        "scale": (step, *place["scale"]),
        "units": [unit, *place["units"]],
        "axis_labels": ["t", *place["axis_labels"]],
    }
    if "affine" not in place:
        series["translate"] = (start, *place.get("translate", (0.0,) * ndim))
    else:
        affine = np.eye(ndim + 2)
        affine[0, -1] = start
        affine[1:, 1:] = place["affine"]
        series["affine"] = affine
    return series


@contextmanager
def in_window_words() -> Iterator[None]:
    """Let errors say what to do in a window; napari shows what readers and writers raise as it is."""
    try:
        yield
    except NnunetError as error:
        raise type(error)(error.in_window) from error


def tell_remarks(path: Path, remarks: Sequence[str]) -> None:
    """Say what was changed or left out while a file was read."""
    if remarks:
        show_warning(as_text(f"{path.name}: {'; '.join(text.rstrip('.') for text in remarks)}."))


def axes_of(ndim: int, attributes: Mapping[str, Any]) -> str:
    """Return what the axes of a Labels layer are: "YX", "ZYX", "TYX" or another order with T.

    Raises
    ------
    DatasetError
        If there are axes that label files do not have.
    """
    named = [str(label).lower() in _TIME for label in attributes.get("axis_labels", [""] * ndim)]
    time = next((axis for axis, is_time in enumerate(named) if is_time), 0 if ndim == 4 else None)
    space = "ZYX"[-(ndim - (time is not None)) :]
    if not 2 <= ndim <= 4 or len(space) < 2 or (time is None and ndim > 3):
        raise DatasetError(
            f"Labels with {ndim} axes cannot be saved: a file holds pictures and volumes, and time series of them. "
            "Save a part of the layer."
        )
    return space if time is None else space[:time] + "T" + space[time:]


def grid_of(shape: Sequence[int], attributes: Mapping[str, Any], axes: str) -> Grid:
    """Return the grid of a layer's spatial axes, in mm; a shear is kept in the directions.

    Parameters
    ----------
    shape : sequence of int
        Of the layer's array, all axes.
    attributes : mapping
        napari's description of the layer: scale, translate, rotate, shear, affine, units.
    axes : str
        A letter for each axis; those that are Z, Y or X are taken, in this order.

    Raises
    ------
    ImageError
        If space depends on another axis, such as frames that drift: files have no room for that.
    """
    ndim = len(shape)
    picked = sorted((i for i, letter in enumerate(axes) if letter in "ZYX"), key=lambda i: "ZYX".index(axes[i]))
    others = [i for i in range(ndim) if i not in picked]
    own = {name: attributes[name] for name in ("scale", "translate", "rotate", "shear") if name in attributes}
    inner = Affine(ndim=ndim, **own).affine_matrix
    world = np.asarray(attributes.get("affine", np.eye(ndim + 1)), dtype=float) @ inner
    if np.any(np.abs(world[np.ix_(picked, others)]) > _UPRIGHT):
        raise ImageError("The place of this layer changes along an axis that is not a spatial one.")
    lengths = [length_in_mm(unit) for unit in attributes.get("units", ["pixel"] * ndim)]
    known = all(lengths[i] is not None for i in picked)
    factor = np.array([lengths[i] if known else 1.0 for i in picked], dtype=float)
    linear = factor[:, None] * world[np.ix_(picked, picked)]
    origin = factor * world[picked, ndim]
    order = shown_order(attributes)
    if order is not None and len(picked) == len(order):
        back = np.argsort(order)
        linear, origin = linear[back], origin[back]
    spacing = np.linalg.norm(linear, axis=0)
    direction = (linear / spacing)[::-1, ::-1]
    geometry = Geometry(
        spacing=tuple(float(s) for s in spacing),
        origin=tuple(float(v) for v in origin[::-1]),
        direction=tuple(float(v) for v in direction.ravel()),
        spacing_known=known,
    )
    return Grid(tuple(int(shape[i]) for i in picked), geometry)


def geometry_to_save(shape: Sequence[int], attributes: Mapping[str, Any], axes: str) -> Geometry:
    """Return the grid to save a layer on: that of the file it came from, unless it was moved since.

    Parameters
    ----------
    shape, attributes, axes
        As for :func:`grid_of`.
    """
    kept = attributes.get("metadata", {}).get(STORED)
    if not kept:
        return grid_of(shape, attributes, axes).geometry
    stored = Geometry.model_validate(kept)
    place = placement(stored)
    if shown_order(place) is not None and is_unnamed(attributes):  # whoever copied a place may have left its names out
        attributes = {**attributes, "axis_labels": [*([""] * (len(shape) - stored.ndim)), *place["axis_labels"]]}
    now = grid_of(shape, attributes, axes)
    if stored.ndim != len(now.shape):
        return now.geometry
    if shown_order(place) is not None and shown_order(attributes) is None:  # somebody gave the axes other names
        place = {name: value for name, value in place.items() if name != "axis_labels"}
    before = grid_of(now.shape, place, "ZYX"[-stored.ndim :])
    same = stored.spacing_known == now.geometry.spacing_known and isinstance(relation(now, before), Same)
    return stored if same else now.geometry


def for_format(geometry: Geometry, shape: Sequence[int], ending: str) -> Geometry:
    """Return a grid as files of an ending hold it; those that are told by a note alone hold any.

    Parameters
    ----------
    geometry : Geometry
        The grid.
    shape : sequence of int
        Of the spatial axes.
    ending : str
        Such as ".nii.gz".

    Raises
    ------
    ImageError
        If what would be read from such a file lies elsewhere.
    """
    grid = Grid(tuple(shape), geometry)
    if _is_sheared(geometry) and ending in (".nii", ".nii.gz") and grid.matrix is not None and geometry.ndim == 3:
        affine = (_LPS_TO_RAS @ grid.matrix)[:, [2, 1, 0, 3]]
        geometry = Geometry(spacing=geometry.spacing, affine=tuple(tuple(map(float, row)) for row in affine))
    with tempfile.TemporaryDirectory() as folder:
        trial = Path(folder) / f"trial{ending}"
        write_labels(np.zeros((2,) * geometry.ndim, np.uint8), geometry, trial)
        _, read = read_labels(trial, reader=nifti_reader(trial))
    found = relation(grid, Grid(grid.shape, read))
    if read.origin is None and read.affine is None:
        return geometry
    if not isinstance(found, Same):
        raise ImageError(
            f"{ending} cannot hold where these voxels lie ({found}). Save as .nrrd, or move the layer first."
        )
    return geometry


def _is_sheared(geometry: Geometry) -> bool:
    if geometry.direction is None:
        return False
    n = geometry.ndim
    axes: NDArray[Any] = np.reshape(geometry.direction, (n, n))
    return bool(np.any(np.abs(axes.T @ axes - np.eye(n)) > _SHEARED))


def place_key(layer: Image | Labels) -> str:
    """Return where a layer lies, the same for layers in the same place."""
    return in_digits(placement_of(layer), 9)


def in_digits(value: Any, digits: int) -> str:
    """Return a value as words, without what computing adds to its numbers."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name}: {in_digits(part, digits)}" for name, part in value.items())
    if isinstance(value, Affine):
        return in_digits(value.affine_matrix, digits)
    if isinstance(value, list | tuple | np.ndarray):
        return f"({', '.join(in_digits(part, digits) for part in value)})"
    return f"{value + 0.0:.{digits}g}" if isinstance(value, float) else str(value)
