"""Requests about training."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le
from pydantic import BaseModel, ConfigDict, Field

from napari_nnunet.errors import SettingsError
from napari_nnunet.schema.model_name import DEFAULT_TRAINER
from napari_nnunet.schema.requests.prediction import Precision
from napari_nnunet.schema.trainers import Recipe, Seconds, recipe_of


class TrainSettings(BaseModel):
    """How a fold is trained on this computer, and what differs from the trainer's recipe."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    trainer: str = Field(DEFAULT_TRAINER, title="Trainer", description="One of nnU-Net's trainer names.")
    epochs: Annotated[int, Ge(1)] | None = Field(
        None, title="Epochs", description="Instead of the trainer's (1000 for nnU-Net's standard one)."
    )
    iterations: Annotated[int, Ge(1)] | None = Field(
        None, title="Steps per epoch", description="Instead of the trainer's 250."
    )
    validation_iterations: Annotated[int, Ge(1)] | None = Field(
        None, title="Validation steps per epoch", description="Instead of the trainer's 50."
    )
    time_budget: Annotated[Seconds, Gt(0)] | None = Field(
        None,
        title="Time budget (s)",
        description="The step is measured, then epochs and learning rate are chosen so that training takes this long.",
    )
    early_stop: Annotated[int, Ge(1)] | None = Field(
        None,
        title="Early stop (epochs)",
        description="After so many epochs without a better pseudo Dice the learning rate goes to zero and it ends.",
    )
    foreground_jitter: Annotated[float, Ge(0), Le(1)] = Field(
        0.0,
        title="Foreground jitter",
        description="How far a patch around foreground may lie off its voxel, as a fraction of the patch. 0 is "
        "nnU-Net's; 0.25 helps where small structures are missed away from the centre of a patch.",
    )
    seed: Annotated[int, Ge(0)] = Field(
        0, title="Seed", description="Decides the first weights and every batch; the same seed repeats a training."
    )
    device: str = Field("auto", title="Device", description="auto, cpu, cuda, cuda:1, mps.")
    precision: Precision = Field(
        "auto", title="Precision", description="auto, float32, bfloat16 or float16 for the network's arithmetic."
    )
    compile: bool = Field(False, title="Compile", description="torch.compile; minutes at the start, faster on GPUs.")
    threads: Annotated[int, Ge(0)] = Field(0, title="CPU threads", description="0 means all cores.")
    workers: Annotated[int, Ge(0)] | None = Field(
        None, title="Loader processes", description="Processes that make batches; none given: as many as are needed."
    )
    augment_on: Literal["workers", "device"] = Field(
        "workers",
        title="Augment on",
        description="Where patches are turned and changed: by the loader processes, or by the device that learns, for "
        "computers with a fast GPU and few cores.",
    )
    tensorboard: bool = Field(
        False, title="TensorBoard", description="Also write scalars for TensorBoard (pip install tensorboard)."
    )
    checkpoints: bool = Field(True, title="Write checkpoints", description="Off: nothing is kept of the training.")
    probabilities: bool = Field(
        False, title="Probabilities", description="Also keep the validation's probabilities, for ensembles."
    )

    def replace(self, **changes: object) -> TrainSettings:
        """Return a copy with some fields changed and everything checked again."""
        return TrainSettings.model_validate({**self.model_dump(), **changes})

    def recipe(self) -> Recipe:
        """Return the trainer's recipe with the own lengths."""
        own = {
            name: getattr(self, name)
            for name in ("epochs", "iterations", "validation_iterations")
            if getattr(self, name) is not None
        }
        return recipe_of(self.trainer).replace(**own)


_UNITS = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}


def parse_duration(text: str) -> Seconds:
    """Return seconds for "90s", "45m", "2h", "1.5h", "1h30m", "1d" or a bare number of seconds.

    Raises
    ------
    SettingsError
        If it is none of these, or not positive.
    """
    cleaned = text.strip().lower().replace(" ", "")
    parts = re.findall(r"(\d+(?:\.\d+)?)(s|min|m|h|d)", cleaned)
    total = sum(float(number) * _UNITS[unit] for number, unit in parts)
    if "".join(number + unit for number, unit in parts) != cleaned:
        total = float(cleaned) if re.fullmatch(r"\d+(\.\d+)?", cleaned) else 0.0
    if total <= 0:
        raise SettingsError(f"{text!r} is not a duration. Write 45m, 2h, 1h30m or 1d, for example.")
    return total
