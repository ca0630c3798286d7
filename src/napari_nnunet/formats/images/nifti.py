"""nibabel: NIfTI with any affine, sheared ones too, and with reorientation to RAS."""

from __future__ import annotations

import gzip
import io
import struct
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from numpy.typing import NDArray

from napari_nnunet.errors import ImageError
from napari_nnunet.formats.images.header import Header
from napari_nnunet.formats.images.label_note import NOTE_KEY, LabelNote
from napari_nnunet.schema.geometry import Geometry, Matrix

_HEADER_BYTES = 348
_OFFSET = 108  # where the header says, in float32, at which byte the voxels begin
_COMMENT = 6  # code of extensions that are plain text


def read(path: Path) -> tuple[NDArray[Any], Geometry]:
    """Return (array (1, Z, Y, X), geometry) in storage order, NaN kept."""
    image = _load(path)
    return _array(image), Geometry(spacing=_spacing(image), affine=_rows(image.affine))


def read_reoriented(path: Path) -> tuple[NDArray[Any], Geometry]:
    """Turn the voxels to RAS first: the array's axes are then S, A, R."""
    original = _load(path)
    image = nibabel.as_closest_canonical(original)
    geometry = Geometry(spacing=_spacing(image), affine=_rows(original.affine), reoriented_affine=_rows(image.affine))
    return _array(image), geometry


def header(path: Path) -> Header:
    """Return what the file says without its voxels: shape (C, Z, Y, X), bytes per value, geometry.

    nibabel computes in float32.
    """
    image = _load(path)
    geometry = Geometry(spacing=_spacing(image), affine=_rows(image.affine))
    return Header((1, *(int(n) for n in reversed(image.shape))), 4, geometry)


def count_invalid(path: Path) -> int:
    """Return how many stored values are NaN or infinite; integers cannot be."""
    image = nibabel.load(str(path))
    if image.get_data_dtype().kind != "f":
        return 0
    values = np.asanyarray(image.dataobj.get_unscaled())
    return int(values.size - np.count_nonzero(np.isfinite(values)))


def _load(path: Path) -> Any:
    image = nibabel.load(str(path))
    if len(image.shape) != 3:
        raise ImageError(
            f"{path.name} has {len(image.shape)} dimensions. Save each channel as a volume of its own "
            "(CASE_0000, CASE_0001, ...)."
        )
    return image


def _array(image: Any) -> NDArray[Any]:
    data: NDArray[Any] = image.get_fdata(dtype=np.float32, caching="unchanged")
    return data.transpose(2, 1, 0)[None]


def _spacing(image: Any) -> tuple[float, ...]:
    return tuple(float(z) for z in reversed(image.header.get_zooms()[:3]))


def _rows(affine: NDArray[Any]) -> Matrix:
    return tuple(tuple(float(v) for v in row) for row in affine)


def note(path: Path) -> str | None:
    """Return the text of the note in a NIfTI file."""
    begin = f"{NOTE_KEY}: "
    for extension in nibabel.load(str(path)).header.extensions:
        if extension.code == _COMMENT and extension.text.startswith(begin):
            return str(extension.text.removeprefix(begin))
    return None


def _extension(note: LabelNote) -> Any:
    return nibabel.nifti1.Nifti1Extension("comment", f"{NOTE_KEY}: {note.text()}".encode())


def add_note(path: Path, note: LabelNote) -> None:
    """Add a note to a little-endian NIfTI file, between its header and its voxels."""
    packed = path.name.lower().endswith(".gz")
    content = gzip.decompress(path.read_bytes()) if packed else path.read_bytes()
    extension = io.BytesIO(b"\1\0\0\0")  # an extension follows
    extension.seek(0, io.SEEK_END)
    _extension(note).write_to(extension, byteswap=False)
    header = bytearray(content[:_HEADER_BYTES])
    begin = int(struct.unpack_from("<f", header, _OFFSET)[0])
    struct.pack_into("<f", header, _OFFSET, _HEADER_BYTES + extension.tell())
    content = bytes(header) + extension.getvalue() + content[begin:]
    path.write_bytes(gzip.compress(content, compresslevel=6) if packed else content)


def write(labels: NDArray[Any], geometry: Geometry, path: Path, note: LabelNote | None = None) -> None:
    """Write labels ([T,] Z, Y, X), turned back to the original orientation where the reader turned them."""
    if geometry.affine is None:
        raise ImageError("Writing NIfTI through nibabel needs the affine of the image; it was read by another reader.")
    voxels = np.ascontiguousarray(labels.transpose())
    if geometry.reoriented_affine is None:
        image = nibabel.Nifti1Image(voxels, np.asarray(geometry.affine))
    else:
        turned = nibabel.Nifti1Image(voxels, np.asarray(geometry.reoriented_affine))
        original = nibabel.io_orientation(np.asarray(geometry.affine))
        image = turned.as_reoriented(nibabel.orientations.ornt_transform(
            nibabel.io_orientation(turned.affine), original
        ))  # fmt: skip
        image = nibabel.Nifti1Image(np.asarray(image.dataobj), np.asarray(geometry.affine))
    image.set_data_dtype(voxels.dtype)
    if note is not None:
        image.header.extensions.append(_extension(note))
        if labels.ndim > 3:
            image.header.set_zooms((*image.header.get_zooms()[:3], note.time_step))
    nibabel.save(image, str(path))
