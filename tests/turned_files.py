"""Files that hold the same voxels in another order, with a header that says so, as other programs write them."""

from __future__ import annotations

from pathlib import Path

import SimpleITK as sitk


def mirror(path: Path) -> None:
    """Store a volume from right to left."""
    sitk.WriteImage(sitk.Flip(sitk.ReadImage(str(path)), (True, False, False)), str(path))


def permute(path: Path) -> None:
    """Store a volume with its axes in another order."""
    sitk.WriteImage(sitk.PermuteAxes(sitk.ReadImage(str(path)), (2, 0, 1)), str(path))


def shift(path: Path) -> None:
    """Say that a volume lies 30 mm beside."""
    image = sitk.ReadImage(str(path))
    image.SetOrigin((30.0, 0.0, 0.0))
    sitk.WriteImage(image, str(path))
