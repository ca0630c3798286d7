"""nnU-Net's .pth files, read without executing anything."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from napari_nnunet.errors import ModelError, NnunetError
from napari_nnunet.formats.atomic import written_beside
from napari_nnunet.formats.model.torch_file import (
    CHECKSUM,
    LARGEST_TABLE,
    checksum,
    is_plain_tensor,
    read_torch,
    what_instead,
    write_torch,
)
from napari_nnunet.formats.pickle_limits import walk
from napari_nnunet.formats.pickles import NumberArray, is_unread, read_table
from napari_nnunet.formats.regular import file_hash
from napari_nnunet.schema.dataset import DatasetInfo, LabelScheme
from napari_nnunet.schema.model_name import DEFAULT_TRAINER
from napari_nnunet.schema.plans import Plans
from napari_nnunet.schema.trainers import LOG_LISTS

OWN = "napari_nnunet"  # key of what only our trainings store: seed, place in the epoch, schedule

if TYPE_CHECKING:
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
    made_with : mapping
        ``init_args``: the plans and the dataset.json of the training; empty where a checkpoint does not say.
    scribbles : bool
        Whether it was trained on labels that are strokes, as such.
    doubt : str
        A sentence where it could not be compared with the files of its model.
    """

    weights: Mapping[str, Tensor]
    trainer: str
    configuration: str | None
    mirror_axes: tuple[int, ...] | None
    epoch: int | None
    made_with: Mapping[str, Any] = field(default_factory=dict)
    scribbles: bool = False
    doubt: str = ""


def read_raw(path: Path) -> dict[str, Any]:
    """Read the dictionary of a checkpoint of nnU-Net v2; errors as in :func:`read_torch`."""
    content = read_torch(path)
    if "network_weights" not in content:
        text = f"{path} is not a checkpoint of nnU-Net v2: it has no entry 'network_weights'. "
        raise ModelError(text + what_instead(content))
    content["network_weights"] = _weights(content["network_weights"], path)
    said = content.get(CHECKSUM)
    if said is not None and str(said) != checksum(content["network_weights"]):
        raise ModelError(
            f"{path} is damaged: its weights are not those that were saved (their checksum differs). Take a copy that "
            f"is whole, or train the fold again. If you changed them on purpose, remove {CHECKSUM!r} from the file."
        )
    return content


def _weights(found: Any, path: Path) -> dict[str, Tensor]:
    """Return weights by their names; raises ModelError for what is none."""
    if not isinstance(found, Mapping) or not found:
        raise ModelError(f"{path} is not a checkpoint of nnU-Net v2: 'network_weights' is a {type(found).__name__}.")
    odd = next((n for n, v in found.items() if not isinstance(n, str) or not is_plain_tensor(v)), None)
    if odd is not None:
        kind = type(found[odd]).__name__
        kind = "tensor without plain real values of its own" if isinstance(odd, str) and kind == "Tensor" else kind
        raise ModelError(f"{path} is not a checkpoint of nnU-Net v2: in 'network_weights', {odd!r:.80} is a {kind}.")
    return dict(found)


def facts_in(file: BinaryIO) -> tuple[str, str] | None:
    """Return trainer and configuration of a checkpoint; its weights are not read, and torch is not loaded.

    Parameters
    ----------
    file : binary file
        A checkpoint, perhaps within another zip.

    Returns
    -------
    tuple of str or None
        None where it is damaged, of another kind or refused.
    """
    content = _without_weights(file)
    try:
        return None if content is None else (str(content["trainer_name"]), str(content["init_args"]["configuration"]))
    except Exception:  # a damaged pickle may hold anything, and whoever asks can do without
        return None


def made_with(path: Path) -> Mapping[str, Any]:
    """Return the plans and the dataset.json that a checkpoint says it was trained with; its weights are not read."""
    try:
        with path.open("rb") as file:
            content = _without_weights(file)
    except OSError:
        return {}
    arguments = content.get("init_args") if isinstance(content, Mapping) else None
    return arguments if isinstance(arguments, Mapping) else {}


def weights_of(path: Path) -> str:
    """Return what tells the weights in a checkpoint from others: their checksum, or the file's where it has none.

    It is empty where there is no checkpoint, and remembered as long as size and time of the file stay.
    """
    try:
        status = path.stat()
        return _weights_of(path, status.st_size, status.st_mtime_ns)
    except OSError:
        return ""


@lru_cache(maxsize=128)
def _weights_of(path: Path, size: int, mtime: int) -> str:
    with path.open("rb") as file:
        content = _without_weights(file)
    return str((isinstance(content, Mapping) and content.get(CHECKSUM)) or file_hash(path))


def _without_weights(file: BinaryIO) -> Any:
    try:
        with zipfile.ZipFile(file) as archive:
            inner = next(name for name in archive.namelist() if name.endswith("/data.pkl"))
            if archive.getinfo(inner).file_size > LARGEST_TABLE:
                return None
            table = archive.read(inner)
        walk(table)
        return read_table(table)[0]
    except Exception:  # a damaged pickle may fail in any way, and whoever asks can do without
        return None


def read_checkpoint(path: Path) -> Checkpoint:
    """Read what inference needs; see :func:`read_raw` for the errors."""
    content = read_raw(path)
    arguments = content.get("init_args")
    configuration = arguments.get("configuration") if isinstance(arguments, dict) else None
    axes = content.get("inference_allowed_mirroring_axes")
    if isinstance(axes, NumberArray):
        axes = "an array of objects" if is_unread(axes) else axes.tolist()
    if axes is not None and not (
        isinstance(axes, list | tuple)
        and all(isinstance(axis, Integral) and axis in (0, 1, 2) for axis in axes)
        and len(set(axes)) == len(axes)
    ):
        raise ModelError(f"{path} allows mirroring along {axes!r:.80}; axes are 0, 1 and 2, each at most once.")
    own = content.get(OWN)
    return Checkpoint(
        weights=content["network_weights"],
        trainer=str(content.get("trainer_name", DEFAULT_TRAINER)),
        configuration=configuration if isinstance(configuration, str) else None,
        mirror_axes=tuple(int(a) for a in axes) if axes is not None else None,
        epoch=epochs_in(content),
        made_with=arguments if isinstance(arguments, dict) else {},
        scribbles=isinstance(own, Mapping) and own.get("scribbles") is True,
    )


def epochs_in(content: Mapping[str, Any]) -> int | None:
    """Return how many epochs a checkpoint says are finished, None if it does not say."""
    epochs = content.get("current_epoch")
    return int(epochs) if isinstance(epochs, Integral) else None


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
        CHECKSUM: checksum(state["network_weights"]),
    }
    if own is not None:
        content[OWN] = dict(own)
    with written_beside(path) as temporary:
        write_torch(content, temporary, path)


_INFERENCE = (
    "network_weights", "logging", "_best_ema", "current_epoch", "init_args", "trainer_name",
    "inference_allowed_mirroring_axes", CHECKSUM,
)  # fmt: skip


def _writable(value: Any) -> Any:
    """Return a value as nnU-Net can read it: without those that were not made again."""
    if is_unread(value):
        return None
    if isinstance(value, Mapping):
        return {key: _writable(item) for key, item in value.items() if not (is_unread(key) or is_unread(item))}
    if isinstance(value, list | tuple):
        return type(value)(_writable(item) for item in value if not is_unread(item))
    return value


def light_checkpoint(path: Path, folder: Path) -> Path:
    """Write a copy of a checkpoint without what only a training needs, about half as large; returns its path.

    All keys that nnU-Net looks for are there; the state of the optimizer is empty.
    """
    content = read_raw(path)
    light: dict[str, Any] = {key: _writable(content[key]) for key in _INFERENCE if key in content}
    light["optimizer_state"] = light["grad_scaler_state"] = None
    target = folder / path.name
    write_torch(light, target, target)
    return target


def told_apart(
    made: Mapping[str, Any], plans: Plans, info: DatasetInfo, configuration: str, *, used: bool = False
) -> list[str]:
    """Return what weights rely on that plans and dataset say otherwise than when they were trained.

    Sizes of patch and batch are no such thing, nor are new names of classes and channels.

    Parameters
    ----------
    made : mapping
        ``init_args`` of a checkpoint; nothing is said of what it lacks.
    plans, info, configuration
        What its weights would be used with.
    used : bool
        Whether a model is used and nothing trained: people may have corrected a voxel size whose unit was wrong, or
        chosen a faster way to resample results.
    """
    return _compared(made, plans, info, configuration, used=used)[0]


def not_compared(made: Mapping[str, Any], plans: Plans, info: DatasetInfo, configuration: str) -> list[str]:
    """Return what a checkpoint says of its training that cannot be compared, and why; nothing of what it lacks."""
    return _compared(made, plans, info, configuration, used=True)[1]


def _compared(
    made: Mapping[str, Any], plans: Plans, info: DatasetInfo, configuration: str, *, used: bool
) -> tuple[list[str], list[str]]:
    found: list[str] = []
    doubts: list[str] = []
    try:
        if made.get("plans") is not None:
            before = Plans.parse(made["plans"], where="its plans")
            then, now = _relied_on(before, configuration), _relied_on(plans, configuration)
            found += [
                f"'{key}' in plans.json was {_short(then[key])} and is {_short(now[key])}"
                for key in then
                if then[key] != now[key] and (not used or key not in _OF_USE)
            ]
    except _ODD as error:
        doubts.append(f"its plans with plans.json ({_short(_told(error))})")
    try:
        if made.get("dataset_json") is not None:
            old = DatasetInfo.parse(made["dataset_json"], where="its dataset.json")
            found += _other_classes(old, info)
    except _ODD as error:
        doubts.append(f"its classes with dataset.json ({_short(_told(error))})")
    return found, doubts


def _told(error: Exception) -> str:
    return str(error).rstrip(".") if isinstance(error, NnunetError) else f"{type(error).__name__} {error}"


def _other_classes(old: DatasetInfo, info: DatasetInfo) -> list[str]:
    found = []
    if _others(_values(old.labels), _values(info.labels)) or (
        info.labels.has_regions and old.labels.regions_class_order != info.labels.regions_class_order
    ):
        found.append(f"'labels' in dataset.json were {_short(old.labels.labels)} and are {_short(info.labels.labels)}")
    if len(old.channel_names) != len(info.channel_names) or _others(
        *(_places(one.channel_names) for one in (old, info))
    ):
        was, are = (", ".join(one.channel_names) for one in (old, info))
        found.append(f"'channel_names' in dataset.json were {was} and are {are}")
    return found


_OF_USE = ("spacing", "resampling_fn_probabilities")
_ODD = (NnunetError, LookupError, TypeError, ValueError, AttributeError)  # what a checkpoint says oddly


def _relied_on(plans: Plans, name: str) -> dict[str, Any]:
    """Return what decides of a prediction, by its key in plans.json."""
    found = plans.configuration(name)
    used = [i for i, scheme in enumerate(found.normalization_schemes) if scheme == "CTNormalization"]
    return {
        "spacing": list(found.spacing),
        "normalization_schemes": list(found.normalization_schemes),
        "use_mask_for_norm": list(found.use_mask_for_norm),
        **{f"architecture: {k}": v for k, v in found.architecture.model_dump().items() if k != "dropout"},
        "resampling_fn_data": found.resample_data.model_dump(),
        "resampling_fn_probabilities": found.resample_probabilities.model_dump(),
        "transpose_forward": list(plans.transpose_forward),
        "foreground_intensity_properties_per_channel": {i: plans.intensities[i].model_dump() for i in used},
    }


def _values(labels: LabelScheme) -> dict[str, Any]:
    if not labels.has_regions:
        return dict(labels.meanings)
    return {name: (place, values) for place, (name, values) in enumerate(labels.meanings.items())}


def _others(then: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Whether a name means something else, or what is named is not the same; names may be new."""
    moved = any(now[name] != value for name, value in then.items() if name in now)
    return moved or sorted(map(str, then.values())) != sorted(map(str, now.values()))


def _places(names: Sequence[str]) -> dict[str, int]:
    """Return where each channel is; those of the same name cannot be told apart."""
    return {name if names.count(name) == 1 else f"{name} {i}": i for i, name in enumerate(names)}


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 200 else f"{text[:200]}..."
