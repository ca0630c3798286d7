"""How fast this computer runs networks: what runs left in the notebook of speeds, and short trials before the first."""

from __future__ import annotations

import hashlib
import time

import torch

from napari_nnunet.engine.network import unet
from napari_nnunet.engine.network.device import BackendChoice, free_memory
from napari_nnunet.engine.network.unet import multiply_adds
from napari_nnunet.engine.prediction.infer import Ensemble, batch_size
from napari_nnunet.formats import speed
from napari_nnunet.formats.model.folder import TrainedModel
from napari_nnunet.schema.architecture import Architecture

_LONGEST_TRIAL = 1.0  # seconds that a run of a network may seem to take, to be tried


def start_key(choice: BackendChoice) -> str:
    """Name what reading and compiling a network takes."""
    return f"start {choice.device} {choice.backend}"


def _real_key(choice: BackendChoice, ndim: int) -> str:
    """Name how fast real networks are, where the rate is that of a small one that was made for measuring."""
    return f"{_rate_key(choice)} {ndim}d"


def speed_key(model: TrainedModel, ensemble: Ensemble) -> str:
    """Return the name under which the time of one network run is remembered."""
    return _key(model, ensemble.choice, ensemble.batch)


def _key(model: TrainedModel, choice: BackendChoice, batch: int) -> str:
    network = f"{model.architecture!r}{model.configuration.patch_size}{model.channels_in}{model.dataset.labels.heads}"
    digest = hashlib.sha256(network.encode()).hexdigest()[:16]
    return f"{digest} {choice.device} {choice.backend} {choice.precision} {choice.threads} {batch}"


def _tried_key(model: TrainedModel, choice: BackendChoice) -> str:
    """Name what a window takes in a model's own network, with weights by chance."""
    return f"tried {_key(model, choice, 1)}"


def _rate_key(choice: BackendChoice) -> str:
    return f"rate {choice.device} {choice.backend} {choice.precision} {choice.threads}"


def seconds_of_run(model: TrainedModel, choice: BackendChoice, batch: int) -> tuple[float | None, bool]:
    """Return what a run of a model's network is thought to take, None if unknown, and whether it ran here before."""
    known = speed.seconds_per_run(_key(model, choice, batch))
    if known is not None:
        return known, True
    tried = speed.seconds_per_run(_tried_key(model, choice))
    if tried is not None:
        return tried * batch, False
    real = speed.seconds_per_run(_real_key(choice, model.configuration.ndim))
    rate = real or speed.seconds_per_run(_rate_key(choice))
    if rate is None:
        return None, False
    return _operations(model) * batch * rate, False


def _operations(model: TrainedModel) -> float:
    """Return how many multiplications and additions a window takes."""
    size = model.configuration.patch_size
    return multiply_adds(model.architecture, model.channels_in, model.dataset.labels.heads, size)


def measure_speed(choice: BackendChoice) -> None:
    """Measure once, in about a second, how fast this computer multiplies inside a small U-Net, and remember it."""
    if speed.seconds_per_run(_rate_key(choice)) is not None:
        return
    architecture = Architecture(
        name="PlainConvUNet",
        ndim=3,
        features=(32, 64, 128),
        kernel_sizes=((3, 3, 3),) * 3,
        strides=((1, 1, 1), (2, 2, 2), (2, 2, 2)),
        blocks=(2, 2, 2),
        decoder_convs=(2, 2),
    )
    patch = (48, 48, 48)
    ensemble = Ensemble([unet.build(architecture, 1, 3)], choice, patch, None)
    window = torch.zeros((1, 1, *patch))
    built, seconds = _tried(ensemble, window)
    speed.remember(start_key(choice), built)
    runs = max(ensemble.batch, 1) if choice.backend == "openvino" else 1
    speed.remember(_rate_key(choice), seconds / (multiply_adds(architecture, 1, 3, patch) * runs))


def measure_network(model: TrainedModel, choice: BackendChoice, memory: float) -> None:
    """Measure once how long a model's own network takes for a window, unless it ran here or takes seconds.

    Networks of other shapes are not equally fast: small maps and few features leave units of a processor idle. Where
    the trial fails, for want of memory or of a compiler, nothing is known of it: whoever segments is told why.

    Parameters
    ----------
    model : TrainedModel
        Its weights are not read; others by chance take as long.
    choice : BackendChoice
        Where and how.
    memory : float
        Bytes that a run takes; where half of what is free is less, nothing is tried.
    """
    size = model.configuration.patch_size
    batch = batch_size(size, choice, 1)
    seconds, measured = seconds_of_run(model, choice, batch)
    tried = choice.precision == "int8" or speed.seconds_per_run(_tried_key(model, choice)) is not None
    if measured or tried or seconds is None or seconds > _LONGEST_TRIAL or memory > free_memory(choice) / 2:
        return
    network = unet.build(model.architecture, model.channels_in, model.dataset.labels.heads)
    ensemble = Ensemble([network], choice, size, None)
    windows = torch.randn((batch, model.channels_in, *size), generator=torch.Generator().manual_seed(0))
    try:
        built, fastest = _tried(ensemble, windows)
    except Exception:  # whatever libraries raise
        return
    if speed.seconds_per_run(_real_key(choice, model.configuration.ndim)) is None:  # no run said it better
        speed.remember(start_key(choice), built)
    speed.remember(_tried_key(model, choice), fastest / batch)


def _tried(ensemble: Ensemble, windows: torch.Tensor) -> tuple[float, float]:
    """Return the seconds that compiling took, and the fewest of three runs."""
    began = time.monotonic()
    ensemble.compile()
    built, times = max(0.01, time.monotonic() - began), []
    for _ in range(3):
        began = time.monotonic()
        for _ in ensemble.logits(windows):
            pass
        times.append(time.monotonic() - began)
    return built, min(times)


def remember_rate(model: TrainedModel, ensemble: Ensemble, seconds: float) -> None:
    """Remember how fast a real network ran, whose run took these seconds, for estimates of others."""
    rate = seconds / (_operations(model) * ensemble.batch)
    speed.remember(_real_key(ensemble.choice, model.configuration.ndim), rate)
