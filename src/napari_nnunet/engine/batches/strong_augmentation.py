"""The stronger augmentation of nnU-Net's DA5 trainers: more turning, local changes of light."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage, special
from torch import Tensor

from napari_nnunet.engine.batches import augmentation
from napari_nnunet.engine.batches.augmentation import Turn
from napari_nnunet.engine.batches.patches import PatchRule

SCALE = (0.7, 1.43)  # the enlarged patch has room for the first
_ROTATION, _SCALING, _AXIS = 0.4, 0.2, 0.5
_CHANNEL = 0.5
_QUARTERS, _SMOOTHING, _NOISE, _BRIGHTER, _CONTRAST, _LOW = 0.5, 0.2, 0.1, 0.1, 0.2, 0.15
_GAMMA, _BLANK, _GRADIENT, _LOCAL_GAMMA, _SHARPEN, _MIRROR = 0.1, 0.4, 0.3, 0.3, 0.2, 0.5
_CONTRASTS, _GAMMAS = (0.5, 2.0), (0.7, 1.5)
_CENTRES = (-0.5, 1.5)  # of local changes, in patches

Change = Callable[[Tensor], Tensor]


def draw_turn(rng: np.random.Generator, rule: PatchRule) -> Turn | None:
    """Draw rotation and scale: each angle is kept with probability one half, each axis has a scale of its own."""
    plane = 2 if len(rule.final) == 2 or rule.dummy_2d else 3
    rotated, scaled = rng.random() < _ROTATION, rng.random() < _SCALING
    angles = rng.uniform(-rule.rotation, rule.rotation, 3 if plane == 3 else 1) * (
        rng.random(1 if plane == 2 else 3) < _AXIS
    )
    scales = rng.uniform(*SCALE, plane)
    if not (rotated or scaled):
        return None
    kept = tuple(float(a) if rotated else 0.0 for a in angles)
    return Turn(kept, tuple(float(s) for s in scales) if scaled else 1.0)


def change(
    rng: np.random.Generator,
    rule: PatchRule,
    image: Tensor,
    labels: Tensor,
    mirror_axes: Sequence[int],
) -> tuple[Tensor, Tensor]:
    """Change a patch that was turned and cut, in nnU-Net's order.

    Parameters
    ----------
    rng : Generator
        Of the sample.
    rule : PatchRule
        Sizes.
    image : Tensor of float32, shape (C, *rule.final)
        Patch.
    labels : Tensor of int, shape (S, *rule.final)
        Its labels.
    mirror_axes : sequence of int
        Axes that may be flipped.
    """
    image, labels = _quarter_turns(rng, rule.final, image, labels)
    image = _smoothed(rng, image)
    if rng.random() < _NOISE:
        sigma = float(rng.uniform(0, 0.1))
        image = image + torch.from_numpy(rng.normal(0, sigma, tuple(image.shape)).astype(np.float32))
    if rng.random() < _BRIGHTER:
        image = _per_channel(rng, image, lambda channel: channel + float(rng.normal(0, 0.5)))
    if rng.random() < _CONTRAST:
        clipped = bool(rng.random() < 0.5)
        image = _per_channel(
            rng, image, lambda channel: _contrast(channel, _about_one(rng, _CONTRASTS), clipped=clipped)
        )
    if rng.random() < _LOW:
        scales = [float(rng.uniform(0.25, 1)) if rng.random() < _CHANNEL else 1.0 for _ in image]
        image = augmentation.low_resolution(image, scales, keep_first_axis=rule.dummy_2d)
    for _ in range(2):
        if rng.random() < _GAMMA:
            image = augmentation.gamma(image, [_about_one(rng, _GAMMAS) for _ in image], inverted=True)
    flipped = tuple(axis for axis in mirror_axes if rng.random() < _MIRROR)
    image, labels = augmentation.mirror(image, flipped), augmentation.mirror(labels, flipped)
    for probability, make in (
        (_BLANK, _blank),
        (_GRADIENT, _gradient),
        (_LOCAL_GAMMA, _local_gamma),
        (_SHARPEN, _sharpen),
    ):
        if rng.random() < probability:
            image = _per_channel(rng, image, lambda channel, make=make: make(rng, channel))  # type: ignore[misc]
    return image, labels


def _per_channel(rng: np.random.Generator, image: Tensor, function: Change) -> Tensor:
    """Apply a change to each channel with probability one half."""
    return torch.stack([function(channel) if rng.random() < _CHANNEL else channel for channel in image])


def _about_one(rng: np.random.Generator, limits: tuple[float, float]) -> float:
    low, high = limits
    return float(rng.uniform(low, 1) if rng.random() < 0.5 else rng.uniform(1, high))


def _quarter_turns(
    rng: np.random.Generator, patch: Sequence[int], image: Tensor, labels: Tensor
) -> tuple[Tensor, Tensor]:
    """Turn by quarters and swap axes, among those along which the patch is equally long."""
    alike = [sum(n == m for m in patch) for n in patch]
    if max(alike) < 2:
        return image, labels
    axes = [axis + 1 for axis, count in enumerate(alike) if count == max(alike)]
    if rng.random() < _QUARTERS:
        first, second = (int(a) for a in rng.choice(axes, 2, replace=False))
        quarters = int(rng.integers(4))
        image, labels = (torch.rot90(part, quarters, (first, second)) for part in (image, labels))
    if rng.random() < _QUARTERS:
        order = list(range(image.ndim))
        for axis, other in zip(axes, rng.permutation(axes), strict=True):
            order[axis] = int(other)
        image, labels = image.permute(order), labels.permute(order)
    return image.contiguous(), labels.contiguous()


def _smoothed(rng: np.random.Generator, image: Tensor) -> Tensor:
    """Smooth by medians or by a Gaussian, whichever is drawn."""
    medians = rng.random() < 0.5
    if rng.random() >= _SMOOTHING:
        return image
    if medians:
        return _per_channel(rng, image, lambda channel: _median(channel, int(rng.integers(2, 8))))
    sigmas: list[tuple[float, ...]] = []
    for _ in image:
        sigma = float(rng.uniform(0.3, 1.5))
        sigmas.append((sigma,) * (image.ndim - 1) if rng.random() < _CHANNEL else ())
    return augmentation.blur(image, sigmas)


def _median(channel: Tensor, size: int) -> Tensor:
    return torch.from_numpy(ndimage.median_filter(channel.numpy(), size=size))


def _contrast(channel: Tensor, factor: float, *, clipped: bool) -> Tensor:
    if clipped:
        return augmentation.contrast(channel[None], [factor])[0]
    mean = channel.mean()
    return (channel - mean) * factor + mean


def _blank(rng: np.random.Generator, channel: Tensor) -> Tensor:
    """Fill one to five boxes with the channel's mean."""
    out, mean = channel.clone(), channel.mean()
    for _ in range(int(rng.integers(1, 6))):
        where = []
        for n in channel.shape:
            size = min(n, int(rng.integers(max(1, n // 10), max(2, n // 3) + 1)))
            start = int(rng.integers(0, n - size + 1))
            where.append(slice(start, start + size))
        out[tuple(where)] = mean
    return out


def _gradient(rng: np.random.Generator, channel: Tensor) -> Tensor:
    """Add a wide bump of light, or of shadow."""
    strength = float(rng.uniform(1, 5)) * (1 if rng.random() < 0.5 else -1)
    return channel + strength * torch.from_numpy(_bump(rng, tuple(channel.shape)))


def _local_gamma(rng: np.random.Generator, channel: Tensor) -> Tensor:
    """Bend intensities by a power, the more the nearer to a centre."""
    power = float(rng.uniform(0.01, 0.8)) if rng.random() < 0.5 else float(rng.uniform(1.5, 4))
    weight = torch.from_numpy(_bump(rng, tuple(channel.shape)))
    low = channel.amin()
    extent = (channel.amax() - low).clamp(min=1e-8)
    plain = (channel - low) / extent
    return torch.lerp(plain, plain**power, weight) * extent + low


def _sharpen(rng: np.random.Generator, channel: Tensor) -> Tensor:
    """Add what differs from the neighbours' mean, times a strength."""
    laplacian = ndimage.laplace(channel.numpy(), mode="reflect")
    return channel - float(rng.uniform(0.1, 1)) * torch.from_numpy(laplacian)


def _bump(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Return a Gaussian somewhere in or next to the patch, as wide as a sixth of it or more, from 0 to 1."""
    total = np.ones((1,) * len(shape))
    for axis, n in enumerate(shape):
        width = math.exp(rng.uniform(math.log(max(1, n // 6)), math.log(n)))
        centre = rng.uniform(*_CENTRES) * n
        edges = (np.arange(n + 1) - 0.5 - centre) / width
        line = np.diff(special.ndtr(edges))
        total = total * line.reshape([-1 if a == axis else 1 for a in range(len(shape))])
    total = total - total.min()
    highest = total.max()
    return (total / highest if highest > 0 else total).astype(np.float32)
