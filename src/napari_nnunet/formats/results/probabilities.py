"""Class probabilities as nnU-Net stores them: CASE.npz with ``probabilities`` and CASE.pkl with the properties."""

from __future__ import annotations

import os
import pickle
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from napari_nnunet.errors import ImageError
from napari_nnunet.formats.atomic import partial_name, write_error, written_beside
from napari_nnunet.formats.regular import regular
from napari_nnunet.formats.room import require_room
from napari_nnunet.grid import Turned

KEEP_PROBABILITIES = {
    "shell": "Predict with --save_probabilities (validate with --npz) to have it.",
    "window": "Predict, or train, with 'Probabilities' ticked to have it.",
}
_CHUNK_BYTES = 16 << 20
_LEVEL = 1  # deflate: four times as fast as the default level and about as small for softmax values


@contextmanager
def scratch(shape: tuple[int, ...], folder: Path, dtype: Any = np.float32) -> Iterator[NDArray[Any]]:
    """Give an array of zeros that lives in a temporary file next to the output, not in memory.

    The file has no name where the system allows it: it is gone when the process is, also in a folder that was moved.

    Raises
    ------
    ResourceError
        If the disk has no room for it; that is known before anything is computed.
    """
    size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
    with tempfile.TemporaryFile(dir=folder, prefix=partial_name("probabilities"), suffix=".raw") as file:
        try:
            # A sparse file would only fail when a page of it is touched, and then end the process.
            os.posix_fallocate(file.fileno(), 0, size) if hasattr(os, "posix_fallocate") else file.truncate(size)
        except OSError as error:
            raise write_error(folder, error) from error
        # Not by its name: Windows lets nobody open a temporary file a second time.
        array = np.memmap(cast("BinaryIO", file), dtype=dtype, mode="r+", shape=shape)
        try:
            yield array
        finally:
            del array


class ProbabilityWriter:
    """Writes (C, Z, Y, X) plane by plane into a compressed npz that numpy and nnU-Net read.

    Parameters
    ----------
    member : file
        An open member of the archive, from :func:`probability_writer`.
    shape : tuple of int
        (C, Z, Y, X).
    """

    def __init__(self, member: BinaryIO, shape: tuple[int, ...]) -> None:
        self._member = member
        header = {"descr": npy.dtype_to_descr(np.dtype(np.float32)), "fortran_order": False, "shape": shape}
        npy.write_array_header_1_0(member, header)

    def write(self, planes: NDArray[np.float32]) -> None:
        """Append the next planes (k, Y, X), class by class."""
        self._member.write(np.ascontiguousarray(planes, dtype=np.float32).tobytes())


@contextmanager
def probability_writer(path: Path, shape: tuple[int, ...]) -> Iterator[ProbabilityWriter]:
    """Give a writer; the file appears when all planes were written."""
    with (
        written_beside(path) as temporary,
        zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED, compresslevel=_LEVEL) as archive,
        archive.open("probabilities.npy", "w", force_zip64=True) as member,
    ):
        yield ProbabilityWriter(cast("BinaryIO", member), shape)


def planes_at_once(shape: tuple[int, ...]) -> int:
    """Return how many planes of (C, Z, Y, X) are read or written in one piece."""
    return max(1, _CHUNK_BYTES // max(1, 4 * int(np.prod(shape[2:]))))


def write_probabilities(probabilities: NDArray[np.float32], path: Path) -> None:
    """Write (C, Z, Y, X) piece by piece into a compressed npz that numpy and nnU-Net read."""
    step = planes_at_once(probabilities.shape)
    with probability_writer(path, probabilities.shape) as writer:
        for channel in probabilities:
            for lo in range(0, len(channel), step):
                writer.write(channel[lo : lo + step])


class ProbabilityReader:
    """Reads (C, Z, Y, X) plane by plane, so that no volume need fit into memory.

    Parameters
    ----------
    path : Path
        An npz with ``probabilities`` (nnU-Net v2 and ours) or ``softmax`` (nnU-Net v1).

    Raises
    ------
    ImageError
        If the file is missing, truncated or holds something else.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._explained():
            self._archive = zipfile.ZipFile(regular(path))
            try:
                names = set(self._archive.namelist())
                name = next((key for key in ("probabilities", "softmax") if f"{key}.npy" in names), None)
                if name is None:
                    raise ValueError(f"it holds {', '.join(sorted(names)) or 'nothing'}, but no 'probabilities'")
                self._member = self._archive.open(f"{name}.npy")
                self.shape, self._dtype = self._header()
            except BaseException:
                self._archive.close()
                raise

    def _header(self) -> tuple[tuple[int, int, int, int], np.dtype[Any]]:
        version = npy.read_magic(cast("BinaryIO", self._member))
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, fortran, dtype = read(cast("BinaryIO", self._member))
        if len(shape) != 4 or fortran or dtype.kind != "f":
            raise ValueError(f"its array is {dtype} of shape {shape}; floating point (C, Z, Y, X) was expected")
        c, z, y, x = (int(n) for n in shape)
        return (c, z, y, x), dtype

    def read(self, planes: int) -> NDArray[np.float32]:
        """Return the next planes (k, Y, X); classes follow one another."""
        _, _, y, x = self.shape
        size = planes * y * x * self._dtype.itemsize
        require_room(self.path, (planes, y, x), self._dtype.itemsize)
        with self._explained():
            data = self._member.read(size)
            if len(data) != size:
                raise EOFError("it ends too early")
            return np.frombuffer(data, dtype=self._dtype).reshape(planes, y, x).astype(np.float32, copy=False)

    def close(self) -> None:
        """Close the file."""
        self._member.close()
        self._archive.close()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            raise ImageError(f"{self.path} is missing.", **KEEP_PROBABILITIES) from error
        except Exception as error:  # numpy reads headers as if they were Python: anything may come of a damaged one
            raise ImageError(f"{self.path} is not a complete probabilities file: {error}.") from error


class TurnedReader:
    """Probabilities that are stored in another orientation, class by class on the grid of the first member."""

    def __init__(self, reader: ProbabilityReader, turned: Turned) -> None:
        self._reader, self._turned = reader, turned
        self._left: NDArray[Any] | None = None

    def read(self, planes: int) -> NDArray[Any]:
        """Return the next planes; a class is read whole, for its first plane may be the last one stored."""
        if self._left is None or not len(self._left):
            self._left = self._turned.turn(self._reader.read(self._reader.shape[1]))
        out, self._left = self._left[:planes], self._left[planes:]
        return out


def is_complete(path: Path) -> bool:
    """True if an npz exists and its checksum is right."""
    try:
        with zipfile.ZipFile(regular(path)) as archive:
            return archive.testzip() is None and "probabilities.npy" in archive.namelist()
    except (OSError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error):
        return False


def holds_probabilities(path: Path) -> bool:
    """True if a file holds class probabilities as nnU-Net stores them."""
    try:
        ProbabilityReader(path).close()
    except ImageError:
        return False
    return True


def write_properties(properties: Mapping[str, Any], path: Path) -> None:
    """Write nnU-Net's properties dictionary; it holds plain Python values only."""
    with written_beside(path) as temporary:
        temporary.write_bytes(pickle.dumps(dict(properties), protocol=4))
