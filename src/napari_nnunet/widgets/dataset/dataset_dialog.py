"""The name and the classes of a dataset are changed, or all of it is removed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt, Signal
from qtpy.QtGui import QColor
from qtpy.QtWidgets import (
    QFormLayout,
    QHBoxLayout,
    QLineEdit,
    QMessageBox,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_nnunet.errors import NnunetError
from napari_nnunet.events import Job, Stage
from napari_nnunet.formats.dataset.objects import rename_kinds
from napari_nnunet.formats.dataset.raw_dataset import read_info
from napari_nnunet.formats.dataset.relabel import change_classes
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.jobs.dataset.manage import free_name
from napari_nnunet.schema.colours import class_colour
from napari_nnunet.schema.dataset import BACKGROUND, IGNORE
from napari_nnunet.schema.objects import ObjectScheme
from napari_nnunet.widgets.files.origins import Edited
from napari_nnunet.widgets.frame.panel import RunDialog, RunPanel
from napari_nnunet.widgets.frame.parts import Sentence, Table, button
from napari_nnunet.widgets.frame.words import as_text, failure_text
from napari_nnunet.widgets.frame.worker import lazy

if TYPE_CHECKING:
    from napari_nnunet.jobs.dataset.manage import remove_dataset, rename_dataset
else:
    remove_dataset = lazy("napari_nnunet.jobs.dataset.manage:remove_dataset")
    rename_dataset = lazy("napari_nnunet.jobs.dataset.manage:rename_dataset")


class DatasetDialog(RunDialog):
    """Edits a dataset; emits ``changed`` with its name, None where it was removed, and a sentence.

    Emits ``edited`` before with an :class:`Edited` where its name or classes were changed, also where that was not all.

    Parameters
    ----------
    workspace : Workspace
        Where it lies.
    name : str
        ``DatasetXXX_Name``.
    parent : QWidget
        The dock.
    """

    changed = Signal(object, str)
    edited = Signal(object)

    def __init__(self, workspace: Workspace, name: str, parent: QWidget) -> None:
        super().__init__(parent)
        self.workspace, self.name = workspace, name
        self.setWindowTitle(f"Edit {name}")
        self.setMinimumWidth(420)
        self._objects = False
        self.name_edit = QLineEdit(name.partition("_")[2])
        self.name_edit.setAccessibleName("Name of the dataset")
        self.name_edit.setToolTip("Its number stays. Images, plans and models get the new name.")
        self.table = Table("Classes of the dataset", ("Class", "New name"), most=12)
        self.table.setEditTriggers(Table.EditTrigger.AllEditTriggers)
        self.about = Sentence()
        self.panel = RunPanel("Apply", stops="Stop, if nothing is written yet.")
        self.remove = button("Remove dataset…", "Move it to the trash of the workspace; its models stay.")
        self.close_button = button("Close")
        form = QFormLayout()
        form.addRow("Name", self.name_edit)
        row = QHBoxLayout()
        for part in (self.remove, self.close_button):
            row.addWidget(part)
        column = QVBoxLayout(self)
        column.addLayout(form)
        for part in (self.table, self.about, self.panel):
            column.addWidget(part)
        column.addLayout(row)
        self._fill()
        self.name_edit.textChanged.connect(self._update)
        self.table.itemChanged.connect(self._update)
        self.panel.start = self.apply
        self.remove.clicked.connect(self._remove)
        self.close_button.clicked.connect(self.reject)
        self._update()

    def _fill(self) -> None:
        labels: dict[str, int | tuple[int, ...]] = {}
        try:
            info = read_info(self.workspace.raw / self.name)
            scheme = ObjectScheme.of(info)
            labels = dict(info.labels.labels)
            if scheme is not None:
                cores = {kind: core for kind, (core, _) in scheme.kinds.items()}
                labels = {**cores, **{name: labels[name] for name in scheme.classes if name in labels}}
            self._objects = scheme is not None
        except (NnunetError, OSError) as error:
            self.about.setText(failure_text(error))
        ignore = labels.get(IGNORE)
        self._ignore = ignore if isinstance(ignore, int) else None
        self._classes = [name for name in labels if name not in (BACKGROUND, IGNORE)]
        colours = [class_colour(value if isinstance(value, int) else value[0]) for value in labels.values()]
        self.table.setRowCount(len(self._classes))
        shown = [(name, colour) for name, colour in zip(labels, colours, strict=True) if name in self._classes]
        for row, (name, colour) in enumerate(shown):
            first = QTableWidgetItem(name)
            first.setData(Qt.ItemDataRole.DecorationRole, QColor(colour))
            first.setFlags(first.flags() & ~Qt.ItemFlag.ItemIsEditable)
            self.table.setItem(row, 0, first)
            self.table.setItem(row, 1, QTableWidgetItem(name))
        self.table.horizontalHeader().setSectionResizeMode(1, self.table.horizontalHeader().ResizeMode.Stretch)
        self.table.fit()

    def new_names(self) -> dict[str, str]:
        """Return the classes that get another name; an empty one is for the background."""
        items = [self.table.item(row, 1) for row in range(self.table.rowCount())]
        names = ["" if item is None else item.text().strip() for item in items]
        return {old: new for old, new in zip(self._classes, names, strict=True) if old != new}

    def _new_name(self) -> str | None:
        text = self.name_edit.text().strip()
        return text if text and text != self.name.partition("_")[2] else None

    def _update(self, _: Any = None) -> None:
        """Say what Apply would do."""
        names = self.new_names()
        if self._objects and names:
            what = "Kinds of objects get other names; they cannot be joined or removed."
            self.about.setText(f"{what} Plan and train again to use them: existing models keep the old ones.")
            self.panel.set_ready(None)
            return
        said = [f"The dataset is renamed to {self._new_name()}."] if self._new_name() else []
        removed = [old for old, new in names.items() if new in ("", BACKGROUND)]
        kept = [names.get(name, name) for name in self._classes]
        merged = [name for name in dict.fromkeys(kept) if kept.count(name) > 1 and name not in ("", BACKGROUND)]
        if removed:
            said.append(f"{', '.join(removed)} becomes background.")
        said += [f"{kept.count(name)} classes become '{name}'." for name in merged]
        if removed or merged:
            said.append("The labels of all cases are rewritten; the old ones go to the trash.")
        elif names:
            said.append("Classes get other names; their voxels stay.")
        if names:
            said.append("Plan and train again to use the new classes: existing models keep the old ones.")
        hint = "Same names join classes; an empty name makes a class background."
        self.about.setText(" ".join(said) or ("Kinds of objects can be renamed." if self._objects else hint))
        self.panel.set_ready(None if names or self._new_name() else "Nothing is changed yet.")

    def apply(self) -> None:
        """Change what was edited: the classes, then the name."""
        names, new = self.new_names(), self._new_name()
        job = _change(self.workspace, self.name, names, new)
        self.panel.run(job, done=lambda values: self._changed(names, values, new))

    def _changed(self, names: Mapping[str, str], values: Mapping[int, int], new: str | None) -> str | None:
        folder = self.workspace.raw / self.name
        if names:
            self.edited.emit(Edited(folder, folder, names, values, self._ignore))
        if new is None:
            return self._end(self.name, f"Changed {self.name}.")
        self._fill()  # should it keep its name, its classes are not changed once more
        self.panel.run(rename_dataset(self.workspace, self.name, new), done=self._renamed)
        return None

    def _renamed(self, name: str) -> str:
        self.edited.emit(Edited(self.workspace.raw / self.name, self.workspace.raw / name, {}, {}))
        return self._end(name, f"Changed {name}.")

    def _remove(self) -> None:
        question = (
            f"Remove {self.name}? Its images, labels and plans go to the trash of the workspace; its models stay."
        )
        if QMessageBox.question(self, "Remove the dataset?", as_text(question)) == QMessageBox.StandardButton.Yes:
            job = remove_dataset(self.workspace, self.name)
            self.panel.run(job, done=lambda _: self._end(None, f"Moved {self.name} to the trash."))

    def _end(self, name: str | None, text: str) -> str:
        self.changed.emit(name, text)
        self.accept()
        return text


def _change(workspace: Workspace, name: str, classes: dict[str, str], new: str | None) -> Job[dict[int, int]]:
    """Change classes if the dataset can also be renamed as it should; returns what became of their values."""
    yield Stage(name=f"Changing {name}")
    if new is not None:
        free_name(workspace, name, new)
    folder = workspace.raw / name
    if classes and ObjectScheme.of(read_info(folder)) is None:
        return change_classes(folder, classes)
    if classes:
        rename_kinds(folder, classes)
    return {}
