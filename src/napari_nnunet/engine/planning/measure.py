"""What is measured of one training case: its grid after the crop to nonzero, and the intensities of its foreground."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_nnunet.engine.image.prepare import crop_to_nonzero
from napari_nnunet.engine.planning.fingerprint import CaseMeasure, ChannelMeasure
from napari_nnunet.errors import ImageError, counted
from napari_nnunet.schema.geometry import lift
from napari_nnunet.volume import Volume

DISTINCT = 20_000  # with at most so many different values a case's distribution is kept exactly
QUANTILES = 10_000  # else this many; the rank of a percentile is then right to 0.005 %
SEED = 1234  # nnU-Net's


def measure_volume(volume: Volume, labels: NDArray[np.int32], *, draws: int | None = None) -> CaseMeasure:
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
    data = np.asarray(lift(volume.array, channels=True))
    reference = lift(labels)
    if data.shape[1:] != reference.shape:
        raise ImageError(f"The image has {data.shape[1:]} voxels, its labels have {reference.shape}.")
    invalid = int(data.size - np.count_nonzero(np.isfinite(data)))
    if invalid:
        raise ImageError(
            f"The image holds {counted(invalid, 'voxel that is', 'voxels that are')} NaN or infinite. Replace "
            f"{'it' if invalid == 1 else 'them'} before training."
        )
    cropped, marked, _ = crop_to_nonzero(data, reference[None])
    foreground = marked[0] > 0
    rng = np.random.RandomState(SEED)
    channels = tuple(channel_measure(channel[foreground], draws, rng) for channel in cropped)
    z, y, x = cropped.shape[1:]
    size = float(np.prod(cropped.shape[1:])) / float(np.prod(data.shape[1:]))
    return CaseMeasure((z, y, x), volume.geometry.spacing_3d, size, channels)


def channel_measure(values: NDArray[np.float32], draws: int | None, rng: np.random.RandomState) -> ChannelMeasure:
    """Return what is measured of the foreground values of a channel, in the order of memory."""
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
    if len(first) <= DISTINCT:
        return ordered[first], np.diff(np.append(first, len(ordered))) / len(ordered)
    ranks = ((np.arange(QUANTILES) + 0.5) * len(ordered) / QUANTILES).astype(np.intp)
    return ordered[ranks], np.full(QUANTILES, 1 / QUANTILES)
