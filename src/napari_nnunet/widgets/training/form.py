"""The form of the Train dock: what to train, for how long, where. It knows nothing of running."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from magicgui.widgets import ComboBox
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QCheckBox, QFileDialog, QFormLayout, QGroupBox, QHBoxLayout, QVBoxLayout, QWidget

from napari_nnunet.errors import counted
from napari_nnunet.formats.workspace import Workspace, stamp
from napari_nnunet.processes.cluster.where import where
from napari_nnunet.processes.launch import ClusterTrainings, DetachedTraining
from napari_nnunet.schema.names import Fold
from napari_nnunet.schema.requests.training import TrainAllRequest, TrainRequest, TrainSettings
from napari_nnunet.schema.trainers import trainers
from napari_nnunet.widgets.frame.forms import FieldRows, add_row, chosen_file, field_widget, let_shrink, offered
from napari_nnunet.widgets.frame.head import Head
from napari_nnunet.widgets.frame.parts import button, folded_away
from napari_nnunet.widgets.frame.preferences import read_preferences
from napari_nnunet.widgets.frame.ready import NotReadyError, Remedy
from napari_nnunet.widgets.frame.state import State
from napari_nnunet.widgets.planning.plans_box import PlansBox
from napari_nnunet.widgets.planning.views import advised_configuration, main_configuration, readable_configurations
from napari_nnunet.widgets.training.folds import FoldBoxes, FoldsDialog

Asked: TypeAlias = DetachedTraining | ClusterTrainings
HERE, CLUSTER = "This computer", "A cluster, as jobs"
_FIRST_CLUSTER = "local:2"
_BUDGET, _EPOCHS = "Time budget", "Epochs"
_DEVICES = ("auto", "cpu", "cuda", "mps")
_MOST_SEEDS = 2**31 - 1  # of a spin box


class ConfigurationBoxes(QWidget):
    """A tick for every configuration; emits ``changed``."""

    changed = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.boxes: dict[str, QCheckBox] = {}
        self._column = QVBoxLayout(self)
        self._column.setContentsMargins(0, 0, 0, 0)
        self._column.setSpacing(2)

    def show_names(self, titles: Sequence[tuple[str, str]]) -> None:
        """Offer configurations by what they are called here and by name; those that are new are ticked."""
        unticked = {name for name, box in self.boxes.items() if not box.isChecked()}
        for box in self.boxes.values():
            self._column.removeWidget(box)
            box.deleteLater()
        self.boxes = {name: QCheckBox(title) for title, name in titles}
        for name, box in self.boxes.items():
            box.setChecked(name not in unticked)
            box.setAccessibleName(f"Configuration {name}")
            box.toggled.connect(self.changed)
            self._column.addWidget(box)

    def chosen(self) -> tuple[str, ...]:
        """Return the ticked configurations."""
        return tuple(name for name, box in self.boxes.items() if box.isChecked())


class TrainForm(QGroupBox):
    """Edits a :class:`DetachedTraining` or :class:`ClusterTrainings`; emits ``changed`` when it changed.

    Parameters
    ----------
    state : State
        Workspace, dataset, plans and configuration.
    lead : callable
        Returns the button that leads to a dock, by its title.
    """

    changed = Signal()

    def __init__(self, state: State, lead: Callable[[str], Remedy]) -> None:
        super().__init__("1  What to train")
        self.state, self._lead = state, lead
        self.head = Head(state, Workspace.dataset_names, page="train.md")
        self.plans_box = PlansBox(state)
        self._titles: list[tuple[str, str]] = []
        self._make()
        self._lay_out()
        self._connect()
        self._dataset_chosen()
        self._length_chosen()
        self._place_chosen()

    def _make(self) -> None:
        self.place_box = ComboBox(label="Run on", choices=[HERE, CLUSTER])
        self.place_box.tooltip = (
            "This computer trains one fold after the other. On a cluster every fold of every configuration is a job of "
            "Slurm, or one of several processes here."
        )
        preferences = read_preferences()
        self.cluster_edit = field_widget(TrainAllRequest, "cluster", value=preferences.cluster or _FIRST_CLUSTER)
        self.cluster_file = button("File…", "Choose the settings file of a Slurm cluster (.toml).")
        self.configuration_boxes = ConfigurationBoxes()
        self.processes_box = field_widget(TrainAllRequest, "processes")
        self.choose_box = field_widget(TrainAllRequest, "choose")
        self.configuration_box = field_widget(TrainRequest, "configuration", choices=offered([]))
        self.fold_boxes = FoldBoxes()
        self.folds = self.fold_boxes.boxes
        self.other_folds = button(
            "Folds…",
            "Show which cases validate in which fold, keep patients together, or make another number of folds.",
        )
        self.length_box = ComboBox(label="Length", choices=[_BUDGET, _EPOCHS])
        hours = {"label": "Hours per fold", "widget_type": "FloatSpinBox", "min": 0.01, "max": 1000, "step": 0.5}
        self.hours_box = field_widget(TrainSettings, "time_budget", value=2.0, **hours)
        self.epochs_box = field_widget(TrainSettings, "epochs", value=1000)
        self.device_box = field_widget(TrainSettings, "device", choices=_DEVICES, value=preferences.device)
        self.weights_edit = field_widget(TrainRequest, "pretrained", filter="*.pth")
        self.heads_box = field_widget(TrainRequest, "pretrained_heads")
        self.rows = FieldRows(TrainSettings, {"trainer": {"choices": list(trainers())}, "seed": {"max": _MOST_SEEDS}})

    def _lay_out(self) -> None:
        self.form = QFormLayout()
        self.form.addRow("Plans", self.plans_box)
        add_row(self.form, self.place_box)
        self.cluster_line = _beside(self.cluster_edit.native, self.cluster_file)
        self.cluster_edit.native.setAccessibleName(self.cluster_edit.label)
        self.form.addRow(self.cluster_edit.label, self.cluster_line)
        add_row(self.form, self.configuration_box)
        self.form.addRow("Configurations", self.configuration_boxes)
        self.form.addRow("Folds", self.fold_boxes)
        self.form.addRow("", self.other_folds)
        for widget in (self.length_box, self.hours_box, self.epochs_box, self.device_box):
            add_row(self.form, widget)
        for widget in (self.processes_box, self.choose_box):
            add_row(self.form, widget)
        inner = QWidget()
        details = QFormLayout(inner)
        details.setContentsMargins(0, 0, 0, 0)
        self.rows.add_to(details, self._emit)
        add_row(details, self.weights_edit)
        add_row(details, self.heads_box)
        more = folded_away("Advanced", inner)
        column = QVBoxLayout(self)
        column.addWidget(self.head)
        column.addLayout(self.form)
        column.addWidget(more)
        let_shrink(self)

    def _connect(self) -> None:
        self.head.changed.connect(self._dataset_chosen)
        self.other_folds.clicked.connect(lambda: self.folds_dialog().open())
        self.plans_box.chosen.connect(self._plans_chosen)
        self.length_box.changed.connect(self._length_chosen)
        self.configuration_box.changed.connect(self._configuration_chosen)
        self.place_box.changed.connect(self._place_chosen)
        self.cluster_file.clicked.connect(self._browse_cluster)
        settings = (self.hours_box, self.epochs_box, self.device_box, self.weights_edit, self.heads_box)
        for widget in (*settings, self.cluster_edit, self.processes_box, self.choose_box):
            widget.changed.connect(self._emit)
        for boxes in (self.fold_boxes, self.configuration_boxes):
            boxes.changed.connect(self._emit)

    def _dataset_chosen(self) -> None:
        self.fold_boxes.show_dataset(self.head.preprocessed)
        self.other_folds.setEnabled(self.head.dataset is not None)
        self.plans_box.show_dataset(self.head.preprocessed)

    def folds_dialog(self) -> FoldsDialog:
        """Return a new dialog that shows and makes the folds of the chosen dataset."""
        dialog = FoldsDialog(self.head.workspace, str(self.head.dataset), self)
        dialog.panel.guard = self.state.require_workspace
        dialog.made.connect(lambda: self.fold_boxes.show_dataset(self.head.preprocessed))
        dialog.made.connect(self._emit)
        return dialog

    def _emit(self, _: Any = None) -> None:
        self.changed.emit()

    def _plans_chosen(self) -> None:
        """Offer the configurations; one that was chosen, is preprocessed or makes sense here comes first."""
        plans = self.plans_box.plans
        self.form.setRowVisible(self.plans_box, self.plans_box.count() > 1)
        names = list(readable_configurations(plans)) if plans is not None else []
        ready = [name for name in names if self._preprocessed(name)]
        kept = (self.state.choice.configuration, self.configuration_box.value)
        with self.configuration_box.changed.blocked():
            self._titles = [(name if name in ready else f"{name} (to be preprocessed)", name) for name in names]
            self.configuration_box.choices = offered(self._titles)
            self.configuration_boxes.show_names(self._titles)
            if plans is not None and names:
                advised = (advised_configuration(plans), main_configuration(plans))
                order = (*kept, *(name for name in (*advised, *ready) if name in ready), *advised)
                self.configuration_box.value = next(name for name in order if name in names)
        self.changed.emit()

    def look_at_preprocessed(self) -> None:
        """Say of every configuration whether it is preprocessed; a training may have done it meanwhile."""
        marked = [name for title, name in self._titles if title == name]
        if [name for _, name in self._titles if self._preprocessed(name)] != marked:
            self._plans_chosen()

    def _preprocessed(self, name: str) -> bool:
        base, plans = self.head.preprocessed, self.plans_box.plans
        if base is None or plans is None:
            return False
        return stamp(base / plans.configuration(name).data_identifier) is not None

    def _configuration_chosen(self, name: str | None) -> None:
        self.state.choose(dataset=self.head.dataset, plans=self.plans_box.name, configuration=name)
        self.changed.emit()

    @property
    def on_cluster(self) -> bool:
        """Whether trainings are to be jobs."""
        return bool(self.place_box.value == CLUSTER)

    def _place_chosen(self, _: Any = None) -> None:
        jobs = self.on_cluster
        for part in (self.cluster_line, self.configuration_boxes, self.processes_box.native, self.choose_box.native):
            self.form.setRowVisible(part, jobs)
        self.form.setRowVisible(self.configuration_box.native, not jobs)
        self.fold_boxes.offer_jobs(jobs)
        self.changed.emit()

    def _browse_cluster(self) -> None:
        path, _ = QFileDialog.getOpenFileName(self, "Settings of a cluster", "", "Settings (*.toml)")
        if path:
            self.cluster_edit.value = path

    def _length_chosen(self, _: Any = None) -> None:
        budget = self.length_box.value == _BUDGET
        self.form.setRowVisible(self.hours_box.native, budget)
        self.form.setRowVisible(self.epochs_box.native, not budget)
        self.changed.emit()

    def chosen_folds(self) -> tuple[Fold, ...]:
        """Return the ticked folds."""
        return self.fold_boxes.chosen()

    def request(self) -> Asked:
        """Return what the form says.

        Raises
        ------
        NotReadyError, SettingsError
            Saying what is missing, or cannot be.
        """
        dataset, plans, configuration = self.head.dataset, self.plans_box.plans, self.configuration_box.value
        if dataset is None:
            raise NotReadyError(
                "This workspace has no dataset yet. Collect cases in the Training cases dock.",
                self._lead("Training cases"),
            )
        if plans is None or not configuration:
            text = self.plans_box.problem or f"{dataset} is not planned yet. Plan it in the Plan dock."
            raise NotReadyError(text, self._lead("Plan"))
        if not self.chosen_folds():
            raise NotReadyError("Tick at least one fold.")
        budget = self.length_box.value == _BUDGET
        settings = TrainSettings.of(
            epochs=None if budget else self.epochs_box.value,
            time_budget=self.hours_box.value * 3600 if budget else None,
            device=self.device_box.value,
            **self.rows.values(),
        )
        weights = chosen_file(self.weights_edit)
        if self.on_cluster:
            return self._jobs(dataset, plans.plans_name, settings, begins_with=weights)
        names = (self.head.workspace, dataset, configuration, plans.plans_name, self.chosen_folds())
        heads = bool(self.heads_box.value) and weights is not None
        return DetachedTraining(*names, settings, pretrained=weights, pretrained_heads=heads)

    def _jobs(self, dataset: str, plans: str, settings: TrainSettings, *, begins_with: Path | None) -> ClusterTrainings:
        if begins_with is not None:
            raise NotReadyError(
                "Jobs begin with fresh weights. Empty 'Begin with' under Advanced, or run on this computer."
            )
        if not self.configuration_boxes.chosen():
            raise NotReadyError("Tick at least one configuration.")
        cluster = str(self.cluster_edit.value).strip()
        where(cluster)  # whether it can be read; whether it is there is looked at on a thread
        request = TrainAllRequest.like(
            settings,
            dataset=dataset,
            plans=plans,
            configurations=self.configuration_boxes.chosen(),
            folds=None if self.fold_boxes.every else self.chosen_folds(),
            cluster=cluster,
            processes=self.processes_box.value,
            choose=self.choose_box.value,
        )
        return ClusterTrainings(self.head.workspace, request)

    def button_text(self, asked: Asked) -> str:
        """Return what pressing the button will do."""
        if isinstance(asked, ClusterTrainings):
            count = len(self.chosen_folds()) * len(asked.request.configurations or ())
            return f"Submit {counted(count, 'training')}, {_length(asked.request)}{'' if count == 1 else ' each'}"
        folds = asked.folds
        what = f"fold {folds[0]}" if len(folds) == 1 else f"{len(folds)} folds"
        each = "" if len(folds) == 1 else " each"
        return f"Train {what} of {asked.configuration}, {_length(asked.settings)}{each}"


def _length(settings: TrainSettings) -> str:
    if settings.time_budget is None:
        return counted(settings.epochs or 0, "epoch")
    hours = settings.time_budget / 3600
    return f"{hours:.3g} h" if hours >= 1 else f"{60 * hours:.3g} min"


def _beside(first: QWidget, second: QWidget) -> QWidget:
    line = QWidget()
    row = QHBoxLayout(line)
    row.setContentsMargins(0, 0, 0, 0)
    row.addWidget(first, 1)
    row.addWidget(second)
    return line
