"""What an image looks like in figures that can be compared, and worse copies of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from scipy import ndimage

from napari_nnunet.schema.geometry import Geometry

_POINTS = 64  # voxels along each axis that are looked at


class CaseLook(BaseModel):
    """What an image looks like, in figures that can be compared.

    Parameters
    ----------
    figures : dict of str to float
        By their titles. Sizes are logarithms of mm.
    kinds : dict of str to str
        What each is: "voxel", "view" (field of view), "volume" (of a class), "shape" (of the histogram, without scale),
        "value" (an intensity).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    figures: dict[str, float]
    kinds: dict[str, str]

    @property
    def shape(self) -> dict[str, float]:
        """Those of the histogram, without scale."""
        return {title: value for title, value in self.figures.items() if self.kinds[title] == "shape"}


def look_of(
    array: Any, geometry: Geometry, names: Sequence[str], absolute: Sequence[bool], volumes: Mapping[str, float]
) -> CaseLook:
    """Return what an image looks like.

    Parameters
    ----------
    array : array-like, shape (C, [Z,] Y, X)
        As it was read; some voxels of it are looked at.
    geometry : Geometry
        Its grid.
    names : sequence of str
        Of the channels.
    absolute : sequence of bool
        Whether intensities mean the same in every image (CT, pictures of 8 bits); of others only the shape of the
        histogram is compared.
    volumes : mapping of str to float
        By class that the network sees: mm³ (mm² of pictures).
    """
    figures, kinds = {}, {}

    def add(kind: str, title: str, value: float) -> None:
        if math.isfinite(value):
            figures[title], kinds[title] = value, kind

    axes = "zyx"[3 - geometry.ndim :]
    for axis, mm, n in zip(axes, geometry.spacing, array.shape[1:], strict=True):
        if geometry.spacing_known:
            add("voxel", f"voxel size along {axis}", math.log(mm))
        add("view", f"field of view along {axis}", math.log(mm * n))
    for channel, name, fixed in zip(array, names, absolute, strict=False):
        for kind, title, value in _histogram(np.asarray(_some(channel), dtype=np.float64), fixed):
            add(kind, f"{title} of {name}", value)
    for name, mm3 in volumes.items():
        if mm3 > 0:
            add("volume", f"volume of {name}", math.log(mm3))
    return CaseLook(figures=figures, kinds=kinds)


def _some(channel: Any) -> Any:
    """Return a block of whole planes from the middle: neighbours stay neighbours, so that noise is seen as it is."""
    middle = tuple(slice(max(0, (n - _POINTS) // 2), max(0, (n - _POINTS) // 2) + _POINTS) for n in channel.shape)
    return channel[middle]


def _histogram(values: NDArray[np.float64], fixed: bool) -> list[tuple[str, str, float]]:
    finite = values[np.isfinite(values)]
    if finite.size < 2:
        return []
    low, middle, high, top = np.percentile(finite, (5, 50, 95, 99.5))
    width = high - low
    if width <= 0:
        return []
    rough = [np.abs(np.diff(values, axis=axis)) for axis in range(values.ndim) if values.shape[axis] > 1]
    steps = np.concatenate([part[np.isfinite(part)].ravel() for part in rough]) if rough else np.zeros(1)
    found = [
        ("shape", "noise or sharpness", float(steps.mean() / width)),
        ("shape", "brightness", float((middle - low) / width)),
        ("shape", "bright tail", float(min(3.0, (top - high) / width))),
    ]
    if fixed:
        found += [("value", "darkest intensity", float(low)), ("value", "brightest intensity", float(high))]
    return found


DEGRADED = ("noise", "blur", "contrast", "coarse")
_MILD, _SEVERE = 0.3, 2.5  # how bad: standard deviations of noise, half of those of blur in voxels, powers of two


def degrade(array: NDArray[np.float32], how: str, rng: np.random.Generator) -> NDArray[np.float32]:
    """Return a worse copy of an image (C, [Z,] Y, X), from hardly worse to spoiled, as chance has it."""
    spatial = array.ndim - 1
    spread = array.reshape(len(array), -1).std(axis=1).reshape(-1, *[1] * spatial)
    amount = float(np.exp(rng.uniform(math.log(_MILD), math.log(_SEVERE))))
    if how == "noise":
        result = array + rng.normal(size=array.shape) * spread * amount
    elif how == "blur":
        result = ndimage.gaussian_filter(array, (0, *[2 * amount] * spatial))
    elif how == "contrast":
        low, high = array.min(), array.max()
        result = low + (high - low) * ((array - low) / max(high - low, 1e-6)) ** 2.0 ** (rng.choice((-1, 1)) * amount)
    else:
        step = 2 + round(2 * amount)
        steps = (slice(None, None, step),) * spatial
        small = array[(slice(None), *steps)]
        for axis in range(1, array.ndim):
            small = np.repeat(small, step, axis=axis)
        result = small[tuple(slice(0, n) for n in array.shape)]
    return np.asarray(result, dtype=np.float32)
