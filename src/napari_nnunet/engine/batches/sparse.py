"""How often cases are drawn of which only a part is annotated.

nnU-Net draws every case as often as any other. Of a case of which one slice is annotated a patch tells a few hundred
voxels, of a whole one tens of thousands; where few whole cases and many sparse ones are together, a network learns from
hardly anything. So a case is drawn in proportion to the square root of what is annotated of its patches: between each
case alike and each annotated voxel alike, of which both were worse (docs/benchmarks.md). Where patches of all cases are
annotated to the same degree, as in datasets that are annotated wholly, nothing changes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from napari_nnunet.engine.batches.batch import BatchRule, TrainingArrays
from napari_nnunet.engine.batches.patches import choose_corner, cut_patch
from napari_nnunet.engine.image.locations import location_keys

_LOOKS = 6  # patches of a case
_OFTEN = 64  # times that the most annotated case is in the list
_ALIKE = 1.25  # times: cases whose frequencies differ by less are drawn alike


def annotated_share(case: TrainingArrays, rule: BatchRule) -> float:
    """Return how much of its patches is annotated, in the mean of some that lie around annotated voxels.

    Parameters
    ----------
    case : TrainingArrays
        A preprocessed case.
    rule : BatchRule
        How patches are cut; its scheme has an ignore label.

    Returns
    -------
    float
        From 0 to 1, of those voxels of the patches that lie within the image. It depends on the case alone.
    """
    ignore, annotated = rule.scheme.ignore_label, location_keys(rule.scheme)[-1]
    if ignore is None:
        return 1.0
    rng = np.random.default_rng(0)
    size = tuple(rule.patch.final)
    size = size if len(size) == 3 else (1, *size)
    shape, locations = tuple(case.data.shape[1:]), case.locations()
    told = within = 0
    for _ in range(_LOOKS):
        corner = choose_corner(rng, shape, size, size, locations, forced=False, annotated=annotated)
        patch = cut_patch(case.labels, corner, size, ignore)
        told += int(np.count_nonzero(patch[0] != ignore))
        within += math.prod(max(0, min(n, c + s) - max(0, c)) for n, c, s in zip(shape, corner, size, strict=True))
    return told / max(within, 1)


def drawn_as_often(names: Sequence[str], shares: Sequence[float]) -> tuple[str, ...]:
    """Return names as often as their cases are to be drawn, relative to one another.

    Parameters
    ----------
    names : sequence of str
        Of the cases.
    shares : sequence of float, same length
        What :func:`annotated_share` says of each.

    Returns
    -------
    tuple of str
        The names as they are where all shares are nearly the same; else each at least once, in their order, and the
        most annotated one 64 times.
    """
    weights = np.sqrt(np.asarray(shares, dtype=float))
    most = float(weights.max(initial=0.0))
    if most <= 0 or weights.min() * _ALIKE >= most:
        return tuple(names)
    times = np.maximum(1, np.round(_OFTEN * weights / most)).astype(int)
    return tuple(name for name, count in zip(names, times, strict=True) for _ in range(count))
