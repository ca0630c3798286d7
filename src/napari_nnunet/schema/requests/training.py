"""Requests about training."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le

from napari_nnunet.errors import SettingsError
from napari_nnunet.schema.model_name import DEFAULT_TRAINER
from napari_nnunet.schema.names import Fold, parse_fold
from napari_nnunet.schema.requests.option import DatasetPosition, PlansName, Request, TrainerName, option
from napari_nnunet.schema.requests.prediction import Arithmetic, Device, Threads
from napari_nnunet.schema.trainers import Recipe, Seconds, recipe_of

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


class TrainSettings(Request):
    """How a fold is trained on this computer, and what differs from the trainer's recipe."""

    trainer: TrainerName = DEFAULT_TRAINER
    epochs: Annotated[
        int | None, Ge(1), option("Epochs", "--epochs N", "Instead of the trainer's (1000 for nnU-Net's standard one).")
    ] = None
    iterations: Annotated[
        int | None, Ge(1), option("Steps per epoch", "--iterations N", "Instead of the trainer's 250.")
    ] = None
    validation_iterations: Annotated[
        int | None,
        Ge(1),
        option(
            "Validation steps per epoch",
            "--validation_iterations --validation-iterations N",
            "Instead of the trainer's 50.",
        ),
    ] = None
    time_budget: Annotated[
        Seconds | None,
        Gt(0),
        option(
            "Time budget",
            "--time_budget --time-budget TIME",
            "Measure the step, then choose epochs and learning rate so that training takes this long (45m, 2h, 1d).",
            reads=parse_duration,
        ),
    ] = None
    early_stop: Annotated[
        int | None,
        Ge(1),
        option(
            "Early stop (epochs)",
            "--early_stop --early-stop N",
            "After N epochs without a better pseudo Dice, lower the learning rate to zero and end.",
        ),
    ] = None
    foreground_jitter: Annotated[
        float,
        Ge(0),
        Le(1),
        option(
            "Foreground jitter",
            "--foreground_jitter --foreground-jitter J",
            "How far a patch around foreground may lie off its voxel, as a fraction of the patch. 0 is nnU-Net's; 0.25 "
            "helps where small structures are missed away from the centre of a patch.",
        ),
    ] = 0.0
    seed: Annotated[
        int,
        Ge(0),
        option("Seed", "--seed N", "Decides the first weights and every batch; the same seed repeats a training."),
    ] = 0
    device: Device = "auto"
    precision: Arithmetic = "auto"
    compile: Annotated[
        bool, option("Compile", "--compile", "Compile the network: minutes at the start, faster on GPUs.")
    ] = False
    threads: Threads = 0
    workers: Annotated[
        int | None,
        Ge(0),
        option("Loader processes", "--workers N", "Processes that make batches.", otherwise="as many as are needed"),
    ] = None
    augment_on: Annotated[
        Literal["workers", "device"],
        option(
            "Augment on",
            "--augment_on",
            "Where patches are augmented: by the loader processes, or by the device that trains, for computers with "
            "a fast GPU and few cores.",
        ),
    ] = "workers"
    tensorboard: Annotated[
        bool, option("TensorBoard", "--tensorboard", "Also write scalars for TensorBoard, which must be installed.")
    ] = False
    checkpoints: Annotated[
        bool,
        option(
            "Write checkpoints",
            "--disable_checkpointing",
            "Off: nothing of the training is kept.",
            sets=False,
            shell="Keep nothing of the training.",
        ),
    ] = True
    probabilities: Annotated[
        bool, option("Probabilities", "--npz", "Also keep the validation's probabilities, for ensembles.")
    ] = False

    def recipe(self) -> Recipe:
        """Return the trainer's recipe with the own lengths."""
        own = {
            name: getattr(self, name)
            for name in ("epochs", "iterations", "validation_iterations")
            if getattr(self, name) is not None
        }
        return recipe_of(self.trainer).replace(**own)


class TrainRequest(TrainSettings):
    """Train folds of a planned and preprocessed dataset, one after the other, and validate each."""

    dataset: DatasetPosition
    configuration: Annotated[
        str,
        option("Configuration", "CONFIGURATION", "2d, 3d_fullres, 3d_lowres, 3d_cascade_fullres or your own."),
    ]
    fold: Annotated[
        Fold,
        option(
            "Fold",
            "FOLD",
            "0 to 4, each of which validates on a different fifth of the cases, or 'all' to train on all of them.",
            each=True,
            reads=parse_fold,
        ),
    ]
    plans: PlansName = "nnUNetPlans"
    resume: Annotated[bool, option("Resume", "--c", "Continue from the newest checkpoint, exactly where it was.")] = (
        False
    )
    pretrained: Annotated[
        Path | None,
        option(
            "First weights",
            "-pretrained_weights FILE",
            "Checkpoint to initialise from; its output layers are not used.",
        ),
    ] = None
    finish_in: Annotated[
        int | None,
        Ge(1),
        option(
            "Finish in (epochs)",
            "--finish_in --finish-in N",
            "Lower the learning rate of a running training (or with --c a stopped one) to zero in N epochs, then end.",
        ),
    ] = None
    validation: Annotated[bool, option("Validate", "", "Segment the validation cases at the end.")] = True
    validate_only: Annotated[bool, option("Only validate", "--val", "Validate with the final checkpoint only.")] = False
    validate_best: Annotated[
        bool, option("Validate the best", "--val_best", "Validate with the best checkpoint instead of the final one.")
    ] = False

    @property
    def settings(self) -> TrainSettings:
        """How the fold is trained, without which."""
        return self.only(TrainSettings)


class TrainCommand(TrainRequest):
    """Train folds of a planned and preprocessed dataset, one after the other, and validate each."""

    processes: Annotated[
        int, Ge(1), option("Processes", "-num_gpus N", "Share each batch among N GPUs (or, on a CPU, processes).")
    ] = 1
    wait: Annotated[bool, option("Wait", "--wait", "Wait until earlier trainings of this workspace have ended.")] = (
        False
    )
    stop: Annotated[bool, option("Stop", "--stop", "Let a running training save and end; --c continues it later.")] = (
        False
    )
