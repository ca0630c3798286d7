"""The Training cases dock: open layers become cases of a dataset; cases are looked at, corrected, checked, removed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari.layers import Image, Labels
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QGroupBox, QInputDialog, QLabel, QMessageBox, QVBoxLayout, QWidget

from napari_nnunet.errors import NnunetError
from napari_nnunet.events import Job, Stage
from napari_nnunet.formats.dataset.raw_dataset import TrainingCase, survey
from napari_nnunet.formats.dataset.raw_writer import drop_case, remap_dataset, set_spacing, update_count
from napari_nnunet.jobs.dataset.cases import NewCase
from napari_nnunet.schema.dataset import IGNORE
from napari_nnunet.schema.requests.dataset import VerifyRequest
from napari_nnunet.widgets.dataset.case_form import CaseForm
from napari_nnunet.widgets.dataset.case_list import CaseList, ProblemList, names_of
from napari_nnunet.widgets.dataset.case_request import resolve_case
from napari_nnunet.widgets.dataset.import_dialog import ImportDialog, JsonDialog
from napari_nnunet.widgets.files.reader import case_layers
from napari_nnunet.widgets.frame.forms import scrolling
from napari_nnunet.widgets.frame.panel import RunPanel, State
from napari_nnunet.widgets.frame.ready import NotReadyError, typed_spacing
from napari_nnunet.widgets.frame.words import size_text, times_text
from napari_nnunet.widgets.frame.worker import JobWorker, Listener

if TYPE_CHECKING:
    import napari


class CasesWidget(QWidget):
    """Collect training cases from layers.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
        Injected by napari.
    """

    def __init__(self, viewer: napari.viewer.Viewer) -> None:
        super().__init__()
        self.viewer = viewer
        self.form = CaseForm(viewer)
        self.summary = QLabel()
        self.summary.setWordWrap(True)
        self.panel = RunPanel("Add case")
        self.cases = CaseList()
        self.problems = ProblemList()
        self.check_panel = RunPanel("Check dataset")
        scrolling(self, (self.form, self.summary, self.panel, self._collection()))
        self._connect()
        self._show_dataset()

    def _collection(self) -> QGroupBox:
        self.collection = QGroupBox("Cases")
        column = QVBoxLayout(self.collection)
        for part in (self.cases, self.check_panel, self.problems):
            column.addWidget(part)
        return self.collection

    def _connect(self) -> None:
        self._later = QTimer(self)
        self._later.setSingleShot(True)
        self._later.setInterval(150)
        self._later.timeout.connect(self._update)
        self.form.changed.connect(self._form_changed)
        self.form.dataset_changed.connect(self._show_dataset)
        self.form.from_folders.clicked.connect(lambda: self.import_dialog().open())
        self.form.describe.clicked.connect(lambda: self.json_dialog().open())
        self.panel.start = self.add
        self.panel.finished.connect(self._added)
        self.check_panel.start = self.check
        self.check_panel.finished.connect(self._checked)
        self.cases.opened.connect(self.open_case)
        self.cases.dropped.connect(self.drop_case)
        self.problems.fix.connect(self.fix)

    def import_dialog(self) -> ImportDialog:
        """Return a new dialog that makes a dataset of two folders."""
        dialog = ImportDialog(self.form.workspace, self)
        dialog.imported.connect(self.form.fill_datasets)
        return dialog

    def json_dialog(self) -> JsonDialog:
        """Return a new dialog that writes the dataset.json of the chosen folder."""
        dialog = JsonDialog(self.form.folder or self.form.workspace.raw, self)
        dialog.accepted.connect(lambda: self.form.fill_datasets(dialog.folder))
        return dialog

    def _form_changed(self) -> None:
        self.panel.say("")
        self._later.start()

    def _show_dataset(self) -> None:
        """List the cases of the chosen dataset."""
        folder = self.form.folder
        self.collection.setVisible(folder is not None)
        self.problems.setVisible(False)
        self.check_panel.say("")
        self.cases.show_dataset(folder)
        self._later.start()

    def _update(self) -> None:
        """Say what the button will do, or why it cannot."""
        if self.panel.state is not State.IDLE:
            return
        try:
            case = resolve_case(self.form.choices())
        except NotReadyError as reason:
            self.summary.setText(f"<b>Not ready.</b> {reason}")
            self.panel.set_ready(str(reason))
            return
        replaced = case.name in self.cases.names()
        self.panel.rename("Save changes to this case" if replaced else "Add case")
        self.summary.setText(_describe(case, replaced=replaced))
        self.panel.set_ready(None)

    def add(self) -> None:
        """Save the chosen layers as a case."""
        try:
            case = resolve_case(self.form.choices())
        except NotReadyError:
            self._update()
            return
        self.panel.run(_add_job(case))

    def _added(self, case: TrainingCase) -> None:
        folder = case.label.parent.parent
        labels = self.form.labels
        if labels is not None:
            labels.metadata["nnunet_case"] = {"folder": str(folder), "name": case.name}
        self.form.fill_datasets(folder)
        self._later.stop()
        self._update()
        self.panel.say(f"Saved {case.name} in {folder.name}.")

    def open_case(self, name: str) -> None:
        """Open the layers of a case and choose them in the form."""
        folder = self.form.folder
        if folder is None:
            return
        self.panel.say(f"Opening {name}…")
        worker = JobWorker(_open_job(folder, name))
        Listener(
            self,
            worker,
            returned=lambda layers: self._opened(name, layers),
            errored=lambda error: self.panel.say(str(error)),
        )
        worker.start()

    def _opened(self, name: str, layers: list[Any]) -> None:
        added = []
        for data, attributes, kind in layers:
            layer = Image(data, **attributes) if kind == "image" else Labels(data, **attributes)
            added.append(self.viewer.add_layer(layer))
        images = [layer for layer in added if isinstance(layer, Image)]
        self.form.choose(images, added[-1], name)
        self.viewer.layers.selection.active = added[-1]
        self.panel.say("")

    def drop_case(self, name: str) -> None:
        """Move a case to the trash, after asking."""
        folder = self.form.folder
        if folder is None or not self._confirmed(f"Remove the case '{name}'? Its files go to {folder.name}/trash."):
            return
        try:
            where = drop_case(folder, name)
        except NnunetError as error:
            self.check_panel.say(error.message)
            return
        self._show_dataset()
        self.check_panel.say(f"Moved {name} to {where}.")

    def _confirmed(self, question: str) -> bool:
        return QMessageBox.question(self, "napari-nnunet", question) == QMessageBox.StandardButton.Yes

    def check(self) -> None:
        """Look for everything that is wrong with the dataset."""
        folder = self.form.folder
        if folder is not None:
            self.check_panel.run(_check_job(self.form, folder))

    def _checked(self, result: Any) -> None:
        """Show a report; after a remedy, look again."""
        if result is None:
            self.form.fill_datasets(self.form.folder)
            self.check()
            return
        self.problems.show_report(result)
        self.check_panel.say("")

    def fix(self, problem: Any) -> None:
        """Apply the remedy of a problem, then check again."""
        folder = self.form.folder
        if folder is None:
            return
        try:
            remedy = self._remedy(folder, problem)
        except NotReadyError as error:
            self.check_panel.say(str(error))
            return
        if remedy is not None:
            self.check_panel.run(_fix_job(problem.where, remedy))

    def _remedy(self, folder: Path, problem: Any) -> Callable[[], object] | None:
        """Return what mends a problem, None where the user does not want it."""
        names = names_of(problem, self.cases.names() or [case.name for case in survey(folder)[0].cases])
        if problem.fix == "set_count":
            return lambda: update_count(folder)
        if problem.fix == "drop_case":
            name = names[0] if names else problem.where
            if not self._confirmed(f"Remove the case '{name}'? Its files go to {folder.name}/trash."):
                return None
            return lambda: drop_case(folder, name)
        if problem.fix == "remap_labels":
            if not self._confirmed(
                "Renumber the labels of all cases to 0, 1, 2, ...? The label files and dataset.json are rewritten; "
                "values without a name are named label_VALUE."
            ):
                return None
            return lambda: remap_dataset(folder)
        return self._spacing_remedy(folder, names)

    def _spacing_remedy(self, folder: Path, names: list[str]) -> Callable[[], object] | None:
        whose = ", ".join(names[:3]) if names else "all cases"
        text, ok = QInputDialog.getText(
            self, "Voxel size", f"Voxel size of {whose} in mm (z y x, or y x for pictures):"
        )
        if not ok:
            return None
        count = len(text.replace("x", " ").replace("×", " ").replace(",", " ").split())
        spacing = typed_spacing(text, "zyx"[-count:] if count in (2, 3) else "zyx")
        return lambda: set_spacing(folder, spacing, names)


def _describe(case: NewCase, *, replaced: bool) -> str:
    names = {value: name for name, value in case.classes.items() if isinstance(value, int)}
    becomes = ", ".join(
        f"{old} → {new} {names.get(new, '')}".rstrip() for old, new in sorted(case.mapping.items()) if old or new
    )
    size = f" of {size_text(case.geometry.spacing)}" if case.geometry.spacing_known else ""
    verb = "Will replace" if replaced else "Will add"
    new = "" if (case.folder / "dataset.json").is_file() else " (new)"
    sparse = "<br>Unlabelled voxels are left out in training." if IGNORE in case.classes and 0 in case.mapping else ""
    sparse = sparse if names.get(case.mapping.get(0, 0)) == IGNORE else ""
    return (
        f"<b>{verb}</b> '{case.name}' in {case.folder.name}{new}: {len(case.channels)} channel"
        f"{'s' if len(case.channels) > 1 else ''} of {times_text(case.labels.shape)} voxels{size}."
        f"<br>Labels: {becomes or 'as they are'}.{sparse}"
    )


def _add_job(case: NewCase) -> Callable[[], Job[Any]]:
    def start() -> Job[Any]:
        from napari_nnunet.jobs.dataset.cases import add_case

        return add_case(case)

    return start


def _open_job(folder: Path, name: str) -> Callable[[], Job[list[Any]]]:
    def start() -> Job[list[Any]]:
        yield Stage(name=f"Opening {name}")
        return case_layers(folder, name)

    return start


def _fix_job(where: str, remedy: Callable[[], object]) -> Callable[[], Job[None]]:
    def start() -> Job[None]:
        yield Stage(name=f"Mending {where}")
        remedy()

    return start


def _check_job(form: CaseForm, folder: Path) -> Callable[[], Job[Any]]:
    def start() -> Job[Any]:
        from napari_nnunet.jobs.dataset.verify import verify

        return verify(form.workspace, VerifyRequest(dataset=folder.name))

    return start
