"""Make a dataset of two folders, or add them to one; everything is shown before anything is written."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QTimer, Signal
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QFileDialog,
    QFormLayout,
    QLineEdit,
    QScrollArea,
    QVBoxLayout,
    QWidget,
)

from napari_nnunet.errors import NnunetError
from napari_nnunet.events import Note, Progress
from napari_nnunet.formats.dataset.new_dataset import folder_name, name_to_be, telling_name
from napari_nnunet.formats.dataset.pairs import masks_beside
from napari_nnunet.formats.workspace import Workspace, is_folder
from napari_nnunet.schema.requests.dataset import ImportFoldersRequest
from napari_nnunet.widgets.dataset.import_tables import (
    ColourChoice,
    ObjectChoice,
    PairTable,
    ValueTable,
    counts_text,
    obstacle,
)
from napari_nnunet.widgets.files.look_dialog import look_button
from napari_nnunet.widgets.frame.forms import side_by_side
from napari_nnunet.widgets.frame.panel import RunDialog, RunPanel, RunState
from napari_nnunet.widgets.frame.parts import Sentence, button, next_button
from napari_nnunet.widgets.frame.ready import sizes_in
from napari_nnunet.widgets.frame.words import failure_text, noted, split_words
from napari_nnunet.widgets.frame.worker import Latest, lazy

if TYPE_CHECKING:
    from napari_nnunet.jobs.dataset.import_folders import import_notes, import_planned
    from napari_nnunet.jobs.dataset.import_plan import ImportPlan, plan_import
    from napari_nnunet.jobs.dataset.overlays import look_swapped, pair_pictures
    from napari_nnunet.jobs.objects.import_objects import import_objects
else:
    ImportPlan = Any
    import_notes = lazy("napari_nnunet.jobs.dataset.import_folders:import_notes")
    import_objects = lazy("napari_nnunet.jobs.objects.import_objects:import_objects")
    import_planned = lazy("napari_nnunet.jobs.dataset.import_folders:import_planned")
    look_swapped = lazy("napari_nnunet.jobs.dataset.overlays:look_swapped")
    pair_pictures = lazy("napari_nnunet.jobs.dataset.overlays:pair_pictures")
    plan_import = lazy("napari_nnunet.jobs.dataset.import_plan:plan_import")

_SWAPPED = "The folders look swapped: the masks have many values, as images have, and the images have few."
_NOTES = 8  # that are shown before the import
_LATER_MS = 400  # after the last letter of a folder's name


class ImportDialog(RunDialog):
    """Two folders, what they hold, and a button that imports it.

    Emits ``imported`` with the folder of the dataset and the notes of the import; ``onward``: plan it at once.

    Parameters
    ----------
    workspace : Workspace
        Gets the dataset.
    parent : QWidget, optional
        The dock.
    dataset : str, optional
        The dataset that is offered to add to.
    """

    imported = Signal(object, object)

    def __init__(self, workspace: Workspace, parent: QWidget | None = None, *, dataset: str | None = None) -> None:
        super().__init__(parent)
        self.workspace = workspace
        self.plan: ImportPlan | None = None
        self._trouble: str | None = None
        self._named, self._proposed = False, ""  # the latter: the folder of masks that was found beside the images
        self._looking, self._drawing, self._doubting = Latest(self), Latest(self), Latest(self)
        self._swapped = False
        self._pictures = pictures = Path(tempfile.mkdtemp(prefix="nnunet-pairs-"))
        self.destroyed.connect(lambda: shutil.rmtree(pictures, ignore_errors=True))
        self.setWindowTitle("Import folders of images and masks")
        self.setMinimumSize(680, 600)
        self.resize(860, 750)
        self._make(dataset)
        self._lay_out()
        self._later = QTimer(self)
        self._later.setSingleShot(True)
        self._later.setInterval(_LATER_MS)
        self._later.timeout.connect(self._look)
        for edit in (self.images, self.masks, self.suffixes, self.spacing):
            edit.textChanged.connect(self._folders_changed)
        self.images.editingFinished.connect(self._propose_masks)
        self.subfolders.toggled.connect(self._folders_changed)
        self.target.currentIndexChanged.connect(self._target_chosen)
        self.name.textEdited.connect(self._name_typed)
        answers = (self.pairs, self.values, self.objects)
        for change in (self.channels.textChanged, *(part.changed for part in answers)):
            change.connect(self._decide)
        self.colours.changed.connect(self._colours_chosen)
        self.swap.clicked.connect(self._swap)
        self.close_button.clicked.connect(self.reject)
        self.panel.start = self.run
        self.panel.idle.connect(self._update)
        self.go_on.clicked.connect(lambda: self.run(onward=True))
        self._target_chosen()

    def _make(self, dataset: str | None) -> None:
        self.images, self.masks = QLineEdit(), QLineEdit()
        self.target = QComboBox()
        self.target.setAccessibleName("Add to")
        self.target.addItem("New dataset", None)
        for path in self.workspace.raw_datasets():
            self.target.addItem(path.name, path.name)
        self.target.setCurrentIndex(max(0, self.target.findData(dataset)))
        self.name = QLineEdit()
        self.name.setPlaceholderText("Nuclei")
        self.suffixes = QLineEdit()
        self.suffixes.setPlaceholderText("found from the names; or _red _green")
        self.spacing = QLineEdit()
        self.spacing.setPlaceholderText("what the files say; or 2 0.5 0.5")
        self.subfolders = QCheckBox("Look into subfolders")
        self.channels = QLineEdit()
        self.channels.setPlaceholderText("CT, or DAPI, GFP")
        self.about, self.meaning, self.notes, self.colours = Sentence(), Sentence(), Sentence(), ColourChoice()
        self.pairs, self.objects, self.values = PairTable(), ObjectChoice(), ValueTable()
        self.swap = button("Swap the folders", "Take the images for the masks and the masks for the images.")
        self.look = look_button(self._chosen, lambda: self.subfolders.isChecked())
        self.panel = RunPanel("Import")
        self.onward = False
        self.go_on = next_button("Import, check and plan", "Import; where nothing is wrong, plan, and show the plan.")
        self.close_button = button("Close", "Import nothing.")

    def _lay_out(self) -> None:
        self.form = form = QFormLayout()
        for label, edit in (("Images", self.images), ("Masks", self.masks)):
            browse = button("Browse…")
            browse.setAccessibleName(f"Browse for the folder of {label.lower()}")
            browse.clicked.connect(lambda _, edit=edit, label=label: self._browse(edit, label))
            edit.setAccessibleName(f"Folder of {label.lower()}")
            form.addRow(label, side_by_side(edit, browse))
        for label, part, tip in (
            ("Add to", self.target, "A new dataset, or an existing one, whose channels and classes are then used."),
            ("Name", self.name, "Of the new dataset, with or without a number: Dataset012_Nuclei or Nuclei."),
            ("Channel suffixes", self.suffixes, "What the names of a case's channel files end in, in channel order."),
            ("Voxel size (mm)", self.spacing, "Of every image: z y x (pictures: y x). Empty: what the files say."),
            ("Subfolders", self.subfolders, "Both folders have the same ones; cases are named by subfolder and file."),
            ("Channel names", self.channels, "CT selects the rules for computed tomography. Empty: channel_0, ..."),
        ):
            part.setToolTip(tip)
            part.setAccessibleName(label)
            form.addRow(label, part)
        content = QWidget()
        inner = QVBoxLayout(content)
        inner.setContentsMargins(0, 0, 0, 0)
        upper = (self.about, self.colours, self.look, self.swap, self.pairs, self.meaning)
        for widget in (*upper, self.objects, self.values, self.notes):
            inner.addWidget(widget)
        inner.addStretch(1)
        scroll = QScrollArea()
        scroll.setWidgetResizable(True)
        scroll.setFrameShape(QScrollArea.Shape.NoFrame)
        scroll.setWidget(content)
        column = QVBoxLayout(self)
        column.addLayout(form)
        column.addWidget(scroll, 1)
        for part in (self.panel, self.go_on, self.close_button):
            column.addWidget(part)

    def _browse(self, edit: QLineEdit, label: str) -> None:
        folder = QFileDialog.getExistingDirectory(self, f"Folder of {label.lower()}", edit.text())
        if folder:
            edit.setText(folder)
            self._propose_masks()

    def _propose_masks(self) -> None:
        """Fill in the folder of masks beside the images, where nobody chose one."""
        images, masks = self.images.text().strip(), self.masks.text().strip()
        if images and masks in ("", self._proposed):
            self._proposed = str(masks_beside(Path(images)) or "")
            self.masks.setText(self._proposed)

    def _chosen(self) -> list[Path]:
        return [Path(edit.text()) for edit in (self.images, self.masks) if edit.text().strip()]

    def _swap(self) -> None:
        images, masks = self.images.text(), self.masks.text()
        self.images.clear()
        self.masks.setText(images)
        self.images.setText(masks)

    # --- what is typed ---

    def _name_typed(self, text: str) -> None:
        """Mend a name while it is typed: umlauts and blanks become what a folder can be called."""
        self._named = bool(text)
        place = self.name.cursorPosition()
        mended = folder_name(text)
        if mended != text:
            self.name.setText(mended)
            self.name.setCursorPosition(place + len(mended) - len(text))
        self._update()

    def _target_chosen(self, _: int = 0) -> None:
        new = self.target.currentData() is None
        for part in (self.name, self.channels):
            self.form.setRowVisible(part, new)
        self.go_on.setVisible(new)
        self._folders_changed()

    def _folders_changed(self, _: Any = None) -> None:
        """Look at other folders when nothing was typed for a moment."""
        for job in (self._looking, self._drawing, self._doubting):
            job.stop()
        self._swapped = False
        self.plan = None
        self.pairs.show_cases((), (), {})
        self.colours.offer(())
        self.values.show_recognised(None, asked=False)
        self.objects.offer(None)
        if not self._named and self.images.text().strip():
            self.name.setText(folder_name(telling_name(Path(self.images.text().strip()))))
        self._trouble = self._folder_trouble()
        self._update()
        if self._trouble is None:
            self._later.start()

    def _folder_trouble(self) -> str | None:
        images, masks = self.images.text().strip(), self.masks.text().strip()
        if not images or not masks:
            return "Choose the folder of images and the folder of masks."
        for path in (Path(images), Path(masks)):
            if not is_folder(path):
                return f"The folder {path} does not exist."
        if Path(images).resolve() == Path(masks).resolve():
            return "Images and masks are the same folder. Choose two folders."
        return None if self._spacing() is not None else "The voxel size is two or three positive numbers of mm."

    def _spacing(self) -> tuple[float, ...] | None:
        """Return what was typed, () where nothing was, None where it is no voxel size."""
        sizes = [read for read in sizes_in(self.spacing.text()) if len(read) in (2, 3)]
        return sizes[0] if sizes else None if self.spacing.text().strip() else ()

    def request(self) -> ImportFoldersRequest:
        """Return what the dialog says."""
        return ImportFoldersRequest(
            images=Path(self.images.text().strip()),
            masks=Path(self.masks.text().strip()),
            name=self.name.text().strip(),
            suffixes=split_words(self.suffixes.text()),
            spacing=self._spacing() or None,
            subfolders=self.subfolders.isChecked(),
            channel_names=() if self.target.currentData() else self._channel_names(),
            **(self.values.answers() if self.objects.kind is None else {"objects": self.objects.kind}),
            skip=self.pairs.left_out(),
            colours=self.colours.how,
            dataset=self.target.currentData(),
        )

    def _channel_names(self) -> tuple[str, ...]:
        text = self.channels.text().strip()
        one = self.plan is not None and len(self.plan.channels) == 1 and "," not in text
        return (text,) if text and one else split_words(text)  # the name of one channel may have blanks

    # --- what comes of it ---

    def _look(self) -> None:
        """Read the masks on a thread."""
        bare = self.request().replace(mapping={}, threshold=None, ignore=None, objects=None, skip=(), channel_names=())
        self._trouble = "Reading the masks…"
        self._update()
        self._looking.start(
            plan_import(self.workspace, bare), happened=self._progress, returned=self._planned, errored=self._failed
        )

    def _progress(self, event: Any) -> None:
        if isinstance(event, Progress):
            self._trouble = f"Reading the masks… {event.done} of {event.total}"
            self._update()

    def _failed(self, error: BaseException) -> None:
        self._trouble = failure_text(error)
        self._update()

    def _planned(self, plan: ImportPlan) -> None:
        """Show pairs, values and the proposal, and draw the pairs."""
        self.plan, self._trouble = plan, None
        self._pairs = plan
        self.pairs.show_cases(plan.cases, plan.left_out, plan.problems)
        self.colours.offer(plan.cases, plan.unlike, adds=plan.target is not None)
        self.values.show_recognised(plan.recognised, asked=plan.translation is None)
        self.objects.offer(plan.recognised if plan.target is None else None)
        self._drawing.start(
            pair_pictures(plan.cases, self._pictures),
            happened=self.pairs.show_picture,
            returned=lambda _: None,
            errored=lambda _: None,  # pairs without pictures can be imported
        )
        if plan.translation is None:
            self._doubting.start(look_swapped(plan.cases), returned=self._doubt, errored=lambda _: None)
        self._decide()

    def _colours_chosen(self) -> None:
        self.pairs.tick(self.colours.unlike, self.colours.how != "leave_out")
        self._decide()

    def _doubt(self, swapped: bool) -> None:
        self._swapped = swapped
        self._update()

    def _decide(self, _: Any = None) -> None:
        """Work out what the answers make of the plan; nothing is read again."""
        if self._looking.running or self.plan is None:
            return
        from napari_nnunet.jobs.dataset.import_plan import decide  # loads scipy; the plan before has by now

        try:
            self.plan = decide(self._pairs, self.request())
            self._trouble = None
        except NnunetError as error:
            self._trouble = error.in_window
        self._update()

    def _update(self) -> None:
        """Say what will be imported, and what prevents it."""
        self.pairs.setVisible(self.plan is not None)
        self.values.setVisible(self.plan is not None and self.values.rowCount() > 0 and self.objects.kind is None)
        reason = self._trouble
        counts = meaning = notes = ""
        if self.plan is not None and reason is None:
            counts = counts_text(self.plan)
            recognised = self.plan.recognised
            meaning = "" if recognised is None else recognised.sentence
            if meaning and self.objects.kind is None:
                meaning += " Several values may become one class."
            reason, twin = self._about_name()
            reason = _SWAPPED if self._swapped else obstacle(self.plan) or reason
            notes = "" if reason else " ".join(filter(None, (twin, self._known(self.plan))))
        elif reason is None:
            reason = "Reading the masks…"
        self.about.setText(" ".join(part for part in (counts, reason) if part))
        for sentence, text in ((self.meaning, meaning), (self.notes, notes)):
            sentence.setText(text)
            sentence.setVisible(bool(text))
        self.swap.setVisible(self._swapped)
        self.panel.set_ready(reason)
        self.go_on.setEnabled(reason is None and self.panel.state is RunState.IDLE)

    def _about_name(self) -> tuple[str | None, str]:
        """Return why the dataset cannot be called so, and what is to be known where it can."""
        if self.target.currentData() is not None:
            return None, ""
        if not self.name.text().strip():
            return "Give the dataset a name.", ""
        try:
            name, twin = name_to_be(self.workspace, self.name.text())
        except (NnunetError, OSError) as error:
            return failure_text(error), ""
        if twin is None:
            return None, ""
        return None, f"{twin} already exists; this will be {name}. To add to {twin}, choose it under 'Add to'."

    def _known(self, plan: ImportPlan) -> str:
        """Return the notes of the import that can be known before; files left out are in the table."""
        events = [event for event in import_notes(plan, self.request()) if isinstance(event, Note)]
        warnings = [event.in_window or event.text for event in events if event.level == "warning"]
        return " ".join(noted(warnings, _NOTES, "are said while it runs"))

    def run(self, *, onward: bool = False) -> None:
        """Import what is shown."""
        self.onward = onward
        self.go_on.setEnabled(False)
        if self.plan is not None:
            request = self.request()
            job = import_planned if request.objects is None else import_objects
            self.panel.run(job(self.workspace, request, self.plan), done=self._done)

    def _done(self, folder: Path) -> None:
        self.imported.emit(folder, self.panel.notes)  # they would go with this window
        self.accept()

    def done(self, result: int) -> None:
        """End what is still looked at."""
        self._later.stop()
        for job in (self._looking, self._drawing, self._doubting):
            job.stop()
        shutil.rmtree(self._pictures, ignore_errors=True)
        super().done(result)
