"""Objects of time series get the same number at every time, and a curve each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_nnunet.engine.objects.table import Row, object_table
from napari_nnunet.engine.objects.track import taken_over, track, usual_distance
from napari_nnunet.errors import DatasetError, NnunetError, SettingsError, counted, for_people, of_cases, some
from napari_nnunet.events import CaseFailed, Job, Note, Progress, Stage
from napari_nnunet.formats.atomic import copy_file, make_folder, remove_leftovers, write_text, written_beside
from napari_nnunet.formats.dataset.objects import read_objects
from napari_nnunet.formats.images.files import ending_of, read_header
from napari_nnunet.formats.results.objects import (
    DRAWN,
    FOUND_KINDS,
    found_files,
    info_file_beside,
    scheme_beside,
    write_found,
    write_numbered,
)
from napari_nnunet.formats.tables import text_of
from napari_nnunet.grid import Grid, relation, same_voxels
from napari_nnunet.jobs.objects.curves import figure_with, series_of
from napari_nnunet.jobs.objects.measure import images_of, object_rows, odd_files, scattered, unsized
from napari_nnunet.schema.requests.choosing import TrackRequest, TrackSettings

_LISTED = 12  # time points in a sentence
_DRAWN = 500  # curves in a picture, the longest ones


@dataclass(frozen=True, eq=False)
class Followed:
    """Objects that were followed through time.

    Parameters
    ----------
    numbers : tuple of dict of int to int, one per time point
        Number of an object to that of its track.
    parents : dict of int to int
        Tracks that began by a division, and the one that divided.
    rows : tuple of dict
        Everything that was measured, with ``time``, ``object`` (the track) and ``parent``, ordered by track and time.
    distance : float
        How far objects were looked for, in mm.
    objects : tuple of ndarray of uint32, one per time point
        Objects with the numbers of their tracks; empty where no arrays were given.
    said : str
        A sentence on kinds: what ends where another kind begins, or is of several; empty where nothing is.
    """

    numbers: tuple[Mapping[int, int], ...]
    parents: Mapping[int, int]
    rows: tuple[Row, ...]
    distance: float
    objects: tuple[NDArray[np.uint32], ...] = ()
    said: str = ""

    def kinds_at(self, time: int) -> dict[int, str]:
        """Return the kind of every object at a time, by its new number; empty where kinds are not told."""
        return {int(row["object"]): str(row["kind"]) for row in self.rows if row["time"] == time and "kind" in row}


@dataclass(frozen=True)
class TrackedSeries:
    """What was found in a series of files."""

    name: str
    times: int
    tracks: int
    divisions: int


def follow_rows(tables: Sequence[Sequence[Row]], times: Sequence[int], settings: TrackSettings) -> Followed:
    """Follow objects of which centre and diameter were measured.

    Parameters
    ----------
    tables : sequence of sequence of dict
        The rows of every time point; see :func:`napari_nnunet.engine.objects.table.object_table`.
    times : sequence of int
        What the time points are called.
    settings : TrackSettings
        How far, how long, whether objects divide, and whether they stay of their kind.

    Raises
    ------
    DatasetError
        If the kinds of objects are told at some time points only.
    """
    axes = [axis for axis in "zyx" if any(axis in row for rows in tables for row in rows)]
    places = [np.array([[row[axis] for axis in axes] for row in rows], dtype=float) for rows in tables]
    places = [own.reshape(len(own), max(len(axes), 1)) for own in places]
    sizes = [np.array([row["diameter"] for row in rows], dtype=float) for rows in tables]
    kinds = _kinds(tables, times)
    apart = None if settings.change_kind else kinds
    distance = settings.distance or usual_distance(places, sizes, apart)
    mean = float(np.concatenate([*sizes, np.zeros(0)]).mean()) if any(map(len, sizes)) else 0.0
    halves = settings.distance or max(distance, mean)  # a half lies up to a diameter away from the middle of both
    found = track(places, distance, settings.gap, halves=halves if settings.divisions else None, kinds=apart)
    rows: list[Row] = []
    for time, table, numbers in zip(times, tables, found.numbers, strict=True):
        for row, number in zip(table, numbers.tolist(), strict=True):
            parent: int | str = found.parents.get(number, "")
            rows.append(
                {"time": time, "object": number, "parent": parent, **{k: v for k, v in row.items() if k != "object"}}
            )
    rows.sort(key=lambda row: (int(row["object"]), int(row["time"])))
    renumbered = tuple(
        {int(row["object"]): number for row, number in zip(table, numbers.tolist(), strict=True)}
        for table, numbers in zip(tables, found.numbers, strict=True)
    )
    said = ""
    if kinds is not None and apart is None:
        said = _several_kinds(rows)
    elif kinds is not None:
        said = _taken_over(taken_over(places, kinds, found.numbers, distance))
    return Followed(renumbered, found.parents, tuple(rows), distance, said=said)


def _kinds(tables: Sequence[Sequence[Row]], times: Sequence[int]) -> list[list[str]] | None:
    """Return the kind of every object of every time point; None where none is told, or all are of one."""
    told = [time for time, rows in zip(times, tables, strict=True) if rows and all(row.get("kind") for row in rows)]
    untold = [time for time, rows in zip(times, tables, strict=True) if rows and time not in told]
    if told and untold:
        raise DatasetError(
            f"Objects have kinds at {counted(len(told), 'time point')}, but not at {some(untold)}. Give the kinds of "
            "all (kinds/CASE beside the objects), or of none."
        )
    kinds = [[str(row["kind"]) for row in rows] for rows in tables] if told else []
    return kinds if len({kind for own in kinds for kind in own}) > 1 else None


def _taken_over(count: int) -> str:
    if not count:
        return ""
    return (
        f"{counted(count, 'object ends', 'objects end')} where one of another kind begins: an object stays of its "
        "kind. If objects change their kind on the way, let them (--change_kind, 'Kinds change')."
    )


def _several_kinds(rows: Sequence[Row]) -> str:
    kinds: dict[int, set[str]] = {}
    for row in rows:
        kinds.setdefault(int(row["object"]), set()).add(str(row["kind"]))
    count = sum(len(own) > 1 for own in kinds.values())
    return f"{counted(count, 'object changes its kind', 'objects change their kind')} on the way." if count else ""


def follow_arrays(
    frames: Sequence[tuple[NDArray[Any], NDArray[Any] | None, Mapping[int, str]]],
    times: Sequence[int],
    spacing: Sequence[float],
    channels: Sequence[str],
    settings: TrackSettings,
) -> Job[Followed]:
    """Measure and follow the objects of arrays; the frames are as for ``measure_arrays``."""
    yield Stage(name="Measuring objects", total=len(frames))
    tables = []
    for i, (objects, image, kinds) in enumerate(frames):
        tables.append(list(object_table(objects, spacing, image, channels, kinds)))
        yield Progress(done=i + 1, total=len(frames))
    yield Stage(name="Following objects")
    found = follow_rows(tables, times, settings)
    changed = [renumbered(objects, own) for (objects, _, _), own in zip(frames, found.numbers, strict=True)]
    return replace(found, objects=tuple(changed))


def renumbered(objects: NDArray[Any], numbers: Mapping[int, int]) -> NDArray[np.uint32]:
    """Return objects with other numbers."""
    known = np.array(sorted(numbers), dtype=np.int64)
    if not len(known):
        return np.zeros(objects.shape, dtype=np.uint32)
    new = np.array([numbers[int(number)] for number in known], dtype=np.uint32)
    places = np.minimum(np.searchsorted(known, objects), len(known) - 1)
    return np.where(objects != 0, new[places], 0).astype(np.uint32)


def track_objects(request: TrackRequest) -> Job[list[TrackedSeries]]:
    """Follow the objects of series of files, and write the objects with their new numbers, a table and a picture.

    Returns
    -------
    list of TrackedSeries
        What was found in each series.

    Raises
    ------
    DatasetError, ImageError
        If names tell no time, or no series can be followed. Those that cannot are told as events; the table has the
        others.
    ResourceError
        If laptrack is not installed.
    """
    if not request.objects.is_dir():
        raise DatasetError(f"{request.objects} is not a folder; put the objects of every time point into a file there.")
    files = found_files(request.objects)
    images = {case: images_of(request.images, case) for case in files}
    unit = "voxels" if (yield from unsized([next(iter(images[case]), path) for case, path in files.items()])) else "mm"
    if request.target.resolve() == request.objects.resolve():
        raise SettingsError(f"{request.target} holds the objects themselves. Choose another folder for the result.")
    remove_leftovers(make_folder(request.target))
    source = next(iter(files.values()))
    if scheme_beside(source) is not None and (beside := info_file_beside(source)) is not None:
        copy_file(beside, request.target / "dataset.json")  # says which kinds there are
    table: list[Row] = []
    done: list[TrackedSeries] = []
    every = series_of(list(files))
    failed: dict[str, NnunetError] = {}
    for index, (series, times) in enumerate(every.items()):
        yield Stage(name=f"Following {series}", total=len(times))
        try:
            cases = {time: (files[case], images[case]) for time, case in times.items()}
            found = yield from _follow_series(series, cases, request)
        except Exception as unforeseen:  # whatever it is, the series after it are followed
            failed[series] = for_people(unforeseen)
            yield CaseFailed.of(series, failed[series], index, len(every))
            continue
        table += [{"series": series, **row} for row in found.rows]
        tracks = len({row["object"] for row in found.rows})
        done.append(TrackedSeries(series, len(times), tracks, len(set(found.parents.values()))))
        yield Note(text=f"{series}: objects were looked for within {found.distance:.4g} {unit}.")
        if found.said:
            yield Note(level="warning", text=f"{series}: {found.said}")
    if not done:
        raise next(iter(failed.values())) if len(failed) == 1 else of_cases(failed, len(every), "followed")
    write_text(request.target / "tracks.csv", text_of(table))
    draw_curves(table, request.target / DRAWN, unit)
    return done


def _follow_series(
    series: str, cases: Mapping[int, tuple[Path, tuple[Path, ...]]], request: TrackRequest
) -> Job[Followed]:
    """Follow the objects of one series, of which the files of every time are given, and write them."""
    names = {time: path.name[: -len(ending_of(path))] for time, (path, _) in cases.items()}
    yield from _check_times(series, names, {names[t]: next(iter(image), path) for t, (path, image) in cases.items()})
    tables = []
    for i, (path, image) in enumerate(cases.values()):
        tables.append(object_rows(path, image))
        yield Progress(done=i + 1, total=len(cases))
    yield from odd_files({name: rows.remarks for name, rows in zip(names.values(), tables, strict=True)})
    yield from scattered({name: rows.pieces for name, rows in zip(names.values(), tables, strict=True)})
    found = follow_rows(tables, list(cases), request)
    for (time, (path, _)), numbers in zip(cases.items(), found.numbers, strict=True):
        objects, geometry = read_objects(path)
        kinds, target, scheme = found.kinds_at(time), request.target / path.name, scheme_beside(path)
        if kinds and scheme is not None:
            write_found(renumbered(objects, numbers), kinds, scheme, geometry, target, None)
        else:
            (request.target / FOUND_KINDS / path.name).unlink(missing_ok=True)  # of a run before
            write_numbered(renumbered(objects, numbers), geometry, target)
    return found


def _check_times(series: str, times: Mapping[int, str], files: Mapping[str, Path]) -> Job[None]:
    """Say whether times of a series are missing, and whether its files lie in different places.

    Raises
    ------
    DatasetError
        If voxels of a time point are others than those of the first: objects are followed by their places.
    """
    if len({later - earlier for earlier, later in pairwise(times)}) > 1:
        listed = some(list(times), _LISTED)
        yield Note(
            level="warning",
            text=f"{series}: its time points are not evenly spaced ({listed}). They were followed as if they were; "
            "are some missing?",
        )
    (first, path), *others = files.items()
    grid, moved = _grid(path), []
    for case, other in others:
        own = _grid(other)
        found = relation(grid, own)
        if same_voxels(found, grid, own):
            continue
        if not _only_moved(grid, own):
            raise DatasetError(
                f"{case} does not lie on the grid of {first}, the first time point of {series}: {found}. Objects are "
                "followed by their places; bring all time points onto one grid first."
            )
        moved.append(case)
    if moved:
        yield Note(
            level="warning",
            text=f"{series}: according to their headers, {len(moved)} of {counted(len(files), 'time point')} lie in "
            f"another place than the first ({moved[0]}{', ...' if len(moved) > 1 else ''}). They were followed "
            "voxel by voxel.",
        )


def _grid(path: Path) -> Grid:
    header = read_header(path)
    return Grid(header.shape[1:], header.geometry)


def _only_moved(first: Grid, second: Grid) -> bool:
    """Whether two grids differ in nothing but their origin."""
    a, b = first.matrix, second.matrix
    alike = (
        a is not None and b is not None and np.allclose(a[:, :-1], b[:, :-1], atol=1e-3 * min(first.geometry.spacing))
    )
    return first.shape == second.shape and alike


def draw_curves(rows: Sequence[Row], path: Path, unit: str = "mm") -> None:
    """Draw size over time, a curve per object, and how many objects there are at each time.

    The unit is "mm", or "voxels" where nobody said how large these are.
    """
    figure, (above, below) = figure_with(2, 3)
    curves: dict[tuple[str, int], list[Row]] = {}
    for row in rows:
        curves.setdefault((str(row.get("series", "")), int(row["object"])), []).append(row)
    size = "area" if any("area" in row for row in rows) else "volume"
    for own in sorted(curves.values(), key=len, reverse=True)[:_DRAWN]:
        above.plot(
            [row["time"] for row in own], [row[size] for row in own], linewidth=1, marker="." if len(own) < 3 else ""
        )
    power = {"mm": "mm²" if size == "area" else "mm³"}
    above.set_ylabel(f"{size} ({power.get(unit, unit)})")
    for series in dict.fromkeys(name for name, _ in curves):
        times = [int(row["time"]) for row in rows if str(row.get("series", "")) == series]
        values, counts = np.unique(times, return_counts=True)
        below.plot(values, counts, marker=".", label=series)
    below.set_ylabel("objects")
    below.set_xlabel("time point")
    if len({name for name, _ in curves}) > 1:
        below.legend()
    with written_beside(path, suffix=".png") as temporary:
        figure.savefig(temporary)
