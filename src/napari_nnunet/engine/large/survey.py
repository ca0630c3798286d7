"""What of a whole image a part must know, found in one pass: where it is not empty, and its intensities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_nnunet.engine.image.normalize import normalize
from napari_nnunet.engine.image.prepare import Box3, nonzero_box
from napari_nnunet.errors import ImageError
from napari_nnunet.schema.plans import IntensityStatistics, NormalizationScheme

_EPS = 1e-8  # as in engine.image.normalize
_AT_ONCE = 1 << 20  # values in float64


@dataclass(frozen=True)
class ChannelFacts:
    """The intensities of a channel within the nonzero box.

    Parameters
    ----------
    mean, std : float
        Of all voxels, zeros included.
    low, high : tuple of float
        Smallest and largest value; one number each, or one per plane of the axis that is not interpolated.
    """

    mean: float
    std: float
    low: tuple[float, ...]
    high: tuple[float, ...]


@dataclass(frozen=True)
class ImageFacts:
    """What was found out about a whole image.

    Parameters
    ----------
    box : tuple of (int, int)
        Half-open box (z, y, x) around what is not 0, in the image's own order; the whole image if all is 0.
    content : int
        Voxels in which some channel is not 0.
    invalid : int
        Values that were NaN or infinite, and count as 0.
    channels : tuple of ChannelFacts
        One per channel.
    """

    box: Box3
    content: int
    invalid: int
    channels: tuple[ChannelFacts, ...]

    @property
    def voxels(self) -> int:
        """Voxels of the box."""
        (z0, z1), (y0, y1), (x0, x1) = self.box
        return (z1 - z0) * (y1 - y0) * (x1 - x0)

    @property
    def is_hollow(self) -> bool:
        """Whether some of the box is 0."""
        return self.content < self.voxels


class Scan:
    """Collects facts piece by piece; every voxel must be shown exactly once.

    Sums are exact where values are integers of at most 16 bits, and of float64's precision elsewhere.

    Parameters
    ----------
    channels : int
        Number of channels.
    shape : tuple of int
        The image's (z, y, x).
    axis : int or None
        Axis whose planes have limits of their own (:class:`ChannelFacts`).
    """

    def __init__(self, channels: int, shape: Sequence[int], axis: int | None) -> None:
        self._shape, self._axis = tuple(shape), axis
        planes = 1 if axis is None else shape[axis]
        self._low = np.full((channels, planes), np.inf)
        self._high = np.full((channels, planes), -np.inf)
        self._covered = np.zeros(planes, dtype=np.int64)
        self._moments = [_Moments() for _ in range(channels)]
        self._ends: list[list[int]] = [[], [], []]
        self._content = self._invalid = 0

    def add(self, origin: Sequence[int], piece: NDArray[Any]) -> None:
        """Take a piece (C, z, y, x) that begins at a voxel of the image."""
        mask = (piece != 0).any(axis=0)
        content = int(np.count_nonzero(mask))
        if not content:
            return
        self._content += content
        box = nonzero_box(mask)
        for ends, (lo, hi), first in zip(self._ends, box, origin, strict=True):
            ends += (first + lo, first + hi)
        inner = piece[(slice(None), *(slice(lo, hi) for lo, hi in box))]
        planes = slice(0, 1)
        if self._axis is not None:
            planes = slice(*(origin[self._axis] + end for end in box[self._axis]))
        self._covered[planes] += inner[0].size // (planes.stop - planes.start)
        others = tuple(a for a in range(3) if a != self._axis)
        for channel, values in enumerate(inner):
            known = self._finite(values)
            self._low[channel, planes] = np.minimum(self._low[channel, planes], known.min(axis=others))
            self._high[channel, planes] = np.maximum(self._high[channel, planes], known.max(axis=others))
            self._moments[channel].add(known)

    def _finite(self, values: NDArray[Any]) -> NDArray[Any]:
        """Return what the network would see: float32, with 0 where there is no number."""
        if _is_short(values):
            return values
        with np.errstate(over="ignore"):
            known = np.ascontiguousarray(values, dtype=np.float32)
        if values.dtype.kind == "f":
            bad = ~np.isfinite(values)
            if bad.any():
                self._invalid += int(np.count_nonzero(bad))
                known = np.where(bad, np.float32(0), known)
        return known

    def facts(self) -> ImageFacts:
        """Return what was found, once all pieces were shown."""
        z, y, x = (
            (min(ends), max(ends)) if ends else (0, size) for ends, size in zip(self._ends, self._shape, strict=True)
        )
        facts = ImageFacts((z, y, x), self._content, self._invalid, ())
        planes = slice(0, 1) if self._axis is None else slice(*facts.box[self._axis])
        each = facts.voxels // (planes.stop - planes.start)
        # What lies within the box and was in no piece's own box is 0.
        zeros = self._covered[planes] < each
        low = np.where(zeros, np.minimum(self._low[:, planes], 0), self._low[:, planes])
        high = np.where(zeros, np.maximum(self._high[:, planes], 0), self._high[:, planes])
        channels = []
        for moments, lows, highs in zip(self._moments, low, high, strict=True):
            mean, std = moments.with_zeros(facts.voxels)
            channels.append(ChannelFacts(mean, std, tuple(lows.tolist()), tuple(highs.tolist())))
        return ImageFacts(facts.box, facts.content, facts.invalid, tuple(channels))


class ContentScan:
    """Collects the intensities of what is content alone; every voxel of the box must be shown exactly once.

    Limits are of what a channel that is normalised within its content is made of: where something else lies in a plane,
    which stays 0, its limits take in the mean, which becomes 0.

    Parameters
    ----------
    channels : int
        Number of channels.
    box : Box3
        Around what is not 0, in the image's own order.
    axis : int or None
        Axis whose planes have limits of their own.
    """

    def __init__(self, channels: int, box: Box3, axis: int | None) -> None:
        self._axis, self._first = axis, 0 if axis is None else box[axis][0]
        planes = 1 if axis is None else box[axis][1] - box[axis][0]
        self._low = np.full((channels, planes), np.inf)
        self._high = np.full((channels, planes), -np.inf)
        self._around = np.zeros(planes, dtype=np.bool_)
        self._moments = [_Moments() for _ in range(channels)]

    def add(self, origin: Sequence[int], piece: NDArray[Any], content: NDArray[np.bool_]) -> None:
        """Take a piece (C, z, y, x) that begins at a voxel of the image, and what of it is content (z, y, x)."""
        planes, others = slice(0, 1), tuple(a for a in range(3) if a != self._axis)
        if self._axis is not None:
            start = origin[self._axis] - self._first
            planes = slice(start, start + content.shape[self._axis])
        self._around[planes] |= ~content.all(axis=others)
        for channel, values in enumerate(piece):
            seen = np.asarray(values, dtype=np.float32)  # as the network would
            low = seen.min(axis=others, where=content, initial=np.inf)
            high = seen.max(axis=others, where=content, initial=-np.inf)
            self._low[channel, planes] = np.minimum(self._low[channel, planes], low)
            self._high[channel, planes] = np.maximum(self._high[channel, planes], high)
            self._moments[channel].add((values if _is_short(values) else seen)[content])

    def facts(self) -> tuple[ChannelFacts, ...]:
        """Return what was found, once all pieces were shown."""
        channels = []
        for moments, low, high in zip(self._moments, self._low, self._high, strict=True):
            mean, std = moments.with_zeros(max(moments.count, 1))
            becomes_zero = float(np.float32(mean))
            lows = np.where(self._around, np.minimum(low, becomes_zero), low)
            highs = np.where(self._around, np.maximum(high, becomes_zero), high)
            channels.append(ChannelFacts(mean, std, tuple(lows.tolist()), tuple(highs.tolist())))
        return tuple(channels)


def _is_short(values: NDArray[Any]) -> bool:
    """Whether values are integers of at most 16 bits, whose sums are exact."""
    return values.dtype.kind in "bui" and values.dtype.itemsize <= 2


class _Moments:
    """Mean and deviation of values that come in pieces: integers by exact sums, others merged pairwise (Chan)."""

    def __init__(self) -> None:
        self.count = 0
        self.total = self.squares = 0  # of integers, exact
        self.mean = self.spread = 0.0  # of others: mean, and summed squares of the distance from it

    def add(self, values: NDArray[Any]) -> None:
        flat = values.ravel()
        for start in range(0, flat.size, _AT_ONCE):
            part = flat[start : start + _AT_ONCE]
            if part.dtype.kind == "f":
                wide = part.astype(np.float64)
                mean = float(wide.mean())
                self._merge(part.size, mean, float(np.square(wide - mean).sum()))
            else:
                whole = part.astype(np.int64)
                self.count += part.size
                self.total += int(whole.sum())
                self.squares += int(np.square(whole).sum())

    def _merge(self, count: int, mean: float, spread: float) -> None:
        both = self.count + count
        if not both:
            return
        distance = mean - self.mean
        self.spread += spread + distance**2 * self.count * count / both
        self.mean += distance * count / both
        self.count = both

    def with_zeros(self, voxels: int) -> tuple[float, float]:
        """Return mean and deviation over so many voxels, of which those that were not shown are 0."""
        if self.total or self.squares:
            mean = self.total / voxels
            # Exact in integers; only the root is rounded.
            return mean, float(np.sqrt(max(self.squares * voxels - self.total**2, 0) / voxels**2))
        self._merge(voxels - self.count, 0.0, 0.0)
        return self.mean, float(np.sqrt(max(self.spread, 0.0) / voxels))


def normalize_part(
    part: NDArray[np.float32],
    scheme: NormalizationScheme,
    facts: ChannelFacts,
    statistics: IntensityStatistics | None,
) -> NDArray[np.float32]:
    """Normalise a part of a channel in place, by what is known of the whole channel.

    Parameters
    ----------
    part : ndarray of float32
        Any shape; overwritten.
    scheme : str
        Name from the plans.
    facts : ChannelFacts
        Of the whole channel.
    statistics : IntensityStatistics, optional
        Needed by the CT scheme.

    Raises
    ------
    ImageError
        If the values cannot be normalised by that scheme.
    """
    low, high = np.float32(min(facts.low)), np.float32(max(facts.high))
    if scheme == "ZScoreNormalization":
        part -= np.float32(facts.mean)
        part /= np.float32(max(facts.std, _EPS))
    elif scheme == "RescaleTo01Normalization":
        part -= low
        part /= np.float32(max(float(high - low), _EPS))
    elif scheme == "RGBTo01Normalization" and (low < 0 or high > 255):
        raise ImageError(
            f"This model was trained on 8-bit colours (0 to 255), but the image has values from {low:g} to {high:g}. "
            "Rescale it to 0..255 first."
        )
    else:
        normalize(part, scheme, statistics=statistics)
    return part
