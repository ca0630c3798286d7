"""Labels that look wrong: a list of places, each of which is looked at, left as it is, or put right."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QCheckBox, QHBoxLayout, QVBoxLayout, QWidget

from napari_nnunet.errors import counted, some
from napari_nnunet.processes.follow import Training
from napari_nnunet.schema.model_name import ModelName
from napari_nnunet.schema.requests.labelling import FindLabelErrorsRequest
from napari_nnunet.widgets.frame.panel import RunPanel, RunState
from napari_nnunet.widgets.frame.parts import CopyButton, Sentence, Table, button
from napari_nnunet.widgets.frame.state import State
from napari_nnunet.widgets.frame.words import as_text
from napari_nnunet.widgets.frame.worker import lazy

if TYPE_CHECKING:
    from napari_nnunet.jobs.labelling.accept import accept_label, doubt_label
    from napari_nnunet.jobs.labelling.label_errors import find_label_errors
    from napari_nnunet.jobs.labelling.suspects import Copies, Examined, LabelErrors
    from napari_nnunet.jobs.labelling.take import take_prediction
else:
    accept_label = lazy("napari_nnunet.jobs.labelling.accept:accept_label")
    doubt_label = lazy("napari_nnunet.jobs.labelling.accept:doubt_label")
    find_label_errors = lazy("napari_nnunet.jobs.labelling.label_errors:find_label_errors")
    take_prediction = lazy("napari_nnunet.jobs.labelling.take:take_prediction")


@dataclass(frozen=True)
class Suspect:
    """A place of a case whose labels look wrong, or the whole case where no place stands out.

    Its dataset is the one that was looked at, whichever is chosen now. Some were found right (``accepted``), and some
    lines are about several cases that are copies of each other.
    """

    raw: Path
    case: Examined
    number: int | None = None
    accepted: bool = False
    copies: Copies | None = None

    @property
    def part(self) -> Any:
        """The place; None for a whole case."""
        return None if self.number is None else self.case.parts[self.number]

    def row(self, found: LabelErrors) -> list[str]:
        """Return the cells of the table."""
        if self.copies is not None:
            return [some(self.copies.names, 3), self.copies.text, "–", "–"]
        part, names = self.part, found.scheme.names
        why = self.case.slips[0].text if self.case.slips else ""
        said = why or "differs all over"
        if part is not None:
            drawn, seen = (names.get(value, str(value)) for value in (part.label, part.seen))
            said = f"{drawn}, seen as {seen}" + (f" ({why})" if why else "")
        said = f"accepted: {said}" if self.accepted else said
        return [self.case.name, said, *(("–", "–") if part is None else (str(part.voxels), f"{part.certainty:.0%}"))]


def _rows_of(raw: Path, found: LabelErrors, *, accepted: bool) -> list[Suspect]:
    """Return what is listed: what looks wrong, copies, and, where that is wanted, what was found right."""
    rows = [Suspect(raw, case, number) for case in found.suspects for number in case.doubted or (None,)]
    named = {case.name: case for case in found.cases}
    rows += [Suspect(raw, named[copies.names[0]], copies=copies) for copies in found.copies]
    if accepted:
        for case in found.accepted:
            numbers = [number for number in case.accepted if number >= 0]
            rows += [Suspect(raw, case, number, accepted=True) for number in numbers or (None,)]
    return rows


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
        self._gone: set[tuple[str, int | None]] = set()  # what the prediction took the place of
        self._raw, self._judge = Path(), ""  # the dataset that was looked at, and the model that it was held against
        self.panel = RunPanel("Look for wrong labels", stops="Stop looking.")
        self.panel.start = self.look
        self.panel.idle.connect(self._show)
        self.about = Sentence()
        self.table = Table("Labels that look wrong, worst first", ["Case", "Finding", "Voxels", "Sure"])
        self.table.setToolTip("Double-click opens the case at that place.")
        self.keep = button(
            "The label is right",
            "Leave it as it is: it is not listed again while nothing changes there. Kept in accepted_labels.csv beside "
            "the dataset.",
        )
        self.doubt = button("Doubt it again", "Take back that this label is right.")
        self.show_accepted = QCheckBox("Also what was found right")
        self.take = button(
            "Take the prediction", "Put what the network sees in its place; the old labels go to the trash."
        )
        self.edit = button("Edit", "Open the case at that place, with its labels selected for painting.")
        self.copy = CopyButton("Copy as CSV", lambda: "" if self.found is None else self.found.csv())
        line = QWidget()
        row = QHBoxLayout(line)
        row.setContentsMargins(0, 0, 0, 0)
        for part in (self.keep, self.doubt, self.take, self.edit):
            row.addWidget(part)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        self._results = (self.about, self.table, self.show_accepted, line, self.copy)
        for part in (self.panel, *self._results):
            column.addWidget(part)
        self.table.cellDoubleClicked.connect(lambda row, _: self.opened.emit(self.suspects[row]))
        self.edit.clicked.connect(lambda: self._with_current(self.opened.emit))
        self.keep.clicked.connect(lambda: self._with_current(self.accept))
        self.doubt.clicked.connect(lambda: self._with_current(self.doubt_again))
        self.show_accepted.toggled.connect(lambda _: self._list())
        self.table.currentCellChanged.connect(lambda *_: self._enable())
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
        for part in (self.keep, self.doubt, self.take):  # of the former list, which stays until there is another
            part.setEnabled(False)
        self.panel.run(job, done=lambda found: self._looked(raw, name.label, found))

    def _looked(self, raw: Path, judge: str, found: LabelErrors) -> str:
        self.found, self._raw, self._judge = found, raw, judge
        self._gone = set()
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
        self.show_accepted.setVisible(bool(self.found.accepted))
        self._list()

    def _list(self) -> None:
        """Show what there is now."""
        if self.found is None:
            return
        rows = _rows_of(self._raw, self.found, accepted=self.show_accepted.isChecked())
        self.suspects = [row for row in rows if (row.case.name, row.number) not in self._gone or row.copies is not None]
        wrong = [suspect for suspect in self.suspects if not suspect.accepted and suspect.copies is None]
        cases, copies = len({suspect.case.name for suspect in wrong}), len(self.found.copies)
        self.about.setText(
            (
                f"{counted(len(wrong), 'place')} in {counted(cases, 'case')} of {self._raw.name}, compared with "
                f"{self._judge}, the worst first."
                if wrong
                else f"Compared with {self._judge}, no label of {self._raw.name} looks wrong, or none is left."
            )
            + (f" {counted(copies, 'group')} of copies." if copies else "")
        )
        self.table.fill([suspect.row(self.found) for suspect in self.suspects])
        for row, suspect in enumerate(self.suspects):
            for column in range(self.table.columnCount()):
                item = self.table.item(row, column)
                if item is not None:
                    item.setToolTip(as_text(suspect.case.text))
        self._enable()

    def _enable(self) -> None:
        """Offer what can be done with the current line."""
        row = max(0, self.table.currentRow())
        now = self.suspects[row] if row < len(self.suspects) else None
        changes = now is not None and now.copies is None and self.panel.state is RunState.IDLE
        self.edit.setEnabled(now is not None)
        self.keep.setEnabled(changes and now is not None and not now.accepted)
        self.take.setEnabled(changes and now is not None and not now.accepted)
        self.doubt.setEnabled(changes and now is not None and now.accepted)

    def _with_current(self, act: Callable[[Suspect], object]) -> None:
        row = max(0, self.table.currentRow())
        if row < len(self.suspects):
            act(self.suspects[row])

    def accept(self, suspect: Suspect) -> None:
        """Keep that a label is right."""
        found = self.found
        if found is not None and self.panel.state is RunState.IDLE:
            job = accept_label(found.folder, suspect.case, suspect.number, found.scheme)
            number = -1 if suspect.number is None else suspect.number
            now = suspect.case.with_accepted({*suspect.case.accepted, number})
            self.panel.run(job, done=lambda path: self._decided(now, f"It is not listed again: {path.name} keeps it."))

    def doubt_again(self, suspect: Suspect) -> None:
        """Take back that a label is right."""
        found = self.found
        if found is not None and self.panel.state is RunState.IDLE:
            job = doubt_label(found.folder, suspect.case, suspect.number, found.scheme)
            whole = -1 in suspect.case.accepted or suspect.number is None
            now = suspect.case.with_accepted(() if whole else {*suspect.case.accepted} - {suspect.number})
            self.panel.run(job, done=lambda _: self._decided(now, "It is listed again."))

    def _decided(self, case: Examined, text: str) -> str:
        if self.found is not None:
            self.found = self.found.with_case(case)
        return text

    def take_prediction(self, suspect: Suspect) -> None:
        """Put what the network sees in the place of what is drawn."""
        if self.panel.state is RunState.IDLE:
            job = take_prediction(suspect.raw, suspect.case, suspect.part)
            self.panel.run(job, done=lambda _: self._taken(suspect))

    def _taken(self, suspect: Suspect) -> str:
        self._gone.add((suspect.case.name, suspect.number))
        self.written.emit()
        return f"The labels of {suspect.case.name} are changed; the old ones are in the trash. Train on to use them."
