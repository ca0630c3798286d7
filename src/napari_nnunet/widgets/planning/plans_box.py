"""Which of a dataset's plans: chosen once for all docks."""

from __future__ import annotations

from pathlib import Path

from qtpy.QtCore import QSignalBlocker, Signal
from qtpy.QtWidgets import QComboBox

from napari_nnunet.errors import NnunetError
from napari_nnunet.formats.preprocessed.plans import plan_files, read_plans
from napari_nnunet.schema.plans import Plans
from napari_nnunet.widgets.frame.state import State
from napari_nnunet.widgets.frame.words import failure_text


class PlansBox(QComboBox):
    """Offers the plans of a dataset and reads the chosen ones; emits ``chosen`` when they are others.

    Parameters
    ----------
    state : State
        Its plans are shown where the dataset has them; what is chosen here is chosen for all docks.
    """

    chosen = Signal()

    def __init__(self, state: State) -> None:
        super().__init__()
        self.state = state
        self.base: Path | None = None
        self.plans: Plans | None = None
        self.problem = ""
        self.setAccessibleName("Plans")
        self.setToolTip("Plans that exist for this dataset.")
        self.activated.connect(lambda: state.choose(dataset=self.base.name, plans=self.name) if self.base else None)
        state.changed.connect(self._follow)

    @property
    def name(self) -> str | None:
        """Name of the chosen plans."""
        return self.currentText() or None

    def show_dataset(self, base: Path | None) -> None:
        """Offer the plans of a preprocessed dataset, and read those that are chosen."""
        self.base = base
        names = [path.stem for path in plan_files(base)] if base is not None else []
        wanted = next((name for name in (self.state.choice.plans, self.name, *names) if name in names), None)
        with QSignalBlocker(self):
            self.clear()
            self.addItems(names)
            self.setCurrentIndex(names.index(wanted) if wanted is not None else -1)
        self._read()

    def _follow(self) -> None:
        dataset, plans = self.state.choice.dataset, self.state.choice.plans
        index = self.findText(plans) if plans is not None else -1
        if self.base is not None and dataset == self.base.name and index not in (-1, self.currentIndex()):
            self.setCurrentIndex(index)
            self._read()

    def _read(self) -> None:
        self.plans, self.problem = None, ""
        if self.base is not None and self.name is not None:
            try:
                self.plans = read_plans(self.base, self.name)
            except (NnunetError, OSError) as error:
                self.problem = failure_text(error)
        self.chosen.emit()
