"""What training minimises: cross entropy and soft Dice, for label maps and for regions (facts part 2, 3.10, 3.11)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

_SMOOTH = 1e-5
_LEAST = 1e-8


@dataclass(frozen=True)
class LossParts:
    """A loss and what it is made of, all scalars with gradients."""

    total: Tensor
    entropy: Tensor
    dice: Tensor


@dataclass(frozen=True)
class SegmentationLoss:
    """Cross entropy plus soft Dice of one output.

    Parameters
    ----------
    regions : bool
        The target is one boolean channel per head (and with an ignore label one more: the ignored voxels).
    ignore_label : int, optional
        Value of voxels that nobody annotated.
    batch_dice : bool
        Sum over the batch before the quotient, as if it were one image.
    smooth : float
        Added to both sides of the quotient.
    """

    regions: bool = False
    ignore_label: int | None = None
    batch_dice: bool = False
    smooth: float = _SMOOTH

    def __call__(self, logits: Tensor, target: Tensor) -> LossParts:
        """Compare logits (B, heads, [z,] y, x) with a target (B, 1 or heads [+ 1], [z,] y, x)."""
        logits = logits.float()
        return self._of_regions(logits, target) if self.regions else self._of_labels(logits, target)

    def _of_labels(self, logits: Tensor, target: Tensor) -> LossParts:
        labels = target[:, 0].long()
        valid = None
        if self.ignore_label is not None:
            valid = (labels != self.ignore_label)[:, None]
            inside = torch.where(valid[:, 0], labels, 0)
            count = valid.sum()
            each = functional.cross_entropy(logits, inside, reduction="none") * valid[:, 0]
            # Without any annotated voxel there is nothing to learn here; the sum is 0 then.
            entropy = each.sum() / count.clamp(min=1)
        else:
            inside = labels
            entropy = functional.cross_entropy(logits, labels)
        truth = torch.zeros_like(logits).scatter_(1, inside[:, None], 1.0)
        dice = -self._dice(logits.softmax(1)[:, 1:], truth[:, 1:], valid)
        return LossParts(entropy + dice, entropy, dice)

    def _of_regions(self, logits: Tensor, target: Tensor) -> LossParts:
        heads = logits.shape[1]
        truth = target[:, :heads].float()
        valid = None
        each = functional.binary_cross_entropy_with_logits(logits, truth, reduction="none")
        if self.ignore_label is not None:
            valid = ~target[:, -1:].bool()
            # nnU-Net divides by the annotated voxels, not by voxels times heads.
            entropy = (each * valid).sum() / valid.sum().clamp(min=_LEAST)
        else:
            entropy = each.mean()
        dice = -self._dice(logits.sigmoid(), truth, valid)
        return LossParts(entropy + dice, entropy, dice)

    def _dice(self, probabilities: Tensor, truth: Tensor, valid: Tensor | None) -> Tensor:
        axes = tuple(range(2, probabilities.ndim))
        if valid is not None:
            probabilities, truth = probabilities * valid, truth * valid
        common = (probabilities * truth).sum(axes)
        predicted, real = probabilities.sum(axes), truth.sum(axes)
        if self.batch_dice:
            common, predicted, real = common.sum(0), predicted.sum(0), real.sum(0)
        quotient = (2 * common + self.smooth) / (predicted + real + self.smooth).clamp(min=_LEAST)
        return quotient.mean()


def supervised(
    loss: SegmentationLoss, outputs: Sequence[Tensor], targets: Sequence[Tensor], weights: Sequence[float]
) -> Tensor:
    """Return the weighted sum over all outputs, finest first; those of weight 0 are not computed."""
    parts = [
        weight * loss(output, target).total
        for output, target, weight in zip(outputs, targets, weights, strict=True)
        if weight
    ]
    return torch.stack(parts).sum()


def count_matches(
    prediction: Tensor, target: Tensor, classes: int, valid: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Return true positives, false positives and false negatives per class over batch and space.

    Parameters
    ----------
    prediction : Tensor of int, shape (B, [z,] y, x)
        Labels.
    target : Tensor of int, shape (B, 1, [z,] y, x)
        Labels.
    classes : int
        Background included.
    valid : Tensor of bool, shape (B, 1, [z,] y, x), optional
        Voxels that count.
    """
    p, t = prediction.reshape(-1).long(), target.reshape(-1).long()
    if valid is not None:
        kept = valid.reshape(-1).bool()
        p, t = p[kept], t[kept]
    joint = torch.bincount(t * classes + p, minlength=classes * classes).reshape(classes, classes)
    hit = joint.diagonal()
    return hit, joint.sum(0) - hit, joint.sum(1) - hit
