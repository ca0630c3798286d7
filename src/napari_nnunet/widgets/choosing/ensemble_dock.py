"""The Ensemble dock: several models or folds segment the open image together, and show where they disagree."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from magicgui.widgets import CheckBox, ComboBox
from napari.layers import Labels
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QFormLayout, QGroupBox, QLabel, QPushButton, QWidget

from napari_nnunet.engine.prediction.vote import Method, VoteSettings
from napari_nnunet.errors import NnunetError
from napari_nnunet.events import Event, Painted
from napari_nnunet.jobs.choosing.ensemble import check_models, check_weights
from napari_nnunet.schema.cleaning import Cleaning
from napari_nnunet.widgets.choosing.ensemble_jobs import (
    Order,
    best_job,
    calibrate_job,
    cost_text,
    estimate_job,
    join_job,
    run_job,
    short_name,
)
from napari_nnunet.widgets.choosing.members import BEST, LayerGroup, MemberChoice, MembersForm
from napari_nnunet.widgets.frame.forms import add_row, scrolling
from napari_nnunet.widgets.frame.layers import colormap_of, features_of, focus_of
from napari_nnunet.widgets.frame.panel import RunPanel, State
from napari_nnunet.widgets.frame.ready import NotReadyError
from napari_nnunet.widgets.frame.words import plain_time
from napari_nnunet.widgets.frame.worker import JobWorker, Listener
from napari_nnunet.widgets.prediction.after import AfterResult
from napari_nnunet.widgets.prediction.form import SegmentForm
from napari_nnunet.widgets.prediction.request import resolve
from napari_nnunet.widgets.prediction.result import ResultLayers, VolumeTable, doubt_layer
from napari_nnunet.widgets.prediction.words import describe

if TYPE_CHECKING:
    import napari

_SOFT, _HARD = "Mean of the probabilities (nnU-Net)", "Majority of the labels"


class EnsembleWidget(QWidget):
    """Segment image layers with several trained models, or join probability layers.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
        Injected by napari.
    """

    def __init__(self, viewer: napari.viewer.Viewer) -> None:
        super().__init__()
        self.viewer = viewer
        self._running: ResultLayers | None = None
        self._order: Order | None = None
        self._then: Callable[[Any], None] | None = None  # what follows a job that is no segmentation
        self._estimator: JobWorker | None = None
        self._generation = 0
        self.members = MembersForm(viewer)
        self.form = SegmentForm(viewer, choose_model=False)
        self.options = self._make_options()
        self.summary = QLabel()
        self.summary.setWordWrap(True)
        self.panel = RunPanel("Segment together", stops="Stop within one tile; what is finished is kept.")
        self.table = VolumeTable()
        self.after = AfterResult()
        scrolling(self, (self.members, self.form, self.options, self.summary, self.panel, self.table, self.after))
        self._later = QTimer(self)
        self._later.setSingleShot(True)
        self._later.setInterval(150)
        self._connect()
        self._members_changed()

    def _make_options(self) -> QGroupBox:
        box = QGroupBox("4  Joining")
        form = QFormLayout(box)
        self.method_box = ComboBox(label="By", choices=[_SOFT, _HARD], tooltip="What decides where members differ.")
        self.doubt_box = CheckBox(
            text="Show uncertainty",
            value=True,
            tooltip="Two layers: entropy (how unsure all together are) and disagreement (how much members contradict).",
        )
        for widget in (self.method_box, self.doubt_box):
            add_row(form, widget)
        self.calibrate = QPushButton("Calibrate the uncertainty")
        self.calibrate.setAccessibleName("Calibrate the uncertainty")
        self.calibrate.setToolTip("Fit a temperature to the validation cases, once. Their probabilities must be there.")
        form.addRow(self.calibrate)
        return box

    def _connect(self) -> None:
        self._later.timeout.connect(self._update)
        self.members.changed.connect(self._members_changed)
        self.members.comparison_wanted.connect(self._compare_models)
        self.form.changed.connect(self._changed)
        self.method_box.changed.connect(self._changed)
        self.doubt_box.changed.connect(self._changed)
        self.calibrate.clicked.connect(self._calibrate)
        self.panel.start = self.run
        self.panel.happened.connect(self._on_event)
        self.panel.finished.connect(self._on_finished)
        self.panel.cancelled.connect(self._on_cancelled)
        self.panel.failed.connect(self._on_failed)
        self.after.changed.connect(self.table.recount)

    def _members_changed(self) -> None:
        layers = self.members.takes_layers
        self.form.setVisible(not layers)
        self.options.setVisible(len(self.members.chosen()) > 1)
        self.panel.rename("Join layers" if layers else "Segment together")
        chosen = self.members.chosen()
        first = next((member.model for member in chosen if isinstance(member, MemberChoice)), None)
        if first is not self.form.model and not layers:
            self.form.show_model(first)
        self._changed()

    def _changed(self, _: Any = None) -> None:
        if self.panel.state is State.IDLE:
            self.panel.say("")
        self._later.start()

    def order(self) -> Order:
        """Check everything and work out what Run would do.

        Raises
        ------
        NotReadyError
            With the first thing that is missing or does not fit.
        """
        chosen = self.members.chosen()
        try:
            weights = self.members.weights()
            check_weights(weights, len(chosen))
        except NnunetError as error:
            raise NotReadyError(error.message) from error
        method: Method = "hard" if self.method_box.value == _HARD else "soft"
        if self.members.takes_layers:
            vote = VoteSettings(method, weights, bool(self.doubt_box.value))
            return self._layer_order(chosen, vote)
        if self.members.empty:
            raise NotReadyError(self.members.note.text())
        if not chosen or (len(chosen) < 2 and self.members.source_box.value != BEST):
            raise NotReadyError("An ensemble has two members or more. Switch some on.")
        try:
            check_models([member.model for member in chosen])
        except NnunetError as error:
            raise NotReadyError(error.message) from error
        request = resolve(self.form.choices())
        uncertain = bool(self.doubt_box.value) and len(chosen) > 1
        vote = VoteSettings(method, weights, uncertain, self._temperature(chosen))
        return Order(request, chosen, [], vote, self.members.cleaning() or Cleaning())

    def _temperature(self, chosen: Sequence[MemberChoice]) -> float:
        from napari_nnunet.jobs.choosing.calibrate import known_temperature

        folders = list(dict.fromkeys(member.model.folder for member in chosen))
        return known_temperature(folders) or 1.0

    def _layer_order(self, groups: list[LayerGroup], vote: VoteSettings) -> Order:
        if len(groups) < 2:
            raise NotReadyError("Joining takes the probability layers of two results or more.")
        first = groups[0]
        for group in groups:
            if not group.complete:
                raise NotReadyError(f"'{group.name}' lacks the probability layers of some classes.")
            if group.scheme != first.scheme:
                raise NotReadyError(f"'{group.name}' knows other classes than '{first.name}'.")
            if next(iter(group.layers.values())).data.shape != next(iter(first.layers.values())).data.shape:
                raise NotReadyError(f"'{group.name}' has another shape than '{first.name}'.")
        return Order(None, [], groups, vote, Cleaning())

    def _update(self) -> None:
        if self.panel.state is not State.IDLE:
            return
        self._generation += 1
        try:
            order = self.order()
        except NotReadyError as reason:
            self.summary.setText(f"<b>Not ready.</b> {reason}")
            self.panel.set_ready(str(reason))
            return
        self.panel.set_ready(None)
        datasets = {member.model.folder.parent for member in order.members}  # one has validation cases for all
        self.calibrate.setVisible(order.vote.uncertainty and len(datasets) == 1 and order.vote.temperature == 1)
        if order.request is None:
            names = ", ".join(group.name for group in order.groups)
            self.summary.setText(f"<b>Will join</b> {names}.")
            return
        self.summary.setText(describe(order.request) + ".<br>Estimating time and memory…")
        if self._estimator is not None:
            self._estimator.quit()
        self._estimator = JobWorker(estimate_job(order, self._generation))
        Listener(self, self._estimator, returned=self._estimated)
        self._estimator.start()

    def _estimated(self, result: tuple[int, Order, Any] | None) -> None:
        if result is None or result[0] != self._generation or self.panel.state is not State.IDLE:
            return
        _, order, found = result
        if isinstance(found, NnunetError):
            self.summary.setText(f"<b>Not ready.</b> {found.message}")
            self.panel.set_ready(found.message)
            return
        self.summary.setText(cost_text(order, found))

    def run(self) -> None:
        """Start; what is open and chosen now is what is used."""
        try:
            order = self.order()
        except NotReadyError:
            self._update()
            return
        self._order = order
        self.after.hide_result()
        self.table.hide_result()
        if order.request is None:
            self.panel.run(join_job(order))
            return
        what = "ensemble" if len(order.members) > 1 else "best"
        self._running = result = ResultLayers(order.request, name=f"{order.request.source.name} – {what}")
        self.viewer.add_layer(result.labels)
        focus = focus_of(order.request.source, order.request.axes, self.viewer.dims)
        self.panel.run(run_job(order, result.targets(), focus))

    def _compare_models(self, results: Path) -> None:
        """Find the best of a dataset; the panel shows how far it is."""
        if self.panel.state is State.IDLE:
            self._then = self._compared
            self.panel.run(best_job(results))

    def _compared(self, found: Any) -> None:
        self.members.refresh()
        dice = ", ".join(f"{short_name(entry)} {entry.dice:.3f}" for entry in found.scored)
        self.panel.say(f"Compared {len(found.scored)}: {dice}.")

    def _calibrate(self) -> None:
        """Find out on the members' validation how sure they may be."""
        try:
            order = self.order()
        except NotReadyError:
            return
        if self.panel.state is State.IDLE:
            self._then = self._calibrated
            self.panel.run(calibrate_job(order))

    def _calibrated(self, found: Any) -> None:
        result, _ = found
        self._later.start()
        self.panel.say(
            f"Calibrated on {result.cases} cases: the calibration error goes from {result.error_before:.3f} to "
            f"{result.error_after:.3f}."
        )

    def _on_event(self, event: Event) -> None:
        if isinstance(event, Painted) and event.final and self._running is not None:
            self._running.labels.refresh()

    def _on_finished(self, found: Any) -> None:
        then, self._then = self._then, None
        order, self._order = self._order, None
        result, self._running = self._running, None
        if then is not None:
            then(found)
        if order is None:
            return
        if order.request is None:
            self._show_joined(order, *found)
        elif result is not None:
            self._show_predictions(order, result, found)
        self._later.start()

    def _show_predictions(self, order: Order, result: ResultLayers, predictions: Sequence[Any]) -> None:
        request = result.request
        if result.labels not in self.viewer.layers:
            self.viewer.add_layer(result.labels)
        result.labels.metadata["nnunet"] = {
            "partial": False,
            "spacing_mm": request.spacing if request.spacing_known else None,
            "region": request.region,
            **predictions[0].recipe,
        }
        result.labels.refresh()
        if order.vote.uncertainty:
            for layer in result.uncertainty_layers(predictions):
                self.viewer.add_layer(layer)
            self.viewer.layers.selection.active = result.labels
        for layer in result.probability_layers():
            self.viewer.add_layer(layer)
        self.table.show_result(result, [prediction.counts for prediction in predictions])
        self.after.show_result(
            result.labels,
            [target[1] for target in result.targets()],
            request.model.dataset.labels,
            predictions[0].recipe,
            recommended=self.members.cleaning(),
            applied=bool(order.cleaning.steps),
        )
        seconds = sum(prediction.seconds for prediction in predictions)
        self.panel.say(f"Done in {plain_time(seconds)} on {predictions[0].recipe['device']}.")

    def _show_joined(self, order: Order, labels: Any, uncertainty: Any) -> None:
        group = order.groups[0]
        source = next(iter(group.layers.values()))
        place = {
            "scale": source.scale,
            "translate": source.translate,
            "rotate": source.rotate,
            "shear": source.shear,
            "affine": source.affine,
            "units": source.units,
            "axis_labels": source.axis_labels,
        }
        colours = {"colormap": colormap_of(group.scheme), "features": features_of(group.scheme)}
        layer = Labels(labels, name=" + ".join(g.name for g in order.groups), **colours, **place)
        layer.metadata["nnunet"] = {
            "joined": [g.name for g in order.groups],
            "method": order.vote.method,
            "weights": order.vote.weights,
        }
        self.viewer.add_layer(layer)
        for name, values in zip(("entropy", "disagreement"), uncertainty or (), strict=False):
            self.viewer.add_layer(doubt_layer(values, f"{layer.name}: {name}", place))
        self.viewer.layers.selection.active = layer
        self.panel.say(f"Joined {len(order.groups)} results.")

    def _on_cancelled(self, fraction: float) -> None:
        result, self._running = self._running, None
        self._order = self._then = None
        if result is not None and result.labels in self.viewer.layers:
            result.labels.name = f"{result.name} (partial {round(100 * fraction)} %)"
            result.labels.refresh()
        self.panel.say("Cancelled. What was finished, by some of the members, is kept.")
        self._later.start()

    def _on_failed(self, _: Exception) -> None:
        result, self._running = self._running, None
        self._order = self._then = None
        message = self.panel.status.text()
        if result is not None and result.labels in self.viewer.layers and not result.canvas.any():
            self.viewer.layers.remove(result.labels)
        self._update()
        self.panel.say(message)
