"""How long a training lasts and how fast it learns, also where that changes while it runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from napari_nnunet.engine.training.optimizers import learning_rate, poly_rate
from napari_nnunet.schema.trainers import TrainerRecipe

_LEAST_EPOCHS = 20  # within a time budget: fewer would let the learning rate fall in steps too large
_LEAST_ITERATIONS = 5
_VALIDATION_COST = 1 / 3  # of a training step


@dataclass(frozen=True)
class Schedule:
    """Number of epochs and their learning rates.

    Parameters
    ----------
    recipe : TrainerRecipe
        Schedule and first rate.
    epochs : int
        How many in all.
    finish_from : int, optional
        Epoch from which the learning rate goes to zero, because the training was asked to finish.
    finish_rate : float
        Learning rate of that epoch.
    """

    recipe: TrainerRecipe
    epochs: int
    finish_from: int | None = None
    finish_rate: float = 0.0

    def rate(self, epoch: int) -> float:
        """Return the learning rate of an epoch (0-based)."""
        if self.finish_from is None or epoch < self.finish_from:
            return learning_rate(self.recipe, epoch, self.epochs)
        return poly_rate(epoch - self.finish_from, self.epochs - self.finish_from, self.finish_rate)

    def finishing(self, epoch: int, more: int) -> Schedule:
        """Return the schedule that ends ``more`` epochs after ``epoch`` with the learning rate going to zero."""
        return replace(self, epochs=epoch + more, finish_from=epoch, finish_rate=self.rate(epoch))

    def lasting(self, epochs: int) -> Schedule:
        """Return the schedule with another number of epochs; one that is finishing stays as it is."""
        return self if self.finish_from is not None else replace(self, epochs=epochs)

    def stored(self) -> dict[str, Any]:
        """Return what differs from the recipe, in plain values."""
        return {"epochs": self.epochs, "finish_from": self.finish_from, "finish_rate": self.finish_rate}

    @classmethod
    def restored(cls, recipe: TrainerRecipe, stored: Mapping[str, Any]) -> Schedule:
        """Return a schedule from what :meth:`stored` gave."""
        begun = stored.get("finish_from")
        return cls(
            recipe,
            int(stored.get("epochs", recipe.epochs)),
            None if begun is None else int(begun),
            float(stored.get("finish_rate", 0.0)),
        )


def fit_to_budget(recipe: TrainerRecipe, seconds: float, step: float) -> TrainerRecipe:
    """Return the recipe with as many epochs as fit into a time; their steps are reduced where few would fit.

    Parameters
    ----------
    recipe : TrainerRecipe
        Steps per epoch to begin with.
    seconds : float
        The budget.
    step : float
        Seconds of a training step; a validation step takes a third.
    """
    epoch = step * (recipe.iterations + _VALIDATION_COST * recipe.validation_iterations)
    if seconds >= _LEAST_EPOCHS * epoch:
        return recipe.replace(epochs=int(seconds / epoch))
    share = seconds / (_LEAST_EPOCHS * epoch)
    iterations = max(_LEAST_ITERATIONS, int(recipe.iterations * share))
    validation = max(1, round(recipe.validation_iterations * iterations / recipe.iterations))
    epoch = step * (iterations + _VALIDATION_COST * validation)
    return recipe.replace(iterations=iterations, validation_iterations=validation, epochs=max(1, int(seconds / epoch)))
