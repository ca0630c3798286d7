"""Files of torch, read without executing anything, and without trusting what they say of their own size."""

from __future__ import annotations

import hashlib
import mmap
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_nnunet.errors import ModelError, counted, some
from napari_nnunet.formats.atomic import write_error
from napari_nnunet.formats.pickle_limits import DamagedError, walk
from napari_nnunet.formats.pickles import read_table

CHECKSUM = "napari_nnunet_checksum"  # key of the checksum of the weights
LARGEST_TABLE = 64 << 20  # bytes of all that is in a checkpoint but weights

_DAMAGED = (
    RuntimeError, EOFError, OSError, ValueError, TypeError, LookupError, AttributeError, AssertionError, struct.error,
    zipfile.BadZipFile, zlib.error,
)  # fmt: skip

if TYPE_CHECKING:
    from torch import Tensor

    from napari_nnunet.formats.model.torch_tensors import Rebuilt

_Rebuild = Callable[[Path, zipfile.ZipFile, zipfile.ZipInfo, bytes], "Rebuilt | None"]


def read_torch(path: Path) -> dict[str, Any]:
    """Read the dictionary in a file of torch without executing anything of it.

    Weights without a checksum of ours are held against those of the zip; the rest is by :func:`require_whole`, where
    it is used.

    Raises
    ------
    ModelError
        If the file is missing, truncated, no checkpoint, or asks for anything to be executed (nothing is); or if its
        table or its weights are not what was saved.
    """
    from napari_nnunet.formats.model import torch_tensors  # the docks look at checkpoints' names without torch

    _require_torch_file(path)
    try:
        mapped = _can_map(path)
        try:
            found, verified = _without_torch(path, torch_tensors.rebuilt, mapped=mapped)
        except pickle.UnpicklingError as error:
            raise ModelError(
                f"{path} is not a complete checkpoint, and was refused; nothing of it was executed. Copy it again. "
                f"({reason(error)})"
            ) from error
        content = torch_tensors.read_by_torch(path, mapped=mapped) if found is None else found.content
    except pickle.UnpicklingError as error:
        raise _refused(path, error) from error
    except _DAMAGED as error:
        raise ModelError(
            f"{path} is not a complete checkpoint; it may be truncated. Copy it again. ({reason(error)})"
        ) from error
    if not verified:  # what torch refuses, it says better
        raise ModelError(
            f"{path} is not a complete checkpoint: the sizes of its tensors cannot be read. Copy it again."
        )
    if not isinstance(content, dict):
        raise ModelError(f"{path} is not a checkpoint of nnU-Net: it holds a {type(content).__name__}.")
    weights = content.get("network_weights", content.get("state_dict"))
    if content.get(CHECKSUM) is None and isinstance(weights, dict):
        if found is None:
            require_whole(path)
        elif name := found.damaged(weights):
            raise _not_as_saved(path, name)
    if isinstance(weights, dict):
        torch_tensors.as_tensors(weights)
    return content


def require_whole(path: Path) -> None:
    """Compare all that a file of torch holds with the checksums (CRC32) in its zip, at which torch does not look.

    Where they are all zero, they were switched off; before torch 1.6, there were none.

    Raises
    ------
    ModelError
        If something is not what was saved.
    """
    name = ""
    try:
        with path.open("rb") as file:
            if not zipfile.is_zipfile(file):
                return
            with zipfile.ZipFile(file) as archive:
                entries = archive.infolist()
                if not any(entry.CRC for entry in entries):
                    return
                for name in (entry.filename for entry in entries):
                    with archive.open(name) as content:
                        while content.read(_PIECE):  # the library compares at the end
                            pass
    except _DAMAGED as error:
        raise _not_as_saved(path, name) from error


def _refused(path: Path, error: pickle.UnpicklingError) -> ModelError:
    """Return what to say of a file that nothing may be made of."""
    if "Unsupported operand" in str(error):
        return ModelError(
            f"{path} was saved with a pickle protocol of which not everything can be read safely. Load it where it was "
            "trained and save it again with torch.save(content, path)."
        )
    return ModelError(
        f"{path} was refused: it holds more than weights and numbers, and opening it the usual way would execute "
        "code. Nothing was executed. If it is yours, load it where it was trained and save it again with nothing "
        f"but nnU-Net's entries. ({reason(error)})"
    )


def _not_as_saved(path: Path, name: str) -> ModelError:
    return ModelError(
        f"{path} is damaged: {name or 'what it holds'} is not what was saved (its checksum differs). Take a "
        "copy that is whole, or train the fold again."
    )


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


def _without_torch(path: Path, rebuild: _Rebuild, *, mapped: bool) -> tuple[Rebuilt | None, bool]:
    """Refuse what would end the process that reads a file of torch, and read it where that needs no torch.

    Returns
    -------
    Rebuilt or None, bool
        What it holds, None where only torch can read it; and whether its tensors are surely whole.
    """
    with path.open("rb") as file:
        if not (mapped or zipfile.is_zipfile(file)):
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as whole:
                end = 0
                for _ in range(_PICKLES):
                    end = walk(whole, end)
            return None, True  # torch counts the values of this format
        with zipfile.ZipFile(file) as archive:
            _require_table(path, archive.namelist())
            # Whatever torch takes for its table: it minds neither the case of names nor, as it may be told, checksums.
            tables = [entry for entry in archive.infolist() if entry.filename.lower().endswith("data.pkl")]
            for table in tables:
                content = _table(archive, table)
                if mapped and len(tables) == 1 and (found := _made(rebuild, path, archive, table, content)) is not None:
                    return found, True
                try:
                    sizes = read_table(content)[1]
                except Exception:  # a damaged pickle may ask for anything
                    return None, False
                _require_storages(archive, table.filename, sizes)
    return None, True


def _require_table(path: Path, names: Sequence[str]) -> None:
    """Tell a checkpoint from other zips: programs of torch, and those that a person packed."""
    folders = {name.rpartition("/")[0] for name in names if name.endswith("/constants.pkl")}
    if any(f"{folder}/code/" in name for folder in folders for name in names):
        raise ModelError(f"{path} is a program (TorchScript), not a checkpoint; the file with the weights is expected.")
    if names and not any(name.lower().endswith("data.pkl") for name in names):
        raise ModelError(f"{path} is a zip with {some(names, 3)}, not a checkpoint. Unpack it.")


def _table(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    """Return a table of contents that asks for no more than it holds; raises UnpicklingError."""
    if entry.file_size > LARGEST_TABLE:
        raise pickle.UnpicklingError(f"its table of contents has {entry.file_size:,} bytes")
    with archive.open(entry) as table:
        vars(table)["_expected_crc"] = None
        content = table.read()
    if entry.CRC not in (0, zlib.crc32(content)):  # zero where checksums were switched off
        raise DamagedError("its table of contents is not what was saved")
    walk(content)
    return content


def _made(
    rebuild: _Rebuild, path: Path, archive: zipfile.ZipFile, table: zipfile.ZipInfo, content: bytes
) -> Rebuilt | None:
    """Return what a file holds, None where only torch can read it, or say what is wrong with it."""
    try:
        return rebuild(path, archive, table, content)
    except Exception:  # a damaged pickle may ask for anything
        return None


def _require_storages(archive: zipfile.ZipFile, table: str, sizes: Mapping[str, int]) -> None:
    """Refuse storages that are shorter than their table says: torch reads on, in what follows."""
    there = {entry.filename.lower(): entry.file_size for entry in archive.infolist()}
    folder = table.lower().removesuffix("data.pkl")
    short = [key for key, size in sizes.items() if there.get(f"{folder}data/{key}".lower(), 0) < size]
    if short:
        raise DamagedError(f"{len(short)} of its {counted(len(sizes), 'tensor')} are cut off")


def _require_torch_file(path: Path) -> None:
    """Tell a file of torch from what people give instead; raises ModelError."""
    if path.is_dir():
        raise ModelError(
            f"{path} is a folder; a checkpoint is expected, such as fold_0/checkpoint_final.pth in a model."
        )
    if not path.is_file():
        raise ModelError(f"The checkpoint {path} does not exist.")
    try:
        with path.open("rb") as file:
            begin = file.read(_LOOKED_AT)
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror or error}.") from error
    if not begin:
        raise ModelError(f"{path} is empty, not a checkpoint. Copy it again, or train the fold again.")
    kind = next((kind for start, kind in _OTHERS.items() if begin.startswith(start)), "")
    kind = "a file of safetensors" if begin[8:10] == b'{"' else kind
    if kind:
        raise ModelError(
            f"{path} is {kind}, not a checkpoint. Unpack it, or save the weights as nnU-Net does (torch.save)."
        )
    if not begin.startswith(_BEGINNINGS) and begin.isascii():
        raise ModelError(
            f"{path} is a text file, not a checkpoint (it begins with {begin[:20].decode()!r}). A file such as "
            "fold_0/checkpoint_final.pth in a model is expected."
        )


_LOOKED_AT = 256  # bytes
_OTHERS = {b"\x1f\x8b": "packed with gzip (.gz, .tar.gz)", b"7z\xbc\xaf": "a 7z archive", b"Rar!": "a RAR archive",
           b"BZh": "packed with bzip2", b"\xfd7zXZ": "packed with xz", b"\xff\xfe": "a text in UTF-16"}  # fmt: skip
_PIECE = 1 << 18
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


def is_plain_tensor(value: Any) -> bool:
    """Whether a value is a tensor of real numbers with all its values in memory, each once."""
    if str(getattr(value, "layout", None)) != "torch.strided" or value.is_meta or value.is_quantized:
        return False
    if value.is_complex() or (value.is_floating_point() and value.element_size() < 2):
        return False
    return bool(value.numel() * value.element_size() <= value.untyped_storage().nbytes())


def what_instead(content: Mapping[str, Any]) -> str:
    """Say what is there in place of weights with nnU-Net's entries, and what to do."""
    if "plans" in content and "state_dict" in content:
        return "It is one of nnU-Net v1; 'napari-nnunet import_old_nnunet_model' imports the folder that it came in."
    way = "save it where it was trained, with nnU-Net's entries (trainer_name, init_args, network_weights, ...)"
    if content and all(hasattr(value, "layout") for value in content.values()):
        return f"It holds weights alone, and does not say what they belong to: {way}."
    return f"It has {some(sorted(map(str, content)), 6) or 'nothing'}: {way}."


def checksum(weights: Mapping[str, Tensor]) -> str:
    """Return a checksum of weights: changed, missing and exchanged bytes change it.

    Per tensor a sum of its bytes, eight at a time, which is as fast as memory; over names, shapes, types and sums
    SHA-256. It tells damage, not forgery.
    """
    digest = hashlib.sha256()
    sums: dict[tuple[int, tuple[int, ...]], int] = {}  # nnU-Net's names mean the same tensor more than once
    for name in sorted(weights):
        tensor = weights[name].detach()
        place = (tensor.data_ptr(), tuple(tensor.shape))
        if place not in sums:
            byte = tensor.new_empty(0).byte().dtype
            content = tensor.cpu().contiguous().flatten().view(dtype=byte).numpy()
            whole = len(content) - len(content) % 8
            sums[place] = int(content[:whole].view("u8").sum(dtype="u8")) + int(content[whole:].sum())
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype} {sums[place]}\n".encode())
    return digest.hexdigest()
