"""What a cascade's second stage gets of its first: one mask per class, imperfect by chance.

As in nnU-Net, a mask is dilated, eroded, opened or closed now and then, and small connected parts of it get lost, so
that the second stage learns not to trust it blindly.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

_OPERATOR, _REMOVAL, _CHANNEL = 0.4, 0.2, 0.5
_RADIUS = (1.0, 8.0)
_LARGEST = 0.15  # share of the patch that a component which is removed may fill
_OPERATORS = ("dilate", "erode", "close", "open")

Mask = NDArray[np.bool_]


def one_hot(previous: NDArray[np.integer], labels: Sequence[int]) -> NDArray[np.float32]:
    """Return one channel per foreground label, (n, [z,] y, x), of a segmentation ([z,] y, x)."""
    return np.stack([(previous == label).astype(np.float32) for label in labels])


def disturb(rng: np.random.Generator, masks: NDArray[np.float32], *, always: bool = False) -> NDArray[np.float32]:
    """Grow, shrink and lose parts of masks (n, [z,] y, x) by chance: the second stage must not trust them blindly.

    Parameters
    ----------
    rng : Generator
        Of the sample.
    masks : ndarray of float32
        From :func:`one_hot`; a changed copy is returned.
    always : bool
        Whether a change concerns every channel, as in DA5, instead of each by chance.
    """
    found = masks > 0
    if rng.random() < _OPERATOR:
        for c in _some_channels(rng, len(found), always=always):
            operator = _OPERATORS[int(rng.integers(len(_OPERATORS)))]
            changed = morphology(found[c], operator, float(rng.uniform(*_RADIUS)))
            covered = changed & ~found[c]
            for other in range(len(found)):
                if other != c:
                    found[other][covered] = False
            found[c] = changed
    if rng.random() < _REMOVAL:
        for c in _some_channels(rng, len(found), always=always):
            _lose_component(rng, found[c])
    return found.astype(np.float32)


def _some_channels(rng: np.random.Generator, count: int, *, always: bool) -> list[int]:
    """Return each channel with probability one half, in random order."""
    return [int(c) for c in rng.permutation(count) if always or rng.random() < _CHANNEL]


def morphology(mask: Mask, operator: str, radius: float) -> Mask:
    """Dilate, erode, close or open a mask by a ball (a disk in 2-D); what lies outside never erodes it.

    Parameters
    ----------
    mask : ndarray of bool, shape ([z,] y, x)
        The mask.
    operator : {"dilate", "erode", "close", "open"}
        What to do.
    radius : float
        Of the ball in voxels; it is cut to a grid of ``int(2 r + 1)`` voxels per axis, an even number too.
    """
    ball = _ball(radius, mask.ndim)
    match operator:
        case "dilate":
            return _dilate(mask, ball)
        case "erode":
            return ~_dilate(~mask, ball)
        case "close":
            return ~_dilate(~_dilate(mask, ball), ball)
        case _:
            return _dilate(~_dilate(~mask, ball), ball)


def _ball(radius: float, ndim: int) -> NDArray[np.float32]:
    steps = np.linspace(-radius, radius, int(2 * radius + 1))
    grids = np.meshgrid(*[steps] * ndim, indexing="ij")
    inside: Mask = np.sum([grid**2 for grid in grids], axis=0) <= radius**2
    return inside.astype(np.float32)


def _dilate(mask: Mask, ball: NDArray[np.float32]) -> Mask:
    if not mask.any():
        return mask.copy()
    from scipy import signal  # takes a second to load, which only cascades need

    # By Fourier transforms, whose time does not depend on the radius.
    reached: Mask = signal.fftconvolve(mask.astype(np.float32), ball, mode="same") > 0.5
    return reached


def _lose_component(rng: np.random.Generator, mask: Mask) -> None:
    labelled, count = ndimage.label(mask, structure=np.ones((3,) * mask.ndim))
    if count == 0:
        return
    sizes = np.bincount(labelled.ravel(), minlength=count + 1)[1:]
    able = np.flatnonzero(sizes < _LARGEST * mask.size) + 1
    if able.size:
        mask[labelled == able[int(rng.integers(able.size))]] = False
