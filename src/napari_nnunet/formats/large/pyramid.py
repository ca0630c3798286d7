"""The levels of a label image: how coarse they are, and opening them to look at."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from napari_nnunet.errors import ImageError
from napari_nnunet.formats.large.ome_zarr import zarr_library
from napari_nnunet.formats.large.unpacking import bounded

_COARSEST = 512  # voxels of the longest axis below which a pyramid needs no further level


def pyramid(shape: Sequence[int], spacing: Sequence[float]) -> list[tuple[int, ...]]:
    """Return by how much every level is coarser than the finest one, axis by axis.

    Those axes are halved that are at most twice as fine as the others become, so that voxels get rounder.

    Parameters
    ----------
    shape : sequence of int
        Of the finest level.
    spacing : sequence of float
        Its voxel size; infinite for an axis that is never halved.
    """
    factors = [(1,) * len(shape)]
    sizes, own = list(shape), list(spacing)
    while max(n for n, size in zip(sizes, own, strict=True) if math.isfinite(size)) > _COARSEST:
        finest = min(size for n, size in zip(sizes, own, strict=True) if n > 1)
        steps = [2 if n > 1 and size < 2 * finest else 1 for n, size in zip(sizes, own, strict=True)]
        sizes = [math.ceil(n / step) for n, step in zip(sizes, steps, strict=True)]
        own = [size * step for size, step in zip(own, steps, strict=True)]
        factors.append(tuple(f * step for f, step in zip(factors[-1], steps, strict=True)))
    return factors


def open_levels(folder: Path) -> list[Any]:
    """Open the levels of a label image for reading, also while it is filled: arrays that zarr slices.

    Raises
    ------
    ImageError
        If it cannot be read.
    """
    zarr, levels = zarr_library(), []
    try:
        for number in itertools.count():
            path = folder / str(number)
            if number and not path.is_dir():
                break
            levels.append(bounded(zarr.open_array(str(path), mode="r"), str(path)))
    except ImageError:
        raise
    except Exception as error:  # whatever a store raises
        raise ImageError(f"{folder} cannot be read: {error}.") from error
    return levels
