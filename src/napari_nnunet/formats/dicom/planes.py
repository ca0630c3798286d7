"""Where the slices of a series lie, each by its own header."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from napari_nnunet.errors import ImageError
from napari_nnunet.formats.dicom.extra import highdicom
from napari_nnunet.formats.dicom.frames import along_normal
from napari_nnunet.formats.dicom.syntax import numbers_between
from napari_nnunet.schema.geometry import Geometry

PointsInSpace = NDArray[np.float64]
_WHAT = {
    "ImagePositionPatient": (3, "where it lies"),
    "ImageOrientationPatient": (6, "how it lies"),
    "PixelSpacing": (2, "how large its pixels are"),
}


_SEEN = 0.25  # of the distance of slices


def uneven_in_words(positions: Sequence[str], orientation: str) -> list[str]:
    """Return what is to be said of slices (positions between backslashes, in mm) that lie off even distances.

    Gaps that differ a little are let pass, but what they differ by adds up along a series, and ITK stacks it evenly.
    """
    places, ways = numbers_between(positions, 3), numbers_between([orientation], 6)
    if len(positions) < 3 or places is None or ways is None:
        return []
    heights = places @ np.cross(ways[0][:3], ways[0][3:])
    off = np.abs(heights - np.linspace(heights[0], heights[-1], len(heights))).max()
    gaps = np.abs(np.diff(heights))
    if off <= _SEEN * gaps.mean():
        return []
    return [
        f"its slices lie {gaps.min():.3g} to {gaps.max():.3g} mm apart, and were taken as {gaps.mean():.3g} mm apart: "
        f"some are up to {off:.2g} mm off their place"
    ]


@dataclass(frozen=True, eq=False)
class SlicePlanes:
    """The slices of a series in mm, in the order of :func:`~napari_nnunet.formats.dicom.series.read_series`.

    Parameters
    ----------
    places : ndarray, shape (Z, 3)
        Centre of the first voxel of each slice, x, y, z.
    across, down : ndarray, shape (3,)
        From a voxel to the next one of its row, and of its column.
    """

    places: PointsInSpace
    across: PointsInSpace
    down: PointsInSpace

    @classmethod
    def of_geometry(cls, geometry: Geometry, count: int) -> Self:
        """Return slices that are stacked straight, as a geometry has them."""
        sides = np.array(geometry.direction).reshape(3, 3).T * np.reshape(geometry.spacing[::-1], (3, 1))
        return cls(np.array(geometry.origin) + np.arange(count)[:, None] * sides[2], sides[0], sides[1])

    @classmethod
    def of_headers(cls, headers: Sequence[Any], files: Sequence[Path]) -> Self:
        """Return the slices of a series, each where its own header says.

        Parameters
        ----------
        headers : sequence of pydicom.Dataset
            Of the files.
        files : sequence of Path
            One per slice in the order of the slices, or the one with all frames.

        Raises
        ------
        ImageError
            If a header does not say it.
        """
        if (count := int(headers[0].get("NumberOfFrames") or 1)) > 1:
            affine = along_normal(geometry_of_frames(files[0]).affine, count)
            slices, rows, columns = affine[:3, :3].T
            return cls(affine[:3, 3] + np.arange(count)[:, None] * slices, columns, rows)
        places = np.array(
            [_numbers(header, "ImagePositionPatient", file) for header, file in zip(headers, files, strict=True)]
        )
        way = _numbers(headers[0], "ImageOrientationPatient", files[0]).reshape(2, 3)
        height, width = _numbers(headers[0], "PixelSpacing", files[0])
        return cls(places, way[0] * width, way[1] * height)

    def in_mm(self, z: int, points: PointsInSpace) -> PointsInSpace:
        """Return points (n, 2) of a slice, y and x in voxels, as x, y, z (n, 3) in mm."""
        moved: PointsInSpace = self.places[z] + points[:, :1] * self.down + points[:, 1:] * self.across
        return moved

    def in_voxels(self, points: PointsInSpace) -> tuple[PointsInSpace, PointsInSpace]:
        """Return points x, y, z (n, 3) in mm as depth (n,), in slices, and as y and x (n, 2) in voxels of their slice.

        A slice has the whole number of its place as depth, however uneven the gaps are; between two slices it grows
        evenly, and before the first and after the last as in the gap there. A single slice has a gap of 1 mm.
        """
        normal = np.cross(self.across, self.down)
        normal /= np.linalg.norm(normal)
        heights, at = self.places @ normal, points @ normal
        if heights[-1] < heights[0]:  # slices that are stacked against the normal
            heights, at = -heights, -at
        gaps = np.diff(heights) if len(heights) > 1 else np.ones(1)
        depth = np.interp(at, heights, np.arange(len(heights)))
        depth += np.minimum(at - heights[0], 0) / gaps[0] + np.maximum(at - heights[-1], 0) / gaps[-1]
        z = int(np.clip(np.rint(depth.mean()), 0, len(heights) - 1))
        beside = points - self.places[z]
        sides = np.stack([self.down, self.across])
        return depth, beside @ sides.T / (sides**2).sum(axis=1)


def geometry_of_frames(file: Path) -> Any:
    """Return highdicom's geometry of the frames of a file; raises ImageError if they do not form a straight stack."""
    geometry = highdicom().imread(file, lazy_frame_retrieval=True).get_volume_geometry(allow_missing_positions=False)
    if geometry is None:
        raise ImageError(f"The frames of {file} do not form a straight stack with equal distances.")
    return geometry


def _numbers(header: Any, name: str, file: Path) -> PointsInSpace:
    count, what = _WHAT[name]
    try:
        numbers = np.array([float(value) for value in header.get(name) or ()])
    except (TypeError, ValueError):
        numbers = np.empty(0)
    if len(numbers) != count or not np.isfinite(numbers).all():
        raise ImageError(f"{file} does not say {what} ({name} is missing or damaged). Export the series again.")
    return numbers
