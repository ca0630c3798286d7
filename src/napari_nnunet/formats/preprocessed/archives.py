"""Preprocessed cases in nnU-Net's earlier format: archives of arrays, perhaps unpacked beside."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from napari_nnunet.formats.regular import regular
from napari_nnunet.formats.room import require_room

#: What libraries raise for files that are damaged, of either format.
DAMAGED = (
    SyntaxError,
    OverflowError,
    OSError,
    ValueError,
    KeyError,
    AttributeError,
    RuntimeError,
    EOFError,
    zipfile.BadZipFile,
    zlib.error,
)


def open_arrays(folder: Path, name: str) -> tuple[Any, Any]:
    """Open nnU-Net's earlier format: an archive, perhaps unpacked beside."""
    unpacked, seg = folder / f"{name}.npy", folder / f"{name}_seg.npy"
    if unpacked.is_file() and seg.is_file():
        return np.load(unpacked, mmap_mode="r"), np.load(seg, mmap_mode="r")
    # opened here: numpy leaves an archive open that it cannot read
    with archive_at(folder / f"{name}.npz") as archive:
        return archive["data"], archive["seg"]


@contextmanager
def archive_at(path: Path) -> Iterator[Any]:
    """Open an archive of arrays whose content fits into memory."""
    with regular(path).open("rb") as file:
        with zipfile.ZipFile(file) as listed:
            require_room(path, (sum(entry.file_size for entry in listed.infolist()),), 1)
        file.seek(0)
        with np.load(file) as archive:
            yield archive


def damage_of_archive(folder: Path, name: str) -> str:
    """Return what is wrong with a case in nnU-Net's earlier format, as far as sizes and the list of an archive tell."""
    unpacked = folder / f"{name}.npy", folder / f"{name}_seg.npy"
    path = folder / f"{name}.npz"
    try:
        if all(file.is_file() for file in unpacked):
            for path in unpacked:
                np.load(regular(path), mmap_mode="r")
            return ""
        if path.is_file():
            with regular(path).open("rb") as file, zipfile.ZipFile(file) as listed:
                lacking = [entry for entry in ("data", "seg") if f"{entry}.npy" not in listed.namelist()]
            return f"{path.name} has no array {' and '.join(lacking)}" if lacking else ""
    except DAMAGED as error:
        return f"{path.name} cannot be read ({told(error)})"
    return ""


def told(error: Exception) -> str:
    """Return what a library says of a damaged file, as the end of a sentence."""
    return (str(error) or type(error).__name__).strip().rstrip(".")
