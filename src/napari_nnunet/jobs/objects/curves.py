"""Series of files in time, and the volume of every class in them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from napari_nnunet.engine.choosing.volumes import class_volumes
from napari_nnunet.engine.objects.table import Row
from napari_nnunet.errors import DatasetError
from napari_nnunet.events import Job, Note, Stage
from napari_nnunet.formats.atomic import make_folder, remove_leftovers, write_text, written_beside
from napari_nnunet.formats.images.files import common_ending, read_labels
from napari_nnunet.formats.tables import text_of
from napari_nnunet.jobs.case_size import bytes_of
from napari_nnunet.processes.pool import Task, each_case, rest_of
from napari_nnunet.schema.dataset import DatasetInfo, LabelScheme
from napari_nnunet.schema.objects import ObjectScheme
from napari_nnunet.schema.requests.choosing import CurvesRequest
from napari_nnunet.volume import by_text

_MARK = "((?i:tp|time|t|frame|f))"  # of a number that is a time; a letter of a name is none: left_1, plant_2
_TIME = re.compile(rf"^(.*?)(?:(?:^|[ _.-]+){_MARK}[ _.-]?|(?:(?<=\d)|(?<=[a-z])(?=[TF])){_MARK}|[ _.-]*)(\d+)$")
_DATE = re.compile(r"^(.*?)[ _.-]*((?:19|20)\d\d)([-_.]?)(\d\d)\3(\d\d)$")
_POINTS = "time point"
_PANELS = 40  # of a picture; the table has all classes
_MANY = 20  # values that are hardly classes
_BYTES = 8  # per voxel, while classes are counted


@dataclass(frozen=True)
class ClassCurves:
    """How the classes of a series change.

    Parameters
    ----------
    name : str
        Of the series.
    times : tuple of float
        In ``unit``.
    unit : str
        "time point" where nothing else is told.
    sizes : dict of str to tuple of float
        Of every class at every time.
    measured_in : str
        "mm³", "mm²" or "voxels".
    """

    name: str
    times: tuple[float, ...]
    unit: str
    sizes: Mapping[str, tuple[float, ...]]
    measured_in: str

    @property
    def time_title(self) -> str:
        """What stands over times."""
        return _POINTS if self.unit == _POINTS else f"time ({self.unit})"


@dataclass(frozen=True)
class _Seen:
    """Voxels of every value in a file, the size of one in mm (mm² of pictures), the axes of space, and what is odd."""

    counts: tuple[int, ...]
    voxel_mm: tuple[float, ...] | None
    ndim: int
    remarks: tuple[str, ...] = ()


def class_curves(request: CurvesRequest) -> Job[list[ClassCurves]]:
    """Measure every class of series of segmentations, and write a table and a picture of the curves.

    Returns
    -------
    list of ClassCurves
        One per series; curves.csv and curves.png have been written.

    Raises
    ------
    DatasetError, ImageError
        If names tell no time, the files hold numbered objects, or none can be read. Those that cannot are told as
        events; the curves go through the others.
    """
    if not request.source.is_dir():
        raise DatasetError(
            f"{request.source} is not a folder; put the segmentations of every time point into a file there."
        )
    ending = common_ending(request.source)
    files = {
        path.name[: -len(ending)]: path
        for path in sorted(request.source.iterdir())
        if path.name.lower().endswith(ending) and not path.name.startswith(".")
    }
    scheme = _scheme(request)
    series = series_of(list(files))
    yield Stage(name="Measuring classes", total=len(files))
    tasks = [Task(case, (path,), partial(bytes_of, path, _BYTES)) for case, path in files.items()]
    work = sum(bytes_of(path, 1) for path in files.values())
    seen: dict[str, _Seen] = rest_of(
        (yield from each_case(_look, tasks, workers=request.workers, work=work)), "measured"
    )
    series = yield from _measured(series, seen)
    for names, text in by_text({case: found.remarks for case, found in seen.items()}):
        yield Note(level="warning", text=f"{names}: {text}.")
    yield from _doubt(scheme, seen)
    known = all(found.voxel_mm is not None for found in seen.values())
    if not known:
        yield Note(
            level="warning",
            text="Not every file has a voxel size, so that sizes are given in voxels, not in mm.",
        )
    dated = _dates(list(files)) is not None
    unit = "days" if dated else (request.unit or _POINTS)
    step = 1.0 if dated or request.interval is None else request.interval
    curves = [_curves(name, times, seen, scheme, (step, unit), known=known) for name, times in series.items()]
    remove_leftovers(make_folder(request.target))
    write_text(request.target / "curves.csv", text_of([row for own in curves for row in _rows(own)]))
    _draw(curves, request.target / "curves.png")
    return curves


def _doubt(scheme: LabelScheme | None, seen: Mapping[str, _Seen]) -> Job[None]:
    """Say where nothing names the values of files, and these are more than classes usually are."""
    values = {value for found in seen.values() for value, count in enumerate(found.counts) if value and count}
    if scheme is None and len(values) > _MANY:
        yield Note(
            level="warning",
            text=f"The segmentations have {len(values)} values, and no dataset.json names them. If they number "
            "objects, a number is another object at every time: follow the objects first ('track').",
        )


def _measured(series: Mapping[str, Mapping[int, str]], seen: Mapping[str, _Seen]) -> Job[dict[str, dict[int, str]]]:
    """Return the time points that were measured; says where percents refer to another one than the first."""
    found = {}
    for name, times in series.items():
        there = {time: case for time, case in times.items() if case in seen}
        first = next(iter(times.values()))
        if there and first not in seen:
            yield Note(
                level="warning",
                text=f"{name}: its first time point, {first}, could not be measured. Percents refer to "
                f"{next(iter(there.values()))}.",
            )
        if there:
            found[name] = there
    return found


def series_of(names: Sequence[str]) -> dict[str, dict[int, str]]:
    """Return cases by series and time: ``pos1_t003`` is time 3 of ``pos1``.

    Where all names end in dates (``anna_2024-03-05``), times are days since the first of the series.

    Raises
    ------
    DatasetError
        If a name has no number at its end, or two have the same.
    """
    dated = _dates(names)
    if dated is not None:
        return _by_dates(dated)
    found: dict[tuple[str, str], dict[int, str]] = {}
    for name in sorted(names):
        match = _TIME.match(name)
        if match is None:
            raise DatasetError(f"{name} has no number at its end that tells its time, such as {name}_t000.")
        series, time = found.setdefault((match[1], (match[2] or match[3] or "").lower()), {}), int(match[4])
        if time in series:
            raise DatasetError(f"{series[time]} and {name} are both time {time}.")
        series[time] = name
    return {name: dict(sorted(times.items())) for name, times in zip(_titles(list(found)), found.values(), strict=True)}


def _titles(series: Sequence[tuple[str, str]]) -> list[str]:
    """Return a name for every series, of which what stands before the time and before its number are given.

    What marks a time is told only of those that nothing else tells apart; a series without a name is called "series".
    """
    starts = Counter(start for start, _ in series)
    wanted = [f"{start}_{mark}".strip("_") if starts[start] > 1 else start for start, mark in series]
    nameless, titles = "unnamed" if "series" in wanted else "series", list[str]()
    for start in [title or nameless for title in wanted]:
        others = (title for n in count(2) if (title := f"{start} ({n})") not in (*titles, *wanted))
        titles.append(start if start not in titles else next(others))
    return titles


def _dates(names: Sequence[str]) -> list[tuple[str, date, str]] | None:
    """Return the series, the day and the whole of every name; None unless all end in dates."""
    found = []
    for name in sorted(names):
        match = _DATE.match(name)
        try:
            day = None if match is None else date(int(match[2]), int(match[4]), int(match[5]))
        except ValueError:  # the 45th of a month
            return None
        if match is None or day is None:
            return None
        found.append((match[1], day, name))
    return found or None


def _by_dates(dated: Sequence[tuple[str, date, str]]) -> dict[str, dict[int, str]]:
    """Return names by series and days since the first of each."""
    found: dict[str, dict[int, str]] = {}
    for series, day, name in dated:
        own, number = found.setdefault(series, {}), day.toordinal()
        if number in own:
            raise DatasetError(f"{own[number]} and {name} are both of the same day.")
        own[number] = name
    titles = _titles([(series, "") for series in found])
    return {
        title: {number - min(own): name for number, name in sorted(own.items())}
        for title, own in zip(titles, found.values(), strict=True)
    }


def _scheme(request: CurvesRequest) -> LabelScheme | None:
    """Return what the values mean; None where nothing tells it.

    Raises
    ------
    DatasetError
        If the dataset.json beside says that the values number objects.
    """
    beside = request.source / "dataset.json"
    path = request.dataset_json or (beside if beside.is_file() else None)
    if path is None:
        return None
    info = DatasetInfo.read(path)
    if request.dataset_json is None and ObjectScheme.of(info) is not None:
        raise DatasetError(
            f"{beside} says that the values in {request.source} number objects. "
            "Objects are followed by 'track'; segmentations of classes are measured here.",
            shell="If these are classes (predict --classes), name a dataset.json: -djfile FILE.",
        )
    return info.labels


def _look(path: Path) -> _Seen:
    """Count the values of one file; may run in a worker process."""
    labels, geometry = read_labels(path, as_stored=True)
    if labels.size and (labels.min() < 0 or labels.max() >= 1 << 16):
        raise DatasetError(f"{path} has values from {labels.min()} to {labels.max()}; those of classes are 0 to 65535.")
    counts = np.zeros(1, dtype=np.int64)
    for plane in labels:
        own = np.bincount(plane.reshape(-1), minlength=len(counts))
        own[: len(counts)] += counts
        counts = own
    return _Seen(tuple(counts.tolist()), geometry.known_spacing, labels.ndim, geometry.remarks)


def _curves(
    name: str,
    times: Mapping[int, str],
    seen: Mapping[str, _Seen],
    scheme: LabelScheme | None,
    scale: tuple[float, str],
    *,
    known: bool,
) -> ClassCurves:
    if scheme is None:  # what occurs, in order of the values
        there = {value for case in times.values() for value, count in enumerate(seen[case].counts) if count}
        scheme = LabelScheme(labels={"background": 0, **{f"label {v}": v for v in sorted(there - {0})}})
    measured = [class_volumes(seen[case].counts, scheme, seen[case].voxel_mm) for case in times.values()]
    names = list(dict.fromkeys(entry.name for entries in measured for entry in entries))
    sizes: dict[str, list[float]] = {each: [] for each in names}
    for entries in measured:
        found = {entry.name: entry for entry in entries}
        for each in names:
            entry = found.get(each)
            size = None if entry is None else (entry.mm3 if known else entry.voxels)
            sizes[each].append(float(size or 0))
    flat = all(seen[case].ndim == 2 for case in times.values())
    measured_in = ("mm²" if flat else "mm³") if known else "voxels"
    step, unit = scale
    return ClassCurves(
        name, tuple(step * t for t in times), unit, {each: tuple(own) for each, own in sizes.items()}, measured_in
    )


def _rows(curves: ClassCurves) -> list[Row]:
    """Return a line per time and class: its size, and that in percent of the first time."""
    return [
        {
            "series": curves.name,
            curves.time_title: time,
            "class": name,
            f"size ({curves.measured_in})": size,
            "percent of the first": 100 * size / sizes[0] if sizes[0] else "",
        }
        for name, sizes in curves.sizes.items()
        for time, size in zip(curves.times, sizes, strict=True)
    ]


def _draw(series: Sequence[ClassCurves], path: Path) -> None:
    """Draw size over time: a panel for every class that occurs (the first ones), a curve for every series."""
    there = [name for own in series for name, sizes in own.sizes.items() if any(sizes)]
    names = list(dict.fromkeys(there))[:_PANELS] or ["nothing"]
    figure, panels = figure_with(len(names), 2.5)
    for name, panel in zip(names, panels, strict=True):
        for own in series:
            if name in own.sizes:
                panel.plot(own.times, own.sizes[name], marker=".", label=own.name)
        panel.set_ylabel(f"{name} ({series[0].measured_in})")
        panel.set_ylim(bottom=0)
    panels[-1].set_xlabel(series[0].time_title)
    if len(series) > 1:
        panels[0].legend()
    with written_beside(path, suffix=".png") as temporary:
        figure.savefig(temporary)


def figure_with(panels: int, height: float) -> tuple[Any, list[Any]]:
    """Return matplotlib's figure and axes of some panels, one below the other, each so many inches high."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # a second to load, when all is done
    from matplotlib.figure import Figure  # likewise

    figure = Figure(figsize=(8, 1 + height * panels), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, list(figure.subplots(panels, 1, sharex=True, squeeze=False)[:, 0])
