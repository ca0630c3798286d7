"""The Segment dock: choose a model, see what will happen, run it, look at the result."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari.utils.notifications import show_info
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QLabel, QWidget

from napari_nnunet.errors import NnunetError
from napari_nnunet.events import Event, Job, Painted
from napari_nnunet.formats.model.known_models import remember_model
from napari_nnunet.formats.results.postprocessing import find_cleaning, read_cleaning
from napari_nnunet.schema.names import Fold
from napari_nnunet.schema.requests.prediction import PRESETS
from napari_nnunet.widgets.frame.forms import scrolling
from napari_nnunet.widgets.frame.layers import focus_of
from napari_nnunet.widgets.frame.panel import RunPanel, State
from napari_nnunet.widgets.frame.ready import NotReadyError
from napari_nnunet.widgets.frame.words import plain_time
from napari_nnunet.widgets.frame.worker import JobWorker
from napari_nnunet.widgets.prediction.after import AfterResult
from napari_nnunet.widgets.prediction.form import SegmentForm, sample_folder
from napari_nnunet.widgets.prediction.request import Request, resolve
from napari_nnunet.widgets.prediction.result import ResultLayers, VolumeTable
from napari_nnunet.widgets.prediction.words import describe, expect

if TYPE_CHECKING:
    import napari

_REFRESH_SECONDS = 1.0  # redrawing a large Labels layer takes up to 0.1 s in 2-D and far more in 3-D


class SegmentWidget(QWidget):
    """Segment image layers with a trained nnU-Net model.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
        Injected by napari.
    """

    def __init__(self, viewer: napari.viewer.Viewer) -> None:
        super().__init__()
        self.viewer = viewer
        self._running: ResultLayers | None = None
        self._estimator: JobWorker | None = None
        self._generation = 0
        self._last_refresh = 0.0
        self.form = SegmentForm(viewer)
        self.summary = QLabel()
        self.summary.setWordWrap(True)
        self.panel = RunPanel("Segment", stops="Stop within one tile and keep what is finished.")
        self.table = VolumeTable()
        self.after = AfterResult()
        scrolling(self, (self.form, self.summary, self.panel, self.table, self.after))
        self._connect()
        self._update()

    def _connect(self) -> None:
        self._later = QTimer(self)
        self._later.setSingleShot(True)
        self._later.setInterval(150)
        self._later.timeout.connect(self._update)
        self.form.changed.connect(self._form_changed)
        self.panel.start = self.run
        self.panel.happened.connect(self._on_event)
        self.panel.finished.connect(self._on_finished)
        self.panel.cancelled.connect(self._on_cancelled)
        self.panel.failed.connect(self._on_failed)
        self.after.changed.connect(self.table.recount)
        self.viewer.layers.events.removed.connect(self._layer_removed)
        self.viewer.dims.events.connect(self._view_changed)
        self.viewer.scene.camera.events.connect(self._view_changed)

    def _form_changed(self) -> None:
        if self.panel.state is State.IDLE:
            self.panel.say("")  # what was said belongs to the run before
        self._later.start()

    def add_model(self, folder: Path) -> None:
        """Choose a model by its folder; what is wrong with it is said in the dock."""
        self.form.add_model(folder)

    def use(self, folder: Path, *, checkpoint: str, folds: tuple[Fold, ...]) -> None:
        """Choose a model with a checkpoint and folds, and segment the image that is open, if there is one."""
        self.add_model(folder)
        self.form.choose_checkpoint(checkpoint, folds)
        try:
            resolve(self.form.choices())
        except NotReadyError:
            self._update()
            return
        self.run()

    def _layer_removed(self, event: Any) -> None:
        if self._running is not None and event.value is self._running.labels:
            self.panel.cancel()

    def _view_changed(self, _: Any = None) -> None:
        if self.form.follows_view:
            self._later.start()

    def _update(self) -> None:
        """Check the form; say what Run will do, or why it cannot."""
        if self.panel.state is not State.IDLE:
            return
        self._generation += 1
        try:
            request = resolve(self.form.choices())
        except NotReadyError as reason:
            self._refuse(str(reason))
            return
        self.panel.set_ready(None)
        self.summary.setText(describe(request) + ".<br>Estimating time and memory…")
        self._estimate(request)

    def _refuse(self, reason: str) -> None:
        self.summary.setText(f"<b>Not ready.</b> {reason}")
        self.panel.set_ready(reason)

    def _estimate(self, request: Request) -> None:
        """Work out time and memory on a thread: that is where torch is loaded."""
        if self._estimator is not None:
            self._estimator.quit()
        self._estimator = JobWorker(_estimate_job(request, self._generation))
        self._estimator.returned.connect(self._estimated)
        self._estimator.start()

    def _estimated(self, result: tuple[int, Request, Any]) -> None:
        generation, request, found = result
        if generation != self._generation or self.panel.state is not State.IDLE:
            return  # the form has changed since
        if isinstance(found, NnunetError):
            self._refuse(found.message)
        else:
            self._show_estimate(request, found)

    def _show_estimate(self, request: Request, found: dict[str, Any]) -> None:
        self.summary.setText(expect(request, found["own"]))
        dice = request.model.preset_dice
        titles = {}
        for name in PRESETS:
            seconds = found[name].seconds
            parts = [] if seconds is None else [plain_time(seconds * len(request.frames))]
            if name in dice:
                parts.append(f"Dice {dice[name]:.3f}")
            titles[name] = ", ".join(parts)
        self.form.label_presets(titles)

    def run(self) -> None:
        """Start segmenting; what is open and chosen now is what is used."""
        try:
            request = resolve(self.form.choices())
        except NotReadyError:
            self._update()
            return
        self._running = result = ResultLayers(request)
        self.table.hide_result()
        self.after.hide_result()
        self.viewer.add_layer(result.labels)
        if request.model.folder != sample_folder():
            with contextlib.suppress(NnunetError):
                remember_model(request.model.folder)
        focus = focus_of(request.source, request.axes, self.viewer.dims)
        self.panel.run(_segment_job(request, result.targets(), focus))

    def _on_event(self, event: Event) -> None:
        if isinstance(event, Painted) and self._running is not None:
            now = time.monotonic()
            three = self.viewer.dims.ndisplay == 3
            if now - self._last_refresh > _REFRESH_SECONDS * (5 if three else 1):
                self._last_refresh = now
                self._running.labels.refresh()

    def _on_finished(self, predictions: list[Any]) -> None:
        result, self._running = self._running, None
        if result is None:
            return
        request = result.request
        self._add_back(result)
        result.labels.metadata["nnunet"] = {
            "partial": False,
            "spacing_mm": request.spacing if request.spacing_known else None,
            "region": request.region,
            **predictions[0].recipe,
        }
        result.labels.refresh()
        for layer in result.probability_layers():
            self.viewer.add_layer(layer)
        if request.output == "Probabilities":
            self.viewer.layers.remove(result.labels)
        self.table.show_result(result, [prediction.counts for prediction in predictions])
        if request.output != "Probabilities":
            self._offer(result, predictions[0].recipe)
        seconds = sum(prediction.seconds for prediction in predictions)
        self.panel.say(f"Done in {plain_time(seconds)} on {predictions[0].recipe['device']}.")
        self._later.start()

    def _offer(self, result: ResultLayers, recipe: dict[str, Any]) -> None:
        """Offer postprocessing and the recipe."""
        model = result.request.model
        path = find_cleaning(model.folder)
        recommended = None
        if path is not None:
            with contextlib.suppress(NnunetError):
                recommended = read_cleaning(path)
        views = [target[1] for target in result.targets()]
        self.after.show_result(result.labels, views, model.dataset.labels, recipe, recommended=recommended)

    def _on_cancelled(self, fraction: float) -> None:
        result, self._running = self._running, None
        if result is None:
            return
        percent = round(100 * fraction)
        if result.labels in self.viewer.layers:
            result.labels.name = f"{result.name} (partial {percent} %)"
            result.labels.metadata["nnunet"] = {**result.labels.metadata["nnunet"], "percent": percent}
            result.labels.refresh()
        self.panel.say(f"Cancelled at {percent} %. What was finished is kept.")
        self._later.start()

    def _on_failed(self, _: Exception) -> None:
        result, self._running = self._running, None
        message = self.panel.status.text()  # removing a layer changes the form, which clears it
        if result is not None and result.labels in self.viewer.layers and not result.canvas.any():
            self.viewer.layers.remove(result.labels)
        self._update()
        self.panel.say(message)

    def _add_back(self, result: ResultLayers) -> None:
        if result.labels not in self.viewer.layers:
            self.viewer.add_layer(result.labels)
            show_info("The result's layer had been removed; it was added again.")


def _estimate_job(request: Request, generation: int) -> Callable[[], Job[Any]]:
    def start() -> Job[tuple[int, Request, Any]]:
        from napari_nnunet.jobs.prediction.estimate import estimate_presets

        shape = request.frames[0].volume.shape
        try:
            found: Any = yield from estimate_presets(request.model, shape, request.spacing, request.settings)
        except NnunetError as error:
            found = error
        return generation, request, found

    return start


def _segment_job(request: Request, targets: list[tuple[Any, Any, Any]], focus: Any) -> Callable[[], Job[Any]]:
    def start() -> Job[Any]:
        from napari_nnunet.jobs.prediction.predict import predict_series

        return predict_series(request.model, targets, request.settings, focus=focus, roi=request.region, preview=True)

    return start
