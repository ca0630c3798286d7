"""Files of torch, read without executing anything, and without trusting what they say of their own size."""

from __future__ import annotations

import mmap
import pickle
import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from napari_nnunet.errors import ModelError
from napari_nnunet.formats.atomic import write_error
from napari_nnunet.formats.pickle_limits import DamagedError, walk
from napari_nnunet.formats.pickles import HARMLESS, LogType, NumberArray, begin_array, number, read_table

LARGEST_TABLE = 64 << 20  # bytes of all that is in a checkpoint but weights

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


_DAMAGED = (
    RuntimeError, EOFError, OSError, ValueError, TypeError, LookupError, AttributeError, AssertionError, struct.error,
    zipfile.BadZipFile, zlib.error,
)  # fmt: skip


def read_torch(path: Path) -> dict[str, Any]:
    """Read the dictionary in a file of torch with its weights-only loader and an allow-list.

    Raises
    ------
    ModelError
        If the file is missing, truncated, no checkpoint, or asks for anything to be executed (nothing is).
    """
    import torch  # the docks look at checkpoints' names without it

    _require_torch_file(path)
    try:
        with torch.serialization.safe_globals(_ALLOWED), path.open("rb") as file:
            mapped = _can_map(path)
            try:
                verified = _check_pickles(file, zipped=mapped or zipfile.is_zipfile(file))
            except pickle.UnpicklingError as error:
                raise ModelError(
                    f"{path} is not a complete checkpoint, and was refused; nothing of it was executed. "
                    f"({reason(error)})"
                ) from error
            file.seek(0)
            content = torch.load(path if mapped else file, map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"{path} was refused: it holds more than weights and numbers, and opening it the usual way would execute "
            "code. Nothing was executed. If it is yours, load it where it was trained and save it again with nothing "
            f"but nnU-Net's entries. ({reason(error)})"
        ) from error
    except _DAMAGED as error:
        raise ModelError(f"{path} is not a complete checkpoint; it may be truncated. ({reason(error)})") from error
    if not verified:  # what torch refuses, it says better
        raise ModelError(f"{path} is not a complete checkpoint: how long its tensors must be is not to be read.")
    if not isinstance(content, dict):
        raise ModelError(f"{path} is not a checkpoint of nnU-Net: it holds a {type(content).__name__}.")
    weights = content.get("network_weights")
    if isinstance(weights, dict):
        arrays = {n: v for n, v in weights.items() if isinstance(v, NumberArray) and v.dtype.kind == "f"}
        weights.update({n: torch.from_numpy(np.array(v, subok=False)) for n, v in arrays.items()})
    return content


def write_torch(content: Mapping[str, Any], target: Path, named: Path) -> None:
    """Write a dictionary as a file of torch.

    Parameters
    ----------
    content : mapping
        What is written.
    target : Path
        Where it is written; what is left of it after an error is for the caller to remove.
    named : Path
        The file that errors name.

    Raises
    ------
    ResourceError
        If the disk is full or refuses the file.
    """
    import torch  # the docks look at checkpoints' names without it

    try:
        torch.save(content, target)
    except OSError as error:
        raise write_error(named, error) from error
    except RuntimeError as error:  # torch's writer does not pass on what the system said
        raise write_error(named, f"the disk is full, or refuses the file ({reason(error)})") from error


def _check_pickles(file: BinaryIO, *, zipped: bool) -> bool:
    """Refuse what would end the process that reads a file of torch; return whether its tensors are surely whole."""
    if not zipped:
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as whole:
            end = 0
            for _ in range(_PICKLES):
                end = walk(whole, end)
        return True  # torch counts the values of this format
    with zipfile.ZipFile(file) as archive:
        # Whatever torch takes for its table: it minds neither the case of names nor, as it may be told, checksums.
        for inner in (entry for entry in archive.infolist() if entry.filename.lower().endswith("data.pkl")):
            if inner.file_size > LARGEST_TABLE:
                raise pickle.UnpicklingError(f"its table of contents has {inner.file_size:,} bytes")
            with archive.open(inner) as table:
                vars(table)["_expected_crc"] = None
                content = table.read()
            walk(content)
            try:
                sizes = read_table(content)[1]
            except Exception:  # a damaged pickle may ask for anything
                return False
            _require_storages(archive, inner.filename, sizes)
    return True


def _require_storages(archive: zipfile.ZipFile, table: str, sizes: Mapping[str, int]) -> None:
    """Refuse storages that are shorter than their table says: torch reads on, in what follows."""
    there = {entry.filename.lower(): entry.file_size for entry in archive.infolist()}
    folder = table.lower().removesuffix("data.pkl")
    short = [key for key, size in sizes.items() if there.get(f"{folder}data/{key}".lower(), 0) < size]
    if short:
        raise DamagedError(f"{len(short)} of its {len(sizes)} tensors are cut off")


def _require_torch_file(path: Path) -> None:
    """Tell a file of torch from what people give instead; raises ModelError."""
    if path.is_dir():
        raise ModelError(f"{path} is a folder; a checkpoint is wanted, such as fold_0/checkpoint_final.pth in a model.")
    if not path.is_file():
        raise ModelError(f"The checkpoint {path} does not exist.")
    try:
        with path.open("rb") as file:
            begin = file.read(_LOOKED_AT)
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error}.") from error
    if begin and not begin.startswith(_BEGINNINGS) and begin.isascii():
        raise ModelError(
            f"{path} is a text file, not a checkpoint (it begins with {begin[:20].decode()!r}). A file such as "
            "fold_0/checkpoint_final.pth in a model is wanted."
        )


_LOOKED_AT = 256  # bytes
_PICKLES = 5  # in a file of torch before 1.6, one after the other: three of the format, the content, names of tensors
_BEGINNINGS = (b"PK", b"\x80")  # of a zip, which torch writes since 1.6, and of a pickle


def _can_map(path: Path) -> bool:
    """Whether torch can read weights when they are needed: from zips whose names it can write in UTF-8."""
    try:
        str(path).encode()
    except UnicodeEncodeError:  # bytes that are no text in the system's encoding
        return False
    try:
        with zipfile.ZipFile(path) as archive:  # what somebody packed anew cannot be mapped
            return all(entry.compress_type == zipfile.ZIP_STORED for entry in archive.infolist())
    except _DAMAGED:
        return False


def reason(error: Exception) -> str:
    """Return what torch says is wrong, in a line."""
    text = " ".join(str(error).split()) or type(error).__name__
    marker = "WeightsUnpickler error: "
    text = text.split(marker, 1)[1] if marker in text else text
    return text[:160] + (" ..." if len(text) > 160 else "")
