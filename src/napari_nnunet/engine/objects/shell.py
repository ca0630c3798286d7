"""From numbered objects to the classes that a network can learn: a core and a border for every kind of object.

A semantic network cannot say which nucleus a pixel belongs to, but it can say that a pixel lies deep within one or at
its rim. Rims keep the cores of neighbours apart, so that parts of the core class are objects (Caicedo et al. 2019,
Nature Methods 16:1247; Isensee's border-core representation of ParticleSeg3D, Gotkowski et al. 2024).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import cc3d
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_nnunet.engine.objects.decode import Rule, decode
from napari_nnunet.engine.objects.match import Matching

WIDTHS = (1.0, 1.5, 2.0, 3.0)
_NEARLY = 0.01  # of the mean average precision: what a wider border may cost, since it is learnt more easily
_THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9)


@dataclass(frozen=True)
class Thinned:
    """Numbered objects with their rims taken off.

    Parameters
    ----------
    core : ndarray of bool, shape ([Z,] Y, X)
        What is left of the objects.
    coreless : tuple of int
        Objects thinner than two rims. Of these the innermost voxels are kept as core, whatever lies beside.
    """

    core: NDArray[np.bool_]
    coreless: tuple[int, ...]


def thin(objects: NDArray[Any], width: float, spacing: Sequence[float]) -> Thinned:
    """Take the rims off objects.

    A voxel belongs to the rim if something else, background or another object, lies within `width`; or if another
    object lies next to it, so that flat voxels that are larger than the width still tell touching objects apart.
    Where the image ends nothing is taken off: an object that is cut there goes on outside.

    Parameters
    ----------
    objects : ndarray of int, shape ([Z,] Y, X)
        Object numbers, 0 elsewhere.
    width : float
        In units of `spacing`.
    spacing : sequence of float
        Size of a voxel along each axis.
    """
    rim = np.zeros(objects.shape, dtype=bool)
    for step in _ball(width, spacing):
        here, there = _beside(step)
        rim[here] |= objects[here] != objects[there]
    for step in _faces(objects.ndim):
        here, there = _beside(step)
        rim[here] |= (objects[here] != objects[there]) & (objects[there] != 0)
    core = (objects != 0) & ~rim
    lost = np.setdiff1d(np.unique(objects), np.unique(objects[core]))
    lost = lost[lost != 0]
    if len(lost):
        for number, box in _boxes(objects, lost):
            inside = objects[box] == number
            depth = ndimage.distance_transform_edt(np.pad(inside, 1), sampling=spacing)[(slice(1, -1),) * objects.ndim]
            core[box] |= inside & (depth >= depth.max() * (1 - 1e-6))
    return Thinned(core, tuple(int(n) for n in lost))


def classes(
    objects: NDArray[Any],
    core: NDArray[np.bool_],
    values: Mapping[str, tuple[int, int]],
    kinds: Mapping[int, str] | None = None,
    others: NDArray[Any] | None = None,
) -> NDArray[np.uint8]:
    """Return the label map that nnU-Net learns.

    Parameters
    ----------
    objects : ndarray of int, shape ([Z,] Y, X)
        Object numbers, 0 elsewhere.
    core : ndarray of bool, same shape
        From `thin`.
    values : mapping of str to (int, int)
        Kind of object to the values of its core and its border.
    kinds : mapping of int to str, optional
        Object number to its kind; all are of the only kind of `values` if not given.
    others : ndarray of int, same shape, optional
        Ordinary classes and the ignore label, kept where no object lies.
    """
    result = np.zeros(objects.shape, dtype=np.uint8) if others is None else others.astype(np.uint8)
    if kinds is None:
        ((inner, outer),) = values.values()
        np.copyto(result, np.where(core, inner, outer).astype(np.uint8), where=objects != 0)
        return result
    numbers, place = np.unique(objects, return_inverse=True)
    pairs = np.array([values[kinds[int(n)]] if n else (0, 0) for n in numbers], dtype=np.uint8)
    place = place.reshape(objects.shape)
    np.copyto(result, np.where(core, pairs[place, 0], pairs[place, 1]), where=objects != 0)
    return result


def tried_widths(objects: NDArray[Any], spacing: Sequence[float], unit: float) -> dict[float, Matching]:
    """Thin objects with each width and grow them again; return how what comes back agrees with what was.

    Parameters
    ----------
    objects : ndarray of int, shape ([Z,] Y, X)
        Numbered objects.
    spacing : sequence of float
        Size of a voxel along each axis.
    unit : float
        Edge of the network's finest voxel, in units of the spacing; widths are multiples of it.
    """
    found = {}
    inside = (objects != 0).astype(np.float32)
    for width in WIDTHS:
        core = thin(objects, width * unit, spacing).core.astype(np.float32)
        again = decode(core, inside, Rule(width=width), [step / unit for step in spacing])
        found[width] = Matching.of(objects, again)
    return found


def best_width(tried: Sequence[Mapping[float, Matching]]) -> tuple[float, dict[float, float]]:
    """Choose the width of borders from what was tried on several pictures.

    The widest border that costs hardly anything is taken: wide ones are learnt more easily, but small objects lose
    their core and thin ones break.

    Returns
    -------
    width : float
        In network voxels.
    scores : dict of float to float
        For each width, the mean average precision at IoU 0.5 to 0.9 that a perfect network would reach.
    """
    scores = {}
    for width in WIDTHS:
        found = sum((matchings[width] for matchings in tried), Matching.none())
        scores[width] = float(np.nan_to_num([found.precision(t) for t in _THRESHOLDS]).mean())
    enough = max(scores.values()) - _NEARLY
    return max(width for width, score in scores.items() if score >= enough), scores


def pieces(objects: NDArray[Any]) -> tuple[int, int, int]:
    """Return how many objects there are, how many of them lie in several pieces, and how many are one voxel large."""
    parts, count = cc3d.connected_components(
        np.require(objects, requirements=["C", "W"]), connectivity=26 if objects.ndim == 3 else 8, return_N=True
    )
    numbers, sizes = np.unique(objects, return_counts=True)
    known = numbers != 0
    owners = np.zeros(count + 1, dtype=objects.dtype)
    owners[parts.reshape(-1)] = objects.reshape(-1)
    _, times = np.unique(owners[1:], return_counts=True)
    return int(known.sum()), int((times > 1).sum()), int((sizes[known] == 1).sum())


def _ball(width: float, spacing: Sequence[float]) -> Iterator[tuple[int, ...]]:
    """Yield the steps in voxels, other than none, that are no longer than the width."""
    reach = [int(width / s + 1e-6) for s in spacing]
    for step in product(*(range(-r, r + 1) for r in reach)):
        length = sum((n * s) ** 2 for n, s in zip(step, spacing, strict=True)) ** 0.5
        if 0 < length <= width * (1 + 1e-6):
            yield step


def _faces(axes: int) -> Iterator[tuple[int, ...]]:
    for axis in range(axes):
        for step in (-1, 1):
            yield tuple(step if a == axis else 0 for a in range(axes))


def _beside(step: Sequence[int]) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Return the voxels that have a neighbour at a step, and these neighbours."""
    here = tuple(slice(max(0, -n), -n if n > 0 else None) for n in step)
    there = tuple(slice(max(0, n), n if n < 0 else None) for n in step)
    return here, there


def _boxes(objects: NDArray[Any], numbers: NDArray[Any]) -> Iterator[tuple[int, tuple[slice, ...]]]:
    """Yield the bounding boxes of some objects, whatever their numbers are."""
    places = np.searchsorted(numbers, objects)
    places[places == len(numbers)] = 0
    small = np.where(numbers[places] == objects, places + 1, 0)
    for number, box in zip(numbers, ndimage.find_objects(small, len(numbers)), strict=True):
        yield int(number), box
