"""The optimizers and learning rates of nnU-Net's trainers: by default SGD, Nesterov momentum 0.99, poly decay."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import nn

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
