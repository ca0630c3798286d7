"""Class probabilities as nnU-Net stores them: CASE.npz with ``probabilities`` and CASE.pkl with the properties."""

from __future__ import annotations

import os
import pickle
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from napari_nnunet.errors import ImageError
from napari_nnunet.formats.atomic import partial_name, write_error, written_beside

_CHUNK_BYTES = 16 << 20
_LEVEL = 1  # deflate: four times as fast as the default level and about as small for softmax values


@contextmanager
def scratch(shape: tuple[int, ...], folder: Path) -> Iterator[NDArray[np.float32]]:
    """Give a float32 array of zeros that lives in a temporary file beside the output, not in memory.

    Raises
    ------
    ResourceError
        If the disk has no room for it; that is known before anything is computed.
    """
    size = int(np.prod(shape, dtype=np.int64)) * 4
    with tempfile.NamedTemporaryFile(dir=folder, prefix=partial_name("probabilities"), suffix=".raw") as file:
        try:
            # A sparse file would only fail when a page of it is touched, and then end the process.
            os.posix_fallocate(file.fileno(), 0, size) if hasattr(os, "posix_fallocate") else file.truncate(size)
        except OSError as error:
            raise write_error(folder, error) from error
        array = np.memmap(file.name, dtype=np.float32, mode="r+", shape=shape)
        try:
            yield array
        finally:
            del array


def write_probabilities(probabilities: NDArray[np.float32], path: Path) -> None:
    """Write (C, Z, Y, X) piece by piece into a compressed npz that numpy and nnU-Net read."""
    with (
        written_beside(path) as temporary,
        zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED, compresslevel=_LEVEL) as archive,
        archive.open("probabilities.npy", "w", force_zip64=True) as member,
    ):
        header = {
            "descr": npy.dtype_to_descr(probabilities.dtype),
            "fortran_order": False,
            "shape": probabilities.shape,
        }
        npy.write_array_header_1_0(cast("BinaryIO", member), header)
        per_plane = max(1, int(np.prod(probabilities.shape[2:])) * probabilities.itemsize)
        step = max(1, _CHUNK_BYTES // per_plane)
        for channel in probabilities:
            for lo in range(0, len(channel), step):
                member.write(np.ascontiguousarray(channel[lo : lo + step]).tobytes())


def read_probabilities(path: Path) -> NDArray[np.float32]:
    """Read (C, Z, Y, X) from an npz.

    Raises
    ------
    ImageError
        If the file is truncated or holds something else.
    """
    try:
        with np.load(path, allow_pickle=False) as content:
            array: NDArray[np.float32] = content["probabilities"]
            return array
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ImageError(f"{path} is not a complete file of probabilities: {error}.") from error


def is_complete(path: Path) -> bool:
    """True where an npz exists and its checksum is right."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None and "probabilities.npy" in archive.namelist()
    except (OSError, zipfile.BadZipFile, EOFError):
        return False


def write_properties(properties: Mapping[str, Any], path: Path) -> None:
    """Write nnU-Net's properties dictionary; it holds plain Python values only."""
    with written_beside(path) as temporary:
        temporary.write_bytes(pickle.dumps(dict(properties), protocol=4))
