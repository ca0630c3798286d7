"""How a network is trained: nnU-Net's trainers as values."""

from __future__ import annotations

from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le
from pydantic import BaseModel, ConfigDict

from napari_nnunet.errors import SettingsError
from napari_nnunet.schema.dataset import LabelScheme
from napari_nnunet.schema.model_name import DEFAULT_TRAINER

LossName = Literal["dice_ce", "dice", "ce", "topk", "dice_topk"]
OptimizerName = Literal["sgd", "adam", "adamw"]
ScheduleName = Literal["poly", "cosine", "warmup"]
AugmentationName = Literal["default", "none", "strong"]
MirrorName = Literal["all", "none", "first_two"]
Seconds = float

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


class TrainerRecipe(BaseModel):
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
    class_weights : dict of str to float
        How much classes count in the loss; those that are not named count 1.
    scribbles : bool
        Whether voxels that nobody annotated count a little as background.
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
    class_weights: dict[str, Annotated[float, Gt(0)]] = {}
    scribbles: bool = False
    deep_supervision: bool = True
    foreground: Annotated[float, Ge(0), Le(1)] | None = 0.33
    probabilistic: bool = False
    augmentation: AugmentationName = "default"
    mirror: MirrorName = "all"
    dummy_2d: bool = True
    image_order: Literal[0, 1] = 1
    label_order: Literal[0, 1] = 1
    batch_norm: bool = False

    def replace(self, **changes: object) -> TrainerRecipe:
        """Return a copy with some fields changed and everything checked again."""
        return TrainerRecipe.model_validate({**self.model_dump(), **changes})


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


def trainers() -> dict[str, TrainerRecipe]:
    """Return every trainer name of nnU-Net that is known here, and what it stands for."""
    found = {DEFAULT_TRAINER + ending: TrainerRecipe().replace(**changes) for ending, changes in _VARIANTS.items()}
    for count in _LENGTHS:
        found[f"{DEFAULT_TRAINER}_{count}epoch{'s' if count > 1 else ''}"] = TrainerRecipe(epochs=count)
    for count in _LENGTHS_WITHOUT_MIRRORS:
        found[f"{DEFAULT_TRAINER}_{count}epochs_NoMirroring"] = TrainerRecipe(epochs=count, mirror="none")
    return found


def require_fitting(recipe: TrainerRecipe, labels: LabelScheme, who: str) -> None:
    """Raise SettingsError for the weight of a class that labels do not have, and for scribbles that they cannot be."""
    unknown = [name for name in recipe.class_weights if name not in labels.head_names]
    if unknown:
        kind = "regions" if labels.has_regions else "classes"
        raise SettingsError(
            f"{who} has no class {unknown[0]!r} that a weight could be for. Its {kind} are "
            f"{', '.join(labels.head_names)}."
        )
    if recipe.scribbles and (labels.has_regions or labels.ignore_label is None):
        lack = "it has regions" if labels.has_regions else "it has no ignore label, so that every voxel is annotated"
        raise SettingsError(
            f"{who} cannot be trained as scribbles: {lack}. Classes that exclude each other, and an ignore label for "
            "what nobody painted, are needed.",
            shell="Leave --scribbles out.",
            window="Switch 'Scribbles' off.",
        )


def recipe_of(trainer: str) -> TrainerRecipe:
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
        ("Adan", "it needs the Adan optimizer, which is not supported"),
        ("Primus", "Primus is a transformer, and only U-Nets are supported"),
        ("Benchmark", "nnU-Net's benchmark trainers measure nnU-Net; see docs/benchmarks.md for ours"),
    ):
        if word in trainer:
            raise SettingsError(f"The trainer {trainer} is not available: {why}. Use one of: {', '.join(known)}.")
    raise SettingsError(f"Unknown trainer {trainer!r}. Known: {', '.join(known)}.")
