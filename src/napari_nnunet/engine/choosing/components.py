"""Connected parts of label maps, diagonals included: nnU-Net's postprocessing keeps the largest."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import cc3d
import numpy as np
from numpy.typing import NDArray

from napari_nnunet.schema.cleaning import Cleaning, Step, Target
from napari_nnunet.schema.dataset import Region

_SMALL = 2_000_000  # voxels
_PIECE = 1 << 22  # voxels


def beyond_largest(labels: NDArray[Any], values: Sequence[int] | None = None) -> NDArray[np.bool_] | None:
    """Return the voxels that are not in the largest part of their label, None if there are none.

    All labels are looked at in one pass, so that two hundred take hardly longer than one.

    Parameters
    ----------
    labels : ndarray of int or bool, shape ([Z,] Y, X)
        Voxels of one value that touch, at a corner too, belong together; of several largest parts all are kept.
    values : sequence of int, optional
        The labels that count; all but 0 if not given.
    """
    if not labels.any():
        return None
    # cc3d takes nothing read-only, though it changes nothing; of pictures that are bool it takes some background along.
    labels = np.require(labels.view(np.uint8) if labels.dtype == bool else labels, requirements=["C", "W"])
    parts, count = cc3d.connected_components(labels, connectivity=26 if labels.ndim == 3 else 8, return_N=True)
    if count < 2:
        return None
    small = _small_parts(labels.reshape(-1), parts.reshape(-1), count, values)
    if not small.any():
        return None
    wrong = np.empty(labels.shape, dtype=bool)
    for piece, found in _pieces(parts.reshape(-1), wrong.reshape(-1)):
        found[...] = small[piece]
    return wrong


def _small_parts(
    labels: NDArray[Any], parts: NDArray[Any], count: int, values: Sequence[int] | None
) -> NDArray[np.bool_]:
    """Return, by number of the part, whether its label has a larger one."""
    sizes = np.zeros(count + 1, dtype=np.int64)
    owners = np.zeros(count + 1, dtype=labels.dtype)
    for piece, found in _pieces(parts, labels):
        sizes += np.bincount(piece, minlength=count + 1)
        owners[piece] = found
    names, which = np.unique(owners, return_inverse=True)
    largest = np.zeros(len(names), dtype=np.int64)
    np.maximum.at(largest, which[1:], sizes[1:])
    small = sizes < largest[which]
    small[0] = False  # the background
    return small if values is None else small & np.isin(owners, values)


def _pieces(*flat: NDArray[Any]) -> Iterator[tuple[NDArray[Any], ...]]:
    """Cut arrays of the same length: an index of everything at once needs eight bytes per voxel."""
    for lo in range(0, flat[0].size, _PIECE):
        yield tuple(array[lo : lo + _PIECE] for array in flat)


def to_remove(labels: NDArray[Any], target: Target) -> NDArray[np.bool_] | None:
    """Return the voxels that keeping the largest part of a label, a region or a union of both removes, or None.

    Parameters
    ----------
    labels : ndarray of int, shape ([Z,] Y, X)
        A segmentation.
    target : int, tuple of int, or list of these
        What is taken together.
    """
    values = members(target)
    if len(values) == 1:
        return beyond_largest(labels == values[0])
    mask = np.empty(labels.shape, dtype=bool)
    for piece, found in _pieces(np.ascontiguousarray(labels).reshape(-1), mask.reshape(-1)):
        found[...] = np.isin(piece, values)
    return beyond_largest(mask)


def boxes_of(labels: NDArray[Any], targets: Sequence[Region]) -> dict[Region, tuple[slice, ...]]:
    """Return the smallest box around each label or region, in one pass; an empty one where it does not occur.

    Most labels of a large volume are small: looking at their box alone takes a fraction of the time. In small volumes,
    loading scipy would take longer than that saves; everything is returned there.
    """
    whole = (slice(None),) * labels.ndim
    if labels.size < _SMALL:
        return dict.fromkeys(targets, whole)
    from scipy import ndimage  # a tenth of a second, which small images need not wait

    found = ndimage.find_objects(labels)
    boxes: dict[Region, tuple[slice, ...]] = {}
    for target in targets:
        values = members(target)
        there = [found[v - 1] for v in values if 0 < v <= len(found) and found[v - 1] is not None]
        boxes[target] = whole if min(values) < 1 else around(there, labels.shape)
    return boxes


def around(boxes: Sequence[tuple[slice, ...]], shape: tuple[int, ...], *, margin: int = 0) -> tuple[slice, ...]:
    """Return the smallest box around boxes, with a margin as far as the shape allows; an empty one around none."""
    spans = [[s.indices(n)[:2] for s, n in zip(box, shape, strict=True)] for box in boxes]
    filled = [span for span in spans if all(lo < hi for lo, hi in span)]
    if not filled:
        return (slice(0, 0),) * len(shape)
    lowest, highest = np.min(filled, axis=0)[:, 0] - margin, np.max(filled, axis=0)[:, 1] + margin
    return tuple(slice(max(0, int(lo)), min(n, int(hi))) for lo, hi, n in zip(lowest, highest, shape, strict=True))


def members(target: Target) -> list[int]:
    """Return the label values a target combines."""
    if isinstance(target, int):
        return [target]
    return sorted({value for part in target for value in members(part)})


def clean(labels: NDArray[Any], cleaning: Cleaning) -> int:
    """Carry out the steps of a postprocessing in place; returns the number of voxels removed."""
    removed = 0
    for alone, steps in groupby(cleaning.steps, key=_stands_alone):
        wrongs: Iterable[tuple[NDArray[np.bool_] | None, int]]
        if alone:
            wrongs = [(beyond_largest(labels, [v for step in steps for v in members(step.target)]), 0)]
        else:
            wrongs = ((to_remove(labels, step.target), step.background) for step in steps)
        for wrong, background in wrongs:
            if wrong is not None:
                labels[wrong] = background
                removed += int(np.count_nonzero(wrong))
    return removed


def _stands_alone(step: Step) -> bool:
    """Whether a step changes nothing that another such step looks at, so that they are done together."""
    values = members(step.target)
    return step.background == 0 and len(values) == 1 and values[0] > 0


@dataclass(frozen=True, eq=False)
class Removed:
    """Voxels that were taken out, so that they can be put back.

    Parameters
    ----------
    where : tuple of ndarray
        Their indices.
    values : ndarray
        Their labels.
    """

    where: tuple[NDArray[np.intp], ...]
    values: NDArray[Any]

    def put_back(self, labels: NDArray[Any]) -> None:
        """Undo it in place; what was painted there since stays."""
        empty = labels[self.where] == 0
        labels[tuple(axis[empty] for axis in self.where)] = self.values[empty]


def take_out(labels: NDArray[Any], targets: Sequence[Target]) -> list[Removed]:
    """Keep only the largest part of each target, in place; returns what :meth:`Removed.put_back` undoes, last first."""
    done = []
    for target in targets:
        wrong = to_remove(labels, target)
        if wrong is not None:
            where = np.nonzero(wrong)
            done.append(Removed(where, labels[where].copy()))
            labels[where] = 0
    return done[::-1]


def cleaned(labels: NDArray[Any], targets: Sequence[Target]) -> NDArray[Any]:
    """Return a copy in which only the largest part of each target is left."""
    result = labels.copy()
    clean(result, Cleaning.of(targets))
    return result
