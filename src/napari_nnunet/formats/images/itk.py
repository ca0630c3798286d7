"""SimpleITK: NIfTI, NRRD, MetaImage, GIPL."""

from __future__ import annotations

import errno
import math
import struct
import tempfile
import zlib
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from napari_nnunet.errors import ImageError
from napari_nnunet.formats.images import nifti_file
from napari_nnunet.formats.images.header import Header, one_line
from napari_nnunet.formats.images.itk_grid import grid_of, information, informed, known, reader_of, value_bytes, whole
from napari_nnunet.formats.images.label_note import NOTE_KEY, LabelNote
from napari_nnunet.formats.images.oddities import NO_NUMBERS, Mended, as_said, mended, slope_remarks, with_oddities
from napari_nnunet.formats.images.text.headers import check_text
from napari_nnunet.formats.images.text.voxels import as_image, check_length, own_voxels, place_of
from napari_nnunet.schema.geometry import Geometry

_NO_VOLUME = (2, 4)  # numbers of axes of slices and of several channels
_SHEARED = "orthonormal"  # what ITK says of axes that are not at right angles


def is_readable(path: Path) -> bool:
    """True if ITK accepts the header, or refuses what nibabel's readers would too: slices and channels in NIfTI-2."""
    try:
        information(path)
    except PermissionError:  # said when it is read
        return True
    except RuntimeError as error:
        return _is_refused(error) and nifti_file.axes_of(nifti_file.glance_at(path).start) in _NO_VOLUME
    return True


def _read_image(path: Path, fix: Mended | None = None) -> sitk.Image:
    """Return all of an image; raises RuntimeError where ITK does."""
    reader = reader_of(path)
    if reader != "NiftiImageIO":
        own = own_voxels(path, said := check_text(path), known)
        return whole(path, reader, said) if own is None else as_image(own)
    with nifti_file.alone(path, fix) as file:
        return sitk.ReadImage(str(file), imageIO=reader)


def read(path: Path) -> tuple[NDArray[Any], Geometry]:
    """Return (array (C, [Z,] Y, X) in storage order, geometry); a fourth image axis becomes the channels."""
    if path.name.lower().endswith((".nii", ".nii.gz")):
        return _read_unpacked(path)
    said = check_text(path)
    if (own := own_voxels(path, said, known)) is not None:
        array, geometry = _placed(own.voxels, own.grid, path)
        return array, as_said(geometry, said._replace(remarks=(*said.remarks, *own.remarks)))
    image = _read_image(path)
    _refuse_vectors(image.GetNumberOfComponentsPerPixel(), path)
    array, geometry = _placed(sitk.GetArrayFromImage(image), image, path)
    return array, as_said(geometry, said._replace(remarks=(*said.remarks, *check_length(path, said, array.nbytes))))


_NIFTI_TYPES = {2: "u1", 4: "<i2", 8: "<i4", 16: "<f4", 64: "<f8", 256: "i1", 512: "<u2", 768: "<u4"}
_HEADER_BYTES = nifti_file.HEADER_BYTES
# Of a little-endian header: its size, the type of values, where voxels begin, slope, intercept, what it is.
_LITTLE = struct.Struct("<i66xh36x3f224x4s")


def _nifti() -> ModuleType:
    """Return the reader by nibabel, for what ITK refuses and for notes."""
    from napari_nnunet.formats.images import nifti  # nibabel takes a while to load, and hardly any file needs it

    return nifti


def _promised(path: Path) -> int:
    return int(_nifti().promised_bytes(path))


def _read_unpacked(path: Path) -> tuple[NDArray[Any], Geometry]:
    """Read NIfTI: unpacked once, which ITK does several times, its voxels taken as they lie; ITK reads rare ones."""
    try:
        content, remarks = nifti_file.unpacked(path)
    except zlib.error as error:
        _by_itk(path, path, ())  # ITK says what is wrong, where it notices
        raise ImageError(f"{path} is damaged: {one_line(error)} Copy it again.") from error
    fix = mended(content[:_HEADER_BYTES]) if content[344:347] == b"n+1" and len(content) >= _HEADER_BYTES else None
    if fix is not None:
        content = nifti_file.straightened(content, fix)
    array = _voxels(content, path)
    if array is not None:
        geometry = array[1] if fix is None else fix.of(array[1])
        more = (*remarks, *geometry.remarks)
        return array[0], geometry.model_copy(update={"remarks": more}) if remarks else geometry
    if not remarks and fix is None:
        return _by_itk(path, path, ())
    if nifti_file.promise_of(content[:_HEADER_BYTES]) is None and content[4:7] != b"n+2":
        raise ImageError(f"{path} is not a NIfTI file, neither compressed nor plain. Was it downloaded completely?")
    with tempfile.TemporaryDirectory() as folder:
        straight = Path(folder) / "straight.nii"
        straight.write_bytes(content)
        found, geometry = _by_itk(straight, path, remarks)
        return found, geometry if fix is None else fix.of(geometry)


def _by_itk(source: Path, path: Path, remarks: tuple[str, ...]) -> tuple[NDArray[Any], Geometry]:
    """Read a NIfTI file by ITK; what ITK refuses, NIfTI-2 and axes that are not at right angles, by nibabel."""
    try:
        nifti_file.check_gzip(source, _promised)
        image = _read_image(source)
    except RuntimeError as error:
        if not _is_refused(error):
            raise
        array, geometry = _nifti().read_refused(source, path, _placed_behind)
    else:
        _refuse_vectors(image.GetNumberOfComponentsPerPixel(), path)
        array, geometry = _placed(sitk.GetArrayFromImage(image), image, path)
        look = nifti_file.glance_at(source)
        if look.promise is not None:
            said = slope_remarks(look.start)
            if array.dtype.kind == "f" and (bad := _nifti().count_invalid(source)):
                said = (*said, NO_NUMBERS.format(count=bad))
            geometry = with_oddities(geometry, look.start, said)
    return array, geometry.model_copy(update={"remarks": (*geometry.remarks, *remarks)}) if remarks else geometry


def _is_refused(error: RuntimeError) -> bool:
    """Whether ITK refuses what nibabel reads."""
    return _SHEARED in str(error) or isinstance(error, nifti_file.SecondVersion)


def _placed_behind(start: bytes) -> Geometry:
    """Return where ITK places the voxels behind a NIfTI-1 header; raises RuntimeError where it refuses."""
    return with_oddities(_geometry(grid_of(start), Path()), start)


def _voxels(content: bytes, path: Path) -> tuple[NDArray[Any], Geometry] | None:
    if len(content) < _HEADER_BYTES:
        return None
    length, code, offset, slope, intercept, magic = _LITTLE.unpack_from(content)
    kind = _NIFTI_TYPES.get(code)
    if length != 348 or magic != b"n+1\0" or kind is None or slope not in (0, 1) or intercept != 0:
        return None
    try:
        grid = grid_of(content[:_HEADER_BYTES])
    except RuntimeError:
        return None
    if grid.GetNumberOfComponents() != 1:
        return None
    size, odd = tuple(reversed(grid.GetSize())), []
    array = np.frombuffer(content, dtype=kind, count=math.prod(size), offset=int(offset)).reshape(size)
    if array.dtype.kind == "f":
        bad = ~np.isfinite(array)
        if bad.any():
            odd.append(NO_NUMBERS.format(count=np.count_nonzero(bad)))
            array = np.where(bad, array.dtype.type(0), array)  # as ITK does
    placed, geometry = _placed(array, grid, path)
    return placed, with_oddities(geometry, content, odd)


def header(path: Path) -> Header:
    """Return what the file says without its voxels: shape (C, [Z,] Y, X), bytes per value, geometry."""
    try:
        reader, start, said, fix = information(path)
    except RuntimeError as error:
        if not path.name.lower().endswith((".nii", ".nii.gz")):
            raise
        if _is_refused(error):
            return _nifti().header_refused(path, _placed_behind)
        array, geometry = read(path)  # packed against its name: rare enough to be read whole
        return Header(array.shape, array.dtype.itemsize, geometry)
    size = tuple(int(n) for n in reversed(reader.GetSize()))
    shape = size if len(size) == 4 else (1, *size)
    itemsize = value_bytes(reader.GetPixelID(), min(reader.GetNumberOfComponents(), 2))
    geometry = _geometry(reader, path)
    geometry = as_said(geometry, said) if start is None else with_oddities(geometry, start)
    return Header(shape, itemsize, geometry if fix is None else fix.of(geometry))


def read_reoriented(path: Path) -> tuple[NDArray[Any], Geometry]:
    """Turn the voxels to ITK's "RAS" first and remember the original orientation."""
    is_nifti = path.name.lower().endswith((".nii", ".nii.gz"))
    look = (nifti_file.check_gzip(path, _promised) or nifti_file.glance_at(path)) if is_nifti else None
    try:
        image = _read_image(path, look and look.fix)
        _require_volume(image.GetDimension(), path)
        stored = _geometry(image, path)
        if look is None:
            said = check_text(path)
            size = image.GetNumberOfPixels() * image.GetSizeOfPixelComponent()
            stored = as_said(stored, said._replace(remarks=(*said.remarks, *check_length(path, said, size))))
        elif look.promise is not None:
            stored = with_oddities(stored, look.start)
            stored = stored if look.fix is None else look.fix.of(stored)
    except RuntimeError as error:
        if not _is_refused(error):
            raise
        voxels, stored = _nifti().read_refused(path, path, _placed_behind)
        _require_turnable(Header(voxels.shape, voxels.dtype.itemsize, stored), path)
        image = _image(voxels[0], stored)
    original = sitk.DICOMOrientImageFilter.GetOrientationFromDirectionCosines(image.GetDirection())
    _refuse_vectors(image.GetNumberOfComponentsPerPixel(), path)
    turned = sitk.DICOMOrient(image, "RAS")
    array, geometry = _placed(sitk.GetArrayFromImage(turned), turned, path)
    kept = {"remarks": stored.remarks, "spacing_known": stored.spacing_known}
    return array, geometry.model_copy(update={"orientation": original, **kept})


def header_reoriented(path: Path) -> Header:
    """Return what :func:`header` does of files that :func:`read_reoriented` reads; raises ImageError of others."""
    found = header(path)
    _require_turnable(found, path)
    return found


def _require_turnable(found: Header, path: Path) -> None:
    """Raise ImageError for what has no three axes at right angles."""
    channels = found.shape[0]
    _require_volume(len(found.shape) if channels > 1 else len(found.shape) - 1, path)
    if found.geometry.direction is None:
        raise ImageError(
            f"{path} cannot be turned to RAS: its axes are not at right angles. Resample it onto axes that are; "
            "NibabelIOWithReorient turns such files as they are."
        )


def _require_volume(axes: int, path: Path) -> None:
    if axes != 3:
        raise ImageError(f"{path.name} has {axes} dimensions; only volumes can be reoriented.")


def _refuse_vectors(components: int, path: Path) -> None:
    if components > 1:
        raise ImageError(
            f"{path.name} stores {components} values per voxel. "
            "Save each channel as a file of its own (CASE_0000, CASE_0001, ...)."
        )


def _placed(array: NDArray[Any], grid: sitk.Image | sitk.ImageFileReader, path: Path) -> tuple[NDArray[Any], Geometry]:
    """Return (array (C, [Z,] Y, X), geometry) of voxels in storage order and the grid that ITK knows of them."""
    return array if grid.GetDimension() == 4 else array[None], _geometry(grid, path)


def _geometry(grid: sitk.Image | sitk.ImageFileReader, path: Path) -> Geometry:
    dimension = grid.GetDimension()
    spacing, origin, direction = place_of(grid)
    if dimension == 4:
        # nnU-Net takes the fourth axis for channels; the grid is that of the first volume.
        spacing, origin = spacing[:3], origin[:3]
        direction = tuple(np.asarray(direction).reshape(4, 4)[:3, :3].ravel())
    elif dimension not in (2, 3):
        raise ImageError(f"{path.name} has {dimension} dimensions; images have 2 or 3.")
    return Geometry(
        spacing=tuple(abs(float(s)) for s in reversed(spacing)),
        origin=tuple(float(v) for v in origin),
        direction=tuple(float(v) for v in direction),
    )


def volumes(path: Path) -> list[sitk.Image]:
    """Return the volumes along the fourth axis of a file, each on the grid of the first three axes."""
    nifti_file.check_gzip(path, _promised)
    image = _read_image(path)
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
    """Write an image of ITK, compressed.

    Raises
    ------
    OSError
        If the file is not whole, which ITK does not notice for every format.
    """
    _save(image, path)


def _save(image: sitk.Image, path: Path) -> None:
    compressed = not path.name.lower().endswith(".gipl")
    sitk.WriteImage(image, str(path), useCompression=compressed)
    components = image.GetNumberOfComponentsPerPixel()
    size = image.GetNumberOfPixels() * components * image.GetSizeOfPixelComponent()
    if not nifti_file.is_whole(path, size):
        raise OSError(errno.ENOSPC, "the file is incomplete")


def note(path: Path) -> str | None:
    """Return the text of the note in a file."""
    if path.name.lower().endswith((".nii", ".nii.gz")):
        return _nifti().note(path)
    reader = informed(path)
    return reader.GetMetaData(NOTE_KEY) if reader.HasMetaDataKey(NOTE_KEY) else None


def write(labels: NDArray[Any], geometry: Geometry, path: Path, note: LabelNote | None = None) -> None:
    """Write labels ([T,] [Z,] Y, X) with spacing, origin and direction, compressed."""
    if path.name.lower().endswith(".gipl") and not _is_upright(labels, geometry):
        raise ImageError(
            "GIPL holds volumes along x, y and z only, no slices and no directions; write .nrrd or .nii.gz."
        )
    image = _image(labels, geometry) if note is None or "T" not in note.axes else _series(labels, geometry, note)
    is_nifti = path.name.lower().endswith((".nii", ".nii.gz"))
    if note is not None and not is_nifti:
        image.SetMetaData(NOTE_KEY, note.text())
    _save(image, path)
    if note is not None and is_nifti:
        _nifti().add_note(path, note)


def _series(labels: NDArray[Any], geometry: Geometry, note: LabelNote) -> sitk.Image:
    """Return a time series (T, [Z,] Y, X) with four axes; pictures become volumes of one slice."""
    space = geometry.deepened()
    array = labels if labels.ndim == 4 else labels[:, None]
    image = sitk.GetImageFromArray(np.ascontiguousarray(array), isVector=False)
    image.SetSpacing((*reversed(space.spacing), note.time_step))
    if space.origin is not None and space.direction is not None:
        direction = np.eye(4)
        direction[:3, :3] = np.reshape(space.direction, (3, 3))
        image.SetOrigin((*space.origin, 0.0))
        image.SetDirection(direction.ravel().tolist())
    return image


def _is_upright(labels: NDArray[Any], geometry: Geometry) -> bool:
    direction = geometry.direction
    return labels.ndim == 3 and (direction is None or np.allclose(np.reshape(direction, (3, 3)), np.eye(3)))


def write_reoriented(labels: NDArray[Any], geometry: Geometry, path: Path) -> None:
    """Turn the labels back to the orientation of the original file and write them."""
    image = _image(labels, geometry)
    if geometry.orientation is not None:
        image = sitk.DICOMOrient(image, geometry.orientation)
    _save(image, path)


def _image(labels: NDArray[Any], geometry: Geometry) -> sitk.Image:
    image = sitk.GetImageFromArray(np.ascontiguousarray(labels, dtype=labels.dtype.newbyteorder("=")))
    image.SetSpacing(tuple(reversed(geometry.spacing)))
    if geometry.origin is not None:
        image.SetOrigin(geometry.origin)
    if geometry.direction is not None:
        image.SetDirection(geometry.direction)
    return image
