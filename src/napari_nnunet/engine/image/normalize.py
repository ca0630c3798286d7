"""nnU-Net's five ways to normalise intensities, in float32 and in place where possible.

A channel's name chooses among them (nnU-Net's documentation/dataset_format.md).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from napari_nnunet.errors import ImageError
from napari_nnunet.schema.plans import IntensityStatistics, NormalizationScheme

Channel = NDArray[np.float32]
ContentMask = NDArray[np.bool_] | None
_EPS = 1e-8


def _z_score(x: Channel, mask: ContentMask, _: IntensityStatistics | None) -> Channel:
    """Zero mean, unit deviation; with a mask only inside it, the outside is left as it is."""
    if mask is None:
        x -= np.float32(x.mean(dtype=np.float64))
        x /= np.float32(max(_std(x), _EPS))
        return x
    inside = x[mask]
    if inside.size:
        mean = inside.mean(dtype=np.float64)
        x[mask] = (inside - np.float32(mean)) / np.float32(max(float(inside.std(dtype=np.float64)), _EPS))
    return x


def _std(centred: Channel) -> float:
    """Deviation of a channel whose mean is already 0, without a float64 copy of it."""
    flat = centred.reshape(-1) if centred.flags.c_contiguous else centred.ravel()
    step = 1 << 22
    squares = sum(float(np.square(flat[i : i + step], dtype=np.float64).sum()) for i in range(0, flat.size, step))
    total = sum(float(flat[i : i + step].sum(dtype=np.float64)) for i in range(0, flat.size, step))
    mean = total / flat.size
    return float(np.sqrt(max(squares / flat.size - mean * mean, 0.0)))


def _ct(x: Channel, _: ContentMask, statistics: IntensityStatistics | None) -> Channel:
    """Clip to the foreground's 0.5 and 99.5 percentiles, then use the foreground's mean and deviation."""
    if statistics is None:
        raise ImageError(
            "CT normalisation needs the foreground intensities of the training cases, but plans.json has none "
            "for this channel."
        )
    np.clip(x, statistics.percentile_00_5, statistics.percentile_99_5, out=x)
    x -= np.float32(statistics.mean)
    x /= np.float32(max(statistics.std, _EPS))
    return x


def _none(x: Channel, _: ContentMask, __: IntensityStatistics | None) -> Channel:
    return x


def _rescale_to_01(x: Channel, _: ContentMask, __: IntensityStatistics | None) -> Channel:
    x -= x.min()
    x /= np.float32(max(float(x.max()), _EPS))
    return x


def _rgb_to_01(x: Channel, _: ContentMask, __: IntensityStatistics | None) -> Channel:
    low, high = float(x.min()), float(x.max())
    if low < 0 or high > 255:
        raise ImageError(
            f"This model was trained on 8-bit colours (0 to 255), but the image has values from {low:g} to {high:g}. "
            "Rescale it to 0..255 first."
        )
    x /= np.float32(255)
    return x


_SCHEMES: dict[NormalizationScheme, Callable[[Channel, ContentMask, IntensityStatistics | None], Channel]] = {
    "ZScoreNormalization": _z_score,
    "CTNormalization": _ct,
    "NoNormalization": _none,
    "RescaleTo01Normalization": _rescale_to_01,
    "RGBTo01Normalization": _rgb_to_01,
}


def normalize(
    channel: Channel,
    scheme: NormalizationScheme,
    *,
    mask: ContentMask = None,
    statistics: IntensityStatistics | None = None,
) -> Channel:
    """Normalise one channel in place.

    Parameters
    ----------
    channel : ndarray of float32, shape (Z, Y, X)
        Overwritten.
    scheme : str
        Name from the plans.
    mask : ndarray of bool, optional
        Where the case has content; used by z-score only.
    statistics : IntensityStatistics, optional
        Needed by the CT scheme.

    Returns
    -------
    ndarray of float32
        The same array.

    Raises
    ------
    ImageError
        If the values cannot be normalised by that scheme.
    """
    return _SCHEMES[scheme](channel, mask, statistics)
