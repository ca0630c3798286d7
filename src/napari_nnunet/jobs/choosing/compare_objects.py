"""Two segmentations of numbered objects side by side: what became of each object."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_nnunet.engine.objects.match import Matching
from napari_nnunet.engine.objects.verdict import Verdict, verdicts_by_kind, wrong_first
from napari_nnunet.errors import counted, some
from napari_nnunet.events import Job, Progress, Stage
from napari_nnunet.jobs.choosing.evaluate_objects import ObjectEvaluation, match_pairs, read_object_pair
from napari_nnunet.jobs.choosing.pairs import Pair, pair_up_objects


@dataclass(frozen=True, eq=False)
class ObjectComparison:
    """What became of the objects of an image.

    Parameters
    ----------
    matching : Matching
        For scores.
    painted : ndarray of uint8, shape ([T,] [Z,] Y, X)
        See :data:`napari_nnunet.engine.objects.verdict.FATES`.
    verdicts : tuple of Verdict
        What is wrong first; places have the axes of the arrays.
    said : str
        Why kinds do not count although objects have some; else empty.
    """

    matching: Matching
    painted: NDArray[np.uint8]
    verdicts: tuple[Verdict, ...]
    said: str = ""


Kinds = tuple[Mapping[int, str], Mapping[int, str]]


def compare_objects(
    first: Any, second: Any, *, series: bool = False, kinds: Kinds | None = None
) -> Job[ObjectComparison]:
    """Compare numbered objects of two arrays on the same grid.

    Parameters
    ----------
    first, second : array-like of int, shape ([T,] [Z,] Y, X)
        The reference, and what is compared with it; both are copied, for people go on editing.
    series : bool
        Whether the first axis is time; objects of different time points are not compared.
    kinds : tuple of (dict of int to str, dict of int to str)
        The kind of every object of both by number, empty where nothing tells them. Objects of different kinds are no
        match, but for what ``said`` names.
    """
    one, other = np.array(first), np.array(second)
    kinds, said = _comparable(one, other, kinds or ({}, {}))
    frames: Sequence[tuple[Any, Any]] = list(zip(one, other, strict=True)) if series else [(one, other)]
    yield Stage(name="Comparing", total=len(frames))
    matching, painted, found = Matching.none(), [], []
    for i, (a, b) in enumerate(frames):
        own, marked, fates = verdicts_by_kind(
            a, b, *(_of(frame, all_) for frame, all_ in zip((a, b), kinds, strict=True))
        )
        matching += own
        painted.append(marked)
        found += [replace(fate, place=(float(i), *fate.place)) for fate in fates] if series else list(fates)
        yield Progress(done=i + 1, total=len(frames))
    return ObjectComparison(matching, np.stack(painted) if series else painted[0], wrong_first(found), said)


def _comparable(one: NDArray[Any], other: NDArray[Any], kinds: Kinds) -> tuple[Kinds, str]:
    """Return the kinds by which objects are matched, none where they do not count, and why they do not."""
    names = [set(own.values()) for own in kinds]
    if not all(names) or len(names[0] | names[1]) < 2:
        return ({}, {}), ""
    if not names[0] & names[1]:
        listed = "; ".join(", ".join(sorted(own)) for own in names)
        return ({}, {}), f"Both name other kinds of objects ({listed}), so that kinds do not count."
    without = [
        int(n)
        for array, own in zip((one, other), kinds, strict=True)
        for n in np.unique(array)
        if n and int(n) not in own
    ]
    if without:
        many = counted(len(without), "object has", "objects have")
        return ({}, {}), f"{many} no kind ({some(without)}), so that kinds do not count."
    return kinds, ""


def _of(frame: NDArray[Any], kinds: Mapping[int, str]) -> dict[int, str]:
    """Return the kinds of the objects of a frame."""
    return {number: kinds[number] for n in np.unique(frame) if (number := int(n)) in kinds}


def compare_object_pair(pair: Pair) -> Job[tuple[ObjectComparison, tuple[dict[int, str], dict[int, str]]]]:
    """Compare the numbered objects of one case by the rules that :func:`compare_object_folders` counts by.

    Objects of different kinds are no match, and what nobody annotated is left out.

    Returns
    -------
    tuple of (ObjectComparison, (dict of int to str, dict of int to str))
        What became of each object, and the kinds of both sides by number, empty where nothing tells them.
    """
    yield Stage(name=f"Comparing {pair.name}")
    read = read_object_pair(pair)
    matching, painted, found = verdicts_by_kind(read.reference, read.prediction, *read.kinds)
    return ObjectComparison(matching, painted, found), read.kinds


def compare_object_folders(first: Path, second: Path, *, workers: int = 0) -> Job[tuple[list[Pair], ObjectEvaluation]]:
    """Compare the numbered objects of two folders with files of the same names.

    Returns
    -------
    tuple of (list of Pair, ObjectEvaluation)
        The files, and the matching of every case.
    """
    pairs = pair_up_objects(first, second)
    return list(pairs), (yield from match_pairs(pairs, workers=workers))
