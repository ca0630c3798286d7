"""An image of any size, of which boxes are read."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from napari_nnunet.errors import ImageError, ResourceError, is_out_of_memory
from napari_nnunet.formats.large.place import ImagePlace
from napari_nnunet.schema.geometry import Geometry, lift_shape

AXES = "TCZYX"
_MOST_CHUNKS = 1_000_000
_BESIDE = ("zarr.json", "Thumbs.db", "desktop.ini")  # of a folder, and no voxels: attributes, and what desktops leave
_MOST_NS = 1 << 62  # so that a sum of times is a number that every JSON reader takes


class Stamp(NamedTuple):
    """What tells whether files were changed: how many there are, their bytes, and when they were written (ns).

    ``newest`` is the time of the newest, ``times`` the sum of all: a file that is put back as it was has an older one.
    """

    files: int
    bytes: int
    newest: int
    times: int = 0


@dataclass(frozen=True, eq=False)
class LargeImage:
    """An image whose voxels stay where they are until a box of them is read.

    Parameters
    ----------
    arrays : tuple of array-like
        Anything with ``shape``, ``dtype`` and slicing; several hold channels one after the other.
    axes : str
        A letter per axis of each array: T, C, Z, Y and X in any order, Y and X at least.
    geometry : Geometry
        Grid of the spatial axes, ([Z,] Y, X).
    name : str
        What to call it in sentences.
    files : tuple of Path
        Files and folders it lies in; empty for arrays in memory.
    level : Level or None
        Where it comes from in a pyramid.
    notes : tuple of str
        What was chosen in opening it, in sentences.
    again : callable, optional
        Opens the same image in another process, to which it can be sent; None for arrays of this process.
    place : ImagePlace, optional
        Where it lies, if ``geometry`` does not say that: no patient's directions are known of OME-Zarr and layers, so
        that models which turn images take them as they lie.
    behind : tuple of Path
        Files that other processes read, where the arrays are in this one.

    Raises
    ------
    ImageError
        If axes and arrays do not fit together.
    """

    arrays: tuple[Any, ...]
    axes: str
    geometry: Geometry
    name: str
    files: tuple[Path, ...] = ()
    level: Any = None
    notes: tuple[str, ...] = ()
    again: Callable[[], LargeImage] | None = None
    place: ImagePlace | None = None
    behind: tuple[Path, ...] = ()

    def __post_init__(self) -> None:
        shapes = [tuple(int(n) for n in array.shape) for array in self.arrays]
        check_axes(self.axes, len(shapes[0]), self.name)
        if 0 in shapes[0]:
            raise ImageError(f"{self.name} is empty: its shape is {_times(shapes[0])}.")
        without = [tuple(n for n, axis in zip(shape, self.axes, strict=True) if axis != "C") for shape in shapes]
        if len(set(without)) > 1:
            raise ImageError(
                f"The channels of {self.name} have different shapes: {', '.join(map(_times, shapes))}. Give channels "
                "that lie on one grid."
            )
        kind = np.dtype(self.arrays[0].dtype).kind
        if kind not in "buif":
            raise ImageError(f"{self.name} holds values of type {self.arrays[0].dtype}; an image holds real numbers.")

    def _size(self, axis: str) -> int:
        return int(self.arrays[0].shape[self.axes.index(axis)]) if axis in self.axes else 1

    @property
    def shape(self) -> tuple[int, ...]:
        """Spatial shape ([Z,] Y, X)."""
        return tuple(self._size(axis) for axis in "ZYX" if axis in self.axes)

    @property
    def shape_3d(self) -> tuple[int, int, int]:
        """Spatial shape with three entries; a 2-D image has one slice."""
        return lift_shape(self.shape)

    @property
    def channels(self) -> int:
        """Number of channels, of all arrays together."""
        place = self.axes.find("C")
        return sum(int(array.shape[place]) if place >= 0 else 1 for array in self.arrays)

    @property
    def itemsize(self) -> int:
        """Bytes of a value."""
        return int(np.result_type(*(array.dtype for array in self.arrays)).itemsize)

    @property
    def times(self) -> int:
        """Number of time points."""
        return self._size("T")

    @property
    def lies(self) -> ImagePlace:
        """Where it lies, as far as that is known."""
        return self.place or ImagePlace(self.geometry)

    @property
    def unsaid(self) -> str:
        """What tells that labels in an OME-Zarr do not lie over their image by what the file says; "" if they do."""
        how = self.lies.unsaid(self.shape)
        if not how:
            return ""
        return (
            f"{self.name} {how}, which OME-Zarr cannot say: where the labels are opened later, their first voxel lies "
            f"right and the others do not, until they are given the place of {self.name}; they are its voxels one by "
            "one."
        )

    @property
    def chunk_3d(self) -> tuple[int, int, int]:
        """Voxels (z, y, x) that are stored together; a row where nothing is known of that."""
        known = getattr(self.arrays[0], "chunks", None) or ()
        z, y, x = 1, 1, self._size("X")
        if len(known) == len(self.axes):
            # Those of dask are tuples, one number per chunk.
            edges = {a: max(c) if isinstance(c, tuple) else int(c) for a, c in zip(self.axes, known, strict=True)}
            z, y, x = (max(1, edges.get(axis, 1)) for axis in "ZYX")
        return z, y, x

    @property
    def is_address(self) -> bool:
        """Whether it lies on another machine, whose files cannot be watched."""
        return self.again is not None and not self.files and not self.behind

    def missing_chunks(self) -> tuple[int, int, Any] | None:
        """Return how many chunks of a zarr are not stored, of how many, and what they count as.

        Of an address, those are known that were looked for. Chunks that lie in one file, a shard, count as one. None
        where that is not known, or would take minutes.
        """
        stores = [getattr(array, "store", None) for array in self.arrays]
        if not all(hasattr(store, "root") or hasattr(store, "missed") for store in stores):
            return None
        if sum(int(array.nchunks) for array in self.arrays) > _MOST_CHUNKS:  # zarr would go through the names of all
            return None
        every = stored = 0
        for array, store in zip(self.arrays, stores, strict=True):
            shard = getattr(array, "shards", None) or array.chunks
            inside = math.prod(s // c for s, c in zip(shard, array.chunks, strict=True))
            count = math.prod(-(-n // s) for n, s in zip(array.shape, shard, strict=True))
            missed, own = getattr(store, "missed", None), f"{array.path}/" if array.path else ""
            every += count
            if missed is None:
                stored += int(array.nchunks_initialized) // inside
            else:
                stored += count - sum(key.startswith(own) for key in missed)
        return every - stored, every, self.arrays[0].fill_value

    def read(self, box: Sequence[tuple[int, int]], time: int = 0) -> NDArray[Any]:
        """Read a half-open box (z, y, x) of a time point; a 2-D image has one slice.

        Returns
        -------
        ndarray, shape (C, z, y, x)

        Raises
        ------
        ImageError
            If the source cannot be read there.
        """
        wanted = {axis: slice(int(lo), int(hi)) for axis, (lo, hi) in zip("ZYX", box, strict=True)}
        return self.taken(wanted, time)

    def taken(self, wanted: Mapping[str, slice], time: int = 0) -> NDArray[Any]:
        """Read what slices of the axes Z, Y and X name, of a time point, as :meth:`read` does; the others are whole."""
        known = {"T": slice(time, time + 1), **wanted}
        index = tuple(known.get(axis, slice(None)) for axis in self.axes)
        order = [self.axes.index(axis) for axis in AXES if axis in self.axes]
        missing = tuple(i for i, axis in enumerate(AXES) if axis not in self.axes)
        try:
            parts = [np.asarray(array[index]).transpose(order) for array in self.arrays]
            # Always (1, C, z, y, x): axes that are missing have one plane.
            whole = [np.expand_dims(part, missing) for part in parts]
            return (whole[0] if len(whole) == 1 else np.concatenate(whole, axis=1))[0]
        except Exception as error:  # whatever a library raises for a chunk that is damaged or gone
            if is_out_of_memory(error) or isinstance(error, ResourceError):
                raise
            ends = ((axis, part.indices(self._size(axis))) for axis, part in wanted.items() if axis in self.axes)
            where = ", ".join(f"{axis.lower()} {lo} to {hi}" for axis, (lo, hi, _) in ends)
            time_point = f" of time point {time + 1}" if self.times > 1 else ""
            what_to_do = "Copy or export the image again, or restore that part of it."
            if self.is_address:
                what_to_do = "See whether its address answers, and continue what was begun; or copy the image."
            raise ImageError(
                f"The voxels {where}{time_point} of {self.name} cannot be read: {_line(error)}. {what_to_do}"
            ) from error

    def stamp(self) -> Stamp:
        """Return what tells later whether the files were changed meanwhile."""
        sizes, newest, times = [], 0, 0
        for file in self.files:
            for entry in _entries(file):
                sizes.append(entry.st_size)
                newest = max(newest, entry.st_mtime_ns)
                times = (times + entry.st_mtime_ns) % _MOST_NS
        return Stamp(len(sizes), sum(sizes), newest, times)


class TimePoint:
    """A time point of an image as an array (C, [Z,] Y, X) that is read when it is sliced.

    Parameters
    ----------
    image : LargeImage
        The image.
    time : int
        The time point.
    """

    def __init__(self, image: LargeImage, time: int = 0) -> None:
        self._image, self._time = image, time
        self.shape = (image.channels, *image.shape)
        self.dtype, self.ndim = np.result_type(*(array.dtype for array in image.arrays)), len(self.shape)

    def __getitem__(self, key: Any) -> NDArray[Any]:
        parts = list(key) if isinstance(key, tuple) else [key]
        if len(parts) > self.ndim or not all(isinstance(part, slice) for part in parts):
            return self.__array__()[key]
        parts += [slice(None)] * (self.ndim - len(parts))
        channels, space = parts[0], parts[1:]
        found = self._image.taken(dict(zip("ZYX"[-len(space) :], space, strict=True)), self._time)
        return (found if len(space) == 3 else found[:, 0])[channels]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self[:], dtype=dtype)


def check_axes(axes: str, ndim: int, name: str) -> None:
    """Raise ImageError unless there is a known letter per axis, each once, Y and X among them."""
    if len(axes) != ndim or len(set(axes)) != ndim or set(axes) - set(AXES) or not {"Y", "X"} <= set(axes):
        raise ImageError(
            f"{name} has {ndim} axes, and {axes or 'nothing'!r} does not say which is what. Give one letter per axis: "
            "T (time), C (channel), Z, Y, X.",
            shell="For instance --axes CZYX.",
        )


def _entries(path: Path) -> Iterator[os.stat_result]:
    """Give what the system knows of a file, or of all files in a folder and below; results within it do not count."""
    if not path.is_dir():
        yield path.stat()
        return
    with os.scandir(path) as found:
        for entry in found:
            if entry.is_dir(follow_symlinks=False):  # links may lead in circles
                if entry.name != "labels":
                    yield from _entries(Path(entry.path))
            elif entry.name not in _BESIDE and (entry.name == ".zarray" or not entry.name.startswith(".")):
                yield entry.stat()


def _times(numbers: Sequence[int]) -> str:
    return " x ".join(str(n) for n in numbers)


def _line(error: BaseException) -> str:
    return (" ".join(str(error).split()) or type(error).__name__).rstrip(".")
