"""Requests about training."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from napari_nnunet.errors import SettingsError
from napari_nnunet.schema.model_name import DEFAULT_TRAINER
from napari_nnunet.schema.names import Fold, parse_fold
from napari_nnunet.schema.requests.mask_words import without_doubles
from napari_nnunet.schema.requests.option import (
    DatasetPosition,
    Folds,
    PlansName,
    Request,
    TrainerName,
    option,
    read_folds,
)
from napari_nnunet.schema.requests.planning import FoldSettings
from napari_nnunet.schema.requests.prediction import Arithmetic, Device, Threads
from napari_nnunet.schema.trainers import Seconds, TrainerRecipe, recipe_of

TrackerName = Literal["tensorboard", "mlflow", "wandb"]
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


def read_class_weights(typed: str | Sequence[str]) -> dict[str, float]:
    """Return how much classes count, written as ``tumour=5``, several with spaces (as words) or commas between them.

    Raises
    ------
    SettingsError
        If a weight is missing, or not a positive number.
    """
    found: list[tuple[str, float]] = []
    for text in [typed] if isinstance(typed, str) else typed:
        for word in re.split(r",\s*(?=[^,=]+=)", text):
            name, sign, number = word.rpartition("=")
            if not sign or not name.strip() or not re.fullmatch(r"\s*\d*\.?\d+\s*", number, re.ASCII):
                raise SettingsError(f"{word!r} is not the weight of a class; write it like tumour=5.")
            found.append((name.strip(), float(number)))
    return without_doubles(found)


class TrainSettings(Request):
    """How a fold is trained on this computer, and what differs from the trainer's recipe."""

    trainer: TrainerName = DEFAULT_TRAINER
    epochs: int | None = option(
        "Epochs", "--epochs N", "Instead of the trainer's (1000 for nnU-Net's standard one).", default=None, ge=1
    )
    iterations: int | None = option(
        "Steps per epoch", "--iterations N", "Instead of the trainer's 250.", default=None, ge=1
    )
    validation_iterations: int | None = option(
        "Validation steps per epoch",
        "--validation_iterations --validation-iterations N",
        "Instead of the trainer's 50.",
        default=None,
        ge=1,
    )
    time_budget: Seconds | None = option(
        "Time budget",
        "--time_budget --time-budget TIME",
        "Measure the step, then choose epochs and learning rate so that training takes this long.",
        default=None,
        gt=0,
        reads=parse_duration,
        shell="Measure the step, then choose epochs and learning rate so that training takes this long (45m, 2h, 1d).",
    )
    early_stop: int | None = option(
        "Early stop (epochs)",
        "--early_stop --early-stop N",
        "After N epochs without a better pseudo Dice, lower the learning rate to zero and end.",
        default=None,
        ge=1,
    )
    foreground_jitter: float = option(
        "Foreground jitter",
        "--foreground_jitter --foreground-jitter J",
        "How far a patch around foreground may lie off its voxel, as a fraction of the patch. 0 is nnU-Net's; 0.25 "
        "helps where small structures are missed away from the centre of a patch.",
        default=0.0,
        ge=0,
        le=1,
        row=True,
    )
    class_weights: dict[str, Annotated[float, Field(allow_inf_nan=True)]] | None = option(
        "Class weights",
        "--class_weights --class-weights NAME=WEIGHT",
        "How much classes count in the loss, tumour=5 for instance; those that are not named count 1. Dice already "
        "counts small and large classes alike, so begin without.",
        default=None,
        otherwise="all alike, as in nnU-Net",
        reads=read_class_weights,
        row=True,
    )
    scribbles: bool = option(
        "Scribbles",
        "--scribbles",
        "Labels are strokes in every structure and in the background: what nobody annotated counts as background, all "
        "of it together as much as what was annotated, and patches lie anywhere. Not for slices or boxes that are "
        "labelled wholly.",
        default=False,
        row=True,
    )
    seed: int = option(
        "Seed",
        "--seed N",
        "Decides the first weights and every batch; the same seed repeats a training.",
        default=0,
        ge=0,
        row=True,
    )
    device: Device = "auto"
    precision: Arithmetic = "auto"
    compile: bool | None = option(
        "Compile",
        "--compile",
        "Compile the network: a minute at the start, and steps are a third shorter on GPUs.",
        default=None,
        otherwise="for long trainings on a GPU; never where the environment says nnUNet_compile=f",
    )
    threads: Threads = 0
    workers: int | None = option(
        "Loader processes",
        "--workers N",
        "Processes that make batches.",
        default=None,
        ge=0,
        otherwise="as many as are needed",
    )
    augment_on: Literal["auto", "workers", "device"] = option(
        "Augment on",
        "--augment_on",
        "Where patches are augmented: by the loader processes, or by the device that trains; auto takes a GPU where it "
        "would wait for the processes.",
        default="auto",
    )
    track: tuple[TrackerName, ...] = option(
        "Track with",
        "--track NAME",
        "Also send the figures of every epoch to TensorBoard, MLflow or Weights & Biases, which must be installed.",
        default=(),
    )
    tensorboard: bool = option("TensorBoard", "--tensorboard", "The same as --track tensorboard.", default=False)
    checkpoints: bool = option(
        "Write checkpoints",
        "--disable_checkpointing",
        "Off: nothing of the training is kept.",
        default=True,
        sets=False,
        shell="Keep nothing of the training.",
    )
    probabilities: bool = option(
        "Keep probabilities of the validation",
        "--npz",
        "Also keep the validation's probabilities, for ensembles.",
        default=False,
        row=True,
    )

    @field_validator("class_weights")
    @classmethod
    def _positive(cls, weights: dict[str, float] | None) -> dict[str, float] | None:
        for name, weight in (weights or {}).items():
            if not 0 < weight < math.inf:
                raise SettingsError(f"The weight of {name!r} is {weight}; it must be a positive number.")
        return weights or None

    @property
    def trackers(self) -> tuple[TrackerName, ...]:
        """Where the figures of epochs go, each once."""
        return tuple(dict.fromkeys((*self.track, *(("tensorboard",) if self.tensorboard else ()))))

    def recipe(self) -> TrainerRecipe:
        """Return the trainer's recipe with the own lengths and weights."""
        own = {
            name: getattr(self, name)
            for name in ("epochs", "iterations", "validation_iterations", "class_weights")
            if getattr(self, name) is not None
        }
        own |= {"scribbles": True} if self.scribbles else {}
        return recipe_of(self.trainer).replace(**own)


class TrainRequest(FoldSettings, TrainSettings):
    """Train folds of a planned and preprocessed dataset, one after the other, and validate each."""

    dataset: DatasetPosition
    configuration: str = option(
        "Configuration", "CONFIGURATION", "2d, 3d_fullres, 3d_lowres, 3d_cascade_fullres or your own."
    )
    fold: Fold = option(
        "Fold",
        "FOLD",
        "0 to 4, each of which validates on a different fifth of the cases, or 'all' to train on all of them.",
        each=True,
        reads=parse_fold,
    )
    plans: PlansName = "nnUNetPlans"
    resume: bool = option("Resume", "--c", "Continue from the newest checkpoint, exactly where it was.", default=False)
    pretrained: Path | None = option(
        "Begin with",
        "-pretrained_weights FILE",
        "Checkpoint to initialise from, of the same network. Where it knows other channels, those of the same name "
        "keep their first kernels; its output layers are not used.",
        default=None,
    )
    pretrained_heads: bool = option(
        "Also output layers",
        "--pretrained_heads --pretrained-heads",
        "Classes that the checkpoint knows by the same name begin with its output layers, too.",
        default=False,
        shell="With -pretrained_weights: classes that the checkpoint knows by the same name begin with its output "
        "layers, too.",
    )
    continue_from: Path | None = option(
        "Continue a model",
        "--continue_from --continue-from MODEL",
        "Folder of a trained model to continue, on more cases or other classes: its plans and weights are used, "
        "classes of the same name keep what they learnt, new ones are learnt. The model itself stays.",
        default=None,
    )
    finish_in: int | None = option(
        "Finish in (epochs)",
        "--finish_in --finish-in N",
        "Lower the learning rate of a running training (or with --c a stopped one) to zero in N epochs, then end.",
        default=None,
        ge=1,
    )
    validation: bool = option("Validate", "", "Segment the validation cases at the end.", default=True)
    validate_only: bool = option("Only validate", "--val", "Validate with the final checkpoint only.", default=False)
    validate_best: bool = option(
        "Validate the best", "--val_best", "Validate with the best checkpoint instead of the final one.", default=False
    )

    @property
    def settings(self) -> TrainSettings:
        """How the fold is trained, without which."""
        return self.only(TrainSettings)


def _read_every_fold(words: Sequence[str | int]) -> tuple[Fold, ...] | None:
    """Return folds written as words; None for "all" of them.

    Raises
    ------
    SettingsError
        If "all" stands beside numbers.
    """
    folds = tuple(parse_fold(str(word)) for word in words)
    if folds == ("all",):
        return None
    if "all" in folds:
        raise SettingsError(
            "'all' stands for every fold here, so give no numbers with it. The fold that trains on all cases "
            "is trained by 'train DATASET CONFIGURATION all'."
        )
    return folds


class TrainAllRequest(TrainSettings):
    """Train configurations and folds of a planned and preprocessed dataset as jobs of a scheduler.

    There is a job for each; the cascade waits for its previous stage, and the choice for all. What is trained already
    is skipped; what was stopped, killed or ran into a time limit continues exactly where it was.
    """

    dataset: DatasetPosition
    configurations: tuple[str, ...] | None = option(
        "Configurations",
        "--configurations -c CONFIGURATION",
        "2d, 3d_fullres, 3d_lowres, 3d_cascade_fullres or your own.",
        default=None,
        otherwise="all that the plans have",
        min_length=1,
    )
    folds: tuple[Fold, ...] | None = option(
        "Folds",
        "--folds -f FOLD",
        "Numbers, or 'all' for every fold of the cross-validation (not for nnU-Net's fold of that name, which trains "
        "on all cases).",
        default=None,
        otherwise="all",
        reads=_read_every_fold,
        min_length=1,
    )
    plans: PlansName = "nnUNetPlans"
    choose: bool = option(
        "Choose the best",
        "--choose",
        "At the end compare all of them and choose the best, as find_best_configuration does.",
        default=False,
    )
    processes: int = option(
        "Processes", "-num_gpus N", "Share each batch among N GPUs (or, on a CPU, processes).", default=1, ge=1
    )
    cluster: str = option(
        "Cluster",
        "--cluster WHERE",
        "local or local:N (so many at a time on this computer), or a .toml file about Slurm (slurm:FILE.toml). All "
        "machines must see the same files under the same paths.",
        default="local",
    )
    dry_run: bool = option(
        "Only show", "--dry_run", "Show the jobs, as commands for another scheduler, and submit none.", default=False
    )

    @field_validator("folds", mode="before")
    @classmethod
    def _every(cls, value: Any) -> Any:
        if value is None:
            return None
        return _read_every_fold([value] if isinstance(value, str | int) else value)


class TrainingsRequest(Request):
    """Show the trainings of the workspace: those that run, on whatever machine, that wait, and that ended."""

    dataset: str | None = option(
        "Dataset", "-d DATASET", "Number or name of a dataset.", default=None, otherwise="all datasets"
    )
    configurations: tuple[str, ...] | None = option(
        "Configurations", "-c CONFIGURATION", "Only of these.", default=None, otherwise="all"
    )
    folds: Folds = option("Folds", "-f FOLD", "Only these.", default=None, otherwise="all", reads=read_folds)
    watch: bool = option("Watch", "--watch", "Show what changes, until none runs or waits.", default=False)
    stop: bool = option(
        "Stop",
        "--stop",
        "Let those that run save and end, and take back those that wait; train --c or train_all continues them.",
        default=False,
    )


class TrainCommand(TrainRequest):
    """Train folds of a planned and preprocessed dataset, one after the other, and validate each."""

    processes: int = option(
        "Processes", "-num_gpus N", "Share each batch among N GPUs (or, on a CPU, processes).", default=1, ge=1
    )
    wait: bool = option("Wait", "--wait", "Wait until earlier trainings of this workspace have ended.", default=False)
    stop: bool = option("Stop", "--stop", "Let a running training save and end; --c continues it later.", default=False)
