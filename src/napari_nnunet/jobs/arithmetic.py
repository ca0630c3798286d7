"""Which arithmetic a network gets on this computer: what was asked for, or what was measured to be the fastest."""

from __future__ import annotations

import hashlib
import json
import math
import platform
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from threading import Lock
from typing import Literal

from napari_nnunet.engine.network.device import (
    BackendChoice,
    Timed,
    choose,
    cpu_features,
    is_measured,
    training_precision,
)
from napari_nnunet.engine.planning.probe import PURPOSES, Purpose, beginning, is_worth_measuring
from napari_nnunet.errors import ResourceError, SettingsError
from napari_nnunet.formats import speed
from napari_nnunet.processes.probe import time_apart
from napari_nnunet.schema.architecture import Architecture
from napari_nnunet.schema.plans import Configuration
from napari_nnunet.schema.requests.prediction import PredictSettings
from napari_nnunet.schema.requests.training import TrainSettings

_LIBRARIES = ("torch", "openvino")  # their versions change what is fast
_STEPS = "fastest of three, in the layout of training"  # figures that were remembered otherwise do not count
_BATCHES = "close ones in batches"  # likewise, for predictions
_FLAT = 3000  # voxels of a plane for each plane of a patch; from about 5000 on, gradients with AMX fail
REAL = "real"  # ends the names of steps that were timed in trainings
_measuring = Lock()  # two measurements at once would disturb each other


@dataclass(frozen=True)
class Measurements:
    """What is known about this computer.

    Parameters
    ----------
    timed : dict of str to list of Timed
        What was compared, by purpose and network.
    others : int
        Measurements of other computers, or with other versions of the libraries; they are not used.
    damaged : int
        Measurements of this computer that cannot be read; they are made again when they are needed.
    """

    timed: dict[str, list[Timed]]
    others: int = 0
    damaged: int = 0


def prediction_choice(settings: PredictSettings, architecture: Architecture) -> BackendChoice:
    """Pick device, backend and precision for running a network.

    Measures, in a few seconds, what has not been measured on this computer with this kind of network.

    Raises
    ------
    ResourceError, SettingsError
        As :func:`napari_nnunet.engine.network.device.choose`.
    """
    if not (is_measured(settings) and is_worth_measuring(architecture)):
        return choose(settings)
    try:
        timed = _timed("prediction", architecture)
    except ResourceError as error:
        return replace(choose(settings), why=error.message)
    return choose(settings, timed)


def training_device(settings: TrainSettings, device: str) -> BackendChoice:
    """Pick where to train, and check that what is asked for works there; nothing is measured yet.

    Parameters
    ----------
    settings : TrainSettings
        What is asked for.
    device : str
        Where to train.

    Raises
    ------
    ResourceError, SettingsError
        If the device is not there, or the precision does not work on it.
    """
    choice = choose(
        PredictSettings(device=device, backend="torch", precision=settings.precision, threads=settings.threads)
    )
    if choice.precision == "float16" and choice.kind != "cuda":
        raise SettingsError(f"float16 trains on CUDA only, not on {choice.device}. Use float32 or bfloat16.")
    return choice


def training_choice(
    settings: TrainSettings, architecture: Architecture, choice: BackendChoice, patch: Sequence[int] = ()
) -> BackendChoice:
    """Pick the precision of a training: bfloat16 on a CPU where that is faster by a third, float16 on CUDA.

    Parameters
    ----------
    settings : TrainSettings
        What is asked for.
    architecture : Architecture
        Of the network.
    choice : BackendChoice
        Where to train, see :func:`training_device`.
    patch : sequence of int, optional
        What the network is trained with.

    Raises
    ------
    SettingsError
        If bfloat16 is asked for where it fails.
    """
    if settings.precision not in ("auto", "bfloat16") or choice.kind != "cpu":
        return choice
    fails = fails_in_bfloat16(patch)
    if settings.precision == "bfloat16":
        if fails:
            raise SettingsError(
                f"Training patches of {' x '.join(map(str, patch))} voxels in bfloat16 would hang or crash on this "
                "processor, which has AMX. Use float32 or auto."
            )
        return choice
    if fails:
        return replace(choice, why="bfloat16 fails for flat patches on processors with AMX")
    if not is_worth_measuring(architecture):
        return replace(choice, why="as nnU-Net trains")
    try:
        precision, why = training_precision(_timed("training", architecture))
    except ResourceError as error:
        return replace(choice, why=error.message)
    return replace(choice, precision=precision, why=why)


def fails_in_bfloat16(patch: Sequence[int]) -> bool:
    """Whether gradients in bfloat16 fail for a patch ([z,] y, x) on this processor.

    With AMX, those of torch 2.13 (oneDNN 3.12) never end, or end the process, where patches are a few large planes:
    8 x 224 x 224, 12 x 256 x 256, 16 x 320 x 320; not 14 x 256 x 256 or 20 x 320 x 256.
    """
    return len(patch) == 3 and math.prod(patch[1:]) > _FLAT * patch[0] and "amx_bf16" in cpu_features()


def _timed(purpose: Purpose, architecture: Architecture) -> list[Timed]:
    """Return what was measured, or measure it."""
    with _measuring:
        found = known().timed.get(measurement_name(purpose, architecture))
        if found is None:
            found = time_apart(purpose, architecture)
            _remember(purpose, architecture, found)
    return found


def _remember(purpose: Purpose, architecture: Architecture, found: Sequence[Timed]) -> None:
    name = measurement_name(purpose, architecture)
    speed.remember(f"{name} | {_where(name)}", [vars(entry) for entry in found])


def known() -> Measurements:
    """Return what was measured on this computer with these libraries."""
    timed: dict[str, list[Timed]] = {}
    others = damaged = 0
    for key, value in speed.comparisons().items():
        name, _, where = key.partition(" | ")
        if where != _where(name):
            others += 1
        elif (entries := _entries(value)) is None:
            damaged += 1
        else:
            timed[name] = entries
    return Measurements(timed, others, damaged)


def _entries(value: object) -> list[Timed] | None:
    try:
        found = [Timed(**entry) for entry in value]  # type: ignore[attr-defined]
        sound = all(
            entry.backend in ("torch", "openvino")
            and entry.precision in ("float32", "bfloat16", "float16")
            and (entry.seconds is None or entry.seconds > 0)
            and entry.deviation >= 0
            for entry in found
        )
    except TypeError:
        return None
    return found if sound and found else None


def measurement_name(purpose: Purpose, architecture: Architecture) -> str:
    """Return the name under which a measurement is remembered: what for, what kind of network."""
    small = beginning(architecture)
    digest = hashlib.sha256(json.dumps(small.model_dump(mode="json"), sort_keys=True).encode()).hexdigest()[:8]
    return f"{purpose}, {small.ndim}-D from {small.features[0]} ({digest})"


def _where(name: str) -> str:
    """Return what decides whether a measurement counts here: the computer, and how it was measured."""
    return f"{_computer()}; {_BATCHES}" if name.startswith(PURPOSES[0]) else _computer()


@lru_cache(maxsize=1)
def _computer() -> str:
    """Name what decides how fast which arithmetic is: processor and libraries."""
    return "; ".join([processor(), *sorted(cpu_features()), *(f"{name} {_version(name)}" for name in _LIBRARIES)])


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "none"


def processor() -> str:
    """Return the name of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return named or platform.processor() or platform.machine()


def measure_anew(architecture: Architecture) -> None:
    """Measure again, whatever is remembered.

    Raises
    ------
    ResourceError
        If nothing could be tried.
    """
    for purpose in PURPOSES:
        with _measuring:
            _remember(purpose, architecture, time_apart(purpose, architecture))


def usual_network(ndim: Literal[2, 3]) -> Architecture:
    """Return the two finest stages of the network that nnU-Net plans most often."""
    return Architecture(
        name="PlainConvUNet",
        ndim=ndim,
        features=(32, 64),
        kernel_sizes=((3,) * ndim,) * 2,
        strides=((1,) * ndim, (2,) * ndim),
        blocks=(2, 2),
        decoder_convs=(2,),
    )


def step_key(configuration: Configuration, channels: int, heads: int, choice: BackendChoice) -> str:
    """Return the name under which the seconds of a training step are remembered."""
    about = [
        configuration.architecture.model_dump(mode="json"),
        configuration.patch_size,
        configuration.batch_size,
        channels,
        heads,
        choice.device,
        choice.precision,
        _STEPS,
    ]
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:24]
