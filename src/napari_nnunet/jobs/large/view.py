"""Where somebody looks while a large image is filled."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_OTHER_TIME = 1e9  # voxels: farther than everything of the time point that is seen


@dataclass(eq=False)
class View:
    """What is seen of an image; blocks in it are computed first.

    Whoever looks may change it at any time, from any thread.

    Parameters
    ----------
    box : tuple of (float, float), optional
        Half-open, in voxels (z, y, x); None where nothing is preferred.
    time : int
        The time point.
    """

    box: tuple[tuple[float, float], ...] | None = None
    time: int = 0


def in_view(places: Sequence[tuple[int, Sequence[tuple[int, int]]]], view: View | None) -> Iterator[int]:
    """Give the number of every box once, at every step of that which is the nearest to what is seen then.

    Boxes are put in order once for each look: looking for the nearest at every step would take the square of their
    number, minutes for 100,000.

    Parameters
    ----------
    places : sequence of (int, box)
        Time point and half-open box (z, y, x) of each.
    view : View or None
        Where somebody looks; None where nobody does.
    """
    if view is None or not places:
        yield from range(len(places))
        return
    times = np.array([time for time, _ in places])
    boxes = np.array([box for _, box in places], dtype=float)
    waiting = np.arange(len(places))[::-1]  # taken from its end
    seen: tuple[object, int] = (None, 0)  # nothing is preferred: in the order in which they are given
    while len(waiting):
        now = (view.box, view.time)
        if now != seen:
            seen, left = now, np.sort(waiting)
            waiting = left[np.argsort(_distances(boxes[left], times[left], *now), kind="stable")][::-1]
        number, waiting = int(waiting[-1]), waiting[:-1]
        yield number


def _distances(
    boxes: NDArray[np.float64], times: NDArray[np.intp], seen: Sequence[Sequence[float]] | None, time: int
) -> NDArray[np.float64]:
    """Return how far away boxes are in voxels; 0 where some of one is seen, or where nothing is preferred."""
    if seen is None:
        return np.zeros(len(boxes))
    ends = np.asarray(seen, dtype=float)
    gaps = np.maximum(0, np.maximum(boxes[..., 0] - ends[:, 1], ends[:, 0] - boxes[..., 1])).sum(axis=1)
    return np.asarray(gaps + _OTHER_TIME * np.abs(times - time))
