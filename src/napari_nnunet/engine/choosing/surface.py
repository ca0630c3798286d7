"""How far surfaces lie apart: HD95 and normalised surface Dice, by MONAI (optional; nnU-Net has neither)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_nnunet.engine.choosing.components import around, boxes_of, members
from napari_nnunet.errors import ResourceError
from napari_nnunet.schema.dataset import Region


def require() -> Any:
    """Return MONAI's metrics.

    Raises
    ------
    ResourceError
        If MONAI is not installed.
    """
    try:
        from monai import metrics  # an optional part of the installation
    except ImportError as error:
        raise ResourceError(
            "Surface distances are computed by MONAI, which is not installed. Install it with "
            "'pip install napari-nnunet[metrics]', or leave surface distances out."
        ) from error
    return metrics


def surface_metrics(
    reference: NDArray[Any],
    prediction: NDArray[Any],
    labels: Sequence[Region],
    *,
    spacing: tuple[float, ...],
    tolerance: float = 1.0,
    ignore_label: int | None = None,
) -> dict[Region, dict[str, float]]:
    """Measure the distance between the surfaces of every label or region.

    Parameters
    ----------
    reference, prediction : ndarray of int, shape ([Z,] Y, X)
        On the same grid.
    labels : sequence of int or tuple of int
        Labels, or groups of labels.
    spacing : tuple of float
        Size of a voxel in mm.
    tolerance : float
        Distance in mm up to which surfaces count as the same.
    ignore_label : int, optional
        Voxels with this value in the reference are background in both.

    Returns
    -------
    dict
        ``HD95`` in mm: the larger of the two directed 95th percentiles; ``NSD``: the share of both surfaces that lies
        within the tolerance of the other (Nikolov et al., 2018). Both NaN if the label is in neither; where it is
        in one only, HD95 is NaN and NSD 0.
    """
    import torch  # evaluating without surfaces needs none

    metrics = require()
    boxes = [boxes_of(array, labels) for array in (reference, prediction)]
    found = {}
    for label in labels:
        place = around([box[label] for box in boxes], reference.shape, margin=1)
        valid = True if ignore_label is None else reference[place] != ignore_label
        masks = [np.isin(array[place], members(label)) & valid for array in (reference, prediction)]
        filled = [bool(mask.any()) for mask in masks]
        if not all(filled):
            found[label] = {"HD95": math.nan, "NSD": 0.0 if any(filled) else math.nan}
            continue
        box = _box(masks[0] | masks[1])
        real, predicted = (torch.from_numpy(np.ascontiguousarray(mask[box]))[None, None] for mask in masks)
        hd = metrics.compute_hausdorff_distance(
            predicted, real, include_background=True, percentile=95, spacing=spacing
        )
        nsd = metrics.compute_surface_dice(
            predicted, real, [tolerance], include_background=True, spacing=spacing, use_subvoxels=True
        )
        found[label] = {"HD95": float(hd[0, 0]), "NSD": float(nsd[0, 0])}
    return found


def _box(mask: NDArray[np.bool_]) -> tuple[slice, ...]:
    """Return the smallest box around a mask with one voxel more on each side, within the array."""
    box = []
    for axis in range(mask.ndim):
        inside = np.flatnonzero(mask.any(axis=tuple(a for a in range(mask.ndim) if a != axis)))
        box.append(slice(max(0, int(inside[0]) - 1), int(inside[-1]) + 2))
    return tuple(box)
