"""Where training patches lie: how large, how far turned, around which voxel.

The last third of a batch is drawn around foreground, first the class and then one of its voxels, so that rare classes
are seen as often as frequent ones (Isensee et al., Nature Methods 2021).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_nnunet.schema.dataset import Region

FOREGROUND_SHARE = 0.33
_ANISOTROPY = 3.0  # patches longer than this in plane are turned in plane only
_OBLONG = 1.5
_ROOM = 0.85  # a turned and scaled patch needs this much more room


@dataclass(frozen=True)
class PatchRule:
    """What follows from the size of a patch.

    Parameters
    ----------
    final : tuple of int
        What the network gets.
    initial : tuple of int
        What is cut out before it is turned and scaled.
    rotation : float
        Largest angle in radians, to either side.
    dummy_2d : bool
        Whether slices are turned one by one.
    mirror_axes : tuple of int
        Axes that may be flipped.
    """

    final: tuple[int, ...]
    initial: tuple[int, ...]
    rotation: float
    dummy_2d: bool
    mirror_axes: tuple[int, ...]


def patch_rule(patch: Sequence[int], *, dummy_2d: bool = True, scale: float = _ROOM) -> PatchRule:
    """Work out rotation, enlarged patch and mirroring of a patch with two or three axes.

    Parameters
    ----------
    patch : sequence of int
        What the network gets.
    dummy_2d : bool
        False turns patches of thick slices like all others.
    scale : float
        Smallest scale for which the enlarged patch has room.
    """
    final = tuple(int(n) for n in patch)
    dummy = dummy_2d and len(final) == 3 and max(final) / final[0] > _ANISOTROPY
    if len(final) == 2:
        rotation = math.radians(15) if max(final) / min(final) > _OBLONG else math.pi
    else:
        rotation = math.pi if dummy else math.radians(30)
    initial = _enlarged(final, min(math.pi / 2, rotation), scale)
    if dummy:
        initial = (final[0], *initial[1:])
    return PatchRule(final, initial, rotation, dummy, tuple(range(len(final))))


def _enlarged(patch: tuple[int, ...], angle: float, scale: float) -> tuple[int, ...]:
    """Return the room that the corner of a patch needs when it is turned about each axis by itself."""
    cos, sin = math.cos(angle), math.sin(angle)
    if len(patch) == 2:
        y, x = patch
        corners: list[tuple[float, ...]] = [(y * cos + x * sin, -y * sin + x * cos)]
    else:
        z, y, x = patch
        corners = [
            (z, y * cos + x * sin, -y * sin + x * cos),
            (z * cos - x * sin, y, z * sin + x * cos),
            (z * cos + y * sin, -z * sin + y * cos, x),
        ]
    largest = np.abs(np.array([patch, *corners])).max(axis=0)
    return tuple(int(n) for n in largest / scale)


def forced_foreground(batch: int, share: float = FOREGROUND_SHARE) -> list[bool]:
    """Return which samples of a batch must hold foreground: the last third, rounded as Python rounds."""
    return [i >= round(batch * (1 - share)) for i in range(batch)]


def corner_range(
    shape: Sequence[int], initial: Sequence[int], final: Sequence[int]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the lowest and highest corner of a patch in a case, both inclusive; patches may stick out.

    Parameters
    ----------
    shape : sequence of int
        (z, y, x) of the preprocessed case.
    initial, final : sequence of int
        Enlarged and final patch, as many entries as ``shape``.
    """
    low, high = [], []
    for n, large, small in zip(shape, initial, final, strict=True):
        need = max(large - small, large - n)
        low.append(-need // 2)
        high.append(n + need // 2 + need % 2 - large)
    return tuple(low), tuple(high)


def choose_corner(
    rng: np.random.Generator,
    shape: Sequence[int],
    initial: Sequence[int],
    final: Sequence[int],
    locations: Mapping[Region, Any],
    *,
    forced: bool,
    annotated: Region | None = None,
    jitter: float = 0.0,
) -> tuple[int, ...]:
    """Return the lower corner of a patch.

    Parameters
    ----------
    rng : Generator
        Source of chance.
    shape, initial, final : sequence of int
        As for :func:`corner_range`.
    locations : mapping
        Class locations of the case.
    forced : bool
        Whether the patch must hold foreground: a class is drawn, then one of its voxels, and the patch centred on it.
    annotated : tuple of int, optional
        The key of all annotated voxels in datasets with an ignore label: patches that are not forced lie around one.
    jitter : float
        How far the centre may lie from the drawn voxel, as a fraction of the final patch; 0 is nnU-Net's.
    """
    low, high = corner_range(shape, initial, final)
    voxel = _voxel(rng, locations, forced=forced, annotated=annotated)
    if voxel is None:
        return tuple(int(rng.integers(lo, hi + 1)) for lo, hi in zip(low, high, strict=True))
    if jitter:
        voxel = voxel + np.round(rng.uniform(-jitter, jitter, len(final)) * np.asarray(final)).astype(np.int64)
    return corner_around(voxel.tolist(), low, initial)


def corner_around(voxel: Sequence[int], low: Sequence[int], initial: Sequence[int]) -> tuple[int, ...]:
    """Return the corner of a patch centred on a voxel; it may stick out at the far end, not at the near one."""
    return tuple(max(lo, int(v) - large // 2) for v, lo, large in zip(voxel, low, initial, strict=True))


def _voxel(
    rng: np.random.Generator, locations: Mapping[Region, Any], *, forced: bool, annotated: Region | None
) -> NDArray[np.int64] | None:
    if forced:
        keys = [key for key, rows in locations.items() if len(rows)]
        if len(keys) > 1 and annotated in keys:
            keys.remove(annotated)
    else:
        keys = [annotated] if annotated is not None and len(locations.get(annotated, ())) else []
    if not keys:
        return None
    rows = np.asarray(locations[keys[int(rng.integers(len(keys)))]])
    chosen: NDArray[np.int64] = rows[int(rng.integers(len(rows))), 1:]
    return chosen


def cut_patch(
    array: Any, corner: Sequence[int], size: Sequence[int], fill: float, *, lifted: bool = False
) -> NDArray[Any]:
    """Read a patch (C, *size) from an array (C, z, y, x), memory-mapped or not; what lies outside is filled.

    With ``lifted`` the array has no channel axis, and may have no sign: the patch is (1, *size) of int16.
    """
    shape = array.shape if lifted else array.shape[1:]
    inner = [(max(0, c), min(n, c + s)) for c, s, n in zip(corner, size, shape, strict=True)]
    out = np.full((1 if lifted else array.shape[0], *size), fill, dtype=np.int16 if lifted else array.dtype)
    if all(lo < hi for lo, hi in inner):
        where = tuple(slice(lo - c, hi - c) for (lo, hi), c in zip(inner, corner, strict=True))
        source = tuple(slice(lo, hi) for lo, hi in inner)
        out[(slice(None), *where)] = array[source] if lifted else array[(slice(None), *source)]
    return out
