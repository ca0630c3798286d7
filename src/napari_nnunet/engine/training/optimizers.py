"""The optimizers and learning rates of nnU-Net's trainers: by default SGD, Nesterov momentum 0.99, poly decay."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from napari_nnunet.errors import ModelError
from napari_nnunet.schema.trainers import TrainerRecipe

MOMENTUM = 0.99
LARGEST_NORM = 12.0
_POWER = 0.9
_WARMUP = 50  # epochs


def poly_rate(epoch: int, epochs: int, initial: float = TrainerRecipe().rate) -> float:
    """Return the learning rate of an epoch (0-based): ``initial * (1 - epoch / epochs) ** 0.9``."""
    return float(initial * (1 - epoch / epochs) ** _POWER)


def learning_rate(recipe: TrainerRecipe, epoch: int, epochs: int) -> float:
    """Return the learning rate of an epoch under the recipe's schedule.

    Parameters
    ----------
    recipe : TrainerRecipe
        Schedule and first rate.
    epoch, epochs : int
        Epoch (0-based) of how many.
    """
    if recipe.schedule == "cosine":
        return float(recipe.rate * (1 + math.cos(math.pi * epoch / epochs)) / 2)
    if recipe.schedule == "warmup":
        warmup = min(_WARMUP, epochs - 1)
        if epoch < warmup:
            return recipe.rate / warmup * (1 + epoch)
        return poly_rate(epoch - warmup, epochs - warmup, recipe.rate)
    return poly_rate(epoch, epochs, recipe.rate)


def make_optimizer(parameters: Iterable[nn.Parameter], recipe: TrainerRecipe | None = None) -> torch.optim.Optimizer:
    """Return the recipe's optimizer; the decay applies to all weights, norms and biases too."""
    recipe = recipe or TrainerRecipe()
    rate, decay = recipe.rate, recipe.weight_decay
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(parameters, lr=rate, weight_decay=decay, amsgrad=True)
    if recipe.optimizer == "adam":
        return torch.optim.Adam(parameters, lr=rate, weight_decay=decay)
    return torch.optim.SGD(parameters, lr=rate, momentum=MOMENTUM, weight_decay=decay, nesterov=True)


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of all parameter groups."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def load_optimizer(optimizer: torch.optim.Optimizer, state: Any, *, where: str) -> None:
    """Continue with the state of an optimizer that a checkpoint holds.

    Raises
    ------
    ModelError
        If it belongs to another network or optimizer, or holds values that are no numbers: the training would go on
        with them, and end with weights that are none either.
    """
    try:
        optimizer.load_state_dict(_owned(state))
        problem = _problem(optimizer)
    except (ValueError, LookupError, TypeError, AttributeError, RuntimeError) as error:
        problem = f"{type(error).__name__}: {error}"
    if problem:
        raise ModelError(
            f"{where}: its optimizer does not fit this training ({problem}). The file is damaged, or of another "
            "training."
        )


def _owned(state: Mapping[str, Any]) -> dict[str, Any]:
    """Copy the tensors of an optimizer's state: those that were read are parts of a file that will be replaced."""
    entries = {
        key: {name: value.clone() if isinstance(value, Tensor) else value for name, value in entry.items()}
        for key, entry in state["state"].items()
    }
    return {**state, "state": entries}


def _problem(optimizer: torch.optim.Optimizer) -> str | None:
    """Return what no step could be made with, None if there is nothing."""
    for group in optimizer.param_groups:
        for name, usual in optimizer.defaults.items():
            found = group.get(name, usual if isinstance(usual, bool) else None)  # older versions have fewer switches
            if isinstance(usual, int | float | tuple) and not _is_like(found, usual):
                return f"its {name} is {found!r:.60}"
        for parameter in group["params"]:
            for name, value in optimizer.state.get(parameter, {}).items():  # none where no gradient came
                if isinstance(value, Tensor) and value.ndim and value.shape != parameter.shape:
                    return f"{name} of {tuple(value.shape)} instead of {tuple(parameter.shape)} values"
                if isinstance(value, Tensor) and not bool(torch.isfinite(value).all()):
                    return f"its {name} holds values that are not numbers (NaN or infinite)"
    return None


def _is_like(value: Any, usual: Any) -> bool:
    """Whether a setting is of the kind it usually is; learning rates may be tensors."""
    if isinstance(usual, tuple):
        return isinstance(value, tuple | list) and len(value) == len(usual) and all(map(_is_like, value, usual))
    if isinstance(usual, bool):
        return isinstance(value, bool)
    return isinstance(value, int | float | Tensor) and math.isfinite(float(value))


def sound_scaler(state: Any, *, where: str) -> dict[str, Any]:
    """Return the state of a gradient scaler; raises ModelError where its factors are no positive numbers."""
    wanted = ("scale", "growth_factor", "backoff_factor", "growth_interval")
    if not isinstance(state, Mapping) or not all(
        isinstance(state.get(name), int | float) and math.isfinite(state[name]) and state[name] > 0 for name in wanted
    ):
        raise ModelError(
            f"{where}: the state of its gradient scaler is {state!r:.200}, with which no step can be made."
        )
    return dict(state)
