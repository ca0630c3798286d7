"""Combine the measures of all training cases into the fingerprint of the dataset; every case weighs the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_nnunet.errors import DatasetError
from napari_nnunet.schema.fingerprint import Fingerprint, IntensityProperties

_SAMPLES = 100_000_000  # nnU-Net's draws per channel, over all cases


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


def draws_per_case(cases: int) -> int:
    """Return how many values nnU-Net draws from each case."""
    return _SAMPLES // cases


def merge(cases: Sequence[CaseMeasure], *, sampled: bool) -> Fingerprint:
    """Combine the measures of all cases; every case has the same weight, however much foreground it has.

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
