"""nnU-Net's training augmentation as functions of numbers that were drawn before.

Images are float32 tensors (C, [z,] y, x) on any device. Drawing numbers is kept apart from what is done with them:
a batch can be made again from its draws, and each transform is compared with nnU-Net's own result.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

_LEAST = 1e-7
OUTSIDE = -1  # label of what lies beyond the image


def brightness(image: Tensor, factors: Sequence[float]) -> Tensor:
    """Multiply every channel by its factor."""
    return image * _per_channel(image, factors)


def contrast(image: Tensor, factors: Sequence[float]) -> Tensor:
    """Stretch every channel about its mean, within the range it had."""
    mean = _over_space(image, Tensor.mean)
    low, high = _over_space(image, Tensor.amin), _over_space(image, Tensor.amax)
    stretched = (image - mean) * _per_channel(image, factors) + mean
    return torch.minimum(torch.maximum(stretched, low), high)


def gamma(image: Tensor, gammas: Sequence[float], *, inverted: bool = False) -> Tensor:
    """Raise every channel, scaled to 0..1, to a power; mean and deviation are what they were."""
    if inverted:
        return -gamma(-image, gammas)
    mean, deviation = _over_space(image, Tensor.mean), _deviation(image)
    low = _over_space(image, Tensor.amin)
    extent = _over_space(image, Tensor.amax) - low
    bent = ((image - low) / extent.clamp(min=_LEAST)) ** _per_channel(image, gammas) * extent + low
    return (bent - _over_space(bent, Tensor.mean)) * deviation / _deviation(bent).clamp(min=_LEAST) + mean


def low_resolution(image: Tensor, scales: Sequence[float], *, keep_first_axis: bool = False) -> Tensor:
    """Sample every channel more coarsely by nearest voxels and interpolate back linearly; a scale of 1 leaves it."""
    out = []
    for channel, scale in zip(image, scales, strict=True):
        if scale == 1:
            out.append(channel)
            continue
        size = [
            n if keep_first_axis and axis == 0 else max(1, round(n * scale)) for axis, n in enumerate(channel.shape)
        ]
        coarse = functional.interpolate(channel[None, None], size, mode="nearest-exact")
        linear = "trilinear" if channel.ndim == 3 else "bilinear"
        out.append(functional.interpolate(coarse, channel.shape, mode=linear, align_corners=False)[0, 0])
    return torch.stack(out)


def blur(image: Tensor, sigmas: Sequence[Sequence[float]]) -> Tensor:
    """Smooth every channel by a Gaussian with its own deviation per axis; an empty list leaves a channel alone."""
    out = []
    for channel, own in zip(image, sigmas, strict=True):
        smooth = channel
        for axis, sigma in enumerate(own):
            smooth = _smooth(smooth, sigma, axis)
        out.append(smooth)
    return torch.stack(out)


def kernel_length(sigma: float) -> int:
    """Return the odd number nearest to 6 sigma + 0.5."""
    return max(1, 2 * round((6 * sigma + 0.5 - 1) / 2) + 1)


def _smooth(channel: Tensor, sigma: float, axis: int) -> Tensor:
    length = kernel_length(sigma)
    reach = length // 2
    if channel.shape[axis] <= reach:
        return channel  # an axis shorter than half the kernel cannot be reflected
    offsets = torch.arange(-reach, reach + 1, dtype=channel.dtype, device=channel.device)
    weights = torch.exp(-0.5 * (offsets / sigma) ** 2)
    weights = weights / weights.sum()
    lines = channel.movedim(axis, -1)
    padded = functional.pad(lines.reshape(1, -1, lines.shape[-1]), (reach, reach), mode="reflect")
    smooth = functional.conv1d(padded.movedim(1, 0), weights[None, None])[:, 0]
    return smooth.reshape(lines.shape).movedim(-1, axis)


def mirror(image: Tensor, axes: Sequence[int]) -> Tensor:
    """Flip spatial axes."""
    return image.flip([axis + 1 for axis in axes]) if axes else image


@dataclass(frozen=True)
class Turn:
    """Rotation (radians about each axis; one angle in 2-D) and scale (one or one per axis; above 1 shrinks objects)."""

    angles: tuple[float, ...]
    scale: float | tuple[float, ...]


def crop_centre(image: Tensor, patch: Sequence[int], fill: float) -> Tensor:
    """Cut a patch out of the middle; what sticks out is filled."""
    out = image.new_full((image.shape[0], *patch), fill)
    source, target = [], []
    for n, p in zip(image.shape[1:], patch, strict=True):
        start = n // 2 - p // 2
        lo, hi = max(0, start), min(n, start + p)
        source.append(slice(lo, hi))
        target.append(slice(lo - start, hi - start))
    out[(slice(None), *target)] = image[(slice(None), *source)]
    return out


def turn(
    image: Tensor, labels: Tensor, patch: Sequence[int], how: Turn | None, orders: tuple[int, int] = (1, 1)
) -> tuple[Tensor, Tensor]:
    """Cut a patch out of the middle, turned and scaled.

    Parameters
    ----------
    image : Tensor of float32, shape (C, [z,] y, x)
        Interpolated linearly, 0 outside.
    labels : Tensor of int, shape (S, [z,] y, x)
        The label with the largest interpolated weight wins, ties go to the nearest voxel's; -1 outside.
    patch : sequence of int
        Size of the result.
    how : Turn, optional
        None only cuts.
    orders : tuple of int
        Interpolation of image and labels: 1 linear, 0 nearest.
    """
    if how is None:
        return crop_centre(image, patch, 0.0), crop_centre(labels, patch, OUTSIDE)
    grid = _grid(image, patch, how)
    mode = "bilinear" if orders[0] else "nearest"
    moved = functional.grid_sample(image[None], grid, mode=mode, padding_mode="zeros", align_corners=False)[0]
    turned = _turn_labels if orders[1] else _nearest_labels
    return moved, torch.stack([turned(channel, grid) for channel in labels])


def _grid(image: Tensor, patch: Sequence[int], how: Turn) -> Tensor:
    """Return sampling positions in grid_sample's coordinates, (1, *patch, axes), last axis first."""
    steps = [torch.arange(p, dtype=torch.float32, device=image.device) - (p - 1) / 2 for p in patch]
    offsets = torch.stack(torch.meshgrid(*steps, indexing="ij"), dim=-1)
    scale = np.broadcast_to(np.asarray(how.scale), (len(patch),))
    matrix = torch.tensor(scale[:, None] * _rotation(how.angles), dtype=torch.float32, device=image.device)
    half = torch.tensor([n / 2 for n in image.shape[1:]], dtype=torch.float32, device=image.device)
    positions = offsets @ matrix / half
    return positions.flip(-1)[None]


def _rotation(angles: Sequence[float]) -> np.ndarray:
    if len(angles) == 1:
        c, s = math.cos(angles[0]), math.sin(angles[0])
        return np.array([[c, s], [-s, c]])
    total = np.eye(3)
    for axis, angle in enumerate(angles):
        c, s = math.cos(angle), math.sin(angle)
        single = np.eye(3)
        first, second = (a for a in range(3) if a != axis)
        sign = 1 if axis == 1 else -1
        single[first, first] = single[second, second] = c
        single[first, second], single[second, first] = -sign * s, sign * s
        total = total @ single
    return total


def _turn_labels(labels: Tensor, grid: Tensor) -> Tensor:
    values = torch.unique(torch.cat((labels.unique(), labels.new_tensor([OUTSIDE]))))
    nearest = _nearest_labels(labels, grid)
    best = torch.full(nearest.shape, -1.0, device=labels.device)
    winner = torch.full_like(nearest, OUTSIDE)
    at_nearest = torch.zeros_like(best)
    for value in values:
        inside = (labels == value).float()
        # Beyond the image everything is OUTSIDE; grid_sample knows only zeros there.
        weight = _sample(inside - 1, grid, "bilinear") + 1 if value == OUTSIDE else _sample(inside, grid, "bilinear")
        score = (1000 * weight).half().float()
        better = score > best
        winner = torch.where(better, value, winner)
        best = torch.where(better, score, best)
        at_nearest = torch.where(nearest == value, score, at_nearest)
    return torch.where(at_nearest == best, nearest, winner)


def _nearest_labels(labels: Tensor, grid: Tensor) -> Tensor:
    return _sample((labels - OUTSIDE).float(), grid, "nearest").round().to(labels.dtype) + OUTSIDE


def _sample(channel: Tensor, grid: Tensor, mode: str) -> Tensor:
    return functional.grid_sample(channel[None, None], grid, mode=mode, padding_mode="zeros", align_corners=False)[0, 0]


def _per_channel(image: Tensor, numbers: Sequence[float]) -> Tensor:
    return image.new_tensor(list(numbers)).reshape(-1, *[1] * (image.ndim - 1))


def _over_space(image: Tensor, function: object) -> Tensor:
    axes = tuple(range(1, image.ndim))
    return function(image, dim=axes, keepdim=True)  # type: ignore[operator]


def _deviation(image: Tensor) -> Tensor:
    return image.std(dim=tuple(range(1, image.ndim)), keepdim=True)
