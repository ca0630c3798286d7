"""nnU-Net's .pkl files, read without executing anything: a dozen names of numpy are known, all else is refused."""

from __future__ import annotations

import io
import math
import pickle
import re
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from napari_nnunet.errors import DatasetError
from napari_nnunet.formats.atomic import written_beside
from napari_nnunet.formats.pickle_limits import DamagedError, check_pickle

_OURS = f"{__name__.partition('.')[0]}."


class NumberArray(np.ndarray[Any, Any]):
    """An array that a pickle fills: only with as many bytes as its shape needs, and never with objects.

    numpy's own way back from a pickle trusts it, down to the memory behind the array.
    """

    def __new__(cls, *_: Any) -> NumberArray:
        """Refuse: a pickle names the class of arrays, but begins them by another function."""
        raise pickle.UnpicklingError("it makes arrays of its own")

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, data = state
        if isinstance(dtype, LogType) and dtype.unread:  # it stays empty, and is known for that
            self.unread = True
            return
        if not isinstance(dtype, NumberType) or not isinstance(data, bytes):
            raise pickle.UnpicklingError("it holds an array of something other than numbers")
        checked: Any = (1, _filled(data, dtype, shape).shape, dtype.dtype, bool(fortran), data)
        super().__setstate__(checked)

    def __reduce__(self) -> Any:
        """Be written as the plain array it is."""
        return np.asarray(self).view(np.ndarray).__reduce__()


class NumberType:
    """What a pickle says of the type of an array: the letter and size of plain numbers, then their byte order."""

    known = r"[biufc]\d{1,2}"

    def __init__(self, code: str, *_: Any) -> None:
        if not re.fullmatch(self.known, code):
            raise pickle.UnpicklingError(f"it holds values of type {code!r}")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: Any) -> None:
        if state[1] not in ("<", ">", "|", "="):
            raise pickle.UnpicklingError(f"it holds values in the byte order {state[1]!r}")
        self.dtype = self.dtype.newbyteorder(state[1])


class LogType(NumberType):
    """As above, for logs of trainings: these hold texts too, such as the names of cases.

    Arrays of anything else (objects, dates, records) are not made again; ``unread`` says so.
    """

    known = r"[biufc]\d{1,2}|[SU]\d{1,5}"
    other = r"[OMmV]\d{1,9}"

    def __init__(self, code: str, *more: Any) -> None:
        self.unread, self.is_date = re.fullmatch(self.other, code) is not None, code[:1] in "Mm"
        super().__init__("u1" if self.unread else code, *more)

    def __setstate__(self, state: Any) -> None:
        if not self.unread:
            super().__setstate__(state)


def _filled(data: bytes, dtype: NumberType, shape: Any, order: Any = "C") -> NDArray[Any]:
    sides = tuple(int(n) for n in shape)
    if any(n < 0 for n in sides) or math.prod(sides) * dtype.dtype.itemsize != len(data):
        raise pickle.UnpicklingError(f"it holds {len(data)} bytes for an array of shape {sides}")
    return np.frombuffer(data, dtype.dtype).reshape(sides, order="F" if order == "F" else "C").copy(order="K")


class Unread:
    """Stand for a value that nobody here needs, and that is therefore not made again: a date, a trainer's settings."""

    def __init__(self, *_: Any) -> None:
        """Take whatever the value was made from, and forget it."""

    def __setstate__(self, state: Any) -> None:
        """Forget what the value held."""


def is_unread(value: Any) -> bool:
    """Whether a value stands for one that was not made again, or for a type or a function that nobody calls."""
    if isinstance(value, NumberArray):
        return getattr(value, "unread", False)
    return str(getattr(value, "__module__", "")).startswith(_OURS)


def plain_dict(*_: Any) -> dict[Any, Any]:
    """Stand for dictionaries that make their own entries; what they hold follows."""
    return {}


def plain_list(*_: Any) -> list[Any]:
    """Stand for queues; what they hold follows."""
    return []


def path_text(*parts: Any) -> str:
    """Stand for paths: their text."""
    return "/".join(str(part) for part in parts).replace("//", "/")


_PATHS = ("Path", "PosixPath", "WindowsPath", "PurePath", "PurePosixPath", "PureWindowsPath")
_PLAIN = (
    "bool", "int", "float", "complex", "str", "bytearray", "list", "dict", "tuple", "set", "frozenset", "slice",
)  # fmt: skip
_NUMBERS = (
    "bool", "bool_", "float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32",
    "uint64",
)  # fmt: skip
_RANDOM = ("MT19937", "PCG64", "PCG64DXSM", "Philox", "SFC64")
_EXCEPTIONS = ("Exception", "ValueError", "RuntimeError", "KeyError", "IndexError", "TypeError", "KeyboardInterrupt")
_DATES = ("date", "datetime", "time", "timedelta", "timezone")
#: What people's own trainers keep in checkpoints besides what nnU-Net does, by module and name, and what stands for it.
HARMLESS: dict[tuple[str, str], Any] = {
    ("collections", "defaultdict"): plain_dict,
    ("collections", "Counter"): plain_dict,
    ("collections", "deque"): plain_list,
    ("argparse", "Namespace"): Unread,
    ("types", "SimpleNamespace"): Unread,
    ("uuid", "UUID"): Unread,
    ("decimal", "Decimal"): Unread,
    ("fractions", "Fraction"): Unread,
    ("builtins", "range"): Unread,
    **{("datetime", name): Unread for name in _DATES},
    **{("builtins", name): Unread for name in (*_PLAIN, *_EXCEPTIONS, "Ellipsis", "NotImplemented")},
    **{("exceptions", name): Unread for name in _EXCEPTIONS},
    **{("__builtin__", name): Unread for name in ("Ellipsis", "NotImplemented")},
    **{("numpy.random._pickle", f"__{kind}_ctor"): Unread for kind in ("generator", "bit_generator", "randomstate")},
    **{(f"numpy.random._{name.lower().removesuffix('dxsm')}", name): Unread for name in _RANDOM},
    **{("numpy.random.bit_generator", name): Unread for name in ("SeedSequence", "__pyx_unpickle_SeedSequence")},
    **{("numpy", name): Unread for name in _NUMBERS},
    **{(module, name): path_text for module in ("pathlib", "pathlib._local") for name in _PATHS},
}


def begin_array(*_: Any) -> NumberArray:
    """Stand for the function by which numpy begins an array; its state follows."""
    return np.ndarray.__new__(NumberArray, (0,))


def number(dtype: NumberType, data: bytes) -> Any:
    """Stand for the function by which numpy makes a number again."""
    if isinstance(dtype, LogType) and dtype.unread:
        if not dtype.is_date:
            raise pickle.UnpicklingError("it holds a number of objects")
        return Unread()
    return _filled(data, dtype, ())[()]


def _encode(text: str, encoding: str) -> bytes:
    """Stand for ``_codecs.encode``, with which early pickle protocols write bytes: always in Latin-1."""
    if encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError(f"it asks for the encoding {encoding}")
    return text.encode("latin-1")


def _no_bytes(*content: Any) -> bytes:
    """Stand for ``bytes``, which early pickle protocols call where there are none, as in an empty array."""
    if content:
        raise pickle.UnpicklingError("it makes bytes of its own")
    return b""


_ALLOWED: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("_codecs", "encode"): _encode,
    ("__builtin__", "bytes"): _no_bytes,
    ("numpy", "dtype"): NumberType,
    ("numpy", "ndarray"): NumberArray,
    # numpy 1 and numpy 2 write different module names for the same functions
    **{
        (f"numpy.{core}.{name}", function): ours
        for core in ("core", "_core")
        for name, function, ours in (
            ("multiarray", "_reconstruct", begin_array),
            ("multiarray", "scalar", number),
            ("numeric", "_frombuffer", _filled),
        )
    },
}


class _Call:
    """A function for one pickle: a pickle may set attributes of what it is given, and those of functions would stay."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, *arguments: Any) -> Any:
        return self._function(*arguments)


class _Reader(pickle.Unpickler):
    def __init__(self, file: BinaryIO, more: Mapping[tuple[str, str], Any]) -> None:
        super().__init__(file)
        self._more = more

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in self._more:
            return self._more[module, name]
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        found = _ALLOWED[module, name]
        return found if isinstance(found, type) else self.called(found)

    @staticmethod
    def called(function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function as a pickle may have it."""
        return _Call(function)


class TableReader(_Reader):
    """Reads what a file of torch holds besides its tensors, in whose places nothing comes."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file, {**HARMLESS, ("numpy", "dtype"): LogType})
        self.storages: dict[str, int] = {}

    def find_class(self, module: str, name: str) -> Any:
        """Return what stands for a name."""
        if module.partition(".")[0] == "torch":
            return type(name, (Unread,), {})
        if (module, name) not in _ALLOWED:  # early protocols write the names of Python 2
            module, name = NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))
        return super().find_class(module, name)

    def persistent_load(self, pid: Any) -> Any:
        """Leave out the storage of a tensor, but note its size."""
        _, kind, key, _, count = pid
        size = int(count) * _SIZES.get(kind.__name__, 1)
        self.storages[str(key)] = max(size, self.storages.get(str(key), 0))  # it may be asked for more than once


#: Bytes of a value in a storage of torch, by the name of its class.
_SIZES = {"HalfStorage": 2, "BFloat16Storage": 2, "ShortStorage": 2, "FloatStorage": 4, "IntStorage": 4,
          "DoubleStorage": 8, "LongStorage": 8, "ComplexFloatStorage": 8, "ComplexDoubleStorage": 16}  # fmt: skip


def read_table(content: bytes) -> tuple[Any, dict[str, int]]:
    """Read the pickle within a file of torch without its tensors.

    Returns
    -------
    value, dict of str to int
        What it holds, and how many bytes each storage must have. A damaged or refused pickle raises anything.

    Notes
    -----
    ``content`` has gone through :func:`check_pickle`.
    """
    reader = TableReader(io.BytesIO(content))
    return reader.load(), reader.storages


def read_pickle(path: Path) -> Any:
    """Read plain values and numpy arrays.

    Raises
    ------
    DatasetError
        If the file is missing, damaged, or asks for anything but numbers, texts, containers and arrays (nothing of it
        is executed).
    """
    return read_with(path, {})


def read_with(path: Path, names: Mapping[tuple[str, str], Any]) -> Any:
    """Read plain values, arrays, and what ``names`` (module and name) stands for; raises as :func:`read_pickle`."""
    if not path.is_file():  # to open a pipe waits, perhaps for ever
        raise DatasetError(f"{path} {'is not a file' if path.exists() else 'does not exist'}.")
    try:
        content = path.read_bytes()
        check_pickle(content)
        return _Reader(io.BytesIO(content), names).load()
    except DamagedError as error:
        raise DatasetError(f"{path} is damaged ({error}).{_hint(path)}") from error
    except pickle.UnpicklingError as error:
        raise DatasetError(f"{path} was refused: {error}. Only plain values and arrays are read.") from error
    except Exception as error:  # a damaged pickle may ask for anything, more memory than there is included
        raise DatasetError(f"{path} is damaged ({str(error) or type(error).__name__}).{_hint(path)}") from error


def write_pickle(path: Path, content: Any, *, staging: Path | None = None) -> None:
    """Write plain values and arrays as nnU-Net does; ``staging`` as in :func:`written_beside`."""
    with written_beside(path, staging=staging, durable=False) as temporary, temporary.open("wb") as file:
        pickle.dump(content, file)


def _hint(path: Path) -> str:
    """Preprocessed cases can be made again; of other files there is one copy only."""
    return " Preprocess the case again." if path.with_suffix(".b2nd").exists() else ""
