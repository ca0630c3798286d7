"""How weights are moved: nnU-Net's optimizer, learning rate and step (facts part 2, 3.1 and 3.12)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from napari_nnunet.engine.loss import SegmentationLoss, supervised

LEARNING_RATE = 1e-2
MOMENTUM = 0.99
WEIGHT_DECAY = 3e-5
LARGEST_NORM = 12.0
_POWER = 0.9


def poly_rate(epoch: int, epochs: int, initial: float = LEARNING_RATE) -> float:
    """Return the learning rate of an epoch (0-based): ``initial * (1 - epoch / epochs) ** 0.9``."""
    return initial * (1 - epoch / epochs) ** _POWER


def make_optimizer(parameters: Iterable[nn.Parameter], rate: float = LEARNING_RATE) -> torch.optim.SGD:
    """Return SGD with Nesterov momentum; the decay applies to all weights, norms and biases too."""
    return torch.optim.SGD(parameters, lr=rate, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY, nesterov=True)


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of all parameter groups."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def train_step(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    loss: SegmentationLoss,
    image: Tensor,
    targets: Sequence[Tensor],
    weights: Sequence[float],
) -> tuple[float, float]:
    """Move the weights once; returns the loss and the gradient's norm before it was clipped."""
    optimizer.zero_grad(set_to_none=True)
    value = supervised(loss, network(image), targets, weights)
    value.backward()
    norm = nn.utils.clip_grad_norm_(network.parameters(), LARGEST_NORM)
    optimizer.step()
    return float(value.detach()), float(norm)
