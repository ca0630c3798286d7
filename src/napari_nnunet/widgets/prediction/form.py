"""The form of the Segment dock: model, image, quality. It edits choices and knows nothing of running."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from magicgui.widgets import ComboBox, LineEdit
from napari.layers import Image, Shapes
from qtpy.QtWidgets import (
    QFileDialog,
    QFormLayout,
    QGroupBox,
    QHBoxLayout,
    QVBoxLayout,
    QWidget,
)

from napari_nnunet.errors import NnunetError
from napari_nnunet.formats.model.folder import TrainedModel, is_model_folder, load_model
from napari_nnunet.formats.model.known_models import known_models, remember_model
from napari_nnunet.schema.names import Fold
from napari_nnunet.schema.requests.prediction import PredictSettings, preset
from napari_nnunet.widgets.frame.forms import LayerForm, add_row, distinct, field_widget, let_shrink
from napari_nnunet.widgets.frame.head import Head
from napari_nnunet.widgets.frame.layers import full_resolution, position_in, voxel_size_mm
from napari_nnunet.widgets.frame.parts import button, folded_away, sentence
from napari_nnunet.widgets.frame.preferences import read_preferences
from napari_nnunet.widgets.frame.ready import NotReadyError
from napari_nnunet.widgets.frame.state import state_of
from napari_nnunet.widgets.frame.words import size_text
from napari_nnunet.widgets.prediction.request import OUTPUTS, Choices, default_axes, shape_box, visible_box
from napari_nnunet.widgets.prediction.words import about_model

if TYPE_CHECKING:
    import napari

_SAMPLE = "Sample model: nuclei and shells"
_SAME_LAYER = "(in the first layer)"
_WHOLE, _VISIBLE = "Whole image", "Visible field"
_ALL_TIMES, _THIS_TIME = "All time points", "Current time point"
_CUSTOM = "Custom"
_TITLES = {"fast": "Fast", "balanced": "Balanced", "full": "Full (nnU-Net)"}
_MAX_CHANNELS = 12  # combo boxes; a model with more takes one layer with a channel axis


class SegmentForm(LayerForm):
    """Edits :class:`Choices`; emits ``changed`` when any of them changed.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
        Whose layers are offered.
    choose_model : bool
        Whether the model and its folds are chosen here; otherwise :meth:`show_model` tells.
    """

    def __init__(self, viewer: napari.viewer.Viewer, *, choose_model: bool = True) -> None:
        super().__init__(viewer)
        self.model: TrainedModel | None = None
        self._chooses_model = choose_model
        self.head = Head(state_of(viewer))
        self._make_form()
        self._lay_out()
        self._connect()
        if choose_model:
            self._fill_models()
            self.head.changed.connect(self._models_changed)
            self.head.state.trained.connect(self._models_changed)

    def _make_form(self) -> None:
        preferences = read_preferences()
        self.model_box = ComboBox(label="Model", choices=[], tooltip="A trained nnU-Net model (a folder).")
        self.browse = button(
            "Browse…", "Choose the folder of a trained model: it has plans.json, dataset.json and fold_0."
        )
        self.about = sentence()
        self.channel_boxes: list[ComboBox] = []
        self.axes_box = ComboBox(
            label="Axes", choices=[], nullable=True, tooltip="How the axes of the layer are read: T time, C channel."
        )
        self.spacing_edit = LineEdit(
            label="Voxel size (mm)", tooltip="Leave empty to use the layer's. Order: z y x, or y x for pictures."
        )
        self.preset_box = ComboBox(
            label="Quality",
            choices=[*((title, name) for name, title in _TITLES.items()), (_CUSTOM, _CUSTOM)],
            value="full" if preferences.mirroring and preferences.step == 0.5 else _CUSTOM,
            tooltip="Fast: one fold, no mirroring, wide steps. Balanced: all folds. Full: as nnU-Net does it.",
        )
        self.folds_box = field_widget(PredictSettings, "folds", widget_type="Select", choices=[])
        self.checkpoint_box = field_widget(PredictSettings, "checkpoint", choices=["checkpoint_final.pth"])
        self.mirroring_box = field_widget(PredictSettings, "mirroring", value=preferences.mirroring)
        self.step_box = field_widget(PredictSettings, "step", value=preferences.step, min=0.1)
        self.device_box = field_widget(
            PredictSettings, "device", value=preferences.device, choices=["auto", "cpu", "cuda", "mps"]
        )
        self.region_box = ComboBox(
            label="Region", choices=self._region_choices, tooltip="The whole image, what is visible, or drawn shapes."
        )
        self.time_box = ComboBox(label="Time", choices=[_ALL_TIMES, _THIS_TIME])
        self.output_box = ComboBox(label="Output", choices=list(OUTPUTS))

    def _lay_out(self) -> None:
        for named in (self.model_box, self.preset_box):
            named.native.setAccessibleName(named.label)
            named.native.setToolTip(named.tooltip)
        chooser = QHBoxLayout()
        chooser.addWidget(self.model_box.native, 1)
        chooser.addWidget(self.browse)
        box = QGroupBox("1  Model")
        inner = QVBoxLayout(box)
        inner.addWidget(self.head)
        inner.addLayout(chooser)
        inner.addWidget(self.about)
        image = QGroupBox("2  Image")
        self.image_form = QFormLayout(image)
        for widget in (self.axes_box, self.spacing_edit, self.region_box, self.time_box, self.output_box):
            add_row(self.image_form, widget)
        quality = QGroupBox("3  Quality")
        inner = QVBoxLayout(quality)
        inner.addWidget(self.preset_box.native)
        details = QWidget()
        form = QFormLayout(details)
        form.setContentsMargins(0, 0, 0, 0)
        for widget in (self.folds_box, self.checkpoint_box, self.mirroring_box, self.step_box, self.device_box):
            add_row(form, widget)
        inner.addWidget(folded_away("Advanced", details))
        self.folds_box.native.setMaximumHeight(70)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        for part in (box, image, quality):
            column.addWidget(part)
        if not self._chooses_model:
            box.setVisible(False)
            for own in (self.folds_box, self.checkpoint_box):
                form.setRowVisible(own.native, False)
        let_shrink(self)

    def _connect(self) -> None:
        self.browse.clicked.connect(self._browse)
        self.model_box.changed.connect(self._model_chosen)
        for box in (self.axes_box, self.spacing_edit, self.region_box, self.time_box, self.output_box, self.device_box):
            box.changed.connect(self._changed)
        self.preset_box.changed.connect(self._preset_chosen)
        for box in (self.folds_box, self.mirroring_box, self.step_box):
            box.changed.connect(self._quality_changed)
        self.checkpoint_box.changed.connect(self._checkpoint_chosen)
        self._follow_layers()

    def _fill_models(self, select: Path | None = None) -> None:
        self._listed = paths = known_models(self.head.workspace)
        choices: list[tuple[str, Any]] = [(f"{path.parent.name} / {path.name.split('__')[-1]}", path) for path in paths]
        choices.append((_SAMPLE, "sample"))
        self.model_box.choices = distinct(choices)
        self.model_box.value = select if select is not None else choices[0][1]
        self._model_chosen()

    def _models_changed(self) -> None:
        """Offer the models there are now, if they are others; the chosen one stays if it still exists."""
        value = self.model_box.value
        if known_models(self.head.workspace) != self._listed:
            self._fill_models(value if isinstance(value, Path) and is_model_folder(value) else None)

    def _browse(self) -> None:
        folder = QFileDialog.getExistingDirectory(self, "Choose the folder of a trained model")
        if folder:
            self.add_model(Path(folder))

    def add_model(self, folder: Path) -> None:
        """Choose a model by its folder and remember it; what is wrong with the folder is said in the dock."""
        try:
            model = load_model(folder)
            remember_model(model.folder)
        except NnunetError as error:
            with self._quietly():
                self.model_box.native.setCurrentIndex(-1)  # none is chosen, so that each can be chosen again
            self.model = None
            self.about.setText(error.message)
            self._changed()
            return
        self._fill_models(model.folder)

    def show_model(self, model: TrainedModel | None) -> None:
        """Follow a model that was chosen elsewhere; layers that fit stay chosen."""
        before, self.model = self.model, model
        if model is None or before is None or before.dataset.channel_names != model.dataset.channel_names:
            self._fill_for_model()
        else:
            with self._quietly():
                self._fill_folds()
            self._layer_chosen()

    def _model_chosen(self) -> None:
        if self._filling:
            return
        value = self.model_box.value
        self.model = None
        try:
            if value == "sample":
                self.model = load_model(sample_folder())
            elif value is not None:
                self.model = load_model(value)
        except NnunetError as error:
            self.about.setText(error.message)
        self._fill_for_model()
        self._changed()

    def _fill_for_model(self) -> None:
        model = self.model
        if model is None:
            self._make_channel_boxes([])
            return
        names = model.dataset.channel_names
        self.about.setText(about_model(model))
        with self._quietly():
            self.checkpoint_box.choices = list(model.checkpoints) or ["checkpoint_final.pth"]
            self._fill_folds()
        self._make_channel_boxes(list(names))
        self._preset_chosen()

    def _fill_folds(self) -> None:
        if self.model is None:
            return
        folds = [str(fold) for fold in self.model.folds(self.checkpoint_box.value)]
        self.folds_box.choices = folds
        self.folds_box.value = folds

    def _checkpoint_chosen(self) -> None:
        if not self._filling:
            with self._quietly():
                self._fill_folds()
            self._changed()

    def choose_checkpoint(self, checkpoint: str, folds: Sequence[Fold]) -> None:
        """Choose a checkpoint and folds of the model."""
        if self.model is None:
            return
        with self._quietly():
            names = list(dict.fromkeys((*self.model.checkpoints, checkpoint)))
            self.checkpoint_box.choices = names
            self.checkpoint_box.value = checkpoint
            self._fill_folds()
            self.folds_box.value = [str(fold) for fold in folds]
        self._changed()

    def _make_channel_boxes(self, names: Sequence[str]) -> None:
        with self._quietly():
            for _ in self.channel_boxes:
                self.image_form.removeRow(0)
            self.channel_boxes = []
            for i, name in enumerate(names[:_MAX_CHANNELS]):
                label = "Image" if len(names) == 1 else f"{name or f'Channel {i}'}"
                box = ComboBox(label=label, choices=self._image_choices if i == 0 else self._other_choices)
                box.tooltip = (
                    "The layer with this channel." if i == 0 else "Its layer, or in the first one's channel axis."
                )
                add_row(self.image_form, box, at=i)
                self.channel_boxes.append(box)
                box.changed.connect(self._layer_chosen)
                let_shrink(box.native)
            self._match_channels(names)
        order = [self.browse, *(box.native for box in self.channel_boxes), self.axes_box.native]
        for before, after in itertools.pairwise(order):
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

    def _image_choices(self, _: Any = None) -> list[tuple[str, Image]]:
        return distinct([(layer.name, layer) for layer in self._images()])

    def _other_choices(self, _: Any = None) -> list[tuple[str, Any]]:
        return [(_SAME_LAYER, _SAME_LAYER), *self._image_choices()]

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
        for signal in (layer.events.scale, layer.events.units, layer.events.data):
            signal.connect(self._changed)

    def _layer_chosen(self) -> None:
        if self._filling:
            return
        readings = default_axes(self.model, self._chosen_layers())
        with self._quietly():
            previous = self.axes_box.value
            self.axes_box.choices = readings
            if readings:
                self.axes_box.value = previous if previous in readings else readings[0]
        self._changed()

    def _chosen_layers(self) -> tuple[Image | None, ...]:
        return tuple(box.value if isinstance(box.value, Image) else None for box in self.channel_boxes)

    def _preset_chosen(self) -> None:
        name = self.preset_box.value
        if self._filling or self.model is None or name == _CUSTOM:
            self._changed()
            return
        folds = self.model.folds(self.checkpoint_box.value)
        chosen = preset(name, folds=folds, base=PredictSettings()) if folds else PredictSettings()
        with self._quietly():
            self.folds_box.value = [str(fold) for fold in chosen.folds or ()]
            self.mirroring_box.value = chosen.mirroring
            self.step_box.value = chosen.step
        self._changed()

    def _quality_changed(self) -> None:
        if not self._filling:
            with self._quietly():
                self.preset_box.value = _CUSTOM
            self._changed()

    def settings(self) -> PredictSettings:
        """Return what the form says."""
        folds = tuple(int(fold) if fold.isdecimal() else "all" for fold in self.folds_box.value)
        return PredictSettings(
            folds=folds or None,
            checkpoint=self.checkpoint_box.value,
            step=self.step_box.value,
            mirroring=self.mirroring_box.value,
            device=self.device_box.value,
            memory_gb=read_preferences().memory_gb,
        )

    def choices(self) -> Choices:
        """Return the state of the whole form."""
        layers = self._chosen_layers()
        axes = self.axes_box.value or ""
        first = layers[0] if layers else None
        return Choices(
            model=self.model,
            layers=layers,
            axes=axes,
            spacing_text=self.spacing_edit.value,
            settings=self.settings(),
            region=self._region(first, axes) if first is not None and axes else None,
            times=self._times(first, axes) if first is not None else None,
            output=self.output_box.value,
        )

    def _region(self, layer: Image, axes: str) -> tuple[tuple[int, int], ...] | None:
        chosen = self.region_box.value
        if chosen == _VISIBLE:
            return visible_box(layer, axes, self.viewer.dims.displayed)
        if isinstance(chosen, Shapes):
            if not len(chosen.data):
                raise NotReadyError(f"Draw a rectangle in '{chosen.name}', or choose another region.")
            return shape_box(layer, axes, chosen)
        return None

    def _times(self, layer: Image, axes: str) -> tuple[int, ...] | None:
        if "T" not in axes:
            return None
        current = position_in(layer, self.viewer.dims)[axes.index("T")]
        count = full_resolution(layer).shape[axes.index("T")]
        now = min(max(round(current), 0), count - 1)
        if self.time_box.value == _THIS_TIME:
            return (now,)
        return (now, *(t for t in range(count) if t != now))  # what the user looks at comes first

    def _changed(self, _: Any = None) -> None:
        if not self._filling:
            self._show_rows()
            self.changed.emit()

    def _show_rows(self) -> None:
        self._hint_spacing()
        self.image_form.setRowVisible(self.time_box.native, "T" in (self.axes_box.value or ""))

    def _hint_spacing(self) -> None:
        """Show the layer's own voxel size in the empty field."""
        layers, axes = self._chosen_layers(), self.axes_box.value or ""
        known = voxel_size_mm(layers[0])[0] if layers and layers[0] is not None and axes else None
        spatial = [s for s, letter in zip(known or (), axes, strict=False) if letter in "ZYX"]
        self.spacing_edit.native.setPlaceholderText(f"{size_text(spatial)} (layer)" if spatial else "")

    def label_presets(self, titles: Mapping[Any, str]) -> None:
        """Show what each preset costs behind its name."""
        entries = [
            (f"{title} – {titles[name]}" if titles.get(name) else title, name) for name, title in _TITLES.items()
        ]
        with self._quietly():
            value = self.preset_box.value
            self.preset_box.choices = [*entries, (_CUSTOM, _CUSTOM)]
            self.preset_box.value = value

    @property
    def follows_view(self) -> bool:
        """True where the region is what is visible, so that moving the view changes the choices."""
        return bool(self.region_box.value == _VISIBLE)


def _matches(channel: str, layer: str) -> bool:
    """True where a layer's name contains the channel's as a word ("T1" does not match "T1c")."""
    words = "".join(c if c.isalnum() else " " for c in layer.casefold()).split()
    return channel.casefold() in words


def sample_folder() -> Path:
    """Return the folder of the tiny model that ships with the package."""
    from importlib.resources import files

    return Path(str(files("napari_nnunet.resources"))) / "sample_model" / "nnUNetTrainer__nnUNetPlans__3d_fullres"
