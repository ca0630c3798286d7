"""What is measured of a training case, and of all of them together (facts, section 4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_nnunet.engine.prepare import crop_to_nonzero, lift
from napari_nnunet.errors import DatasetError, ImageError
from napari_nnunet.schema.fingerprint import Fingerprint, IntensityProperties
from napari_nnunet.volume import Volume

_DISTINCT = 20_000  # with at most so many different values a case's distribution is kept exactly
_QUANTILES = 10_000  # else this many; the rank of a percentile is then right to 0.005 %
_SAMPLES = 100_000_000  # nnU-Net's draws per channel, over all cases
_SEED = 1234  # nnU-Net's


@dataclass(frozen=True, eq=False)
class ChannelMeasure:
    """Foreground intensities of one channel of one case.

    Parameters
    ----------
    count : int
        Foreground voxels.
    mean, mean_square, minimum, maximum : float
        Exact.
    points, weights : ndarray
        Values and the share of the case's foreground that each stands for; or nnU-Net's random draws, unweighted.
    """

    count: int
    mean: float
    mean_square: float
    minimum: float
    maximum: float
    points: NDArray[np.floating[Any]]
    weights: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class CaseMeasure:
    """Facts of one case, in the reader's axis order."""

    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    relative_size: float
    channels: tuple[ChannelMeasure, ...]


def measure(volume: Volume, labels: NDArray[np.int32], *, draws: int | None = None) -> CaseMeasure:
    """Measure a case.

    Parameters
    ----------
    volume : Volume
        Its image.
    labels : ndarray, shape ([Z,] Y, X)
        Its reference; everything above 0 is foreground, the ignore label too, as in nnU-Net.
    draws : int, optional
        Draw this many foreground values per channel as nnU-Net does, instead of exact figures.

    Raises
    ------
    ImageError
        If image and labels differ in shape, or the image holds NaN or infinite values.
    """
    data = np.asarray(lift(volume))
    reference = labels if labels.ndim == 3 else labels[None]
    if data.shape[1:] != reference.shape:
        raise ImageError(f"The image has {data.shape[1:]} voxels, its labels have {reference.shape}.")
    invalid = int(data.size - np.count_nonzero(np.isfinite(data)))
    if invalid:
        raise ImageError(f"The image holds {invalid} voxels that are NaN or infinite. Replace them before training.")
    cropped, marked, _ = crop_to_nonzero(data, reference[None])
    foreground = marked[0] > 0
    rng = np.random.RandomState(_SEED)
    channels = tuple(_channel(channel[foreground], draws, rng) for channel in cropped)
    z, y, x = cropped.shape[1:]
    size = float(np.prod(cropped.shape[1:])) / float(np.prod(data.shape[1:]))
    return CaseMeasure((z, y, x), volume.geometry.spacing_3d, size, channels)


def _channel(values: NDArray[np.float32], draws: int | None, rng: np.random.RandomState) -> ChannelMeasure:
    if not values.size:
        # float64, as nnU-Net's empty list becomes: it decides the type of the statistics
        return ChannelMeasure(0, 0.0, 0.0, 0.0, 0.0, np.empty(0, dtype=np.float64), np.empty(0))
    if draws is not None:
        points: NDArray[np.floating[Any]] = values[rng.randint(0, len(values), draws)]
        weights = np.empty(0)
    else:
        points, weights = _distribution(values)
    wide = values.astype(np.float64)
    return ChannelMeasure(
        len(values),
        float(wide.mean()),
        float(np.square(wide).mean()),
        float(wide.min()),
        float(wide.max()),
        points,
        weights,
    )


def _distribution(values: NDArray[np.float32]) -> tuple[NDArray[np.floating[Any]], NDArray[np.float64]]:
    """Return values and the share of each: all that occur where they are few (integers), else evenly spaced ranks."""
    ordered = np.sort(values)
    first = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))
    if len(first) <= _DISTINCT:
        return ordered[first], np.diff(np.append(first, len(ordered))) / len(ordered)
    ranks = ((np.arange(_QUANTILES) + 0.5) * len(ordered) / _QUANTILES).astype(np.intp)
    return ordered[ranks], np.full(_QUANTILES, 1 / _QUANTILES)


def draws_per_case(cases: int) -> int:
    """Return how many values nnU-Net draws from each case."""
    return _SAMPLES // cases


def merge(cases: Sequence[CaseMeasure], *, sampled: bool) -> Fingerprint:
    """Join the measures of all cases; every case has the same weight, however much foreground it has.

    Raises
    ------
    DatasetError
        If no case has any foreground.
    """
    properties = {}
    for c in range(len(cases[0].channels)):
        channels = [case.channels[c] for case in cases]
        if not any(channel.count for channel in channels):
            raise DatasetError("No case has any foreground: all labels are 0. There is nothing to learn.")
        properties[str(c)] = _sampled(channels) if sampled else _exact([ch for ch in channels if ch.count])
    return Fingerprint(
        foreground_intensity_properties_per_channel=properties,
        median_relative_size_after_cropping=float(np.median([case.relative_size for case in cases])),
        shapes_after_crop=tuple(case.shape for case in cases),
        spacings=tuple(case.spacing for case in cases),
    )


def _sampled(channels: Sequence[ChannelMeasure]) -> IntensityProperties:
    values = np.concatenate([channel.points for channel in channels])
    low, median, high = np.percentile(values, (0.5, 50.0, 99.5))
    return IntensityProperties(
        max=float(values.max()),
        mean=float(values.mean()),
        median=float(median),
        min=float(values.min()),
        percentile_00_5=float(low),
        percentile_99_5=float(high),
        std=float(values.std()),
    )


def _exact(channels: Sequence[ChannelMeasure]) -> IntensityProperties:
    mean = float(np.mean([channel.mean for channel in channels]))
    square = float(np.mean([channel.mean_square for channel in channels]))
    low, median, high = _percentiles(channels, (0.5, 50.0, 99.5))
    return IntensityProperties(
        max=max(channel.maximum for channel in channels),
        mean=mean,
        median=float(median),
        min=min(channel.minimum for channel in channels),
        percentile_00_5=float(low),
        percentile_99_5=float(high),
        std=float(np.sqrt(max(square - mean * mean, 0.0))),
    )


def _percentiles(channels: Sequence[ChannelMeasure], wanted: Sequence[float]) -> list[float]:
    """Return percentiles of the mixture of all cases, each case with the same weight."""
    values = np.concatenate([channel.points for channel in channels])
    shares = np.concatenate([channel.weights for channel in channels]) / len(channels)
    order = np.argsort(values, kind="stable")
    reached = np.cumsum(shares[order])
    index = np.searchsorted(reached, np.asarray(wanted) / 100 * reached[-1])
    return [float(values[order[min(i, len(order) - 1)]]) for i in index]
