"""Sizes, times and counts in the units and words people use."""

from __future__ import annotations

from collections.abc import Sequence


def plain_time(seconds: float) -> str:
    """Return a duration as people say it."""
    if seconds < 1:
        return "under a second"
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def size_text(spacing: Sequence[float]) -> str:
    """Return a voxel size in the unit people use at that scale."""
    if max(spacing) < 0.05:
        return " × ".join(f"{s * 1000:.3g}" for s in spacing) + " µm"
    return " × ".join(f"{s:.3g}" for s in spacing) + " mm"


def times_text(shape: Sequence[int]) -> str:
    """Return a shape with multiplication signs."""
    return " × ".join(str(n) for n in shape)
