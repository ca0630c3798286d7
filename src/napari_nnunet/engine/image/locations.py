"""Where the classes of a training case lie, drawn as nnU-Net draws them.

Of every class, one per cent of the voxels are kept, and 10,000 at least if there are as many. The seed is fixed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_nnunet.schema.dataset import LabelScheme, Region

MOST_ROWS = 10_000  # kept of a class that has more voxels, unless a hundredth of them is more still
LEAST_SHARE = 0.01
_SEED = 1234

Locations = dict[Region, NDArray[np.int64] | list[int]]
_Box = tuple[slice, slice, slice]


def location_keys(scheme: LabelScheme) -> tuple[Region, ...]:
    """Return what is located: every foreground label or region, and with an ignore label everything annotated."""
    keys: tuple[Region, ...] = scheme.regions if scheme.has_regions else scheme.foreground_labels
    if scheme.ignore_label is not None:
        keys = (*keys, (-1, *scheme.all_labels))
    return keys


def class_locations(labels: NDArray[np.integer], keys: Sequence[Region]) -> Locations:
    """Draw positions of every class without replacement.

    Parameters
    ----------
    labels : ndarray of int, shape (z, y, x)
        A preprocessed segmentation, -1 outside the image's content.
    keys : sequence of int or tuple of int
        Labels, or groups of labels.

    Returns
    -------
    dict
        Per key an int64 array (n, 4) of (0, z, y, x), n = max(min(10000, N), ceil(N / 100)) of the N voxels; an empty
        list if the class does not occur. The rows are those that nnU-Net draws.
    """
    rng = np.random.RandomState(_SEED)
    boxes = _boxes(labels)
    found: Locations = {}
    for key in keys:
        members = key if isinstance(key, tuple) else (key,)
        counts = [_count(labels, value, boxes.get(value)) for value in members]
        total = sum(counts)
        if total == 0:
            found[key] = []
            continue
        wanted = max(min(MOST_ROWS, total), math.ceil(total * LEAST_SHARE))
        # The draw without replacement of numpy's RandomState is the beginning of a permutation. 32 bits give the same.
        order = np.arange(total, dtype=np.int32 if total < 2**31 else np.int64)
        rng.shuffle(order)
        picked = order[:wanted].astype(np.int64)
        found[key] = _rows(labels, members, counts, boxes, picked)
    return found


def _boxes(labels: NDArray[np.integer]) -> dict[int, _Box]:
    """Return where each label lies; -1 is moved to 0 by adding two."""
    found: dict[int, _Box] = {}
    for z0, slab in _slabs(labels):
        for i, box in enumerate(ndimage.find_objects(np.add(slab, 2, dtype=np.int32))):
            if box is not None:
                moved = (slice(box[0].start + z0, box[0].stop + z0), box[1], box[2])
                found[i - 1] = _joined(found.get(i - 1, moved), moved)
    return found


def _joined(a: _Box, b: _Box) -> _Box:
    z, y, x = (slice(min(p.start, q.start), max(p.stop, q.stop)) for p, q in zip(a, b, strict=True))
    return z, y, x


def _count(labels: NDArray[np.integer], value: int, box: _Box | None) -> int:
    return 0 if box is None else int(np.count_nonzero(labels[box] == value))


def _rows(
    labels: NDArray[np.integer],
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


def _positions(labels: NDArray[np.integer], value: int, box: _Box, ranks: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return (z, y, x) of the voxels of a label whose ranks, ascending, are given; slab by slab."""
    found = np.empty((len(ranks), 3), dtype=np.int64)
    begin = 0
    for z0, slab in _slabs(labels[box]):
        inside = np.flatnonzero(slab == value)
        lo, hi = np.searchsorted(ranks, (begin, begin + len(inside)))
        if hi > lo:
            z, y, x = np.unravel_index(inside[ranks[lo:hi] - begin], slab.shape)
            found[lo:hi, 0], found[lo:hi, 1], found[lo:hi, 2] = z + z0, y, x
        begin += len(inside)
    found += [s.start for s in box]
    return found


def _slabs(labels: NDArray[np.integer]) -> Iterator[tuple[int, NDArray[np.integer]]]:
    step = max(1, int(4e6 // max(1, labels.shape[1] * labels.shape[2])))
    for z in range(0, labels.shape[0], step):
        yield z, labels[z : z + step]
