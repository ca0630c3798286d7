"""Image files in and out: a literal table of adapters with nnU-Net's names.

Readers convert to (C, [Z,] Y, X) and mm; they never resample, crop or, but for the two whose names say so, reorient.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from napari_nnunet.errors import ImageError, NnunetError, memory_told
from napari_nnunet.formats.atomic import written_beside
from napari_nnunet.formats.images import header
from napari_nnunet.formats.images.header import COMPLEX, Header, as_named, check_labels, one_line, opened_once
from napari_nnunet.formats.images.label_note import LabelNote
from napari_nnunet.grid import Grid, WhenApart, channels_together
from napari_nnunet.schema.geometry import Geometry
from napari_nnunet.volume import Volume, whole_numbers

_TWO_BYTES = 65535  # nnU-Net's label files go no further; atlases and numbers of objects do
_LABEL_BYTES, _HIGHEST_LABEL = 4, 2**31 - 1


@dataclass(frozen=True)
class Adapter:
    """How one family of files is read and written.

    Parameters
    ----------
    name : str
        nnU-Net's class name, as plans.json stores it.
    endings : tuple of str
        Endings it is taken for by itself.
    module : str
        The module of this package that does it; loaded, with its library, when it is first needed.
    reorients : bool
        Whether the voxels are turned to RAS.
    """

    name: str
    endings: tuple[str, ...]
    module: Literal["itk", "natural", "nifti", "tiff"]
    reorients: bool = False

    @property
    def _functions(self) -> Any:
        return import_module(f"napari_nnunet.formats.images.{self.module}")

    def read(self, path: Path, *, labels: bool = False) -> tuple[NDArray[Any], Geometry]:
        """Return (array (C, [Z,] Y, X), geometry); labels with all bits, where nnU-Net keeps 8 of 16."""
        functions = self._functions
        if labels and self.module == "natural":
            return functions.read_values(path)
        return functions.read_reoriented(path) if self.reorients else functions.read(path)

    def write(self, labels: NDArray[Any], geometry: Geometry, path: Path, note: LabelNote | None = None) -> None:
        """Write labels ([Z,] Y, X), turned back where the reader turned them; with a note also a time series."""
        functions = self._functions
        if self.reorients and self.module == "itk":
            functions.write_reoriented(labels, geometry, path)
        else:
            functions.write(labels, geometry, path, note)

    def note(self, path: Path) -> str | None:
        """Return the text of the note in a file."""
        text: str | None = self._functions.note(path)
        return text

    def header(self, path: Path) -> Header:
        """Return shape (C, [Z,] Y, X), bytes per value and geometry without reading the voxels."""
        return Header(*getattr(self._functions, "header_reoriented" if self.reorients else "header")(path))

    def count_invalid(self, path: Path) -> int:
        """Return how many voxels of a NIfTI file are NaN or infinite."""
        return int(self._functions.count_invalid(path))

    def accepts(self, path: Path) -> bool:
        """Whether a file of a known ending can be meant for this adapter: one picture, an affine without shear."""
        functions = self._functions
        if self.module == "natural" and path.name.lower().endswith((".tif", ".tiff")):
            return bool(functions.is_natural(path))
        return bool(functions.is_readable(path)) if self.module == "itk" else True


ADAPTERS: dict[str, Adapter] = {
    adapter.name: adapter
    for adapter in (
        Adapter("NaturalImage2DIO", (".png", ".bmp", ".jpg", ".jpeg", ".tif", ".tiff"), "natural"),
        Adapter("SimpleITKIO", (".nii.gz", ".nrrd", ".mha", ".mhd", ".gipl"), "itk"),
        Adapter("Tiff3DIO", (".tif", ".tiff"), "tiff"),
        Adapter("NibabelIO", (".nii", ".nii.gz"), "nifti"),
        Adapter("NibabelIOWithReorient", (), "nifti", reorients=True),
        Adapter("SimpleITKIOWithReorient", (), "itk", reorients=True),
    )
}
ENDINGS: tuple[str, ...] = tuple(
    sorted({ending for adapter in ADAPTERS.values() for ending in adapter.endings}, key=len, reverse=True)
)


def ending_of(path: Path) -> str:
    """Return the known ending of a file name, ".nii.gz" before ".gz".

    Raises
    ------
    ImageError
        If no adapter knows the file.
    """
    lowered = path.name.lower()
    for ending in ENDINGS:
        if lowered.endswith(ending):
            return ending
    raise ImageError(f"{path.name}: unknown kind of image. Known endings: {', '.join(sorted(ENDINGS))}.")


def common_ending(folder: Path) -> str:
    """Return the ending of the images in a folder.

    Raises
    ------
    ImageError
        If there is no image, or images of several kinds.
    """
    if not folder.is_dir():
        raise ImageError(f"The folder {folder} does not exist.")
    lowered = [p.name.lower() for p in folder.iterdir() if p.is_file() and not p.name.startswith(".")]
    found = {next((e for e in ENDINGS if name.endswith(e)), None) for name in lowered} - {None}
    if len(found) != 1:
        listed = ", ".join(sorted(str(e) for e in found))
        raise ImageError(f"{folder} holds " + (f"images of several kinds: {listed}." if found else "no images."))
    return str(found.pop())


def adapter_for(path: Path, name: str | None = None) -> Adapter:
    """Return the adapter of a file: the one the plans name, unless it cannot be meant for this file.

    Parameters
    ----------
    path : Path
        An example file.
    name : str, optional
        nnU-Net's class name from plans.json or dataset.json.

    Raises
    ------
    ImageError
        If the name or the ending is unknown, or it is a pipe or a device.
    """
    header.no_pipe(path)
    return _adapter(path, name)


def _adapter(path: Path, name: str | None) -> Adapter:
    """Return the adapter of what is known to be a file."""
    if name is not None:
        if name not in ADAPTERS:
            raise ImageError(f"Unknown image reader {name!r}. Known: {', '.join(ADAPTERS)}.")
        return ADAPTERS[name]
    ending = ending_of(path)
    candidates = [adapter for adapter in ADAPTERS.values() if ending in adapter.endings]
    return next((candidate for candidate in candidates[:-1] if candidate.accepts(path)), candidates[-1])


@opened_once
def read_volume(
    paths: Sequence[Path | str], *, reader: str | None = None, as_stored: bool = False, apart: WhenApart = "refuse"
) -> Volume:
    """Read the channel files of one case.

    Parameters
    ----------
    paths : sequence of Path or str
        One file per channel (or one with several channels), in channel order.
    reader : str, optional
        nnU-Net's class name; found from the first file if not given. That of pictures knows no size of a pixel.
    as_stored : bool
        Keep the type of the file, which may take a fraction of the memory.
    apart : {"refuse", "resample", "ignore"}
        What is done with a channel that lies on another grid than the first one; one that is merely stored in another
        order is turned, and ``notes`` say so.

    Returns
    -------
    Volume
        float32 (or as stored), (C, [Z,] Y, X), with the geometry of the first file.

    Raises
    ------
    ImageError
        If a file is missing or damaged, or the channels do not lie on one grid.
    """
    if not paths:
        raise ImageError("No image file was given.")
    files = [Path(path) for path in paths]
    header.require_channels(files)
    adapter = _adapter(files[0], reader)
    parts = [_read_one(adapter, path, reader) for path in files]
    notes: tuple[str, ...] = ()
    arrays = [array for array, _ in parts]
    if len(parts) > 1:
        grids = [Grid(array.shape[1:], other) for array, other in parts]
        arrays, notes = channels_together(arrays, grids, [path.name for path in files], apart=apart)
    data = arrays[0] if len(parts) == 1 else np.concatenate(arrays)
    return Volume(data if as_stored else data.astype(np.float32, copy=False), parts[0][1], notes)


@opened_once
def read_header(path: Path, *, reader: str | None = None) -> Header:
    """Return shape (C, [Z,] Y, X), bytes per value and geometry without reading the voxels.

    Axes that a reader turns come in the order of the file. Raises ImageError if the file is missing or damaged.
    """
    header.require_file(path, "image file")
    adapter = _adapter(path, reader)
    try:
        shape, itemsize, geometry = adapter.header(path)
    except NnunetError:
        raise
    except Exception as error:
        raise _unreadable(path, adapter, error) from error
    return Header(shape, itemsize, as_named(geometry, reader))


def count_invalid(path: Path, volume: Volume) -> int:
    """Return how many voxels of a file are NaN or infinite; ITK would turn them to 0 in NIfTI files."""
    if path.name.lower().endswith((".nii", ".nii.gz")):
        return ADAPTERS["NibabelIO"].count_invalid(path)
    array = np.asarray(volume.array)
    return int(array.size - np.count_nonzero(np.isfinite(array)))


@opened_once
def read_labels(path: Path, *, reader: str | None = None, as_stored: bool = False) -> tuple[NDArray[Any], Geometry]:
    """Read a label file.

    Parameters
    ----------
    path : Path
        With one channel.
    reader : str, optional
        nnU-Net's class name; found from the file if not given.
    as_stored : bool
        Keep a whole-number type of up to four bytes, which may take a quarter of the memory; the array is not to be
        written to.

    Returns
    -------
    tuple of (ndarray, Geometry)
        int32 (or as stored), ([Z,] Y, X).

    Raises
    ------
    ImageError
        If the file is missing, damaged, or has several channels.
    """
    check_labels(path)
    array, geometry = _read_one(_adapter(path, reader), path, reader, labels=True)
    if array.shape[0] != 1:
        raise ImageError(f"{path.name} has {array.shape[0]} channels; a label file must have one.")
    labels = array[0]
    if as_stored and labels.dtype.kind in "iu" and labels.dtype.itemsize <= _LABEL_BYTES:
        return labels, geometry
    return whole_numbers(labels, path), geometry


@opened_once
def read_stored(path: Path, reader: str) -> tuple[NDArray[Any], Geometry]:
    """Return (array (C, [Z,] Y, X), geometry) of a mask as it is stored; raises ImageError if it cannot be read."""
    header.require_file(path, "file")
    return _read_one(_adapter(path, reader), path, None, labels=True)


def _read_one(
    adapter: Adapter, path: Path, reader: str | None, *, labels: bool = False
) -> tuple[NDArray[Any], Geometry]:
    try:
        with memory_told():
            array, geometry = adapter.read(path, labels=labels)
    except NnunetError:
        raise
    except Exception as error:
        raise _unreadable(path, adapter, error) from error
    if array.dtype.kind == "c":
        raise ImageError(COMPLEX.format(name=path.name))
    if not array.size:
        raise ImageError(f"{path} holds no voxel: it has {_times(array.shape[1:])}. Was it written completely?")
    return array, as_named(geometry, reader)


def _unreadable(path: Path, adapter: Adapter, error: Exception) -> ImageError:
    """Every library has its own exceptions for a damaged file; the user needs the name and the cause."""
    if isinstance(error, PermissionError):
        return ImageError(f"{path} may not be read by you. Change its permissions.")
    text = f"cannot be read as {adapter.name}: {one_line(error)} The file may be truncated or of another type."
    return ImageError(f"{path} {text}")


def write_labels(
    labels: NDArray[Any], geometry: Geometry, path: Path, *, writer: str | None = None, note: LabelNote | None = None
) -> None:
    """Write a segmentation in the geometry of its image; the file appears only when it is complete.

    Parameters
    ----------
    labels : ndarray of int or bool, shape ([Z,] Y, X)
        From 0 to 2147483647; written as uint8 below 255, as uint16 from 255 on, as int32 from 65536 on. With a note
        also ([T,] [Z,] Y, X).
    geometry : Geometry
        As the reader gave it.
    path : Path
        The ending decides the format.
    writer : str, optional
        nnU-Net's class name.
    note : LabelNote, optional
        Kept in the file's metadata.

    Raises
    ------
    ImageError
        If there is a value that label files do not hold, or the format holds no such array.
    """
    adapter = _writer_for(path, geometry, labels.ndim, writer)
    lowest, highest = (labels.min(), labels.max()) if labels.size else (0, 0)
    if labels.dtype.kind not in "iub" or lowest < 0 or highest > _HIGHEST_LABEL:
        raise ImageError(
            f"{path.name} cannot store values from {lowest} to {highest} of type {labels.dtype}; labels are whole "
            f"numbers from 0 to {_HIGHEST_LABEL}. Renumber them first."
        )
    if highest > _TWO_BYTES and ending_of(path) == ".gipl":
        raise ImageError(f"GIPL stores labels up to {_TWO_BYTES}, not {highest}; write a .nii.gz.")
    kind = np.uint8 if highest < 255 else np.uint16 if highest <= _TWO_BYTES else np.int32
    small = labels.astype(kind, copy=False)
    with written_beside(path, suffix=_temporary_ending(path)) as temporary:
        try:
            adapter.write(small, geometry, temporary, note)
        except RuntimeError as error:
            # ITK reports a full disk and a forbidden folder as RuntimeError.
            raise OSError(one_line(error)) from error


def _temporary_ending(path: Path) -> str:
    """Return the ending to write under: MetaImage puts the voxels of .mhd into a second file, those of .mha inside."""
    return ".mha" if (ending := ending_of(path)) == ".mhd" else ending


def split_channels(path: Path, targets: Sequence[Path]) -> None:
    """Write the volumes of a four-dimensional file as files of their own, in its pixel type.

    Raises ImageError if the file does not hold as many volumes as there are targets.
    """
    from napari_nnunet.formats.images import itk  # loads ITK

    parts = itk.volumes(path)
    if len(parts) != len(targets):
        raise ImageError(f"{path.name} holds {len(parts)} volumes; {len(targets)} were expected.")
    for part, target in zip(parts, targets, strict=True):
        with written_beside(target, suffix=_temporary_ending(target)) as temporary:
            itk.write_volume(part, temporary)


_IMAGE_TYPES = ("uint8", "int16", "uint16", "int32", "float32")


def write_image(channel: NDArray[Any], geometry: Geometry, path: Path) -> None:
    """Write one channel ([Z,] Y, X) of an image; the file appears only when it is complete.

    Values of types that files do not hold (64 bits, half precision, bool) are written as float32 or uint8.
    """
    if channel.dtype.name not in _IMAGE_TYPES:
        channel = channel.astype(np.uint8 if channel.dtype == bool else np.float32)
    adapter = _writer_for(path, geometry, channel.ndim)
    with written_beside(path, suffix=_temporary_ending(path)) as temporary:
        try:
            adapter.write(channel, geometry, temporary)
        except RuntimeError as error:
            raise OSError(one_line(error)) from error


def _writer_for(path: Path, geometry: Geometry, ndim: int, name: str | None = None) -> Adapter:
    """Return the named adapter, unless another reader read the image and left a grid that it cannot write."""
    ending = ending_of(path)
    # NIfTI has two libraries with grids of their own: what one has read, the other cannot place.
    swapped = {"itk": geometry.affine is not None and geometry.origin is None, "nifti": geometry.affine is None}
    if name and not swapped.get((named := adapter_for(path, name)).module, False):
        return named
    if ending in (".nii", ".nii.gz"):
        return ADAPTERS["NibabelIO" if geometry.affine is not None else "SimpleITKIO"]
    if ending in (".tif", ".tiff"):
        return ADAPTERS["NaturalImage2DIO" if ndim == 2 else "Tiff3DIO"]
    return next(adapter for adapter in ADAPTERS.values() if ending in adapter.endings)


def _times(numbers: Sequence[float]) -> str:
    return " x ".join(f"{n:g}" for n in numbers)
