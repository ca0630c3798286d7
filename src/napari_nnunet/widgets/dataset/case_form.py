"""The form of the Training cases dock: which dataset, which layers, what the painted values mean."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from magicgui.widgets import CheckBox, ComboBox, LineEdit
from napari.layers import Image, Labels
from qtpy.QtCore import Qt, Signal
from qtpy.QtGui import QColor
from qtpy.QtWidgets import (
    QFormLayout,
    QGroupBox,
    QHBoxLayout,
    QHeaderView,
    QLabel,
    QPushButton,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_nnunet.errors import NnunetError
from napari_nnunet.events import Job, Progress
from napari_nnunet.formats.dataset.raw_dataset import read_info
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.schema.colours import class_colour
from napari_nnunet.schema.dataset import BACKGROUND, IGNORE, DatasetInfo
from napari_nnunet.widgets.dataset.case_request import SLICE, WHOLE, CaseChoices, Painted, cut_of, default_names
from napari_nnunet.widgets.frame.forms import LayerForm, add_row, distinct, let_shrink
from napari_nnunet.widgets.frame.layers import voxel_size_mm
from napari_nnunet.widgets.frame.preferences import read_preferences
from napari_nnunet.widgets.frame.words import size_text
from napari_nnunet.widgets.frame.worker import JobWorker, Listener

if TYPE_CHECKING:
    import napari

_NEW = "New dataset…"
_NONE = "(choose a layer)"
_MOST_CHANNELS = 8
_MOST_CLASSES = 256  # more values than that are no classes but instances
_QUICK_VOXELS = 2e6  # counted at once; more of them on a thread, so that painting is not held up


class CaseForm(LayerForm):
    """Edits :class:`CaseChoices`; emits ``changed`` when any of them changed, ``dataset_changed`` for another dataset.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
        Whose layers are offered.
    """

    dataset_changed = Signal()

    def __init__(self, viewer: napari.viewer.Viewer) -> None:
        super().__init__(viewer)
        self.workspace: Workspace = read_preferences().folders()
        self.info: DatasetInfo | None = None
        self._values: tuple[int, ...] = ()
        self._counter: JobWorker | None = None
        self.rows: list[tuple[ComboBox, LineEdit]] = []
        self._make()
        self._lay_out()
        self._connect()
        self.fill_datasets()

    def _make(self) -> None:
        self.dataset_box = ComboBox(label="Dataset", choices=[_NEW], tooltip="Where the case is added.")
        self.from_folders = QPushButton("From folders…")
        self.from_folders.setToolTip("Make a dataset of a folder of images and a folder of masks.")
        self.describe = QPushButton("Write dataset.json…")
        self.describe.setToolTip("Name the channels and classes of a folder with imagesTr and labelsTr.")
        self.name_edit = LineEdit(label="Name", tooltip="Of the new dataset, such as Nuclei; its number is found.")
        self.more = QPushButton("Add channel")
        self.more.setToolTip("Another image layer of the same grid, such as a second stain or sequence.")
        self.fewer = QPushButton("Remove channel")
        self.labels_box = ComboBox(
            label="Labels", choices=self._label_choices, tooltip="The layer with the painted classes."
        )
        self.extent_box = ComboBox(
            label="Extent",
            choices=[WHOLE, SLICE],
            tooltip="The whole volume, or only the slice on the screen as a picture.",
        )
        self.spacing_edit = LineEdit(
            label="Voxel size (mm)", tooltip="Leave empty to use the layer's. Order: z y x, or y x for pictures."
        )
        self.sparse_box = CheckBox(
            text="Unlabelled voxels are not annotated (ignore)",
            tooltip="For sparse painting: 0 in the layer then means 'nobody looked here', and training leaves it out. "
            "Paint some background with a value of its own and name that value 'background'.",
        )
        self.case_edit = LineEdit(label="Case", tooltip="Name of the case; a case of that name is replaced.")
        self.table = QTableWidget(0, 3)
        self.table.setHorizontalHeaderLabels(["Painted", "Voxels", "Class (double click to name)"])
        self.table.setAccessibleName("Classes of the painted values")
        self.table.verticalHeader().setVisible(False)
        header = self.table.horizontalHeader()
        header.setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        header.setSectionResizeMode(2, QHeaderView.ResizeMode.Stretch)

    def _lay_out(self) -> None:
        dataset = QGroupBox("1  Dataset")
        column = QVBoxLayout(dataset)
        self.dataset_form = QFormLayout()
        column.addLayout(self.dataset_form)
        add_row(self.dataset_form, self.dataset_box)
        add_row(self.dataset_form, self.name_edit)
        self.about = QLabel()
        self.about.setWordWrap(True)
        column.addWidget(self.about)  # a form would cut its second line
        column.addWidget(self.describe)
        column.addWidget(self.from_folders)
        layers = QGroupBox("2  Layers")
        inner = QVBoxLayout(layers)
        self.channel_form = QFormLayout()
        inner.addLayout(self.channel_form)
        buttons = QHBoxLayout()
        buttons.addWidget(self.more)
        buttons.addWidget(self.fewer)
        inner.addLayout(buttons)
        self.layer_form = QFormLayout()
        for widget in (self.labels_box, self.extent_box, self.spacing_edit, self.sparse_box):
            add_row(self.layer_form, widget)
        inner.addLayout(self.layer_form)
        inner.addWidget(self.table)
        case = QGroupBox("3  Case")
        form = QFormLayout(case)
        add_row(form, self.case_edit)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        for part in (dataset, layers, case):
            column.addWidget(part)
        let_shrink(self)

    def _connect(self) -> None:
        self.dataset_box.changed.connect(self._dataset_chosen)
        self.more.clicked.connect(self._add_channel)
        self.fewer.clicked.connect(self._remove_channel)
        self.labels_box.changed.connect(self._labels_chosen)
        self.sparse_box.changed.connect(self._labels_chosen)
        self.extent_box.changed.connect(self._labels_chosen)
        for edit in (self.name_edit, self.spacing_edit, self.case_edit):
            edit.changed.connect(self._changed)
        self.table.itemChanged.connect(self._changed)
        self._follow_layers()

    def fill_datasets(self, select: Path | None = None) -> None:
        """List the datasets of the workspace again."""
        found = self.workspace.raw_datasets()
        with self._quietly():
            self.dataset_box.choices = [*((path.name, path) for path in found), (_NEW, _NEW)]
            wanted = select if select is not None else self.dataset_box.value
            self.dataset_box.value = wanted if wanted in found else _NEW
        self._dataset_chosen()

    @property
    def folder(self) -> Path | None:
        """The chosen dataset, None for a new one."""
        value = self.dataset_box.value
        return value if isinstance(value, Path) else None

    def _dataset_chosen(self) -> None:
        if self._filling:
            return
        self.info = None
        text = ""
        if self.folder is not None:
            try:
                self.info = read_info(self.folder)
                classes = [name for name in self.info.labels.labels if name != BACKGROUND]
                text = f"Channels: {', '.join(self.info.channel_names)}.<br>Classes: {', '.join(classes)}."
            except (NnunetError, OSError) as error:
                text = str(error)
        self.about.setText(text)
        self.about.setVisible(bool(text))
        self.describe.setVisible(self.folder is not None and not (self.folder / "dataset.json").is_file())
        self.from_folders.setVisible(self.folder is None)
        self.dataset_form.setRowVisible(self.name_edit.native, self.folder is None)
        names = list(self.info.channel_names) if self.info is not None else ["image"]
        self._make_rows(names, editable=self.info is None)
        self.dataset_changed.emit()
        self._labels_chosen()

    def _make_rows(self, names: Sequence[str], *, editable: bool) -> None:
        with self._quietly():
            kept = [box.value for box, _ in self.rows]
            while self.rows:
                self.channel_form.removeRow(0)
                self.rows.pop()
            for i, name in enumerate(names):
                box = ComboBox(label="Channel", choices=self._image_choices, tooltip="The layer with this channel.")
                edit = LineEdit(
                    value=name, tooltip="Name of the channel. CT selects the rules for computed tomography."
                )
                edit.native.setAccessibleName(f"Name of channel {i + 1}")
                edit.native.setEnabled(editable)
                line = QWidget()
                row = QHBoxLayout(line)
                row.setContentsMargins(0, 0, 0, 0)
                row.addWidget(box.native, 2)
                row.addWidget(edit.native, 1)
                box.native.setAccessibleName(f"Layer of channel {i + 1}")
                self.channel_form.addRow("Image" if len(names) == 1 else f"Channel {i + 1}", line)
                let_shrink(box.native)
                self.rows.append((box, edit))
                if i < len(kept) and kept[i] in self._images():
                    box.value = kept[i]
                else:
                    self._guess(box, i)
                box.changed.connect(self._changed)
                edit.changed.connect(self._changed)
        self.more.setVisible(editable)
        self.fewer.setVisible(editable and len(self.rows) > 1)

    def _guess(self, box: ComboBox, index: int) -> None:
        """Offer layers in their order, the selected one first."""
        images = self._images()
        active = self.viewer.layers.selection.active
        if index == 0 and isinstance(active, Image):
            box.value = active
        elif index < len(images):
            box.value = images[index]

    def _add_channel(self) -> None:
        names = [edit.value for _, edit in self.rows]
        if len(names) < _MOST_CHANNELS:
            self._make_rows([*names, f"image_{len(names) + 1}"], editable=True)
        self._changed()

    def _remove_channel(self) -> None:
        self._make_rows([edit.value for _, edit in self.rows][:-1], editable=True)
        self._changed()

    def _image_choices(self, _: Any = None) -> list[tuple[str, Any]]:
        return [(_NONE, _NONE), *distinct([(layer.name, layer) for layer in self._images()])]

    def _label_choices(self, _: Any = None) -> list[tuple[str, Any]]:
        found = [layer for layer in self.viewer.layers if isinstance(layer, Labels)]
        return [(_NONE, _NONE), *distinct([(layer.name, layer) for layer in found])]

    def _layers_changed(self, event: Any = None) -> None:
        with self._quietly():
            for i, (box, _) in enumerate(self.rows):
                box.reset_choices()
                if box.value == _NONE:
                    self._guess(box, i)
            self.labels_box.reset_choices()
            if self.labels is None:
                found = [layer for layer in self.viewer.layers if isinstance(layer, Labels)]
                if found:
                    self.labels_box.value = found[-1]
        if getattr(event, "type", "") == "inserted":
            self._watch(event.value)
        self._labels_chosen()

    def _watch(self, layer: Any) -> None:
        layer.events.name.connect(self._layers_changed)
        layer.events.scale.connect(self._changed)
        layer.events.units.connect(self._changed)
        if isinstance(layer, Labels):
            layer.events.paint.connect(self._painted)
            layer.events.data.connect(self._painted)

    def _painted(self, event: Any) -> None:
        if event.source is self.labels:
            self._labels_chosen()

    @property
    def labels(self) -> Labels | None:
        """The chosen Labels layer."""
        value = self.labels_box.value
        return value if isinstance(value, Labels) else None

    def _labels_chosen(self) -> None:
        """Fill the table of values; names that were typed stay."""
        if self._filling:
            return
        labels = self.labels
        self.layer_form.setRowVisible(self.extent_box.native, labels is not None and labels.ndim > 2)
        if self._counter is not None:
            self._counter.quit()
            self._counter = None
        if labels is None:
            self._show_values(None, (), ())
            return
        part = labels.data[cut_of(labels, self.extent_box.value, self.viewer.dims.current_step)]
        if math.prod(part.shape) <= _QUICK_VOXELS:
            self._show_values(labels, *count_values(part))
            return
        worker = JobWorker(_count_job(part))
        Listener(self, worker, returned=lambda found: self._counted(worker, labels, found))
        self._counter = worker
        worker.start()

    def _counted(self, worker: JobWorker, labels: Labels, found: tuple[Sequence[int], Sequence[int]] | None) -> None:
        if worker is self._counter and found is not None:
            self._counter = None
            self._show_values(labels, *found)

    def _show_values(self, labels: Labels | None, values: Sequence[int], counts: Sequence[int]) -> None:
        with self._quietly():
            typed = {entry.value: entry.name for entry in self.painted()} if self._values else {}
            if labels is None:
                self._values = ()
                self.table.setRowCount(0)
            else:
                self._fill_table(labels, values[:_MOST_CLASSES], counts[:_MOST_CLASSES], typed)
                if not self.case_edit.value:
                    self.case_edit.value = self._case_name(labels)
        self.table.setVisible(self.table.rowCount() > 0)
        self._changed()

    def _case_name(self, labels: Labels) -> str:
        opened = labels.metadata.get("nnunet_case", {})
        first = next((box.value for box, _ in self.rows if isinstance(box.value, Image)), None)
        name = str(opened.get("name") or (first.name if first is not None else labels.name))
        return "".join(c if c.isalnum() or c in "._-" else "_" for c in name).strip("._-")

    def _fill_table(self, labels: Labels, values: Sequence[int], counts: Sequence[int], typed: dict[int, str]) -> None:
        sparse = bool(self.sparse_box.value)
        guesses = default_names([int(v) for v in values], labels, self.info, sparse=sparse)
        self._values = tuple(int(v) for v in values)
        self.table.setRowCount(len(values))
        fixed = {BACKGROUND, IGNORE}
        for row, (guess, count) in enumerate(zip(guesses, counts, strict=True)):
            before = typed.get(guess.value)
            name = before if before and not (guess.value == 0 and before in fixed) else guess.name
            items = [QTableWidgetItem(str(guess.value)), QTableWidgetItem(f"{int(count):,}"), QTableWidgetItem(name)]
            if guess.value:
                items[0].setData(Qt.ItemDataRole.DecorationRole, QColor(class_colour(guess.value)))
            for item in items[: 3 if guess.value == 0 else 2]:
                item.setFlags(item.flags() & ~Qt.ItemFlag.ItemIsEditable)
            for column, item in enumerate(items):
                self.table.setItem(row, column, item)
        heights = [self.table.rowHeight(row) for row in range(min(len(values), 6))]
        self.table.setFixedHeight(self.table.horizontalHeader().sizeHint().height() + sum(heights) + 6)

    def painted(self) -> tuple[Painted, ...]:
        """Return what the values of the layer mean, as the table says."""
        found = []
        for row, value in enumerate(self._values):
            item = self.table.item(row, 2)
            found.append(Painted(value, item.text().strip() if item is not None else ""))
        return tuple(found)

    def choices(self) -> CaseChoices:
        """Return the state of the whole form."""
        return CaseChoices(
            workspace=self.workspace,
            dataset=self.folder,
            info=self.info,
            new_name=self.name_edit.value,
            case=self.case_edit.value,
            layers=tuple(box.value if isinstance(box.value, Image) else None for box, _ in self.rows),
            channel_names=tuple(edit.value for _, edit in self.rows),
            labels=self.labels,
            extent=self.extent_box.value,
            step=tuple(self.viewer.dims.current_step),
            spacing_text=self.spacing_edit.value,
            painted=self.painted(),
        )

    def choose(self, images: Sequence[Image], labels: Labels, name: str) -> None:
        """Choose the layers of a case that was opened from the dataset."""
        with self._quietly():
            for (box, _), layer in zip(self.rows, images, strict=False):
                box.value = layer
            self.labels_box.value = labels
            self.sparse_box.value = False
            self.case_edit.value = name
        self._values = ()
        self._labels_chosen()

    def _changed(self, _: Any = None) -> None:
        if self._filling:
            return
        first = next((box.value for box, _ in self.rows if isinstance(box.value, Image)), None)
        known = voxel_size_mm(first)[0] if first is not None else None
        self.spacing_edit.native.setPlaceholderText(f"{size_text(known[-3:])} (layer)" if known else "")
        self.changed.emit()


def count_values(part: Any) -> tuple[list[int], list[int]]:
    """Return the values of an array, ascending, and how often each occurs."""
    values, counts = np.unique(np.asarray(part), return_counts=True)
    return values.tolist(), counts.tolist()


def _count_job(part: Any) -> Callable[[], Job[tuple[list[int], list[int]]]]:
    """Count slice by slice, so that it can be given up when the layer is painted on."""

    def start() -> Job[tuple[list[int], list[int]]]:
        found: dict[int, int] = {}
        for i, plane in enumerate(part):
            for value, count in zip(*count_values(plane), strict=True):
                found[value] = found.get(value, 0) + count
            yield Progress(done=i + 1, total=len(part))
        return sorted(found), [found[value] for value in sorted(found)]

    return start
