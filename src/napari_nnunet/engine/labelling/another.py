"""Whether the labels of a case are those of another case: saved under the wrong name, or exchanged."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_nnunet.engine.choosing.metrics import Joint

_EVERY = 4  # voxel along each axis of a sketch
_ALIKE = 0.95  # mean Dice of masks that are the same, one of them cropped or filled up
_ALIKE_SKETCHES = 0.8
_FEWEST = 20  # voxels of a sketch in which something is drawn: fewer say nothing


@dataclass(frozen=True)
class Sketch:
    """Every fourth voxel of a mask along each axis, so that many masks can be compared.

    Parameters
    ----------
    shape : tuple of int
        Of what is kept.
    packed : bytes
        The voxels, compressed.
    """

    shape: tuple[int, ...]
    packed: bytes

    @classmethod
    def of(cls, labels: NDArray[Any]) -> Sketch:
        """Return the sketch of labels ([Z,] Y, X)."""
        thin = np.ascontiguousarray(labels[(slice(None, None, _EVERY),) * labels.ndim].astype(np.int32))
        return cls(thin.shape, zlib.compress(thin.tobytes(), 1))

    @property
    def labels(self) -> NDArray[np.int32]:
        """Return what is kept."""
        return np.frombuffer(zlib.decompress(self.packed), dtype=np.int32).reshape(self.shape)


def may_be_of(labels: NDArray[np.int32], other: NDArray[np.int32]) -> bool:
    """Return whether two sketches are so alike that their masks have to be compared."""
    if labels.ndim != other.ndim:
        return False
    few = min(int(np.count_nonzero(labels)), int(np.count_nonzero(other)))
    return few < _FEWEST or agreement(labels, other) >= _ALIKE_SKETCHES


def is_of(labels: NDArray[Any], other: NDArray[Any]) -> bool:
    """Return whether labels are those of another case, voxel by voxel from the first corner on."""
    return labels.ndim == other.ndim and agreement(labels, other) >= _ALIKE


def agreement(labels: NDArray[Any], other: NDArray[Any]) -> float:
    """Return the mean Dice, over the drawn classes, of two masks that lie at the first corner; what juts out is cut.

    0 where nothing is drawn in either.
    """
    part = tuple(slice(0, min(a, b)) for a, b in zip(labels.shape, other.shape, strict=True))
    table = Joint.count(labels[part], other[part]).metrics(
        [int(value) for value in np.union1d(np.unique(labels[part]), np.unique(other[part])) if value > 0]
    )
    found = [float(metrics["Dice"]) for metrics in table.values()]
    return sum(found) / len(found) if found else 0.0
