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


def require_as_many_axes(image: Path, shape: Sequence[int], mask: Path, drawn: Sequence[int]) -> None:
    """Raise ImageError for a picture with a mask of slices, and for slices with a mask of a picture.

    Parameters
    ----------
    image, mask : Path
        As errors name them.
    shape, drawn : sequence of int
        ``([Z,] Y, X)`` of each.
    """
    if len(shape) == len(drawn):
        return
    sizes = [" x ".join(map(str, size)) for size in (shape, drawn)]
    if len(shape) > len(drawn):
        remedy = (
            "If its planes are channels, name them so (axis C), or save each as a file of its own (CASE_0000, "
            "CASE_0001, ...); if they are slices or time points, the mask needs as many, or each is a case of its own."
        )
    else:
        remedy = "Save the one slice of the mask that belongs to it, or the volume that the mask was drawn in."
    raise ImageError(f"{image.name} has {sizes[0]} voxels, its mask {mask.name} {sizes[1]}. {remedy}")


def read_by_nnunet(images: Sequence[Path], volume: Volume) -> bool:
    """Whether nnU-Net reads the files of an image as they are: not transparent grey, and no picture of two channels."""
    if volume.geometry.ndim == 3:
        return True
    if len(images) == 1 and volume.channels not in _COLOURS:
        return False
    return not any(path.is_file() and has_opacity(path) for path in images)
