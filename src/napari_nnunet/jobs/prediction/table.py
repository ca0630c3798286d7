"""What is in each of many images: voxels and volume of every class, or the number of objects; a line for each."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from napari_nnunet.engine.choosing.volumes import class_volumes
from napari_nnunet.engine.prediction.quality import MEAN, Judged
from napari_nnunet.errors import DatasetError
from napari_nnunet.events import CaseDone, CaseFailed, Found, Job, Note, Pump, Stage, drain
from napari_nnunet.formats.atomic import write_text
from napari_nnunet.formats.tables import read_rows, text_of
from napari_nnunet.schema.dataset import DatasetInfo
from napari_nnunet.schema.objects import ObjectScheme

T = TypeVar("T")
_NOTHING_FOUND, _UNLIKE = "nothing found", "unlike"
_LAST = (_NOTHING_FOUND, _UNLIKE)  # columns of quality.csv


def found_in(
    counts: Sequence[int],
    info: DatasetInfo,
    voxel_mm: Sequence[float] | None,
    kinds: Mapping[int, str] | None = None,
) -> tuple[Found, ...]:
    """Return what a segmentation holds.

    Parameters
    ----------
    counts : sequence of int
        Voxels of every label value, beginning with 0.
    info : DatasetInfo
        What the values mean.
    voxel_mm : sequence of float or None
        Voxel size; None where it is not known.
    kinds : mapping of int to str, optional
        Where the labels are numbered objects, the kind of each.
    """
    if kinds is not None:
        objects, own = ObjectScheme.of(info), list(kinds.values())
        names = dict.fromkeys([*(() if objects is None else objects.kinds), *own])
        return tuple(Found(name=kind, objects=own.count(kind)) for kind in names)
    rows = class_volumes(counts, info.labels, voxel_mm)
    return tuple(Found(name=row.name, voxels=row.voxels, mm3=row.mm3) for row in rows)


def found_again(
    labels: NDArray[Any], info: DatasetInfo, voxel_mm: Sequence[float] | None, *, classes: bool
) -> tuple[Found, ...]:
    """Return what a file of labels holds that was finished before; it does not say of which kind an object is."""
    return drain(found_in_planes(labels, info, voxel_mm, classes=classes))


def found_in_planes(
    labels: NDArray[Any], info: DatasetInfo, voxel_mm: Sequence[float] | None, *, classes: bool
) -> Job[tuple[Found, ...]]:
    """Find that out plane by plane: the job can be cancelled meanwhile."""
    objects = None if classes else ObjectScheme.of(info)
    counts, numbers = np.zeros(1, np.int64), set[int]()
    for plane in labels if labels.ndim > 2 else [labels]:
        if objects is None:
            found = np.bincount(plane.ravel(), minlength=len(counts))
            found[: len(counts)] += counts
            counts = found
        else:
            numbers.update(np.unique(plane[plane > 0]).tolist())
        yield Stage(name="Counting what is kept")
    if objects is None:
        return found_in(counts.tolist(), info, voxel_mm)
    return (Found(name=objects.only_kind or "all kinds", objects=len(numbers)),)


@dataclass(frozen=True)
class Line:
    """A line of the table.

    Parameters
    ----------
    image : str
        Its name.
    state : str
        "done", "kept" where it was finished before, "lost" where that was taken away meanwhile, or "failed".
    seconds : float or None
        That it took.
    found : tuple of Found
        What is in it.
    reason : str
        Why it failed or was lost, for a shell and a dock alike.
    """

    image: str
    state: str
    seconds: float | None = None
    found: tuple[Found, ...] = ()
    reason: str = ""

    @classmethod
    def of(cls, event: CaseDone | CaseFailed) -> Self:
        """Return what an event says about its case."""
        if isinstance(event, CaseFailed):
            return cls(event.case, "failed", reason=event.in_window or event.message)
        if event.skipped:
            return cls(event.case, "kept", found=event.found)
        return cls(event.case, "done", event.seconds, event.found)


def as_csv(lines: Sequence[Line]) -> str:
    """Return the table as CSV: image, state, seconds, then voxels and mm3 of every class, or objects of every kind."""
    columns = list(dict.fromkeys(name for line in lines for name in _figures(line)))
    return text_of(
        [
            {"image": line.image, "state": line.state, "seconds": line.seconds}
            | {name: _figures(line).get(name) for name in columns}
            | {"reason": line.reason}
            for line in lines
        ]
    )


def _figures(line: Line) -> dict[str, float]:
    """Return what was found by the names of the columns."""
    return {
        f"{found.name} {what}": value
        for found in line.found
        for what, value in (("objects", found.objects), ("voxels", found.voxels), ("mm3", found.mm3))
        if value is not None
    }


def written_down(job: Job[T], path: Path) -> Job[T]:
    """Pass on what a job says, and keep a table of its cases in a file, which is whole at the end, however it ends.

    Meanwhile it is written after a case, but of many cases so seldom that writing takes a tenth of the time: each time,
    all of it is written anew.
    """
    lines: list[Line] = []
    written, due = 0, 0.0
    try:
        with Pump(job) as pump:
            for event in pump:
                if isinstance(event, CaseDone | CaseFailed):
                    lines.append(Line.of(event))
                    began = time.monotonic()
                    if began >= due:
                        write_text(path, as_csv(lines))
                        written, due = len(lines), 10 * time.monotonic() - 9 * began
                yield event
    finally:
        if written < len(lines):
            write_text(path, as_csv(lines))
    return pump.result


class QualityTable:
    """Keeps quality.csv: the predicted Dice of every case, worst first; complete after every case.

    Cases in which nothing was found of a class that is probably there come before all others.

    Parameters
    ----------
    path : Path
        The file; cases that it has and that are not segmented again stay.
    kept : sequence of str
        Those cases.
    """

    def __init__(self, path: Path, kept: Sequence[str] = ()) -> None:
        self.path = path
        self._rows: dict[str, dict[str, Any]] = {}
        if path.is_file():
            known = set(kept)
            rows = read_rows(path, DatasetError, ["image"], separators=",")
            self._rows = {row["image"]: dict(row) for _, row in rows if row["image"] in known}

    def add(self, case: str, found: Judged) -> Note:
        """Note a case, write the table, and return what to say of it."""
        row: dict[str, Any] = {"image": case}
        for name, (value, low, high) in sorted(found.dice.items(), key=lambda entry: entry[0] != MEAN):
            row |= {f"{name} Dice": value, f"{name} low": low, f"{name} high": high}
        missing = "; ".join(found.missing)
        self._rows[case] = row | {_NOTHING_FOUND: missing, _UNLIKE: "; ".join(found.unlike)}
        ranked = sorted(
            self._rows.values(), key=lambda entry: (not entry.get(_NOTHING_FOUND), _dice(entry.get(f"{MEAN} Dice")))
        )
        columns = list(dict.fromkeys(name for entry in ranked for name in entry if name not in _LAST))
        write_text(self.path, text_of([{name: entry.get(name) for name in (*columns, *_LAST)} for entry in ranked]))
        return Note(level="warning" if found.unlike or missing else "info", text=f"{case}: {found.brief}")


def _dice(value: Any) -> float:
    """Return a predicted Dice; where nothing was found, it comes first, for it is to be looked at."""
    try:
        return -1.0 if math.isnan(dice := float(value)) else dice
    except (TypeError, ValueError):
        return -1.0
