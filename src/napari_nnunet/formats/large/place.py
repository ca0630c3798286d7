"""Where an image lies, and what OME-Zarr cannot say of that: it has places of first voxels, and no directions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_nnunet.grid import CLOSE, Grid
from napari_nnunet.schema.geometry import Geometry

_UPRIGHT = 1e-3  # of a direction's entries: with more, an image is not mirrored or swapped, but oblique


@dataclass(frozen=True)
class ImagePlace:
    """Where voxels lie in space and time.

    Parameters
    ----------
    geometry : Geometry
        In space.
    times : tuple of (float, float, str)
        When the first time point is, how far two lie apart, and their unit; empty where it is not known.
    drifts : bool
        Whether time points, or channels, lie in places of their own.
    """

    geometry: Geometry
    times: tuple[float, float, str] = (0.0, 1.0, "")
    drifts: bool = False

    @classmethod
    def upright(
        cls, geometry: Geometry, origin: Sequence[float], times: tuple[float, float, str] = (0.0, 1.0, "")
    ) -> ImagePlace:
        """Return the place of voxels along the axes of the world, the first one at an origin ([z,] y, x; mm)."""
        place = {"origin": tuple(reversed(origin)), "direction": tuple(np.eye(geometry.ndim).ravel().tolist())}
        known = {"spacing": geometry.spacing, "spacing_known": geometry.spacing_known}
        return cls(Geometry(**known, **place), times)

    @property
    def origin(self) -> tuple[float, ...]:
        """Place of the first voxel ([z,] y, x) in mm; 0 where nothing is known of it."""
        matrix = self._matrix()
        return (0.0,) * self.geometry.ndim if matrix is None else tuple(float(v) for v in matrix[:, -1])

    def unsaid(self, shape: Sequence[int]) -> str:
        """Return what OME-Zarr cannot say of the place of an image ([Z,] Y, X), such as "is rotated"; "" for nothing.

        Nothing either where its farthest corner lies right to a tenth of a voxel.
        """
        if self.drifts:
            return "lies in another place at every time point or channel"
        matrix, spacing = self._matrix(), np.asarray(self.geometry.spacing)
        if matrix is None:
            return ""
        linear = matrix[:, :-1]
        off = np.abs(linear - np.diag(spacing)) @ (np.asarray(shape) - 1)
        if np.all(off <= CLOSE * spacing):
            return ""
        directions = linear / np.linalg.norm(linear, axis=0)
        nearest = np.round(directions)
        if not np.allclose(directions.T @ directions, np.eye(len(spacing)), atol=_UPRIGHT):
            return "is sheared"
        if not np.allclose(directions, nearest, atol=_UPRIGHT):
            return "is rotated"
        if np.any(nearest[~np.eye(len(spacing), dtype=bool)]):
            return "has its axes in another order"
        letters = zip("zyx"[-len(spacing) :], np.diag(nearest), strict=True)
        along = " and ".join(letter for letter, sign in letters if sign < 0)
        return f"is mirrored along {along}" if along else "is rotated"

    def _matrix(self) -> NDArray[Any] | None:
        """From indices ([z,] y, x), with a 1 behind, to mm in the same order; None if the place is unknown."""
        ndim = self.geometry.ndim
        matrix = Grid((1,) * ndim, self.geometry).matrix
        return None if matrix is None else matrix[ndim - 1 :: -1]
