"""How large a case is, before it is read: for the decision how many fit into memory side by side."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from napari_nnunet.engine.machine import available_memory, shared_by
from napari_nnunet.errors import NnunetError
from napari_nnunet.formats.dataset.raw_dataset import TrainingCase
from napari_nnunet.formats.images.files import read_header
from napari_nnunet.schema.plans import Configuration, Plans

SMALL = 150e6  # bytes that a case takes at most whose files are below a megabyte
_SMALL_FILES = 1e6
_SHARE = 0.85  # of the free memory, where nothing is said of it
_PROGRAM = 250e6  # bytes of a process with numpy, scipy and ITK


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


def prepare_bytes(case: TrainingCase, plans: Plans, targets: Sequence[tuple[Configuration, Path]]) -> float:
    """Return how much memory a case takes while it is preprocessed at once, from the headers of its files.

    Raises nothing: a file that cannot be read is reported when its turn comes.
    """
    grid = case_size(case, plans.reader)
    if grid is None:
        return SMALL
    voxels, channels, itemsize = grid.voxels, grid.channels, grid.itemsize
    spacing = grid.spacing
    largest = 0.0
    for configuration, _ in targets:
        own = sorted(spacing, reverse=True)[-len(configuration.spacing) :]
        largest = max(largest, voxels * float(np.prod(own)) / float(np.prod(configuration.spacing)))
    return voxels * ((4 + itemsize) * channels + 8) + largest * (4 * channels + 8)


def room_for_case(memory_gb: float) -> float:
    """Return how many bytes the arrays of a case may take, of what was asked for, or of what is free.

    Cases of small files are worked on at once whatever was asked for.
    """
    whole = memory_gb * 1e9 if memory_gb else _SHARE * available_memory() / shared_by()
    return max(SMALL, whole - _PROGRAM)


def in_parts(case: TrainingCase, reader: str | None, needed: float, room: float) -> bool:
    """Whether a case that needs more memory than there is can be read box by box.

    False also for files that cannot be read at all: reading them whole tells why.
    """
    if needed <= room:
        return False
    from napari_nnunet.formats.large.opening import read_in_parts  # loads tifffile, for large cases alone

    try:
        return all(read_in_parts(path, reader) for path in (*case.images, case.label))
    except NnunetError:
        return False


def bytes_within(room: float, case: TrainingCase, reader: str | None, needed: Callable[[], float]) -> float:
    """Return how much memory a case takes that takes so much at once, where it is worked on in parts if it must be."""
    whole = needed()
    return room if in_parts(case, reader, whole, room) else whole
