"""nibabel: NIfTI with any affine, sheared ones too, and with reorientation to RAS."""

from __future__ import annotations

import gzip
import io
import math
import struct
from collections.abc import Callable, Collection
from contextlib import suppress
from functools import lru_cache
from itertools import combinations
from operator import mul
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import nibabel
import numpy as np
from nibabel.filebasedimages import ImageFileError
from numpy.typing import NDArray

from napari_nnunet.errors import ImageError
from napari_nnunet.formats.images import nifti_file
from napari_nnunet.formats.images.header import COMPLEX, Header
from napari_nnunet.formats.images.label_note import NOTE_KEY, LabelNote
from napari_nnunet.formats.images.oddities import NO_NUMBERS, mended, oddities_of, unit_of
from napari_nnunet.formats.room import require_room
from napari_nnunet.schema.geometry import Geometry, Matrix

_HEADER_BYTES = 348
_OFFSET = 108  # where the header says, in float32, at which byte the voxels begin
_RIGHT = 1.7e-3  # cosine of a tenth of a degree less than a right angle; what is less is how headers round
_COMMENT = 6  # code of extensions that are plain text
_PLACE = ("pixdim", "xyzt_units", "qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x",
          "qoffset_y", "qoffset_z", "srow_x", "srow_y", "srow_z")  # fmt: skip
_VOLUME = "xyz"
_FIX = "fix"  # key of an image whose header was mended
_BY_ITK = (2, 3, 4)  # numbers of axes that ITK's reader takes: of pictures, volumes, and several channels
_EXACT = 2**24  # from here on float32 skips whole numbers: those of atlases and objects would be others


def read(path: Path) -> tuple[NDArray[Any], Geometry]:
    """Return (array (1, Z, Y, X), geometry) in storage order, NaN kept."""
    look, known = _glance(path)
    if known is not None and known.plain and (stored := _stored(path, look, known)) is not None:
        return _in_single_precision(stored).transpose(2, 1, 0)[None], known.geometry
    image, remarks = _load(path)
    return _array(image, path), _placed(image, remarks)


class _Known(NamedTuple):
    """What a header says of a volume: type and shape (x, y, z), first byte, place, and whether values are plain."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    offset: int
    geometry: Geometry
    plain: bool


def _glance(path: Path) -> tuple[nifti_file.Glance, _Known | None]:
    """Return what little of a file tells; of volumes in NIfTI-1 also what nibabel makes of their header."""
    look = nifti_file.glance_at(path)
    usual = look.promise is not None and not look.odd and len(look.promise.shape) == len(_VOLUME)
    return look, _known(look.start) if usual else None


@lru_cache(maxsize=64)  # it is looked at before a file is read and then again; and cases often have the same
def _known(start: bytes) -> _Known | None:
    header = nibabel.Nifti1Header.from_fileobj(io.BytesIO(start[:_HEADER_BYTES] + bytes(4)))  # without extensions
    kind, affine = header.get_data_dtype(), header.get_best_affine()
    if kind.kind not in "iuf" or not np.isfinite(affine).all():
        return None
    plain = header.get_slope_inter() in ((None, None), (1, 0))
    geometry = _placed(SimpleNamespace(affine=affine, header=header, extra={}), ())
    return _Known(kind, header.get_data_shape(), header.get_data_offset(), geometry, plain)


def _stored(path: Path, look: nifti_file.Glance, known: _Known) -> NDArray[Any] | None:
    """Return the voxels (x, y, z) of a plain volume; None of an unpacked file that is truncated."""
    count = math.prod(known.shape)
    require_room(path, known.shape, np.dtype(np.float32).itemsize)
    if look.noted is None:
        values = np.fromfile(path, known.dtype, count, offset=known.offset)
    elif look.as_promised:
        values = np.frombuffer(nifti_file.unpacked(path)[0], known.dtype, count, known.offset)
    else:
        return None
    return values.reshape(known.shape, order="F") if values.size == count else None


def read_reoriented(path: Path) -> tuple[NDArray[Any], Geometry]:
    """Turn the voxels to RAS first: the array's axes are then S, A, R."""
    original, remarks = _load(path)
    placed = _placed(original, remarks)
    image = nibabel.as_closest_canonical(original)
    geometry = Geometry(
        spacing=_spacing(image),
        affine=_rows(original.affine),
        reoriented_affine=_rows(image.affine),
        remarks=placed.remarks,
        spacing_known=placed.spacing_known,
    )
    return _array(image, path), geometry


def read_refused(source: Path, path: Path, placed: Callable[[bytes], Geometry]) -> tuple[NDArray[Any], Geometry]:
    """Return what ITK refuses: (array (1, Z, Y, X) as stored, geometry) of NIfTI-2, and of axes not at right angles.

    Numbers count as ITK counts those of other files: in the unit of the header, and what is none as 0.

    Parameters
    ----------
    source : Path
        What is read.
    path : Path
        The file that errors name.
    placed : callable
        Where ITK places the voxels behind the 352 bytes of a NIfTI-1 header; raises RuntimeError where it refuses.
    """
    image, remarks = _load(source, named=path, axes=_BY_ITK)
    require_room(path, image.shape, image.get_data_dtype().itemsize)
    array = np.asanyarray(image.dataobj).transpose()
    array = array if array.ndim == 4 else array[None]
    if array.dtype.kind == "f" and (bad := ~np.isfinite(array)).any():
        remarks = (*remarks, NO_NUMBERS.format(count=np.count_nonzero(bad)))
        array = np.where(bad, array.dtype.type(0), array)
    return array, _where_refused(image, path, remarks, placed)


def header_refused(path: Path, placed: Callable[[bytes], Geometry]) -> Header:
    """Return what a file of :func:`read_refused` says without its voxels."""
    image, remarks = _load(path, voxels=False, axes=_BY_ITK)
    shape = tuple(int(n) for n in reversed(image.shape))
    shape = shape if len(shape) == 4 else (1, *shape)
    scaled = (getattr(image.dataobj, "slope", 1), getattr(image.dataobj, "inter", 0)) != (1, 0)  # to float64
    itemsize = np.dtype(float).itemsize if scaled else image.get_data_dtype().itemsize
    return Header(shape, itemsize, _where_refused(image, path, remarks, placed))


def _where_refused(image: Any, path: Path, remarks: tuple[str, ...], placed: Callable[[bytes], Geometry]) -> Geometry:
    """Return where voxels lie that ITK refuses: by its own rules where it would place those of NIfTI-1.

    Along a tilted axis, the size of voxels is the distance of neighbouring rows, columns and slices, so that it
    multiplies to the volume of a voxel; neighbours are further apart.
    """
    start = _first_version(image.header)
    geometry = None
    if image.header["sizeof_hdr"] != nifti_file.NIFTI_1:
        with suppress(RuntimeError):
            geometry = placed(start)
    if geometry is None and image.ndim < 3:
        raise _flat(image, path)
    if geometry is None:
        affine = np.diag([*[unit_of(start)] * 3, 1.0]) @ image.affine
        across, text = _tilt(affine)
        geometry = Geometry(spacing=tuple(float(v) for v in across[::-1]), affine=_rows(affine), remarks=text)
    return _said(geometry.model_copy(update={"remarks": (*remarks, *geometry.remarks)}), image)


def _said(geometry: Geometry, image: Any) -> Geometry:
    """Return a grid with what was put where its header had no size or place."""
    fix = image.extra.get(_FIX)
    return geometry if fix is None else fix.of(geometry)


def _first_version(header: Any) -> bytes:
    """Return the 352 bytes of a NIfTI-1 header that says of the place of voxels what a header of any version says."""
    if header["sizeof_hdr"] == nifti_file.NIFTI_1:
        return bytes(header.binaryblock) + bytes(4)
    first = nibabel.Nifti1Header(endianness="<")
    for key in _PLACE:
        first[key] = header[key]
    first["dim"] = np.minimum(header["dim"], np.iinfo(np.int16).max)  # longer axes lie where shorter ones do
    first["scl_slope"], first["scl_inter"], first["vox_offset"], first["magic"] = 1, 0, nifti_file.HEADER_BYTES, b"n+1"
    return bytes(first.binaryblock) + bytes(4)


def _tilt(affine: NDArray[Any]) -> tuple[NDArray[Any], tuple[str, ...]]:
    """Return the distances of neighbouring rows, columns and slices (x, y, z), and a remark if axes are tilted."""
    axes = list(zip(*affine[:3, :3].tolist(), strict=True))  # plain numbers: arrays this small cost more than they save
    sides = [math.hypot(*axis) for axis in axes]
    if all(abs(sum(map(mul, axes[i], axes[j]))) <= _RIGHT * sides[i] * sides[j] for i, j in combinations(range(3), 2)):
        return np.array(sides), ()
    across = np.abs(np.diag(np.linalg.qr(affine[:3, :3])[1]))
    angle = np.degrees(np.arccos(np.clip(across / np.array(sides), -1, 1))).max()
    text = f"its axes are not at right angles (tilted by {angle:.1f} degrees); its voxels were read as they lie"
    return across, (text,)


def header(path: Path) -> Header:
    """Return what the file says without its voxels: shape (C, Z, Y, X), bytes per value, geometry.

    nibabel computes in float32.
    """
    known = _glance(path)[1]
    if known is not None:
        return Header((1, *reversed(known.shape)), 4, known.geometry)
    image, remarks = _load(path, voxels=False)
    return Header((1, *(int(n) for n in reversed(image.shape))), 4, _placed(image, remarks))


header_reoriented = header  # which comes in the order of the file, and turns whatever it reads


def promised_bytes(path: Path) -> int:
    """Return how long a file of any kind of NIfTI is by its header, unpacked."""
    image = nibabel.load(str(path))
    return int(image.dataobj.offset) + math.prod(image.shape) * int(image.get_data_dtype().itemsize)


def count_invalid(path: Path) -> int:
    """Return how many stored values are NaN or infinite; integers cannot be."""
    image, _ = _opened(path)
    if image.get_data_dtype().kind != "f":
        return 0
    require_room(path, image.shape, image.get_data_dtype().itemsize)
    values = np.asanyarray(image.dataobj.get_unscaled())
    return int(values.size - np.count_nonzero(np.isfinite(values)))


def _opened(path: Path, *, voxels: bool = True) -> tuple[Any, tuple[str, ...]]:
    """Return nibabel's image of a file, straightened where it is odd, and what is odd about it.

    Whether it ends as it should is only looked at where its voxels are wanted. nibabel does not compare what it
    unpacks with the checksum at its end.
    """
    look = nifti_file.glance_at(path)
    to_check = voxels and look.noted is not None
    if look.promise is None:
        nifti_file.require_nifti(look.start, path)
        if to_check:
            nifti_file.check_stream(path)
    if not look.odd and (look.as_promised or not voxels) and not (to_check and look.promise is not None):
        try:
            # What is known to be NIfTI-1 need not be shown to all of nibabel's formats in turn.
            if look.promise is None:
                return _mended(nibabel.load(str(path)), path), ()
            return nibabel.Nifti1Image.from_filename(str(path)), ()
        except ImageFileError:  # of small files nibabel reads beyond the end, where there may be more bytes
            if not path.name.lower().endswith(".gz"):
                raise
    content, remarks = nifti_file.unpacked(path)
    if look.fix is None:
        return nibabel.Nifti1Image.from_bytes(content), remarks
    image = nibabel.Nifti1Image.from_bytes(nifti_file.straightened(content, look.fix))
    image.extra[_FIX] = look.fix
    return image, remarks


def _mended(image: Any, path: Path) -> Any:
    """Return an image of NIfTI-2 without sizes and places that are none; nibabel itself changes some unsaid."""
    kind = type(image.header)
    with (gzip.open if path.name.lower().endswith(".gz") else open)(path, "rb") as file:
        stored = kind.from_fileobj(io.BytesIO(file.read(kind.sizeof_hdr) + bytes(4)), check=False)
    fix = mended(_first_version(stored))
    if fix is None:
        return image
    header, right = image.header.copy(), nibabel.Nifti1Header(fix.start[:_HEADER_BYTES])
    for key in _PLACE:
        header[key] = right[key]
    return type(image)(image.dataobj, header.get_best_affine(), header, extra={_FIX: fix})


def _load(
    path: Path, *, named: Path | None = None, voxels: bool = True, axes: Collection[int] = (3,)
) -> tuple[Any, tuple[str, ...]]:
    image, remarks = _opened(path, voxels=voxels)
    kind = image.get_data_dtype()
    if kind.kind == "c":
        raise ImageError(COMPLEX.format(name=(named or path).name))
    if kind.names:
        raise ImageError(
            f"{(named or path).name} stores {len(kind.names)} values per voxel. "
            "Save each channel as a file of its own (CASE_0000, CASE_0001, ...)."
        )
    image = nibabel.squeeze_image(image) if len(image.shape) > 3 else image  # further axes of one entry mean nothing
    if len(image.shape) in axes:
        return image, remarks
    if len(image.shape) < 3:
        raise _flat(image, named or path)
    if len(image.shape) != 3:
        raise ImageError(
            f"{(named or path).name} has {len(image.shape)} dimensions ({' x '.join(map(str, image.shape))}). Save "
            "each channel as a volume of its own (CASE_0000, CASE_0001, ...), and each time point as a case."
        )
    return image, remarks


def _flat(image: Any, path: Path) -> ImageError:
    size = " x ".join(map(str, (*image.shape, 1, 1)[:3]))
    return ImageError(
        f"{path.name} has {len(image.shape)} dimensions; nibabel's readers take volumes. Save it as one of a single "
        f"slice ({size}), as .nii.gz, or as a picture (.png, .tif)."
    )


def _placed(image: Any, remarks: tuple[str, ...]) -> Geometry:
    """Return the grid of voxels in storage order, with what is odd about them and about the header."""
    rows, spacing, other = _rows(image.affine), _spacing(image), None
    remarks = (*remarks, *_tilt(image.affine)[1])
    start = _first_version(image.header)
    found, unit = oddities_of(start), unit_of(start)
    if found.sizes or found.places:
        in_mm = tuple(tuple(unit * v for v in row) for row in rows[:3])
        said, place = found.told((*in_mm, rows[3]), [unit * v for v in spacing])
        remarks = (*remarks, *said)
        other = place and tuple(tuple(v / unit for v in row) for row in place[:3]) + place[3:]
    if unit != 1:
        name = "metres" if unit > 1 else "micrometres"
        version = "" if image.header["sizeof_hdr"] == nifti_file.NIFTI_1 else " of NIfTI-1"
        remarks = (*remarks, f"its header counts in {name}; nibabel's readers, and nnU-Net with them, take the "
                   f"numbers for mm. As .nii.gz{version} its true size is read")  # fmt: skip
    return _said(Geometry(spacing=spacing, affine=rows, other_affine=other, remarks=remarks), image)


def _array(image: Any, path: Path) -> NDArray[Any]:
    require_room(path, image.shape, np.dtype(np.float32).itemsize)
    data: NDArray[Any] = image.get_fdata(dtype=np.float32, caching="unchanged")
    kind = image.get_data_dtype()
    if kind.kind in "iu" and kind.itemsize >= 4 and data.size and data.max() >= _EXACT:
        stored = np.asanyarray(image.dataobj)
        data = stored if stored.dtype.kind in "iu" else data  # a scaled file has no other numbers than these
    return data.transpose(2, 1, 0)[None]


def _in_single_precision(stored: NDArray[Any]) -> NDArray[Any]:
    """Return values as nnU-Net has them; whole numbers that these do not hold as they are stored."""
    data = stored.astype(np.float32, copy=not stored.flags.writeable)
    whole = stored.dtype.kind in "iu" and stored.dtype.itemsize >= data.dtype.itemsize
    return stored if whole and data.size and data.max() >= _EXACT else data


def _spacing(image: Any) -> tuple[float, ...]:
    return tuple(float(z) for z in reversed(image.header.get_zooms()[:3]))


def _rows(affine: NDArray[Any]) -> Matrix:
    return tuple(map(tuple, np.asarray(affine, dtype=float).tolist()))


def note(path: Path) -> str | None:
    """Return the text of the note in a NIfTI file."""
    begin = f"{NOTE_KEY}: "
    for extension in _opened(path, voxels=False)[0].header.extensions:
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
