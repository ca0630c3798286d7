"""Where the classes of a training case lie, drawn as nnU-Net draws them.

Of every class, one per cent of the voxels are kept, and 10,000 at least if there are as many. The seed is fixed.
Labels are looked at slab by slab, so that they may lie on a disk.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_nnunet.schema.dataset import LabelScheme, Region

MOST_ROWS = 10_000  # kept of a class that has more voxels, unless a hundredth of them is more still
LEAST_SHARE = 0.01
_SEED = 1234
_AT_ONCE, _FROM_DISK = 4e6, 3.2e7  # voxels of a slab: few planes of a packed file would be unpacked again and again
_ALL = 2**62  # bytes: no limit
MOST_DRAWN = 1_000_000  # kept of a class whose voxels cannot be put in order within the memory that is given

Locations = dict[Region, NDArray[np.int64] | list[int]]
_Box = tuple[slice, slice, slice]


def location_keys(scheme: LabelScheme) -> tuple[Region, ...]:
    """Return what is located: every foreground label or region, and with an ignore label everything annotated."""
    keys: tuple[Region, ...] = scheme.regions if scheme.has_regions else scheme.foreground_labels
    if scheme.ignore_label is not None:
        keys = (*keys, (-1, *scheme.all_labels))
    return keys


def class_locations(labels: Any, keys: Sequence[Region], most_bytes: float = _ALL) -> Locations:
    """Draw positions of every class without replacement.

    Parameters
    ----------
    labels : array-like of int, shape (z, y, x)
        A preprocessed segmentation, -1 outside the image's content; anything with ``shape`` and slices.
    keys : sequence of int or tuple of int
        Labels, or groups of labels.
    most_bytes : float
        For the order of the voxels of a class, four or eight bytes each. Of a class that needs more, at most a million
        voxels are drawn, in another way; those of the classes after it are then not nnU-Net's either.

    Returns
    -------
    dict
        Per key an int64 array (n, 4) of (0, z, y, x), n = max(min(10000, N), ceil(N / 100)) of the N voxels; an empty
        list if the class does not occur. The rows are those that nnU-Net draws.
    """
    rng = np.random.RandomState(_SEED)
    boxes, voxels = _looked_through(labels)
    found: Locations = {}
    for key in keys:
        members = key if isinstance(key, tuple) else (key,)
        counts = [voxels.get(value, 0) for value in members]
        total = sum(counts)
        if total == 0:
            found[key] = []
            continue
        wanted = max(min(MOST_ROWS, total), math.ceil(total * LEAST_SHARE))
        kind = np.dtype(np.int32 if total < 2**31 else np.int64)
        if total * kind.itemsize > most_bytes:
            picked = _distinct(total, min(wanted, MOST_DRAWN), len(found))
        else:
            # The draw without replacement of numpy's RandomState is the beginning of a permutation. 32 bits give the
            # same.
            order = np.arange(total, dtype=kind)
            rng.shuffle(order)
            picked = order[:wanted].astype(np.int64)
        found[key] = _rows(labels, members, counts, boxes, picked)
    return found


def _distinct(total: int, wanted: int, key: int) -> NDArray[np.int64]:
    """Draw different numbers below a large one, in any order, without putting all in order."""
    rng = np.random.default_rng((_SEED, key))
    drawn = np.empty(0, dtype=np.int64)
    while len(drawn) < wanted:
        drawn = np.unique(np.concatenate((drawn, rng.integers(0, total, size=2 * wanted))))
    picked: NDArray[np.int64] = rng.permutation(drawn)[:wanted]
    return picked


def _looked_through(labels: Any) -> tuple[dict[int, _Box], dict[int, int]]:
    """Return where each label lies, and how many voxels it has; -1 is moved to 0 by adding two."""
    found: dict[int, _Box] = {}
    voxels: dict[int, int] = {}
    for z0, slab in _slabs(labels, _whole(labels)):
        for i, box in enumerate(ndimage.find_objects(np.add(slab, 2, dtype=np.int32))):
            if box is not None:
                value, moved = i - 1, (slice(box[0].start + z0, box[0].stop + z0), box[1], box[2])
                found[value] = _joined(found.get(value, moved), moved)
                voxels[value] = voxels.get(value, 0) + int(np.count_nonzero(slab[box] == value))
    return found, voxels


def _joined(a: _Box, b: _Box) -> _Box:
    z, y, x = (slice(min(p.start, q.start), max(p.stop, q.stop)) for p, q in zip(a, b, strict=True))
    return z, y, x


def _rows(
    labels: Any,
    members: Sequence[int],
    counts: Sequence[int],
    boxes: dict[int, _Box],
    picked: NDArray[np.int64],
) -> NDArray[np.int64]:
    """Return coordinates of voxels by rank: label after label, each in the order of memory."""
    rows = np.zeros((len(picked), 4), dtype=np.int64)
    order = np.argsort(picked, kind="stable")
    ranks = picked[order]
    start = 0
    for value, count in zip(members, counts, strict=True):
        if count == 0:
            continue
        lo, hi = np.searchsorted(ranks, (start, start + count))
        rows[order[lo:hi], 1:] = _positions(labels, value, boxes[value], ranks[lo:hi] - start)
        start += count
    return rows


def _positions(labels: Any, value: int, box: _Box, ranks: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return (z, y, x) of the voxels of a label whose ranks, ascending, are given; slab by slab."""
    found = np.empty((len(ranks), 3), dtype=np.int64)
    begin = 0
    for z0, slab in _slabs(labels, box):
        inside = np.flatnonzero(slab == value)
        lo, hi = np.searchsorted(ranks, (begin, begin + len(inside)))
        if hi > lo:
            z, y, x = np.unravel_index(inside[ranks[lo:hi] - begin], slab.shape)
            found[lo:hi, 0], found[lo:hi, 1], found[lo:hi, 2] = z + z0, y + box[1].start, x + box[2].start
        begin += len(inside)
    return found


def _whole(labels: Any) -> _Box:
    z, y, x = (slice(0, int(n)) for n in labels.shape)
    return z, y, x


def _slabs(labels: Any, box: _Box) -> Iterator[tuple[int, NDArray[np.integer]]]:
    """Give parts of a box with some planes each, and where they begin."""
    planes, rows, columns = box
    most = _AT_ONCE if isinstance(labels, np.ndarray) else _FROM_DISK
    step = max(1, int(most // max(1, (rows.stop - rows.start) * (columns.stop - columns.start))))
    for z in range(planes.start, planes.stop, step):
        yield z, labels[z : min(z + step, planes.stop), rows, columns]
