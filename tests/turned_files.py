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


def claim_mirrored(path: Path) -> None:
    """Say that a volume is stored from right to left, which is not true."""
    image = sitk.ReadImage(str(path))
    width = image.GetSize()[0] * image.GetSpacing()[0] - image.GetSpacing()[0]
    first, *others = image.GetOrigin()
    image.SetOrigin((first + width, *others))
    image.SetDirection((-1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0))
    sitk.WriteImage(image, str(path))


def spread(path: Path) -> None:
    """Say that the voxels of a volume are larger than they are."""
    image = sitk.ReadImage(str(path))
    image.SetSpacing(tuple(1.7 * size for size in image.GetSpacing()))
    sitk.WriteImage(image, str(path))
