"""A region of labels on disk is read, and what somebody changed in it is written back."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_nnunet.errors import ImageError
from napari_nnunet.events import Job, Stage
from napari_nnunet.formats.large.corrections import correct, read_region


def open_region(path: Path, box: Sequence[tuple[int, int]]) -> Job[NDArray[Any]]:
    """Read a region; see :func:`~napari_nnunet.formats.large.corrections.read_region`."""
    yield Stage(name="Reading the region")
    return read_region(path, box)


def save_region(path: Path, corner: Sequence[int], before: NDArray[Any], after: NDArray[Any]) -> Job[int]:
    """Write what was changed; see :func:`~napari_nnunet.formats.large.corrections.correct`."""
    yield Stage(name="Saving corrections")
    return correct(path, corner, before, after)


def read_parts(arrays: Sequence[tuple[str, Any]], box: Sequence[tuple[int, int]]) -> Job[list[NDArray[Any]]]:
    """Read a half-open box of arrays that have a name each.

    Raises
    ------
    ImageError
        If one cannot be read there.
    """
    yield Stage(name="Reading the region")
    found = []
    for name, array in arrays:
        try:
            found.append(np.asarray(array[tuple(slice(lo, hi) for lo, hi in box)]))
        except Exception as error:  # whatever a library raises for a chunk that is damaged or gone
            text = " ".join(str(error).split()) or type(error).__name__
            raise ImageError(
                f"'{name}' cannot be read here: {text.rstrip('.')}. Copy or export the image again, or restore that "
                "part of it."
            ) from error
    return found
