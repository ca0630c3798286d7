"""Deep supervision: every resolution of the decoder is compared with a coarser target.

Each step down halves the weight in the loss; the lowest resolution has none.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from napari_nnunet.engine.image.axis_operators import nearest_index

Strides = Sequence[Sequence[int]]


def output_scales(strides: Strides) -> list[tuple[float, ...]]:
    """Return the size of every output relative to the patch, finest first; the bottom of the network has none."""
    total = np.cumprod(np.asarray(strides, dtype=float), axis=0)
    return [tuple(float(v) for v in 1 / row) for row in total[:-1]]


def output_weights(outputs: int) -> list[float]:
    """Return how much each output counts in the loss: halved from one to the next, the coarsest not at all.

    With a single output (a network of two stages) it counts fully; nnU-Net divides by zero there.
    """
    weights = [0.5**i for i in range(outputs)]
    if outputs > 1:
        weights[-1] = 0.0
    return [weight / sum(weights) for weight in weights]


def downsample_target(target: Tensor, scales: Sequence[Sequence[float]]) -> list[Tensor]:
    """Return targets (..., [z,] y, x) for every output by nearest voxels.

    Parameters
    ----------
    target : Tensor
        Labels, or one boolean channel per region; of a sample or a whole batch.
    scales : sequence
        From :func:`output_scales`.
    """
    found = []
    for scale in scales:
        small = target
        for axis, factor in enumerate(scale, start=target.ndim - len(scale)):
            size = target.shape[axis]
            goal = round(size * factor)
            if goal != size:
                index = torch.from_numpy(nearest_index(size, goal)).to(target.device)
                small = small.index_select(axis, index)
        found.append(small)
    return found
