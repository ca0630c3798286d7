"""The Plan dock: measure a dataset, plan it, see what it means, change what may be changed, preprocess."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from magicgui.widgets import ComboBox, FloatSpinBox, LineEdit
from qtpy.QtWidgets import (
    QCheckBox,
    QFormLayout,
    QGroupBox,
    QLabel,
    QTabWidget,
    QVBoxLayout,
    QWidget,
)
from superqt import QCollapsible

from napari_nnunet.errors import NnunetError
from napari_nnunet.events import Job
from napari_nnunet.formats.atomic import write_json
from napari_nnunet.formats.dataset.raw_dataset import read_info, survey
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.schema.dataset import BACKGROUND, DatasetInfo
from napari_nnunet.schema.fingerprint import Fingerprint
from napari_nnunet.schema.plans import Plans
from napari_nnunet.schema.requests.planning import PlanAndPreprocessRequest, PlanSettings, PreprocessRequest
from napari_nnunet.widgets.frame.forms import add_row, let_shrink, scrolling, with_refresh
from napari_nnunet.widgets.frame.panel import RunPanel, State
from napari_nnunet.widgets.frame.preferences import read_preferences
from napari_nnunet.widgets.frame.ready import NotReadyError, typed_spacing
from napari_nnunet.widgets.frame.worker import JobWorker, Listener
from napari_nnunet.widgets.planning.change import ChangeForm
from napari_nnunet.widgets.planning.views import (
    ConfigurationTable,
    DataPlots,
    NetworkDrawing,
    main_configuration,
    readable_configurations,
    sentence,
)

if TYPE_CHECKING:
    import napari

_NONE = "(no dataset yet)"
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


class PlanWidget(QWidget):
    """Plan and preprocess a dataset.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
        Injected by napari; the dock does not touch its layers.
    """

    def __init__(self, viewer: napari.viewer.Viewer) -> None:
        super().__init__()
        self.viewer = viewer
        self.workspace: Workspace = read_preferences().folders()
        self.info: DatasetInfo | None = None
        self.plans: Plans | None = None
        self.costs: dict[str, Any] = {}
        self._coster: JobWorker | None = None
        self._make()
        scrolling(self, (self._form(), self.panel, self.sentence, self.views, self._changing(), self._preprocessing()))
        self._connect()
        self.fill_datasets()

    def _make(self) -> None:
        self.dataset_box = ComboBox(label="Dataset", choices=[_NONE], tooltip="A raw dataset of the workspace.")
        self.about = QLabel()
        self.about.setWordWrap(True)
        self.preset_box = ComboBox(
            label="Preset",
            choices=list(_PRESETS.items()),
            tooltip="nnU-Net's planners: the larger networks need more GPU memory and are a little better.",
        )
        self.memory_box = FloatSpinBox(
            label="GPU memory (GB)", value=0, min=0, max=1024, step=1, tooltip="0 takes the preset's."
        )
        self.spacing_edit = LineEdit(
            label="Voxel size (mm)", tooltip="Resample to this voxel size, z y x; leave empty to let the data decide."
        )
        self.name_edit = LineEdit(label="Plans name", tooltip="Leave empty for the preset's; another name keeps both.")
        self.plans_box = ComboBox(
            label="Plans", choices=[], nullable=True, tooltip="Plans that exist for this dataset."
        )
        self.panel = RunPanel("Measure and plan")
        self.sentence = QLabel()
        self.sentence.setWordWrap(True)
        font = self.sentence.font()
        font.setBold(True)
        self.sentence.setFont(font)
        self.table = ConfigurationTable()
        self.network_box = ComboBox(label="Configuration", choices=[], nullable=True)
        self.drawing = NetworkDrawing()
        self.plots = DataPlots()
        self.views = QTabWidget()
        drawing = QWidget()
        column = QVBoxLayout(drawing)
        column.addWidget(self.network_box.native)
        column.addWidget(self.drawing)
        column.addStretch(1)
        for widget, title in ((self.table, "Configurations"), (drawing, "Network"), (self.plots, "Data")):
            self.views.addTab(widget, title)
        self.change = ChangeForm()
        self.boxes: dict[str, QCheckBox] = {}
        self.preprocess_panel = RunPanel("Preprocess", stops="Stop, and keep the cases that are finished.")

    def _form(self) -> QGroupBox:
        box = QGroupBox("1  Dataset and preset")
        column = QVBoxLayout(box)
        row, self.refresh = with_refresh(self.dataset_box)
        column.addLayout(row)
        column.addWidget(self.about)  # a form would cut its second line
        form = QFormLayout()
        column.addLayout(form)
        add_row(form, self.preset_box)
        inner = QWidget()
        details = QFormLayout(inner)
        details.setContentsMargins(0, 0, 0, 0)
        for widget in (self.memory_box, self.spacing_edit, self.name_edit):
            add_row(details, widget)
        more = QCollapsible("Advanced")
        more.addWidget(inner)
        form.addRow(more)
        add_row(form, self.plans_box)
        let_shrink(box)
        self.form = form
        return box

    def _changing(self) -> QCollapsible:
        self.changing = QCollapsible("Change a configuration")
        self.changing.addWidget(self.change)
        return self.changing

    def _preprocessing(self) -> QGroupBox:
        self.preprocessing = QGroupBox("2  Preprocess")
        column = QVBoxLayout(self.preprocessing)
        self.choices_row = QVBoxLayout()
        column.addLayout(self.choices_row)
        column.addWidget(self.preprocess_panel)
        return self.preprocessing

    def _connect(self) -> None:
        self.refresh.clicked.connect(lambda: self.fill_datasets())
        self.dataset_box.changed.connect(self._dataset_chosen)
        self.plans_box.changed.connect(self._plans_chosen)
        self.spacing_edit.changed.connect(self._update)
        self.network_box.changed.connect(self._network_chosen)
        self.panel.start = self.run
        self.panel.finished.connect(self._planned)
        self.preprocess_panel.start = self.preprocess
        self.preprocess_panel.finished.connect(self._preprocessed)
        self.change.saved.connect(self._save_change)

    def fill_datasets(self, select: Path | None = None) -> None:
        """List the datasets of the workspace again."""
        found = self.workspace.raw_datasets()
        before = select or self.dataset_box.value
        with self.dataset_box.changed.blocked():
            self.dataset_box.choices = [(path.name, path) for path in found] or [_NONE]
            if before in found:
                self.dataset_box.value = before
        self._dataset_chosen()

    @property
    def folder(self) -> Path | None:
        """The chosen raw dataset."""
        value = self.dataset_box.value
        return value if isinstance(value, Path) else None

    @property
    def base(self) -> Path | None:
        """Where its plans and preprocessed cases lie."""
        return None if self.folder is None else self.workspace.preprocessed / self.folder.name

    def _dataset_chosen(self, _: Any = None, *, select: str | None = None) -> None:
        self.info = None
        self._cases = 0
        text = f"There is no dataset in {self.workspace.raw}. Make one in the Training cases dock."
        if self.folder is not None:
            try:
                self.info = read_info(self.folder)
                self._cases = len(survey(self.folder)[0].cases)
                classes = [name for name in self.info.labels.labels if name != BACKGROUND]
                text = (
                    f"{self._cases} cases; channels {', '.join(self.info.channel_names)}; classes {', '.join(classes)}."
                )
            except (NnunetError, OSError) as error:
                text = str(error)
        self.about.setText(text)
        self._fill_plans(select)
        self._update()

    def _fill_plans(self, select: str | None = None) -> None:
        from napari_nnunet.formats.preprocessed.plans import plan_files

        base = self.base
        names = [path.stem for path in plan_files(base)] if base is not None and base.is_dir() else []
        with self.plans_box.changed.blocked():
            self.plans_box.choices = names
            if names:
                self.plans_box.value = select if select in names else names[0]
        self.form.setRowVisible(self.plans_box.native, len(names) > 1)
        self._plans_chosen()

    def _plans_chosen(self) -> None:
        self.plans = None
        name = self.plans_box.value
        if self.base is not None and name:
            try:
                path = self.base / f"{name}.json"
                self.plans = Plans.read(path)
            except (NnunetError, OSError) as error:
                self.panel.say(str(error))
        self.costs = {}
        self._show_plans()

    def _show_plans(self) -> None:
        """Show the plans and start to measure what they cost; nothing where there are none."""
        there = self.plans is not None and self.info is not None
        for part in (self.views, self.changing, self.preprocessing, self.sentence):
            part.setVisible(there)
        if self.plans is None or self.info is None:
            return
        configurations = readable_configurations(self.plans)
        with self.network_box.changed.blocked():
            self.network_box.choices = list(configurations)
            self.network_box.value = main_configuration(self.plans)
        self._network_chosen()
        self.change.show_plans(self.plans, self.info)
        self._show_boxes(list(configurations))
        self._show_fingerprint()
        self._refresh(measuring=True)
        self._measure_costs(list(configurations))

    def _refresh(self, *, measuring: bool = False) -> None:
        if self.plans is not None and self.info is not None:
            self.table.show_plans(self.plans, self.costs, measuring=measuring)
            self.sentence.setText(sentence(self.plans, self.info, self._cases, self.costs))

    def _network_chosen(self) -> None:
        if self.plans is not None and self.network_box.value:
            self.drawing.show_configuration(self.plans.configuration(self.network_box.value))

    def _show_boxes(self, names: list[str]) -> None:
        for box in self.boxes.values():
            self.choices_row.removeWidget(box)
            box.deleteLater()
        # the cascade trains on the data of 3d_fullres
        wanted = [name for name in names if name != "3d_cascade_fullres"]
        self.boxes = {name: QCheckBox(name) for name in wanted}
        for box in self.boxes.values():
            box.setChecked(True)
            self.choices_row.addWidget(box)

    def _show_fingerprint(self) -> None:
        path = None if self.base is None else self.base / "dataset_fingerprint.json"
        if path is not None and path.is_file() and self.info is not None:
            fingerprint = Fingerprint.read(path)
            self.plots.show_fingerprint(fingerprint, self.info.channel_names)

    def _measure_costs(self, names: list[str]) -> None:
        """Run a training step of every configuration on a thread: that is where torch is loaded."""
        if self._coster is not None:
            self._coster.quit()
        worker = JobWorker(_cost_job(self.base, self.plans, self.info, names))
        Listener(
            self,
            worker,
            returned=lambda found: self._costs_measured(worker, found),
            errored=lambda _: self._costs_measured(worker, {}),
        )
        self._coster = worker
        worker.start()

    def _costs_measured(self, worker: JobWorker, found: dict[str, Any]) -> None:
        if worker is self._coster:
            self._coster = None
            self.costs = found or {}
            self._refresh()

    def settings(self) -> PlanSettings:
        """Return what the form says; raises NotReadyError where the voxel size is not understood."""
        text = self.spacing_edit.value.strip()
        spacing = typed_spacing(text, "zyx") if text else None
        return PlanSettings(
            planner=self.preset_box.value,
            gpu_memory_gb=self.memory_box.value or None,
            target_spacing=None if spacing is None else (spacing[0], spacing[1], spacing[2]),
            plans_name=self.name_edit.value.strip() or None,
        )

    def _update(self, _: Any = None) -> None:
        reason = None
        if self.folder is None or self.info is None:
            reason = self.about.text()
        else:
            try:
                self.settings()
            except NotReadyError as error:
                reason = str(error)
        self.panel.set_ready(reason)
        self.panel.say(reason or "")

    def run(self) -> None:
        """Measure the dataset and plan it."""
        if self.folder is not None and self.panel.state is State.IDLE:
            self.panel.run(_plan_job(self.workspace, self.folder.name, self.settings()))

    def _planned(self, path: Path) -> None:
        self._dataset_chosen(select=path.stem)  # cases may have come since
        self.panel.say(f"Planned: {path.name}.")

    def preprocess(self) -> None:
        """Preprocess the ticked configurations."""
        names = [name for name, box in self.boxes.items() if box.isChecked()]
        if not names:
            self.preprocess_panel.say("Tick at least one configuration.")
            return
        if self.folder is not None and self.plans_box.value:
            self.preprocess_panel.run(_preprocess_job(self.workspace, self.folder.name, self.plans_box.value, names))

    def _preprocessed(self, result: Any) -> None:
        done, skipped, failed = len(result.done), len(result.skipped), result.failed
        text = f"{done} cases preprocessed" + (f", {skipped} were up to date" if skipped else "")
        if failed:
            listed = "; ".join(f"{name}: {reason}" for name, reason in list(failed.items())[:3])
            text += f", {len(failed)} failed – {listed}"
        self.preprocess_panel.say(text + ("" if failed else ". Ready to train."))

    def _save_change(self, name: str, content: dict[str, Any]) -> None:
        if self.base is not None and self.plans_box.value:
            write_json(self.base / f"{self.plans_box.value}.json", json.loads(json.dumps(content)))
            self._plans_chosen()
            self.panel.say(f"Added the configuration {name}.")


def _plan_job(workspace: Workspace, name: str, settings: PlanSettings) -> Callable[[], Job[Path]]:
    def start() -> Job[Path]:
        from napari_nnunet.jobs.planning.plan_and_preprocess import plan_and_preprocess

        planned = yield from plan_and_preprocess(
            workspace,
            PlanAndPreprocessRequest.like(settings, dataset=name, configurations=()),
        )
        return planned.plans

    return start


def _preprocess_job(workspace: Workspace, name: str, plans: str, configurations: list[str]) -> Callable[[], Job[Any]]:
    def start() -> Job[Any]:
        from napari_nnunet.jobs.planning.preprocess import preprocess

        return preprocess(
            workspace,
            PreprocessRequest(
                dataset=name, plans=plans, configurations=configurations, memory_gb=read_preferences().memory_gb
            ),
        )

    return start


def _cost_job(
    base: Path | None, plans: Plans | None, info: DatasetInfo | None, names: list[str]
) -> Callable[[], Job[Any]]:
    def start() -> Job[Any]:
        from napari_nnunet.jobs.planning.cost import training_costs

        if base is None or plans is None or info is None:
            return {}
        return (yield from training_costs(base, plans, info, names))

    return start
