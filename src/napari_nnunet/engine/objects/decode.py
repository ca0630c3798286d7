"""From the probabilities of cores and borders to numbered objects, in pieces, with nothing lost at the seams.

Parts of the core are seeds, and what looks like two that touch is cut. They grow step by step over what is probably an
object; where two seeds reach a voxel in the same step, the one whose neighbouring voxel is more probably core takes it.
After the steps that borders are wide, next to nothing is left: a part that touches one object belongs to it whole, and
between several they grow on. A step sees no farther than the next voxel, which is why a picture decoded in pieces
equals the picture decoded at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import cc3d
import numpy as np
import scipy  # its parts are loaded when they are used: a prediction of classes needs none
from numpy.typing import NDArray

from napari_nnunet.engine.objects.slabs import usual_planes
from napari_nnunet.engine.objects.split import Cut, cut_seeds

Window = tuple[slice, ...]
Probabilities = tuple[NDArray[np.float32], NDArray[np.float32]]
_PARTS = 65535  # of a probability, as whole numbers of which sums are added


@dataclass(frozen=True)
class Rule:
    """How probabilities become objects. Lengths are multiples of the network's finest edge, sizes of its cube.

    So a picture with finer or coarser voxels than those that were learnt is decoded alike.

    Parameters
    ----------
    width : float
        Width of the learnt border.
    seed : float
        Probability of core from which a voxel is part of a seed.
    inside : float
        Probability of core or border from which a voxel can belong to an object.
    smallest : int
        Size below which an object is left out.
    smallest_seed : int
        Size below which a part of the core is no seed.
    split : float or None
        How much lower than both middles a neck must be for a part of the core to be cut into two seeds, as a length;
        None does not ask. See `napari_nnunet.engine.objects.split`.
    neck : float or None
        The same as a share of the lower middle's own height, between 0 and 1, for objects of all sizes; goes before
        `split`. Where both are None, nothing is cut.
    sure : float
        Mean probability of core or border below which an object is left out.
    """

    width: float = 2.0
    seed: float = 0.5
    inside: float = 0.5
    smallest: int = 1
    smallest_seed: int = 1
    split: float | None = None
    neck: float | None = None
    sure: float = 0.0

    def steps(self, voxel: Sequence[float]) -> int:
        """Return how many voxels a seed grows: over the border it lost, twice, for cores come out too small."""
        return math.ceil((2 * math.ceil(self.width - 1e-6) + 2) / min(voxel) - 1e-6)

    def cut(self, smallest: int, voxel: Sequence[float]) -> Cut | None:
        """Return where seeds are cut, whose pieces have at least `smallest` voxels; None where they are not."""
        height = self.split if self.neck is None else self.neck
        return None if height is None else Cut(height, smallest, voxel, relative=self.neck is not None)

    def voxels(self, size: int, voxel: Sequence[float]) -> int:
        """Return a size in voxels of a picture."""
        return max(1, round(size / math.prod(voxel)))


def decode(
    core: NDArray[np.float32], inside: NDArray[np.float32], rule: Rule, voxel: Sequence[float] | None = None
) -> NDArray[np.uint32]:
    """Find the objects of probabilities that lie in memory.

    Parameters
    ----------
    core : ndarray of float32, shape ([Z,] Y, X)
        Probability of being core.
    inside : ndarray of float32, same shape
        Probability of being core or border.
    rule : Rule
        Thresholds.
    voxel : sequence of float, optional
        Edges of a voxel as multiples of the network's finest edge; 1 if not given. Seeds grow less often along long
        edges.

    Returns
    -------
    ndarray of uint32, same shape
        Objects from 1 on in the order of their seeds' first voxels, those that were cut off others last; 0 elsewhere.
    """
    objects = np.zeros(core.shape, dtype=np.uint32)
    decode_into(objects, lambda window: (core[window], inside[window]), rule, voxel)
    return objects


def decode_into(
    objects: NDArray[np.uint32],
    read: Callable[[Window], Probabilities],
    rule: Rule,
    voxel: Sequence[float] | None = None,
    planes: int | None = None,
) -> int:
    """Find objects slab by slab along the first axis; no more than a slab and the steps around it are looked at.

    Parameters
    ----------
    objects : ndarray of uint32, shape ([Z,] Y, X)
        Written in place; may be a memory map. What is there is overwritten.
    read : callable
        Takes a window, a slice along each axis or along the first ones; returns the probabilities of core and of
        inside there.
    rule, voxel
        As in `decode`.
    planes : int, optional
        Planes of a slab; about four million voxels if not given. The result does not depend on it.

    Returns
    -------
    int
        Number of objects.
    """
    voxel = tuple(voxel or (1.0,) * objects.ndim)
    size, steps = objects.shape[0], rule.steps(voxel)
    planes = planes or usual_planes(objects.shape, steps)
    slabs = [(start, min(start + planes, size)) for start in range(0, size, planes)]
    smallest = rule.voxels(rule.smallest_seed, voxel)
    numbers = _seeds(objects, read, slabs, rule.seed, smallest)
    if (cut := rule.cut(smallest, voxel)) is not None:
        numbers = cut_seeds(objects, lambda window: read(window)[0], slabs, numbers, cut)
    pace = _pace(voxel)
    _grow(objects, read, slabs, (rule.inside, steps), numbers, pace)
    _join_rest(objects, read, slabs, rule, int(numbers.max(initial=0)), (steps, pace))
    sums = object_sums(objects, read, slabs) if rule.sure > 0 else None
    return _tidy(objects, slabs, rule.voxels(rule.smallest, voxel), rule.sure, sums)


def _seeds(
    objects: NDArray[np.uint32],
    read: Callable[[Window], Probabilities],
    slabs: list[tuple[int, int]],
    threshold: float,
    smallest: int,
) -> NDArray[np.uint32]:
    """Write the parts of the core into `objects`; return the object each of them belongs to, 0 for those too small."""
    objects[...] = 0
    roots, sizes = _parts(objects, lambda a, b: read((slice(a, b),))[0] >= threshold, slabs, first=1)
    kept = np.zeros(len(roots), dtype=bool)
    kept[1:] = sizes[roots[1:]] >= smallest
    numbers = np.cumsum(kept & (roots == np.arange(len(roots))), dtype=np.uint32)
    return np.where(kept, numbers[roots], 0).astype(np.uint32)


def _parts(
    objects: NDArray[np.uint32],
    mask: Callable[[int, int], NDArray[np.bool_]],
    slabs: list[tuple[int, int]],
    first: int,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Number the parts of a mask slab by slab, in the order of their first voxels, and write the numbers.

    Returns
    -------
    roots : ndarray of int64, shape (parts + 1,)
        By the part's number less ``first - 1``, the lowest such number of what it joins across seams.
    sizes : ndarray of int64, shape (parts + 1,)
        Voxels of everything with this root.
    """
    counts: list[NDArray[np.int64]] = [np.zeros(1, dtype=np.int64)]
    seams: list[NDArray[np.int64]] = []
    total = 0
    above: NDArray[np.int64] | None = None
    for start, stop in slabs:
        inside = np.ascontiguousarray(mask(start, stop))
        parts, count = cc3d.connected_components(
            inside.view(np.uint8), connectivity=6 if inside.ndim == 3 else 4, return_N=True
        )
        parts = parts.astype(np.int64)
        counts.append(np.bincount(parts.reshape(-1), minlength=count + 1)[1:])
        parts[inside] += total
        if above is not None:
            both = (above != 0) & (parts[0] != 0)
            seams.append(np.unique(np.stack([above[both], parts[0][both]]), axis=1))
        above = parts[-1].copy()
        np.copyto(objects[start:stop], (parts + (first - 1)).astype(np.uint32), where=inside)
        total += count
    if total + first > np.iinfo(np.uint32).max:
        raise OverflowError(f"{total} parts cannot be numbered in 32 bits")
    touching = np.concatenate(seams, axis=1) if seams else np.zeros((2, 0), dtype=np.int64)
    pairs = (np.ones(touching.shape[1], dtype=bool), (touching[0], touching[1]))
    graph = scipy.sparse.coo_array(pairs, shape=(total + 1,) * 2)
    _, group = scipy.sparse.csgraph.connected_components(graph, directed=False)
    lowest = np.full(int(group.max(initial=0)) + 1, total + 1, dtype=np.int64)
    np.minimum.at(lowest, group, np.arange(total + 1))
    roots = lowest[group]
    return roots, np.bincount(roots, weights=np.concatenate(counts), minlength=total + 1).astype(np.int64)


def _grow(
    objects: NDArray[np.uint32],
    read: Callable[[Window], Probabilities],
    slabs: list[tuple[int, int]],
    growth: tuple[float, int],
    numbers: NDArray[np.uint32],
    pace: Sequence[int],
) -> None:
    """Let the seeds in `objects` grow by steps where it is probable enough, each slab with as many planes around it."""
    threshold, steps = growth
    before = objects[:0].copy()
    for start, stop in slabs:
        low, high = start - len(before), min(stop + steps, objects.shape[0])
        seeds = np.concatenate([before, objects[start:high]])
        before = seeds[: stop - low][-steps:].copy()
        core, inside = read((slice(low, high),))
        grown = _grown(numbers[seeds], core, inside >= threshold, (0, steps), pace)
        objects[start:stop] = grown[start - low : stop - low]


def _grown(
    seeds: NDArray[np.uint32],
    core: NDArray[np.float32],
    inside: NDArray[np.bool_],
    steps: tuple[int, int],
    pace: Sequence[int],
) -> NDArray[np.uint32]:
    """Return seeds grown over a mask, after so many steps by so many more; along an axis every `pace` steps."""
    found = np.pad(seeds, 1)
    probable = np.pad(core, 1).reshape(-1)
    flat = found.reshape(-1)
    strides = [math.prod(found.shape[axis + 1 :]) for axis in range(found.ndim)]
    free = np.pad(inside, 1).reshape(-1) & (flat == 0)
    todo = np.flatnonzero(free)
    meets = np.zeros(len(todo), dtype=bool)
    for stride in strides:
        meets |= (flat[todo - stride] != 0) | (flat[todo + stride] != 0)
    todo = todo[meets]  # only what touches an object can become a part of it
    free[todo] = False
    for step in range(steps[0] + 1, sum(steps) + 1):
        best = np.full(len(todo), -1, dtype=np.float32)
        taker = np.zeros(len(todo), dtype=np.uint32)
        for stride, every in zip(strides, pace, strict=True):
            if step % every:
                continue
            for neighbour in (todo - stride, todo + stride):
                number = flat[neighbour]
                height = np.where(number, probable[neighbour], np.float32(-1))
                better = height > best
                np.copyto(best, height, where=better)
                np.copyto(taker, number, where=better)
        taken = taker != 0
        now = todo[taken]
        flat[now] = taker[taken]
        beside = np.concatenate([now + way for stride in strides for way in (-stride, stride)])
        beside = np.unique(beside[free[beside]])
        free[beside] = False
        todo = np.concatenate((todo[~taken], beside))
    return found[(slice(1, -1),) * found.ndim]


def _pace(voxel: Sequence[float]) -> tuple[int, ...]:
    """Return in which steps seeds grow along each axis: every step along the shortest edges."""
    return tuple(max(1, round(edge / min(voxel))) for edge in voxel)


def _join_rest(
    objects: NDArray[np.uint32],
    read: Callable[[Window], Probabilities],
    slabs: list[tuple[int, int]],
    rule: Rule,
    count: int,
    growth: tuple[int, Sequence[int]],
) -> None:
    """Give what is inside, but farther from seeds than these grew, to the objects that it is connected to.

    A part that touches no object is one of its own, a part that touches one belongs to it; into a part that lies
    between several, these grow on.
    """
    roots, _ = _parts(
        objects, lambda a, b: (read((slice(a, b),))[1] >= rule.inside) & (objects[a:b] == 0), slabs, first=count + 1
    )
    lowest, highest = _touched(objects, slabs, roots, count)
    own = np.arange(len(roots)) + count
    between = lowest < highest
    numbers = np.where((highest == 0) | between, own, highest)[roots].astype(np.uint32)
    for start, stop in slabs:
        slab = objects[start:stop]
        rest = slab > count
        slab[rest] = numbers[slab[rest].astype(np.int64) - count]
    if between.any():
        _fill(objects, lambda window: read(window)[0], slabs, own[between], growth)


def _touched(
    objects: NDArray[np.uint32], slabs: list[tuple[int, int]], roots: NDArray[np.int64], count: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the lowest and the highest object up to `count` that touches each part beyond, by its root.

    The highest is 0 where none does, and the lowest is higher then.
    """
    lowest, highest = np.full(len(roots), count + 1, dtype=np.int64), np.zeros(len(roots), dtype=np.int64)
    above: NDArray[np.uint32] | None = None
    for start, stop in slabs:
        here = objects[start:stop] if above is None else np.concatenate([above, objects[start:stop]])
        for axis in range(here.ndim):
            for one, other in _neighbours(here, axis):
                meets = (one > count) & (other != 0) & (other <= count)
                parts, touched = roots[one[meets].astype(np.int64) - count], other[meets].astype(np.int64)
                np.minimum.at(lowest, parts, touched)
                np.maximum.at(highest, parts, touched)
        above = objects[stop - 1 : stop].copy()
    return lowest, highest


def _fill(
    objects: NDArray[np.uint32],
    core: Callable[[Window], NDArray[np.float32]],
    slabs: list[tuple[int, int]],
    open_parts: NDArray[np.int64],
    growth: tuple[int, Sequence[int]],
) -> None:
    """Let objects grow into the parts between them, slab by slab and some steps each time, until these are gone.

    All slabs see what was there before those steps: what is found in one is written when no other looks at it any more.
    """
    begun, pace = growth
    numbers = np.arange(int(max(objects[a:b].max() for a, b in slabs)) + 1, dtype=np.uint32)
    numbers[open_parts] = 0
    steps = begun
    while slabs := [(a, b) for a, b in slabs if (numbers[objects[a:b]] != objects[a:b]).any()]:
        waiting: list[tuple[int, int, NDArray[np.bool_], NDArray[np.uint32]]] = []
        for start, stop in slabs:
            low, high = max(0, start - steps), min(stop + steps, objects.shape[0])
            while waiting and waiting[0][1] <= low:
                _write(objects, *waiting.pop(0))
            here = objects[low:high]
            seeds = numbers[here]
            grown = _grown(seeds, core((slice(low, high),)), here != seeds, (begun, steps), pace)
            own = slice(start - low, stop - low)
            new = (seeds[own] == 0) & (grown[own] != 0)
            waiting.append((start, stop, new, grown[own][new]))
        for found in waiting:
            _write(objects, *found)
        begun += steps


def _write(
    objects: NDArray[np.uint32], start: int, stop: int, where: NDArray[np.bool_], numbers: NDArray[np.uint32]
) -> None:
    objects[start:stop][where] = numbers


def _neighbours(x: NDArray[Any], axis: int) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    first = x[(slice(None),) * axis + (slice(None, -1),)]
    second = x[(slice(None),) * axis + (slice(1, None),)]
    yield first, second
    yield second, first


def object_sums(
    objects: NDArray[np.uint32], read: Callable[[Window], Probabilities], slabs: list[tuple[int, int]]
) -> NDArray[np.float64]:
    """Return the sum of the probability of being inside for every number; whole 65535ths, so slabs do not show."""
    sums = np.zeros(int(objects.max(initial=0)) + 1)
    for a, b in slabs:
        parts = np.rint(read((slice(a, b),))[1].reshape(-1) * np.float32(_PARTS))
        sums += np.bincount(objects[a:b].reshape(-1), parts, minlength=len(sums))
    return sums / _PARTS


def _tidy(
    objects: NDArray[np.uint32],
    slabs: list[tuple[int, int]],
    smallest: int,
    sure: float,
    sums: NDArray[np.float64] | None,
) -> int:
    """Leave out what is too small or too doubtful, and number what stays without gaps."""
    highest = max((int(objects[a:b].max(initial=0)) for a, b in slabs), default=0)
    sizes = np.zeros(highest + 1, dtype=np.int64)
    for a, b in slabs:
        sizes += np.bincount(objects[a:b].reshape(-1), minlength=highest + 1)
    kept = sizes >= max(1, smallest)
    if sums is not None:
        kept &= sums >= sure * sizes
    kept[0] = False
    numbers = np.where(kept, np.cumsum(kept), 0).astype(np.uint32)
    for a, b in slabs:
        objects[a:b] = numbers[objects[a:b]]
    return int(numbers.max(initial=0))
