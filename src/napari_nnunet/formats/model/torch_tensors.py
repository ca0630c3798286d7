"""What a file of torch holds, made again: tensors over the bytes of its storages, which are read when they are needed.

torch's own weights-only reader is written in Python and takes four times as long; it reads what is not known here.
"""

from __future__ import annotations

import io
import math
import mmap
import os
import pickle
import warnings
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from napari_nnunet.formats.pickle_limits import DamagedError
from napari_nnunet.formats.pickles import HARMLESS, LogType, NumberArray, TableReader, begin_array, number

#: What trainers pickle besides plain values and tensors: numbers and arrays of numpy in logs, of own trainers some
#: more. Their names stand for functions of ours: numpy's own would build values of any type, and so follow forged
#: pointers.
_ALLOWED: list[Any] = [
    (LogType, "numpy.dtype"),
    (NumberArray, "numpy.ndarray"),
    *((number, f"numpy.{core}.multiarray.scalar") for core in ("_core", "core")),
    *((begin_array, f"numpy.{core}.multiarray._reconstruct") for core in ("_core", "core")),
    *((ours, ".".join(name)) for name, ours in HARMLESS.items()),
]
_MOST_AXES = 16
_LOCAL_HEADER = 30  # bytes before the name of an entry of a zip


def read_by_torch(path: Path, *, mapped: bool) -> Any:
    """Return what torch's weights-only reader finds; it raises anything for a damaged or refused file.

    Parameters
    ----------
    path : Path
        Of a file whose pickles were gone through.
    mapped : bool
        Whether weights can be read when they are needed.
    """
    with torch.serialization.safe_globals(_ALLOWED), path.open("rb") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of protocols and of programs, which are errors here
        return torch.load(path if mapped else file, map_location="cpu", weights_only=True, mmap=mapped)


def as_tensors(weights: dict[Any, Any]) -> None:
    """Make tensors of those weights that were saved as arrays."""
    arrays = {n: v for n, v in weights.items() if isinstance(v, NumberArray) and v.dtype.kind == "f"}
    weights.update({n: torch.from_numpy(np.array(v, subok=False)) for n, v in arrays.items()})


class _Kind(NamedTuple):
    """Stands for a class of storages."""

    dtype: torch.dtype


class _Storage(NamedTuple):
    """Some bytes of the file, and how many values of which type they are."""

    dtype: torch.dtype
    length: int
    content: torch.UntypedStorage


def _bytes_of(storage: torch.UntypedStorage) -> memoryview:
    return torch.empty(0, dtype=torch.uint8).set_(storage).numpy().data


class _Held:
    """A tensor, kept from a pickle that would set its state."""

    __slots__ = ("tensor",)

    def __init__(self, tensor: torch.Tensor) -> None:
        self.tensor = tensor

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("it changes a tensor")


_KINDS = {
    "DoubleStorage": torch.float64, "FloatStorage": torch.float32, "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16, "LongStorage": torch.int64, "IntStorage": torch.int32,
    "ShortStorage": torch.int16, "CharStorage": torch.int8, "ByteStorage": torch.uint8, "BoolStorage": torch.bool,
}  # fmt: skip


class _TensorReader(TableReader):
    """Reads a table of contents with its tensors; ``strange`` says whether something of torch was not understood."""

    def __init__(self, content: bytes, storage_at: Callable[[str, int], torch.UntypedStorage]) -> None:
        super().__init__(io.BytesIO(content))
        self._storage_at = storage_at
        self._known: dict[str, _Storage] = {}
        self.strange = False

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and name in _KINDS:
            return _Kind(_KINDS[name])
        if (module, name) == ("torch", "device"):
            return self.called(lambda *place: torch.device(*place))
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return self.called(self._tensor)
        self.strange |= module.partition(".")[0] == "torch"
        return super().find_class(module, name)

    def persistent_load(self, pid: Any) -> Any:
        _, kind, key, _, count = pid
        if not isinstance(kind, _Kind):
            self.strange = True
            return super().persistent_load(pid)
        known = self._known.get(key)
        if known is None or known.dtype != kind.dtype or known.length != count:
            size = count * kind.dtype.itemsize
            self._known[key] = known = _Storage(kind.dtype, count, self._storage_at(str(key), size))
        return known

    def _tensor(self, storage: Any, offset: Any, size: Any, stride: Any, requires_grad: Any, *more: Any) -> Any:
        """Stand for the function by which torch makes a tensor again: within its storage, and each value once."""
        plain = isinstance(storage, _Storage) and requires_grad is False and len(more) == 1 and len(size) <= _MOST_AXES
        if not plain or len(size) != len(stride) or min((offset, *size, *stride)) < 0:
            self.strange = True
            return None
        last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
        if math.prod(size) > storage.length or (math.prod(size) and last >= storage.length):
            self.strange = True
            return None
        return _Held(torch.empty((0,), dtype=storage.dtype).set_(storage.content, offset, size, stride))


class _Entry(NamedTuple):
    """An entry of a zip with a storage: name, checksum (CRC32), and all its bytes."""

    name: str
    checksum: int
    content: torch.UntypedStorage


class Rebuilt(NamedTuple):
    """What a file of torch holds, and the entries of its zip in which its tensors lie, by their places in memory."""

    content: Any
    entries: Mapping[int, _Entry]

    def damaged(self, weights: Mapping[Any, Any]) -> str:
        """Return the name of an entry with some of these tensors that is not what was saved, "" if there is none.

        Torch notes checksums, but does not look at them. To be asked before anything of it is changed.
        """
        tensors = (tensor for tensor in weights.values() if isinstance(tensor, torch.Tensor))
        places = dict.fromkeys(tensor.untyped_storage().data_ptr() for tensor in tensors)
        entries = [self.entries[place] for place in places if place in self.entries]
        return next((entry.name for entry in entries if zlib.crc32(_bytes_of(entry.content)) != entry.checksum), "")


def rebuilt(path: Path, archive: zipfile.ZipFile, table: zipfile.ZipInfo, content: bytes) -> Rebuilt | None:
    """Return what a file of torch holds, its tensors included.

    Parameters
    ----------
    path : Path
        The file.
    archive : ZipFile
        The same, opened.
    table : ZipInfo
        Its table of contents.
    content : bytes
        Of that; it has gone through :func:`~napari_nnunet.formats.pickle_limits.check_pickle`.

    Returns
    -------
    Rebuilt or None
        None where only torch can read it.

    Raises
    ------
    Exception
        Anything, where the file is damaged or was made to do harm.
    """
    entries = {entry.filename: entry for entry in archive.infolist()}
    folder = table.filename.removesuffix("data.pkl")
    order = entries.get(f"{folder}byteorder")
    alone = len(entries) == len(archive.infolist()) and f"{folder}constants.pkl" not in entries
    if not alone or zlib.crc32(content) != table.CRC or (order is not None and archive.read(order) != b"little"):
        return None
    length, known = os.path.getsize(path), dict[int, _Entry]()
    whole = torch.UntypedStorage.from_file(os.fspath(path), False, length)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:

        def storage_at(key: str, size: int) -> torch.UntypedStorage:
            entry = entries.get(f"{folder}data/{key}")
            if entry is None or not 0 <= size <= entry.file_size:
                raise DamagedError(f"its tensor {key} is cut off")
            begin = _begin(data, entry)
            if begin + size > length:
                raise DamagedError(f"its tensor {key} is cut off")
            if size and table.CRC:  # zero where checksums were switched off (torch.serialization.set_crc32_options)
                every = whole[begin : begin + entry.file_size]
                known[every.data_ptr()] = _Entry(entry.filename, entry.CRC, every)
            return whole[begin : begin + size]

        reader = _TensorReader(content, storage_at)
        value = reader.load()
    return None if reader.strange else Rebuilt(_with_tensors(value, {}), known)


def _begin(data: mmap.mmap, entry: zipfile.ZipInfo) -> int:
    """Return where the bytes of an entry of a zip begin."""
    at = entry.header_offset
    name, extra = (int.from_bytes(data[at + place : at + place + 2], "little") for place in (26, 28))
    return at + _LOCAL_HEADER + name + extra


def _with_tensors(value: Any, seen: dict[int, Any]) -> Any:
    """Return a value with the tensors that were held back in it; dictionaries and lists are filled in place."""
    if isinstance(value, _Held):
        return value.tensor
    if not isinstance(value, dict | list | tuple) or id(value) in seen:
        return seen.get(id(value), value)
    if isinstance(value, tuple):
        return tuple(_with_tensors(item, seen) for item in value)
    seen[id(value)] = value
    places: Mapping[Any, Any] | dict[int, Any] = value if isinstance(value, dict) else dict(enumerate(value))
    for place, item in list(places.items()):
        if isinstance(item, _Held | dict | list | tuple):
            value[place] = _with_tensors(item, seen)
    return value
