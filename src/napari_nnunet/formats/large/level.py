"""One resolution of an OME-Zarr image: its axes, the size of its voxels, and where they lie."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from napari_nnunet.formats.images.pixel_sizes import UNITS
from napari_nnunet.formats.large.place import ImagePlace
from napari_nnunet.schema.geometry import Geometry


@dataclass(frozen=True)
class Level:
    """One resolution of an OME-Zarr image.

    Parameters
    ----------
    path : str
        Of the array, within the image.
    shape : tuple of int
        All axes.
    scale, translation : tuple of float
        Size of a voxel and place of the first one, in the axes' own units.
    axes : tuple of dict
        As the metadata have them, with ``name``, ``type`` and ``unit``.
    version : str
        Of the metadata.
    """

    path: str
    shape: tuple[int, ...]
    scale: tuple[float, ...]
    translation: tuple[float, ...]
    axes: tuple[Mapping[str, Any], ...]
    version: str

    @property
    def letters(self) -> str:
        """A letter per axis."""
        return "".join(_letter(axis) for axis in self.axes)

    def spacing(self) -> tuple[float, ...] | None:
        """Return the voxel size ([z,] y, x) in mm; None where an axis has no unit, or an unknown one."""
        sizes = []
        for letter in "ZYX":
            if letter in self.letters:
                place = self.letters.index(letter)
                unit = UNITS.get(str(self.axes[place].get("unit")).lower())
                if unit is None:
                    return None
                sizes.append(self.scale[place] * unit)
        return tuple(sizes)

    def place(self, letters: str, geometry: Geometry) -> ImagePlace:
        """Return where it lies, its axes being read as letters, and its voxels being of the size of a geometry.

        Where no unit is known that place is in, it is counted in voxels.
        """
        known = letters == self.letters and self.spacing() is not None
        origin = []
        for letter, size in zip((a for a in "ZYX" if a in letters), geometry.spacing, strict=True):
            axis = letters.index(letter)
            unit = UNITS[str(self.axes[axis].get("unit")).lower()] if known else size / self.scale[axis]
            origin.append(self.translation[axis] * unit)
        times = (0.0, 1.0, "")
        if "T" in letters:
            axis = letters.index("T")
            times = (self.translation[axis], self.scale[axis], str(self.axes[axis].get("unit") or ""))
        return ImagePlace.upright(geometry, origin, times)


def _letter(axis: Mapping[str, Any]) -> str:
    kinds = {"time": "T", "channel": "C"}
    name = axis.get("name")
    return kinds.get(str(axis.get("type")), name.upper() if isinstance(name, str) and len(name) == 1 else "?")
