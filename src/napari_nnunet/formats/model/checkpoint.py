"""nnU-Net's .pth files, read without executing anything."""

from __future__ import annotations

import hashlib
import pickle
import struct
import zipfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_nnunet.errors import ModelError
from napari_nnunet.formats.atomic import write_error, written_beside
from napari_nnunet.formats.pickles import NumberArray, NumberType, begin_array, number
from napari_nnunet.schema.model_name import DEFAULT_TRAINER
from napari_nnunet.schema.trainers import LOG_LISTS

OWN = "napari_nnunet"  # key of what only our trainings store: seed, place in the epoch, schedule

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """The parts of a checkpoint that inference needs.

    Parameters
    ----------
    weights : mapping of str to Tensor
        State dict with nnU-Net's names, duplicates included.
    trainer : str
        Class name of nnU-Net's trainer.
    configuration : str or None
        Configuration the weights were trained for.
    mirror_axes : tuple of int or None
        Axes that may be flipped at test time; None means no mirroring.
    epoch : int or None
        Number of finished epochs.
    """

    weights: Mapping[str, Tensor]
    trainer: str
    configuration: str | None
    mirror_axes: tuple[int, ...] | None
    epoch: int | None


#: Numbers and arrays of numpy in logs are all that trainers pickle besides plain values and tensors. Their names stand
#: for functions of ours: numpy's own would build values of any type, and so follow forged pointers.
_ALLOWED: list[Any] = [
    (NumberType, "numpy.dtype"),
    (NumberArray, "numpy.ndarray"),
    *((number, f"numpy.{core}.multiarray.scalar") for core in ("_core", "core")),
    *((begin_array, f"numpy.{core}.multiarray._reconstruct") for core in ("_core", "core")),
]


def read_raw(path: Path) -> dict[str, Any]:
    """Read the dictionary of a checkpoint of nnU-Net v2; errors as in :func:`read_torch`."""
    content = read_torch(path)
    if "network_weights" not in content:
        raise ModelError(f"{path} is not a checkpoint of nnU-Net v2: it has no entry 'network_weights'.")
    return content


_DAMAGED = (
    RuntimeError, EOFError, OSError, ValueError, TypeError, LookupError, AttributeError, AssertionError, struct.error,
)  # fmt: skip


def read_torch(path: Path) -> dict[str, Any]:
    """Read the dictionary in a file of torch with its weights-only loader and an allow-list.

    Raises
    ------
    ModelError
        If the file is missing, truncated, no checkpoint, or asks for anything to be executed (nothing is).
    """
    import torch  # the docks look at checkpoints' names without it

    if not path.is_file():
        raise ModelError(f"The checkpoint {path} does not exist.")
    try:
        with torch.serialization.safe_globals(_ALLOWED):
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=_can_map(path))
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"{path} was refused: it holds more than weights and numbers, and opening it the usual way would execute "
            f"code. Nothing was executed. ({_reason(error)})"
        ) from error
    except _DAMAGED as error:
        raise ModelError(f"{path} is not a complete checkpoint; it may be truncated. ({_reason(error)})") from error
    if not isinstance(content, dict):
        raise ModelError(f"{path} is not a checkpoint of nnU-Net: it holds a {type(content).__name__}.")
    return content


def _can_map(path: Path) -> bool:
    return zipfile.is_zipfile(path)


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    marker = "WeightsUnpickler error: "
    text = text.split(marker, 1)[1] if marker in text else text
    return text[:160] + (" ..." if len(text) > 160 else "")


def read_checkpoint(path: Path) -> Checkpoint:
    """Read what inference needs; see :func:`read_raw` for the errors."""
    content = read_raw(path)
    arguments = content.get("init_args") or {}
    axes = content.get("inference_allowed_mirroring_axes")
    if axes is not None and not (isinstance(axes, list | tuple) and all(axis in (0, 1, 2) for axis in axes)):
        raise ModelError(f"{path} allows mirroring along {axes!r}; axes are 0, 1 and 2.")
    return Checkpoint(
        weights=content["network_weights"],
        trainer=str(content.get("trainer_name", DEFAULT_TRAINER)),
        configuration=arguments.get("configuration") if isinstance(arguments, dict) else None,
        mirror_axes=tuple(int(a) for a in axes) if axes is not None else None,
        epoch=content.get("current_epoch"),
    )


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file, remembered as long as size and time of the file stay."""
    status = path.stat()
    return _hash(path, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=128)
def _hash(path: Path, size: int, mtime: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_checkpoint(
    path: Path,
    state: Mapping[str, Any],
    *,
    plans: Mapping[str, Any],
    dataset: Mapping[str, Any],
    configuration: str,
    fold: int | str,
    mirror_axes: tuple[int, ...] | None,
    epoch: int,
    trainer: str = DEFAULT_TRAINER,
    logging: Mapping[str, Any] | None = None,
    best: float | None = None,
    own: Mapping[str, Any] | None = None,
) -> None:
    """Write a checkpoint with all nine keys of nnU-Net.

    Parameters
    ----------
    path : Path
        Replaced in one step.
    state : mapping
        ``network_weights`` with nnU-Net's duplicate keys (``engine.network.nnunet_state``), and where a training can go
        on from here ``optimizer_state`` and ``grad_scaler_state``.
    plans, dataset : mapping
        Content of plans.json and dataset.json.
    configuration, fold, mirror_axes, epoch, trainer
        As nnU-Net stores them; ``epoch`` is the next one to run.
    logging : mapping, optional
        nnU-Net's eight lists.
    best : float, optional
        Best moving average of the pseudo Dice.
    own : mapping, optional
        Plain values that nnU-Net passes over; see :data:`OWN`.
    """
    import torch  # the docks look at checkpoints' names without it

    content: dict[str, Any] = {
        "network_weights": state["network_weights"],
        "optimizer_state": state.get("optimizer_state"),
        "grad_scaler_state": state.get("grad_scaler_state"),
        "logging": dict(logging or {name: [] for name in LOG_LISTS}),
        "_best_ema": best,
        "current_epoch": epoch,
        "init_args": {
            "plans": dict(plans),
            "configuration": configuration,
            "fold": fold,
            "dataset_json": dict(dataset),
            "device": torch.device("cpu"),
        },
        "trainer_name": trainer,
        "inference_allowed_mirroring_axes": mirror_axes,
    }
    if own is not None:
        content[OWN] = dict(own)
    with written_beside(path) as temporary:
        try:
            torch.save(content, temporary)
        except RuntimeError as error:
            # torch's writer does not pass on what the system said
            raise write_error(path, f"the disk is full, or refuses the file ({_reason(error)})") from error


_INFERENCE = (
    "network_weights", "logging", "_best_ema", "current_epoch", "init_args", "trainer_name",
    "inference_allowed_mirroring_axes",
)  # fmt: skip


def light_checkpoint(path: Path, folder: Path) -> Path:
    """Write a copy of a checkpoint without what only a training needs, about half as large; returns its path.

    All keys that nnU-Net looks for are there; the state of the optimizer is empty.
    """
    import torch  # the docks look at checkpoints' names without it

    content = read_raw(path)
    light: dict[str, Any] = {key: content[key] for key in _INFERENCE if key in content}
    light["optimizer_state"] = light["grad_scaler_state"] = None
    target = folder / path.name
    try:
        torch.save(light, target)
    except (RuntimeError, OSError) as error:
        raise write_error(target, f"the disk is full, or refuses the file ({_reason(error)})") from error
    return target
