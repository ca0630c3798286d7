"""The form of the Train dock: what to train, for how long, where. It knows nothing of running."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from magicgui.widgets import CheckBox, ComboBox, FileEdit, FloatSpinBox, SpinBox
from qtpy.QtCore import Signal
from qtpy.QtWidgets import (
    QCheckBox,
    QFormLayout,
    QGroupBox,
    QHBoxLayout,
    QLabel,
    QVBoxLayout,
    QWidget,
)
from superqt import QCollapsible

from napari_nnunet.errors import NnunetError
from napari_nnunet.formats.preprocessed.plans import plan_files
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.processes.launch import DetachedTraining
from napari_nnunet.schema.model_name import DEFAULT_TRAINER
from napari_nnunet.schema.names import Fold
from napari_nnunet.schema.plans import Plans
from napari_nnunet.schema.requests.training import TrainSettings
from napari_nnunet.schema.trainers import trainers
from napari_nnunet.widgets.frame.forms import add_row, let_shrink, with_refresh
from napari_nnunet.widgets.frame.preferences import read_preferences
from napari_nnunet.widgets.frame.ready import NotReadyError
from napari_nnunet.widgets.planning.views import main_configuration, readable_configurations

_NONE = "(no dataset yet)"
_BUDGET, _EPOCHS = "Time budget", "Epochs"
_FOLDS: tuple[Fold, ...] = (0, 1, 2, 3, 4, "all")


class TrainForm(QGroupBox):
    """Edits a :class:`DetachedTraining`; emits ``changed`` when it changed.

    Parameters
    ----------
    workspace : Workspace
        Where planned datasets lie.
    """

    changed = Signal()

    def __init__(self, workspace: Workspace) -> None:
        super().__init__("1  What to train")
        self.workspace = workspace
        self.plans: Plans | None = None
        self._make()
        self._lay_out()
        self._connect()
        self.fill_datasets()

    def _make(self) -> None:
        self.dataset_box = ComboBox(label="Dataset", choices=[_NONE], tooltip="Datasets that are planned.")
        self.plans_box = ComboBox(label="Plans", choices=[], nullable=True)
        self.configuration_box = ComboBox(label="Configuration", choices=[], nullable=True)
        self.folds = {fold: QCheckBox(str(fold)) for fold in _FOLDS}
        self.folds[0].setChecked(True)
        for fold, box in self.folds.items():
            held = "holds out no case" if fold == "all" else "holds out another fifth of the cases"
            box.setToolTip(f"Fold {fold} {held} for validation.")
            box.setAccessibleName(f"Fold {fold}")
        self.length_box = ComboBox(label="Length", choices=[_BUDGET, _EPOCHS])
        self.hours_box = FloatSpinBox(
            label="Hours per fold", value=2.0, min=0.01, max=1000, step=0.5, tooltip="Epochs are chosen to fit."
        )
        self.epochs_box = SpinBox(label="Epochs", value=1000, min=1, max=100000, tooltip="1000 is nnU-Net's.")
        self.device_box = ComboBox(
            label="Device", choices=["auto", "cpu", "cuda", "mps"], value=read_preferences().device
        )
        self.trainer_box = ComboBox(
            label="Trainer", choices=list(trainers()), value=DEFAULT_TRAINER, tooltip="nnU-Net's trainer names."
        )
        self.jitter_box = FloatSpinBox(
            label="Foreground jitter",
            value=0.0,
            min=0,
            max=1,
            step=0.05,
            tooltip="0 is nnU-Net's; 0.25 helps where small structures are missed off the centre of a patch.",
        )
        self.seed_box = SpinBox(
            label="Seed", value=0, min=0, max=2**31 - 1, tooltip="The same seed repeats a training."
        )
        self.weights_edit = FileEdit(
            label="Begin with", filter="*.pth", nullable=True, tooltip="A checkpoint of the same plans; leave empty."
        )

        self.npz_box = CheckBox(
            text="Keep probabilities of the validation",
            tooltip="Needed to compare ensembles and to calibrate; takes four bytes per voxel and class, compressed.",
        )

    def _lay_out(self) -> None:
        column = QVBoxLayout(self)
        row, self.refresh = with_refresh(self.dataset_box)
        column.addLayout(row)
        self.form = QFormLayout()
        column.addLayout(self.form)
        add_row(self.form, self.plans_box)
        add_row(self.form, self.configuration_box)
        line = QHBoxLayout()
        line.setSpacing(4)
        for box in self.folds.values():
            line.addWidget(box)
        line.addStretch(1)
        holder = QWidget()
        line.setContentsMargins(0, 0, 0, 0)
        holder.setLayout(line)
        self.form.addRow(QLabel("Folds"), holder)
        for widget in (self.length_box, self.hours_box, self.epochs_box, self.device_box):
            add_row(self.form, widget)
        inner = QWidget()
        details = QFormLayout(inner)
        details.setContentsMargins(0, 0, 0, 0)
        for extra in (self.trainer_box, self.jitter_box, self.seed_box, self.weights_edit, self.npz_box):
            add_row(details, extra)
        self.more = QCollapsible("Advanced")
        self.more.addWidget(inner)
        column.addWidget(self.more)
        let_shrink(self)
        self._length_chosen()

    def _connect(self) -> None:
        self.refresh.clicked.connect(lambda: self.fill_datasets())
        self.dataset_box.changed.connect(self._dataset_chosen)
        self.plans_box.changed.connect(self._plans_chosen)
        self.length_box.changed.connect(self._length_chosen)
        for widget in (self.configuration_box, self.hours_box, self.epochs_box, self.device_box, self.trainer_box):
            widget.changed.connect(lambda _: self.changed.emit())
        for box in self.folds.values():
            box.toggled.connect(lambda _: self.changed.emit())

    def fill_datasets(self) -> None:
        """List the planned datasets of the workspace again."""
        root = self.workspace.preprocessed
        found = [path for path in sorted(root.glob("Dataset*_*")) if plan_files(path)] if root.is_dir() else []
        before = self.dataset_box.value
        with self.dataset_box.changed.blocked():
            self.dataset_box.choices = [(path.name, path) for path in found] or [_NONE]
            if before in found:
                self.dataset_box.value = before
        self._dataset_chosen()

    def _dataset_chosen(self) -> None:
        base = self.dataset_box.value
        names = [path.stem for path in plan_files(base)] if isinstance(base, Path) else []
        with self.plans_box.changed.blocked():
            self.plans_box.choices = names
            if names:
                self.plans_box.value = names[0]
        self.form.setRowVisible(self.plans_box.native, len(names) > 1)
        self._plans_chosen()

    def _plans_chosen(self) -> None:
        self.plans = None
        base, name = self.dataset_box.value, self.plans_box.value
        if isinstance(base, Path) and name:
            try:
                self.plans = Plans.read(base / f"{name}.json")
            except (NnunetError, OSError):
                self.plans = None
        names = list(readable_configurations(self.plans)) if self.plans is not None else []
        with self.configuration_box.changed.blocked():
            self.configuration_box.choices = names
            if names and self.plans is not None:
                self.configuration_box.value = main_configuration(self.plans)
        self.changed.emit()

    def _length_chosen(self) -> None:
        budget = self.length_box.value == _BUDGET
        self.form.setRowVisible(self.hours_box.native, budget)
        self.form.setRowVisible(self.epochs_box.native, not budget)
        self.changed.emit()

    def chosen_folds(self) -> tuple[Fold, ...]:
        """Return the ticked folds."""
        return tuple(fold for fold, box in self.folds.items() if box.isChecked())

    def request(self) -> DetachedTraining:
        """Return what the form says.

        Raises
        ------
        NotReadyError
            Saying what is missing.
        """
        base = self.dataset_box.value
        if not isinstance(base, Path):
            raise NotReadyError(
                f"There is no planned dataset in {self.workspace.preprocessed}. Plan one in the Plan dock."
            )
        if self.plans is None or not self.configuration_box.value:
            raise NotReadyError("These plans cannot be read.")
        if not self.chosen_folds():
            raise NotReadyError("Tick at least one fold.")
        budget = self.length_box.value == _BUDGET
        weights: Any = self.weights_edit.value
        pretrained = Path(weights) if weights and str(weights) not in ("", ".") else None
        settings = TrainSettings(
            trainer=self.trainer_box.value,
            epochs=None if budget else self.epochs_box.value,
            time_budget=self.hours_box.value * 3600 if budget else None,
            foreground_jitter=self.jitter_box.value,
            seed=self.seed_box.value,
            device=self.device_box.value,
            probabilities=bool(self.npz_box.value),
        )
        return DetachedTraining(
            self.workspace,
            base.name,
            self.configuration_box.value,
            self.plans.plans_name,
            self.chosen_folds(),
            settings,
            pretrained=pretrained,
        )


def button_text(request: DetachedTraining) -> str:
    """Return what pressing the button will do."""
    folds = request.folds
    what = f"fold {folds[0]}" if len(folds) == 1 else f"{len(folds)} folds"
    each = "" if len(folds) == 1 else " each"
    budget = request.settings.time_budget
    if budget is None:
        return f"Train {what} of {request.configuration}, {request.settings.epochs} epochs{each}"
    hours = budget / 3600
    length = f"{hours:.3g} h" if hours >= 1 else f"{60 * hours:.3g} min"
    return f"Train {what} of {request.configuration}, {length}{each}"
