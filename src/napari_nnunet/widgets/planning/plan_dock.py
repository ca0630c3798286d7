"""The Plan dock: measure a dataset, plan it, see what it means, change what may be changed, preprocess."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from qtpy.QtWidgets import QFormLayout, QGroupBox, QVBoxLayout, QWidget

from napari_nnunet.engine.machine import has_gpu
from napari_nnunet.errors import NnunetError, PlanError, counted
from napari_nnunet.events import Job, Note
from napari_nnunet.formats.atomic import write_json
from napari_nnunet.formats.claim import claimed
from napari_nnunet.formats.dataset.raw_dataset import RawDataset, read_info, survey
from napari_nnunet.formats.preprocessed.plans import unchanged
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.jobs.planning.classes import class_warning
from napari_nnunet.schema.dataset import DatasetInfo
from napari_nnunet.schema.plans import Plans
from napari_nnunet.schema.requests.planning import PlanAndPreprocessRequest, PlanSettings
from napari_nnunet.widgets.frame.dock import RequestDock
from napari_nnunet.widgets.frame.forms import FieldRows, add_row, field_widget
from napari_nnunet.widgets.frame.head import Head
from napari_nnunet.widgets.frame.parts import Sentence, button, folded_away, next_button
from napari_nnunet.widgets.frame.ready import NotReadyError
from napari_nnunet.widgets.frame.state import Choice, state_of
from napari_nnunet.widgets.frame.tabs import leads_to, open_dock
from napari_nnunet.widgets.frame.words import dataset_text, failure_text, report_text
from napari_nnunet.widgets.frame.worker import Latest, lazy, on_a_thread
from napari_nnunet.widgets.planning.change import ChangeForm
from napari_nnunet.widgets.planning.plans_box import PlansBox
from napari_nnunet.widgets.planning.preprocessing import Preprocessing
from napari_nnunet.widgets.planning.views import (
    SENSIBLE_START,
    PlanViews,
    advised_configuration,
    plan_sentence,
    readable_configurations,
)

if TYPE_CHECKING:
    import napari

    from napari_nnunet.jobs.planning.cost import training_costs
    from napari_nnunet.jobs.planning.plan_and_preprocess import plan_and_preprocess
else:
    plan_and_preprocess = lazy("napari_nnunet.jobs.planning.plan_and_preprocess:plan_and_preprocess")
    training_costs = lazy("napari_nnunet.jobs.planning.cost:training_costs")

_PRESETS = {
    "Standard U-Net (8 GB)": "ExperimentPlanner",
    "Small U-Net (CPU, quick tries)": "SmallPlanner",
    "ResEnc M (8 GB)": "nnUNetPlannerResEncM",
    "ResEnc L (24 GB)": "nnUNetPlannerResEncL",
    "ResEnc XL (40 GB)": "nnUNetPlannerResEncXL",
    "Standard, torch resampling": "nnUNetPlanner_torchres",
    "ResEnc L, torch resampling": "nnUNetPlannerResEncL_torchres",
    "ResEnc L, torch resampling, thick slices": "nnUNetPlannerResEncL_torchres_sepz",
    "ResEnc L, no resampling": "nnUNetPlannerResEncL_noResampling",
}

T = TypeVar("T")


class PlanWidget(RequestDock[PlanSettings, None]):
    """Plan and preprocess a dataset.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
        Injected by napari; the dock does not touch its layers.
    """

    in_workspace = True

    def __init__(self, viewer: napari.viewer.Viewer) -> None:
        super().__init__(viewer, "Measure and plan", stops="Stop; what was measured is kept.")
        self.state = state_of(viewer)
        self.info: DatasetInfo | None = None
        self.costs: dict[str, Any] = {}
        self.cases: int | None = None  # None until they were counted
        self._shown: tuple[Path | None, Plans | None, DatasetInfo | None] = (None, None, None)
        self._costing, self._looking = Latest(self), Latest(self)
        self._notes: tuple[Note, ...] | None = None  # what the check has said, before the next planning
        self._raw: Path | None = None  # the dataset that is shown
        self._looked_at: Path | None = None  # the dataset whose cases were counted
        self.head = Head(
            self.state, lambda workspace: [path.name for path in workspace.raw_datasets()], page="training-data.md"
        )
        self.plans_box = PlansBox(self.state)
        self.about, self.sentence, self.classes = Sentence(), Sentence(), Sentence()
        font = self.sentence.font()
        font.setBold(True)
        self.sentence.setFont(font)
        self.views = PlanViews()
        self.change = ChangeForm()
        self.changing = folded_away("Change a configuration", self.change)
        self.preprocessing = Preprocessing(self.state)
        self.train = next_button("Train this", "Open the Train dock with these plans; it preprocesses what is missing.")
        self.again = button("Measure again", "Time a training step of every configuration again, on an idle computer.")
        self.again.clicked.connect(lambda: self._measure(anew=True))
        form = self._form()
        self.lay_out(
            form,
            self.summary,
            self.panel,
            self.sentence,
            self.classes,
            self.views,
            self.again,
            self.changing,
            self.preprocessing,
            last=self.train,
        )
        self.head.changed.connect(self._show_dataset)
        self.plans_box.chosen.connect(self._show_plans)
        self.change.saved.connect(self._save_change)
        self.train.clicked.connect(self.train_this)
        self._show_dataset()
        self.check()

    def _form(self) -> QGroupBox:
        self.preset_box = field_widget(PlanSettings, "planner", choices=list(_PRESETS.items()))
        if not has_gpu():
            self.preset_box.value = "SmallPlanner"
        self.rows = FieldRows(PlanSettings)
        inner = QWidget()
        details = QFormLayout(inner)
        details.setContentsMargins(0, 0, 0, 0)
        self.rows.add_to(details, self.check_soon)
        self.clean_box = field_widget(PlanAndPreprocessRequest, "clean", label="Measure all cases again")
        add_row(details, self.clean_box)
        more = folded_away("Advanced", inner)
        self.form = QFormLayout()
        add_row(self.form, self.preset_box)
        self.form.addRow(more)
        self.form.addRow("Plans", self.plans_box)
        self.preset_box.changed.connect(self.check_soon)
        box = QGroupBox("1  Dataset and preset")
        column = QVBoxLayout(box)
        column.addWidget(self.head)
        column.addWidget(self.about)  # a form would cut its second line
        column.addLayout(self.form)
        return box

    # --- what there is ---

    def _show_dataset(self) -> None:
        raw, self.info = self.head.raw, None
        if raw != self._raw:
            self._raw, self.clean_box.value = raw, False  # it was asked of another dataset
            self.preprocessing.clean.setChecked(False)
        text = "This workspace has no dataset yet. Collect cases in the Training cases dock."
        if raw is not None:
            try:
                self.info = read_info(raw)
                text = dataset_text(self.info)
            except (NnunetError, OSError) as error:
                text = failure_text(error)
        self._looking.stop()
        if self.info is None or raw != self._looked_at:
            self.cases, self._looked_at = None, None
            self._show_classes("")
        self._tell(text)
        if raw is not None and self.info is not None:
            workspace = self.state.workspace
            job = on_a_thread(lambda: _look_at_cases(workspace, raw))
            self._looking.start(job, returned=self._looked, errored=self._not_looked)
        self.plans_box.show_dataset(self.head.preprocessed)
        self.check_soon()

    def _tell(self, text: str) -> None:
        """Say what the dataset is; the number of its cases stays where the same one is looked at again."""
        self.about.setText(f"{counted(self.cases, 'case')}. {text}" if self.cases is not None else text)

    def _looked(self, found: tuple[RawDataset, str]) -> None:
        dataset, warning = found
        self._looked_at, self.cases = dataset.folder, len(dataset.cases)
        self._tell(dataset_text(dataset.info))
        self._show_classes(warning)
        self._show_costs(self.costs, measuring=self._costing.running)  # the number of cases may be another
        self.check_soon()

    def _not_looked(self, error: BaseException) -> None:
        self.info, self.cases, self._looked_at = None, None, None
        self._tell(failure_text(error))
        self._show_plans()
        self.check_soon()

    def _show_classes(self, text: str) -> None:
        self.classes.setText(text)
        self.classes.setVisible(self.plans is not None and self.info is not None and bool(text))

    @property
    def plans(self) -> Plans | None:
        """The chosen plans."""
        return self.plans_box.plans

    def _show_plans(self) -> None:
        """Show the plans and start to measure what they cost; nothing where there are none."""
        self.form.setRowVisible(self.plans_box, self.plans_box.count() > 1)
        plans, info = self.plans, self.info
        there = plans is not None and info is not None
        for part in (self.views, self.again, self.changing, self.preprocessing, self.sentence, self.train):
            part.setVisible(there)
        self.classes.setVisible(there and bool(self.classes.text()))
        shown, self._shown = self._shown, (self.head.preprocessed, plans, info)
        if plans is not None and info is not None and shown == self._shown:
            self._show_costs(self.costs, measuring=self._costing.running)  # the number of cases may be another
            return
        self._costing.stop()
        if plans is None or info is None or self.head.preprocessed is None:
            if self.plans_box.problem:  # else what was said stays
                self.panel.say(self.plans_box.problem)
            return
        self.change.show_plans(plans, info)
        self.preprocessing.show_plans(self.head.preprocessed, plans)
        self.views.show_plans(plans, info, self.head.preprocessed)
        self._measure()

    def _measure(self, *, anew: bool = False) -> None:
        """Measure what the configurations cost."""
        base, plans, info = self._shown
        if base is not None and plans is not None and info is not None:
            self._costing.stop()
            self._show_costs({}, measuring=True)
            self._costing.start(
                training_costs(base, plans, info, list(readable_configurations(plans)), anew=anew),
                returned=self._show_costs,
                errored=self._not_measured,
            )

    def _not_measured(self, error: BaseException) -> None:
        self._show_costs({})
        self.panel.tell_failure(f"What training costs could not be measured: {failure_text(error)}", report_text(error))

    def _show_costs(self, costs: dict[str, Any], *, measuring: bool = False) -> None:
        self.costs = costs
        if self.plans is not None and self.info is not None:
            self.again.setEnabled(not measuring)
            self.views.show_costs(self.plans, costs, measuring=measuring)
            self.sentence.setText(plan_sentence(self.plans, self.info, self.cases, costs))

    # --- planning ---

    def request(self) -> PlanSettings:
        """Return what the form says."""
        if self.info is None:
            lead = None if self.head.raw is not None else leads_to(self.viewer, "Training cases")
            raise NotReadyError(self.about.text(), lead)
        return PlanSettings.of(planner=self.preset_box.value, **self.rows.values())

    def describe(self, request: PlanSettings) -> str:
        """Return what will be done."""
        advice = "" if has_gpu() else f".<br>No GPU was found: {SENSIBLE_START} is a sensible start here"
        count = "" if self.cases is None else f"{counted(self.cases, 'case')} of "
        return f"<b>Will measure and plan</b> {count}{self.head.dataset}{advice}"

    def begin(self, request: PlanSettings) -> None:
        """Measure the dataset and plan it."""
        if self.head.dataset is not None:
            name = self.head.dataset
            clean = bool(self.clean_box.value)
            whole = PlanAndPreprocessRequest.like(request, dataset=name, configurations=(), clean=clean)
            notes, self._notes = self._notes, None
            job = plan_and_preprocess(self.state.workspace, whole, as_before=True, checked=notes is not None)
            fingerprint = self.state.workspace.preprocessed / name / "dataset_fingerprint.json"
            before = _written(fingerprint)

            def ended(_: object) -> None:
                if _written(fingerprint) != before:  # the measuring was done, what came after it was not
                    self.clean_box.value = False

            done = partial(self._planned, name, self.state.choice)
            self.panel.run(_after(notes or (), job), done=done, cancelled=ended, failed=ended)

    def _planned(self, dataset: str, since: Choice, planned: Any) -> str:
        path = planned.plans
        self.clean_box.value = False  # what was asked for once is done
        self.state.go_on(since, dataset=dataset, plans=path.stem)
        self.state.written.emit()  # cases may have come since, too
        return f"Planned: {path.stem}."

    def _save_change(self, name: str, content: dict[str, Any]) -> None:
        if self.head.preprocessed is not None and self.plans_box.name is not None:
            path = self.head.preprocessed / f"{self.plans_box.name}.json"
            doing = f"{path.stem} of {path.parent.name} are already being planned"
            with self.telling(self.panel), claimed(path.parent, doing, part=path.name):
                if self.plans is None or not unchanged(self.plans):
                    raise PlanError(
                        f"{path} was changed meanwhile. Look at the plans there are now, then add it again."
                    )
                write_json(path, content)
                self.state.written.emit()
                self.panel.say(f"Added the configuration {name}.")

    def plan_now(self, notes: Sequence[Note] = ()) -> None:
        """Measure and plan the dataset that was checked in another dock, as this form says; its notes are shown too."""
        self._notes = tuple(notes)
        self.check()
        self.run()

    def train_this(self) -> None:
        """Open the Train dock with the selected configuration of these plans."""
        if self.plans is not None:
            configuration = self.views.table.selected() or advised_configuration(self.plans)
            self.state.choose(dataset=self.head.dataset, plans=self.plans_box.name, configuration=configuration)
            open_dock(self.viewer, "Train")

    def close_down(self) -> None:
        """End the measuring of costs too."""
        self._costing.stop()
        self._looking.stop()
        super().close_down()


def _after(notes: Sequence[Note], job: Job[T]) -> Job[T]:
    """Say what is known already, then do a job."""
    yield from notes
    return (yield from job)


def _written(path: Path) -> int:
    """Return when a file was written, 0 where there is none."""
    return path.stat().st_mtime_ns if path.is_file() else 0


def _look_at_cases(workspace: Workspace, raw: Path) -> tuple[RawDataset, str]:
    """Return a dataset, and what to know of its classes; all of its files are looked at."""
    dataset, _ = survey(raw)
    return dataset, class_warning(workspace, dataset.name, dataset.info.labels, dataset.cases)
