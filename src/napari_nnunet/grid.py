"""Do two images lie on the same grid? One answer, for everyone who asks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from napari_nnunet.errors import ImageError
from napari_nnunet.schema.geometry import Geometry

#: How far, in voxels, corners of two grids may lie apart that count as the same: NIfTI stores float32, so the far
#: corner of 1000 voxels moves by less than this when an image is written and read.
TOLERANCE = 1e-3
#: How far, in voxels, corners may lie apart where labels are compared voxel by voxel: some tools round headers.
CLOSE = 0.1
#: What is done with channels, or with labels and their image, that lie apart: an error; the channel is resampled onto
#: the first one's grid (labels never are); or they are taken voxel by voxel, whatever their headers say.
WhenApart = Literal["refuse", "resample", "ignore"]
_OVERLAP = 0.05  # of the smaller box: with less in common, two images show different things


@dataclass(frozen=True)
class Grid:
    """Voxels in the world.

    Parameters
    ----------
    shape : tuple of int
        ``([Z,] Y, X)``.
    geometry : Geometry
        Size and place of the voxels.
    """

    shape: tuple[int, ...]
    geometry: Geometry

    @property
    def matrix(self) -> NDArray[Any] | None:
        """From indices in array order, with a 1 behind, to mm in ITK's order (LPS); None if the place is unknown."""
        geometry, n = self.geometry, len(self.shape)
        affine = geometry.reoriented_affine or geometry.affine
        if affine is not None and n == 3:
            full = np.diag([-1.0, -1.0, 1.0, 1.0]) @ np.asarray(affine)  # NIfTI's RAS
        elif geometry.origin is not None and geometry.direction is not None and len(geometry.origin) == n:
            full = np.eye(n + 1)
            full[:n, :n] = np.reshape(geometry.direction, (n, n)) * np.asarray(geometry.spacing[::-1])
            full[:n, n] = geometry.origin
        else:
            return None
        ordered: NDArray[Any] = full[:, [*range(n - 1, -1, -1), n]]
        return ordered


@dataclass(frozen=True)
class Same:
    """The grids agree, or at least one says nothing of its place and the sizes agree."""


@dataclass(frozen=True)
class Turned:
    """The same voxels in another order.

    Parameters
    ----------
    axes : tuple of int
        ``np.transpose(second, axes)`` has the first one's axes ...
    flips : tuple of bool
        ... of which these run the other way.
    """

    axes: tuple[int, ...]
    flips: tuple[bool, ...]

    def turn(self, second: NDArray[Any]) -> NDArray[Any]:
        """Return the second image on the first one's grid; exact, nothing is interpolated."""
        turned = np.transpose(second, self.axes)
        return np.flip(turned, tuple(axis for axis, flipped in enumerate(self.flips) if flipped))

    def __str__(self) -> str:
        parts = []
        if self.axes != tuple(range(len(self.axes))):
            parts.append("its axes are swapped")
        if any(self.flips):
            letters = "zyx"[-len(self.flips) :]
            parts.append(f"mirrored along {' and '.join(letters[i] for i, flip in enumerate(self.flips) if flip)}")
        return " and ".join(parts)


@dataclass(frozen=True)
class Apart:
    """Other voxels.

    Parameters
    ----------
    how : str
        A phrase: what differs, with both values.
    elsewhere : bool
        Whether the images have next to nothing in common; otherwise one can be resampled to the other.
    voxels : float
        How far corners lie apart at most, in voxels of the first.
    """

    how: str
    elsewhere: bool
    voxels: float

    def __str__(self) -> str:
        return self.how


Relation = Same | Turned | Apart


def relation(first: Grid, second: Grid, *, tolerance: float = TOLERANCE) -> Relation:
    """Compare two grids.

    Parameters
    ----------
    first, second : Grid
        With the same number of axes.
    tolerance : float
        In voxels of the first grid, for each corner.

    Returns
    -------
    Same, Turned or Apart
        Grids of files that know no place (pictures), or no size beside one that does, are compared by shape, and by
        spacing if both know it. Where a NIfTI header has two transforms that disagree, readers choose differently
        among them, and programs that draw masks as well; what is the same by either is the same.
    """
    found = _relation(first, second, tolerance)
    if isinstance(found, Same) or (first.geometry.other_affine or second.geometry.other_affine) is None:
        return found
    pairs = product(_readings(first), _readings(second))
    return Same() if any(isinstance(_relation(a, b, tolerance), Same) for a, b in pairs) else found


def _readings(grid: Grid) -> tuple[Grid, ...]:
    """Return a grid by each of the transforms that its header has."""
    other = grid.geometry.other_affine
    if other is None or len(grid.shape) != 3:
        return (grid,)
    changes = {"affine": other, "reoriented_affine": None, "other_affine": None}
    return grid, Grid(grid.shape, grid.geometry.model_copy(update=changes))


def _relation(first: Grid, second: Grid, tolerance: float) -> Relation:
    if len(first.shape) != len(second.shape):
        return Apart(f"{len(first.shape)} axes and {len(second.shape)}", elsewhere=True, voxels=np.inf)
    a, b = first.matrix, second.matrix
    if a is None or b is None or first.geometry.spacing_known != second.geometry.spacing_known:
        return _by_size(first, second, tolerance)
    between = np.linalg.solve(a, b)  # from indices of the second to indices of the first
    n = len(first.shape)
    axes = tuple(int(np.argmax(np.abs(row[:n]))) for row in between[:n])
    if sorted(axes) == list(range(n)):
        shape = tuple(second.shape[axis] for axis in axes)
        flips = tuple(bool(between[i, axis] < 0) for i, axis in enumerate(axes))
        moved = _moved(between, second.shape, axes, flips)
        if shape == first.shape and moved <= tolerance:
            return Same() if axes == tuple(range(n)) and not any(flips) else Turned(axes, flips)
    else:
        moved = np.inf
    return Apart(_difference(first, second), elsewhere=_overlap(first, second, a, b) < _OVERLAP, voxels=moved)


def onto(array: NDArray[Any], second: Geometry, first: Grid, *, what: str, apart: WhenApart = "refuse") -> NDArray[Any]:
    """Return an image on another one's grid, if it has the same voxels.

    Parameters
    ----------
    array : ndarray, shape ([Z,] Y, X)
        The image; turned where its voxels are stored in another orientation.
    second : Geometry
        Of the image.
    first : Grid
        Where it should lie.
    what : str
        How an error begins: which image is compared with which.
    apart : {"refuse", "resample", "ignore"}
        With "ignore" an image of the other's shape is returned as it is.

    Raises
    ------
    ImageError
        If the grids differ by more than a tenth of a voxel; says in what.
    """
    if apart == "ignore" and array.shape == first.shape:
        return array
    found = relation(first, Grid(array.shape, second))
    if isinstance(found, Turned):
        return found.turn(array)
    if isinstance(found, Apart) and not same_voxels(found, first, Grid(array.shape, second)):
        place = "show different places" if found.elsewhere else "do not lie on the same grid"
        raise ImageError(f"{what} {place}: {found}.")
    return array


def channels_together(
    arrays: Sequence[Any], grids: Sequence[Grid], names: Sequence[str], *, apart: WhenApart = "refuse"
) -> tuple[list[Any], tuple[str, ...]]:
    """Bring all channels of a case onto the grid of the first one.

    Parameters
    ----------
    arrays : sequence of array-like, shape (C, [Z,] Y, X)
        The channels; numpy's or dask's. Those that lie on the first one's grid are returned as they are, those that are
        stored in another orientation as turned views.
    grids : sequence of Grid
        Where each lies.
    names : sequence of str
        What each is called: file or layer.
    apart : {"refuse", "resample", "ignore"}
        What is done with a channel that has other voxels.

    Returns
    -------
    tuple of (list of array-like, tuple of str)
        And a sentence for every channel that was turned or resampled.

    Raises
    ------
    ImageError
        If a channel has other voxels and ``apart`` does not help: nothing in common, another shape, no known place.
    """
    out, notes = [arrays[0]], []
    for array, grid, name in zip(arrays[1:], grids[1:], names[1:], strict=True):
        found = relation(grids[0], grid)
        if same_voxels(found, grids[0], grid) or (apart == "ignore" and grid.shape == grids[0].shape):
            out.append(array)
        elif isinstance(found, Turned):
            out.append(_turned(array, found))
            notes.append(
                f"{name} is stored in another orientation than {names[0]} ({found}); it was reoriented onto that grid."
            )
        elif isinstance(found, Apart) and apart == "resample" and _can_be_resampled(found, grids[0], grid):
            moved, outside = resampled(np.asarray(array), grid, grids[0])
            out.append(moved)
            beyond = f"; {outside:.0%} of it lies outside of {name} and got its lowest value" if outside else ""
            notes.append(f"{name} was resampled onto the grid of {names[0]} ({found}){beyond}.")
        else:
            raise _channel_error(name, names[0], found, grids[0], grid)
    return out, tuple(notes)


def same_voxels(found: Relation, first: Grid, second: Grid) -> bool:
    """Whether voxels can be taken for each other: the grids agree up to what tools lose when they round headers."""
    close = isinstance(found, Apart) and found.voxels <= CLOSE and first.shape == second.shape
    return close or isinstance(found, Same)


def _turned(array: Any, found: Turned) -> Any:
    """Return channels (C, [Z,] Y, X) on the first grid."""
    turned = np.transpose(array, (0, *(axis + 1 for axis in found.axes)))
    return np.flip(turned, tuple(axis + 1 for axis, flipped in enumerate(found.flips) if flipped))


def _can_be_resampled(found: Apart, first: Grid, second: Grid) -> bool:
    return not found.elsewhere and first.matrix is not None and second.matrix is not None


def _channel_error(name: str, first: str, found: Relation, grid: Grid, other: Grid) -> ImageError:
    alike = grid.shape == other.shape
    by_voxel = "Where the headers are wrong, join them voxel by voxel (--ignore_geometry)." if alike else ""
    if isinstance(found, Apart) and found.elsewhere:
        text = f"{name} and {first}, channels of one case, show different places: {found}. Do they belong together?"
        return ImageError(text, shell=by_voxel)
    text = f"{name} does not lie on the grid of {first}, but is a channel of the same case: {found}."
    if isinstance(found, Apart) and _can_be_resampled(found, grid, other):
        return ImageError(
            text,
            shell=f"Have it resampled (--resample_channels). {by_voxel}".strip(),
            window="Resample it first, or have it done from a shell (--resample_channels).",
        )
    return ImageError(f"{text} Resample it first.", shell=by_voxel)


def resampled(array: NDArray[Any], second: Grid, first: Grid) -> tuple[NDArray[Any], float]:
    """Interpolate channels linearly on another grid.

    Parameters
    ----------
    array : ndarray, shape (C, [Z,] Y, X)
        On ``second``.
    second, first : Grid
        Where it lies and where it is wanted; both know their place.

    Returns
    -------
    tuple of (ndarray of float32, float)
        What lies outside of it gets the lowest value of its channel; and which share of the result that is.
    """
    from scipy.ndimage import affine_transform  # rare

    a, b = first.matrix, second.matrix
    if a is None or b is None:
        raise ImageError("An image that does not say where it lies cannot be resampled.")
    between = np.linalg.solve(b, a)  # from indices of the first to indices of the second
    n = len(first.shape)
    how: dict[str, Any] = {"output_shape": first.shape, "order": 1, "mode": "constant"}
    matrix, offset = between[:n, :n], between[:n, n]
    # Half a voxel around belongs to an image, too: there the outermost value counts.
    padded = np.pad(array.astype(np.float32), [(0, 0), *[(1, 1)] * n], mode="edge")
    parts = [affine_transform(channel, matrix, offset + 1, cval=float(channel.min()), **how) for channel in padded]
    inside = affine_transform(np.pad(np.ones(second.shape, np.float32), 1), matrix, offset + 1, cval=0.0, **how) >= 0.5
    for part, channel in zip(parts, padded, strict=True):
        part[~inside] = channel.min()
    return np.stack(parts), 1 - float(inside.mean())


def _by_size(first: Grid, second: Grid, tolerance: float) -> Relation:
    known = first.geometry.spacing_known and second.geometry.spacing_known
    ratio = np.divide(second.geometry.spacing, first.geometry.spacing)
    moved = float(np.max(np.abs(ratio - 1) * first.shape)) if known else 0.0
    if first.shape == second.shape and moved <= tolerance:
        return Same()
    return Apart(_difference(first, second), elsewhere=False, voxels=moved)


def _corners(shape: tuple[int, ...]) -> NDArray[Any]:
    """Return the indices of the outermost voxels, with a 1 behind, as columns."""
    return np.array([(*corner, 1) for corner in product(*((0, n - 1) for n in shape))], dtype=float).T


def _moved(between: NDArray[Any], shape: tuple[int, ...], axes: tuple[int, ...], flips: tuple[bool, ...]) -> float:
    """Return how far corners of the second grid, turned, lie from those of the first, in voxels."""
    corners = _corners(shape)
    expected = np.stack(
        [
            shape[axis] - 1 - corners[axis] if flipped else corners[axis]
            for axis, flipped in zip(axes, flips, strict=True)
        ]
    )
    return float(np.max(np.abs((between @ corners)[: len(shape)] - expected)))


def _overlap(first: Grid, second: Grid, a: NDArray[Any], b: NDArray[Any]) -> float:
    """Return which share of the smaller box around the images lies in the other's."""
    boxes = []
    for grid, matrix in ((first, a), (second, b)):
        corners = _corners(grid.shape)
        corners[:-1] += np.where(corners[:-1] > 0, 0.5, -0.5)
        places = (matrix @ corners)[:-1]
        boxes.append((places.min(axis=1), places.max(axis=1)))
    common = np.minimum(boxes[0][1], boxes[1][1]) - np.maximum(boxes[0][0], boxes[1][0])
    smaller = min(float(np.prod(high - low)) for low, high in boxes)
    return float(np.prod(np.clip(common, 0, None))) / smaller if smaller > 0 else 0.0


def _difference(first: Grid, second: Grid) -> str:
    """Return the first thing that differs, with both values."""
    if first.shape != second.shape:
        return f"{_times(first.shape)} voxels and {_times(second.shape)}"
    one, other = first.geometry, second.geometry
    if not np.allclose(one.spacing, other.spacing, rtol=1e-4):
        return f"voxels of {_times(one.spacing)} mm and {_times(other.spacing)} mm"
    a, b = first.matrix, second.matrix
    if a is None or b is None:
        return "another grid"
    n = len(first.shape)
    if not np.allclose(a[:n, :n], b[:n, :n], atol=1e-3 * min(one.spacing)):
        return "another direction of the axes"
    return f"places {float(np.linalg.norm(a[:n, n] - b[:n, n])):.3g} mm apart"


def _times(values: tuple[float, ...]) -> str:
    return " x ".join(f"{value:.6g}" for value in values)
