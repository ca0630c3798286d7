"""The table of how much of each class there is; it follows the layer, and says whether somebody corrected it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from napari.layers import Labels
from numpy.typing import NDArray
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QVBoxLayout, QWidget

from napari_nnunet.engine.choosing.volumes import ClassVolume, class_volumes
from napari_nnunet.events import Job, Progress
from napari_nnunet.schema.colours import class_colour
from napari_nnunet.volume import digest_of
from napari_nnunet.widgets.frame.layers import canvas_view, format_volume
from napari_nnunet.widgets.frame.parts import CopyButton, Sentence, Table
from napari_nnunet.widgets.frame.worker import Latest
from napari_nnunet.widgets.objects.curves import SizeCurves
from napari_nnunet.widgets.prediction.request import SegmentRequest
from napari_nnunet.widgets.prediction.result import ResultLayers, left_in

_PAUSE_MS = 400  # after the last stroke
_CORRECTED = "Corrected by hand; the volumes are those of the layer as it is now."


@dataclass(frozen=True)
class Counted:
    """What a layer holds.

    Parameters
    ----------
    counts : tuple of tuple of int
        Voxels per label value, for every time point.
    digest : int
        Of all voxels, to tell whether one changed.
    """

    counts: tuple[tuple[int, ...], ...]
    digest: int


def count_frames(frames: Sequence[NDArray[Any]], labels: NDArray[Any]) -> Job[Counted]:
    """Count the labels of every time point ([Z,] Y, X); runs on a thread, plane by plane."""
    counts = []
    for i, frame in enumerate(frames):
        total = np.zeros(1, np.int64)
        for plane in frame:
            found = np.bincount(plane.ravel(), minlength=len(total))
            found[: len(total)] += total
            total = found
        counts.append(tuple(int(n) for n in total))
        yield Progress(done=i + 1, total=len(frames))
    return Counted(tuple(counts), digest_of(labels))


def _digest_in(layer: Labels) -> int | None:
    left = left_in(layer)
    return None if left is None else left.digest


class VolumeTable(QWidget):
    """Voxels and volume of every class, to look at and to copy."""

    def __init__(self) -> None:
        super().__init__()
        self.corrected = False
        self.held: Callable[[], bool] = lambda: False
        self._request: SegmentRequest | None = None
        self._layer: Labels | None = None
        self._before: int | None = None
        self._rows: list[tuple[int | None, ClassVolume]] = []
        self._counting = Latest(self)
        self._later = QTimer(self)
        self._later.setSingleShot(True)
        self._later.setInterval(_PAUSE_MS)
        self._later.timeout.connect(self._count)
        self.note = Sentence()
        self.table = Table("Volume per class", ["Class", "Volume", "Voxels"])
        self.curves = SizeCurves("Volume of every class over time")
        self.copy = CopyButton("Copy as CSV", self.csv)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        for part in (self.table, self.note, self.curves, self.copy):
            layout.addWidget(part)
        self.setVisible(False)

    def show_result(self, result: ResultLayers, counts: Sequence[tuple[int, ...]]) -> None:
        """Fill the table from voxels per label of every time point of a result, and follow its layer."""
        self.hide_result()
        self._request, self._layer = result.request, result.labels
        self._before = _digest_in(result.labels)
        self._fill(counts)
        events = result.labels.events
        for signal in (events.paint, events.labels_update, events.data, events.set_data):
            signal.connect(self._changed)
        self._count()

    def start_anew(self) -> None:
        """Count again after something other than a hand changed the labels; what is being counted is of before."""
        if self._layer is not None:
            self._counting.stop()
            self._before = _digest_in(self._layer)
            self._later.start()

    def _changed(self, _: Any = None) -> None:
        if not self.held():
            self._later.start()

    def _count(self) -> None:
        request, layer = self._request, self._layer
        if request is None or layer is None or self.held():
            return
        labels = np.asarray(layer.data)
        if labels.ndim != len(request.axes.replace("C", "")):
            self._show_other()
            return
        try:
            frames = [canvas_view(labels, request.axes, frame.index) for frame in request.frames]
        except IndexError:  # fewer time points
            self._show_other()
            return
        self._counting.start(count_frames(frames, labels), returned=self._counted, errored=self._failed)

    def _counted(self, found: Counted) -> None:
        if self._layer is None:
            return
        self.corrected = found.digest != self._before
        self._fill(found.counts)

    def _failed(self, _: BaseException) -> None:
        self._show_other()

    def _show_other(self) -> None:
        """Say that somebody gave the layer data of which there are no volumes."""
        self.corrected = True
        self.note.setText("The layer now holds other data; the volumes are those of the segmentation.")
        self.note.setVisible(True)

    def _fill(self, counts: Sequence[Sequence[int]]) -> None:
        request = self._request
        if request is None:
            return
        scheme = request.model.dataset.labels
        frames = sorted(
            (
                (frame.index, class_volumes(n, scheme, request.voxel_mm))
                for frame, n in zip(request.frames, counts, strict=True)
            ),
            key=lambda entry: entry[0] or 0,
        )
        self._rows = [(index, entry) for index, entries in frames for entry in entries]
        several = len(frames) > 1
        texts = [
            (
                f"{entry.name} (t = {index})" if several and index is not None else entry.name,
                format_volume(entry.mm3),
                f"{entry.voxels:,}",
            )
            for index, entry in self._rows
        ]
        self._draw([(index or 0, entries) for index, entries in frames])
        self.table.fill(texts, colours=[class_colour(entry.value) for _, entry in self._rows])
        self.note.setText(_CORRECTED if self.corrected else "")
        self.note.setVisible(self.corrected)
        self.setVisible(bool(self._rows))

    def _draw(self, frames: Sequence[tuple[int, Sequence[ClassVolume]]]) -> None:
        """Draw a curve for every class of a time series."""
        known = all(entry.mm3 is not None for _, entries in frames for entry in entries)
        curves: dict[str, tuple[str, list[tuple[float, float]]]] = {}
        for time, entries in frames:
            for entry in entries:
                size = float(entry.voxels if entry.mm3 is None or not known else entry.mm3)
                curves.setdefault(entry.name, (class_colour(entry.value), []))[1].append((time, size))
        self.curves.show_curves(list(curves.values()), "volume (mm³)" if known else "voxels")
        self.curves.setVisible(len(frames) > 1)

    def hide_result(self) -> None:
        """Forget the result."""
        if self._layer is not None:
            events = self._layer.events
            for signal in (events.paint, events.labels_update, events.data, events.set_data):
                signal.disconnect(self._changed)
        self._counting.stop()
        self._later.stop()
        self._request = self._layer = self._before = None
        self.corrected = False
        self.setVisible(False)

    def csv(self) -> str:
        """Return the table as CSV with exact numbers."""
        lines = ["time,label,class,voxels,volume_mm3,corrected"]
        for index, entry in self._rows:
            time = "" if index is None else str(index)
            volume = "" if entry.mm3 is None else repr(entry.mm3)
            name = entry.name.replace('"', '""')
            corrected = "yes" if self.corrected else "no"
            lines.append(f'{time},{entry.value},"{name}",{entry.voxels},{volume},{corrected}')
        return "\n".join(lines) + "\n"
