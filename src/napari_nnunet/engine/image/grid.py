"""Do two images lie on the same grid? One answer, for everyone who asks."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_nnunet.errors import ImageError
from napari_nnunet.schema.geometry import Geometry

#: How far, in voxels, corners of two grids may lie apart that count as the same: NIfTI stores float32, so the far
#: corner of 1000 voxels moves by less than this when an image is written and read.
TOLERANCE = 1e-3
#: How far, in voxels, corners may lie apart where labels are compared voxel by voxel: some tools round headers.
CLOSE = 0.1
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
        Grids of files that know no place (pictures) are compared by shape, and by spacing if both know it.
    """
    if len(first.shape) != len(second.shape):
        return Apart(f"{len(first.shape)} axes and {len(second.shape)}", elsewhere=True, voxels=np.inf)
    a, b = first.matrix, second.matrix
    if a is None or b is None:
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


def onto(array: NDArray[Any], second: Geometry, first: Grid, *, what: str) -> NDArray[Any]:
    """Return an image on another one's grid, if it has the same voxels.

    Parameters
    ----------
    array : ndarray, shape ([Z,] Y, X)
        The image; turned where its voxels are stored in another order.
    second : Geometry
        Of the image.
    first : Grid
        Where it should lie.
    what : str
        How an error begins: which image is compared with which.

    Raises
    ------
    ImageError
        If the grids differ by more than a tenth of a voxel; says in what.
    """
    found = relation(first, Grid(array.shape, second))
    if isinstance(found, Turned):
        return found.turn(array)
    if isinstance(found, Apart) and not (found.voxels <= CLOSE and array.shape == first.shape):
        place = "show different places" if found.elsewhere else "do not lie on the same grid"
        raise ImageError(f"{what} {place}: {found}.")
    return array


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
