"""What is kept of an image larger than memory until its result is there: written block by block, read in boxes."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_nnunet.errors import ImageError
from napari_nnunet.formats.large.journal import Writing
from napari_nnunet.formats.large.ome_zarr import library
from napari_nnunet.formats.large.source import LargeImage
from napari_nnunet.formats.large.unpacking import bounded

_FILE = 1 << 18  # voxels of a class in one file, about


class KeptImage:
    """Values of every voxel that are kept within an unfinished result.

    Parameters
    ----------
    unfinished : Path
        The unfinished result.
    image : LargeImage
        What is segmented.
    chunk : sequence of int
        Chunks of the result (z, y, x), of which blocks are made.
    name : str
        What it is called there.
    channels : int
        Values of a voxel.
    dtype : str
        Their type.
    packed : bool
        Whether files are packed.
    """

    def __init__(
        self,
        unfinished: Path,
        image: LargeImage,
        chunk: Sequence[int],
        *,
        name: str,
        channels: int,
        dtype: str,
        packed: bool = False,
    ) -> None:
        self._path, self._image, self._channels, self._packed = unfinished / name, image, channels, packed
        self._chunk, self._dtype = thinner(tuple(chunk[-len(image.shape) :])), np.dtype(dtype)
        self._zarr = library("zarr", "What is worked out of large images is kept")
        self._array: Any = None
        # The same for reading: whatever its metadata name, nothing in its chunks is carried out.
        self._there: Any = None

    @property
    def _shape(self) -> tuple[int, ...]:
        return (self._image.times, self._channels, *self._image.shape)

    @property
    def bytes(self) -> float:
        """What it takes on the disk, at most: files of nothing but zeros are not written."""
        return float(self._dtype.itemsize * math.prod(self._shape))

    @property
    def exists(self) -> bool:
        """Whether some run made it."""
        return self._path.is_dir()

    @property
    def stored(self) -> float:
        """Bytes of it that are on the disk by now."""
        return _size(self._path) if self.exists else 0.0

    def open(self, *, begun: bool) -> None:
        """Make room for it, or open what an earlier run began; raises ImageError if that is damaged."""
        if begun:
            try:
                self._array = self._zarr.open_array(str(self._path), mode="r+")
                self._there = bounded(self._array, str(self._path))
            except ImageError:
                raise
            except Exception as error:  # whatever a store raises
                raise self._damaged(" ".join(str(error).split()).rstrip(".")) from error
            found = self._array.shape, self._array.chunks, self._array.dtype
            if found != (self._shape, (1, 1, *self._chunk), self._dtype):
                raise self._damaged("it is of an image of another shape, or in other parts")
            return
        with Writing(self._path.parent):
            self._array = self._there = self._zarr.create_array(
                str(self._path),
                shape=self._shape,
                chunks=(1, 1, *self._chunk),
                dtype=self._dtype,
                fill_value=0,
                compressors="auto" if self._packed else None,
                overwrite=True,
            )

    def _damaged(self, what: str) -> ImageError:
        return ImageError(f"{self._path} is damaged: {what}. Delete {self._path.parent} and begin again.")

    def write(self, box: Sequence[tuple[int, int]], channels: Sequence[NDArray[Any]], time: int = 0) -> None:
        """Write a box of a time point.

        Parameters
        ----------
        box : sequence of (int, int)
            Half-open (z, y, x); several processes may write boxes that are made of whole chunks.
        channels : sequence of ndarray, shape (z, y, x)
            The values.
        time : int
            The time point.

        Raises
        ------
        ResourceError
            If the disk is full or not there; what was written before stays.
        """
        index = tuple(slice(lo, hi) for lo, hi in box)[-len(self._image.shape) :]
        with Writing(self._path.parent):
            for place, values in enumerate(channels):
                self._array[(time, place, *index)] = values if len(index) == 3 else values[0]

    def read(self, box: Sequence[tuple[int, int]], time: int = 0) -> NDArray[Any]:
        """Read a box (z, y, x) of a time point, (C, z, y, x)."""
        index = tuple(slice(lo, hi) for lo, hi in box)[-len(self._image.shape) :]
        found = self.at(time)[(slice(None), *index)]
        return found if found.ndim == 4 else found[:, None]

    def at(self, time: int) -> OneTime:
        """Return a time point, (C, [Z,] Y, X)."""
        return OneTime(self._there, time)


class ProbabilityImage(KeptImage):
    """Probabilities of a few classes.

    They are stored as they are: packed, they would be little smaller, and slower to read slab by slab.

    Parameters
    ----------
    unfinished, image, chunk
        As :class:`KeptImage` has them.
    heads : sequence of int
        Places of the classes among the network's outputs.
    """

    def __init__(self, unfinished: Path, image: LargeImage, chunk: Sequence[int], heads: Sequence[int]) -> None:
        self.heads = tuple(heads)
        super().__init__(unfinished, image, chunk, name="probabilities", channels=len(self.heads), dtype="float32")


class OneTime:
    """A time point as an array that is read when it is sliced."""

    def __init__(self, array: Any, time: int) -> None:
        self._array, self._time = array, time
        self.shape = tuple(array.shape[1:])

    def __getitem__(self, key: tuple[Any, ...]) -> NDArray[Any]:
        try:
            return np.asarray(self._array[(self._time, *key)])
        except OSError as error:
            raise ImageError(
                f"{self._array.store_path} cannot be read: {error}. Delete the unfinished result and begin again."
            ) from error


def thinner(chunk: tuple[int, ...]) -> tuple[int, ...]:
    """Return chunks that are thinner along the first axis, by a whole divisor: slabs along it are read."""
    most = max(1, _FILE // math.prod(chunk[1:]))
    return max(n for n in range(1, chunk[0] + 1) if chunk[0] % n == 0 and n <= most), *chunk[1:]


def _size(folder: Path) -> float:
    total = 0.0
    with os.scandir(folder) as found:
        for entry in found:
            total += _size(Path(entry.path)) if entry.is_dir(follow_symlinks=False) else entry.stat().st_size
    return total
