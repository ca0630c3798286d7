"""What training a planned dataset will take here: memory, disk and hours per configuration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from napari_nnunet.engine.planning.cost import StepCost, measure_step
from napari_nnunet.errors import NnunetError, memory_told
from napari_nnunet.events import Job, Note, Progress, Stage
from napari_nnunet.formats import speed
from napari_nnunet.jobs.arithmetic import REAL, step_key, training_choice, training_device
from napari_nnunet.jobs.planning.sizes import stored_bytes
from napari_nnunet.schema.dataset import DatasetInfo
from napari_nnunet.schema.plans import Configuration, Plans
from napari_nnunet.schema.requests.training import TrainSettings


@dataclass(frozen=True)
class TrainingCost:
    """What one configuration takes.

    Parameters
    ----------
    hours_per_fold : float
        Of nnU-Net's 1000 epochs of 250 steps, from a measured step.
    memory_gb : float
        Of one step on the device.
    disk_gb : float
        Of the preprocessed cases, uncompressed.
    device : str
        Where the step was measured.
    real : bool
        Whether the time is that of a training here, with its waiting for data, and not of a trial.
    busy : bool
        Whether other programs had the cores in that trial: the time is that of one core, and measured again next time.
    """

    hours_per_fold: float
    memory_gb: float
    disk_gb: float
    device: str
    real: bool = False
    busy: bool = False


def training_costs(
    base: Path, plans: Plans, info: DatasetInfo, names: Sequence[str], *, device: str = "auto", anew: bool = False
) -> Job[dict[str, TrainingCost]]:
    """Measure a training step of configurations; what was measured here before is remembered, trainings above all.

    Parameters
    ----------
    base : Path
        ``nnUNet_preprocessed/DATASET``.
    plans, info
        Of the dataset.
    names : sequence of str
        Configurations; those that cannot be built are left out with a note.
    device : str
        "auto", "cpu", "cuda".
    anew : bool
        Whether to measure again what is remembered.

    Returns
    -------
    dict of str to TrainingCost
        Per configuration.
    """
    chosen = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    yield Stage(name="Measuring a training step", total=len(names))
    found: dict[str, TrainingCost] = {}
    for i, name in enumerate(names):
        try:
            configuration = plans.configuration(name)
            channels = _channels(configuration, info)
            settings = TrainSettings(device=chosen)
            patch, place = configuration.patch_size, training_device(settings, chosen)
            choice = training_choice(settings, configuration.architecture, place, patch)
            key = step_key(configuration, channels, info.labels.heads, choice)
            seconds, memory = speed.seconds_per_run(f"{key}-step"), speed.bytes_per_run(f"{key}-bytes")
            real, busy = None if anew else speed.seconds_per_run(f"{key}-{REAL}"), False
            if anew or seconds is None or memory is None:
                with memory_told("Plan for less memory."):
                    step = measure_step(
                        configuration.architecture,
                        channels,
                        info.labels.heads,
                        patch,
                        configuration.batch_size,
                        device=choice.device,
                        precision=choice.precision,
                    )
                seconds, memory, busy = step.seconds, step.bytes, step.busy and real is None
                if not step.busy:
                    speed.remember(f"{key}-step", seconds)
                speed.remember(f"{key}-bytes", memory)
            cost = StepCost(real or seconds, memory, chosen, 1.0)
            disk = stored_bytes(base, configuration)
            gigabytes = cost.bytes / 1e9, disk / 1e9
            found[name] = TrainingCost(cost.hours_per_fold, *gigabytes, chosen, real is not None, busy)
        except NnunetError as error:
            yield Note.about(f"{name} cannot be measured:", error)
        yield Progress(done=i + 1, total=len(names))
    return found


def _channels(configuration: Configuration, info: DatasetInfo) -> int:
    """Return the network's inputs: image channels, and one per class of a previous stage."""
    previous = len(info.labels.foreground_labels) if configuration.previous_stage else 0
    return len(info.channel_names) + previous
