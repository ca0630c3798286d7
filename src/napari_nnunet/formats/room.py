"""Whether there is room in memory for the voxels that a file promises."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from napari_nnunet.errors import ResourceError
from napari_nnunet.memory import available_memory

_CERTAIN = 256e6  # bytes that fit without a look at how much is free


def require_room(path: Path, shape: Sequence[int], itemsize: int) -> None:
    """Raise ResourceError if the voxels that a header promises take more than the free memory."""
    needed = float(itemsize) * math.prod(float(n) for n in shape)
    if needed < _CERTAIN:
        return
    free = available_memory()
    if needed > free:
        raise ResourceError(
            f"{path} says that it holds {' x '.join(map(str, shape))} voxels, which take {needed / 1e9:,.1f} GB; "
            f"{free / 1e9:,.1f} GB of memory are free. Close other programs, crop the image, or check where it "
            "comes from."
        )
