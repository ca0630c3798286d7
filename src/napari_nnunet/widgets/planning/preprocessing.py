"""Which configurations of a plan are preprocessed, and the button that does it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtWidgets import QCheckBox, QGroupBox, QVBoxLayout, QWidget

from napari_nnunet.errors import counted
from napari_nnunet.events import Event, Progress, Stage
from napari_nnunet.schema.plans import Plans
from napari_nnunet.schema.requests.planning import PreprocessRequest
from napari_nnunet.widgets.frame.panel import RunPanel
from napari_nnunet.widgets.frame.preferences import read_preferences
from napari_nnunet.widgets.frame.state import State
from napari_nnunet.widgets.frame.worker import lazy
from napari_nnunet.widgets.planning.views import readable_configurations

if TYPE_CHECKING:
    from napari_nnunet.jobs.planning.preprocess import preprocess
else:
    preprocess = lazy("napari_nnunet.jobs.planning.preprocess:preprocess")


class Preprocessing(QGroupBox):
    """Configurations to tick, and a run panel.

    Parameters
    ----------
    state : State
        Told when cases were written.
    """

    def __init__(self, state: State) -> None:
        super().__init__("2  Preprocess")
        self.state = state
        self.base: Path | None = None
        self.plans: Plans | None = None
        self.boxes: dict[str, QCheckBox] = {}
        self._making = False  # files of cases, in a run
        self.panel = RunPanel("Preprocess", stops="Stop, and keep the cases that are finished.")
        self.panel.start = self.run
        self.clean = QCheckBox("From scratch")
        self.clean.setToolTip("Make all cases again, also those that are up to date.")
        self._column = QVBoxLayout()
        column = QVBoxLayout(self)
        column.addLayout(self._column)
        column.addWidget(self.clean)
        column.addWidget(self.panel)

    def show_plans(self, base: Path, plans: Plans) -> None:
        """Offer the configurations of plans; those that were unticked stay so."""
        unticked = {name for name, box in self.boxes.items() if not box.isChecked()} if plans == self.plans else set()
        if (base, plans) != (self.base, self.plans):
            self.clean.setChecked(False)  # it was asked of others
        self.base, self.plans = base, plans
        for box in self.boxes.values():
            self._column.removeWidget(box)
            box.deleteLater()
        # the cascade trains on the data of 3d_fullres
        names = [name for name in readable_configurations(plans) if name != "3d_cascade_fullres"]
        self.boxes = {name: QCheckBox(name) for name in names}
        for name, box in self.boxes.items():
            box.setChecked(name not in unticked)
            self._column.addWidget(box)
            before = self.panel.button.previousInFocusChain()
            if before is not None:
                QWidget.setTabOrder(before, box)
        if self.boxes:
            QWidget.setTabOrder(list(self.boxes.values())[-1], self.clean)

    def run(self) -> None:
        """Preprocess the ticked configurations."""
        names = [name for name, box in self.boxes.items() if box.isChecked()]
        if not names:
            self.panel.say("Tick at least one configuration.")
        elif self.base is not None and self.plans is not None:
            request = PreprocessRequest(
                dataset=self.base.name,
                plans=self.plans.plans_name,
                configurations=tuple(names),
                memory_gb=read_preferences().memory_gb,
                clean=self.clean.isChecked(),
            )
            self._making = False
            job = preprocess(self.state.workspace, request, as_before=True)
            self.panel.run(job, done=self._done, happened=self._happened)

    def _happened(self, event: Event) -> None:
        if isinstance(event, Stage):
            self._making = event.name.startswith("Preprocessing ")
        elif isinstance(event, Progress) and self._making:
            self.clean.setChecked(False)  # what is not made again yet is known to be old: the next press goes on

    def _done(self, result: Any) -> str:
        self.clean.setChecked(False)  # what was asked for once is done
        self.state.written.emit()
        text = f"{counted(len(result.done), 'case')} preprocessed"
        were = "was" if len(result.skipped) == 1 else "were"
        text += f", {len(result.skipped)} {were} up to date" if result.skipped else ""
        if not result.failed:
            return f"{text}. Ready to train."
        listed = "; ".join(f"{name}: {error.in_window}" for name, error in list(result.failed.items())[:3])
        return f"{text}, {len(result.failed)} failed – {listed}"
