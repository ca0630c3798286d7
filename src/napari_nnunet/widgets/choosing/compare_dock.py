"""The Compare dock: two segmentations of the same image, or two folders of them, side by side."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from magicgui.widgets import ComboBox
from napari.layers import Labels
from napari.utils.colormaps import DirectLabelColormap
from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QApplication,
    QFileDialog,
    QFormLayout,
    QGroupBox,
    QHBoxLayout,
    QHeaderView,
    QLabel,
    QLineEdit,
    QPushButton,
    QTableWidget,
    QTableWidgetItem,
    QTabWidget,
    QVBoxLayout,
    QWidget,
)

from napari_nnunet.errors import NnunetError
from napari_nnunet.events import Job, Progress, Stage
from napari_nnunet.schema.dataset import Region
from napari_nnunet.widgets.files.reader import label_layer
from napari_nnunet.widgets.frame.forms import LayerForm, distinct, let_shrink, scrolling
from napari_nnunet.widgets.frame.panel import RunPanel, State

if TYPE_CHECKING:
    import napari

_DIFFERENCES = {1: "only in the first", 2: "only in the second", 3: "another class"}
_COLOURS: dict[int | None, str] = {None: "transparent", 0: "transparent", 1: "#00d5d5", 2: "#e7298a", 3: "#f0e442"}


class CompareWidget(LayerForm):
    """Compare two Labels layers, or two folders of segmentations.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
        Injected by napari.
    """

    def __init__(self, viewer: napari.viewer.Viewer) -> None:
        super().__init__(viewer)
        self._comparison: Any = None
        self.first_box = ComboBox(label="First", choices=self._label_choices, nullable=True)
        self.second_box = ComboBox(label="Second", choices=self._label_choices, nullable=True)
        self.first_folder, self.second_folder = QLineEdit(), QLineEdit()
        self.tabs = QTabWidget()
        self.tabs.addTab(self._layer_page(), "Layers")
        self.tabs.addTab(self._folder_page(), "Folders")
        self.panel = RunPanel("Compare", stops="Stop comparing.")
        self.title = QLabel()
        self.title.setWordWrap(True)
        self.table = QTableWidget(0, 0)
        self.table.setAccessibleName("Agreement")
        self.table.setEditTriggers(QTableWidget.EditTrigger.NoEditTriggers)
        self.table.setSelectionBehavior(QTableWidget.SelectionBehavior.SelectRows)
        self.table.verticalHeader().setVisible(False)
        self.copy = QPushButton("Copy as CSV")
        box = QGroupBox("Agreement")
        column = QVBoxLayout(box)
        for part in (self.title, self.table, self.copy):
            column.addWidget(part)
        self.result = box
        box.setVisible(False)
        scrolling(self, (self.tabs, self.panel, box))
        let_shrink(self)
        self._connect()
        self._layers_changed()

    def _layer_page(self) -> QWidget:
        page = QWidget()
        form = QFormLayout(page)
        for widget, what in ((self.first_box, "a reference, or one reader"), (self.second_box, "what is compared")):
            widget.native.setAccessibleName(widget.label)
            widget.native.setToolTip(f"A Labels layer: {what}.")
            form.addRow(widget.label, widget.native)
        return page

    def _folder_page(self) -> QWidget:
        page = QWidget()
        form = QFormLayout(page)
        for name, edit in (("First", self.first_folder), ("Second", self.second_folder)):
            edit.setAccessibleName(f"{name} folder")
            edit.setToolTip("A folder of segmentations; both have files of the same names.")
            browse = QPushButton("Browse…")
            browse.clicked.connect(lambda _=False, edit=edit: self._browse(edit))
            row = QHBoxLayout()
            row.addWidget(edit, 1)
            row.addWidget(browse)
            form.addRow(name, row)
        return page

    def _browse(self, edit: QLineEdit) -> None:
        folder = QFileDialog.getExistingDirectory(self, "Choose a folder of segmentations", edit.text())
        if folder:
            edit.setText(folder)

    def _connect(self) -> None:
        for box in (self.first_box, self.second_box):
            box.changed.connect(self._check)
        for edit in (self.first_folder, self.second_folder):
            edit.textChanged.connect(self._check)
        self.tabs.currentChanged.connect(self._check)
        self.panel.start = self.run
        self.panel.finished.connect(self._finished)
        self.panel.cancelled.connect(lambda _: self.panel.say("Cancelled."))
        self.table.itemDoubleClicked.connect(lambda item: self._open_case(item.row()))
        self.copy.clicked.connect(self._copy)
        self._follow_layers()

    def _label_choices(self, _: Any = None) -> list[tuple[str, Labels]]:
        return distinct([(layer.name, layer) for layer in self.viewer.layers if isinstance(layer, Labels)])

    def _layers_changed(self, event: Any = None) -> None:
        found = [layer for layer in self.viewer.layers if isinstance(layer, Labels)]
        with self._quietly():
            for box, wanted in ((self.first_box, 0), (self.second_box, 1)):
                before = box.value
                box.reset_choices()
                kept = before if before in found else None
                box.value = kept or (found[wanted] if len(found) > wanted else None)
        if getattr(event, "type", "") == "inserted":
            self._watch(event.value)
        self._check()

    def _watch(self, layer: Any) -> None:
        layer.events.name.connect(self._layers_changed)

    @property
    def _compares_layers(self) -> bool:
        return bool(self.tabs.currentIndex() == 0)

    def problem(self) -> str | None:
        """Return why nothing can be compared, None where it can."""
        if not self._compares_layers:
            folders = [Path(edit.text().strip()) for edit in (self.first_folder, self.second_folder)]
            if not all(edit.text().strip() for edit in (self.first_folder, self.second_folder)):
                return "Choose two folders of segmentations."
            gone = next((folder for folder in folders if not folder.is_dir()), None)
            if gone is not None:
                return f"The folder {gone} does not exist."
            return "Choose two different folders." if folders[0] == folders[1] else None
        first, second = self.first_box.value, self.second_box.value
        if first is None or second is None:
            return "Open two Labels layers to compare."
        if first is second:
            return "Choose two different layers."
        shapes = [np.shape(layer.data[0] if layer.multiscale else layer.data) for layer in (first, second)]
        if shapes[0] != shapes[1]:
            return f"'{first.name}' has shape {shapes[0]}, '{second.name}' has {shapes[1]}: they must be the same."
        return None

    def _check(self, _: Any = None) -> None:
        if self._filling or self.panel.state is not State.IDLE:
            return
        reason = self.problem()
        self.panel.set_ready(reason)
        self.panel.say(reason or "")

    def run(self) -> None:
        """Compare what is chosen."""
        self._comparison = None
        if self._compares_layers:
            first, second = self.first_box.value, self.second_box.value
            self.panel.run(_layers_job(first, second))
        else:
            folders = [Path(edit.text().strip()) for edit in (self.first_folder, self.second_folder)]
            self.panel.run(_folders_job(folders[0], folders[1]))

    def _finished(self, found: Any) -> None:
        if isinstance(found, tuple) and found[0] == "folders":
            self._show_folders(found[1], found[2])
        elif isinstance(found, tuple):
            self._show_layers(*found[1:])
        self._check()

    def _show_layers(self, metrics: Mapping[int, Any], differences: Any, first: Labels, second: Labels) -> None:
        names = class_names_of(first) or class_names_of(second)
        rows = [
            (names.get(int(label), f"label {label}"), values["Dice"], values["n_ref"], values["n_pred"])
            for label, values in metrics.items()
        ]
        self._fill(["Class", "Dice", "First", "Second"], rows)
        same = not differences.any()
        self.title.setText("Both are the same." if same else f"'{first.name}' and '{second.name}', in voxels.")
        if not same:
            self._add_differences(differences, first, second)

    def _add_differences(self, differences: Any, first: Labels, second: Labels) -> None:
        layer = Labels(
            differences,
            name=f"{first.name} ≠ {second.name}",
            colormap=DirectLabelColormap(color_dict=_COLOURS),
            features={"index": [0, *_DIFFERENCES], "name": ["same", *_DIFFERENCES.values()]},
            scale=first.scale,
            translate=first.translate,
            rotate=first.rotate,
            shear=first.shear,
            affine=first.affine,
            units=first.units,
            axis_labels=first.axis_labels,
        )
        old = [other for other in self.viewer.layers if other.name == layer.name]
        for other in old:
            self.viewer.layers.remove(other)
        self.viewer.add_layer(layer)
        _look_at_worst(self.viewer, layer)

    def _show_folders(self, comparison: Any, names: Mapping[Region, str]) -> None:
        labels = comparison.evaluation.labels
        rows: list[tuple[Any, ...]] = [
            (name, *(values[label]["Dice"] for label in labels)) for name, values in comparison.cases
        ]
        self._fill(["Case", *(names.get(label, str(label)) for label in labels)], rows)
        self._comparison = comparison
        mean = comparison.evaluation.dice
        self.title.setText(
            f"{len(rows)} cases, mean Dice {mean:.3f}, the most different first. Double click opens one."
        )

    def _fill(self, heads: Sequence[str], rows: Sequence[tuple[Any, ...]]) -> None:
        self.table.setColumnCount(len(heads))
        self.table.setHorizontalHeaderLabels(list(heads))
        self.table.setRowCount(len(rows))
        header = self.table.horizontalHeader()
        header.setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        header.setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)
        for r, row in enumerate(rows):
            for c, value in enumerate(row):
                item = QTableWidgetItem(_cell(value))
                if c:
                    item.setTextAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
                self.table.setItem(r, c, item)
        heights = sum(self.table.rowHeight(r) for r in range(min(len(rows), 12)))
        self.table.setFixedHeight(self.table.horizontalHeader().sizeHint().height() + heights + 20)
        self.result.setVisible(True)

    def _open_case(self, row: int) -> None:
        """Open both segmentations of a case, and where they differ."""
        if self._comparison is None:
            return
        item = self.table.item(row, 0)
        name = "" if item is None else item.text()
        pair = next((pair for pair in self._comparison.evaluation.pairs if pair.name == name), None)
        if pair is None:
            return
        layers: list[Labels] = []
        before = list(self.viewer.layers)
        try:
            for path, what in ((pair.reference, "first"), (pair.prediction, "second")):
                data, place = label_layer(path)
                layers.append(self.viewer.add_layer(Labels(data, **{**place, "name": f"{name} ({what})"})))
        except NnunetError as error:
            self.panel.say(error.message)
            return
        from napari_nnunet.jobs.choosing.compare import difference

        for layer in before:
            layer.visible = False
        one, other = (np.asarray(layer.data) for layer in layers)
        self._add_differences(difference(one, other), *layers)

    def _head(self, column: int) -> str:
        item = self.table.horizontalHeaderItem(column)
        return "" if item is None else item.text()

    def csv(self) -> str:
        """Return the table as CSV; of folders with all metrics."""
        if self._comparison is not None:
            return str(self._comparison.csv())
        lines = [",".join(self._head(c) for c in range(self.table.columnCount()))]
        for r in range(self.table.rowCount()):
            items = [self.table.item(r, c) for c in range(self.table.columnCount())]
            lines.append(",".join("" if item is None else item.text() for item in items))
        return "\n".join(lines) + "\n"

    def _copy(self) -> None:
        clipboard = QApplication.clipboard()
        if clipboard is not None:
            clipboard.setText(self.csv())


def _three(array: Any) -> Any:
    return array if array.ndim > 2 else array[None]


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return "–" if math.isnan(value) else f"{value:.4f}"
    return str(value)


def class_names_of(layer: Labels) -> dict[int, str]:
    """Return the class names in a layer's features table, empty where it has none."""
    table = layer.features
    if "index" not in table or "name" not in table:
        return {}
    return {int(i): str(name) for i, name in zip(table["index"], table["name"], strict=True) if int(i) != 0}


def _look_at_worst(viewer: Any, layer: Labels) -> None:
    """Move the sliders to the plane with the most differences."""
    data = np.asarray(layer.data)
    shown = {axis - (viewer.dims.ndim - layer.ndim) for axis in viewer.dims.displayed}
    for axis in range(layer.ndim):
        if axis not in shown:
            counts = np.count_nonzero(data, axis=tuple(a for a in range(layer.ndim) if a != axis))
            position = [0.0] * layer.ndim
            position[axis] = float(np.argmax(counts))
            viewer.dims.set_point(axis + viewer.dims.ndim - layer.ndim, layer.data_to_world(position)[axis])


def _layers_job(first: Labels, second: Labels) -> Callable[[], Job[Any]]:
    arrays = [layer.data[0] if layer.multiscale else layer.data for layer in (first, second)]

    def start() -> Job[Any]:
        from napari_nnunet.jobs.choosing.compare import compare_arrays, difference

        yield Stage(name="Comparing")
        one, other = (np.asarray(array) for array in arrays)
        yield Progress(done=1, total=3)
        metrics = compare_arrays(_three(one), _three(other))
        yield Progress(done=2, total=3)
        return "layers", metrics, difference(one, other), first, second

    return start


def _folders_job(first: Path, second: Path) -> Callable[[], Job[Any]]:
    def start() -> Job[Any]:
        from napari_nnunet.jobs.choosing.compare import compare_folders, folder_rules

        rules, names = folder_rules(first, second)
        comparison = yield from compare_folders(first, second, rules)
        return "folders", comparison, names

    return start
