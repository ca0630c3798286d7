"""How much of each class there is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from napari_nnunet.schema.dataset import LabelScheme


@dataclass(frozen=True)
class ClassVolume:
    """How much of a class there is."""

    value: int
    name: str
    voxels: int
    mm3: float | None


def class_volumes(counts: Sequence[int], scheme: LabelScheme, voxel_mm: Sequence[float] | None) -> list[ClassVolume]:
    """Return voxels and mm3 of every foreground class; ``counts[v]`` is the number of voxels of label v.

    Values that the scheme does not know, which somebody painted, come last.
    """
    size = float(np.prod(voxel_mm)) if voxel_mm is not None else None
    rows = []
    painted = {value: f"label {value}" for value, n in enumerate(counts) if n and value not in scheme.names}
    for value, name in {**scheme.names, **painted}.items():
        if value != 0:
            n = int(counts[value]) if value < len(counts) else 0
            rows.append(ClassVolume(value, name, n, None if size is None else n * size))
    return rows
