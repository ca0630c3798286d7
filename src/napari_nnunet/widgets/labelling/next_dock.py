"""The Next dock: what to label next, opened with the model's proposal, corrected, taken as a case, and so on."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakMethod

import numpy as np
from magicgui.widgets import FileEdit
from napari.layers import Image, Labels, Shapes
from napari.utils.notifications import show_info
from qtpy.QtWidgets import QFileDialog, QFormLayout, QGroupBox, QHBoxLayout, QMessageBox, QVBoxLayout, QWidget

from napari_nnunet.errors import ModelError, NnunetError, counted
from napari_nnunet.events import Job
from napari_nnunet.formats.dataset.raw_dataset import TrainingCase
from napari_nnunet.formats.preprocessed.plans import plan_files
from napari_nnunet.formats.workspace import Workspace, is_folder, stamp
from napari_nnunet.schema.requests.labelling import SuggestRequest
from napari_nnunet.widgets.files import unsaved
from napari_nnunet.widgets.frame.dock import RequestDock
from napari_nnunet.widgets.frame.forms import FieldRows, add_row, chosen_file, field_widget
from napari_nnunet.widgets.frame.head import Head
from napari_nnunet.widgets.frame.layers import activate, add_layer, remove_layer
from napari_nnunet.widgets.frame.parts import Sentence, Table, button, folded_away, next_button
from napari_nnunet.widgets.frame.ready import NotReadyError, Remedy
from napari_nnunet.widgets.frame.state import state_of
from napari_nnunet.widgets.frame.tabs import leads_to, open_dock
from napari_nnunet.widgets.frame.words import about_time, as_text
from napari_nnunet.widgets.frame.worker import Latest, lazy
from napari_nnunet.widgets.labelling.place_layers import label_stamp, look_at_place, place_layers
from napari_nnunet.widgets.labelling.progress_panel import ProgressPanel

if TYPE_CHECKING:
    import napari

    from napari_nnunet.jobs.labelling.suggest import suggest
    from napari_nnunet.jobs.labelling.suggestion import Suggestion, Suggestions
    from napari_nnunet.jobs.labelling.take import take_correction
    from napari_nnunet.jobs.labelling.unlabelled import Unlabelled, look_at_unlabelled
else:
    Unlabelled = Any
    look_at_unlabelled = lazy("napari_nnunet.jobs.labelling.unlabelled:look_at_unlabelled")
    suggest = lazy("napari_nnunet.jobs.labelling.suggest:suggest")
    take_correction = lazy("napari_nnunet.jobs.labelling.take:take_correction")

_PROPOSALS = ".proposals"
_ASKED = {"unit", "budget"}
_TAKE, _IMPROVE = "Take, and next", "Improve the model…"


class NextWidget(RequestDock[SuggestRequest, Unlabelled]):
    """Rank unlabelled images, open the first place, take the correction as a case, go to the next.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
        Injected by napari.
    """

    estimating = "Looking at the images…"
    in_workspace = True

    def __init__(self, viewer: napari.viewer.Viewer) -> None:
        super().__init__(viewer, "Suggest what to label", stops="Stop; nothing is suggested then.")
        self.state = state_of(viewer)
        self.found: Suggestions | None = None
        self.left: list[Suggestion] = []
        self._layers: list[Any] = []
        self._open: Suggestion | None = None
        self._coming: Suggestion | None = None  # being read
        self._opening = Latest(self)
        self._asked_of: Path | None = None
        self._kept: str | None = None  # digest of the open proposal as it was opened, or taken
        self._beside: str | None = None  # the same, outside of the place
        self._known: dict[str, tuple[int, int] | None] = {}  # labels of cases as they were when they were suggested
        self.head = Head(self.state, Workspace.dataset_names, page="labelling.md")
        self.source_box = field_widget(
            SuggestRequest, "source", label="Folder", widget_type=FileEdit, mode="d", nullable=True
        )
        self.rows = FieldRows(SuggestRequest)
        self.progress, self.hint = ProgressPanel(self.state, self.head), Sentence()
        self.table = Table("What to label next", ["Image", "Where", "Minutes", "Entropy"], most=10)
        self.open_button = button("Open", "Open the chosen place with the model's proposal.")
        self.skip_button = button("Skip", "Leave this one out and open the next.")
        self.take_button = next_button(_TAKE, "Save the corrected labels as a training case, open the next.")
        self.train_button = button(_IMPROVE, "Open the Train dock to train on with what was labelled.")
        self.lay_out(self._form(), self.summary, self.panel, self.progress, self._result(), last=self.take_button)
        self._connect()
        self._show()
        self.check()

    def _form(self) -> QGroupBox:
        box = QGroupBox("1  Unlabelled images")
        column = QVBoxLayout(box)
        column.addWidget(self.head)
        form = QFormLayout()
        add_row(form, self.source_box)
        self.rows.add_to(form, self.check_soon, only=_ASKED)
        column.addLayout(form)
        inner = QWidget()
        details = QFormLayout(inner)
        details.setContentsMargins(0, 0, 0, 0)
        self.rows.add_to(details, self.check_soon, only=self.rows.widgets.keys() - _ASKED)
        column.addWidget(folded_away("Advanced", inner))
        return box

    def _result(self) -> QGroupBox:
        self.result = QGroupBox("2  Label these")
        column = QVBoxLayout(self.result)
        self._line = line = QWidget()
        row = QHBoxLayout(line)
        row.setContentsMargins(0, 0, 0, 0)
        for part in (self.open_button, self.skip_button, self.train_button):
            row.addWidget(part)
        for part in (self.hint, self.table, line):
            column.addWidget(part)
        return self.result

    def _connect(self) -> None:
        self.head.changed.connect(self._other_dataset)
        self.source_box.changed.connect(self.check_soon)
        self.table.itemDoubleClicked.connect(lambda item: self.open_place(item.row()))
        self.open_button.clicked.connect(lambda: self.open_place(max(0, self.table.currentRow())))
        self.skip_button.clicked.connect(self.skip)
        self.take_button.clicked.connect(lambda: self.improve() if self.over else self.take())
        self.train_button.clicked.connect(self.improve)

    # --- ranking ---

    def request(self) -> SuggestRequest:
        """Return what the form asks for; raises NotReadyError with what is missing."""
        if self.head.dataset is None:
            raise NotReadyError(
                "This workspace has no dataset yet. Collect a few cases in the Training cases dock.",
                leads_to(self.viewer, "Training cases"),
            )
        source = chosen_file(self.source_box)
        if source is None:
            raise NotReadyError("Choose the folder with the images that nobody labelled yet.", self._folder())
        if not is_folder(source):
            text = f"The folder {source} is not there. Choose another one, or connect its disk again."
            raise NotReadyError(text, self._folder())
        proposals = self.head.workspace.results / self.head.dataset / _PROPOSALS
        return SuggestRequest.of(dataset=self.head.dataset, source=source, proposals=proposals, **self.rows.values())

    def describe(self, request: SuggestRequest) -> str:
        """Return what will be ranked."""
        return (
            f"<b>Will segment</b> the images of '{request.source[0].name}' and suggest {request.places} {request.unit} "
            "to label"
        )

    def estimate(self, request: SuggestRequest) -> Job[Unlabelled]:
        """Look at the images, and at the first of them as the model sees it."""
        return self._look(self.head.workspace, request)

    def _look(self, workspace: Workspace, request: SuggestRequest) -> Job[Unlabelled]:
        try:
            return (yield from look_at_unlabelled(workspace, request))
        except ModelError as error:
            planned = bool(plan_files(workspace.preprocessed / request.dataset))
            raise NotReadyError(error.in_window, leads_to(self.viewer, "Train" if planned else "Plan")) from error
        except NnunetError as error:
            raise NotReadyError(error.in_window, self._folder()) from error

    def expect(self, request: SuggestRequest, found: Unlabelled) -> str:
        """Return what will be ranked, by which model, and what is odd about it (rich text)."""
        said = [self.describe(request), f"{counted(found.images, 'image')} to look at, with the model {found.model}"]
        if found.done:
            said.append(f"{counted(found.done, 'image')} left out: training cases already")
        return "<br>".join((*(f"{line}." for line in said), *found.remarks))

    def _folder(self) -> Remedy:
        return Remedy("Choose a folder…", self._browse)

    def _browse(self) -> None:
        found = QFileDialog.getExistingDirectory(self, "Unlabelled images")
        if found:
            self.source_box.value = Path(found)

    def begin(self, request: SuggestRequest) -> None:
        """Rank."""
        if self._may_go():
            job, raw = suggest(self.head.workspace, request), self.head.workspace.raw / request.dataset
            self.panel.run(job, done=lambda found: self._ranked(raw, found), each="Image")

    def _ranked(self, raw: Path, found: Suggestions) -> str:
        if self.head.raw != raw:
            return f"These were suggested for {raw.name}, and another dataset is chosen now. Choose it, then ask again."
        self._stop_opening()
        self._remove_layers()
        self._open = None
        self.found, self.left, self._asked_of = found, list(found.chosen), raw
        self._known = {one.place.case: label_stamp(raw, one.place.case) for one in found.chosen}
        self._show()
        self.open_place(0)
        return f"{len(found.chosen)} of {found.considered} places. {about_time(60 * found.minutes)} together."

    def _other_dataset(self) -> None:
        if self.head.raw != self._asked_of:  # files of the same dataset may have been written
            self.found, self.left, self._open = None, [], None
            self._stop_opening()
            self._remove_layers()
        self._show()
        self.check_soon()

    # --- labelling ---

    def _show(self) -> None:
        self.result.setVisible(self.found is not None)
        self.take_button.setVisible(self.found is not None)
        self.take_button.setText(_IMPROVE if self.over else _TAKE)
        self.take_button.setEnabled(self.over or self._open is not None)
        for part in (self.table, self._line):
            part.setVisible(not self.over)
        self.skip_button.setEnabled(bool(self.left))
        self.open_button.setEnabled(bool(self.left))
        self.hint.setText(self._to_do())
        self.progress.show_next(self.found, self._coming or self._open, len(self.left))
        self.table.fill(
            [
                [
                    s.place.case,
                    s.place.where if s.place.partial else "all of it",
                    f"{s.minutes:.1f}",
                    f"{s.place.entropy:.3f}",
                ]
                for s in self.left
            ]
        )

    def _to_do(self) -> str:
        """Return what happens with the open place, or is to be done with it."""
        if self._coming is not None:
            return f"Opening {self._coming.place.case}…"
        if self.over:
            return "All of these are done. Improve the model, then ask for the next."
        if self._open is None:
            return ""
        place = self._open.place
        where = f" within the frame ({place.where})" if place.partial else ""
        return (
            f"Correct '{place.case} proposal'{where}, then press '{self.take_button.text()}'. Every voxel there counts "
            "as looked at, background too."
        )

    def open_place(self, row: int) -> None:
        """Open a place with the proposal to be corrected."""
        folder = self._asked_of
        if folder is None or not 0 <= row < len(self.left) or not self._may_go():
            return
        found = self._coming = self.left[row]
        self.hint.setText(self._to_do())
        self._opening.start(
            place_layers(folder, found), returned=lambda layers: self._opened(found, layers), errored=self._not_opened
        )

    def _stop_opening(self) -> None:
        self._opening.stop()
        self._coming = None

    def _not_opened(self, error: BaseException) -> None:
        self._coming = None
        self._show()
        self.panel.fail(error)

    def _opened(self, found: Suggestion, layers: list[Any]) -> None:
        self._coming = None
        self._remove_layers()
        for other in self.viewer.layers:
            other.visible = False
        kinds = {"image": Image, "labels": Labels, "shapes": Shapes}
        self._layers = [add_layer(self.viewer, kinds[kind](data, **options)) for data, options, kind in layers]
        self._open = found
        labels = self._labels()
        self._kept = None if labels is None else unsaved.labels_digest(labels.data)
        self._beside = None if labels is None else unsaved.digest_beside(labels.data, found.place.box)
        held = WeakMethod(self._unsaved)  # a window holds no closed docks
        key = f"the proposal of Next {id(self)}"  # there may be a second dock
        unsaved.ask_before_closing(self, key, lambda: own() if (own := held()) else [])
        unsaved.ask_before_closing(self, "proposals of Next that stay", partial(unsaved.changed_layers, self.viewer))
        self.viewer.reset_view()
        if labels is not None:
            activate(self.viewer, labels)
            look_at_place(self.viewer, labels, found.place)
        self._show()

    @property
    def over(self) -> bool:
        """Whether all places were taken or left out; the model is to be improved then."""
        return self.found is not None and not self.left and self._open is None

    def improve(self) -> None:
        """Open the Train dock, which says how the model is continued."""
        open_dock(self.viewer, "Train").offer_improving()

    def _labels(self) -> Labels | None:
        return next((layer for layer in self._layers if isinstance(layer, Labels)), None)

    def _corrected(self) -> Labels | None:
        """Return the open proposal if it was painted in since it was opened or taken, and is in no file."""
        labels = self._labels()
        if self._kept is None or labels is None or labels not in self.viewer.layers:
            return None
        return labels if unsaved.differs(labels.data, self._kept) else None

    def _unsaved(self) -> list[unsaved.Unsaved]:
        """Return the open proposal if it would be lost with the window."""
        labels = self._corrected()
        if labels is None or self.closed:  # see unsaved.changed_layers
            return []
        return [unsaved.Unsaved(labels.name, None, f"Then press {self.take_button.text()} in Next.")]

    def close_down(self) -> None:
        """Leave the open proposal to whoever goes on painting in it: it is asked about all the same."""
        labels = self._labels()
        if labels is not None and self._kept is not None:
            unsaved.note_state(labels, self._kept)
        self.progress.stop()
        super().close_down()

    def _may_go(self) -> bool:
        """Ask whether corrections that were not taken may go."""
        labels = self._corrected()
        if labels is None:
            return True
        text = f"'{labels.name}' was corrected and is not saved. Discard the correction?"
        if QMessageBox.question(self, "Not saved", as_text(text)) != QMessageBox.StandardButton.Yes:
            return False
        self._kept = unsaved.labels_digest(labels.data)  # what is painted from here on is asked about again
        return True

    def _remove_layers(self) -> None:
        """Remove the layers of the open place; a correction that was not taken stays."""
        corrected = self._corrected()
        for layer in self._layers:
            if layer in self.viewer.layers and layer is not corrected:
                remove_layer(self.viewer, layer)
        if corrected is not None and self._kept is not None:
            unsaved.note_state(corrected, self._kept)
        self._layers, self._kept = [], None
        if corrected is not None:
            show_info(f"'{corrected.name}' was corrected and is not saved: the layer stays.")

    def skip(self) -> None:
        """Leave the open place out, or the first where none is open, and open the next."""
        if self._may_go():
            self._drop(self._open or next(iter(self.left), None))

    def take(self) -> None:
        """Save the corrected labels as a case, or a part of one, and open the next place."""
        found, layer, folder = self._open, self._labels(), self._asked_of
        if self.busy:
            show_info("Another job runs in the Next dock. Save this when it has ended.")
            return
        if found is None or folder is None or layer is None or layer not in self.viewer.layers:
            self.panel.say("Open a place first; its labels were closed.")
            return
        if label_stamp(folder, found.place.case) != self._known.get(found.place.case) and not self._replaces(found):
            return
        labels = np.array(layer.data)  # people go on painting
        job, digest = take_correction(folder, found.place, found.image, labels), unsaved.labels_digest(labels)
        beside = unsaved.digest_beside(labels, found.place.box) != self._beside
        self.panel.run(job, done=lambda case: self._taken(found, case, digest, beside=beside))

    def _replaces(self, found: Suggestion) -> bool:
        """Ask whether labels that somebody else saved meanwhile are to be replaced."""
        name = found.place.case
        text = f"The labels of '{name}' were changed elsewhere since it was suggested. Replace what they hold here? "
        text += "The earlier ones go to the dataset's trash folder."
        button = QMessageBox.question(self, "Labels changed", as_text(text))
        return button == QMessageBox.StandardButton.Yes

    def _taken(self, found: Suggestion, case: TrainingCase, digest: str, *, beside: bool) -> str:
        self._known[case.name] = stamp(case.label)
        if self._open is found and not beside:  # else the layer stays
            self._kept = digest
        self._drop(found)
        self.state.written.emit()
        lost = " What was painted outside of the frame was not taken, and its layer stays." * beside
        return f"Saved {case.name} in {case.label.parent.parent.name}; {len(self.left)} to go.{lost}"

    def _drop(self, found: Suggestion | None) -> None:
        self.left = [other for other in self.left if other is not found]
        if self._coming is found:
            self._stop_opening()
        if self._open is not None and self._open is not found:  # another place was opened meanwhile
            self._show()
            return
        self._open = None
        self._remove_layers()
        self._show()
        if self._coming is None:  # else somebody chose another one meanwhile
            self.open_place(0)
