"""Where the voxels of a grid lie in the world."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, field_validator

from napari_nnunet.errors import ImageError

Matrix = tuple[tuple[float, ...], ...]
#: Sources of a spacing: what a person said, and what lies inside pictures and TIFFs, where nnU-Net does not look.
GIVEN = "what was given"
IMAGEJ, OME, RESOLUTION = "ImageJ's metadata", "OME metadata", "the resolution tags"
INSIDE = (IMAGEJ, OME, RESOLUTION)
BESIDE = "the JSON file beside it"


class Geometry(BaseModel):
    """The grid of a 2-D or 3-D image.

    Parameters
    ----------
    spacing : tuple of float
        Voxel size in mm, in the order of the array axes (``[z,] y, x``).
    origin : tuple of float, optional
        Position of the first voxel in mm, in ITK's order ``(x, y[, z])``, LPS.
    direction : tuple of float, optional
        Row-major direction cosines as ITK gives them (9 numbers in 3-D, 4 in 2-D).
    affine : tuple of tuple, optional
        The 4 x 4 affine of a NIfTI file (RAS) when it was read by nibabel.
    reoriented_affine : tuple of tuple, optional
        The affine after turning the voxels to RAS, when the reader did that.
    other_affine : tuple of tuple, optional
        Where the other of a NIfTI header's two transforms (qform and sform; RAS, mm) puts the voxels, if they disagree.
    orientation : str, optional
        The original DICOM orientation code ("LPS", "RAI", ...) when ITK turned the voxels.
    spacing_known : bool
        False if the file or layer says nothing about the size of its voxels and 1 was put in its place.
    spacing_source : str
        Where the spacing comes from, in words: one of :data:`GIVEN`, :data:`BESIDE` and :data:`INSIDE`;
        empty for the file's own header.
    remarks : tuple of str
        What is odd about the file and how it was read nevertheless, as clauses: "it is a pyramid; its largest level
        was read".
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    spacing: tuple[float, ...]
    origin: tuple[float, ...] | None = None
    direction: tuple[float, ...] | None = None
    affine: Matrix | None = None
    reoriented_affine: Matrix | None = None
    other_affine: Matrix | None = None
    orientation: str | None = None
    spacing_known: bool = True
    spacing_source: str = ""
    remarks: tuple[str, ...] = ()

    @field_validator("spacing")
    @classmethod
    def _positive(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if len(value) not in (2, 3):
            raise ImageError(f"A grid has 2 or 3 axes, but the spacing {value} has {len(value)} numbers.")
        if not all(math.isfinite(v) and v > 0 for v in value):
            raise ImageError(f"The spacing {value} is invalid: every voxel size must be a positive number of mm.")
        return value

    def with_spacing(self, spacing: Sequence[float], source: str) -> Geometry:
        """Return the grid with voxels of another size; its first voxel and its directions stay where they are.

        Raises
        ------
        ImageError
            If there is not one positive number per axis.
        """
        if len(spacing) != self.ndim:
            raise ImageError(
                f"{len(spacing)} voxel sizes were given for an image with {self.ndim} axes; give one per axis, "
                f"{' '.join('zyx'[-self.ndim :])}."
            )
        factors = [new / old for new, old in zip(reversed(spacing), reversed(self.spacing), strict=True)]
        changes: dict[str, Any] = {
            "spacing": tuple(float(v) for v in spacing),
            "spacing_known": True,
            "spacing_source": source,
            "other_affine": None,
        }
        if self.affine is not None and self.reoriented_affine is None:
            changes["affine"] = tuple(
                tuple(value * factor for value, factor in zip(row, (*factors, 1.0), strict=True)) for row in self.affine
            )
        elif self.affine is not None and self.reoriented_affine is not None:
            changes["affine"], changes["reoriented_affine"] = _resized(self.affine, self.reoriented_affine, factors)
        return Geometry(**{**self.model_dump(), **changes})

    @property
    def ndim(self) -> int:
        """Number of spatial axes, 2 or 3."""
        return len(self.spacing)

    @property
    def known_spacing(self) -> tuple[float, ...] | None:
        """Spacing in mm where somebody said it, else None."""
        return self.spacing if self.spacing_known else None

    @property
    def spacing_3d(self) -> tuple[float, float, float]:
        """Spacing with three entries; a 2-D grid gets nnU-Net's thick first axis."""
        if self.ndim == 3:
            return self.spacing[0], self.spacing[1], self.spacing[2]
        return 999.0 * max(self.spacing), self.spacing[0], self.spacing[1]

    def deepened(self) -> Geometry:
        """Return the grid with three axes; that of a picture gets one slice, as thick as its pixels."""
        if self.ndim == 3:
            return self
        place: dict[str, Any] = {}
        if self.origin is not None and self.direction is not None:
            a, b, c, d = self.direction
            place = {"origin": (*self.origin, 0.0), "direction": (a, b, 0.0, c, d, 0.0, 0.0, 0.0, 1.0)}
        return Geometry(spacing=(max(self.spacing), *self.spacing), spacing_known=self.spacing_known, **place)

    def planar(self) -> Geometry:
        """Return the grid of one slice, as a picture has it."""
        if self.ndim == 2:
            return self
        place: dict[str, Any] = {}
        if self.origin is not None and self.direction is not None:
            place = {"origin": self.origin[:2], "direction": (*self.direction[0:2], *self.direction[3:5])}
        return Geometry(spacing=self.spacing[1:], spacing_known=self.spacing_known, **place)

    @property
    def axes_code(self) -> str | None:
        """Where the voxel axes x, y, z lead, "LPS" or "RAS" for instance; None if nothing is known."""
        if self.affine is not None:
            columns = [[row[axis] for row in self.affine[:3]] for axis in range(3)]
            letters = ("LR", "PA", "IS")
        elif self.direction is not None and len(self.direction) == 9:
            columns = [list(self.direction[axis::3]) for axis in range(3)]
            letters = ("RL", "AP", "IS")
        else:
            return None
        code = ""
        for column in columns:
            row = max(range(3), key=lambda i: abs(column[i]))
            code += letters[row][column[row] > 0]
        return code

    def properties(self) -> dict[str, Any]:
        """Return the reader's entries of nnU-Net's properties dictionary, in plain Python types."""
        entries: dict[str, Any] = {"spacing": list(self.spacing_3d)}
        if self.affine is not None:
            stuff: dict[str, Any] = {"original_affine": [list(row) for row in self.affine]}
            if self.reoriented_affine is not None:
                stuff["reoriented_affine"] = [list(row) for row in self.reoriented_affine]
            entries["nibabel_stuff"] = stuff
        elif self.origin is not None and self.direction is not None:
            entries["sitk_stuff"] = {
                "spacing": tuple(reversed(self.spacing)),
                "origin": self.origin,
                "direction": self.direction,
            }
        return entries

    @classmethod
    def from_properties(cls, entries: Mapping[str, Any], *, ndim: int = 3) -> Geometry:
        """Return the grid that :meth:`properties`, or nnU-Net's own readers, described.

        Raises
        ------
        ImageError
            If the entries describe no grid.
        """
        try:
            spacing = tuple(float(v) for v in entries["spacing"])[-ndim:]
            nibabel, itk = entries.get("nibabel_stuff"), entries.get("sitk_stuff")
            if nibabel is not None:
                return cls(
                    spacing=spacing,
                    affine=_matrix(nibabel["original_affine"]),
                    reoriented_affine=_matrix(nibabel.get("reoriented_affine")),
                )
            if itk is not None:
                return cls(
                    spacing=tuple(reversed([float(v) for v in itk["spacing"]])),
                    origin=tuple(float(v) for v in itk["origin"]),
                    direction=tuple(float(v) for v in itk["direction"]),
                )
        except (KeyError, TypeError, ValueError) as error:
            raise ImageError(
                f"These properties do not describe the grid of an image ({error!r}): {sorted(entries)}."
            ) from error
        return cls(spacing=spacing)


def _matrix(rows: Any) -> Matrix | None:
    return None if rows is None else tuple(tuple(float(v) for v in row) for row in rows)


def _resized(stored: Matrix, turned: Matrix, factors: Sequence[float]) -> tuple[Matrix, Matrix]:
    """Return the affines of an image as it is stored and as it was turned, with voxels of another size.

    The factors are those of the turned axes. The first voxel that is stored stays where it is.
    """
    import numpy as np  # only here: most that know a geometry do without

    one, other = np.array(stored, dtype=float), np.array(turned, dtype=float)
    corner = np.linalg.solve(one[:3, :3], other[:3, 3] - one[:3, 3])  # the first turned voxel among the stored ones
    own, theirs = (matrix[:3, :3] / np.linalg.norm(matrix[:3, :3], axis=0) for matrix in (one, other))
    one[:3, :3] *= np.asarray(factors)[np.abs(own.T @ theirs).argmax(axis=1)]
    other[:3, :3] *= factors
    other[:3, 3] = one[:3, 3] + one[:3, :3] @ corner
    first, second = (tuple(tuple(map(float, row)) for row in matrix) for matrix in (one, other))
    return first, second


def lift(array: Any, *, channels: bool = False) -> Any:
    """Return a view of an array with three spatial axes; a 2-D image becomes one slice.

    Parameters
    ----------
    array : array-like, shape ([Z,] Y, X), with channels (C, [Z,] Y, X)
        Whatever is written into the view of a numpy array is in the array.
    channels : bool
        Whether the first axis is that of the channels.
    """
    if len(array.shape) == 3 + channels:
        return array
    # Arrays of zarr cannot be given an axis; a single picture fits into memory.
    known = array if hasattr(array, "transpose") else array[:]
    return known[:, None] if channels else known[None]


def lift_shape(shape: Sequence[int]) -> tuple[int, int, int]:
    """Return a spatial shape ([Z,] Y, X) with three entries; a 2-D image has one slice."""
    z, y, x = shape if len(shape) == 3 else (1, *shape)
    return z, y, x
