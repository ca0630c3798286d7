"""A region of labels on disk is read, and what somebody changed in it is written back."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

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
