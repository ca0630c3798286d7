"""Which layers are segmented: one per channel, how their axes are read, the voxel size, what part of them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from magicgui.widgets import ComboBox, LineEdit
from napari.layers import Image, Shapes
from qtpy.QtWidgets import QFormLayout, QGroupBox, QVBoxLayout, QWidget

from napari_nnunet.formats.model.folder import TrainedModel
from napari_nnunet.schema.requests.prediction import PredictSettings
from napari_nnunet.widgets.frame.forms import LayerForm, add_row, distinct, let_shrink, offered
from napari_nnunet.widgets.frame.layers import full_resolution, place_seen, position_in, voxel_size_mm
from napari_nnunet.widgets.frame.ready import NotReadyError, typed_spacing
from napari_nnunet.widgets.frame.words import as_text, size_text
from napari_nnunet.widgets.large.cluster_row import ClusterRow
from napari_nnunet.widgets.large.order import ON_DISK
from napari_nnunet.widgets.large.target_row import TargetRow
from napari_nnunet.widgets.prediction.many import FolderOrder, OpenImages, folder_order, open_images
from napari_nnunet.widgets.prediction.many_view import FOLDER, OPEN, THIS, ScopeRows
from napari_nnunet.widgets.prediction.request import OUTPUTS, Choices, default_axes, shape_box, visible_box

if TYPE_CHECKING:
    import napari

_SAME_LAYER = "(in the first layer)"
_WHOLE, _VISIBLE = "Whole image", "Visible field"
_ALL_TIMES, _THIS_TIME = "All time points", "Current time point"
_ABOVE = 3  # rows before those of the channels: what is segmented, and its folders
_MAX_CHANNELS = 12  # combo boxes; a model with more takes one layer with a channel axis


class ImageForm(LayerForm):
    """Edits what is segmented; emits ``changed`` when any of it changed.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
        Whose layers are offered.
    """

    def __init__(self, viewer: napari.viewer.Viewer) -> None:
        super().__init__(viewer)
        self.model: TrainedModel | None = None
        self.accepted: tuple[float, ...] | None = None
        self._first: Image | None = None
        self._typed: WeakKeyDictionary[Image, str] = WeakKeyDictionary()
        self.channel_boxes: list[ComboBox] = []
        self.axes_box = ComboBox(
            label="Axes", choices=offered([]), tooltip="How the axes of the layer are read: T time, C channel."
        )
        self.spacing_edit = LineEdit(
            label="Voxel size (mm)", tooltip="Leave empty to use the layer's. Order: z y x, or y x for pictures."
        )
        self.region_box = ComboBox(
            label="Region", choices=self._region_choices, tooltip="The whole image, what is visible, or drawn shapes."
        )
        self.time_box = ComboBox(label="Time", choices=[_ALL_TIMES, _THIS_TIME])
        self.output_box = ComboBox(label="Output", choices=[*OUTPUTS, ON_DISK])
        group = QGroupBox("2  Image")
        self.rows = QFormLayout(group)
        self.scope = ScopeRows(self.rows)
        self._folder_size = ""
        for widget in (self.axes_box, self.spacing_edit, self.region_box, self.time_box, self.output_box):
            add_row(self.rows, widget)
        self.target, self.cluster = TargetRow(self.rows), ClusterRow(self.rows)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(group)
        let_shrink(self)
        self.scope.changed.connect(self._scope_chosen)
        for row in (self.target, self.cluster):
            row.changed.connect(self._changed)
        self.spacing_edit.changed.connect(self._size_typed)
        for box in (self.axes_box, self.region_box, self.time_box, self.output_box):
            box.changed.connect(self._changed)
        self._follow_layers()

    def show_model(self, model: TrainedModel | None) -> None:
        """Follow the model; layers that fit stay chosen."""
        before, self.model = self.model, model
        if model is None or before is None or before.dataset.channel_names != model.dataset.channel_names:
            self._make_channel_boxes([] if model is None else list(model.dataset.channel_names))
        else:
            self._layer_chosen()

    def _make_channel_boxes(self, names: Sequence[str]) -> None:
        with self._quietly():
            for _ in self.channel_boxes:
                self.rows.removeRow(_ABOVE)
            self.channel_boxes = []
            for i, name in enumerate(names[:_MAX_CHANNELS]):
                label = "Image" if len(names) == 1 else as_text(name or f"Channel {i}")
                box = ComboBox(label=label, choices=self._image_choices if i == 0 else self._other_choices)
                box.tooltip = (
                    "The layer with this channel." if i == 0 else "Its layer, or in the first one's channel axis."
                )
                add_row(self.rows, box, at=_ABOVE + i)
                self.channel_boxes.append(box)
                box.changed.connect(self._layer_chosen)
                let_shrink(box.native)
            self._match_channels(names)
        chain = (self.scope.box, *self.channel_boxes, self.axes_box, self.spacing_edit)
        for before, after in itertools.pairwise([part.native for part in chain]):
            QWidget.setTabOrder(before, after)
        self._layer_chosen()

    def _match_channels(self, names: Sequence[str]) -> None:
        """Choose layers by name where names match, the selected layer otherwise."""
        images = self._images()
        if not images or not self.channel_boxes:
            return
        active = self.viewer.layers.selection.active
        self.channel_boxes[0].value = active if active in images else images[-1]
        if len(names) > 1:
            found = {i: layer for i, name in enumerate(names) for layer in images if _matches(name, layer.name)}
            if len(found) == len(names) and len(set(map(id, found.values()))) == len(names):
                for i, box in enumerate(self.channel_boxes):
                    box.value = found[i]

    def _image_choices(self, _: Any = None) -> list[tuple[str, Image | None]]:
        return offered(distinct([(layer.name, layer) for layer in self._images()]), "(open an image)")

    def _other_choices(self, _: Any = None) -> list[tuple[str, Any]]:
        return [(_SAME_LAYER, _SAME_LAYER), *distinct([(layer.name, layer) for layer in self._images()])]

    def _region_choices(self, _: Any = None) -> list[tuple[str, Any]]:
        shapes = [(f"Shapes: {layer.name}", layer) for layer in self.viewer.layers if isinstance(layer, Shapes)]
        return [(_WHOLE, _WHOLE), (_VISIBLE, _VISIBLE), *distinct(shapes)]

    def _layers_changed(self, event: Any = None) -> None:
        with self._quietly():
            before = [box.value for box in self.channel_boxes]
            for box in (*self.channel_boxes, self.region_box):
                box.reset_choices()
            empty = not before or before[0] is None
            if empty and self.model is not None:
                self._match_channels(self.model.dataset.channel_names)
        if getattr(event, "type", "") == "inserted":
            self._watch(event.value)
        self._layer_chosen()

    def _watch(self, layer: Any) -> None:
        """Follow what a layer is called and where it lies."""
        layer.events.name.connect(self._layers_changed)
        events = layer.events
        for signal in (events.scale, events.translate, events.rotate, events.shear, events.affine, events.units):
            signal.connect(self._changed)
        events.data.connect(self._changed)

    def _layer_chosen(self) -> None:
        if self._filling:
            return
        layers = self.layers()
        first = layers[0] if layers else None
        readings = default_axes(self.model, layers)
        with self._quietly():
            previous = self.axes_box.value
            self.axes_box.choices = offered(readings)
            if readings:
                self.axes_box.value = previous if previous in readings else readings[0]
            if first is not self._first:  # what was typed belongs to the layer it was typed for
                self._first, self.accepted = first, None
                if self.scope.scope != FOLDER:
                    self.spacing_edit.value = "" if first is None else self._typed.get(first, "")
        self._changed()

    def _size_typed(self, text: str) -> None:
        if not self._filling and self.scope.scope == FOLDER:
            self._folder_size = text
        elif not self._filling and self._first is not None:
            self._typed[self._first] = text
        self._changed()

    def _scope_chosen(self) -> None:
        """Show the rows that mean something, and the voxel size that was typed for what is segmented now."""
        own = "" if self._first is None else self._typed.get(self._first, "")
        with self._quietly():
            self.spacing_edit.value = self._folder_size if self.scope.scope == FOLDER else own
        self._changed()

    def open_images(self, choices: Choices) -> OpenImages:
        """Return what segmenting all open images means; raises NotReadyError if none can be."""
        return open_images(choices, self._images(), self._typed, self.viewer.layers)

    def folder(self, settings: PredictSettings) -> FolderOrder:
        """Return what segmenting the chosen folder means; raises NotReadyError with what is missing."""
        flat = self.model is not None and self.model.plans.reader == "NaturalImage2DIO"
        text = self._folder_size.strip()
        spacing = typed_spacing(text, "YX" if flat else "ZYX") if text else None
        images, results = (edit.text().strip() for edit in (self.scope.images, self.scope.results))
        settings = settings.replace(probabilities=self.output_box.value != OUTPUTS[0])
        return folder_order(self.model, settings, images, results, spacing, self.cluster.cluster())

    def layers(self) -> tuple[Image | None, ...]:
        """Return the chosen layers, one per channel; None for "in the first layer"."""
        return tuple(box.value if isinstance(box.value, Image) else None for box in self.channel_boxes)

    def exchange(self, old: Any, new: Any) -> None:
        """Choose another layer wherever one is chosen."""
        with self._quietly():
            for box in self.channel_boxes:
                if box.value is old:
                    box.value = new
        self._layer_chosen()

    def to_disk(self) -> None:
        """Choose to write the labels to disk, block by block; ask where, if nothing can be proposed."""
        self.output_box.value = ON_DISK
        if not self.target.text:
            self.target.browse()

    @property
    def takes_all(self) -> bool:
        """Whether neither a region nor one of several time points is chosen."""
        return self.region_box.value == _WHOLE and not ("T" in self.axes and self.time_box.value == _THIS_TIME)

    def accept(self, spacing: tuple[float, ...]) -> None:
        """Confirm a voxel size that is far from the model's."""
        self.accepted = spacing
        self._changed()

    @property
    def axes(self) -> str:
        """How the axes of the first layer are read; empty where they cannot be."""
        return self.axes_box.value or ""

    def region(self) -> tuple[tuple[int, int], ...] | None:
        """Return the chosen box in voxels of the spatial axes; None for the whole image."""
        layers, axes = self.layers(), self.axes
        if not axes or not layers or layers[0] is None:
            return None
        chosen = self.region_box.value
        if chosen == _VISIBLE:
            return visible_box(layers[0], axes, self.viewer.dims)
        if isinstance(chosen, Shapes):
            if not len(chosen.data):
                raise NotReadyError(f"Draw a rectangle in '{chosen.name}', or choose another region.")
            return shape_box(layers[0], axes, chosen, self.viewer.dims)
        return None

    def times(self) -> tuple[int, ...] | None:
        """Return the chosen time points, the one on the screen first; None where there is no time."""
        layers, axes = self.layers(), self.axes
        if "T" not in axes or not layers or layers[0] is None:
            return None
        current = position_in(layers[0], self.viewer.dims)[axes.index("T")]
        if self.time_box.value == _THIS_TIME and self.scope.scope == THIS:
            return (place_seen(layers[0], axes.index("T"), current, "time point"),)
        count = full_resolution(layers[0]).shape[axes.index("T")]
        now = min(max(round(current or 0), 0), count - 1)
        return (now, *(t for t in range(count) if t != now))

    def _changed(self, _: Any = None) -> None:
        if not self._filling:
            self._hint_spacing()
            one = self.scope.scope == THIS
            for widget in (*self.channel_boxes, self.axes_box, self.region_box):
                self.rows.setRowVisible(widget.native, one)
            self.rows.setRowVisible(self.spacing_edit.native, self.scope.scope != OPEN)
            self.rows.setRowVisible(self.time_box.native, one and "T" in self.axes)
            to_disk = one and self.output_box.value == ON_DISK
            self.target.show(visible=to_disk)
            self.cluster.show(visible=to_disk or self.scope.scope == FOLDER)
            if to_disk and self.model is not None:
                with self._quietly():
                    self.target.propose(self._first, self.model.configuration.name)
            self.changed.emit()

    def _hint_spacing(self) -> None:
        """Show the layer's own voxel size in the empty field."""
        if self.scope.scope == FOLDER:
            self.spacing_edit.native.setPlaceholderText("what the files say")
            return
        layers, axes = self.layers(), self.axes
        picked = [axis for axis, letter in enumerate(axes) if letter in "ZYX"]
        known = voxel_size_mm(layers[0], picked)[0] if layers and layers[0] is not None and axes else None
        spatial = [known[axis] for axis in picked] if known else []
        self.spacing_edit.native.setPlaceholderText(f"{size_text(spatial)} (layer)" if spatial else "")

    @property
    def follows_view(self) -> bool:
        """True where what is visible is the region, or the time point, so that moving the view changes the choices."""
        now = "T" in self.axes and self.time_box.value == _THIS_TIME
        return self.scope.scope == THIS and bool(self.region_box.value == _VISIBLE or now)


def _matches(channel: str, layer: str) -> bool:
    """True where a layer's name contains the channel's as a word ("T1" does not match "T1c")."""
    words = "".join(c if c.isalnum() else " " for c in layer.casefold()).split()
    return channel.casefold() in words
