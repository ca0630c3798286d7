"""One validation slice, predicted every few epochs: watching a network learn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from napari_nnunet.engine.batches.cascade import one_hot
from napari_nnunet.engine.batches.patches import cut_patch
from napari_nnunet.engine.prediction.decode import decode_probabilities
from napari_nnunet.engine.training.learner import Learner
from napari_nnunet.formats.atomic import make_folder, written_beside
from napari_nnunet.jobs.training.loader import BatchSource
from napari_nnunet.jobs.training.order import Order
from napari_nnunet.schema.geometry import lift_shape

_FRAMES = 100  # of a whole training, about


class Film:
    """Writes ``film/image.npy``, ``film/reference.npy`` and ``film/epoch_00010.npy``, all (y, x).

    Parameters
    ----------
    order : Order
        Whose first validation case is shown.
    source : BatchSource
        Opens it.
    """

    def __init__(self, order: Order, source: BatchSource) -> None:
        self._order = order
        self._source = source
        self._patch: torch.Tensor | None = None
        self._plane = 0

    def wants(self, epoch: int, epochs: int) -> bool:
        """Whether a frame is due after so many finished epochs."""
        return epoch == epochs or (epoch - 1) % max(1, epochs // _FRAMES) == 0

    def shoot(self, learner: Learner, epoch: int) -> Path:
        """Predict the slice and write a frame; returns its path.

        Raises
        ------
        ResourceError
            If it cannot be written.
        """
        folder = make_folder(self._order.folder.film)
        if self._patch is None:
            self._patch = self._prepare(folder)
        logits = learner.predict(self._patch[None])[0]
        scheme = self._order.info.labels
        labels = decode_probabilities(torch.sigmoid(logits) if scheme.has_regions else logits, scheme).numpy()
        path = folder / f"epoch_{epoch:05d}.npy"
        _write(path, labels[self._plane] if labels.ndim == 3 else labels)
        return path

    def _prepare(self, folder: Path) -> torch.Tensor:
        """Return the patch around the largest cross-section of foreground, and write image and reference."""
        case = self._source.case(self._order.split.val[0])
        patch = self._order.configuration.patch_size
        size = lift_shape(patch)
        labels = np.asarray(case.labels[0])
        area = (labels > 0).sum(axis=(1, 2))
        z = int(area.argmax()) if area.any() else labels.shape[0] // 2
        inside = np.argwhere(labels[z] > 0)
        y, x = inside.mean(axis=0) if len(inside) else (n / 2 for n in labels.shape[1:])
        corner = tuple(
            max(0, min(round(float(centre)) - n // 2, full - n))
            for centre, n, full in zip((z, y, x), size, labels.shape, strict=True)
        )
        image, reference = cut_patch(case.data, corner, size, 0), cut_patch(case.labels, corner, size, 0)
        if self._order.previous_labels:
            before = cut_patch(case.previous, corner, size, 0, lifted=True)[0]
            image = np.concatenate((image, one_hot(before, self._order.previous_labels)))
        self._plane = z - corner[0]
        flat = len(patch) == 2
        _write(folder / "image.npy", image[0, self._plane])
        _write(folder / "reference.npy", np.maximum(reference[0, self._plane], 0))
        return torch.from_numpy(image[:, 0] if flat else image)


def _write(path: Path, array: NDArray[Any]) -> None:
    with written_beside(path, suffix=".npy", durable=False) as temporary:
        np.save(temporary, array)
