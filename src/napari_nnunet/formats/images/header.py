"""What an image file says of itself before its voxels are read, and whether there is room for them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from napari_nnunet.errors import ResourceError
from napari_nnunet.memory import available_memory
from napari_nnunet.schema.geometry import Geometry

_CERTAIN = 256e6  # bytes that fit without a look at how much is free


class Header(NamedTuple):
    """Size and place of an image.

    Parameters
    ----------
    shape : tuple of int
        (C, [Z,] Y, X); axes that a reader turns come in the order of the file.
    itemsize : int
        Bytes per value.
    geometry : Geometry
        Where the voxels lie, with the source of their size.
    """

    shape: tuple[int, ...]
    itemsize: int
    geometry: Geometry


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


def as_named(geometry: Geometry, reader: str | None) -> Geometry:
    """Return what nnU-Net's class of that name makes of a grid: its reader of pictures knows no size of a pixel."""
    if reader != "NaturalImage2DIO" or not geometry.spacing_known:
        return geometry
    return Geometry(spacing=(1.0, 1.0), spacing_known=False, remarks=geometry.remarks)
