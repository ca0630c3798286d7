"""The Ensemble dock: several models or folds segment the open image together, and show where they disagree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtWidgets import QFormLayout, QGroupBox

from napari_nnunet.engine.prediction.vote import VoteSettings
from napari_nnunet.errors import counted, some
from napari_nnunet.events import Job
from napari_nnunet.formats.model.side_files import stamps_of
from napari_nnunet.jobs.choosing.calibrate import calibrate_models, known_temperature, notes_weights
from napari_nnunet.jobs.choosing.ensemble import check_models, check_weights
from napari_nnunet.schema.cleaning import Cleaning
from napari_nnunet.schema.requests.choosing import EnsembleRequest
from napari_nnunet.widgets.choosing.ensemble_jobs import (
    EnsembleOrder,
    Joining,
    Together,
    best_of,
    cost_text,
    estimate_together,
    segment,
)
from napari_nnunet.widgets.choosing.joined import begin_joining, show_joined
from napari_nnunet.widgets.choosing.layer_groups import LayerGroup
from napari_nnunet.widgets.choosing.members import BEST, MemberChoice, MembersForm
from napari_nnunet.widgets.files.overlay import require_over
from napari_nnunet.widgets.files.place import axes_of
from napari_nnunet.widgets.frame.dock import RequestDock
from napari_nnunet.widgets.frame.forms import FieldRows
from napari_nnunet.widgets.frame.layers import focus_of, placement_of
from napari_nnunet.widgets.frame.panel import RunState
from napari_nnunet.widgets.frame.parts import button
from napari_nnunet.widgets.frame.ready import NotReadyError
from napari_nnunet.widgets.frame.tabs import leads_to
from napari_nnunet.widgets.frame.worker import Latest, on_a_thread
from napari_nnunet.widgets.prediction.form import SegmentForm
from napari_nnunet.widgets.prediction.show import ResultView
from napari_nnunet.widgets.prediction.words import describe

if TYPE_CHECKING:
    import napari

_JOIN, _TOGETHER = "Combine layers", "Segment together"
_METHODS = (("Mean of the probabilities (nnU-Net)", "soft"), ("Majority of the labels", "hard"))


class EnsembleWidget(RequestDock[EnsembleOrder, dict[str, Any]]):
    """Segment image layers with several trained models, or join probability layers.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
        Injected by napari.
    """

    def __init__(self, viewer: napari.viewer.Viewer) -> None:
        super().__init__(viewer, "Segment together", stops="Stop within one tile and keep what is finished.")
        self._looking = Latest(self)
        self.members = MembersForm(viewer)
        self.form = SegmentForm(viewer, choose_model=False)
        self.options = self._make_options()
        self.result = ResultView(viewer)
        self.lay_out(self.members, self.form, self.options, self.summary, self.panel, self.result)
        self.members.changed.connect(self._members_changed)
        self.members.comparison_wanted.connect(self._compare_models)
        self.form.changed.connect(self.check_soon)
        self.calibrate.clicked.connect(self._calibrate)
        viewer.layers.events.removed.connect(self._layer_removed)
        self._members_changed()

    def _make_options(self) -> QGroupBox:
        box = QGroupBox("4  Combining")
        form = QFormLayout(box)
        self.rows = FieldRows(EnsembleRequest, {"method": {"choices": _METHODS}, "uncertainty": {"value": True}})
        self.rows.add_to(form, lambda _: self.check_soon())
        self.calibrate = button(
            "Calibrate the uncertainty",
            "Fit a temperature to the validation cases, once. Needs saved validation probabilities.",
        )
        form.addRow(self.calibrate)
        return box

    def _members_changed(self) -> None:
        layers = self.members.takes_layers
        self.form.setVisible(not layers)
        self.options.setVisible(len(self.members.chosen()) > 1)
        self.panel.rename(_JOIN if layers else _TOGETHER)
        first = next((member.model for member in self.members.chosen() if isinstance(member, MemberChoice)), None)
        if first is not self.form.model and not layers:
            self.form.show_model(first)
        self._look_at_weights()
        self.check_soon()

    def _look_at_weights(self) -> None:
        """Find out on a thread whether a calibration is of the chosen weights: large checkpoints are read for it."""
        self._looking.stop()
        folders = _folders([member for member in self.members.chosen() if isinstance(member, MemberChoice)])
        if folders and notes_weights(folders):
            job = on_a_thread(lambda: known_temperature(folders))
            self._looking.start(job, returned=self.check_soon, errored=self.check_soon)

    def _layer_removed(self, event: Any) -> None:
        if self.result.running is not None and event.value is self.result.running.labels:
            self.panel.cancel()
        self.result.forget(event.value)

    def request(self) -> EnsembleOrder:
        """Return what the form asks for."""
        chosen = self.members.chosen()
        weights = self.members.weights()
        check_weights(weights, len(chosen))
        asked = self.rows.values()
        if self.members.takes_layers:
            return Joining(_that_fit(chosen), VoteSettings(asked["method"], weights, asked["uncertainty"]))
        if self.members.empty:
            lead = leads_to(self.viewer, "Models") if self.members.of_box.value is None else None
            raise NotReadyError(self.members.note.text(), lead)
        if not chosen or (len(chosen) < 2 and self.members.source_box.value != BEST):
            raise NotReadyError("Select at least two models.")
        check_models([member.model for member in chosen])
        if self._looking.running:
            raise NotReadyError("Looking at the models…")
        uncertain = asked["uncertainty"] and len(chosen) > 1
        vote = VoteSettings(asked["method"], weights, uncertain, _temperature(chosen))
        request = self.form.request(self.panel, turns=any(member.model.turns for member in chosen))
        for member in chosen:
            self.form.require_near(member.model, request)
        cleaning = self.members.cleaning() or Cleaning()
        own = [(member, request.settings.replace(folds=member.folds)) for member in chosen]
        members = [(member.folds, stamps_of(member.model, settings)) for member, settings in own]
        return Together(replace(request, together=repr((members, vote, cleaning))), chosen, vote, cleaning)

    def check(self) -> None:
        """Offer a calibration where there is one to be had."""
        super().check()
        members = [member for member in self.members.chosen() if isinstance(member, MemberChoice)]
        datasets = {member.model.folder.parent for member in members}  # one has validation cases for all
        wanted = self.rows.values()["uncertainty"] and len(members) > 1 and len(datasets) == 1
        self.calibrate.setVisible(wanted and not self._looking.running and _temperature(members) == 1)

    def verb(self, request: EnsembleOrder) -> str:
        """Return what Run does: begin, or go on where it was cancelled."""
        if isinstance(request, Joining):
            return _JOIN
        return "Continue" if self.result.carries_on(request.request) else _TOGETHER

    def describe(self, request: EnsembleOrder) -> str:
        """Return what will be segmented, or joined."""
        if isinstance(request, Together):
            return describe(request.request)
        return f"<b>Will combine</b> {', '.join(group.name for group in request.groups)}"

    def estimate(self, request: EnsembleOrder) -> Job[dict[str, Any]] | None:
        """Return what works out time and memory of the models; layers are combined at once."""
        return estimate_together(request) if isinstance(request, Together) else None

    def expect(self, request: EnsembleOrder, found: dict[str, Any]) -> str:
        """Return what it takes."""
        return cost_text(request, found) if isinstance(request, Together) else self.describe(request)

    def begin(self, request: EnsembleOrder) -> None:
        """Segment with all models, or join layers."""
        if isinstance(request, Joining):
            self.result.clear()
            self.panel.run(
                begin_joining(self.viewer, request), done=lambda found: show_joined(self.viewer, request, found)
            )
            return
        order = request
        name = f"{order.request.source.name} – {'ensemble' if len(order.members) > 1 else 'best'}"
        result = self.result.begin(order.request, name=name)
        recommended = self.members.cleaning()  # of what runs; something else may be chosen when it ends
        focus = focus_of(order.request.source, order.request.axes, self.viewer.dims)
        self.panel.run(
            result.noted(segment(order, result.targets(), result.halt, focus)),
            done=lambda predictions: self._show_predictions(order, predictions, recommended),
            cancelled=self._cancelled,
            failed=self.result.failed,
            happened=self.result.paint,
        )

    def close_down(self) -> None:
        """Let go of what a cancelled run would go on with."""
        self.result.forget()
        self._looking.stop()
        super().close_down()

    def _show_predictions(self, order: Together, predictions: Sequence[Any], recommended: Cleaning | None) -> str:
        return self.result.done(predictions, recommended=recommended, applied=bool(order.cleaning.steps))

    def _cancelled(self, fraction: float) -> str:
        text = self.result.cancelled(fraction)
        return text.replace("is kept.", "is kept; not all models have voted on it.") if "so far" in text else text

    def _compare_models(self, results: Path) -> None:
        """Find the best of a dataset; the panel shows how far it is."""
        if self.panel.state is RunState.IDLE:
            self.panel.run(best_of(self.members.head.workspace, results), done=self._compared)

    def _compared(self, found: Any) -> str:
        self.members.refresh()
        told = "; ".join(
            f"{' + '.join(model.configuration for model in entry.models)}, {entry.told}" for entry in found.scored
        )
        return f"Compared {counted(len(found.scored), 'candidate')}: {told}."

    def _calibrate(self) -> None:
        """Find out on the members' validation how sure they may be."""
        members = {member.model.folder: member.model for member in self.members.chosen()}
        if self.panel.state is RunState.IDLE and members:
            job = calibrate_models(self.members.head.workspace, list(members.values()))
            self.panel.run(job, done=_calibrated)


def _calibrated(found: Any) -> str:
    result, _ = found
    return (
        f"Calibrated on {counted(result.cases, 'case')}: the calibration error went from {result.error_before:.3f} to "
        f"{result.error_after:.3f}."
    )


def _temperature(members: Sequence[MemberChoice]) -> float:
    """Return what the uncertainty of these models was calibrated with, 1 if it was not."""
    folders = _folders(members)
    return (known_temperature(folders) if folders else None) or 1.0


def _folders(members: Sequence[MemberChoice]) -> list[Path]:
    return list(dict.fromkeys(member.model.folder for member in members))


def _that_fit(groups: Sequence[LayerGroup]) -> Sequence[LayerGroup]:
    """Return the results if they can be joined; raises NotReadyError."""
    if len(groups) < 2:
        raise NotReadyError("Select the probability layers of at least two results.")
    first = groups[0]
    for group in groups:
        if group.missing:
            lacks = f"'{group.name}' lacks the probability layers of {some(group.missing, 3)}."
            raise NotReadyError(f"{lacks} Untick it, or segment again with 'Output: probabilities'.")
        if group.scheme != first.scheme:
            raise NotReadyError(f"'{group.name}' has other classes than '{first.name}'.")
        one, other = (next(iter(entry.layers.values())) for entry in (first, group))
        if one.ndim != other.ndim or one.data.shape != other.data.shape:
            raise NotReadyError(f"'{group.name}' has another shape than '{first.name}'.")
        require_over(one, other, axes_of(one.ndim, placement_of(one)))
    return groups
