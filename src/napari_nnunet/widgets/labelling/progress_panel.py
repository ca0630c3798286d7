"""How far the labelling is, in one place: cases, annotated share, Dice of the best model, what is suggested next."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtWidgets import QGroupBox, QVBoxLayout

from napari_nnunet.errors import counted
from napari_nnunet.widgets.frame.head import Head
from napari_nnunet.widgets.frame.parts import Sentence
from napari_nnunet.widgets.frame.state import State
from napari_nnunet.widgets.frame.words import failure_text
from napari_nnunet.widgets.frame.worker import Latest, lazy

if TYPE_CHECKING:
    from napari_nnunet.jobs.labelling.progress import Counts, Standing, look_at_standing
    from napari_nnunet.jobs.labelling.suggestion import Suggestion, Suggestions
else:
    look_at_standing = lazy("napari_nnunet.jobs.labelling.progress:look_at_standing")


class ProgressPanel(QGroupBox):
    """Follows the chosen dataset: what was written and what was trained since is counted again.

    Parameters
    ----------
    state : State
        What the docks share.
    head : Head
        Of the dock, with the chosen dataset.
    """

    def __init__(self, state: State, head: Head) -> None:
        super().__init__("Progress")
        self.setAccessibleName("Progress of the labelling")
        self._head = head
        self._counting = Latest(self)
        self._known: Counts = {}
        self.labelled, self.model, self.next, self.learning = (Sentence() for _ in range(4))
        column = QVBoxLayout(self)
        for part in (self.labelled, self.model, self.next, self.learning):
            column.addWidget(part)
            part.setVisible(False)
        for changed in (head.changed, state.trained):
            changed.connect(self.look)
        self.look()

    def look(self) -> None:
        """Count again, on a thread."""
        dataset, workspace = self._head.dataset, self._head.workspace
        self.setVisible(dataset is not None)
        if dataset is None:
            self._counting.stop()
        else:
            job = look_at_standing(workspace, dataset, self._known)
            self._counting.start(job, returned=self._counted, errored=self._failed)

    def stop(self) -> None:
        """Count no more: the dock is closed."""
        self._counting.stop()

    def _counted(self, found: Standing) -> None:
        _say(self.labelled, f"<b>Labelled</b>: {found.labelled}.")
        _say(self.model, f"<b>Model</b>: {model_line(found)}")

    def _failed(self, error: BaseException) -> None:
        _say(self.labelled, failure_text(error))
        _say(self.model, "")

    def show_next(self, found: Suggestions | None, place: Suggestion | None, left: int) -> None:
        """Show what is suggested next.

        Parameters
        ----------
        found : Suggestions, optional
            What was suggested; None where nothing was yet.
        place : Suggestion, optional
            The place that is open, or comes.
        left : int
            Places that are left, with this one.
        """
        _say(self.next, "" if found is None else f"<b>Next</b>: {_next_line(place, left)}")
        _say(self.learning, "" if found is None else found.learning)


def _say(line: Sentence, text: str) -> None:
    line.setText(text)
    line.setVisible(bool(text))


def model_line(found: Standing) -> str:
    """Return how good the best model is, and how many cases came after it."""
    if not found.model:
        return "none was trained yet."
    newer = 0 if found.known is None else found.cases - found.known
    after = f" {counted(newer, 'case')} came after it: improve it." if newer > 0 else ""
    return f"{found.learnt or f'{found.model}, which validated no case'}.{after}"


def _next_line(place: Any, left: int) -> str:
    if place is None:
        return f"choose one of {left}." if left else "improve the model, then ask again."
    where = f" {place.place.where}" if place.place.partial else ""
    return f"{place.place.case}{where}{f'; {left - 1} more after it' if left > 1 else ', the last one'}."
