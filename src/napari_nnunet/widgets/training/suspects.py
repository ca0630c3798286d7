"""Labels that look wrong: a list of places, each of which is looked at, left as it is, or put right."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QHBoxLayout, QVBoxLayout, QWidget

from napari_nnunet.errors import counted
from napari_nnunet.processes.follow import Training
from napari_nnunet.schema.model_name import ModelName
from napari_nnunet.schema.requests.labelling import FindLabelErrorsRequest
from napari_nnunet.widgets.frame.panel import RunPanel, RunState
from napari_nnunet.widgets.frame.parts import CopyButton, Sentence, Table, button
from napari_nnunet.widgets.frame.state import State
from napari_nnunet.widgets.frame.words import as_text
from napari_nnunet.widgets.frame.worker import lazy

if TYPE_CHECKING:
    from napari_nnunet.jobs.labelling.label_errors import Examined, LabelErrors, find_label_errors
    from napari_nnunet.jobs.labelling.take import take_prediction
else:
    find_label_errors = lazy("napari_nnunet.jobs.labelling.label_errors:find_label_errors")
    take_prediction = lazy("napari_nnunet.jobs.labelling.take:take_prediction")


@dataclass(frozen=True)
class Suspect:
    """A place of a case whose labels look wrong, or the whole case where no place stands out.

    Its dataset is the one that was looked at, whichever is chosen now.
    """

    raw: Path
    case: Examined
    part: Any = None

    def row(self, found: LabelErrors) -> list[str]:
        """Return the cells of the table."""
        part, names = self.part, found.scheme.names
        why = self.case.slips[0].text if self.case.slips else ""
        if part is None:
            return [self.case.name, why or "differs all over", "–", "–"]
        drawn, seen = (names.get(value, str(value)) for value in (part.label, part.seen))
        said = f"{drawn}, seen as {seen}" + (f" ({why})" if why else "")
        return [self.case.name, said, str(part.voxels), f"{part.certainty:.0%}"]


class SuspectList(QWidget):
    """Finds labels that look wrong and lists them; emits ``opened`` with a :class:`Suspect`, ``written`` after changes.

    Parameters
    ----------
    state : State
        Whose workspace holds the cases.
    chosen : callable
        Returns the training whose model is asked, None where none is chosen.
    """

    opened = Signal(object)
    written = Signal()

    def __init__(self, state: State, chosen: Callable[[], Training | None]) -> None:
        super().__init__()
        self.state, self._chosen = state, chosen
        self.found: LabelErrors | None = None
        self.suspects: list[Suspect] = []
        self._raw, self._judge = Path(), ""  # the dataset that was looked at, and the model that it was held against
        self.panel = RunPanel("Look for wrong labels", stops="Stop looking.")
        self.panel.start = self.look
        self.panel.idle.connect(self._show)
        self.about = Sentence()
        self.table = Table("Labels that look wrong, worst first", ["Case", "Finding", "Voxels", "Sure"])
        self.table.setToolTip("Double-click opens the case at that place.")
        self.keep = button("The label is right", "Leave it as it is and take it off this list.")
        self.take = button(
            "Take the prediction", "Put what the network sees in its place; the old labels go to the trash."
        )
        self.edit = button("Edit", "Open the case at that place, with its labels selected for painting.")
        self.copy = CopyButton("Copy as CSV", lambda: "" if self.found is None else self.found.csv())
        line = QWidget()
        row = QHBoxLayout(line)
        row.setContentsMargins(0, 0, 0, 0)
        for part in (self.keep, self.take, self.edit):
            row.addWidget(part)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        self._results = (self.about, self.table, line, self.copy)
        for part in (self.panel, *self._results):
            column.addWidget(part)
        self.table.cellDoubleClicked.connect(lambda row, _: self.opened.emit(self.suspects[row]))
        self.edit.clicked.connect(lambda: self._with_current(self.opened.emit))
        self.keep.clicked.connect(lambda: self._with_current(self._drop))
        self.take.clicked.connect(lambda: self._with_current(self.take_prediction))
        self._show()

    def look(self) -> None:
        """Hold the labels of the chosen training's dataset against what its model's folds saw."""
        training = self._chosen()
        if training is None:
            self.panel.say("Choose a training first.")
            return
        model = training.folder.path.parent
        name = ModelName.parse(model.name)
        names = {"configuration": name.configuration, "trainer": name.trainer, "plans": name.plans}
        raw = self.state.workspace.raw / model.parent.name
        job = find_label_errors(self.state.workspace, FindLabelErrorsRequest.of(dataset=model.parent.name, **names))
        for part in (self.keep, self.take):  # of the former list, which stays until there is another
            part.setEnabled(False)
        self.panel.run(job, done=lambda found: self._looked(raw, name.label, found))

    def _looked(self, raw: Path, judge: str, found: LabelErrors) -> str:
        self.found, self._raw, self._judge = found, raw, judge
        self.suspects = [Suspect(raw, case, part) for case in found.suspects for part in case.parts or (None,)]
        looks = "looks" if len(found.suspects) == 1 else "look"
        text = f"{counted(len(found.suspects), 'case')} of {len(found.cases)} {looks} wrong."
        for case, error in list(found.failed.items())[:1]:
            others = f" (nor {counted(len(found.failed) - 1, 'other case')})" if len(found.failed) > 1 else ""
            text += f" {case} could not be examined{others}: {error.in_window}"
        return text

    def _show(self) -> None:
        for part in self._results:
            part.setVisible(self.found is not None)
        if self.found is None:
            return
        cases = len({suspect.case.name for suspect in self.suspects})
        self.about.setText(
            f"{counted(len(self.suspects), 'place')} in {counted(cases, 'case')} of {self._raw.name}, compared with "
            f"{self._judge}, the worst first."
            if self.suspects
            else f"Compared with {self._judge}, no label of {self._raw.name} looks wrong, or none is left."
        )
        self.table.fill([suspect.row(self.found) for suspect in self.suspects])
        for row, suspect in enumerate(self.suspects):
            for column in range(self.table.columnCount()):
                item = self.table.item(row, column)
                if item is not None:
                    item.setToolTip(as_text(suspect.case.text))
        self.edit.setEnabled(bool(self.suspects))
        for part in (self.keep, self.take):
            part.setEnabled(bool(self.suspects) and self.panel.state is RunState.IDLE)

    def _with_current(self, act: Callable[[Suspect], object]) -> None:
        row = max(0, self.table.currentRow())
        if row < len(self.suspects):
            act(self.suspects[row])

    def _drop(self, suspect: Suspect) -> None:
        self.suspects = [other for other in self.suspects if other is not suspect]
        self._show()

    def take_prediction(self, suspect: Suspect) -> None:
        """Put what the network sees in the place of what is drawn."""
        if self.panel.state is RunState.IDLE:
            job = take_prediction(suspect.raw, suspect.case, suspect.part)
            self.panel.run(job, done=lambda _: self._taken(suspect))

    def _taken(self, suspect: Suspect) -> str:
        self._drop(suspect)
        self.written.emit()
        return f"The labels of {suspect.case.name} are changed; the old ones are in the trash. Train on to use them."
