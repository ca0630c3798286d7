"""Output layers that are fitted to what a network sees, before all of it learns.

A layer that begins at random is found by small steps only, while everything below it follows its chance directions. So
the layers are solved for first, with the network as it is, and all of it learns then: "linear probing, then
fine-tuning" (Kumar et al., Fine-Tuning can Distort Pretrained Features and Underperform Out-of-Distribution, ICLR
2022). What is minimised is the loss of the training, cross entropy and soft Dice, on voxels that were drawn: entropy
alone finds nothing of a class that is rare and not told apart yet (docs/benchmarks.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_nnunet.engine.training.learner import Learner
from napari_nnunet.engine.training.loss import SegmentationLoss, unknown_heads, valid_regions, with_background

_VOXELS = 8192  # of each batch and output: enough for 32 features after some batches, and few beside patches
_LEAST_VOXELS = 32  # of each sample, however many are in a batch
_BYTES = 256e6  # of all that is drawn; to fit the largest output, about three times its part is held beside
_RIDGE = 1e-3  # pull towards the rows that are there: beside a loss of about 1, so that it decides where data do not
_ITERATIONS = 100
_LEAST = 1e-8
_KINDS = 62  # bits of a number that tells voxels of different regions apart


@dataclass(frozen=True)
class _Voxels:
    """Voxels that were drawn from an output: features (n, C), truth (n) or (n, regions), what counts, and how much."""

    features: Tensor
    truth: Tensor
    counts: Tensor  # labels: (n, heads), whether nobody looked for the class; regions: (n, regions), whether it counts
    weights: Tensor  # how many voxels of the sample each stands for


@dataclass(eq=False)
class HeadFit:
    """Gathers voxels of a learner's outputs, and fits its output layers to them.

    Parameters
    ----------
    learner : Learner
        Its output layers that count in the loss are replaced by :meth:`fit`; nothing else is.
    seed : int
        Of the voxels that are drawn.
    looks : int
        Batches that are looked at, at most: all that is drawn from them takes no more than 256 MB.
    """

    learner: Learner
    seed: int
    looks: int = 32
    _drawn: dict[int, list[_Voxels]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._generator = torch.Generator().manual_seed(self.seed)

    @property
    def _layers(self) -> list[nn.Module]:
        """Output layers, finest first, as far as they count."""
        layers = list(self.learner.network.decoder.seg_layers)[::-1]
        return [layer for layer, weight in zip(layers, self.learner.weights, strict=False) if weight > 0]

    @property
    def seen(self) -> set[int]:
        """Heads of which a voxel was drawn."""
        regions, drawn = self.learner.loss.regions, self._drawn.get(0, [])
        found = [(part.truth & part.counts).any(0).nonzero() if regions else part.truth.unique() for part in drawn]
        return {int(head) for part in found for head in part.flatten()}

    def look(self, image: Tensor, targets: Sequence[Tensor]) -> None:
        """Draw voxels of a batch.

        Parameters
        ----------
        image : Tensor of float32, shape (B, C, [z,] y, x)
            Batch.
        targets : sequence of Tensor
            One per output, finest first.
        """
        seen: dict[int, Tensor] = {}
        hooks = [
            layer.register_forward_pre_hook(lambda _, given, i=i: seen.__setitem__(i, given[0].detach()))
            for i, layer in enumerate(self._layers)
        ]
        try:
            self.learner.predict(image)
        finally:
            for hook in hooks:
                hook.remove()
        for i, features in seen.items():
            most = self._most(features, len(seen))
            for own, target in zip(features.float().cpu(), targets[i].cpu(), strict=True):
                self._drawn.setdefault(i, []).append(self._draw(own[None], target[None], most))

    def _most(self, features: Tensor, outputs: int) -> int:
        """Return how many voxels are drawn of each sample of a batch (B, C, [z,] y, x)."""
        samples, channels = features.shape[:2]
        each = 4 * channels + 16 + 2 * self.learner.network.heads  # bytes of a voxel: features, truth, what counts
        room = int(_BYTES / (outputs * self.looks * samples * each))
        return max(1, min(room, max(_LEAST_VOXELS, _VOXELS // samples)))

    def _draw(self, features: Tensor, target: Tensor, most: int) -> _Voxels:
        """Draw as many voxels of every class of a sample as there are, at most an equal share each."""
        loss, heads = self.learner.loss, self.learner.network.heads
        truth, counts, usable = _known(loss, target, heads)
        kinds = truth if truth.ndim == 1 else (truth.long() << (torch.arange(heads) % _KINDS)).sum(1)
        kinds = torch.where(usable, kinds, -1)
        present = [int(kind) for kind in kinds.unique() if kind >= 0]
        places, weights = [], []
        for kind in present:
            there = (kinds == kind).nonzero()[:, 0]
            taken = there[torch.randperm(len(there), generator=self._generator)[: max(1, most // len(present))]]
            places.append(taken)
            weights.append(torch.full((len(taken),), len(there) / len(taken)))
        place = torch.cat(places) if places else torch.zeros(0, dtype=torch.long)
        weight = torch.cat(weights) if weights else torch.zeros(0)
        return _Voxels(features.flatten(2)[0].T[place], truth[place], counts[place], weight)

    def fit(self) -> list[int]:
        """Replace the output layers by those that explain the voxels best; returns the heads that were fitted.

        They are those of the finest output, which sees whatever others do. A head of which no voxel was drawn stays as
        it is, and so does a layer whose solution is not finite.
        """
        found: list[list[int]] = []
        for i, layer in enumerate(self._layers):
            drawn = self._drawn.get(i, [])
            if sum(len(part.weights) for part in drawn):
                found.append(_fit(layer, self.learner.loss, _joined(drawn)))
        return found[0] if found else []


def _known(loss: SegmentationLoss, target: Tensor, heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return of every voxel of a sample (1, channels, [z,] y, x) its truth, what counts there, and whether any does."""
    if loss.regions:
        truth = target[0, :heads].bool().flatten(1).T
        valid = valid_regions(target, heads, masked=loss.ignore_label is not None)
        counts = torch.ones_like(truth) if valid is None else valid[0].flatten(1).T.expand_as(truth)
        return truth, counts, counts.any(1)
    labels = target[0, 0].long().flatten()
    unknown = torch.zeros((1, heads), dtype=torch.bool)
    if loss.partial is not None:
        labels, unknown = labels % loss.partial.base, unknown_heads(target, loss.partial)
    usable = torch.ones_like(labels, dtype=torch.bool) if loss.ignore_label is None else labels != loss.ignore_label
    return labels, unknown.expand(len(labels), heads), usable


def _joined(parts: Sequence[_Voxels]) -> _Voxels:
    return _Voxels(
        torch.cat([part.features for part in parts]).double(),
        torch.cat([part.truth for part in parts]),
        torch.cat([part.counts for part in parts]),
        torch.cat([part.weights for part in parts]).double(),
    )


def _fit(layer: Any, loss: SegmentationLoss, voxels: _Voxels) -> list[int]:
    """Solve for a layer; returns the heads that were fitted, none where the solution is not finite: it stays then."""
    shape = layer.weight.shape
    first = torch.cat((layer.weight.detach().flatten(1), layer.bias.detach()[:, None]), 1).cpu().double()
    heads = [head for head in range(shape[0]) if _occurs(loss, voxels, head)]
    rows = first[heads].clone().requires_grad_()
    optimizer = torch.optim.LBFGS([rows], max_iter=_ITERATIONS, line_search_fn="strong_wolfe")
    compared = _loss_of_regions if loss.regions else _loss_of_labels

    def closure() -> Tensor:
        optimizer.zero_grad()
        logits = voxels.features @ rows[:, :-1].T + rows[:, -1]
        value = compared(logits, loss, voxels, heads) + _RIDGE / 2 * (rows - first[heads]).square().sum()
        value.backward()
        return value

    optimizer.step(closure)
    found = first.clone()
    found[heads] = rows.detach()
    if not bool(torch.isfinite(found).all()):
        return []
    with torch.no_grad():
        layer.weight.copy_(found[:, :-1].reshape(shape))
        layer.bias.copy_(found[:, -1])
    return heads


def _occurs(loss: SegmentationLoss, voxels: _Voxels, head: int) -> bool:
    if loss.regions:
        return bool((voxels.truth[:, head] & voxels.counts[:, head]).any())
    return bool((voxels.truth == head).any())


def _loss_of_labels(logits: Tensor, loss: SegmentationLoss, voxels: _Voxels, heads: list[int]) -> Tensor:
    weights, counts = voxels.weights, voxels.counts[:, heads]
    labels = torch.searchsorted(torch.tensor(heads), voxels.truth)
    if bool(counts.any()) and heads[0] == 0:
        logits = with_background(logits, counts)
    given = weights if loss.class_weights is None else weights * weights.new_tensor(loss.class_weights)[voxels.truth]
    entropy = (functional.cross_entropy(logits, labels, reduction="none") * given).sum() / given.sum()
    if "dice" not in loss.terms or len(heads) < 2:
        return entropy
    truth = functional.one_hot(labels, len(heads)).double()
    return entropy - _dice(logits.softmax(1)[:, 1:], truth[:, 1:], weights[:, None])


def _loss_of_regions(logits: Tensor, loss: SegmentationLoss, voxels: _Voxels, heads: list[int]) -> Tensor:
    truth, weights = voxels.truth[:, heads].double(), voxels.counts[:, heads] * voxels.weights[:, None]
    each = functional.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    return (each * weights).sum() / weights.sum() - _dice(logits.sigmoid(), truth, weights)


def _dice(probabilities: Tensor, truth: Tensor, weights: Tensor) -> Tensor:
    """Return the mean soft Dice of classes over all voxels, as if they were one image; all (n, classes)."""
    common = (probabilities * truth * weights).sum(0)
    return (2 * common / ((probabilities + truth) * weights).sum(0).clamp(min=_LEAST)).mean()
