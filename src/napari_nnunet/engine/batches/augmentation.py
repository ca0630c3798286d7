"""nnU-Net's training augmentation as functions of numbers that were drawn before.

Images are float32 tensors (C, [z,] y, x) on any device. Drawing numbers is kept apart from what is done with them:
a batch can be made again from its draws, and each transform is compared with nnU-Net's own result.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

_LEAST = 1e-7
OUTSIDE = -1  # label of what lies beyond the image
_FEW_LABELS = 6  # in all samples, up to which their labels are turned together
_LARGE = 2**18  # voxels of a sample, from which it pays to look where labels change


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
    """Cut a patch out of the middle of the last axes; what sticks out is filled."""
    space = image.ndim - len(patch)
    out = image.new_full((*image.shape[:space], *patch), fill)
    source, target = [slice(None)] * space, [slice(None)] * space
    for n, p in zip(image.shape[space:], patch, strict=True):
        start = n // 2 - p // 2
        lo, hi = max(0, start), min(n, start + p)
        source.append(slice(lo, hi))
        target.append(slice(lo - start, hi - start))
    out[tuple(target)] = image[tuple(source)]
    return out


def turn(
    image: Tensor, labels: Tensor, patch: Sequence[int], how: Turn | None, orders: tuple[int, int] = (1, 1)
) -> tuple[Tensor, Tensor]:
    """Cut a patch out of the middle of a sample (C, [z,] y, x), turned and scaled; see :func:`turn_together`."""
    moved, turned = turn_together(image[None], labels[None], patch, [how], orders)
    return moved[0], turned[0]


def turn_together(
    images: Tensor,
    labels: Tensor,
    patch: Sequence[int],
    hows: Sequence[Turn | None],
    orders: tuple[int, int] = (1, 1),
) -> tuple[Tensor, Tensor]:
    """Cut a patch out of the middle of every sample, turned and scaled: all that are turned at once.

    Parameters
    ----------
    images : Tensor of float32, shape (B, C, [z,] y, x)
        Interpolated linearly, 0 outside.
    labels : Tensor of int, shape (B, S, [z,] y, x)
        The label with the largest interpolated weight wins, ties go to the nearest voxel's; -1 outside.
    patch : sequence of int
        Size of the result.
    hows : sequence of Turn or None
        One per sample; None only cuts.
    orders : tuple of int
        Interpolation of images and labels: 1 linear, 0 nearest.
    """
    out, seg = crop_centre(images, patch, 0.0), crop_centre(labels, patch, OUTSIDE)
    turned = {i: how for i, how in enumerate(hows) if how is not None}
    if turned:
        # an index copies, a slice does not
        where: Any = list(turned) if len(turned) < len(hows) else slice(None)
        grid = _grids(images, patch, list(turned.values()))
        out[where] = _sampled(images[where], grid, "bilinear" if orders[0] else "nearest")
        seg[where] = (_turn_labels if orders[1] else _nearest_labels)(labels[where], grid)
    return out, seg


def _grids(images: Tensor, patch: Sequence[int], hows: Sequence[Turn]) -> Tensor:
    """Return sampling positions in grid_sample's coordinates, (turns, *patch, axes), last axis first."""
    steps = [torch.arange(p, dtype=torch.float32) - (p - 1) / 2 for p in patch]
    offsets = torch.stack(torch.meshgrid(*steps, indexing="ij"), dim=-1).to(images.device)
    half = torch.tensor([n / 2 for n in images.shape[2:]], dtype=torch.float32).to(images.device)
    scales = [np.broadcast_to(np.asarray(how.scale), (len(patch),)) for how in hows]
    matrices = np.stack([scale[:, None] * _rotation(how.angles) for scale, how in zip(scales, hows, strict=True)])
    moved = torch.from_numpy(matrices.astype(np.float32)).to(images.device)
    return torch.stack([offsets @ matrix / half for matrix in moved]).flip(-1)


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
    if labels.device.type == "cpu" and math.prod(labels.shape[2:]) >= _LARGE:
        return torch.cat([_turn_large(labels[i : i + 1], grid[i : i + 1]) for i in range(len(labels))])
    # Values that a sample lacks weigh nothing in it, and do not win; but they take as long as those it has.
    values = _values_of(labels)
    if len(values) > _FEW_LABELS and len(labels) > 1:
        return torch.cat([_turn_labels(labels[i : i + 1], grid[i : i + 1]) for i in range(len(labels))])
    return _turn_all(labels, grid, values)


def _turn_large(labels: Tensor, grid: Tensor) -> Tensor:
    """Turn the labels (1, S, [z,] y, x) of one sample: between equal labels there is nothing to interpolate."""
    code = (labels.float() - OUTSIDE).mul_(2).add_(_within_one_label(labels))
    code = _sampled(code, grid, "nearest").round().int()
    found = (code // 2 + OUTSIDE).to(labels.dtype)
    open_ = (code % 2 == 0).any(dim=1)[0]
    points = grid[0][open_]
    if len(points):
        line = points.view(1, *(1,) * (grid.ndim - 3), *points.shape)
        found[0, :, open_] = _turn_all(labels, line, _values_of(labels)).flatten(2)[0]
    return found


def _within_one_label(labels: Tensor) -> Tensor:
    """Return where a voxel and all its neighbours, over edges and corners too, have one label; not at the border."""
    same = torch.ones_like(labels, dtype=torch.bool)
    for axis in range(2, labels.ndim):
        n = labels.shape[axis]
        if n < 3:
            return torch.zeros_like(same)
        equal = labels.narrow(axis, 1, n - 1) == labels.narrow(axis, 0, n - 1)
        both = equal.narrow(axis, 1, n - 2) & equal.narrow(axis, 0, n - 2)
        for offset in range(3):
            both = both & same.narrow(axis, offset, n - 2)
        same = torch.zeros_like(same)
        same.narrow(axis, 1, n - 2).copy_(both)
    return same


def _values_of(labels: Tensor) -> list[int]:
    """Return which labels there are, and :data:`OUTSIDE`."""
    if labels.device.type != "cpu":
        return torch.unique(torch.cat((labels.unique(), labels.new_tensor([OUTSIDE])))).tolist()
    counts = torch.bincount(labels.flatten().int() - OUTSIDE)
    return sorted({OUTSIDE, *(torch.nonzero(counts)[:, 0] + OUTSIDE).tolist()})


def _turn_all(labels: Tensor, grid: Tensor, values: Sequence[int]) -> Tensor:
    """Interpolate every label by itself."""
    nearest = _nearest_labels(labels, grid)
    best = torch.full(nearest.shape, -1.0, device=labels.device)
    winner = torch.full_like(nearest, OUTSIDE)
    at_nearest = torch.zeros_like(best)
    for value in values:
        inside = (labels == value).float()
        # Beyond the image everything is OUTSIDE; grid_sample knows only zeros there.
        weight = _sampled(inside - 1, grid, "bilinear") + 1 if value == OUTSIDE else _sampled(inside, grid, "bilinear")
        score = (1000 * weight).half().float()
        better = score > best
        winner = torch.where(better, value, winner)
        best = torch.where(better, score, best)
        at_nearest = torch.where(nearest == value, score, at_nearest)
    return torch.where(at_nearest == best, nearest, winner)


def _nearest_labels(labels: Tensor, grid: Tensor) -> Tensor:
    return _sampled((labels - OUTSIDE).float(), grid, "nearest").round().to(labels.dtype) + OUTSIDE


def _sampled(images: Tensor, grid: Tensor, mode: str) -> Tensor:
    return functional.grid_sample(images, grid, mode=mode, padding_mode="zeros", align_corners=False)


def _per_channel(image: Tensor, numbers: Sequence[float]) -> Tensor:
    return image.new_tensor(list(numbers)).reshape(-1, *[1] * (image.ndim - 1))


def _over_space(image: Tensor, function: object) -> Tensor:
    axes = tuple(range(1, image.ndim))
    return function(image, dim=axes, keepdim=True)  # type: ignore[operator]


def _deviation(image: Tensor) -> Tensor:
    return image.std(dim=tuple(range(1, image.ndim)), keepdim=True)
