"""The table of a result of numbered objects: how many of each kind, and every object's figures in the layer itself."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QVBoxLayout, QWidget

from napari_nnunet.events import Job, Progress
from napari_nnunet.formats.tables import text_of
from napari_nnunet.volume import digest_of
from napari_nnunet.widgets.frame.layers import canvas_view, format_volume, kinds_of_features, voxel_in
from napari_nnunet.widgets.frame.parts import CopyButton, Sentence, Table
from napari_nnunet.widgets.frame.words import failure_text
from napari_nnunet.widgets.frame.worker import Latest, lazy
from napari_nnunet.widgets.objects.look import go_to
from napari_nnunet.widgets.objects.repair import RepairTools
from napari_nnunet.widgets.objects.tracks import FollowTools, Series, unsized_rows
from napari_nnunet.widgets.prediction.request import SegmentRequest
from napari_nnunet.widgets.prediction.result import ResultLayers, put_features

if TYPE_CHECKING:
    from napari_nnunet.jobs.objects.measure import measure_arrays
else:
    measure_arrays = lazy("napari_nnunet.jobs.objects.measure:measure_arrays")

Rows = list[dict[str, Any]]
_SPARSE = 20  # times as many numbers as objects, at most, that features have rows for
_PAUSE_MS = 400  # after a stroke, before everything is measured again


class ObjectTable(QWidget):
    """Objects per kind, measured on a thread; napari's table of features shows every one of them."""

    def __init__(self, viewer: Any) -> None:
        super().__init__()
        self.viewer = viewer
        self._result: ResultLayers | None = None
        self._kinds: list[dict[int, str]] = []  # of the objects there are, for every time point
        self._once: list[dict[int, str]] = []  # and of those there were: Ctrl+Z brings them back
        self._later = QTimer(self, singleShot=True, interval=_PAUSE_MS)
        self._later.timeout.connect(self._measure)
        self._look_later = QTimer(self, singleShot=True, interval=_PAUSE_MS)
        self._look_later.timeout.connect(self._look)
        self._looking = Latest(self)
        self._shape: tuple[int, ...] = ()  # of the result
        self._digest: int | None = None  # of the objects that were measured
        self.follow = FollowTools(viewer)
        self.repair = RepairTools(viewer, lambda: None if self._result is None else self._result.labels, self._time)
        self.repair.divided = self._divided
        self._rows: list[tuple[int | None, Rows]] = []
        self._measuring = Latest(self)
        self.table = Table("Objects", ["Kind", "Objects", "Mean size"])
        self.note = Sentence()
        self.copy = CopyButton("Copy all as CSV", self.csv)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        for part in (self.table, self.note, self.copy, self.repair, self.follow):
            column.addWidget(part)
        self.setVisible(False)

    def show_result(self, result: ResultLayers, kinds: Sequence[Mapping[int, str]]) -> None:
        """Count the objects of every time point at once, then measure them; again when somebody corrects them."""
        self.hide_result()
        self._result, self._kinds = result, [dict(own) for own in kinds]
        self._once = [dict(own) for own in kinds]
        self._shape = np.shape(result.labels.data)
        events = result.labels.events
        for signal in (events.paint, events.data):
            signal.connect(self._painted)
        for signal in (events.labels_update, events.set_data):
            signal.connect(self._drawn)
        result.labels.events.selected_label.connect(self._selected)
        self._show_counts(result)
        self.setVisible(True)
        self.follow.show_series(_series(result, kinds) if len(result.request.frames) > 1 else None)
        self._measure()

    def _show_counts(self, result: ResultLayers) -> None:
        names = dict.fromkeys(result.objects.kinds, 0) if result.objects is not None else {}
        for of_frame in self._kinds:
            for kind in of_frame.values():
                names[kind] = names.get(kind, 0) + 1
        self.table.fill([(kind, f"{count:,}", "…") for kind, count in names.items()])

    def _painted(self, _: Any = None) -> None:
        """Look at the layer again after somebody corrected it, when no further stroke follows."""
        if self._result is not None:
            self._measuring.stop()  # it measures what the layer was, and would write that into its features
            self.note.setText("Measuring…")
            self.copy.setEnabled(False)
            self._later.start()

    def _drawn(self, _: Any = None) -> None:
        """Look whether the layer changed: Ctrl+Z says no more than that it is drawn, as another slice does."""
        self._look_later.start()

    def _look(self) -> None:
        result = self._result
        if result is not None:
            job = _digest_job(np.asarray(result.labels.data))
            self._looking.start(job, returned=self._looked, errored=lambda _: None)  # it is measured again, or not

    def _looked(self, digest: int) -> None:
        before, self._digest = self._digest, digest
        if before not in (None, digest):
            self._painted()

    def _measure(self) -> None:
        """Measure the objects there are now, each of the kind that it was found as or that the layer says."""
        result = self._result
        if result is None:
            return
        request, data = result.request, np.asarray(result.labels.data)
        if data.shape != self._shape:
            self.note.setText("The layer now holds other data; nothing of it was measured.")
            return
        views = [canvas_view(data, request.axes, frame.index).copy() for frame in request.frames]
        told = kinds_of_features(result.labels.features)
        usual = next(iter(result.objects.kinds)) if result.objects is not None else ""
        self._kinds = [
            {n: told.get(n) or own.get(n, usual) for n in map(int, np.unique(view)) if n}
            for view, own in zip(views, self._once, strict=True)
        ]
        for own, now in zip(self._once, self._kinds, strict=True):
            own.update(now)
        self.follow.show_kinds(self._kinds)
        self._show_counts(result)
        self.note.setText("Measuring…")
        self.copy.setEnabled(False)
        frames = [
            (view, np.asarray(frame.volume.array), own)
            for view, frame, own in zip(views, request.frames, self._kinds, strict=True)
        ]
        channels = request.model.dataset.channel_names
        self._digest = None
        self._look()
        self._measuring.start(
            measure_arrays(frames, request.grid.spacing, channels), returned=self._measured, errored=self._failed
        )

    def _divided(self, new: Mapping[int, int], now: Mapping[int, int]) -> None:
        """Note that a part that was cut off is of the kind that the whole is at its time point."""
        if self._result is None:
            return
        for frame, own in zip(self._result.request.frames, self._once, strict=True):
            if not now or frame.index in now.values():
                own.update({number: own[before] for number, before in new.items() if before in own})

    def _time(self, layer: Any) -> int | None:
        """Return which axis of the result is time."""
        own = "" if self._result is None else self._result.request.axes.replace("C", "")
        return own.index("T") if "T" in own else None

    def hide_result(self) -> None:
        """Forget the result."""
        for job in (self._measuring, self._looking, self._later, self._look_later):
            job.stop()
        self.repair.use("")
        self.follow.show_series(None)
        if self._result is not None:
            with suppress(ValueError, RuntimeError):  # a layer that is gone
                events = self._result.labels.events
                for signal in (events.paint, events.data):
                    signal.disconnect(self._painted)
                for signal in (events.labels_update, events.set_data):
                    signal.disconnect(self._drawn)
                self._result.labels.events.selected_label.disconnect(self._selected)
        self._result, self._kinds, self._once = None, [], []
        self._rows = []
        self.setVisible(False)

    def _measured(self, tables: Sequence[Rows]) -> None:
        result = self._result
        if result is None:
            return
        self._rows = [(frame.index, rows) for frame, rows in zip(result.request.frames, tables, strict=True)]
        everything = [row for rows in tables for row in rows]
        kinds = dict.fromkeys([*(result.objects.kinds if result.objects else ()), *(row["kind"] for row in everything)])
        self.table.fill([_line(kind, everything, result.request) for kind in kinds])
        self.note.setText(
            "Each object's figures: Layers > Metadata > Features table widget. Selecting one there goes to it."
        )
        self.copy.setEnabled(True)
        if len(tables) == 1:
            put_features(result.labels, _features(tables[0]))

    def _selected(self, _: Any = None) -> None:
        """Go to the object that was selected, in napari's table of features for instance."""
        result = self._result
        if result is None or result.labels not in self.viewer.layers:
            return
        axes = result.request.axes.replace("C", "")
        now = voxel_in(result.labels, self.viewer.dims)[axes.index("T")] or 0 if "T" in axes else 0
        number = int(result.labels.selected_label)
        found = [(time or 0, row) for time, rows in self._rows for row in rows if row["object"] == number]
        if not found:
            return
        time, row = min(found, key=lambda own: abs(own[0] - now))
        steps = dict(zip("ZYX"[-len(result.request.grid.spacing) :], result.request.grid.spacing, strict=True))
        place = [time if axis == "T" else float(row[axis.lower()]) / steps[axis] for axis in axes]
        go_to(self.viewer, result.labels, place, closer=False)

    def _failed(self, error: BaseException) -> None:
        self.note.setText(failure_text(error))

    def csv(self) -> str:
        """Return one line per object, with its time point where there are several."""
        several = len(self._rows) > 1
        table = [({"time": index, **row} if several else row) for index, rows in self._rows for row in rows]
        sized = self._result is None or self._result.request.voxel_mm is not None
        return text_of(table if sized else list(unsized_rows(table)))


def _digest_job(labels: NDArray[Any]) -> Job[int]:
    """Compute what tells whether a voxel changed; on a thread, for a large layer takes a while."""
    yield Progress(done=0, total=1)
    return digest_of(labels)


def _series(result: ResultLayers, kinds: Sequence[Mapping[int, str]]) -> Series:
    """Return a result that has several time points."""
    request = result.request
    return Series(
        result.labels,
        request.axes,
        tuple(int(frame.index or 0) for frame in request.frames),
        tuple(np.asarray(frame.volume.array) for frame in request.frames),
        tuple(kinds),
        tuple(request.grid.spacing),
        tuple(request.model.dataset.channel_names),
        sized=request.voxel_mm is not None,
    )


def _line(kind: str, rows: Rows, request: SegmentRequest) -> tuple[str, str, str]:
    """Return a line of the table: kind, count, mean area or volume."""
    own = [row for row in rows if row["kind"] == kind]
    if not own:
        return kind, "0", ""
    mean = sum(float(row["area" if "area" in row else "volume"]) for row in own) / len(own)
    if request.voxel_mm is None:
        return kind, f"{len(own):,}", f"{sum(row['voxels'] for row in own) / len(own):,.0f} voxels"
    return kind, f"{len(own):,}", f"{mean:.4g} mm²" if "area" in own[0] else format_volume(mean)


def _features(rows: Rows) -> dict[str, list[Any]]:
    """Return the features of a layer: a row for every number, for napari takes the place of a row for the number.

    Numbers that no object has (two were merged, one was deleted) have an empty row, unless nearly all are such.
    """
    columns = [name for name in (rows[0] if rows else {}) if name != "object"]
    known = {int(row["object"]): row for row in rows}
    most = max(known, default=0)
    numbers = list(range(most + 1)) if most <= _SPARSE * (len(known) + 1) else [0, *known]
    empty = {name: _nothing(rows, name) for name in columns}
    return {"index": numbers, **{name: [known.get(n, empty)[name] for n in numbers] for name in columns}}


def _nothing(rows: Rows, name: str) -> Any:
    """Return what stands in a column where no object is."""
    return "" if isinstance(rows[0][name], str) else False if isinstance(rows[0][name], bool) else math.nan
