"""How a network is trained: nnU-Net's trainers as values, and what a person chooses."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le
from pydantic import BaseModel, ConfigDict, Field

from napari_nnunet.errors import SettingsError
from napari_nnunet.schema.settings import Fold, Precision

LossName = Literal["dice_ce", "dice", "ce", "topk", "dice_topk"]
OptimizerName = Literal["sgd", "adam", "adamw"]
ScheduleName = Literal["poly", "cosine", "warmup"]
AugmentationName = Literal["default", "none", "strong"]
MirrorName = Literal["all", "none", "first_two"]
Seconds = float

DEFAULT_TRAINER = "nnUNetTrainer"
#: What nnU-Net's checkpoints log about every epoch.
LOG_LISTS = (
    "mean_fg_dice",
    "ema_fg_dice",
    "dice_per_class_or_region",
    "train_losses",
    "val_losses",
    "lrs",
    "epoch_start_timestamps",
    "epoch_end_timestamps",
)


class Recipe(BaseModel):
    """What one of nnU-Net's trainer classes stands for. The defaults are those of ``nnUNetTrainer``.

    Parameters
    ----------
    epochs, iterations, validation_iterations : int
        Length: epochs, and steps of each.
    rate, weight_decay : float
        Of the optimizer, at the start.
    optimizer, schedule : str
        "sgd" has Nesterov momentum 0.99; "poly" falls as ``(1 - e / epochs) ** 0.9``.
    loss : str
        Terms that are summed.
    smooth, label_smoothing : float
        Of the Dice quotient and of the cross entropy.
    deep_supervision : bool
        Whether coarser outputs are compared too.
    foreground : float
        Share of patches around foreground.
    probabilistic : bool
        Draw for every patch whether it must hold foreground, instead of fixing the last ones of a batch. A share of
        None means the one that the fixed rule really has.
    augmentation : str
        "strong" is DA5.
    mirror : str
        Axes that are flipped, in training and later in prediction.
    dummy_2d : bool
        Turn thick slices one by one.
    image_order, label_order : int
        Interpolation of turned patches: 1 linear, 0 nearest.
    batch_norm : bool
        BatchNorm instead of InstanceNorm.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    epochs: Annotated[int, Ge(1)] = 1000
    iterations: Annotated[int, Ge(1)] = 250
    validation_iterations: Annotated[int, Ge(1)] = 50
    rate: Annotated[float, Gt(0)] = 1e-2
    weight_decay: Annotated[float, Ge(0)] = 3e-5
    optimizer: OptimizerName = "sgd"
    schedule: ScheduleName = "poly"
    loss: LossName = "dice_ce"
    smooth: float = 1e-5
    label_smoothing: float = 0.0
    deep_supervision: bool = True
    foreground: Annotated[float, Ge(0), Le(1)] | None = 0.33
    probabilistic: bool = False
    augmentation: AugmentationName = "default"
    mirror: MirrorName = "all"
    dummy_2d: bool = True
    image_order: Literal[0, 1] = 1
    label_order: Literal[0, 1] = 1
    batch_norm: bool = False

    def replace(self, **changes: object) -> Recipe:
        """Return a copy with some fields changed and everything checked again."""
        return Recipe.model_validate({**self.model_dump(), **changes})


_ADAM: dict[str, object] = {"optimizer": "adam"}
_ADAMW: dict[str, object] = {"optimizer": "adamw"}
_VARIANTS: dict[str, dict[str, object]] = {
    "": {},
    "NoMirroring": {"mirror": "none"},
    "_onlyMirror01": {"mirror": "first_two"},
    "_onlyMirror01_1500ep": {"mirror": "first_two", "epochs": 1500},
    "_onlyMirror01_DASegOrd0": {"mirror": "first_two", "label_order": 0},
    "_onlyMirror01_DA5": {"mirror": "first_two", "augmentation": "strong"},
    "NoDA": {"augmentation": "none", "mirror": "none"},
    "DA5": {"augmentation": "strong"},
    "DA5_10epochs": {"augmentation": "strong", "epochs": 10},
    "DA5ord0": {"augmentation": "strong", "image_order": 0, "label_order": 0},
    "DA5Segord0": {"augmentation": "strong", "label_order": 0},
    "_DASegOrd0": {"label_order": 0},
    "_DASegOrd0_NoMirroring": {"label_order": 0, "mirror": "none"},
    "_noDummy2DDA": {"dummy_2d": False},
    "DiceLoss": {"loss": "dice"},
    "DiceCELoss_noSmooth": {"smooth": 0.0},
    "CELoss": {"loss": "ce"},
    "CELoss_5epochs": {"loss": "ce", "epochs": 5},
    "Topk10Loss": {"loss": "topk"},
    "Topk10LossLS01": {"loss": "topk", "label_smoothing": 0.1},
    "DiceTopK10Loss": {"loss": "dice_topk"},
    "CosAnneal": {"schedule": "cosine"},
    "_warmup": {"schedule": "warmup"},
    "Adam": _ADAMW,
    "Adam1en3": {**_ADAMW, "rate": 1e-3},
    "Adam3en4": {**_ADAMW, "rate": 3e-4},
    "VanillaAdam": _ADAM,
    "VanillaAdam1en3": {**_ADAM, "rate": 1e-3},
    "VanillaAdam3en4": {**_ADAM, "rate": 3e-4},
    "BN": {"batch_norm": True},
    "NoDeepSupervision": {"deep_supervision": False},
    "_probabilisticOversampling": {"probabilistic": True, "foreground": None},
    "_probabilisticOversampling_033": {"probabilistic": True, "foreground": 0.33},
    "_probabilisticOversampling_010": {"probabilistic": True, "foreground": 0.1},
}
_LENGTHS = (1, 5, 10, 20, 50, 100, 250, 500, 750, 2000, 4000, 8000)
_LENGTHS_WITHOUT_MIRRORS = (250, 2000, 4000, 8000)


def trainers() -> dict[str, Recipe]:
    """Return every trainer name of nnU-Net that is known here, and what it stands for."""
    found = {DEFAULT_TRAINER + ending: Recipe().replace(**changes) for ending, changes in _VARIANTS.items()}
    for count in _LENGTHS:
        found[f"{DEFAULT_TRAINER}_{count}epoch{'s' if count > 1 else ''}"] = Recipe(epochs=count)
    for count in _LENGTHS_WITHOUT_MIRRORS:
        found[f"{DEFAULT_TRAINER}_{count}epochs_NoMirroring"] = Recipe(epochs=count, mirror="none")
    return found


def recipe_of(trainer: str) -> Recipe:
    """Return what a trainer name stands for.

    Raises
    ------
    SettingsError
        If the name is not known; Adan optimizers, Primus networks and benchmark trainers are named as what they are.
    """
    known = trainers()
    if trainer in known:
        return known[trainer]
    for word, why in (
        ("Adan", "the Adan optimizer comes from another package"),
        ("Primus", "Primus is a transformer; only the U-Nets are built here"),
        ("Benchmark", "nnU-Net's benchmark trainers measure nnU-Net; see docs/benchmarks.md for ours"),
    ):
        if word in trainer:
            raise SettingsError(f"The trainer {trainer} is not available: {why}. Use one of: {', '.join(known)}.")
    raise SettingsError(f"There is no trainer {trainer!r}. Known: {', '.join(known)}.")


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
        raise SettingsError(f"{text!r} is no duration. Write for example 45m, 2h, 1h30m or 1d.")
    return total


def parse_fold(text: str) -> Fold:
    """Return a fold given as text: a number or "all".

    Raises
    ------
    SettingsError
        If it is neither.
    """
    if text == "all":
        return "all"
    if not text.isdigit():
        raise SettingsError(f"{text!r} is no fold. Folds are 0, 1, 2, ... or 'all'.")
    return int(text)
