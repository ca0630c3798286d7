"""SimpleITK: NIfTI, NRRD, MetaImage, GIPL (facts 1.7)."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from napari_nnunet.errors import ImageError
from napari_nnunet.schema.geometry import Geometry

_SPATIAL = (2, 3)


def is_readable(path: Path) -> bool:
    """True where ITK accepts the header; it refuses NIfTI files whose affine has a shear."""
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError:
        return False
    return True


def read(path: Path) -> tuple[NDArray[Any], Geometry]:
    """Return (array (C, [Z,] Y, X) in storage order, geometry); a fourth image axis becomes the channels."""
    check_gzip(path)
    return _convert(sitk.ReadImage(str(path)), path)


def header(path: Path) -> tuple[tuple[int, ...], int, tuple[float, ...] | None]:
    """Return (shape (C, [Z,] Y, X), bytes per value, spacing) from the file's header."""
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    reader.ReadImageInformation()
    size = tuple(int(n) for n in reversed(reader.GetSize()))
    shape = size if len(size) == 4 else (1, *size)
    itemsize = sitk.Image([1] * 2, reader.GetPixelID(), reader.GetNumberOfComponents()).GetSizeOfPixelComponent()
    return shape, itemsize, tuple(abs(float(s)) for s in reversed(reader.GetSpacing()[:3]))


def check_gzip(path: Path) -> None:
    """Refuse a truncated .nii.gz: ITK reads what is there and fills the rest with whatever it finds.

    The length that gzip notes in its last four bytes must be the one the header promises; only where it is not (files
    of several gzip members) is everything decompressed to find out.
    """
    if not path.name.lower().endswith(".nii.gz"):
        return
    image = nibabel.load(str(path))
    promised = int(image.dataobj.offset) + int(np.prod(image.shape)) * image.get_data_dtype().itemsize
    with path.open("rb") as file:
        file.seek(-4, 2)
        noted = int.from_bytes(file.read(4), "little")
    if noted == promised % 2**32:
        return
    length = 0
    with gzip.open(path) as stream:
        while piece := stream.read(1 << 24):
            length += len(piece)
    if length < promised:
        raise ImageError(f"{path} cannot be read: it ends after {length} of {promised} bytes. It is truncated.")


def read_reoriented(path: Path) -> tuple[NDArray[Any], Geometry]:
    """Turn the voxels to ITK's "RAS" first and remember the original orientation."""
    check_gzip(path)
    image = sitk.ReadImage(str(path))
    if image.GetDimension() != 3:
        raise ImageError(f"{path.name} has {image.GetDimension()} dimensions; only volumes can be reoriented.")
    original = sitk.DICOMOrientImageFilter.GetOrientationFromDirectionCosines(image.GetDirection())
    array, geometry = _convert(sitk.DICOMOrient(image, "RAS"), path)
    return array, geometry.model_copy(update={"orientation": original})


def _convert(image: sitk.Image, path: Path) -> tuple[NDArray[Any], Geometry]:
    if image.GetNumberOfComponentsPerPixel() > 1:
        raise ImageError(
            f"{path.name} stores {image.GetNumberOfComponentsPerPixel()} values per voxel. "
            "Save each channel as a file of its own (CASE_0000, CASE_0001, ...)."
        )
    array = sitk.GetArrayFromImage(image)
    spacing = image.GetSpacing()
    origin, direction = image.GetOrigin(), image.GetDirection()
    if image.GetDimension() == 4:
        # nnU-Net takes the fourth axis for channels; the grid is that of the first volume.
        spacing, origin = spacing[:3], origin[:3]
        direction = tuple(np.asarray(direction).reshape(4, 4)[:3, :3].ravel())
    elif image.GetDimension() in _SPATIAL:
        array = array[None]
    else:
        raise ImageError(f"{path.name} has {image.GetDimension()} dimensions; images have 2 or 3.")
    geometry = Geometry(
        spacing=tuple(abs(float(s)) for s in reversed(spacing)),
        origin=tuple(float(v) for v in origin),
        direction=tuple(float(v) for v in direction),
    )
    return array, geometry


def volumes(path: Path) -> list[sitk.Image]:
    """Return the volumes along the fourth axis of a file, each on the grid of the first three axes."""
    check_gzip(path)
    image = sitk.ReadImage(str(path))
    size = image.GetSize()
    if len(size) != 4:
        raise ImageError(f"{path.name} has {len(size)} dimensions; only four can be split into volumes.")
    direction = np.asarray(image.GetDirection()).reshape(4, 4)[:3, :3]
    parts = []
    for i in range(size[3]):
        part = sitk.Extract(image, (*size[:3], 0), (0, 0, 0, i), sitk.ExtractImageFilter.DIRECTIONCOLLAPSETOIDENTITY)
        part.SetDirection(direction.ravel().tolist())
        parts.append(part)
    return parts


def write_volume(image: sitk.Image, path: Path) -> None:
    """Write an image of ITK, compressed."""
    sitk.WriteImage(image, str(path), useCompression=True)


def write(labels: NDArray[Any], geometry: Geometry, path: Path) -> None:
    """Write labels ([Z,] Y, X) with spacing, origin and direction, compressed."""
    sitk.WriteImage(_image(labels, geometry), str(path), useCompression=not path.name.endswith(".gipl"))


def write_reoriented(labels: NDArray[Any], geometry: Geometry, path: Path) -> None:
    """Turn the labels back to the orientation of the original file and write them."""
    image = _image(labels, geometry)
    if geometry.orientation is not None:
        image = sitk.DICOMOrient(image, geometry.orientation)
    sitk.WriteImage(image, str(path), useCompression=True)


def _image(labels: NDArray[Any], geometry: Geometry) -> sitk.Image:
    image = sitk.GetImageFromArray(np.ascontiguousarray(labels))
    image.SetSpacing(tuple(reversed(geometry.spacing)))
    if geometry.origin is not None:
        image.SetOrigin(geometry.origin)
    if geometry.direction is not None:
        image.SetDirection(geometry.direction)
    return image
