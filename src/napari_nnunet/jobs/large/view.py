"""Where somebody looks while a large image is filled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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

    def distance(self, time: int, box: Sequence[tuple[int, int]]) -> float:
        """Return how far away a box of a time point is; 0 where some of it is seen."""
        seen = self.box
        if seen is None:
            return 0.0
        gaps = (max(0.0, lo - high, low - hi) for (lo, hi), (low, high) in zip(box, seen, strict=True))
        return sum(gaps) + _OTHER_TIME * abs(time - self.time)
