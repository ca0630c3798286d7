"""What headers say twice, or otherwise than readers take it: two transforms, two sizes, units, scaled values."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from functools import lru_cache
from itertools import combinations
from typing import NamedTuple

from napari_nnunet.formats.images.text.headers import TextFacts
from napari_nnunet.schema.geometry import Geometry, Matrix

NO_NUMBERS = "{count} of its voxels are NaN or infinite and were read as 0"
_TWO_SIZES = "its header gives two voxel sizes"
_DIM, _DIM_END, _PIXDIM, _PIXDIM_END, _XYZT, _CODES, _ROWS_END = 40, 56, 76, 108, 123, 252, 328  # bytes of NIfTI-1
_SLOPE = 112  # where a header has the slope and, behind it, the intercept of its values
_UNITS = {1: 1e3, 3: 1e-3}  # metres and micrometres, in mm; 2 are mm, and 0 says nothing
_ALIKE = 1e-2  # of a voxel's size: what headers that were rounded differ by
_CLOSE = 0.1  # of a voxel: transforms that put every corner that near agree
_FLAT = 1e-6  # of the volume of a voxel at right angles
_RIGHT, _UNIT = 1.7e-3, 1e-3  # of a cosine (a tenth of a degree) and a squared length: what headers round


class Oddities(NamedTuple):
    """What a header says twice and differently: sizes of a voxel (x, y, z) in mm, and qform and sform (RAS, mm)."""

    sizes: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    places: tuple[Matrix, Matrix] | None = None

    def told(self, taken: Matrix, size: Sequence[float]) -> tuple[tuple[str, ...], Matrix | None]:
        """Return remarks for a reader, and the transform that it left.

        Parameters
        ----------
        taken : tuple of tuple
            The affine (RAS, mm) that it took.
        size : sequence of float
            And the size of a voxel (z, y, x) in mm.
        """
        remarks = []
        if self.sizes is not None:
            stated, sides = (" x ".join(f"{v:.4g}" for v in reversed(sizes)) for sizes in self.sizes)
            took = " x ".join(f"{v:.4g}" for v in size)
            remarks.append(f"{_TWO_SIZES}, {stated} mm (pixdim) and {sides} mm (sform); {took} mm was used")
        if self.places is None:
            return tuple(remarks), None
        far = [sum(abs(a - b) for one, two in zip(place, taken, strict=True) for a, b in zip(one, two, strict=True))
               for place in self.places]  # fmt: skip
        mine = int(far[1] <= far[0])
        one, other = map(_leads, self.places)
        if one != other:
            remarks.append(
                f"its header gives two orientations, {one} (qform) and {other} (sform); the "
                f"{('qform', 'sform')[mine]} was used"
            )
        return tuple(remarks), self.places[1 - mine]


def _leads(place: Matrix) -> str:
    """Return where the axes x, y, z lead: "RAS" for instance."""
    code = ""
    for axis in range(3):
        row = max(range(3), key=lambda i: abs(place[i][axis]))
        code += ("LR", "PA", "IS")[row][place[row][axis] > 0]
    return code


_NOTHING_ODD = Oddities()


_PLACES = struct.Struct("<8h"), struct.Struct("<8f"), struct.Struct("<2h6f12f")
_SWAPPED = struct.Struct(">8h"), struct.Struct(">8f"), struct.Struct(">2h6f12f")


def oddities_of(start: bytes) -> Oddities:
    """Look for what readers take differently in the first 352 bytes of a NIfTI-1 file."""
    numbers = start[_DIM:_DIM_END], start[_PIXDIM:_PIXDIM_END], start[_CODES:_ROWS_END]
    return _oddities(_order(start) == "<", *numbers, unit_of(start))


@lru_cache(maxsize=64)  # channels and labels of a case, and often all cases, say the same; and headers are read again
def _oddities(little: bool, sizes_of_axes: bytes, sizes_of_voxels: bytes, places: bytes, unit: float) -> Oddities:
    dims, floats, transforms = _PLACES if little else _SWAPPED
    by_quaternion, by_rows, *numbers = transforms.unpack(places)
    if by_rows <= 0:
        return _NOTHING_ODD
    quaternion, rows = numbers[:6], numbers[6:]
    dim, pixdim = dims.unpack(sizes_of_axes), floats.unpack(sizes_of_voxels)
    stated = tuple(abs(v) * unit for v in pixdim[1:4])
    sides = tuple(math.hypot(*rows[axis::4]) * unit for axis in range(3))
    alike = all(abs(a - b) <= _ALIKE * max(a, b) for a, b in zip(stated, sides, strict=True))
    sizes = None if alike or not all(stated) or not all(sides) else (stated, sides)
    if by_quaternion <= 0:
        return Oddities(sizes)
    second = [unit * v for v in rows]
    first = _by_quaternion(quaternion, pixdim, unit)
    counts = (*(max(n - 1, 1) for n in dim[1:4]), 1)
    apart = max(sum(abs(first[4 * r + c] - second[4 * r + c]) * counts[c] for c in range(4)) for r in range(3))
    if apart <= _CLOSE * min((v for v in stated if v), default=unit):
        return Oddities(sizes)
    return Oddities(sizes, (_as_matrix(first), _as_matrix(second)))


def unit_of(start: bytes) -> float:
    """Return how many mm the unit of lengths in a header is; 1 where it says none."""
    return _UNITS.get(start[_XYZT] & 7, 1.0)


def _by_quaternion(numbers: Sequence[float], pixdim: Sequence[float], unit: float) -> list[float]:
    """Return the three rows of the qform (NIfTI-1, method 2)."""
    b, c, d, *offset = numbers
    a = math.sqrt(max(0.0, 1.0 - (b * b + c * c + d * d)))
    x, y, z = (abs(v) or 1.0 for v in pixdim[1:4])
    z = -z if pixdim[0] < 0 else z
    rows = (
        ((a * a + b * b - c * c - d * d) * x, 2 * (b * c - a * d) * y, 2 * (b * d + a * c) * z, offset[0]),
        (2 * (b * c + a * d) * x, (a * a + c * c - b * b - d * d) * y, 2 * (c * d - a * b) * z, offset[1]),
        (2 * (b * d - a * c) * x, 2 * (c * d + a * b) * y, (a * a + d * d - c * c - b * b) * z, offset[2]),
    )
    return [unit * value for row in rows for value in row]


def _as_matrix(rows: Sequence[float]) -> Matrix:
    return tuple(rows[0:4]), tuple(rows[4:8]), tuple(rows[8:12]), (0.0, 0.0, 0.0, 1.0)


def with_oddities(geometry: Geometry, start: bytes, remarks: Sequence[str] = ()) -> Geometry:
    """Return the grid of a NIfTI-1 file that begins so, with what its header says twice and differently."""
    found, other = oddities_of(start), None
    if (found.sizes or found.places) and geometry.ndim == 3 and geometry.origin and geometry.direction:
        across, size = geometry.direction, geometry.spacing[::-1]
        taken = tuple(
            (*(sign * across[3 * row + axis] * size[axis] for axis in range(3)), sign * geometry.origin[row])
            for row, sign in enumerate((-1.0, -1.0, 1.0))  # ITK's LPS
        )
        said, other = found.told((*taken, (0.0, 0.0, 0.0, 1.0)), geometry.spacing)
        remarks = (*remarks, *said)
    if not remarks and other is None:
        return geometry
    return geometry.model_copy(update={"remarks": (*geometry.remarks, *remarks), "other_affine": other})


class Mended(NamedTuple):
    """The start of a NIfTI-1 header without what is no size and no place, and what was put instead."""

    start: bytes
    remarks: tuple[str, ...]
    sized: bool

    def of(self, geometry: Geometry) -> Geometry:
        """Return the grid behind the mended header with what is said of it."""
        known = geometry.spacing_known and self.sized
        others = [text for text in geometry.remarks if self.sized or not text.startswith(_TWO_SIZES)]  # one is made up
        return geometry.model_copy(update={"remarks": (*self.remarks, *others), "spacing_known": known})


def mended(start: bytes) -> Mended | None:
    """Look for sizes and transforms that are none (NaN, infinite, 0, negative) in the start of a NIfTI-1 file.

    Readers differ in what they make of them, and say nothing: 1 mm, NaN, or all voxels at one place.
    """
    numbers = start[_DIM:_DIM_END], start[_PIXDIM:_PIXDIM_END], start[_CODES:_ROWS_END]
    found = _mended(_order(start) == "<", *numbers)
    if found is None:
        return None
    sizes, places, remarks, sized = found
    whole = start[:_PIXDIM] + sizes + start[_PIXDIM_END:_CODES] + places + start[_ROWS_END:]
    return Mended(whole, remarks, sized)


@lru_cache(maxsize=64)  # as above
def _mended(
    little: bool, sizes_of_axes: bytes, sizes_of_voxels: bytes, places: bytes
) -> tuple[bytes, bytes, tuple[str, ...], bool] | None:
    """Return the bytes of sizes and of transforms as they are to be read, with remarks and whether there are sizes."""
    dims, floats, transforms = _PLACES if little else _SWAPPED
    count = min(max(dims.unpack(sizes_of_axes)[0], 1), 3)
    pixdim, (by_quaternion, by_rows, *numbers) = list(floats.unpack(sizes_of_voxels)), transforms.unpack(places)
    remarks: list[str] = []
    rows = numbers[6:]
    if by_rows > 0:
        by_rows, rows = _usable_rows(by_rows, rows, count, remarks)
    sized = _usable_sizes(pixdim, count, [math.hypot(*rows[axis::4]) for axis in range(3)], by_rows > 0, remarks)
    turn = numbers[:3]
    if by_quaternion > 0 and not math.hypot(*turn) <= 1 + _UNIT:
        by_quaternion = 0
        remarks.append("its qform is not a rotation (quatern_b, c, d), and was left aside")
    offset = [value if math.isfinite(value) else 0.0 for value in numbers[3:6]]
    if by_quaternion > 0 and offset != numbers[3:6]:
        remarks.append("the place in its qform is not a number, and was read as 0")
    if not remarks:
        return None
    turn = turn if by_quaternion > 0 else [0.0] * 3
    written = transforms.pack(by_quaternion, by_rows, *turn, *offset, *rows)
    return floats.pack(*pixdim), written, tuple(remarks), sized


def _usable_sizes(pixdim: list[float], count: int, sides: Sequence[float], by_rows: bool, remarks: list[str]) -> bool:
    """Put 1 mm where a header has no size of a voxel, and sizes without their sign; return whether it has all."""
    lacking = [axis for axis in range(count) if not (math.isfinite(pixdim[axis + 1]) and pixdim[axis + 1])]
    negative = [axis for axis in range(count) if axis not in lacking and pixdim[axis + 1] < 0]
    for listed, text in (
        (lacking, "{value} along {axes}; 1 mm was used instead{sform}"),
        (negative, "negative size along {axes} ({value}), which were read without the sign"),
    ):
        if not listed:
            continue
        axes, values = (list(dict.fromkeys(words)) for words in (
            ["xyz"[axis] for axis in listed], [f"{pixdim[axis + 1]:g}" for axis in listed]
        ))  # fmt: skip
        shown = " x ".join(f"{sides[axis]:.4g}" for axis in listed)
        sform = f", although its sform says {shown}" if by_rows else ""
        said = text.format(value=" and ".join(values), axes=", ".join(axes), sform=sform)
        remarks.append(f"its header has voxels of {'size ' * (listed is lacking)}{said}")
    for axis in (*lacking, *negative):
        pixdim[axis + 1] = 1.0 if axis in lacking else -pixdim[axis + 1]
    pixdim[0] = pixdim[0] if math.isfinite(pixdim[0]) else 1.0
    return not lacking


def _usable_rows(code: int, rows: list[float], count: int, remarks: list[str]) -> tuple[int, list[float]]:
    """Return the code and the rows of a sform; code 0, none, if it puts voxels nowhere or all at one place."""
    columns = [rows[axis::4] for axis in range(3)]
    sides = [math.hypot(*column) for column in columns]
    (a, b, c), (d, e, f), (g, h, i) = columns
    volume = a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g)
    flat = count < len(sides) and not sides[2]  # pictures, whose third axis programs leave out
    if not flat and not (math.isfinite(volume) and abs(volume) > _FLAT * math.prod(sides)):
        remarks.append("its sform is not a place (NaN, or axes without a length of their own), and was left aside")
        return 0, [0.0] * len(rows)
    if all(map(math.isfinite, rows)):
        return code, rows
    remarks.append("the place in its sform is not a number, and was read as 0")
    return code, [value if math.isfinite(value) else 0.0 for value in rows]


def slope_remarks(start: bytes) -> tuple[str, ...]:
    """Return what ITK adds to values, and should not, of a NIfTI-1 file that begins so."""
    slope, intercept = struct.unpack_from(f"{_order(start)}2f", start, _SLOPE)
    if slope != 0 or not intercept:
        return ()
    return (
        f"its header has the slope 0, which means that values are not scaled, but an intercept of {intercept:g}, which "
        "was added",
    )


def _order(start: bytes) -> str:
    """Return the byte order of a NIfTI-1 header, as struct writes it."""
    return "<" if start[:4] == b"\x5c\x01\0\0" else ">"


def as_said(geometry: Geometry, said: TextFacts) -> Geometry:
    """Return a grid of NRRD, MetaImage or GIPL with what ITK does not tell of it."""
    remarks = said.remarks if geometry.direction is None else (*said.remarks, *_of_axes(geometry.direction))
    if not remarks and said.spacing_known:
        return geometry
    known = geometry.spacing_known and said.spacing_known
    return geometry.model_copy(update={"remarks": (*geometry.remarks, *remarks), "spacing_known": known})


@lru_cache(maxsize=64)  # cases of one dataset often have the same
def _of_axes(direction: tuple[float, ...]) -> tuple[str, ...]:
    """Return what is odd about the directions of axes, which ITK passes over."""
    remarks, ndim = [], math.isqrt(len(direction))
    axes = [direction[axis::ndim] for axis in range(ndim)]
    if any(abs(_product(one, other)) > _RIGHT for one, other in combinations(axes, 2)):
        remarks.append("its axes are not at right angles; its voxels were read as they lie")
    squares = [_product(axis, axis) for axis in axes]
    if any(abs(square - 1) > _UNIT for square in squares):
        lengths = " x ".join(f"{math.sqrt(square):.4g}" for square in reversed(squares))
        remarks.append(f"the directions of its axes have lengths of {lengths} instead of 1, which were ignored")
    return tuple(remarks)


def _product(one: Sequence[float], other: Sequence[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))
