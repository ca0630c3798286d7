"""Which images are segmented (this one, all open ones, a folder), and the table of what was found in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from magicgui.widgets import ComboBox
from qtpy.QtCore import QObject, Signal
from qtpy.QtWidgets import QFileDialog, QFormLayout, QHBoxLayout, QLineEdit, QVBoxLayout, QWidget

from napari_nnunet.errors import ResourceError, counted
from napari_nnunet.events import Found
from napari_nnunet.formats.atomic import write_text
from napari_nnunet.jobs.prediction.table import Line, as_csv
from napari_nnunet.widgets.files.look_dialog import look_button
from napari_nnunet.widgets.frame.forms import add_row, side_by_side
from napari_nnunet.widgets.frame.layers import format_volume
from napari_nnunet.widgets.frame.parts import CopyButton, Sentence, Table, button
from napari_nnunet.widgets.frame.words import as_text, plain_time
from napari_nnunet.widgets.prediction.after import RecipeButton

THIS, OPEN, FOLDER = "This image", "All open images", "A folder"
_HEADS = ("Image", "State", "Time")
_NAMED = 3
CORRECTED = "Corrected by hand; the volumes are those of the labels as they are now."
BEHIND = "The labels may have been corrected by hand since; the volumes are those before that."


class ScopeRows(QObject):
    """Rows of a form: which images are segmented, and for a folder, where they lie and where the results go.

    Emits ``changed``.

    Parameters
    ----------
    form : QFormLayout
        Where the rows go.
    """

    changed = Signal()

    def __init__(self, form: QFormLayout) -> None:
        super().__init__()
        self.form = form
        self.box = ComboBox(label="Segment", choices=[THIS, OPEN, FOLDER], tooltip="One image, or many in one press.")
        self.images, self.results = QLineEdit(), QLineEdit()
        self._proposed = ""
        add_row(form, self.box)
        self._rows = [
            self._row("Images", self.images, "A folder with the images, named as for nnU-Net, or one file per case."),
            self._row("Results", self.results, "Where the segmentations and table.csv go."),
        ]
        self.look = look_button(lambda: [Path(text)] if (text := self.images.text().strip()) else [])
        self._rows.insert(1, self.look)
        form.insertRow(form.rowCount() - 1, "", self.look)
        self.box.changed.connect(self._changed)
        self.images.textChanged.connect(self._images_chosen)
        self.results.textChanged.connect(self._changed)
        self._show()

    def _row(self, name: str, edit: QLineEdit, tip: str) -> QWidget:
        edit.setAccessibleName(f"{name} folder")
        edit.setToolTip(tip)
        browse = button("Browse…", tip)
        browse.setAccessibleName(f"Browse to the {name.lower()}")
        browse.clicked.connect(lambda _=False: self._browse(name, edit))
        line = side_by_side(edit, browse)
        self.form.addRow(name, line)
        return line

    def _browse(self, name: str, edit: QLineEdit) -> None:
        folder = QFileDialog.getExistingDirectory(edit, f"{name}: choose a folder", edit.text())
        if folder:
            edit.setText(folder)

    def _images_chosen(self, text: str) -> None:
        """Propose a folder beside the images, as long as none was typed."""
        path = Path(text.strip())
        if self.results.text() in ("", self._proposed):
            self._proposed = str(path.with_name(f"{path.name}_segmented")) if path.name else ""
            self.results.setText(self._proposed)
        self._changed()

    def _changed(self, _: Any = None) -> None:
        self._show()
        self.changed.emit()

    def _show(self) -> None:
        for row in self._rows:
            self.form.setRowVisible(row, self.scope == FOLDER)

    def hide(self) -> None:
        """Leave out the choice: there is one image."""
        self.form.setRowVisible(self.box.native, False)

    def put_results(self, folder: Path) -> None:
        """Choose another folder for the results."""
        self.results.setText(str(folder))

    @property
    def scope(self) -> str:
        """One of THIS, OPEN and FOLDER."""
        return str(self.box.value)


class ManyTable(QWidget):
    """A line for every image of many: what became of it, how long it took, what was found."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[Line] = []
        self.corrected = self.behind = False
        self.recipes: dict[str, Mapping[str, Any]] = {}
        self.table = Table("Images", _HEADS, most=10)
        self.note = Sentence()
        self.copy = CopyButton("Copy as CSV", lambda: as_csv(self.lines))
        self.save = button("Save as CSV…", "Save the table as a file.")
        self.recipe = RecipeButton(lambda: self.recipes)
        self.save.clicked.connect(self._save)
        row = QHBoxLayout()
        for part in (self.copy, self.save, self.recipe):
            row.addWidget(part)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(self.table)
        column.addWidget(self.note)
        column.addLayout(row)
        self.setVisible(False)

    def clear(self) -> None:
        """Forget the images before."""
        self.lines, self.recipes, self.corrected, self.behind = [], {}, False, False
        self.recipe.folders = {}
        self.setVisible(False)

    def add(self, lines: Sequence[Line]) -> None:
        """Add an image, or its time points."""
        self.lines += lines
        names = list(dict.fromkeys(found.name for line in self.lines for found in line.found))
        self.table.set_heads((*_HEADS, *names))
        self.table.fill([_texts(line, names) for line in self.lines])
        for row, line in enumerate(self.lines):
            item = self.table.item(row, 1)
            if item is not None:
                item.setToolTip(as_text(line.reason))
        self.table.scrollToBottom()
        self.show_note()
        self.setVisible(True)

    def correct(self, image: str, found: tuple[Found, ...]) -> None:
        """Show what is in an image now that somebody corrected its labels."""
        self.lines = [replace(line, found=found) if line.image == image else line for line in self.lines]
        self.corrected, self.behind = True, False
        self.add([])

    def fall_behind(self) -> None:
        """Say that labels were corrected, and that it is not known by how much."""
        self.behind = True
        self.show_note()

    def show_note(self) -> None:
        """Say what failed, and what the recipe stands for."""
        failed = [line for line in self.lines if line.state in ("lost", "failed")]
        said = [f"{line.image}: {line.reason}" for line in failed[:_NAMED]]
        if len(failed) > _NAMED:
            said.append(f"{len(failed) - _NAMED} more have no result; the CSV says why.")
        said += [BEHIND] if self.behind else [CORRECTED] if self.corrected else []
        self.note.setText("<br>".join(said))
        self.note.setVisible(bool(said))
        self.recipe.setVisible(bool(self.recipes))

    def add_recipe(self, image: str, recipe: Mapping[str, Any], **folders: str) -> None:
        """Offer how an image was segmented, or with their folders, all of them."""
        self.recipes[image] = recipe
        self.recipe.folders = folders
        self.show_note()

    def summary(self) -> str:
        """Return how many images became what."""
        of = {state: sum(line.state == state for line in self.lines) for state in ("done", "kept", "lost", "failed")}
        said = [f"{counted(of['done'], 'image')} segmented"]
        said += [f"{of['kept']} kept"] if of["kept"] else []
        said += [f"{of['lost']} taken away meanwhile"] if of["lost"] else []
        said += [f"{of['failed']} failed"] if of["failed"] else []
        return ", ".join(said)

    def _save(self) -> None:
        path, _ = QFileDialog.getSaveFileName(self, "Save the table", "table.csv", "Tables (*.csv)")
        if path:
            try:
                write_text(Path(path), as_csv(self.lines))
                self.note.setText(f"Saved as {path}.")
            except ResourceError as error:
                self.note.setText(error.in_window)
            self.note.setVisible(True)


def _texts(line: Line, names: Sequence[str]) -> tuple[str, ...]:
    of = {found.name: found for found in line.found}
    time = "" if line.seconds is None else plain_time(line.seconds)
    return (line.image, line.state, time, *(_figure(of.get(name)) for name in names))


def _figure(found: Found | None) -> str:
    """Return how much was found: objects, a volume, or voxels where no size is known."""
    if found is None:
        return ""
    if found.objects is not None:
        return f"{found.objects:,}"
    return f"{found.voxels or 0:,} voxels" if found.mm3 is None else format_volume(found.mm3)
