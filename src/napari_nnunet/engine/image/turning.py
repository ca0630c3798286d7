"""Images turned to RAS, and results turned back: what readers of some models do with files, for every other image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_nnunet.grid import Grid, Turned
from napari_nnunet.schema.geometry import Geometry
from napari_nnunet.volume import Volume

_RAS = ((2, 1.0), (1, -1.0), (0, -1.0))  # where the axes Z, Y, X of a turned image lead: of ITK's x, y, z (LPS)


@dataclass(frozen=True)
class Turning:
    """How an image as it lies becomes one whose axes lead to RAS.

    Parameters
    ----------
    found : Turned
        Order of the axes, and which run the other way.
    shape : tuple of int
        ``(Z, Y, X)`` of the image as it lies.
    """

    found: Turned
    shape: tuple[int, ...]

    @classmethod
    def of(cls, shape: tuple[int, ...], geometry: Geometry) -> Turning | None:
        """Return how an image is turned; None if it leads to RAS already, was turned by its reader, or has no place."""
        if geometry.reoriented_affine is not None or geometry.orientation is not None or geometry.ndim != 3:
            return None
        matrix = Grid(shape, geometry).matrix
        if matrix is None:
            return None
        u, _, v = np.linalg.svd(matrix[:3, :3] / np.linalg.norm(matrix[:3, :3], axis=0))
        cosines = u @ v  # the nearest directions that are at right angles
        world = [0, 0, 0]
        for axis in (2, 1, 0):  # x chooses first
            world[axis] = int(np.abs(cosines[:, axis]).argmax())
            cosines[world[axis], [other for other in range(3) if other != axis]] = 0
        axes = tuple(world.index(lead) for lead, _ in _RAS)
        flips = tuple(bool(sign * cosines[lead, axis] < 0) for (lead, sign), axis in zip(_RAS, axes, strict=True))
        if axes == (0, 1, 2) and not any(flips):
            return None
        return cls(Turned(axes, flips), shape)

    def volume(self, volume: Volume) -> Volume:
        """Return the image turned; it is read no earlier than before. Only the size of its voxels is kept."""
        spacing = tuple(volume.geometry.spacing[axis] for axis in self.found.axes)
        bare = {"spacing": spacing, "origin": None, "direction": None, "affine": None, "other_affine": None}
        array = volume.array
        turned = self.stack(array) if isinstance(array, np.ndarray) else _TurnedImage(array, self)
        return Volume(turned, volume.geometry.model_copy(update=bare), volume.notes)

    def stack(self, array: NDArray[Any]) -> NDArray[Any]:
        """Return a turned view of an array (C, Z, Y, X)."""
        lifted = Turned((0, *(axis + 1 for axis in self.found.axes)), (False, *self.found.flips))
        return lifted.turn(array)

    def focus(self, voxel: Sequence[float | None]) -> tuple[float | None, ...]:
        """Return where a voxel is after turning."""
        return tuple(
            self.shape[axis] - 1 - place if flip and (place := voxel[axis]) is not None else voxel[axis]
            for axis, flip in zip(self.found.axes, self.found.flips, strict=True)
        )

    def box(self, box: Sequence[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
        """Return a half-open box of the image as it lies, in the turned one."""
        return tuple(
            self._across(axis, box[axis], flip)
            for axis, flip in zip(self.found.axes, self.found.flips, strict=True)
        )  # fmt: skip

    def box_back(self, box: Sequence[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
        """Return a half-open box of the turned image, in the one as it lies."""
        own = {
            axis: self._across(axis, part, flip)
            for axis, part, flip in zip(self.found.axes, box, self.found.flips, strict=True)
        }
        return tuple(own[axis] for axis in range(3))

    def _across(self, axis: int, part: tuple[int, int], flip: bool) -> tuple[int, int]:
        size = self.shape[axis]
        return (size - part[1], size - part[0]) if flip else (part[0], part[1])


class _TurnedImage:
    """An image (C, Z, Y, X) that is read when it is needed, turned."""

    def __init__(self, array: Any, turning: Turning) -> None:
        self._array, self._turning = array, turning
        self.shape = (int(array.shape[0]), *(int(array.shape[axis + 1]) for axis in turning.found.axes))
        self.dtype, self.ndim = array.dtype, 4

    def __getitem__(self, key: slice | tuple[slice, ...]) -> NDArray[Any]:
        parts = key if isinstance(key, tuple) else (key,)
        parts = (*parts, *(slice(None),) * (4 - len(parts)))
        box = [part.indices(size)[:2] for part, size in zip(parts[1:], self.shape[1:], strict=True)]
        own = (slice(lo, hi) for lo, hi in self._turning.box_back(box))
        return self._turning.stack(np.asarray(self._array[(parts[0], *own)]))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self[:], dtype=dtype)
