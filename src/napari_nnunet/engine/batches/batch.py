"""Training batches: which cases, which patches, augmented, with their targets.

A batch is a function of seed, epoch and index: any of them can be made again, by any process, in any order.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from napari_nnunet.engine.batches import cascade, randomness, strong_augmentation
from napari_nnunet.engine.batches.augmentation import OUTSIDE
from napari_nnunet.engine.batches.partial import PartialLabels
from napari_nnunet.engine.batches.patches import (
    FOREGROUND_SHARE,
    PatchRule,
    choose_corner,
    cut_patch,
    forced_foreground,
)
from napari_nnunet.engine.batches.randomness import Draws
from napari_nnunet.engine.batches.supervision import downsample_target
from napari_nnunet.engine.image.locations import location_keys
from napari_nnunet.errors import DatasetError, NnunetError, memory_told
from napari_nnunet.schema.dataset import LabelScheme, Region

_TOGETHER = 2**20  # voxels that are augmented at once; of larger samples each by itself


class TrainingArrays(Protocol):
    """A preprocessed case: arrays that are read where they are sliced; ``previous`` is None but in a cascade."""

    data: Any
    labels: Any
    previous: Any

    def locations(self) -> Mapping[Region, Any]:
        """Return the class locations."""
        ...


@dataclass(frozen=True)
class BatchRule:
    """How batches are made.

    Parameters
    ----------
    patch : PatchRule
        Sizes, angles, axes.
    batch_size : int
        Samples per batch.
    scheme : LabelScheme
        Labels, regions, the ignore label.
    scales : tuple
        Of the network's outputs, finest first; a single one without deep supervision.
    masked : tuple of bool
        Channels normalised inside the content only.
    mirror_axes : tuple of int, optional
        Instead of the patch rule's.
    foreground : float
        Share of samples that must hold foreground.
    probabilistic : bool
        Draw which ones; else they are the last ones of each batch.
    jitter : float
        How far a forced patch may lie from its voxel, as a fraction of the patch; 0 is nnU-Net's.
    anywhere : bool
        With an ignore label: patches that need not hold foreground lie anywhere, not around annotated voxels.
    augmented : bool
        False: final patches as they are.
    strong : bool
        Augment as nnU-Net's DA5 trainers do.
    disturbed : bool
        Whether masks of a previous stage are made imperfect.
    image_order, label_order : int
        Interpolation of turned patches: 1 linear, 0 nearest.
    previous_labels : tuple of int
        Labels of the previous stage that become channels; empty without one.
    partial : PartialLabels, optional
        Where not every class was looked for in every case.
    """

    patch: PatchRule
    batch_size: int
    scheme: LabelScheme
    scales: tuple[tuple[float, ...], ...]
    masked: tuple[bool, ...] = ()
    mirror_axes: tuple[int, ...] | None = None
    foreground: float = FOREGROUND_SHARE
    probabilistic: bool = False
    jitter: float = 0.0
    anywhere: bool = False
    augmented: bool = True
    strong: bool = False
    disturbed: bool = True
    image_order: int = 1
    label_order: int = 1
    previous_labels: tuple[int, ...] = ()
    partial: PartialLabels | None = None


@dataclass(frozen=True, eq=False)
class Batch:
    """What one step learns from; it can be moved to pinned memory.

    Parameters
    ----------
    image : Tensor of float32, shape (B, C, [z,] y, x)
        Patches.
    targets : list of Tensor
        One per output, finest first: labels int16 (B, 1, ...), or bool with a channel per region (and one of the
        ignored voxels). Where classes were not looked for, labels are int32 and carry the pattern of the sample
        (:class:`PartialLabels`), and regions have a further channel each.
    cases : tuple of str
        Where the samples come from.
    """

    image: Tensor
    targets: list[Tensor]
    cases: tuple[str, ...]

    def pin_memory(self) -> Batch:
        """Return the batch in memory that a GPU copies from quickly."""
        return Batch(self.image.pin_memory(), [target.pin_memory() for target in self.targets], self.cases)

    def to(self, device: torch.device | str) -> Batch:
        """Return the batch on a device; from pinned memory the copy goes on beside what follows."""
        moved = [tensor.to(device, non_blocking=True) for tensor in (self.image, *self.targets)]
        return Batch(moved[0], moved[1:], self.cases)


@dataclass(frozen=True, eq=False)
class Sample:
    """A patch that was read, and what chance decided about it; without numbers nothing is left to do.

    Parameters
    ----------
    image, labels : Tensor
        Enlarged patch, or the final one.
    numbers : Draws, optional
        For :func:`finish_batch`.
    """

    image: Tensor
    labels: Tensor
    numbers: Draws | None = None


@dataclass(frozen=True, eq=False)
class Drawn:
    """The samples of a batch before they are augmented."""

    samples: list[Sample]
    cases: tuple[str, ...]

    def pin_memory(self) -> Drawn:
        """Return the samples in memory that a GPU copies from quickly."""
        pinned = [Sample(s.image.pin_memory(), s.labels.pin_memory(), s.numbers) for s in self.samples]
        return Drawn(pinned, self.cases)


def make_batch(
    names: Sequence[str],
    open_case: Callable[[str], TrainingArrays],
    rule: BatchRule,
    *,
    seed: int,
    epoch: int,
    index: int,
    places: range | None = None,
) -> Batch:
    """Draw cases with replacement, cut and augment a patch of each; see :func:`draw_batch` for the parameters."""
    drawn = draw_batch(names, open_case, rule, seed=seed, epoch=epoch, index=index, places=places)
    return finish_batch(drawn, rule)


def draw_batch(
    names: Sequence[str],
    open_case: Callable[[str], TrainingArrays],
    rule: BatchRule,
    *,
    seed: int,
    epoch: int,
    index: int,
    places: range | None = None,
) -> Drawn:
    """Draw cases with replacement, cut a patch of each, and draw the numbers of its augmentation.

    Parameters
    ----------
    names : sequence of str
        Cases of the fold.
    open_case : callable
        Name to arrays.
    rule : BatchRule
        How.
    seed, epoch, index : int
        Decide everything.
    places : range, optional
        Samples of the batch to make, where several processes share it; all if not given.

    Raises
    ------
    DatasetError
        Naming the case that cannot be used.
    """
    samples, chosen = [], []
    fixed = forced_foreground(rule.batch_size, rule.foreground)
    for place in range(rule.batch_size) if places is None else places:
        rng = randomness.sample_generator(seed, epoch, index * rule.batch_size + place)
        name = names[int(rng.integers(len(names)))]
        forced = bool(rng.random() < rule.foreground) if rule.probabilistic else fixed[place]
        try:
            with memory_told():
                samples.append(_sample(rng, open_case(name), rule, forced=forced))
        except NnunetError:
            raise
        except Exception as error:
            raise unusable(name, error) from error
        chosen.append(name)
    return Drawn(samples, tuple(chosen))


def unusable(name: str, error: Exception) -> DatasetError:
    """Return what is said of a preprocessed case that cannot be read or cut."""
    return DatasetError(
        f"The preprocessed case {name} cannot be used ({type(error).__name__}: {error}). Preprocess it again."
    )


def finish_batch(drawn: Drawn, rule: BatchRule, device: torch.device | str = "cpu") -> Batch:
    """Augment the samples of a batch and make their targets, on any device; small samples together.

    On a GPU the noise is another than on the CPU; everything else follows from the numbers that were drawn.
    """
    images, labels = [], []
    orders = (rule.image_order, rule.label_order)
    together = _at_once(rule)
    for first in range(0, len(drawn.samples), together):
        some = drawn.samples[first : first + together]
        image = _joined([sample.image for sample in some]).to(device, non_blocking=True)
        seg = _joined([sample.labels for sample in some]).to(device, non_blocking=True)
        numbers = [sample.numbers for sample in some if sample.numbers is not None]
        if numbers:  # all samples of a rule have some, or none has
            image, seg = randomness.apply_together(numbers, rule.patch, image, seg, masked=rule.masked, orders=orders)
        images.append(image)
        labels.append(seg)
    target = target_of(torch.cat(labels), rule.scheme)
    if rule.partial is not None:
        target = with_patterns(target, drawn.cases, rule.partial, regions=rule.scheme.has_regions)
    targets = downsample_target(target, rule.scales)
    return Batch(torch.cat(images), targets, drawn.cases)


def _joined(samples: Sequence[Tensor]) -> Tensor:
    """Return samples as a batch; a single one is not copied."""
    return samples[0][None] if len(samples) == 1 else torch.stack(list(samples))


def cases_of_batch(names: Sequence[str], rule: BatchRule, *, seed: int, epoch: int, index: int) -> tuple[str, ...]:
    """Return which cases a batch is made of, without making it."""
    generators = (
        randomness.sample_generator(seed, epoch, index * rule.batch_size + place) for place in range(rule.batch_size)
    )
    return tuple(names[int(rng.integers(len(names)))] for rng in generators)


def _sample(rng: np.random.Generator, case: TrainingArrays, rule: BatchRule, *, forced: bool) -> Sample:
    """Return a patch; where a previous stage or the strong augmentation takes part, finished."""
    corner = _corner(rng, case, rule, forced=forced)
    if rule.strong:
        pixels, seg = _patch(case, rule, corner)
        axes = rule.patch.mirror_axes if rule.mirror_axes is None else rule.mirror_axes
        turn = strong_augmentation.draw_turn(rng, rule.patch)
        pixels, seg = randomness.turn_patch(turn, rule.patch, pixels, seg, (rule.image_order, rule.label_order))
        pixels, seg = strong_augmentation.change(rng, rule.patch, pixels, seg, axes)
        images, segs = randomness.without_outside(pixels[None], seg[None], rule.masked)
        pixels, seg = images[0], segs[0]
    elif rule.augmented:
        numbers = randomness.draw(rng, rule.patch, case.data.shape[0], rule.mirror_axes)
        # Only what is turned needs more than its middle; samples that are augmented together are of one size.
        pixels, seg = _patch(case, rule, corner, middle=numbers.turn is None and _at_once(rule) == 1)
        if not rule.previous_labels:
            return Sample(pixels, seg, numbers)
        pixels, seg = randomness.apply(
            numbers, rule.patch, pixels, seg, masked=rule.masked, orders=(rule.image_order, rule.label_order)
        )
    else:
        pixels, seg = _patch(case, rule, corner)
        seg = torch.where(seg == OUTSIDE, 0, seg)
    if not rule.previous_labels:
        return Sample(pixels, seg)
    masks = cascade.one_hot(seg[1].numpy(), rule.previous_labels)
    if rule.disturbed:
        masks = cascade.disturb(rng, masks, always=rule.strong)
    return Sample(torch.cat((pixels, torch.from_numpy(masks))), seg[:1])


def _at_once(rule: BatchRule) -> int:
    """Return how many samples are augmented together."""
    return max(1, _TOGETHER // math.prod(rule.patch.initial))


def _sizes(rule: BatchRule) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return what is read of a case, before and after it is augmented; a slice is a patch one voxel thick."""
    final = tuple(rule.patch.final)
    size = tuple(rule.patch.initial) if rule.augmented else final
    return ((1, *size), (1, *final)) if len(final) == 2 else (size, final)


def _corner(rng: np.random.Generator, case: TrainingArrays, rule: BatchRule, *, forced: bool) -> tuple[int, ...]:
    """Choose where a patch lies."""
    large, small = _sizes(rule)
    near = rule.scheme.ignore_label is not None and not rule.anywhere
    annotated = location_keys(rule.scheme)[-1] if near else None
    needed = forced or annotated is not None
    return choose_corner(
        rng,
        case.data.shape[1:],
        large,
        small,
        case.locations() if needed else {},
        forced=forced,
        annotated=annotated,
        jitter=rule.jitter,
    )


def _patch(
    case: TrainingArrays, rule: BatchRule, corner: tuple[int, ...], *, middle: bool = False
) -> tuple[Tensor, Tensor]:
    """Read a patch, or its middle: image (C, ...) and labels, those of a previous stage behind them."""
    size, small = _sizes(rule)
    if middle:
        corner = tuple(c + n // 2 - p // 2 for c, n, p in zip(corner, size, small, strict=True))
        size = small
    image = cut_patch(case.data, corner, size, 0)
    labels = cut_patch(case.labels, corner, size, OUTSIDE)
    highest = max(*rule.scheme.all_labels, rule.scheme.ignore_label or 0)
    if (found := labels.max(initial=0)) > highest or (found := labels.min(initial=0)) < OUTSIDE:
        # the loss would fail without a reason, or on a GPU end the process
        raise ValueError(f"its labels have the value {found}, dataset.json defines 0 to {highest}")
    if rule.previous_labels:
        before = cut_patch(case.previous, corner, size, OUTSIDE, lifted=True)
        labels = np.concatenate((labels, before.astype(labels.dtype)))
    if len(rule.patch.final) == 2:
        image, labels = image[:, 0], labels[:, 0]
    return torch.from_numpy(image), torch.from_numpy(labels)


def with_patterns(target: Tensor, cases: Sequence[str], partial: PartialLabels, *, regions: bool) -> Tensor:
    """Return a target that says of every sample what nobody looked for; see :class:`Batch`."""
    patterns = torch.tensor([partial.of.get(name, 0) for name in cases], device=target.device)
    if not regions:
        return target.int() + partial.base * patterns.int().view(-1, *(1,) * (target.ndim - 1))
    unknown = torch.tensor(partial.patterns, device=target.device)[patterns]
    return torch.cat(
        (target, unknown.view(*unknown.shape, *(1,) * (target.ndim - 2)).expand_as(target[:, : unknown.shape[1]])), 1
    )


def target_of(labels: Tensor, scheme: LabelScheme) -> Tensor:
    """Return what the loss compares with: labels, or one boolean channel per region and one of ignored voxels.

    Parameters
    ----------
    labels : Tensor of int, shape (B, 1, [z,] y, x)
        Without -1.
    scheme : LabelScheme
        Says whether there are regions.
    """
    if not scheme.has_regions:
        return labels
    members = [region if isinstance(region, tuple) else (region,) for region in scheme.regions]
    channels = [torch.isin(labels[:, 0], torch.tensor(values, device=labels.device)) for values in members]
    if scheme.ignore_label is not None:
        channels.append(labels[:, 0] == scheme.ignore_label)
    return torch.stack(channels, dim=1)
