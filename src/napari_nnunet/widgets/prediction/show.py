"""What a run shows: the layers it fills, the table of volumes and what can be done afterwards."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from napari.layers import Labels
from napari.utils.notifications import show_info
from qtpy.QtWidgets import QVBoxLayout, QWidget

from napari_nnunet.events import CaseDone, CaseFailed, Event, Painted
from napari_nnunet.jobs.prediction.table import Line, found_in
from napari_nnunet.schema.cleaning import Cleaning
from napari_nnunet.widgets.frame.layers import KIND, activate, remove_layer
from napari_nnunet.widgets.frame.parts import button
from napari_nnunet.widgets.frame.tabs import open_dock
from napari_nnunet.widgets.frame.words import plain_time
from napari_nnunet.widgets.prediction.after import AfterResult
from napari_nnunet.widgets.prediction.many import frame_name, lost_line
from napari_nnunet.widgets.prediction.many_view import ManyTable
from napari_nnunet.widgets.prediction.objects import ObjectTable
from napari_nnunet.widgets.prediction.request import SegmentRequest
from napari_nnunet.widgets.prediction.result import (
    Left,
    ResultLayers,
    frames_in,
    is_as_left,
    is_untouched,
    left_in,
    rivals,
)
from napari_nnunet.widgets.prediction.volumes import VolumeTable
from napari_nnunet.widgets.prediction.words import told_quality

if TYPE_CHECKING:
    import napari

_REFRESH_SECONDS = 1.0  # redrawing a large Labels layer takes up to 0.1 s in 2-D and far more in 3-D


class ResultView(QWidget):
    """Follows a run from its empty layer to its end, whatever the end is.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
        Where the layers go.
    """

    def __init__(self, viewer: napari.viewer.Viewer) -> None:
        super().__init__()
        self.viewer = viewer
        self.running: ResultLayers | None = None
        self._halted: ResultLayers | None = None
        self.many = ManyTable()
        self.table = VolumeTable()
        self.objects = ObjectTable(viewer)
        self.after = AfterResult()
        self.collect = button(
            "Add to the training set…", "Choose image and labels, corrected where they are wrong, as a training case."
        )
        self._collected: tuple[SegmentRequest, Labels] | None = None
        self._turns: deque[ResultLayers] = deque()  # of many images, the one that runs and those to come
        self.over = 0  # of these, how many there were
        self._last_refresh = 0.0
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(self.many)
        column.addWidget(self.table)
        column.addWidget(self.objects)
        column.addWidget(self.after)
        column.addWidget(self.collect)
        self.collect.clicked.connect(self._collect)
        self.table.held = lambda: self.after.busy
        self.after.changed.connect(self.table.start_anew)
        self.after.corrected = lambda: self.table.corrected
        self.clear()

    def clear(self) -> None:
        """Forget the result before."""
        self.many.clear()
        self.table.hide_result()
        self.objects.hide_result()
        self.after.hide_result()
        self.collect.setVisible(False)
        self._collected = None
        self._turns.clear()
        self.over = 0

    def begin(self, request: SegmentRequest, *, name: str | None = None) -> ResultLayers:
        """Add the layer that a run will fill, or go on with the one of a run that was cancelled."""
        self.clear()
        result = self._result_for(request, name)
        self.forget()
        self.show_running(result)
        return result

    def begin_many(
        self, requests: Sequence[SegmentRequest], kept: Sequence[tuple[SegmentRequest, Labels]]
    ) -> list[ResultLayers]:
        """Make the layers that a run will fill one after the other, and show the first; kept results come first.

        What is returned is for the run alone: a layer that is over is held by nothing but the viewer.
        """
        self.clear()
        results = [ResultLayers(request) for request, _ in kept]
        for result, (request, layer) in zip(results, kept, strict=True):
            result.kept, result.rivals = layer, rivals(self.viewer, request.key)
        results += [self._result_for(request, None) for request in requests]
        self.forget()
        self._turns = deque(results)
        self.show_running(results[0])
        return results

    def _result_for(self, request: SegmentRequest, name: str | None) -> ResultLayers:
        halted = self._halted
        if halted is None or not self.carries_on(request):
            result = ResultLayers(request, name=name)
        else:
            result, self._halted = halted, None
            result.go_on(request)
        result.rivals = rivals(self.viewer, request.key)
        return result

    def show_running(self, result: ResultLayers) -> None:
        """Show the layer that is filled now."""
        self.running = result
        if result.waits:
            return
        result.call(result.name)
        if result.labels not in self.viewer.layers:
            result.add_to(self.viewer)

    def _show_after_all(self, result: ResultLayers) -> None:
        """Show the layer of an image that was edited since it was segmented."""
        result.kept = None
        self.show_running(result)

    def carries_on(self, request: SegmentRequest) -> bool:
        """Whether a run of this request would go on where a cancelled one stopped; not where somebody painted since."""
        halted = self._halted
        if halted is None or not halted.is_for(request):
            return False
        if halted.labels not in self.viewer.layers:
            return not halted.canvas.any()
        return halted.shown_in(self.viewer) and is_untouched(halted.labels, lately=False)

    def forget(self, layer: Any = None) -> None:
        """Let go of what a cancelled run would go on with; of a layer that was removed, or whatever it is."""
        halted = self._halted
        if halted is not None and (layer is None or layer is halted.labels or layer in halted.request.layers):
            self._halted = None
            halted.halt.drop()

    def _earlier(self, result: ResultLayers, now: Left) -> list[Any]:
        """Return what earlier runs of the same request left, if nobody has changed it: parts, and the last whole."""
        known = [(layer, left_in(layer)) for layer in reversed(self.viewer.layers) if layer is not result.labels]
        same = [layer for layer, left in known if left is not None and left.is_like(now)]
        found = [layer for layer in same if is_as_left(layer)]
        parts = [layer for layer in found if layer.metadata.get("nnunet", {}).get("partial")]
        return parts + [layer for layer in found if layer not in parts][:1]

    def paint(self, event: Event) -> None:
        """Redraw the layer where tiles were finished, not too often."""
        if isinstance(event, Painted) and self.running is not None:
            if self.running.waits:
                self._show_after_all(self.running)
            now = time.monotonic()
            pause = _REFRESH_SECONDS * (5 if self.viewer.dims.ndisplay == 3 else 1)
            if now - self._last_refresh > pause:
                self._last_refresh = now
                self.running.labels.refresh()

    def done(self, predictions: Sequence[Any], *, recommended: Cleaning | None, applied: bool = False) -> str:
        """Show a finished result and return a sentence about it.

        Parameters
        ----------
        predictions : sequence of Prediction
            One per time point.
        recommended : Cleaning or None
            The postprocessing that helped in cross-validation.
        applied : bool
            Whether it was done already.
        """
        result, recipe = self.running, dict(predictions[0].recipe)
        seconds = sum(prediction.seconds for prediction in predictions)
        text = f"Done in {plain_time(seconds)} on {recipe['device']}."
        if result is None:
            return text
        if not result.canvas.any():
            text += " Nothing was found in this image."
        if judged := [prediction.quality for prediction in predictions if prediction.quality is not None]:
            text += f" {told_quality(judged)}"
        recipe |= result.request.asked
        self.settle(predictions)
        if result.labels in self.viewer.layers:
            activate(self.viewer, result.labels)
            scheme = result.request.model.dataset.labels
            self._collected = (result.request, result.labels)
            self.collect.setVisible(True)
            if result.objects is not None:
                result.labels.metadata[KIND] = result.objects.only_kind or next(iter(result.objects.kinds))
            self.after.show_result(
                result.labels,
                partial(frames_in, result.request.axes, [frame.index for frame in result.request.frames]),
                scheme,
                recipe,
                recommended=recommended,
                applied=applied,
                parts=result.objects is None,
            )
        if result.objects is not None:
            self.objects.show_result(result, [prediction.kinds or {} for prediction in predictions])
        else:
            self.table.show_result(result, [prediction.counts for prediction in predictions])
        return text

    def settle(self, predictions: Sequence[Any]) -> dict[str, Any]:
        """Leave the layers of what ran in order, finished; returns the recipe."""
        result, self.running = self.running, None
        recipe = dict(predictions[0].recipe)
        if result is None:
            return recipe
        recipe |= result.request.asked
        self._show_labels(result, recipe)
        result.show_beside(self.viewer)
        if result.request.output == "Probabilities" and is_as_left(result.labels):
            remove_layer(self.viewer, result.labels)
        return recipe

    def _show_kept(self, request: SegmentRequest, layer: Labels, lines: Sequence[Line]) -> None:
        """Add an image that has its result to the table of many images."""
        self.many.add(lines)
        self.many.add_recipe(request.source.name, {**layer.metadata["nnunet"], "layers": []})

    def image_over(self, event: CaseDone | CaseFailed) -> None:
        """Finish one of many images, add it to the table, and show the layer of the next."""
        if not self._turns:
            return
        result = self._turns.popleft()
        self.over += 1
        if isinstance(event, CaseFailed):
            self.failed(RuntimeError(event.message))
            self.many.add([Line.of(event)])
        elif event.skipped and (lost := lost_line(result, self.viewer.layers)):
            self.many.add([lost])
        elif event.skipped and result.kept is not None:
            self._show_kept(result.request, result.kept, result.kept_lines)
        else:
            if result.waits:
                self._show_after_all(result)
            predictions = result.halt.results
            recipe = self.settle(predictions)
            self.many.add(_lines(result.request, predictions))
            self.many.add_recipe(result.request.source.name, {**recipe, "layers": []})
            result.halt.drop()
        self.running = None
        if self._turns:
            self.show_running(self._turns[0])

    def _collect(self) -> None:
        """Open the Training cases dock with the image and its result chosen; nothing is saved yet."""
        if self._collected is not None:
            request, labels = self._collected
            names = request.model.dataset.channel_names
            open_dock(self.viewer, "Training cases").use(request.layers, labels, names)

    def _show_labels(self, result: ResultLayers, recipe: dict[str, Any]) -> None:
        if not result.shown_in(self.viewer):
            result.new_labels()
            result.add_to(self.viewer)
            show_info("The result's layer had been removed or changed; it was added again.")
        request = result.request
        left = result.leave(recipe)
        earlier = [] if request.output == "Probabilities" else self._earlier(result, left)  # its labels take no place
        for before in earlier:  # this is the same again, or the whole of what was a part
            remove_layer(self.viewer, before)
            result.call(result.name)
        about = {"partial": False, "request": request.key, "spacing_mm": request.voxel_mm}
        result.labels.metadata["nnunet"] = {**about, **recipe}
        result.labels.refresh()

    def cancelled(self, fraction: float) -> str:
        """Keep what was finished, and say what that is."""
        result, self.running = self.running, None
        self._turns.clear()
        percent = round(100 * fraction)
        if result is None or not result.shown_in(self.viewer):
            return "Cancelled. The result's layer had been removed; nothing is kept."
        on = " Press Continue to resume from there." if result.halt.begun and not result.painted else ""
        if not result.canvas.any():
            self._halt(result)
            if percent == 0:
                return "Cancelled before anything was finished."
            return f"Cancelled at {percent} %. Nothing had been found by then, so no layer is kept.{on}"
        result.call(f"{result.name} (partial {percent} %)")
        result.labels.metadata["nnunet"] = {**result.labels.metadata["nnunet"], "percent": percent}
        result.labels.refresh()
        result.leave({})
        self._halt(result)
        return f"Cancelled at {percent} %. The part segmented so far is kept.{on}"

    def _halt(self, result: ResultLayers) -> None:
        """Take an empty layer away; keep what a further run can go on with."""
        if not result.canvas.any():
            remove_layer(self.viewer, result.labels)
        if result.painted:
            result.halt.drop()  # what it would go on from is not what it computed
        elif result.halt.begun:
            self._halted = result

    def failed(self, error: BaseException) -> None:
        """Take the layer away where nothing was painted into it, name it partial otherwise."""
        result, self.running = self.running, None
        if result is None or not result.shown_in(self.viewer):
            return
        if result.canvas.any():
            result.call(f"{result.name} (partial)")
            result.labels.refresh()
        self._halt(result)


def _lines(request: SegmentRequest, predictions: Sequence[Any]) -> list[Line]:
    """Return the lines of an image: one, or one for every time point."""
    info = request.model.dataset
    return [
        Line(frame_name(request, frame), "done", one.seconds, found_in(one.counts, info, request.voxel_mm, one.kinds))
        for frame, one in zip(request.frames, predictions, strict=True)
    ]
