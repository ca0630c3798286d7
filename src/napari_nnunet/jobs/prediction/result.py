"""What goes into a prediction and what comes out of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_nnunet.events import Box
from napari_nnunet.schema.dataset import LabelScheme
from napari_nnunet.schema.geometry import Geometry
from napari_nnunet.schema.requests.prediction import PredictSettings
from napari_nnunet.volume import Volume

if TYPE_CHECKING:
    import torch

    from napari_nnunet.engine.image.prepare import PrepareRecord
    from napari_nnunet.engine.prediction import decode

Focus = Sequence[float | None]


@dataclass(frozen=True, eq=False)
class Prediction:
    """The result of segmenting one image.

    Parameters
    ----------
    labels : ndarray, shape ([Z,] Y, X)
        On the image's own grid.
    geometry : Geometry
        Of the image.
    scheme : LabelScheme
        What the values mean.
    probabilities : ndarray, shape (C, [Z,] Y, X), optional
        Where they were asked for.
    recipe : dict
        Model, hashes, settings and versions behind the result.
    properties : dict
        nnU-Net's properties of the case.
    uncertainty : tuple of two ndarrays, shape ([Z,] Y, X), optional
        Entropy and disagreement of an ensemble, 0 to 1, where they were asked for.
    counts : tuple of int
        Number of voxels of each label value, beginning with 0.
    kinds : dict of int to str, optional
        Where the labels are numbered objects, the kind of each.
    seconds : float
        Wall time.
    """

    labels: NDArray[Any]
    geometry: Geometry
    scheme: LabelScheme
    probabilities: NDArray[np.float32] | None = None
    recipe: dict[str, Any] = field(default_factory=dict)
    properties: dict[str, Any] = field(default_factory=dict)
    uncertainty: tuple[NDArray[np.float32], NDArray[np.float32]] | None = None
    counts: tuple[int, ...] = ()
    kinds: dict[int, str] | None = None
    seconds: float = 0.0


@dataclass(frozen=True, eq=False)
class OpenedImage:
    """An image on its own grid, with the labels (Z, Y, X) of the previous stage where there is one."""

    volume: Volume
    previous: NDArray[Any] | None = None

    @property
    def ndim(self) -> int:
        """Spatial axes of the image."""
        return len(self.volume.shape)


@dataclass(frozen=True, eq=False)
class PreparedImage:
    """An image (C, z, y, x) that is on the network's grid already, with what was done to it."""

    data: torch.Tensor
    record: PrepareRecord
    ndim: int = 3


@dataclass(frozen=True, eq=False)
class Segmentation:
    """One image with everything that was decided about it; ``also`` writes the same result on other grids."""

    image: OpenedImage | PreparedImage
    settings: PredictSettings
    labels: NDArray[Any]  # (Z, Y, X), written in place
    probabilities: NDArray[np.float32] | None  # (C, Z, Y, X), likewise
    focus: Focus | None = None
    roi: Box | None = None
    preview: bool = False
    also: tuple[decode.Assembler, ...] = ()


def count_labels(labels: NDArray[Any], values: int) -> tuple[int, ...]:
    """Count label values plane by plane: a bincount of everything would need eight bytes per voxel."""
    total = np.zeros(values, dtype=np.int64)
    for plane in labels:
        total += np.bincount(plane.ravel(), minlength=values)[:values]
    return tuple(int(n) for n in total)
