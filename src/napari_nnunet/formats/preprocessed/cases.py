"""Preprocessed training cases: CASE.b2nd, CASE_seg.b2nd, CASE.pkl, as nnU-Net stores them."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_nnunet.errors import DatasetError, some
from napari_nnunet.formats.atomic import write_error, written_beside
from napari_nnunet.formats.pickles import read_pickle, write_pickle
from napari_nnunet.formats.preprocessed.archives import DAMAGED, archive_at, damage_of_archive, open_arrays, told
from napari_nnunet.formats.preprocessed.chunks import chunks_and_blocks, joined_slices
from napari_nnunet.formats.preprocessed.frame import checked_frame
from napari_nnunet.formats.regular import regular
from napari_nnunet.formats.room import require_room
from napari_nnunet.schema.dataset import Region

if TYPE_CHECKING:
    import blosc2

# blosc2 takes a quarter of a second to load; whoever only looks for files does without.
_HEAD = 24  # bytes of a Blosc2 frame up to and with its length: 2 + 8 (name), 1 + 4 (header), 1 + 8 (frame)
_STOP = b"."  # with which a pickle ends
MADE_ANEW = {
    "shell": "Run 'preprocess --clean', which makes all cases again; where they are few, delete their files instead "
    "and run 'preprocess', which makes only these.",
    "window": "Tick 'From scratch' above Preprocess in the Plan dock, which makes all cases again; where they are few, "
    "delete their files instead and press Preprocess, which makes only these.",
}
_SAMPLE_VOXELS = 1 << 14  # enough to tell which filter packs a case better


@dataclass(frozen=True, eq=False)
class StoredCase:
    """A preprocessed case; the arrays are read where they are sliced.

    Parameters
    ----------
    name : str
        Of the case.
    data : array-like of float32, shape (C, z, y, x)
        Image.
    labels : array-like of int16, shape (1, z, y, x)
        -1 outside the content.
    properties : Path
        The pickle with geometry, crop box and class locations; see :meth:`read_properties`.
    """

    name: str
    data: Any
    labels: Any
    properties: Path

    def read_properties(self) -> Mapping[str, Any]:
        """Read geometry, crop box and class locations; nothing in the file is executed."""
        content = read_pickle(self.properties)
        if not isinstance(content, Mapping):
            raise DatasetError(f"{self.properties} does not contain a dictionary. Preprocess the case again.")
        return content


def preprocessed_files(folder: Path, name: str) -> tuple[Path, Path, Path]:
    """Return the three files of a case: image, labels, properties."""
    return folder / f"{name}.b2nd", folder / f"{name}_seg.b2nd", folder / f"{name}.pkl"


def store_case(
    folder: Path,
    name: str,
    data: NDArray[np.float32],
    labels: NDArray[np.int16],
    properties: Mapping[str, Any],
    *,
    patch: Sequence[int],
    staging: Path,
) -> None:
    """Write one case, each file at once and whole; the properties last.

    Parameters
    ----------
    folder : Path
        ``nnUNet_preprocessed/DATASET/DATA_IDENTIFIER``.
    name : str
        Of the case.
    data : ndarray of float32, shape (C, z, y, x)
        Image.
    labels : ndarray of int16, shape (1, z, y, x)
        Labels.
    properties : mapping
        Plain values and arrays.
    patch : sequence of int
        Patch of the configuration: decides how the arrays are cut into chunks.
    staging : Path
        Where unfinished files lie: a stray file in ``folder`` would end nnU-Net's training.
    """
    image, seg, rest = preprocessed_files(folder, name)
    _write_array(image, data, patch, staging)
    _write_array(seg, labels, patch, staging)
    write_pickle(rest, dict(properties), staging=staging)


def _write_array(path: Path, array: NDArray[Any], patch: Sequence[int], staging: Path) -> None:
    chunks, blocks = chunks_and_blocks(array.shape, patch, array.dtype.itemsize)
    _write_blosc(path, array, joined_slices(array.shape, patch, chunks, array.dtype.itemsize), blocks, staging)


def _library() -> Any:
    import blosc2  # only to open cases: planning and docks list them

    return blosc2


def _write_blosc(
    path: Path, array: NDArray[Any], chunks: Sequence[int], blocks: Sequence[int], staging: Path | None = None
) -> None:
    blosc = _library()
    contiguous = np.ascontiguousarray(array)
    with written_beside(path, staging=staging, suffix=".b2nd", durable=False) as temporary:
        try:
            blosc.asarray(
                contiguous,
                chunks=chunks,
                blocks=blocks,
                urlpath=str(temporary),
                mode="w",
                cparams=compression(contiguous),
                dparams=blosc.DParams(nthreads=1),
            )
        except RuntimeError as error:
            # blosc2 does not pass on what the system said
            raise write_error(path, f"the disk is full, or refuses the file ({error})") from error


def compression(array: NDArray[Any]) -> blosc2.CParams:
    """Return how to compress an array.

    Zstandard at its fastest packs these arrays as well as nnU-Net's LZ4HC, is written 5 to 7 times faster and read as
    fast. Labels and images that were interpolated pack better with their bytes shuffled, images of few grey values
    without.
    """
    import blosc2  # only to open cases: planning and docks list them

    def parameters(kind: blosc2.Filter) -> blosc2.CParams:
        return blosc2.CParams(
            codec=blosc2.Codec.ZSTD,
            clevel=1,
            filters=[kind],
            filters_meta=[0],
            typesize=array.dtype.itemsize,
            nthreads=1,
        )

    if array.dtype.kind != "f":
        return parameters(blosc2.Filter.SHUFFLE)
    flat = array.reshape(-1)
    begin = max(0, (flat.size - _SAMPLE_VOXELS) // 2)
    sample = np.ascontiguousarray(flat[begin : begin + _SAMPLE_VOXELS])
    kinds = (blosc2.Filter.NOFILTER, blosc2.Filter.SHUFFLE)
    return min(map(parameters, kinds), key=lambda options: len(blosc2.compress2(sample, cparams=options)))


def case_names(folder: Path) -> list[str]:
    """Return the names of the cases in a folder, sorted; both of nnU-Net's formats are known.

    Raises
    ------
    DatasetError
        If the folder does not exist.
    """
    if not folder.is_dir():
        raise DatasetError(f"{folder} does not exist. Preprocess the dataset first.")
    os.scandir(folder).close()  # which says that one may not look into it
    names = {path.name[: -len(".b2nd")] for path in folder.glob("*.b2nd") if not path.name.startswith(".")}
    names |= {path.stem for path in folder.glob("*.npz")}
    return sorted(name for name in names if not (name.endswith("_seg") and name[: -len("_seg")] in names))


def open_case(folder: Path, name: str) -> StoredCase:
    """Open a case of either format, memory-mapped where the system allows it.

    Raises
    ------
    DatasetError
        If files are missing or damaged.
    """
    image, seg, properties = preprocessed_files(folder, name)
    if not properties.is_file():
        raise DatasetError(f"{properties} is missing. Preprocess the case again.")
    try:
        if image.is_file():
            return StoredCase(name, _open_blosc(image), _open_blosc(seg), properties)
        return StoredCase(name, *open_arrays(folder, name), properties)
    except DAMAGED as error:
        raise DatasetError(
            f"The preprocessed case {name} in {folder} cannot be read: {told(error)}. Preprocess the case again."
        ) from error


def undrawn(folder: Path, names: Iterable[str], keys: Iterable[Region]) -> set[Region]:
    """Return the classes or regions of which no voxel lies in any of some cases; it reads until each was met."""
    left = set(keys)
    for name in names:
        if not left:
            break
        drawn = open_case(folder, name).read_properties().get("class_locations")
        if not isinstance(drawn, Mapping):
            return set()  # of this case nothing is known
        left -= {key for key, rows in drawn.items() if len(rows)}
    return left


def _open_blosc(path: Path) -> Any:
    blosc = _library()
    mapped = {} if sys.platform == "win32" else {"mmap_mode": "r"}
    return _Slices(
        path, blosc.open(urlpath=str(checked_frame(path)), mode="r", dparams=blosc.DParams(nthreads=1), **mapped)
    )


class _Slices:
    """An array in a .b2nd file, read where it is sliced; a part that is damaged is told only then.

    Parameters
    ----------
    path : Path
        Of the file.
    array : blosc2.NDArray
        As it was opened.
    """

    def __init__(self, path: Path, array: Any) -> None:
        self._path, self._array = path, array
        self.shape, self.dtype, self.ndim = tuple(array.shape), array.dtype, array.ndim

    def __getitem__(self, key: Any) -> NDArray[Any]:
        require_room(self._path, self._extent(key), self.dtype.itemsize)  # zeros need no room in a file
        try:
            return self._array[key]
        except RuntimeError as error:
            raise DatasetError(f"{self._path} is damaged ({error}). Preprocess the case again.") from error

    def _extent(self, key: Any) -> tuple[int, ...]:
        """Return how much is read along each axis, at most."""
        parts = key if isinstance(key, tuple) else (key,)
        if any(part is Ellipsis for part in parts) or len(parts) > self.ndim:
            return self.shape
        sizes = [len(range(*part.indices(n))) if isinstance(part, slice) else n
                 for part, n in zip(parts, self.shape, strict=False) if not isinstance(part, int)]  # fmt: skip
        return (*sizes, *self.shape[len(parts) :])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self[:], dtype=dtype)


def labels_file(folder: Path, name: str) -> Path:
    """Return the file with the labels of a case in either of nnU-Net's formats; image and labels may share one."""
    _, packed, _ = preprocessed_files(folder, name)
    found = (packed, folder / f"{name}_seg.npy")
    return next((path for path in found if path.is_file()), folder / f"{name}.npz")


def read_stored_labels(path: Path) -> NDArray[Any]:
    """Return all preprocessed labels (1, z, y, x) of a file that :func:`labels_file` names.

    Raises
    ------
    DatasetError
        If it is damaged.
    """
    try:
        if path.suffix == ".b2nd":
            return np.asarray(_open_blosc(path)[:])
        if path.suffix == ".npy":
            return np.array(np.load(regular(path), mmap_mode="r"))
        with archive_at(path) as archive:
            labels: NDArray[Any] = archive["seg"]
            return labels
    except DAMAGED as error:
        raise DatasetError(f"{path} cannot be read: {told(error)}. Preprocess the case again.") from error


def damage_of(folder: Path, name: str) -> str:
    """Return what is wrong with the files of a case as far as their first bytes and sizes tell; "" if nothing is.

    It costs a fraction of a millisecond. A flipped bit within is found when that part is read.
    """
    image, seg, properties = preprocessed_files(folder, name)
    packed = (image, seg) if image.is_file() else ()
    if not packed and (why := damage_of_archive(folder, name)):
        return why
    for path in (*packed, properties):
        try:
            size = path.stat().st_size
            with regular(path).open("rb") as file:
                head = file.read(_HEAD)
                file.seek(-1, 2) if size else None
                end = file.read(1)
        except OSError as error:
            return f"{path.name} cannot be read ({error.strerror or error})"
        if not size:
            return f"{path.name} is empty"
        if path is properties:
            if end != _STOP:
                return f"{path.name} breaks off"
            continue
        if head[2:10] != b"b2frame\0" or len(head) < _HEAD:
            return f"{path.name} is not a b2nd file"
        whole = int.from_bytes(head[16:24], "big")
        if size < whole:
            return f"{path.name} has {size} of {whole} bytes"
    return ""


def next_stage_file(folder: Path, name: str) -> Path | None:
    """Return a case's segmentation by the previous stage, in either of nnU-Net's formats; None if it is missing."""
    found = (folder / f"{name}.b2nd", folder / f"{name}.npz")
    return next((path for path in found if path.is_file()), None)


def read_next_stage(folder: Path, name: str) -> Any:
    """Open a case's segmentation by the previous stage, (z, y, x) of unsigned integers.

    Raises
    ------
    DatasetError
        If it is missing or damaged.
    """
    path = next_stage_file(folder, name)
    if path is None:
        raise DatasetError(f"The previous stage's segmentation of {name} is missing in {folder}.")
    try:
        if path.suffix == ".b2nd":
            return _open_blosc(path)
        with archive_at(path) as archive:
            return archive["seg"]
    except DAMAGED as error:
        raise DatasetError(f"{path} cannot be read: {error}") from error


def write_next_stage(folder: Path, name: str, labels: NDArray[np.unsignedinteger], patch: Sequence[int]) -> None:
    """Write a segmentation (z, y, x) for the next stage's training."""
    chunks, blocks = chunks_and_blocks((1, *labels.shape), patch, labels.dtype.itemsize)
    _write_blosc(folder / f"{name}.b2nd", labels, chunks[1:], blocks[1:])


def remove_case(folder: Path, name: str) -> None:
    """Delete a preprocessed case in whatever format it is; the files can be made again from the raw ones."""
    files = preprocessed_files(folder, name)
    others = (folder / f"{name}.npz", folder / f"{name}.npy", folder / f"{name}_seg.npy")
    for path in (*files, *others):
        path.unlink(missing_ok=True)


def remove_old_format(folder: Path, name: str) -> None:
    """Delete what a case left in the earlier format: nnU-Net refuses a folder with both."""
    for path in (folder / f"{name}.npz", folder / f"{name}.npy", folder / f"{name}_seg.npy"):
        path.unlink(missing_ok=True)


def require_undamaged(data: Path, names: Sequence[str]) -> None:
    """Look at the headers of all files, for hours may pass before a case is drawn; raises DatasetError."""
    damaged = [(name, why) for name in names if (why := damage_of(data, name))]
    if damaged:
        listed = some([name for name, _ in damaged])
        raise DatasetError(
            f"{len(damaged)} of {len(names)} preprocessed cases in {data} are damaged ({listed}): {damaged[0][1]}.",
            **MADE_ANEW,
        )
