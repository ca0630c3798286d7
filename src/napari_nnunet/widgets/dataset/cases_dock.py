"""The Training cases dock: open layers become cases of a dataset; cases are looked at, corrected, checked, removed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image, Labels
from qtpy.QtWidgets import QGroupBox, QMessageBox, QVBoxLayout

from napari_nnunet.formats.dataset.objects import reference_file
from napari_nnunet.formats.dataset.raw_dataset import TrainingCase, read_info
from napari_nnunet.formats.dataset.raw_writer import drop_case
from napari_nnunet.formats.preprocessed.plans import plan_files
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.jobs.dataset.cases import NewCase
from napari_nnunet.widgets.dataset.case_form import CaseForm
from napari_nnunet.widgets.dataset.case_list import CaseList, GroupTable
from napari_nnunet.widgets.dataset.case_request import (
    describe_case,
    questions,
    replaces,
    resolve_case,
)
from napari_nnunet.widgets.dataset.class_table import as_painted, new_classes, remember_values, unlooked_classes
from napari_nnunet.widgets.dataset.dataset_dialog import DatasetDialog
from napari_nnunet.widgets.dataset.import_dialog import ImportDialog
from napari_nnunet.widgets.dataset.json_dialog import JsonDialog
from napari_nnunet.widgets.dataset.problems import ProblemList, told_by
from napari_nnunet.widgets.dataset.rubbish import rubbish_of
from napari_nnunet.widgets.files.origins import Edited, case_origin, follow_edit
from napari_nnunet.widgets.files.overlay import ApartError, with_remedy
from napari_nnunet.widgets.files.place import LayerData
from napari_nnunet.widgets.files.preferred import follow_pictures
from napari_nnunet.widgets.files.reader import open_layers
from napari_nnunet.widgets.files.trash import Rubbish, TrashButton
from napari_nnunet.widgets.files.unsaved import ask_before_closing, changed_layers, labels_digest, note_state
from napari_nnunet.widgets.frame.dock import RequestDock
from napari_nnunet.widgets.frame.layers import ORIGIN, SPARSE, activate, add_layer, colormap_of_values
from napari_nnunet.widgets.frame.panel import RunState
from napari_nnunet.widgets.frame.parts import folded_away, next_button
from napari_nnunet.widgets.frame.state import Choice, state_of
from napari_nnunet.widgets.frame.tabs import open_dock
from napari_nnunet.widgets.frame.words import as_text, failure_text
from napari_nnunet.widgets.frame.worker import follow, lazy
from napari_nnunet.widgets.large.cut_out import CutOutRow
from napari_nnunet.widgets.objects.repair import RepairTools

if TYPE_CHECKING:
    import napari

    from napari_nnunet.jobs.dataset.cases import add_case, copy_dataset
    from napari_nnunet.jobs.objects.cases import add_object_case
else:
    add_object_case = lazy("napari_nnunet.jobs.objects.cases:add_object_case")
    add_case = lazy("napari_nnunet.jobs.dataset.cases:add_case")
    copy_dataset = lazy("napari_nnunet.jobs.dataset.cases:copy_dataset")

_NEXT = {
    False: ("Check and plan", "Check the dataset; where nothing is wrong, open the Plan dock and plan it."),
    True: ("Train on", "Train, or continue the last training; cases that are new or changed are preprocessed first."),
}
_BUTTONS = {
    "nothing": "Add case",
    "itself": "Save changes to this case",
    "changed": "Replace case…",
    "another": "Replace case…",
}


class CasesWidget(RequestDock[NewCase, None]):
    """Collect training cases from layers.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
        Injected by napari.
    """

    in_workspace = True

    def __init__(self, viewer: napari.viewer.Viewer) -> None:
        super().__init__(viewer, "Add case", stops="Stop, if nothing is written yet.")
        self.state = state_of(viewer)
        self.form = CaseForm(viewer)
        self.cases = CaseList()
        self.groups = GroupTable()
        self.problems = ProblemList()
        self.trash = TrashButton(self._rubbish)
        self.collection = QGroupBox("Cases")
        column = QVBoxLayout(self.collection)
        self.next = next_button("Check and plan", "")
        for part in (self.cases, folded_away("Groups (patient, slide, well)", self.groups), self.problems):
            column.addWidget(part)
        self.repair = RepairTools(viewer, lambda: self.form.labels)
        self.cut_out = CutOutRow(viewer)
        follow_pictures(viewer)
        self.lay_out(
            self.form, self.cut_out, self.repair, self.summary, self.panel, self.collection, self.trash, last=self.next
        )
        self.form.changed.connect(self._form_changed)
        self.form.head.changed.connect(self._show_dataset)
        self.form.from_folders.clicked.connect(lambda: self.import_dialog().open())
        self.form.describe.clicked.connect(lambda: self.json_dialog().open())
        self.form.edit.clicked.connect(lambda: self.dataset_dialog().open())
        self.trash.emptied.connect(self._brought_back)
        self.next.clicked.connect(self.go_on)
        self.cases.opened.connect(self.open_case)
        self.cases.dropped.connect(self.drop_case)
        self.cases.listed.connect(lambda names: self.groups.show_cases(self.form.head.raw, names))
        self.problems.mended.connect(self.state.written)
        self._show_dataset()
        self._form_changed()
        self.check()

    # --- the dataset ---

    def import_dialog(self) -> ImportDialog:
        """Return a new dialog that makes a dataset of two folders, or adds them to the chosen one."""
        dialog = ImportDialog(self.state.workspace, self, dataset=self.form.head.dataset)
        dialog.panel.guard = self.state.require_workspace
        since = self.state.choice
        dialog.imported.connect(lambda folder, notes: self._imported(folder, notes, dialog, since))
        return dialog

    def _imported(self, folder: Path, notes: Sequence[str], dialog: ImportDialog, since: Choice) -> None:
        """Show what was imported; check and plan it where that was asked for, and no note is new."""
        self.panel.add(self._arrived(folder, since), notes)
        shown = dialog.notes.text()  # before it was imported; the Plan dock would hide others
        if (
            dialog.onward
            and self.form.head.raw == folder
            and not self._planned
            and all(note in shown for note in notes)
        ):
            self.go_on()

    def json_dialog(self) -> JsonDialog:
        """Return a new dialog that writes the dataset.json of the chosen folder."""
        dialog = JsonDialog(self.form.head.raw or self.state.workspace.raw, self)
        dialog.accepted.connect(self.state.written)
        return dialog

    def dataset_dialog(self) -> DatasetDialog:
        """Return a new dialog that changes the chosen dataset."""
        dialog = DatasetDialog(self.state.workspace, str(self.form.head.dataset), self)
        dialog.edited.connect(self._follow)
        dialog.changed.connect(self._edited)
        return dialog

    def _follow(self, edited: Edited) -> None:
        """Let open cases follow what was changed in their dataset; names that were typed are those of before."""
        follow_edit(self.viewer.layers, edited)
        if edited.names:
            self.form.table.clear_values()
        self.state.written.emit()

    def _edited(self, name: str | None, text: str) -> None:
        self.state.choose(dataset=name)
        self.state.written.emit()
        self.state.trained.emit()  # models have other names, too
        self.panel.say(text)

    def _rubbish(self) -> list[Rubbish]:
        """Return what was replaced in or removed from the dataset, and the datasets that were removed."""
        return rubbish_of(self.state.workspace, self.form.head.raw)

    def _brought_back(self, text: str) -> None:
        self.state.written.emit()
        self.panel.say(text)

    def offer(self, folder: Path) -> None:
        """Open a dataset where it lies in a workspace; ask to copy it into ours where it lies elsewhere."""
        workspace = self.state.workspace
        if workspace.dataset_of(folder) or Workspace.around(folder).dataset_of(folder):
            self.state.open_folder(folder)
        elif self.confirmed(
            f"{folder.name} lies in no workspace. Copy it into {workspace.raw}, so that it can be planned and trained?"
        ):
            since = self.state.choice
            self.panel.run(copy_dataset(folder, workspace), done=lambda copy: self._arrived(copy, since))

    def _arrived(self, folder: Path, since: Choice) -> str:
        """Show a dataset that is new in the workspace."""
        self.state.go_on(since, dataset=folder.name)
        self.state.written.emit()
        return f"Added {folder.name}."

    def _show_dataset(self) -> None:
        """List the cases of the chosen dataset."""
        folder = self.form.head.raw
        for part in (self.collection, self.next):
            part.setVisible(folder is not None)
        self.problems.show_dataset(self.state.workspace, folder)
        self.groups.show_dataset(folder)
        self.cases.show_dataset(folder)
        self.trash.look_again()
        text, tip = _NEXT[self._planned]
        self.next.setText(text)
        self.next.setAccessibleName(text)
        self.next.setToolTip(tip)

    @property
    def _planned(self) -> bool:
        base = self.form.head.preprocessed
        return base is not None and bool(plan_files(base))

    def go_on(self) -> None:
        """Check and plan the dataset; where it is planned, train with the cases there are now."""
        if self._planned:
            open_dock(self.viewer, "Train").train_on()
        else:
            self.problems.check(then=lambda report: open_dock(self.viewer, "Plan").plan_now(told_by(report)))

    def confirmed(self, question: str) -> bool:
        """Ask before something is replaced, removed or copied."""
        return QMessageBox.question(self, "nnU-Net", as_text(question)) == QMessageBox.StandardButton.Yes

    # --- saving a case ---

    def _form_changed(self) -> None:
        self.repair.setVisible(self.form.numbers_objects and self.form.labels is not None)
        if self.panel.state is RunState.IDLE:
            self.panel.say("")
        self.check_soon()

    def request(self) -> NewCase:
        """Return the case that would be saved; the button says whether it replaces one."""
        choices = self.form.choices()
        try:
            case = resolve_case(choices)
        except ApartError as error:
            raise with_remedy(error, self.viewer, self.panel, self._exchange) from error
        self._replaces = replaces(case, choices)
        self.panel.rename(_BUTTONS[self._replaces])
        return case

    def _exchange(self, old: Any, new: Any) -> None:
        """Choose the layer that was laid over the image instead of the old one."""
        for box in (*[box for box, _ in self.form.rows], self.form.labels_box):
            if box.value is old:
                box.value = new

    def describe(self, request: NewCase) -> str:
        """Return what would be saved, of several channels of which layers."""
        names = [f"'{layer.name}'" for layer in self.form.images if layer is not None]
        channels = f".<br>Channels: {', '.join(names)}" if len(names) > 1 else ""
        return f"{describe_case(request, self._replaces)}{channels}"

    def begin(self, request: NewCase) -> None:
        """Save the chosen layers as a case; another image's case only after asking."""
        choices = self.form.choices()
        question = questions(request, choices, self._replaces)
        if question and not self.confirmed(question):
            return
        question = new_classes(request, choices, self._replaces)
        before = self.looked_for(question) if question else True
        if before is None:
            return
        question = unlooked_classes(request, choices, self._replaces)
        here = self.looked_for(question) if question else False
        if here is None:
            return
        layers = [*self.form.images, self.form.labels]
        request = replace(request, looked_before=before, looked_here=here, fresh=self._replaces == "nothing")
        job = add_case(request) if request.kinds is None else add_object_case(request)
        kept, digest = _unlocked(layers[-1]), _digest(layers[-1])  # people go on painting
        since = self.state.choice
        self.panel.run(
            job,
            done=lambda case: self._added(case, request, layers, digest, since),
            cancelled=kept,
            failed=kept,
        )

    def looked_for(self, question: str) -> bool | None:
        """Ask whether classes of which nothing is labelled were looked for; None to leave everything as it is."""
        box = QMessageBox(
            QMessageBox.Icon.Question, "nnU-Net", as_text(question), QMessageBox.StandardButton.Cancel, self
        )
        none = box.addButton("There is none", QMessageBox.ButtonRole.YesRole)
        nobody = box.addButton("Nobody looked for it", QMessageBox.ButtonRole.NoRole)
        box.setDefaultButton(nobody)
        box.exec()
        return {none: True, nobody: False}.get(box.clickedButton())

    def _added(
        self, case: TrainingCase, saved: NewCase, layers: Sequence[Any], digest: str | None, since: Choice
    ) -> str:
        folder = case.label.parent.parent
        reference = reference_file(folder, case.name, read_info(folder))
        for layer in layers:
            if layer is not None:
                layer.metadata[ORIGIN] = case_origin(folder, case.name, reference)
        remember_values(layers[-1], saved)
        self._ask_about(layers[-1], digest)
        self._arrived(folder, since)
        return f"Saved {case.name} in {folder.name}."

    # --- the cases there are ---

    def open_case(self, name: str) -> None:
        """Open the layers of a case and choose them in the form."""
        folder = self.form.head.raw
        if folder is not None:
            self.panel.say(f"Opening {name}…")
            follow(self, open_layers(folder, name), returned=self._opened, errored=self._not_opened)

    def _opened(self, layers: list[Any]) -> None:
        layers[-1] = _painted(layers[-1])
        added = [
            add_layer(self.viewer, (Image if kind == "image" else Labels)(data, **attributes))
            for data, attributes, kind in layers
        ]
        self.form.choose(added[:-1], added[-1])
        self._ask_about(added[-1], _digest(added[-1]))
        activate(self.viewer, added[-1])
        self.panel.say("")

    def _ask_about(self, labels: Any, digest: str | None) -> None:
        """Let napari's window ask before strokes are lost that came after these labels were opened or saved."""
        if digest is not None:
            note_state(labels, digest, f"Then press '{_BUTTONS['itself']}' in Training cases.")
            ask_before_closing(self, "cases of Training cases", partial(changed_layers, self.viewer))

    def _not_opened(self, error: BaseException) -> None:
        self.panel.say(failure_text(error))

    def use(self, images: Sequence[Image], labels: Labels, channels: Sequence[str] = ()) -> None:
        """Choose layers for the next case, such as a result that was corrected; channels are those of a new dataset."""
        self.form.choose(images, labels, channels)

    def close_down(self) -> None:
        """End the drawing of thumbnails too."""
        self.cases.show_dataset(None)
        super().close_down()

    def drop_case(self, name: str) -> None:
        """Move a case to the trash, after asking."""
        folder = self.form.head.raw
        if folder is None or not self.confirmed(f"Remove the case '{name}'? Its files go to {folder.name}/trash."):
            return
        with self.telling(self.panel):
            drop_case(folder, name)
            self.state.written.emit()
            self.panel.say(f"Moved {name} to the trash folder of {folder.name}.")


def _digest(labels: Any) -> str | None:
    """Return the checksum of labels in memory; None for others, in which nobody paints."""
    return labels_digest(labels.data) if isinstance(labels.data, np.ndarray) else None


def _unlocked(labels: Any) -> Callable[[object], None]:
    """Unlock labels that are about to be saved; returns what locks them again where they are not.

    Before the job: what is painted while it runs locks labels of a validation case again.
    """
    locked = labels.locked
    labels.locked = False

    def lock_again(_: object) -> None:
        labels.locked = labels.locked or locked

    return lock_again


def _painted(layer: LayerData) -> LayerData:
    """Return the labels of a sparse case as they were painted: what nobody looked at is empty."""
    labels, attributes, kind = layer
    features = attributes.get("features", {})
    if "name" not in features:  # numbered objects
        return layer
    found = as_painted(labels, dict(zip(features["index"], features["name"], strict=True)))
    if found is None:
        return layer
    painted, names = found
    changed = {
        "features": {"index": list(names), "name": list(names.values())},
        "colormap": colormap_of_values(names),
        "metadata": {**attributes["metadata"], SPARSE: True},
    }
    return painted, {**attributes, **changed}, kind
