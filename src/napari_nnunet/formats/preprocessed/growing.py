"""Preprocessed arrays that are written box by box, for cases that are never in memory as a whole."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import blosc2
import numpy as np
from numpy.typing import NDArray

from napari_nnunet.formats.atomic import partial_name, write_error, written_beside
from napari_nnunet.formats.preprocessed.cases import compression
from napari_nnunet.formats.preprocessed.chunks import chunks_and_blocks, joined_slices

_SIDE = 256  # of a chunk of what is only kept for a while


class Growing:
    """An array on disk, (C, z, y, x), of which boxes are written and read.

    Parameters
    ----------
    path : Path
        What it will be called.
    array : blosc2.NDArray
        The array.
    """

    def __init__(self, path: Path, array: Any) -> None:
        self._path, self._array = path, array
        self.shape: tuple[int, int, int] = tuple(int(n) for n in array.shape[1:])  # type: ignore[assignment]
        self.chunk: tuple[int, int, int] = tuple(int(n) for n in array.chunks[1:])  # type: ignore[assignment]

    def write(self, box: Sequence[tuple[int, int]], values: NDArray[Any]) -> None:
        """Write a half-open box (z, y, x) of whole chunks; values (C, z, y, x) or (z, y, x)."""
        place = tuple(slice(lo, hi) for lo, hi in box)
        with_channels = values if values.ndim == 4 else values[None]
        try:
            for channel, own in enumerate(with_channels):
                self._array[(slice(channel, channel + 1), *place)] = np.ascontiguousarray(own[None])
        except RuntimeError as error:
            # blosc2 does not pass on what the system said
            raise write_error(self._path, f"the disk is full, or refuses the file ({error})") from error

    def read(self, box: Sequence[tuple[int, int]]) -> NDArray[Any]:
        """Read a half-open box; (C, z, y, x)."""
        return np.asarray(self._array[(slice(None), *(slice(lo, hi) for lo, hi in box))])

    def __getitem__(self, key: tuple[slice, ...]) -> NDArray[Any]:
        """Read slices of the three axes of the first channel."""
        return np.asarray(self._array[(slice(0, 1), *key)])[0]


@contextmanager
def growing(
    path: Path, shape: Sequence[int], sample: NDArray[Any], patch: Sequence[int], staging: Path
) -> Iterator[Growing]:
    """Give an array that becomes a file of a preprocessed case when all of it is written.

    Parameters
    ----------
    path : Path
        See :func:`~napari_nnunet.formats.preprocessed.cases.preprocessed_files`.
    shape : sequence of int
        (C, z, y, x).
    sample : ndarray
        Some of what will be written: decides the type, and how it is packed.
    patch, staging
        As :func:`~napari_nnunet.formats.preprocessed.cases.store_case` has them.
    """
    itemsize = sample.dtype.itemsize
    chunks, blocks = chunks_and_blocks(shape, patch, itemsize)
    with written_beside(path, staging=staging, suffix=".b2nd", durable=False) as temporary:
        yield _begun(path, temporary, shape, joined_slices(shape, patch, chunks, itemsize), blocks, sample)


@contextmanager
def kept_meanwhile(
    staging: Path, name: str, shape: Sequence[int], planes: int, sample: NDArray[Any]
) -> Iterator[Growing]:
    """Give an array (1, z, y, x) that is written by so many whole planes, and deleted in the end."""
    path = staging / (partial_name(name) + ".b2nd")
    chunks = (1, min(planes, shape[1]), *(min(_SIDE, n) for n in shape[2:]))
    blocks = (1, min(8, chunks[1]), *(min(64, n) for n in chunks[2:]))
    try:
        yield _begun(path, path, shape, chunks, blocks, sample)
    finally:
        path.unlink(missing_ok=True)


def _begun(
    path: Path,
    temporary: Path,
    shape: Sequence[int],
    chunks: Sequence[int],
    blocks: Sequence[int],
    sample: NDArray[Any],
) -> Growing:
    try:
        array = blosc2.zeros(
            tuple(shape),
            dtype=sample.dtype,
            chunks=tuple(chunks),
            blocks=tuple(blocks),
            urlpath=str(temporary),
            mode="w",
            cparams=compression(sample),
            dparams=blosc2.DParams(nthreads=1),
        )
    except RuntimeError as error:
        raise write_error(path, f"the disk is full, or refuses the file ({error})") from error
    return Growing(path, array)
