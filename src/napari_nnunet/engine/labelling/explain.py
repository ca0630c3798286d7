"""What went wrong with labels that a network contradicts: the usual slips, each tried on the labels of a case."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.fft import irfftn, next_fast_len, rfftn
from scipy.optimize import linear_sum_assignment

from napari_nnunet.engine.choosing.metrics import Joint
from napari_nnunet.engine.labelling.doubt import ClassDoubt
from napari_nnunet.errors import counted
from napari_nnunet.schema.dataset import Region

ErrorKind = Literal["another case's", "missing", "swapped", "mirrored", "shifted", "cut off", "too small", "too large"]

_CLEARLY = 0.2  # gain of mean Dice that speaks for swapped classes or a mirrored mask
_SOMEWHAT = 0.1  # the same for a shift
_TRUSTED = 0.5  # a network that expects less Dice than this is not believed about a missing class
_FEW = 10  # voxels of a class that the network sees
_INSIDE = 0.9  # share of the smaller one that lies in the larger one
_MUCH_SMALLER = 0.65
_END = 0.15  # share of a structure beyond the last labelled plane that speaks for a mask that was cut off
_POINTS = 1 << 21  # of the grid on which shifts are looked for


@dataclass(frozen=True)
class Slip:
    """Something that explains why labels and network differ.

    Parameters
    ----------
    kind : str
        Which.
    text : str
        In words, with names of classes and axes.
    """

    kind: ErrorKind
    text: str


def slips(
    reference: NDArray[Any],
    seen: NDArray[Any],
    classes: Mapping[Region, ClassDoubt],
    names: Mapping[int, str],
    *,
    believed: float = _TRUSTED,
) -> tuple[Slip, ...]:
    """Return the slips that explain a case, the plainest first.

    Parameters
    ----------
    reference, seen : ndarray of int, shape ([Z,] Y, X)
        What was drawn, and what the network sees; voxels that do not count are 0 in both.
    classes : dict of Region to ClassDoubt
        From :func:`~napari_nnunet.engine.labelling.doubt.doubt_of`.
    names : dict of int to str
        Of the label values.
    believed : float
        Dice that the network must expect of a class before its absence from the labels is called a slip.
    """
    joint = Joint.count(reference, seen)
    absent = _missing(classes, names, believed)
    if absent:
        return tuple(absent)
    whole = swapped(joint, names) or mirrored(reference, seen) or shifted(reference, seen)
    if whole is not None:
        return (whole,)
    return (*cut_off(reference, seen), *_sizes(joint, names))


def fits_moved(reference: NDArray[Any], seen: NDArray[Any]) -> float:
    """Return the mean Dice of labels with what the network sees, where they fit best by moving them."""
    move = _best_move(reference, seen)
    return _mean_dice(Joint.count(displaced(reference, move) if move and any(move) else reference, seen))


def _missing(classes: Mapping[Region, ClassDoubt], names: Mapping[int, str], believed: float) -> list[Slip]:
    return [
        Slip("missing", f"{_name(target, names)} is not drawn; the network sees {counted(found.seen, 'voxel')} of it")
        for target, found in classes.items()
        if not found.labelled and found.seen >= _FEW and not found.expected < believed
    ]


def _name(target: Region, names: Mapping[int, str]) -> str:
    values = (target,) if isinstance(target, int) else target
    return " + ".join(names.get(value, str(value)) for value in values)


def _dice_table(joint: Joint) -> NDArray[np.float64]:
    """Return the Dice of every drawn value with every seen one, background apart; (n, n) in the order of values."""
    rows, columns = joint.table.sum(axis=1), joint.table.sum(axis=0)
    return 2 * joint.table / np.maximum(rows[:, None] + columns[None, :], 1)


def _mean_dice(joint: Joint) -> float:
    present = [int(np.searchsorted(joint.values, value)) for value in joint.present]
    return float(np.diagonal(_dice_table(joint))[present].mean()) if present else 1.0


def swapped(joint: Joint, names: Mapping[int, str]) -> Slip | None:
    """Return which classes were exchanged, None if exchanging none makes the labels agree clearly better."""
    present = [i for i, value in enumerate(joint.values) if int(value) in joint.present]
    if len(present) < 2:
        return None
    table = _dice_table(joint)[np.ix_(present, present)]
    rows, columns = linear_sum_assignment(table, maximize=True)
    if table[rows, columns].mean() - np.diagonal(table).mean() < _CLEARLY:
        return None
    values = [int(joint.values[i]) for i in present]
    changed = [
        f"what is drawn as {names.get(values[r], str(values[r]))} is seen as {names.get(values[c], str(values[c]))}"
        for r, c in zip(rows, columns, strict=True)
        if r != c and table[r, c] >= _CLEARLY
    ]
    return Slip("swapped", "classes are exchanged: " + ", ".join(changed)) if changed else None


def mirrored(reference: NDArray[Any], seen: NDArray[Any]) -> Slip | None:
    """Return along which axes the labels are mirrored, None if mirroring does not make them agree clearly better."""
    before = _mean_dice(Joint.count(reference, seen))
    ways = [axes for n in (1, 2, 3) for axes in itertools.combinations(range(reference.ndim), n)]
    gains = {axes: _mean_dice(Joint.count(np.flip(reference, axes), seen)) - before for axes in ways}
    best = max(gains, key=lambda axes: gains[axes])
    if gains[best] < _CLEARLY:
        return None
    return Slip("mirrored", f"mirrored along {_axes(best, reference.ndim)}")


def _axes(axes: Sequence[int], ndim: int) -> str:
    return " and ".join("zyx"[3 - ndim :][axis] for axis in axes)


def shifted(reference: NDArray[Any], seen: NDArray[Any]) -> Slip | None:
    """Return how far the labels lie beside the structure, None if no shift makes them agree better.

    The shift is where the cross-correlation of both foregrounds is highest (by Fourier transform; large volumes on a
    coarser grid).
    """
    move = _best_move(reference, seen)
    if not any(move):
        return None
    before = _mean_dice(Joint.count(reference, seen))
    if _mean_dice(Joint.count(displaced(reference, move), seen)) - before < _SOMEWHAT:
        return None
    words = ", ".join(f"{axis} {n:+d}" for axis, n in zip("zyx"[3 - len(move) :], move, strict=True) if n)
    return Slip("shifted", f"beside the structure: moved by {words} voxels the labels fit better")


def _best_move(reference: NDArray[Any], seen: NDArray[Any]) -> tuple[int, ...]:
    """Return by how many voxels labels have to be moved so that both foregrounds overlap most; empty without any."""
    drawn, found = reference > 0, seen > 0
    if not drawn.any() or not found.any():
        return ()
    box = _box_of(drawn | found)
    drawn, found = drawn[box], found[box]
    step = max(1, int(np.ceil((drawn.size * 2**drawn.ndim / _POINTS) ** (1 / drawn.ndim))))
    thin = (slice(None, None, step),) * drawn.ndim
    a, b = drawn[thin].astype(np.float32), found[thin].astype(np.float32)
    shape = [next_fast_len(2 * n, real=True) for n in a.shape]
    overlap = irfftn(np.conj(rfftn(a, shape)) * rfftn(b, shape), shape)
    peak = np.unravel_index(int(np.argmax(overlap)), overlap.shape)
    return tuple(int(step * (n - size if n > size // 2 else n)) for n, size in zip(peak, shape, strict=True))


def displaced(labels: NDArray[Any], move: Sequence[int]) -> NDArray[Any]:
    """Return labels moved by voxels along each axis; what leaves the grid is lost, what enters is 0."""
    result = np.zeros_like(labels)
    to = tuple(slice(max(0, n), max(0, size + min(0, n))) for n, size in zip(move, labels.shape, strict=True))
    of = tuple(slice(max(0, -n), max(0, size - max(0, n))) for n, size in zip(move, labels.shape, strict=True))
    result[to] = labels[of]
    return result


def _box_of(mask: NDArray[np.bool_]) -> tuple[slice, ...]:
    spans = []
    for axis in range(mask.ndim):
        there = np.flatnonzero(mask.any(axis=tuple(other for other in range(mask.ndim) if other != axis)))
        spans.append(slice(int(there[0]), int(there[-1]) + 1))
    return tuple(spans)


def cut_off(reference: NDArray[Any], seen: NDArray[Any]) -> list[Slip]:
    """Return at which planes the labels end although the structure goes on."""
    drawn, found = reference > 0, seen > 0
    total = int(np.count_nonzero(found))
    if not total or not drawn.any():
        return []
    result = []
    for axis in range(reference.ndim):
        others = tuple(other for other in range(reference.ndim) if other != axis)
        planes = np.flatnonzero(drawn.any(axis=others))
        amounts = np.count_nonzero(found, axis=others)
        name = "zyx"[3 - reference.ndim :][axis]
        for side, plane, beyond in (
            ("before", int(planes[0]), int(amounts[: planes[0]].sum())),
            ("after", int(planes[-1]), int(amounts[planes[-1] + 1 :].sum())),
        ):
            if beyond / total >= _END:
                share = f"{beyond / total:.0%} of what the network sees"
                result.append(Slip("cut off", f"nothing is drawn {side} {name} = {plane}, where {share} lies"))
    return result


def _sizes(joint: Joint, names: Mapping[int, str]) -> list[Slip]:
    """Return the classes that lie within what the network sees and are much smaller, and the reverse."""
    result = []
    for value in joint.present:
        i = int(np.searchsorted(joint.values, value))
        hits, drawn, found = (int(n) for n in (joint.table[i, i], joint.table[i].sum(), joint.table[:, i].sum()))
        if not drawn or not found:
            continue
        name = names.get(value, str(value))
        if drawn < _MUCH_SMALLER * found and hits > _INSIDE * drawn:
            result.append(
                Slip("too small", f"{name} is drawn with {counted(drawn, 'voxel')}, within {found} that are seen")
            )
        elif found < _MUCH_SMALLER * drawn and hits > _INSIDE * found:
            result.append(
                Slip("too large", f"{name} is drawn with {counted(drawn, 'voxel')}, around {found} that are seen")
            )
    return result
