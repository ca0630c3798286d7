"""The form of the Training cases dock: which dataset, which layers, what the painted values mean."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import ref

from magicgui.widgets import CheckBox, ComboBox, LineEdit
from napari.layers import Image, Labels
from qtpy.QtWidgets import QFormLayout, QGroupBox, QHBoxLayout, QVBoxLayout, QWidget

from napari_nnunet.errors import NnunetError
from napari_nnunet.formats.dataset.raw_dataset import read_info
from napari_nnunet.formats.workspace import stamp
from napari_nnunet.schema.dataset import DatasetInfo
from napari_nnunet.schema.objects import KEY
from napari_nnunet.widgets.dataset.case_request import SLICE, WHOLE, CaseChoices, belongs, cut_of, plain_name
from napari_nnunet.widgets.dataset.class_table import ClassTable, asked_class, asked_kind, is_sparse, set_sparse
from napari_nnunet.widgets.files.origins import channels_with
from napari_nnunet.widgets.frame.forms import DERIVED, LayerForm, LayersLine, add_row, distinct, let_shrink
from napari_nnunet.widgets.frame.head import Head
from napari_nnunet.widgets.frame.layers import KIND, full_resolution, voxel_in, voxel_size_mm
from napari_nnunet.widgets.frame.parts import Sentence, button
from napari_nnunet.widgets.frame.state import state_of
from napari_nnunet.widgets.frame.words import as_text, dataset_text, failure_text, size_text

if TYPE_CHECKING:
    import napari

_NEW = "New dataset…"
_NONE = "(choose a layer)"
_MOST_CHANNELS = 8


class CaseForm(LayerForm):
    """Edits :class:`CaseChoices`; emits ``changed`` when any of them changed.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
        Whose layers are offered.
    """

    def __init__(self, viewer: napari.viewer.Viewer) -> None:
        super().__init__(viewer)
        named = lambda workspace: [path.name for path in workspace.raw_datasets()]  # noqa: E731
        self.head = Head(state_of(viewer), named, page="training-data.md", new=_NEW)
        self.info: DatasetInfo | None = None
        self._folder: Path | None = None
        self.rows: list[tuple[ComboBox, LineEdit]] = []
        self._cut: tuple[Any, ...] = ()  # the part whose values are listed
        self._named: Any = lambda: None  # weak: the image that the case's name belongs to
        self._make()
        self._lay_out()
        self._connect()
        self.show_dataset()

    def _make(self) -> None:
        self.from_folders = button(
            "From folders…", "Import a folder of images and one of masks, as a new dataset or into this one."
        )
        self.describe = button("Write dataset.json…", "Name the channels and classes of a folder of training cases.")
        self.edit = button("Edit dataset…", "Rename it, rename, join or remove its classes, or remove all of it.")
        self.name_edit = LineEdit(label="Name", tooltip="Of the new dataset, e.g. Nuclei, or Dataset012_Nuclei.")
        self.about = Sentence()
        self.more = button("Add channel", "Another image layer of the same grid, such as a second stain or sequence.")
        self.fewer = button("Remove channel")
        self.labels_box = ComboBox(
            label="Labels", tooltip="The painted layer.", choices=lambda _: self._offered(self._labels())
        )
        self.extent_box = ComboBox(
            label="Extent",
            choices=[WHOLE, SLICE],
            tooltip="The whole volume, or only the slice on the screen as a picture.",
        )
        self.spacing_edit = LayersLine(
            label="Voxel size (mm)", tooltip="Leave empty to use the layer's. Order: z y x, or y x for pictures."
        )
        self.sparse_box = CheckBox(
            text="Unlabelled voxels are not annotated (ignore)",
            tooltip="For sparse painting: 0 in the layer then means 'nobody looked here', and training leaves it out. "
            "Paint some background with a value of its own and name that value 'background'.",
        )
        self.case_edit = LineEdit(label="Case", tooltip="Name of the case.")
        self.table = ClassTable()
        self.one_class = button(
            "One class for all…", "For labels that number their objects: they are learnt as one class, without numbers."
        )
        self.as_objects = button(
            "Numbered objects…", "Every value is an object of its own; the model will number the objects it finds."
        )

    def _lay_out(self) -> None:
        self.dataset_form, self.channel_form, self.layer_form, case = (QFormLayout() for _ in range(4))
        add_row(self.dataset_form, self.name_edit)
        for widget in (self.labels_box, self.extent_box, self.spacing_edit, self.sparse_box):
            add_row(self.layer_form, widget)
        add_row(case, self.case_edit)
        buttons = QHBoxLayout()
        for part in (self.more, self.fewer):
            buttons.addWidget(part)
        groups: tuple[tuple[str, tuple[Any, ...]], ...] = (
            ("1  Dataset", (self.head, self.dataset_form, self.about, self.edit, self.describe, self.from_folders)),
            ("2  Layers", (self.channel_form, buttons, self.layer_form, self.table, self.as_objects, self.one_class)),
            ("3  Case", (case,)),
        )
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        for title, parts in groups:
            box = QGroupBox(title)
            inner = QVBoxLayout(box)
            for part in parts:
                inner.addWidget(part) if isinstance(part, QWidget) else inner.addLayout(part)
            column.addWidget(box)
        let_shrink(self)

    def _connect(self) -> None:
        self.head.changed.connect(self.show_dataset)
        self.more.clicked.connect(self._add_channel)
        self.fewer.clicked.connect(self._remove_channel)
        for box in (self.labels_box, self.extent_box):
            box.changed.connect(self._labels_chosen)
        self.sparse_box.changed.connect(self._sparse_chosen)
        edited = (self.name_edit.changed, self.spacing_edit.changed, self.case_edit.changed, self.table.itemChanged)
        for signal in edited:
            signal.connect(self._changed)
        self.one_class.clicked.connect(self._ask_class)
        self.as_objects.clicked.connect(self._ask_kind)
        self.viewer.layers.selection.events.active.connect(self._selected)
        for moved in ("current_step", "order", "ndisplay"):
            getattr(self.viewer.dims.events, moved).connect(self._moved)
        self._follow_layers()

    # --- the dataset ---

    def show_dataset(self) -> None:
        """Show what is known of the chosen dataset, and its channels."""
        folder, self.info, text = self.head.raw, None, ""
        if self._folder not in (None, folder):
            self.table.clear_values()  # its names were those of another dataset
        self._folder = folder
        if folder is not None:
            try:
                self.info = read_info(folder)
                text = dataset_text(self.info)
            except (NnunetError, OSError) as error:
                text = failure_text(error)
        self.about.setText(text)
        self.about.setVisible(bool(text))
        self.describe.setVisible(folder is not None and stamp(folder / "dataset.json") is None)
        self.edit.setVisible(self.info is not None)
        self.dataset_form.setRowVisible(self.name_edit.native, folder is None)
        names = list(self.info.channel_names) if self.info is not None else ["image"]
        self._make_rows(names, editable=self.info is None)
        self._labels_chosen()

    # --- the layers ---

    def _make_rows(self, names: Sequence[str], *, editable: bool) -> None:
        with self._quietly():
            kept = [box.value for box, _ in self.rows]
            while self.rows:
                self.channel_form.removeRow(0)
                self.rows.pop()
            for i, name in enumerate(names):
                box, edit = self._add_row(i, name, "Image" if len(names) == 1 else f"Channel {i + 1}")
                edit.native.setEnabled(editable)
                if i < len(kept) and kept[i] in self._images():
                    box.value = kept[i]
                else:
                    self._guess(box, i)
                box.changed.connect(self._image_chosen)
                edit.changed.connect(self._changed)
        chain = [self.from_folders, *(part.native for row in self.rows for part in row), self.more]
        for before, after in pairwise(chain):
            QWidget.setTabOrder(before, after)
        self.more.setVisible(editable)
        self.fewer.setVisible(editable and len(self.rows) > 1)

    def _add_row(self, index: int, name: str, label: str) -> tuple[ComboBox, LineEdit]:
        box = ComboBox(label=label, choices=lambda _: self._offered(self._images()))
        edit = LineEdit(value=name)
        line = QWidget()
        row = QHBoxLayout(line)
        row.setContentsMargins(0, 0, 0, 0)
        for widget, stretch, about, tip in (
            (box, 2, "Layer", "The layer with this channel."),
            (edit, 1, "Name", "Name of the channel. CT selects the rules for computed tomography."),
        ):
            widget.native.setAccessibleName(f"{about} of channel {index + 1}")
            widget.native.setToolTip(tip)
            row.addWidget(widget.native, stretch)
        self.channel_form.addRow(as_text(label), line)
        let_shrink(box.native)
        self.rows.append((box, edit))
        return box, edit

    def _guess(self, box: ComboBox, index: int) -> None:
        """Offer layers in their order, the selected one first; channels of a dataset only where none is left over."""
        images, active = self._images(), self.viewer.layers.selection.active
        count = len(images) if self.info is None or not index else len(self.info.channel_names)
        if index == 0 and active in images:
            box.value = active
        elif index < len(images) <= count:
            box.value = images[index]

    def _fill_rows(self, images: Sequence[Image]) -> None:
        for i, (box, _) in enumerate(self.rows):
            box.value = images[i] if i < len(images) else _NONE

    def _add_channel(self) -> None:
        if len(names := [edit.value for _, edit in self.rows]) < _MOST_CHANNELS:
            self._make_rows([*names, f"image_{len(names) + 1}"], editable=True)
        self._changed()

    def _remove_channel(self) -> None:
        self._make_rows([edit.value for _, edit in self.rows][:-1], editable=True)
        self._changed()

    def _offered(self, layers: Sequence[Any]) -> list[tuple[str, Any]]:
        return [(_NONE, _NONE), *distinct([(layer.name, layer) for layer in layers])]

    def _labels(self) -> list[Labels]:
        return [layer for layer in self.viewer.layers if isinstance(layer, Labels) and DERIVED not in layer.metadata]

    def _layers_changed(self, event: Any = None) -> None:
        """Offer the layers there are now; what was just opened is what the next case is made of."""
        new = event.value if getattr(event, "type", "") == "inserted" else None
        with self._quietly():
            for i, (box, _) in enumerate(self.rows):
                box.reset_choices()
                if box.value == _NONE:
                    self._guess(box, i)
            self.labels_box.reset_choices()
            if whole := channels_with(new, self._images(), [edit.value for _, edit in self.rows]):
                self._fill_rows(whole)
        if new is not None:
            self._watch(new)
        self._fit_labels(new if new in self._labels() else None)

    def _selected(self, event: Any = None) -> None:
        """Follow the selected Labels layer, for that is the one that is painted on."""
        if (active := self.viewer.layers.selection.active) in self._labels() and active is not self.labels:
            self._fit_labels(active)

    def _fit_labels(self, wanted: Labels | None = None) -> None:
        """Choose labels that lie on the image and are not those of another case, or an image for the wanted labels."""
        with self._quietly():
            image, labels = self.image, wanted or self.labels
            if wanted is not None and image is not None and not belongs(wanted, image) and len(self.rows) == 1:
                fitting = [other for other in self._images() if belongs(wanted, other)]
                image = self.rows[0][0].value = fitting[-1] if fitting else image
            if labels is None or (image is not None and wanted is None and not belongs(labels, image)):
                found = [other for other in self._labels() if image is None or belongs(other, image)]
                labels = found[-1] if found else labels
            self.labels_box.value = labels if labels is not None else _NONE
        self._image_chosen()

    def _watch(self, layer: Any) -> None:
        layer.events.name.connect(self._layers_changed)
        for placed in ("scale", "translate", "rotate", "shear", "affine", "units"):
            getattr(layer.events, placed).connect(self._changed)
        if isinstance(layer, Labels):
            layer.events.paint.connect(self._painted)
            layer.events.data.connect(self._painted)

    def _painted(self, event: Any) -> None:
        if event.source is self.labels:
            self._labels_chosen()

    def _moved(self, _: Any = None) -> None:
        """Another slice or time point has other values."""
        labels, dims = self.labels, self.viewer.dims
        if labels is not None and self._cut != cut_of(labels, self.extent_box.value, voxel_in(labels, dims)):
            self._labels_chosen()

    @property
    def labels(self) -> Labels | None:
        """The chosen Labels layer."""
        value = self.labels_box.value
        return value if isinstance(value, Labels) else None

    @property
    def images(self) -> tuple[Image | None, ...]:
        """The chosen image layers, one per channel."""
        return tuple(box.value if isinstance(box.value, Image) else None for box, _ in self.rows)

    @property
    def image(self) -> Image | None:
        """The first of them."""
        return next((layer for layer in self.images if layer is not None), None)

    def _image_chosen(self, _: Any = None) -> None:
        """Name the case after another image; a name that was typed stays with its image."""
        if self._filling:
            return
        image = self.image
        if image is not None and image is not self._named():
            self._named = ref(image)
            with self._quietly():
                self.spacing_edit.turn_to(image)  # a voxel size that was typed stays with its image, too
                self.case_edit.value = plain_name(image)
        self._labels_chosen()

    def _labels_chosen(self, _: Any = None) -> None:
        """Fill the table of values; names that were typed stay."""
        if self._filling:
            return
        labels = self.labels
        self.layer_form.setRowVisible(self.extent_box.native, labels is not None and labels.ndim > 2)
        self._show_sparse(labels)
        if labels is None:
            with self._quietly():
                self.table.clear_values()
            self._changed()
            return
        self.table.turn_to(labels)
        self._cut = cut_of(labels, self.extent_box.value, voxel_in(labels, self.viewer.dims))
        self.table.count(
            full_resolution(labels)[self._cut], lambda values, counts: self._show_values(labels, values, counts)
        )

    def _show_sparse(self, labels: Labels | None) -> None:
        """Whether 0 means "nobody looked here" belongs to the layer, and else to the dataset."""
        if labels is not None:
            with self._quietly():
                self.sparse_box.value = is_sparse(labels, self.info)

    def _sparse_chosen(self, sparse: bool) -> None:
        if not self._filling and self.labels is not None:
            set_sparse(self.labels, sparse)
            self._labels_chosen()

    def _show_values(self, labels: Labels, values: Sequence[int], counts: Sequence[int]) -> None:
        with self._quietly():
            self.table.show_values(values, counts, labels, self.info, sparse=bool(self.sparse_box.value))
        self._changed()

    def _ask_class(self) -> None:
        """Ask for the class of all objects."""
        if name := asked_class(self, self.info):
            self.table.name_all(name)

    def _ask_kind(self) -> None:
        """Ask what the objects are that the labels number."""
        labels, name = self.labels, asked_kind(self)
        if labels is not None and name:
            labels.metadata[KIND] = name
            self._labels_chosen()

    @property
    def numbers_objects(self) -> bool:
        """Whether the values of the labels are numbers of objects and no classes."""
        if self.info is not None:
            return KEY in self.info.raw
        return self.labels is not None and KIND in self.labels.metadata

    def choices(self) -> CaseChoices:
        """Return the state of the whole form."""
        return CaseChoices(
            workspace=self.head.workspace,
            dataset=self.head.raw,
            info=self.info,
            new_name=self.name_edit.value,
            case=self.case_edit.value,
            layers=self.images,
            channel_names=tuple(edit.value for _, edit in self.rows),
            labels=self.labels,
            extent=self.extent_box.value,
            step=() if self.labels is None else voxel_in(self.labels, self.viewer.dims),
            spacing_text=self.spacing_edit.value,
            painted=self.table.painted(),
            kind=None if self.labels is None or self.info is not None else self.labels.metadata.get(KIND),
        )

    def choose(self, images: Sequence[Image], labels: Labels, names: Sequence[str] = ()) -> None:
        """Choose the layers of a case, and no others; a new dataset gets as many channels, with their names."""
        if self.info is None and len(images) == len(names) != len(self.rows):
            self._make_rows(names, editable=True)
        with self._quietly():
            self._fill_rows(images)
            self.labels_box.value = labels
            self.table.clear_values()
        self._image_chosen()

    def _changed(self, _: Any = None) -> None:
        if self._filling:
            return
        many, new = self.table.many and not self.numbers_objects, self.info is None
        self.one_class.setVisible(many)
        self.as_objects.setVisible(many and new)
        if self.numbers_objects:
            self.table.setVisible(False)
        self.layer_form.setRowVisible(self.sparse_box.native, not self.numbers_objects)
        known = voxel_size_mm(self.image, range(-min(3, self.image.ndim), 0))[0] if self.image is not None else None
        self.spacing_edit.native.setPlaceholderText(f"{size_text(known[-3:])} (layer)" if known else "")
        self.changed.emit()
