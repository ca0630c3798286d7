"""Opens whatever can be read box by box, without reading a voxel."""

from __future__ import annotations

import math
import re
import weakref
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from numpy.typing import NDArray

from napari_nnunet.errors import ImageError, NnunetError, some
from napari_nnunet.formats.dicom.series import is_series
from napari_nnunet.formats.images import nifti_file
from napari_nnunet.formats.images.files import read_header, read_volume
from napari_nnunet.formats.images.header import as_named, size_given
from napari_nnunet.formats.images.pages.chain import open_tiff
from napari_nnunet.formats.images.pages.series import check_ome, holes_in
from napari_nnunet.formats.images.pixel_sizes import sizes_of
from napari_nnunet.formats.images.tiff import sized
from napari_nnunet.formats.large.level import Level
from napari_nnunet.formats.large.ome_zarr import is_address, is_zarr, open_zarr, zarr_library
from napari_nnunet.formats.large.source import LargeImage, check_axes
from napari_nnunet.formats.regular import regular
from napari_nnunet.grid import Grid, Turned, relation, same_voxels
from napari_nnunet.schema.geometry import GIVEN, Geometry

_TIFF = (".tif", ".tiff")
_ROUNDING = 1e-6  # of a size of voxels, as NIfTI rounds it (float32)
_TURNS = "NibabelIOWithReorient"  # turns voxels, so it reads whole images only


@dataclass(frozen=True)
class Say:
    """What a person says of an image that its files do not.

    Parameters
    ----------
    level : str, optional
        Of a pyramid.
    axes : str, optional
        A letter per axis.
    spacing : tuple of float, optional
        Voxel size ([z,] y, x) in mm.
    best : callable, optional
        Chooses a level.
    reader : callable, optional
        Returns the class of nnU-Net's that reads a file (a path) for a model, None for that of the file's kind.
    ignores_place : bool
        Whether channels of one shape are taken as they are, wherever their files say that they lie.
    """

    level: str | None = None
    axes: str | None = None
    spacing: tuple[float, ...] | None = None
    best: Callable[[Sequence[Level]], int] | None = None
    reader: Callable[[Path], str | None] | None = None
    ignores_place: bool = False


def open_image(paths: Sequence[Path | str], say: Say | None = None) -> LargeImage:
    """Open an image of one or several files, folders or addresses, which hold its channels one after the other.

    Parameters
    ----------
    paths : sequence of Path or str
        OME-Zarr, zarr, a folder of TIFF planes, TIFF, NIfTI, and everything else that is read here; the latter, and
        packed files, as far as they fit into memory.
    say : Say, optional
        What the files do not say.

    Raises
    ------
    ImageError
        If something is missing, damaged, or does not fit together.
    """
    say = say or Say()
    opened = [_open_one(path, say) for path in paths]
    if not opened:
        raise ImageError("No image was given.")
    first = opened[0]
    level = first.level.path if isinstance(first.level, Level) else None
    where = tuple(str(path) if is_address(path) else Path(path).absolute() for path in paths)
    first = replace(first, again=partial(open_image, where, replace(say, level=level, best=None)))
    if len(opened) == 1:
        return first
    for other in [] if say.ignores_place else opened[1:]:
        sizes = (other.geometry.spacing, first.geometry.spacing)
        if other.axes != first.axes or not np.allclose(*sizes, rtol=_ROUNDING, atol=0):
            raise ImageError(
                f"The channels {first.name} and {other.name} do not lie on one grid: {first.axes} with voxels of "
                f"{first.geometry.spacing} mm, {other.axes} with {other.geometry.spacing} mm."
            )
        _require_same_place(first, other)
    return replace(
        first,
        arrays=tuple(array for image in opened for array in image.arrays),
        files=tuple(file for image in opened for file in image.files),
        notes=tuple(dict.fromkeys(note for image in opened for note in image.notes)),
    )


def read_in_parts(path: Path, reader: str | None) -> bool:
    """Whether :func:`open_image` opens a file so that a box of it is read without the rest."""
    lowered = path.name.lower()
    if lowered.endswith(".nii"):
        return reader != _TURNS and _is_plain(path)
    if not lowered.endswith(_TIFF):
        return False
    ndim = read_header(path, reader=reader).geometry.ndim
    file, series = _first_series(path)
    with file:
        whole = [s for s in file.series if not s.keyframe.is_reduced]
        return len(series.shape) == len(_letters(series, ndim, whole))


def _require_same_place(first: LargeImage, other: LargeImage) -> None:
    """Raise ImageError if channels lie apart, or are stored in another orientation: boxes are read as they lie."""
    if first.shape != other.shape:
        return  # said with all shapes
    # Of OME-Zarr no directions are known, so that it is compared with OME-Zarr alone.
    known = first.place is not None and other.place is not None
    grids = [Grid(each.shape, each.lies.geometry if known else each.geometry) for each in (first, other)]
    found = relation(*grids)
    if not same_voxels(found, *grids):
        how = f"is stored in another orientation than {first.name}" if isinstance(found, Turned) else (
            f"does not lie on the grid of {first.name}"
        )  # fmt: skip
        raise ImageError(
            f"{other.name} {how}, but is a channel of the same image: {found}. Bring both onto one grid first."
        )


def image_of(array: Any, spacing: Sequence[float], axes: str | None = None, name: str = "the array") -> LargeImage:
    """Return an image of an array (numpy, dask, zarr or another one with slices).

    Parameters
    ----------
    array : array-like
        Never read as a whole.
    spacing : sequence of float
        Voxel size ([z,] y, x) in mm.
    axes : str, optional
        A letter per axis; ([C,] [Z,] Y, X) for as many sizes as there are if not given.
    """
    axes = axes or "CZYX"[-len(array.shape) :] if len(spacing) == 3 else axes or "CYX"[-len(array.shape) :]
    image = LargeImage((array,), axes, Geometry(spacing=(1.0,) * sum(a in axes for a in "ZYX")), name)
    return replace(image, geometry=image.geometry.with_spacing(spacing, GIVEN))


def _open_one(path: Path | str, say: Say) -> LargeImage:
    with size_given(say.spacing):
        return _opened(path, say)


def _opened(path: Path | str, say: Say) -> LargeImage:
    if is_zarr(path):
        return open_zarr(path, level=say.level, axes=say.axes, spacing=say.spacing, best=say.best)
    path = Path(path)
    if say.level is not None:
        raise ImageError(f"{path.name} is not an OME-Zarr image, so it has no level {say.level}.")
    reader = say.reader(path) if say.reader is not None else None
    if path.is_dir() and (planes := _planes_in(path)):
        image = _open_planes(path, planes)
    elif path.name.lower().endswith(_TIFF):
        image = _open_tiff(path, say.axes, reader)
    elif path.is_dir():
        what = "a DICOM series, which predict segments" if is_series(path) else "no TIFF planes"
        raise ImageError(f"{path} holds {what}. Give OME-Zarr, a folder of TIFF planes, or a file.")
    elif path.name.lower().endswith(".nii") and reader != _TURNS and _is_plain(path):
        image = _open_nifti(path)
    else:
        volume = read_volume([path], reader=reader, as_stored=True)
        letters = "CZYX" if len(volume.shape) == 3 else "CYX"
        image = LargeImage((volume.array,), letters, volume.geometry, path.name, (path,))
    if say.axes is not None:
        image = replace(image, axes=say.axes)
    if say.spacing is not None:
        image = replace(image, geometry=image.geometry.with_spacing(say.spacing, GIVEN))
    return image


def _planes_in(folder: Path) -> list[Path]:
    """Return the TIFF files of a folder in the order of the numbers in their names; none if there is something else."""
    files = [path for path in folder.iterdir() if path.is_file() and not path.name.startswith(".")]
    found = [path for path in files if path.name.lower().endswith(_TIFF)]
    return sorted(found, key=lambda path: [int(w) if w.isdecimal() else w for w in re.split(r"(\d+)", path.name)])


class _Planes:
    """Files of one plane each, as a stack (z, y, x)."""

    def __init__(self, files: Sequence[Path], shape: tuple[int, int], dtype: np.dtype[Any]) -> None:
        self._files = list(files)
        self.shape, self.dtype = (len(files), *shape), dtype

    def __getitem__(self, index: tuple[slice, ...]) -> NDArray[Any]:
        along, y, x = index
        files = self._files[along]
        stack = np.empty((len(files), *_extent(self.shape[1:], (y, x))), dtype=self.dtype)
        for plane, file in zip(stack, files, strict=True):
            plane[...] = self._plane(file)[y, x]
        return stack

    def _plane(self, file: Path) -> NDArray[Any]:
        # What it says in OME-XML may name other files, wherever they lie, and places within them.
        with open_tiff(regular(file), is_ome=False) as tiff:
            series = tiff.series[0]
            # Before it is read: it may promise more than memory holds.
            self._require(file, tuple(n for n in series.shape if n > 1), np.dtype(series.dtype))
            if series.dataoffset is not None and series.keyframe.is_memmappable:  # only what is looked at is read
                dtype = np.dtype(series.dtype).newbyteorder(tiff.byteorder)
                plane: NDArray[Any] = np.memmap(file, dtype, "r", series.dataoffset, tuple(series.shape))
            else:
                plane = series.asarray()
        plane = plane.squeeze()
        self._require(file, plane.shape, plane.dtype)
        return plane

    def _require(self, file: Path, shape: Sequence[int], dtype: np.dtype[Any]) -> None:
        if tuple(shape) != self.shape[1:] or dtype != self.dtype:
            raise ValueError(
                f"{file.name} has {' x '.join(map(str, shape))} pixels of type {dtype}, the first plane "
                f"has {' x '.join(map(str, self.shape[1:]))} of type {self.dtype}"
            )


def _extent(shape: Sequence[int], index: Sequence[slice]) -> tuple[int, ...]:
    return tuple(len(range(*part.indices(n))) for n, part in zip(shape, index, strict=True))


def _open_planes(folder: Path, files: list[Path]) -> LargeImage:
    try:
        with open_tiff(regular(files[0]), _multifile=False) as first:
            check_ome(first, files[0])
            series = first.series[0]
            shape = tuple(n for n in series.shape if n > 1) or tuple(series.shape)
            dtype, sizes = np.dtype(series.dtype), sizes_of(first, 3)
    except NnunetError:
        raise
    except Exception as error:  # of many kinds: tifffile trusts what a file says of itself
        raise ImageError(f"{files[0]} is not a readable TIFF: {error}. Copy or export it again.") from error
    if len(shape) != 2:
        raise ImageError(
            f"The planes of {folder.name} have the shape {' x '.join(map(str, shape))}; a folder of planes holds one "
            "grey picture (y, x) per file."
        )
    _check_numbers(folder, files)
    geometry = Geometry(spacing=(1.0, 1.0, 1.0), spacing_known=False)
    if sizes is not None:
        geometry = Geometry(spacing=sizes[0], spacing_source=sizes[1])
    planes = _Planes(files, (shape[0], shape[1]), dtype)
    return LargeImage((planes,), "ZYX", geometry, folder.name, (folder,))


def _check_numbers(folder: Path, files: Sequence[Path]) -> None:
    """Raise ImageError if the numbers of planes tell that some are missing, or that there are several of each."""
    numbers = [re.findall(r"\d+", path.stem)[-1:] for path in files]
    if not all(numbers):
        return
    known: dict[int, Path] = {}
    for number, path in zip(numbers, files, strict=True):
        before = known.setdefault(int(number[0]), path)
        if before != path:
            raise ImageError(
                f"{folder.name} has several planes of one number: {before.name} and {path.name}. Are these several "
                "channels, time points or series? Put each into a folder of its own."
            )
    there = sorted(known)
    step = min((b - a for a, b in pairwise(there)), default=1)
    if (there[-1] - there[0]) // step >= len(files) + len(there):  # dates, say; nobody counts up to these
        return
    gaps = [n for n in range(there[0], there[-1] + 1, step) if n not in known]
    if gaps and len(gaps) < len(files):
        raise ImageError(
            f"Planes are missing in {folder.name}: {some(gaps)} "
            f"between {files[0].name} and {files[-1].name}. Export it again."
        )


def _open_tiff(path: Path, axes: str | None, reader: str | None) -> LargeImage:
    """Open a TIFF: mapped into memory where it is stored as it is, else through its strips or tiles."""
    if axes is None:
        header = read_header(path, reader=reader)
        ndim, geometry = header.geometry.ndim, header.geometry
    else:
        ndim = sum(letter in axes for letter in "ZYX")
        geometry = Geometry(spacing=(1.0,) * ndim, spacing_known=False)
    with ExitStack() as stack:
        file, series = _first_series(path)
        stack.callback(file.close)
        if axes is not None and ndim in (2, 3):
            geometry = as_named(sized(path, file, ndim), reader)
        letters = axes or _letters(series, ndim, [s for s in file.series if not s.keyframe.is_reduced])
        if len(series.shape) == len(letters) and series.dataoffset is None:
            holes = holes_in(series, path)
            geometry = geometry.model_copy(update={"remarks": (*geometry.remarks, *holes)})
            image = LargeImage((_Tiles(file),), letters, geometry, path.name, (path,))
            stack.pop_all()
            return image
    if len(series.shape) == len(letters):
        kind = series.dtype.newbyteorder(file.byteorder)
        array: Any = np.memmap(path, kind, "r", series.dataoffset, tuple(series.shape))
    elif axes is None:
        array = read_volume([path], reader=reader, as_stored=True).array
        letters = "CZYX"[-len(array.shape) :] if ndim == 3 else "CYX"
    else:
        check_axes(axes, len(series.shape), path.name)
    return LargeImage((array,), letters, geometry, path.name, (path,))


def _first_series(path: Path) -> tuple[Any, Any]:
    """Return an open TIFF and what its first pages are together; raises ImageError if it cannot be read."""
    with ExitStack() as stack:
        try:
            file = stack.enter_context(open_tiff(regular(path), _multifile=False))
            check_ome(file, path)
            series = file.series[0]
        except NnunetError:
            raise
        except Exception as error:  # of many kinds: tifffile trusts what a file says of itself
            raise ImageError(f"{path} is not a readable TIFF: {error}. Copy or export it again.") from error
        stack.pop_all()
        return file, series


class _Tiles:
    """A TIFF whose strips or tiles are read one by one, and which is closed when nobody needs it any more."""

    def __init__(self, file: Any) -> None:
        self._array = zarr_library().open(file.series[0].aszarr(level=0), mode="r")
        self.shape, self.dtype, self.chunks = self._array.shape, self._array.dtype, self._array.chunks
        weakref.finalize(self, file.close)

    def __getitem__(self, index: tuple[slice, ...]) -> NDArray[Any]:
        return np.asarray(self._array[index])


def _letters(series: Any, ndim: int, whole: Sequence[Any]) -> str:
    """Return a letter per axis of a TIFF that is read here; empty where its pages have to be put together first."""
    letters = str(series.axes).replace("S", "C")
    if len(whole) > 1 or not set("YX") <= set(letters):
        return ""
    if len(letters) == ndim:
        return "ZYX"[-ndim:]
    return letters if set(letters) <= set("CZYX") else ""


def _is_plain(path: Path) -> bool:
    """Whether the voxels of a NIfTI file can be taken from it as they lie; what is not there is said when it opens."""
    look = nifti_file.glance_at(path) if path.is_file() else None
    return look is None or (look.promise is not None and not look.odd and len(look.promise.shape) <= 3)


def _open_nifti(path: Path) -> LargeImage:
    """Open a NIfTI file that is not packed: its voxels are mapped into memory."""
    header = read_header(path)
    try:
        proxy = nibabel.Nifti1Image.from_filename(path, mmap="r").dataobj
    except (nibabel.filebasedimages.ImageFileError, OSError, ValueError) as error:
        raise ImageError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}.") from error
    if path.stat().st_size < proxy.offset + proxy.dtype.itemsize * math.prod(proxy.shape):
        raise ImageError(f"{path} cannot be read: it is truncated. Copy it again.")
    ndim = header.geometry.ndim
    if len(proxy.shape) != ndim:
        raise ImageError(
            f"{path.name} has {len(proxy.shape)} axes ({' x '.join(map(str, proxy.shape))}); a volume has 3. Save "
            "every channel and every time point as a file of its own."
        )
    return LargeImage((_Reversed(proxy),), "ZYX"[-ndim:], header.geometry, path.name, (path,))


class _Reversed:
    """A proxy of NIfTI, whose first axis is x, with the axes turned around."""

    def __init__(self, proxy: Any) -> None:
        self._proxy = proxy
        self.shape = tuple(reversed(proxy.shape))
        scaled = (proxy.slope, proxy.inter) not in ((1.0, 0.0), (1, 0))
        self.dtype = np.dtype(np.float64) if scaled else proxy.dtype

    def __getitem__(self, index: tuple[slice, ...]) -> NDArray[Any]:
        return np.asarray(self._proxy[tuple(reversed(index))]).T


__all__ = ["LargeImage", "Say", "image_of", "is_address", "open_image"]
