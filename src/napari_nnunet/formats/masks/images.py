"""The image that a mask belongs to: whether the planes of a TIFF are slices or channels, only the mask may tell."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from napari_nnunet.errors import ImageError
from napari_nnunet.formats.dicom import series as dicom
from napari_nnunet.formats.images.files import read_header, read_stored, read_volume
from napari_nnunet.formats.images.natural import has_opacity, may_be_channels
from napari_nnunet.grid import Grid, WhenApart, channels_together
from napari_nnunet.volume import Volume

_TIFF = (".tif", ".tiff")
_COLOURS = (1, 3, 4)  # channels of a picture that nnU-Net reads


def image_beside(mask: Path, images: Sequence[Path], apart: WhenApart) -> Volume:
    """Read an image from its channel files, or from DICOM: folders of slices, or files with frames.

    Planes of a TIFF that are named channels are channels where the mask has no slices, for which they are taken else.
    """
    if dicom.is_dicom_image(images[0]):
        parts = [dicom.read_series(path) for path in images]
        grids = [Grid(array.shape[1:], geometry) for array, geometry in parts]
        names = [path.name for path in images]
        arrays, notes = channels_together([array for array, _ in parts], grids, names, apart=apart)
        return Volume(np.concatenate(arrays).astype(np.float32), parts[0][1], notes)
    volume = read_volume(images, apart=apart)
    if volume.geometry.ndim == 3 and _holds_channels(images, mask):
        array, geometry = read_stored(images[0], "NaturalImage2DIO")
        return Volume(array.astype(np.float32), geometry)
    return volume


def _holds_channels(images: Sequence[Path], mask: Path) -> bool:
    if len(images) > 1 or not images[0].name.lower().endswith(_TIFF):
        return False
    with suppress(ImageError):  # of a mask that cannot be read, which is said when it is its turn
        return may_be_channels(images[0]) and read_header(mask).geometry.ndim == 2
    return False


def read_by_nnunet(images: Sequence[Path], volume: Volume) -> bool:
    """Whether nnU-Net reads the files of an image as they are: not transparent grey, and no picture of two channels."""
    if volume.geometry.ndim == 3:
        return True
    if len(images) == 1 and volume.channels not in _COLOURS:
        return False
    return not any(path.is_file() and has_opacity(path) for path in images)
