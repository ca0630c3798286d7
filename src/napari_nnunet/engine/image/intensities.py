"""Whether an image's intensities can be those a model was trained on: another modality, lost offsets, another scale."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from napari_nnunet.schema.plans import Configuration, Plans

_VALUES = 2**13  # that a range is taken from, at most
_SOFT, _DENSE = 300.0, 1200.0  # Hounsfield units: soft tissue lies below the one; beyond the other, only bone and metal
#: Ranges of intensities that differ by more than this are no chance of the scanner: 12-bit grey against 8-bit is 16.
FAR_RANGE = 12.0
_AROUND = 4.0  # how much wider than the structures in it an image may be, besides
_NARROW = 0.05  # of the training's range


def intensity_warnings(
    array: Any, plans: Plans, configuration: Configuration, names: tuple[str, ...]
) -> tuple[str, ...]:
    """Return what is odd about an image's intensities, in sentences; few values are looked at.

    Channels that are normalised by the training's own figures (CT) are compared with them closely, and pictures with 0
    to 255. Others are normalised by each image's own mean and deviation, so that neither offset nor scale matters; far
    other ones may be another modality.

    Parameters
    ----------
    array : array-like, shape (C, [Z,] Y, X)
        The image as it was read.
    plans, configuration
        Of the model.
    names : tuple of str
        Of the channels.
    """
    found = []
    for c, (scheme, name) in enumerate(zip(configuration.normalization_schemes, names, strict=False)):
        ends = usual_range(array[c])
        if ends is None:
            continue
        low, high = ends
        text = None
        if scheme == "RGBTo01Normalization":
            text = _picture(low, high)
        elif c < len(plans.intensities) and plans.intensities[c].is_finite:
            trained = plans.intensities[c]
            own = trained.percentile_00_5, trained.percentile_99_5
            text = _ct(low, high, *own) if scheme == "CTNormalization" else _other(low, high, *own, trained.median)
        if text is not None:
            found.append(f"The intensities of {name}, {low:.4g} to {high:.4g}, {text}")
    return tuple(found)


def usual_range(channel: Any) -> tuple[float, float] | None:
    """Return the 0.5 and 99.5 percentiles of an image ([Z,] Y, X), from some of its voxels; None if none is finite."""
    side = round(_VALUES ** (1 / len(channel.shape)))
    steps = tuple(slice(None, None, -(-n // side) or 1) for n in channel.shape)
    values = np.asarray(channel[steps], dtype=np.float64)
    values = values[np.isfinite(values)]
    if not values.size:
        return None
    low, high = np.percentile(values, (0.5, 99.5))
    return float(low), float(high)


def _other(low: float, high: float, trained_low: float, trained_high: float, median: float | None) -> str | None:
    """Compare with what lay within the structures of the training cases, where scale and offset do not matter.

    Where some of these cases are on another scale than the rest, they alone make the range wide, and the median lies
    near one of its ends: an image is narrow by what lies between these two.
    """
    own, trained = high - low, trained_high - trained_low
    half = (
        trained / 2 if median is None or not math.isfinite(median) else min(median - trained_low, trained_high - median)
    )
    if own <= 0 or trained <= 0 or 2 * half / FAR_RANGE <= own <= _AROUND * FAR_RANGE * trained:
        return None
    return (
        f"are far from those of the training: the structures it was trained on have {trained_low:.4g} to "
        f"{trained_high:.4g}. If they were only scaled, the result is the same; is it another modality?"
    )


def _ct(low: float, high: float, trained_low: float, trained_high: float) -> str | None:
    """Compare with what lay within the structures of the training cases."""
    trained = f"the structures it was trained on have {trained_low:.4g} to {trained_high:.4g}"
    if high < trained_low or low > trained_high:
        return f"are not those of the training: {trained}. Is it another modality, or in other units?"
    if high - low < _NARROW * (trained_high - trained_low):
        return f"span a small part of the training's: {trained}. Was the image scaled, to 0..1 for instance?"
    if low >= 0 and high > _DENSE and trained_low < _SOFT:
        return "have nothing below 0, as CT in Hounsfield units has (air is -1000). Is an offset of 1024 missing?"
    return None


def _picture(low: float, high: float) -> str | None:
    if high > 255 or low < 0:
        return "are not those of a picture of 8 bits (0 to 255), which the model was trained on. Convert it first."
    if high <= 1 and high > low:
        return "lie within 0 and 1, but the model was trained on pictures of 8 bits (0 to 255). Was the image scaled?"
    return None
