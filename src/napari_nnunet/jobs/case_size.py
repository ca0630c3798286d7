"""How large a case is, before it is read: for the decision how many fit into memory side by side."""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from napari_nnunet.errors import NnunetError
from napari_nnunet.formats.dataset.raw_dataset import TrainingCase
from napari_nnunet.formats.images.files import read_header

SMALL = 150e6  # bytes that a case takes at most whose files are below a megabyte
_SMALL_FILES = 1e6


@dataclass(frozen=True)
class CaseSize:
    """Voxels, channels, bytes per stored value and spacing of a case."""

    voxels: float
    channels: int
    itemsize: int
    spacing: tuple[float, ...]


def bytes_of(path: Path, each: float) -> float:
    """Return what a file takes with so many bytes for each of its values; 0 where its header cannot be read.

    Reading it whole tells why.
    """
    with suppress(NnunetError):
        return math.prod(read_header(path).shape) * each
    return 0.0


def case_size(case: TrainingCase, reader: str | None) -> CaseSize | None:
    """Return the size of a case from the headers of its files.

    None for cases of very small files, where looking would take longer than it saves, and for files that cannot be
    read: these are reported when their turn comes.
    """
    if sum(path.stat().st_size for path in case.images) < _SMALL_FILES:
        return None
    try:
        headers = [read_header(path, reader=reader) for path in case.images]
    except NnunetError:
        return None
    shape, itemsize, geometry = headers[0]
    channels = sum(header.shape[0] for header in headers)
    return CaseSize(float(np.prod(shape[1:])), channels, itemsize, geometry.spacing)


def measure_bytes(case: TrainingCase, reader: str | None) -> float:
    """Return how much memory measuring a case takes at most."""
    grid = case_size(case, reader)
    return SMALL if grid is None else grid.voxels * (8.0 * grid.channels + 2 * grid.itemsize + 24)
