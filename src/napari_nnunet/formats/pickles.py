"""nnU-Net's .pkl files, read without executing anything: a dozen names of numpy are known, all else is refused."""

from __future__ import annotations

import pickle
from collections import OrderedDict
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from napari_nnunet.errors import DatasetError
from napari_nnunet.formats.atomic import written_beside

_MULTIARRAY = import_module("numpy._core.multiarray" if hasattr(np, "_core") else "numpy.core.multiarray")
_NUMERIC = import_module("numpy._core.numeric" if hasattr(np, "_core") else "numpy.core.numeric")


def _encode(text: str, encoding: str) -> bytes:
    """Stand for ``_codecs.encode``, with which early pickle protocols write bytes: always in Latin-1."""
    if encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError(f"it asks for the encoding {encoding}")
    return text.encode("latin-1")


_ALLOWED: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("_codecs", "encode"): _encode,
    ("numpy", "dtype"): np.dtype,
    ("numpy", "ndarray"): np.ndarray,
    # numpy 1 and numpy 2 write different module names for the same functions
    **{
        (f"numpy.{core}.{module.__name__.rpartition('.')[2]}", name): getattr(module, name)
        for core in ("core", "_core")
        for module, name in ((_MULTIARRAY, "_reconstruct"), (_MULTIARRAY, "scalar"), (_NUMERIC, "_frombuffer"))
    },
    **{
        ("numpy.dtypes", name): getattr(np.dtypes, name)
        for name in ("Float32DType", "Float64DType", "Int16DType", "Int32DType", "Int64DType")
    },
}


class _Reader(pickle.Unpickler):
    def __init__(self, file: BinaryIO, more: Mapping[tuple[str, str], Any]) -> None:
        super().__init__(file)
        self._known = {**_ALLOWED, **more}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self._known:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return self._known[module, name]


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
    try:
        with path.open("rb") as file:
            return _Reader(file, names).load()
    except pickle.UnpicklingError as error:
        raise DatasetError(f"{path} was refused: {error}. Only plain values and arrays are read.") from error
    except FileNotFoundError as error:
        raise DatasetError(f"{path} does not exist.") from error
    except (EOFError, OSError, ValueError, TypeError, AttributeError, IndexError, KeyError) as error:
        raise DatasetError(f"{path} is damaged ({error}).{_hint(path)}") from error


def write_pickle(path: Path, content: Any, *, staging: Path | None = None) -> None:
    """Write plain values and arrays as nnU-Net does; ``staging`` as in :func:`written_beside`."""
    with written_beside(path, staging=staging, durable=False) as temporary, temporary.open("wb") as file:
        pickle.dump(content, file)


def _hint(path: Path) -> str:
    """Preprocessed cases can be made again; of other files there is one copy only."""
    return " Preprocess the case again." if path.with_suffix(".b2nd").exists() else ""
