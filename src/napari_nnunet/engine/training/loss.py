"""What training minimises: cross entropy and soft Dice, for label maps and for regions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from napari_nnunet.engine.batches.partial import PartialLabels
from napari_nnunet.errors import SettingsError

_SMOOTH = 1e-5
_LEAST = 1e-8
_MOST_UNLABELLED = 0.05  # of an annotated voxel: where slices are labelled wholly, strokes in others still count more
_HARDEST = 0.1  # share of voxels that "topk" looks at


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
    unlabelled : float
        How much all voxels that nobody annotated count as background, together and of every batch, of what the
        annotated ones count, but each a twentieth at most; 0, as in nnU-Net, leaves them out. Only without regions.
    batch_dice : bool
        Sum over the batch before the quotient, as if it were one image.
    smooth : float
        Added to both sides of the quotient.
    terms : str
        "dice_ce", "dice", "ce", "topk" (cross entropy of the hardest tenth of all voxels) or "dice_topk"; regions know
        only the first two.
    label_smoothing : float
        Of the cross entropy.
    class_weights : tuple of float, optional
        One positive number per head. Cross entropy and Dice become weighted means: every voxel counts by the weight of
        its class (of regions, every head by its own), and every class counts in Dice by its weight. None: all alike.
    partial : PartialLabels, optional
        Where not every class was looked for in every case; the targets carry the number of each sample's pattern.
    total : callable, optional
        Sums a tensor over all processes of a training, with gradients; each then computes the loss of the whole batch.
    """

    regions: bool = False
    ignore_label: int | None = None
    unlabelled: float = 0.0
    batch_dice: bool = False
    smooth: float = _SMOOTH
    terms: str = "dice_ce"
    label_smoothing: float = 0.0
    class_weights: tuple[float, ...] | None = None
    partial: PartialLabels | None = None
    total: Callable[[Tensor], Tensor] | None = None

    def __post_init__(self) -> None:
        if self.regions and self.terms not in ("dice_ce", "dice"):
            raise SettingsError(
                f"The loss {self.terms!r} needs mutually exclusive labels, but this dataset has regions. Use a "
                "trainer with Dice and cross entropy, or Dice alone."
            )
        if self.partial is not None and self.label_smoothing and any(map(any, self.partial.patterns)):
            raise SettingsError(
                "Label smoothing gives every class its share of a voxel, but in some cases of this dataset not every "
                "class was looked for. Use a trainer without label smoothing."
            )

    def __call__(self, logits: Tensor, target: Tensor) -> LossParts:
        """Compare logits (B, heads, [z,] y, x) with a target (B, 1 or heads [+ 1], [z,] y, x)."""
        logits = logits.float()
        return self._of_regions(logits, target) if self.regions else self._of_labels(logits, target)

    def _of_labels(self, logits: Tensor, target: Tensor) -> LossParts:
        labels, strokes = target[:, 0].long(), None
        if self.partial is not None:
            labels, unknown = labels % self.partial.base, unknown_heads(target, self.partial)
            logits = with_background(logits, unknown)
            strokes = ~_wholly(target, self.partial)
        valid = None if self.ignore_label is None else (labels != self.ignore_label)[:, None]
        inside = labels if valid is None else torch.where(valid[:, 0], labels, 0)
        if valid is not None and self.unlabelled:
            valid = self._with_unlabelled(valid, strokes)
        entropy = self._entropy(logits, inside, valid) if self.terms != "dice" else logits.new_zeros(())
        if "dice" not in self.terms:
            return LossParts(entropy, entropy, logits.new_zeros(()))
        truth = torch.zeros_like(logits).scatter_(1, inside[:, None], 1.0)
        dice = -self._dice(logits.softmax(1)[:, 1:], truth[:, 1:], valid)
        return LossParts(entropy + dice, entropy, dice)

    def _with_unlabelled(self, valid: Tensor, strokes: Tensor | None) -> Tensor:
        """Return the weights of voxels (B, 1, [z,] y, x): 1 where somebody annotated, and elsewhere a share.

        All of what nobody annotated counts as much as what somebody did, in the samples of cases that are strokes
        (bool (B,); all of them if not given), and nothing in the others.
        """
        counted = ~valid
        own = valid
        if strokes is not None:
            mine = strokes.view(-1, *(1,) * (valid.ndim - 1))
            counted, own = counted & mine, own & mine
        known, others = (self._over_all(part.sum()) for part in (own, counted))
        each = (self.unlabelled * known / others.clamp(min=1)).clamp(max=_MOST_UNLABELLED)
        return torch.where(valid, 1.0, torch.where(counted, each, 0.0))

    def _entropy(self, logits: Tensor, labels: Tensor, valid: Tensor | None) -> Tensor:
        each = functional.cross_entropy(logits, labels, reduction="none", label_smoothing=self.label_smoothing)
        if valid is not None:
            each = each * valid[:, 0]
        if self.class_weights is not None:
            return self._weighted_entropy(each, logits.new_tensor(self.class_weights)[labels], valid)
        if "topk" in self.terms:
            # As nnU-Net does, ignored voxels stay among all of which a tenth is taken, with a loss of 0.
            return self._mean(_hardest(each)[0])
        if valid is None:
            return self._mean(each)
        # Without any annotated voxel there is nothing to learn here; the sum is 0 then.
        return self._over_all(each.sum()) / self._over_all(valid.sum()).clamp(min=1)

    def _weighted_entropy(self, each: Tensor, weights: Tensor, valid: Tensor | None) -> Tensor:
        """Return the mean of voxels by their weights, both (B, [z,] y, x)."""
        each = each * weights
        if valid is not None:
            weights = weights * valid[:, 0]
        if "topk" in self.terms:
            each, places = _hardest(each)
            weights = weights.flatten()[places]
        return self._over_all(each.sum()) / self._over_all(weights.sum()).clamp(min=_LEAST)

    def _of_regions(self, logits: Tensor, target: Tensor) -> LossParts:
        heads = logits.shape[1]
        truth = target[:, :heads].float()
        valid = valid_regions(target, heads, masked=self.ignore_label is not None)
        entropy = logits.new_zeros(())
        if self.terms == "dice_ce":
            each = functional.binary_cross_entropy_with_logits(logits, truth, reduction="none")
            if self.class_weights is not None:
                each = each * self._shares(heads, each).view(-1, *(1,) * (each.ndim - 2))
            each = each if valid is None else each * valid
            if self.ignore_label is None:
                entropy = self._mean(each)
            else:
                # nnU-Net divides by the annotated voxels, not by voxels times heads.
                annotated = (~target[:, heads].bool()).sum()
                entropy = self._over_all(each.sum()) / self._over_all(annotated).clamp(min=_LEAST)
        dice = -self._dice(logits.sigmoid(), truth, valid)
        return LossParts(entropy + dice, entropy, dice)

    def _over_all(self, value: Tensor) -> Tensor:
        return value if self.total is None else self.total(value)

    def _mean(self, values: Tensor) -> Tensor:
        if self.total is None:
            return values.mean()
        return self.total(values.sum()) / self.total(values.new_tensor(float(values.numel())))

    def _dice(self, probabilities: Tensor, truth: Tensor, valid: Tensor | None) -> Tensor:
        axes = tuple(range(2, probabilities.ndim))
        if valid is not None:
            probabilities, truth = probabilities * valid, truth * valid
        common = (probabilities * truth).sum(axes)
        predicted, real = probabilities.sum(axes), truth.sum(axes)
        if self.batch_dice:
            # One quotient for the whole batch: the same on every process.
            common, predicted, real = (self._over_all(part.sum(0)) for part in (common, predicted, real))
        quotient = (2 * common + self.smooth) / (predicted + real + self.smooth).clamp(min=_LEAST)
        if self.class_weights is not None:
            quotient = quotient * self._shares(quotient.shape[-1], quotient)
        return quotient.mean() if self.batch_dice else self._mean(quotient)

    def _shares(self, last: int, like: Tensor) -> Tensor:
        """Return the weights of the last heads, scaled to a mean of 1."""
        weights = like.new_tensor((self.class_weights or ())[-last:])
        return weights / weights.mean()


def _hardest(each: Tensor) -> tuple[Tensor, Tensor]:
    """Return the largest tenth of all losses, and where they are."""
    found = torch.topk(each.flatten(), max(1, int(each.numel() * _HARDEST)), sorted=False)
    return found.values, found.indices


def unknown_heads(target: Tensor, partial: PartialLabels) -> Tensor:
    """Return which classes nobody looked for in each sample, bool (B, heads), from targets (B, 1, [z,] y, x)."""
    return torch.tensor(partial.patterns, device=target.device)[_pattern(target, partial)]


def _wholly(target: Tensor, partial: PartialLabels) -> Tensor:
    """Return in which samples whole slices or boxes were annotated, bool (B,), from targets (B, 1, [z,] y, x)."""
    told = partial.wholly or (False,) * len(partial.patterns)
    return torch.tensor(told, device=target.device)[_pattern(target, partial)]


def _pattern(target: Tensor, partial: PartialLabels) -> Tensor:
    return (target.flatten(1) // partial.base).amax(1).long()


def with_background(logits: Tensor, unknown: Tensor) -> Tensor:
    """Join the classes that nobody looked for with the background, which they may be a part of.

    Their probabilities add up (Shi et al., Marginal loss and exclusion loss for partially supervised multi-organ
    segmentation, Medical Image Analysis 2021); what is left of each by itself is 0.

    Parameters
    ----------
    logits : Tensor, shape (B, classes, [z,] y, x)
        The first class is the background.
    unknown : Tensor of bool, shape (B, classes)
        The classes to join, of each sample.
    """
    hidden = unknown.reshape(*unknown.shape, *(1,) * (logits.ndim - 2))
    own = ~hidden
    own[:, 0] = False
    background = logits.masked_fill(own, -torch.inf).logsumexp(1, keepdim=True)
    return torch.cat((background, logits[:, 1:].masked_fill(hidden[:, 1:], -torch.inf)), dim=1)


def valid_regions(target: Tensor, regions: int, *, masked: bool) -> Tensor | None:
    """Return which voxels of a target of regions count, bool (B, 1 or regions, [z,] y, x); None if all do.

    Behind the channels of the regions one of ignored voxels may follow (``masked``), and one per region that is true
    where nobody looked for it.
    """
    valid = ~target[:, regions : regions + 1].bool() if masked else None
    unknown = target[:, regions + int(masked) :].bool()
    if not unknown.shape[1]:
        return valid
    return ~unknown if valid is None else ~unknown & valid


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


def count_regions(prediction: Tensor, target: Tensor, *, masked: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Return true positives, false positives and false negatives per region over batch and space.

    Parameters
    ----------
    prediction : Tensor of bool, shape (B, regions, [z,] y, x)
        Which voxels belong to each region.
    target : Tensor of bool, shape (B, regions [+ 1] [+ regions], [z,] y, x)
        The truth, and what does not count (:func:`valid_regions`).
    masked : bool
        A channel of the target marks ignored voxels.
    """
    regions = prediction.shape[1]
    truth = target[:, :regions].bool()
    axes = (0, *range(2, prediction.ndim))
    valid = valid_regions(target, regions, masked=masked)
    valid = torch.ones_like(truth[:, :1]) if valid is None else valid
    hit, wrong, missed = prediction & truth & valid, prediction & ~truth & valid, ~prediction & truth & valid
    return hit.sum(axes), wrong.sum(axes), missed.sum(axes)
