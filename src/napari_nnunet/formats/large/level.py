"""Resolutions of an OME-Zarr image: axes, size of voxels, where they lie, and whether they contradict each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from napari_nnunet.errors import ImageError
from napari_nnunet.formats.images.pixel_sizes import UNITS
from napari_nnunet.formats.large.place import ImagePlace
from napari_nnunet.schema.geometry import Geometry
from napari_nnunet.schema.names import typed

_PLANES = 1.5  # by how many coarse planes levels of a pyramid may differ in extent: what rounding of their shapes does


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


def check_levels(levels: Sequence[Level], name: str) -> None:
    """Raise ImageError if levels do not show the same place: same voxels times size, within some coarse planes."""
    finest = levels[0]
    unsaid = all(set(level.scale) == {1.0} for level in levels)  # nothing is said of their size
    for level in levels[1:]:
        for axis, letter in enumerate(level.letters):
            if unsaid and letter in "ZYX":
                continue
            coarse = max(level.scale[axis], finest.scale[axis])
            ends = [each.shape[axis] * each.scale[axis] for each in (finest, level)]
            begins = [each.translation[axis] for each in (finest, level)]
            if abs(ends[0] - ends[1]) > (_PLANES if letter in "ZYX" else 0.5) * coarse:
                long = [f"is {each.shape[axis]} x {each.scale[axis]:g} =" for each in (finest, level)]
                how = f"{long[0]} {ends[0]:g} long, but level {level.path} {long[1]} {ends[1]:g}"
            elif abs(begins[0] - begins[1]) > _PLANES * coarse:
                how = f"begins at {begins[0]:g}, but level {level.path} at {begins[1]:g}"
            else:
                continue
            raise ImageError(
                f"The levels of {name} contradict each other: along {letter.lower()}, level {finest.path} {how}. Write "
                "the pyramid again, or name one of its arrays instead of the image.",
                shell=f"For instance -i {typed(f'{name}/{finest.path}')} --spacing ...",
            )


def require_own_size(finest: Level, level: Level, name: str) -> None:
    """Raise ImageError if a level has fewer voxels than the finest, but says that they are of the same size."""
    same = [letter for letter in level.letters if letter in "ZYX"]
    sizes = [[each.scale[each.letters.index(letter)] for letter in same] for each in (finest, level)]
    if level.shape != finest.shape and sizes[0] == sizes[1]:
        shapes = [" x ".join(map(str, each.shape)) for each in (finest, level)]
        raise ImageError(
            f"Level {level.path} of {name} has {shapes[1]} voxels and level {finest.path} {shapes[0]}, but "
            "the metadata say that they are of one size. Give the voxel size of this level.",
            shell="For instance --spacing 0.002 0.0005 0.0005 (z y x).",
        )
