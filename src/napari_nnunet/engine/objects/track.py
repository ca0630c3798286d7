"""Which object of one time point is which of the next: linked by linear assignment, with gaps and divisions.

The assignment is laptrack's (Fukai and Kawaguchi 2023), after Jaqaman et al. 2008: distances within a limit are linked
so that their squares are smallest in sum, then gaps are closed and divisions found.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from napari_nnunet.errors import ResourceError

_USUAL = 95.0  # percentile of the distances to the nearest object of the next time point ...
_ROOM = 1.5  # ... and how much farther one may be looked for
_MOST = 2.0  # mean diameters
_Link = tuple[tuple[int, int], tuple[int, int]]  # time and place in its list, of an object and of what follows it


@dataclass(frozen=True, eq=False)
class Tracks:
    """Numbers that objects keep through time.

    Parameters
    ----------
    numbers : tuple of ndarray of int64, one per time point, shape (objects,)
        The track of every object, from 1 on in the order in which tracks begin.
    parents : dict of int to int
        Tracks that began by a division, and the one that divided.
    """

    numbers: tuple[NDArray[np.int64], ...]
    parents: dict[int, int]


def usual_distance(
    places: Sequence[NDArray[np.float64]],
    diameters: Sequence[NDArray[np.float64]],
    kinds: Sequence[Sequence[str]] | None = None,
) -> float:
    """Return how far objects are looked for in the next time point, in mm.

    One and a half times what 95 of 100 objects are away from the nearest object of the next time point; at most two and
    at least half a mean diameter.

    Parameters
    ----------
    places : sequence of ndarray, shape (objects, axes)
        Centres of every time point in mm.
    diameters : sequence of ndarray, shape (objects,)
        In mm.
    kinds : sequence of sequence of str, optional
        The kind of every object: the nearest is looked for among those of its kind.
    """
    away = []
    for kind in [None] if kinds is None else sorted({kind for own in kinds for kind in own}):
        chosen = (
            places
            if kind is None
            else [own[_of_kind(told, kind)] for own, told in zip(places, kinds or (), strict=True)]
        )
        away += [cKDTree(after).query(before)[0] for before, after in pairwise(chosen) if len(before) and len(after)]
    sizes = np.concatenate([*diameters, np.zeros(0)])
    mean = float(sizes.mean()) if len(sizes) else 1.0
    steps = np.concatenate([*away, np.zeros(0)])
    wanted = _ROOM * float(np.percentile(steps, _USUAL)) if len(steps) else mean
    return float(np.clip(wanted, 0.5 * mean, _MOST * mean))


def track(
    places: Sequence[NDArray[np.float64]],
    distance: float,
    gap: int,
    *,
    halves: float | None,
    kinds: Sequence[Sequence[str]] | None = None,
) -> Tracks:
    """Link objects of successive time points.

    Parameters
    ----------
    places : sequence of ndarray, shape (objects, axes)
        Centres of every time point in mm.
    distance : float
        How far an object can be from where it was, in mm.
    gap : int
        For how many time points an object may be missing.
    halves : float or None
        How far the halves of an object that divides can be from where it was, in mm; each begins a track of its own.
        None if no object divides.
    kinds : sequence of sequence of str, optional
        The kind of every object: only objects of one kind are linked.

    Raises
    ------
    ResourceError
        If laptrack is not installed.
    """
    links = _links_by_kind(places, distance, gap, halves, kinds)
    after: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for before, follower in links:
        after.setdefault(before, []).append(follower)
    numbers = tuple(np.zeros(len(own), dtype=np.int64) for own in places)
    parents: dict[int, int] = {}
    count = 0
    for time, own in enumerate(places):
        for i in range(len(own)):
            if not numbers[time][i]:
                count += 1
                numbers[time][i] = count
            number = int(numbers[time][i])
            followers = sorted(after.get((time, i), []))
            for then, j in followers:
                if len(followers) == 1:
                    numbers[then][j] = number
                else:
                    count += 1
                    numbers[then][j], parents[count] = count, number
    return Tracks(numbers, parents)


def taken_over(
    places: Sequence[NDArray[np.float64]],
    kinds: Sequence[Sequence[str]],
    numbers: Sequence[NDArray[np.int64]],
    distance: float,
) -> int:
    """Return how many tracks end where one of another kind begins at the next time point, within the distance."""
    last = {int(n): time for time, own in enumerate(numbers) for n in own}
    first = {int(n): time for time, own in reversed(list(enumerate(numbers))) for n in own}
    count = 0
    for time in range(len(places) - 1):
        ends = [i for i, n in enumerate(numbers[time]) if last[int(n)] == time]
        starts = [j for j, n in enumerate(numbers[time + 1]) if first[int(n)] == time + 1]
        if ends and starts:
            near = cKDTree(places[time + 1][starts]).query_ball_point(places[time][ends], distance)
            count += sum(
                any(kinds[time + 1][starts[j]] != kinds[time][i] for j in own)
                for i, own in zip(ends, near, strict=True)
            )
    return count


def _of_kind(kinds: Sequence[str], kind: str) -> NDArray[np.int64]:
    return np.array([i for i, each in enumerate(kinds) if each == kind], dtype=np.int64)


def _links_by_kind(
    places: Sequence[NDArray[np.float64]],
    distance: float,
    gap: int,
    halves: float | None,
    kinds: Sequence[Sequence[str]] | None,
) -> list[_Link]:
    """Return the links of objects of each kind by themselves."""
    if kinds is None:
        return _links(places, distance, gap, halves)
    links: list[_Link] = []
    for kind in sorted({kind for own in kinds for kind in own}):
        chosen = [_of_kind(own, kind) for own in kinds]
        found = _links([own[few] for own, few in zip(places, chosen, strict=True)], distance, gap, halves)
        links += [((t, int(chosen[t][i])), (u, int(chosen[u][j]))) for (t, i), (u, j) in found]
    return sorted(links)


def _links(places: Sequence[NDArray[np.float64]], distance: float, gap: int, halves: float | None) -> list[_Link]:
    """Return pairs of (time, position), earlier ones first."""
    if sum(map(bool, map(len, places))) < 2:
        return []
    square = float(distance) ** 2
    tracker = _laptrack()(
        metric="sqeuclidean",
        cutoff=square,
        gap_closing_metric="sqeuclidean",
        gap_closing_cutoff=square if gap else False,
        gap_closing_max_frame_count=gap + 1,
        splitting_metric="sqeuclidean",
        splitting_cutoff=False if halves is None else float(halves) ** 2,
        merging_cutoff=False,
    )
    graph = tracker.predict([np.asarray(own, dtype=float) for own in places])
    links = sorted((min(pair), max(pair)) for pair in graph.edges)
    return links if halves is None else _with_whole_divisions(places, links, distance, halves)


def _with_whole_divisions(
    places: Sequence[NDArray[np.float64]], links: Sequence[_Link], distance: float, halves: float
) -> list[_Link]:
    """Return links without lone halves, and with divisions of which both halves are farther away than objects go.

    The assignment may link one object only as if it were a half: what lies farther away than an object goes is another
    object, unless there is a second half. It finds no two halves where the object that divided has no other follower;
    they are the two, among those that nothing leads to, whose middle lies nearest to it, within the distance.
    """
    alone = Counter(before for before, _ in links)

    def away(link: _Link) -> float:
        (time, i), (then, j) = link
        return float(np.linalg.norm(places[time][i] - places[then][j]))

    kept = [link for link in links if alone[link[0]] > 1 or away(link) <= distance]
    left, led_to = {before for before, _ in kept}, {after for _, after in kept}
    for time, (own, then) in enumerate(pairwise(places)):
        starts = [j for j in range(len(then)) if (time + 1, j) not in led_to]
        ends = [i for i in range(len(own)) if (time, i) not in left]
        if len(starts) < 2 or not ends:
            continue
        near = cKDTree(then[starts]).query_ball_point(own[ends], halves)
        found = [
            (float(np.linalg.norm(then[[a, b]].mean(0) - own[i])), i, a, b)
            for i, places_near in zip(ends, near, strict=True)
            for a, b in combinations(sorted(starts[k] for k in places_near), 2)
        ]
        taken: set[int] = set()
        divided: set[int] = set()
        for middle, i, a, b in sorted(found):
            if middle <= distance and i not in divided and not taken & {a, b}:
                divided.add(i)
                taken |= {a, b}
                kept += [((time, i), (time + 1, a)), ((time, i), (time + 1, b))]
    return sorted(kept)


def _laptrack() -> Any:
    try:
        from laptrack import LapTrack  # an optional part of the installation
    except ImportError as error:
        raise ResourceError(
            "Objects are followed through time by laptrack, which is not installed. Install it with "
            "'pip install napari-nnunet[tracking]'."
        ) from error
    return LapTrack
