"""What chance decides about one training sample: nnU-Net's probabilities and ranges."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from napari_nnunet.engine.batches import augmentation
from napari_nnunet.engine.batches.augmentation import Turn
from napari_nnunet.engine.batches.patches import PatchRule

_ROTATION, _SCALING, _SCALE = 0.2, 0.2, (0.7, 1.4)
_NOISE, _NOISE_SIGMA = 0.1, 0.1
_BLUR, _BLUR_CHANNEL, _BLUR_SIGMA = 0.2, 0.5, (0.5, 1.0)
_BRIGHTNESS, _CONTRAST, _FACTORS = 0.15, 0.15, (0.75, 1.25)
_LOW, _LOW_CHANNEL, _LOW_SCALE = 0.25, 0.5, (0.5, 1.0)
_GAMMA_INVERTED, _GAMMA, _GAMMAS = 0.1, 0.3, (0.7, 1.5)
_MIRROR = 0.5


@dataclass(frozen=True)
class Draws:
    """The numbers of one sample; None or empty if a transform does not apply.

    Parameters
    ----------
    turn : Turn, optional
        Rotation and scale.
    noise : float, optional
        Deviation of the Gaussian noise, for all channels.
    noise_seed : int
        Of the noise itself.
    blur : tuple of tuple of float
        Per channel one deviation per axis; an empty one leaves the channel.
    brightness, contrast, gamma_inverted, gamma : tuple of float
        One number per channel.
    low_resolution : tuple of float
        One scale per channel, 1 leaves it.
    mirror : tuple of int
        Axes that are flipped.
    """

    turn: Turn | None = None
    noise: float | None = None
    noise_seed: int = 0
    blur: tuple[tuple[float, ...], ...] = ()
    brightness: tuple[float, ...] = ()
    contrast: tuple[float, ...] = ()
    low_resolution: tuple[float, ...] = ()
    gamma_inverted: tuple[float, ...] = ()
    gamma: tuple[float, ...] = ()
    mirror: tuple[int, ...] = ()


def sample_generator(seed: int, epoch: int, index: int) -> np.random.Generator:
    """Return the source of chance of one sample: a function of seed, epoch and place, so that runs can be repeated."""
    return np.random.default_rng((seed, epoch, index))


def draw(rng: np.random.Generator, rule: PatchRule, channels: int, mirror_axes: tuple[int, ...] | None = None) -> Draws:
    """Draw the numbers of one sample.

    Parameters
    ----------
    rng : Generator
        From :func:`sample_generator`.
    rule : PatchRule
        How far patches are turned, and which axes may be flipped.
    channels : int
        Of the image.
    mirror_axes : tuple of int, optional
        Instead of the rule's.
    """
    ndim = len(rule.final)
    plane = 2 if ndim == 2 or rule.dummy_2d else 3

    def happens(probability: float) -> bool:
        return bool(rng.random() < probability)

    def per_channel(probability: float, low: float, high: float) -> tuple[float, ...]:
        return tuple(_about_one(rng, low, high) for _ in range(channels)) if happens(probability) else ()

    rotated, scaled = happens(_ROTATION), happens(_SCALING)
    angles = rng.uniform(-rule.rotation, rule.rotation, 3 if plane == 3 else 1)
    scale = float(rng.uniform(*_SCALE))
    turn = None
    if rotated or scaled:
        turn = Turn(tuple(float(a) if rotated else 0.0 for a in angles), scale if scaled else 1.0)
    noise = float(rng.uniform(0, _NOISE_SIGMA)) if happens(_NOISE) else None
    blur: tuple[tuple[float, ...], ...] = ()
    if happens(_BLUR):
        blur = tuple(
            tuple(float(s) for s in rng.uniform(*_BLUR_SIGMA, ndim)) if happens(_BLUR_CHANNEL) else ()
            for _ in range(channels)
        )
    brightness = per_channel(_BRIGHTNESS, *_FACTORS)
    contrast = per_channel(_CONTRAST, *_FACTORS)
    low: tuple[float, ...] = ()
    if happens(_LOW):
        low = tuple(float(rng.uniform(*_LOW_SCALE)) if happens(_LOW_CHANNEL) else 1.0 for _ in range(channels))
    return Draws(
        turn=turn,
        noise=noise,
        noise_seed=int(rng.integers(2**31)),
        blur=blur,
        brightness=brightness,
        contrast=contrast,
        low_resolution=low,
        gamma_inverted=per_channel(_GAMMA_INVERTED, *_GAMMAS),
        gamma=per_channel(_GAMMA, *_GAMMAS),
        mirror=tuple(axis for axis in (rule.mirror_axes if mirror_axes is None else mirror_axes) if happens(_MIRROR)),
    )


def _about_one(rng: np.random.Generator, low: float, high: float) -> float:
    """Return a factor that is below and above 1 equally often, however far either side reaches."""
    below = low < 1 and rng.random() < 0.5
    return float(rng.uniform(low, 1)) if below else float(rng.uniform(max(low, 1), high))


def apply(
    draws: Draws,
    rule: PatchRule,
    image: Tensor,
    labels: Tensor,
    *,
    masked: tuple[bool, ...] = (),
    orders: tuple[int, int] = (1, 1),
) -> tuple[Tensor, Tensor]:
    """Augment one sample (C, *rule.initial); see :func:`apply_together`."""
    images, segs = apply_together([draws], rule, image[None], labels[None], masked=masked, orders=orders)
    return images[0], segs[0]


def apply_together(
    draws: Sequence[Draws],
    rule: PatchRule,
    images: Tensor,
    labels: Tensor,
    *,
    masked: tuple[bool, ...] = (),
    orders: tuple[int, int] = (1, 1),
) -> tuple[Tensor, Tensor]:
    """Augment some samples, in nnU-Net's order; each becomes what it would become by itself.

    Parameters
    ----------
    draws : sequence of Draws
        The numbers of each.
    rule : PatchRule
        Sizes; with ``dummy_2d`` slices are turned one by one.
    images : Tensor of float32, shape (B, C, *rule.initial)
        Enlarged patches.
    labels : Tensor of int, shape (B, S, *rule.initial)
        Their labels; -1 outside.
    masked : tuple of bool
        Channels that are set to 0 where the first label channel is -1 (masked normalisation).
    orders : tuple of int
        Interpolation of image and labels: 1 linear, 0 nearest.

    Returns
    -------
    images, labels : Tensor
        Of the final size; labels without -1.
    """
    images, labels = _turned([own.turn for own in draws], rule, images, labels, orders)
    for i, own in enumerate(draws):
        changed = _intensities(own, rule, images[i])
        if changed is not None:
            images[i] = changed
    for axes in {own.mirror for own in draws if own.mirror}:
        same = [i for i, own in enumerate(draws) if own.mirror == axes]
        where: Any = same if len(same) < len(draws) else slice(None)
        # after those of batch and channel
        images[where], labels[where] = (t[where].flip([axis + 2 for axis in axes]) for t in (images, labels))
    return without_outside(images, labels, masked)


def _intensities(draws: Draws, rule: PatchRule, image: Tensor) -> Tensor | None:
    """Return a sample with other intensities; None where chance left all as they are."""
    before = image
    if draws.noise is not None:
        generator = torch.Generator(image.device).manual_seed(draws.noise_seed)
        noise = torch.randn(image.shape, generator=generator, device=image.device, dtype=image.dtype)
        image = image + draws.noise * noise
    if draws.blur:
        image = augmentation.blur(image, draws.blur)
    if draws.brightness:
        image = augmentation.brightness(image, draws.brightness)
    if draws.contrast:
        image = augmentation.contrast(image, draws.contrast)
    if draws.low_resolution:
        image = augmentation.low_resolution(image, draws.low_resolution, keep_first_axis=rule.dummy_2d)
    if draws.gamma_inverted:
        image = augmentation.gamma(image, draws.gamma_inverted, inverted=True)
    if draws.gamma:
        image = augmentation.gamma(image, draws.gamma)
    return None if image is before else image


def without_outside(images: Tensor, labels: Tensor, masked: tuple[bool, ...]) -> tuple[Tensor, Tensor]:
    """Set masked channels of samples (B, C, ...) to 0 outside the content, and labels there to background."""
    for c, flag in enumerate(masked):
        if flag:
            images[:, c] = torch.where(labels[:, 0] < 0, 0.0, images[:, c])
    return images, torch.where(labels == augmentation.OUTSIDE, 0, labels)


def turn_patch(
    turn: Turn | None, rule: PatchRule, image: Tensor, labels: Tensor, orders: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Cut the final patch of a sample (C, *rule.initial), turned and scaled; slices one by one where a rule says so."""
    moved, turned = _turned([turn], rule, image[None], labels[None], orders)
    return moved[0], turned[0]


def _turned(
    turns: Sequence[Turn | None], rule: PatchRule, images: Tensor, labels: Tensor, orders: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    if not rule.dummy_2d:
        return augmentation.turn_together(images, labels, rule.final, turns, orders)
    flat = [part.flatten(1, 2) for part in (images, labels)]  # slices become channels
    found = augmentation.turn_together(flat[0], flat[1], rule.final[1:], turns, orders)
    moved, turned = (part.unflatten(1, (-1, rule.final[0])) for part in found)
    return moved, turned
