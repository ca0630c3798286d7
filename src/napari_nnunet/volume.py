"""An image as the engine takes it: channels first, with its grid."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_nnunet.errors import ImageError, counted, some
from napari_nnunet.schema.geometry import GIVEN, Geometry, lift_shape

_NAMED = 4  # cases that are written out
_AT_ONCE = 8_000_000  # bytes that are looked at before a job can be cancelled
_PRECISION = 1e-6  # of float32, relative: labels that went through a division are this far from whole numbers


@dataclass(frozen=True, eq=False)
class Volume:
    """An array with channels first and the geometry of its grid.

    Parameters
    ----------
    array : array-like, shape (C, [Z,] Y, X)
        Anything with ``shape``, ``dtype`` and slicing: numpy, dask, zarr. It is read slab by slab, never changed.
    geometry : Geometry
        Grid of the spatial axes; ``geometry.ndim`` equals ``array.ndim - 1``.
    notes : tuple of str
        What was done to bring the channels together, in sentences for the user.

    Raises
    ------
    ImageError
        If array and geometry disagree, or an axis is empty.
    """

    array: Any
    geometry: Geometry
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        shape = tuple(self.array.shape)
        if len(shape) != self.geometry.ndim + 1:
            raise ImageError(
                f"The array has shape {shape}, but the geometry has {self.geometry.ndim} axes: "
                f"expected the channel axis and then {self.geometry.ndim} spatial axes."
            )
        if 0 in shape:
            raise ImageError(f"The image is empty: its shape is {shape}. Every axis needs at least one voxel.")

    @property
    def channels(self) -> int:
        """Number of channels C."""
        return int(self.array.shape[0])

    @property
    def shape(self) -> tuple[int, ...]:
        """Spatial shape ``([Z,] Y, X)``."""
        return tuple(int(n) for n in self.array.shape[1:])

    @property
    def said(self) -> tuple[str, ...]:
        """What was done to bring the channels together, and what is odd about the first file."""
        return *self.notes, *self.geometry.remarks

    @property
    def shape_3d(self) -> tuple[int, int, int]:
        """Spatial shape with three entries; a 2-D image has one slice."""
        return lift_shape(self.shape)


def by_text(said: Mapping[str, Iterable[str]]) -> list[tuple[str, str]]:
    """Return what is said of several cases once: their names in order, the first written out, and the text."""
    named: dict[str, list[str]] = {}
    for name, texts in sorted(said.items()):  # workers finish in any order
        for text in dict.fromkeys(texts):
            named.setdefault(text, []).append(name)
    return [(some(names, _NAMED), text) for text, names in named.items()]


def as_volume(image: Volume | Any, spacing: tuple[float, ...] | None, channels: int) -> Volume:
    """Return a volume of an array.

    Parameters
    ----------
    image : Volume or array-like, shape ([C,] [Z,] Y, X)
        A volume is returned as it is, unless a spacing is given; the first axis may be missing where there is one
        channel.
    spacing : tuple of float, optional
        In mm, one number per spatial axis; arrays need it, volumes get it instead of their own.
    channels : int
        How many there must be.

    Raises
    ------
    ImageError
        If the spacing is missing, or does not fit the array, or that holds no real numbers.
    """
    if isinstance(image, Volume):
        return image if spacing is None else Volume(image.array, image.geometry.with_spacing(spacing, GIVEN))
    array = image if hasattr(image, "shape") else np.asarray(image)
    if (kind := np.dtype(getattr(array, "dtype", float))).kind not in "biuf":
        advice = " Pass the magnitude, or the real part." if kind.kind == "c" else ""
        raise ImageError(f"The array holds {kind} values; an image holds real numbers.{advice}")
    if spacing is None:
        raise ImageError(
            "An array has no voxel size. Pass spacing=(z, y, x) in mm, or (y, x) for a picture; (1, 1) if it has none."
        )
    ndim = len(spacing)
    if len(array.shape) == ndim:
        array = array[None]
    if len(array.shape) != ndim + 1 or array.shape[0] != channels:
        raise ImageError(
            f"The array has shape {tuple(array.shape)}; with {ndim} spacings the model expects "
            f"({channels}, {', '.join('ZYX'[-ndim:])})" + (" or without the first axis." if channels == 1 else ".")
        )
    return Volume(array, Geometry(spacing=tuple(float(s) for s in spacing)))


def digests_of(array: NDArray[Any]) -> Iterator[int]:
    """Yield a digest of the voxels so far, after every few megabytes, and at last of all of them.

    It tells whether a voxel changed. An array is read plane by plane, so that little is copied.
    """
    digest, read = 0, 0
    for plane in array if array.ndim < 4 else (plane for part in array for plane in part):
        digest = zlib.crc32(np.ascontiguousarray(plane).tobytes(), digest)
        read += plane.nbytes
        if read >= _AT_ONCE:
            read = 0
            yield digest
    yield digest


def digest_of(array: NDArray[Any]) -> int:
    """Return a digest of all voxels, to tell whether one changed."""
    *_, digest = digests_of(array)
    return digest


class WatchedArray:
    """An array that is read when it is needed, and notes what was read, so that it can be told whether it was edited.

    Parameters
    ----------
    array : array-like, shape (C, [Z,] Y, X)
        Of dask, zarr, or a file.
    """

    def __init__(self, array: Any) -> None:
        self._array = array
        self.shape, self.dtype, self.ndim = tuple(array.shape), array.dtype, len(array.shape)
        self._seen: dict[str, tuple[Any, int]] = {}

    def __getitem__(self, key: Any) -> NDArray[Any]:
        part = np.asarray(self._array[key])
        self._seen[repr(key)] = key, digest_of(part)
        return part

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self[:], dtype=dtype)

    @property
    def seen(self) -> dict[str, int]:
        """A digest of each part that was read."""
        return {key: digest for key, (_, digest) in self._seen.items()}

    def moved_to(self, array: Any) -> Iterator[bool]:
        """Read from another array from now on; yields of each part that was read whether the array holds it too."""
        self._array = array
        for key, digest in self._seen.values():
            yield digest_of(np.asarray(array[key])) == digest

    def let_go(self) -> None:
        """Hold the array no longer; what was read of it stays known."""
        self._array = None


class NotWholeError(ImageError):
    """Labels have values that are no whole numbers; ``seen`` says which, and how many."""

    def __init__(self, seen: str, message: str, *, shell: str = "", window: str = "") -> None:
        super().__init__(message, shell=shell, window=window)
        self.seen = seen


def is_whole(values: NDArray[Any]) -> NDArray[np.bool_]:
    """Return where floating-point numbers are whole, but for the precision of float32; NaN is not."""
    whole: NDArray[np.bool_] = np.abs(values - np.rint(values)) <= _PRECISION * np.maximum(np.abs(values), 1)
    return whole


def whole_numbers(labels: NDArray[Any], path: Path) -> NDArray[np.int32]:
    """Return labels as int32; refuses what would become another number, or is none."""
    limits = np.iinfo(np.int32)
    if labels.dtype.kind not in "iub":
        rounded = np.rint(labels)
        if not np.array_equal(rounded, labels):
            with np.errstate(invalid="ignore"):
                _refuse_fractions(labels, path)
        labels = rounded
    if labels.size and not np.can_cast(labels.dtype, np.int32):
        lowest, highest = labels.min(), labels.max()
        if not (lowest >= limits.min and highest <= limits.max):  # false for NaN as well
            if invalid := int(np.count_nonzero(~np.isfinite(labels))):
                raise ImageError(
                    f"{path.name} has {counted(invalid, 'voxel that is', 'voxels that are')} NaN or infinite; "
                    "labels are 0, 1, 2, ..."
                )
            raise ImageError(
                f"{path.name} has values from {lowest} to {highest}; labels are whole numbers of at most 32 bits."
            )
    return labels.astype(np.int32)


def _refuse_fractions(labels: NDArray[Any], path: Path) -> None:
    wrong = labels[~is_whole(labels) & np.isfinite(labels)]
    if wrong.size:
        seen = (
            f"{path.name} has the value {wrong.flat[0]:g}, and "
            f"{counted(wrong.size, 'voxel that is no whole number', 'voxels that are not whole numbers')}"
        )
        raise NotWholeError(
            seen,
            f"{seen}; labels are 0, 1, 2, ... Are these probabilities, or was it resampled with interpolation?",
            shell="Save it with whole numbers, or import it with a threshold (import_folders --threshold 0.5).",
            window="Save it with whole numbers, or import it with a threshold (Training cases > Import folders).",
        )
