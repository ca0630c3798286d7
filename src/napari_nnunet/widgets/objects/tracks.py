"""Objects of a time series are followed: the same number at every time, a Tracks layer, a curve of every object."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np
import pyqtgraph
from napari.layers import Labels, Tracks
from numpy.typing import NDArray
from qtpy.QtWidgets import QFormLayout, QGroupBox, QVBoxLayout

from napari_nnunet.errors import counted, some
from napari_nnunet.formats.tables import text_of
from napari_nnunet.schema.requests.choosing import TrackSettings
from napari_nnunet.widgets.frame.forms import FieldRows
from napari_nnunet.widgets.frame.layers import (
    FOLLOWED,
    activate,
    add_layer,
    canvas_view,
    kinds_of_features,
    placement_of,
    remove_layer,
)
from napari_nnunet.widgets.frame.parts import CopyButton, Sentence, button
from napari_nnunet.widgets.frame.words import failure_text
from napari_nnunet.widgets.frame.worker import Latest, lazy
from napari_nnunet.widgets.objects.curves import SizeCurves
from napari_nnunet.widgets.objects.feature_table import columns_of_others, renamings, write_features

if TYPE_CHECKING:
    import napari

    from napari_nnunet.jobs.objects.track import Followed, follow_arrays
else:
    follow_arrays = lazy("napari_nnunet.jobs.objects.track:follow_arrays")

_DRAWN = 200  # curves, the longest ones
#: Layers with tracks that were added here: the id of the layer that was followed, and the name that napari gave them.
_SHOWN: WeakKeyDictionary[Tracks, tuple[str, str]] = WeakKeyDictionary()


@dataclass(frozen=True, eq=False)
class Series:
    """Numbered objects of a time series in a layer.

    Parameters
    ----------
    layer : Labels
        With the objects.
    axes : str
        Of its array, such as "TYX".
    times : tuple of int
        Places on the time axis.
    images : tuple of ndarray, shape (C, [Z,] Y, X)
        One per time point.
    kinds : tuple of dict of int to str
        Kind of each object, one per time point.
    spacing : tuple of float
        Size of a voxel in mm along each axis of space.
    channels : tuple of str
        Names of the image's channels.
    sized : bool
        Whether that size is known; else what is measured is in voxels.
    """

    layer: Labels
    axes: str
    times: tuple[int, ...]
    images: tuple[NDArray[Any], ...]
    kinds: tuple[Mapping[int, str], ...]
    spacing: tuple[float, ...]
    channels: tuple[str, ...]
    sized: bool = True


class FollowTools(QGroupBox):
    """Follows the objects of a series, and shows how each grows.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
        Gets the Tracks layer.
    """

    def __init__(self, viewer: napari.viewer.Viewer) -> None:
        super().__init__("Over time")
        self.viewer = viewer
        self._series: Series | None = None
        self._rows: tuple[dict[str, Any], ...] = ()
        self._before: list[NDArray[Any]] = []  # the objects of every time point when they were asked to be followed
        self._following = Latest(self)
        form = QFormLayout()
        self.rows = FieldRows(TrackSettings)
        self.rows.add_to(form, lambda _: None)
        self.follow = button("Follow objects", "Give every object the same number at every time.")
        self.note = Sentence()
        self.plot = SizeCurves("Size of every object over time")
        self.copy = CopyButton("Copy curves as CSV", lambda: text_of(list(self._rows)))
        self.copy.setEnabled(False)
        column = QVBoxLayout(self)
        column.addLayout(form)
        for part in (self.follow, self.note, self.plot, self.copy):
            column.addWidget(part)
        self.follow.clicked.connect(self.start)
        self.setVisible(False)

    def show_series(self, series: Series | None) -> None:
        """Offer to follow the objects of a series; nothing with None."""
        self._following.stop()
        self._series, self._rows, self._before = series, (), []
        if series is not None:
            series.layer.metadata.pop(FOLLOWED, None)
        self.note.setText("")
        self.plot.setVisible(False)
        self.copy.setEnabled(False)
        self.follow.setEnabled(True)
        self.setVisible(series is not None)

    def show_kinds(self, kinds: Sequence[Mapping[int, str]]) -> None:
        """Learn of which kind the objects of every time point are, after they were corrected."""
        if self._series is not None:
            self._series = replace(self._series, kinds=tuple(kinds))

    def start(self) -> None:
        """Follow the objects as the layer has them now."""
        series = self._series
        if series is None:
            return
        self._before = [view.copy() for view in _views(series)]
        usual = next((kind for own in series.kinds for kind in own.values()), "")
        told = self._kinds_of_the_table(series)
        frames = [
            (view, image, {int(n): told.get(int(n)) or kinds.get(int(n), usual) for n in np.unique(view) if n})
            for view, image, kinds in zip(self._before, series.images, series.kinds, strict=True)
        ]
        self.follow.setEnabled(False)
        self.note.setText("Following…")
        settings = TrackSettings(**self.rows.values())
        job = follow_arrays(frames, series.times, series.spacing, series.channels, settings)
        self._following.start(job, returned=self._followed, errored=self._failed)

    @staticmethod
    def _kinds_of_the_table(series: Series) -> dict[int, str]:
        """Return what the layer's table says of its objects, if it was written when these were followed.

        It has one kind of each object, so it says nothing of those that are of several in the course of time.
        """
        if FOLLOWED not in series.layer.metadata:
            return {}
        over_time: dict[int, set[str]] = {}
        for own in series.kinds:
            for number, kind in own.items():
                over_time.setdefault(number, set()).add(kind)
        told = kinds_of_features(series.layer.features)
        return {number: kind for number, kind in told.items() if len(over_time.get(number, ())) < 2}

    def _failed(self, error: BaseException) -> None:
        self.follow.setEnabled(True)
        self.note.setText(failure_text(error))

    def _followed(self, found: Followed) -> None:
        series, before, self._before = self._series, self._before, []
        self.follow.setEnabled(True)
        if series is None:
            return
        if series.layer not in self.viewer.layers:
            self.note.setText("The layer with the objects was removed meanwhile. Segment again.")
            return
        changed = np.asarray(series.layer.data).astype(np.uint32)
        views = [canvas_view(changed, series.axes, time) for time in series.times]
        if not all(map(np.array_equal, views, before)):
            self.note.setText("The objects were corrected meanwhile, so nothing was changed. Press it again.")
            return
        for view, objects in zip(views, found.objects, strict=True):
            view[...] = objects
        series.layer.data = changed
        series.layer._reset_history()  # noqa: SLF001 - strokes would come back with numbers that are other objects now
        kinds = {int(row["object"]): str(row.get("kind", "")) for row in found.rows}
        features: dict[str, list[Any]] = {"index": [0, *kinds], "kind": ["", *kinds.values()]}
        told = renamings(series.layer, found.numbers) if columns_of_others(series.layer) else {}
        write_features(series.layer, features, renamed=told)
        lost = [number for number, now in told.items() if now is None]
        series.layer.metadata[FOLLOWED] = True
        self._series = replace(series, kinds=tuple(map(found.kinds_at, series.times)))
        self._rows = found.rows if series.sized else unsized_rows(found.rows)
        self._add_tracks(series, found)
        self._draw(found.rows, sized=series.sized)
        divided, unit = len(set(found.parents.values())), "mm" if series.sized else "voxels"
        self.note.setText(
            f"{counted(len(kinds), 'object')} over {counted(len(series.times), 'time point')}, "
            f"{counted(divided, 'division')}; looked for within {found.distance:.4g} {unit}. {found.said}".rstrip()
            + _apart(lost)
        )
        self.copy.setEnabled(bool(found.rows))
        series.layer.events.paint(value=[])  # whoever measures the layer measures it again

    def _add_tracks(self, series: Series, found: Followed) -> None:
        """Show where every object went, and from which it came."""
        own = series.axes.replace("C", "")  # labels have no channels
        letters = [letter for letter in own if letter in "ZYX"]
        steps = dict(zip(letters, series.spacing, strict=True))
        points = [
            [row["object"], *(row["time"] if a == "T" else float(row[a.lower()]) / steps[a] for a in own)]
            for row in found.rows
        ]
        name = f"{series.layer.name}: tracks"
        followed = str(series.layer.unique_id)  # its name may be another result's by now
        for old in [other for other in self.viewer.layers if _SHOWN.get(other) == (followed, other.name)]:
            remove_layer(self.viewer, old)
        if points:
            layer = Tracks(
                np.array(points, dtype=float),
                graph={child: [parent] for child, parent in found.parents.items()},
                name=name,
                **placement_of(series.layer),
            )
            add_layer(self.viewer, layer)
            _SHOWN[layer] = followed, layer.name
            activate(self.viewer, series.layer)

    def _draw(self, rows: Sequence[Mapping[str, Any]], *, sized: bool) -> None:
        curves: dict[int, list[tuple[float, float]]] = {}
        size = "area" if any("area" in row for row in rows) else "volume"
        for row in rows:
            curves.setdefault(int(row["object"]), []).append((row["time"], row[size]))
        longest = sorted(curves.values(), key=len, reverse=True)[:_DRAWN]
        coloured = [(pyqtgraph.intColor(i), own) for i, own in enumerate(longest)]
        unit = ("mm²" if size == "area" else "mm³") if sized else "pixels" if size == "area" else "voxels"
        self.plot.show_curves(coloured, f"{size} ({unit})")


def _apart(numbers: Sequence[int]) -> str:
    """Say where the rows are of numbers that were those of several objects, or of none."""
    if not numbers:
        return ""
    one = len(numbers) == 1
    which = some([str(number) for number in numbers], 3)
    return (
        f" Features that others wrote of {counted(len(numbers), 'number')} ({which}) are at the end of the table, as "
        f"'{numbers[0]} before': {'it was that' if one else 'they were those'} of different objects, or of none."
    )


def _views(series: Series) -> list[NDArray[Any]]:
    data = np.asarray(series.layer.data)
    return [canvas_view(data, series.axes, time) for time in series.times]


def unsized_rows(rows: Sequence[Mapping[str, Any]]) -> tuple[dict[str, Any], ...]:
    """Return rows of a table of objects that say that their lengths are in voxels: nobody knows the size of one."""
    return tuple({**row, "unit": "voxels"} for row in rows)
