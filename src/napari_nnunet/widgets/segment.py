"""The Segment dock: choose a model, see what will happen, run it, look at the result."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from magicgui.widgets import CheckBox, ComboBox, Container, FloatSpinBox, LineEdit, Select
from napari.layers import Image, Shapes
from napari.utils.notifications import show_info
from qtpy.QtCore import Qt, QTimer
from qtpy.QtWidgets import (
    QComboBox,
    QFileDialog,
    QGroupBox,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QScrollArea,
    QVBoxLayout,
    QWidget,
)
from superqt import QCollapsible

from napari_nnunet.errors import NnunetError
from napari_nnunet.events import Event, Job, Painted
from napari_nnunet.formats.known_models import known_models, remember_model
from napari_nnunet.formats.model import TrainedModel, load_model
from napari_nnunet.schema.settings import PredictSettings, preset
from napari_nnunet.widgets._layers import class_volumes, voxel_size_mm
from napari_nnunet.widgets._panel import RunPanel, State, plain_time
from napari_nnunet.widgets._preferences import read_preferences
from napari_nnunet.widgets._request import (
    OUTPUTS,
    Choices,
    NotReadyError,
    Request,
    default_axes,
    resolve,
    shape_box,
    visible_box,
)
from napari_nnunet.widgets._result import ResultLayers, VolumeTable
from napari_nnunet.widgets._worker import JobWorker

if TYPE_CHECKING:
    import napari

logger = logging.getLogger(__name__)

_SAMPLE = "Sample model: nuclei and shells"
_SAME_LAYER = "(in the first layer)"
_WHOLE, _VISIBLE = "Whole image", "Visible field"
_CUSTOM = "Custom"
_TITLES = {"fast": "Fast", "balanced": "Balanced", "full": "Full (nnU-Net)"}
_REFRESH_SECONDS = 1.0  # redrawing a large Labels layer takes up to 0.1 s
_MAX_CHANNELS = 12  # combo boxes; a model with more takes one layer with a channel axis


class SegmentWidget(QWidget):
    """Segment image layers with a trained nnU-Net model.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
        Injected by napari.
    """

    def __init__(self, viewer: napari.viewer.Viewer) -> None:
        super().__init__()
        self.viewer = viewer
        self._model: TrainedModel | None = None
        self._request: Request | None = None
        self._running: ResultLayers | None = None
        self._estimator: JobWorker | None = None
        self._generation = 0
        self._last_refresh = 0.0
        self._filling = False
        self._make_form()
        self._lay_out()
        self._connect()
        self._fill_models()
        self._update()

    # ------------------------------------------------------------------------------------------------ building

    def _make_form(self) -> None:
        preferences = read_preferences()
        self.model_box = ComboBox(label="Model", choices=[], tooltip="A trained nnU-Net model (a folder).")
        self.browse = QPushButton("Browse…")
        self.browse.setToolTip("Choose the folder of a trained model: it holds plans.json, dataset.json and fold_0.")
        self.about = QLabel()
        self.about.setWordWrap(True)
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
        self.folds_box = Select(label="Folds", choices=[], tooltip="Trained folds that are averaged.")
        self.checkpoint_box = ComboBox(label="Checkpoint", choices=["checkpoint_final.pth"])
        self.mirroring_box = CheckBox(
            text="Mirroring", value=preferences.mirroring, tooltip="8 times slower in 3D, a little better."
        )
        self.step_box = FloatSpinBox(
            label="Tile step", value=preferences.step, min=0.1, max=1.0, step=0.05, tooltip="Fraction of the tile."
        )
        self.device_box = ComboBox(label="Device", choices=["auto", "cpu", "cuda", "mps"], value=preferences.device)
        self.region_box = ComboBox(
            label="Region", choices=self._region_choices, tooltip="The whole image, what is visible, or drawn shapes."
        )
        self.time_box = ComboBox(label="Time", choices=["All time points", "Current time point"])
        self.output_box = ComboBox(label="Output", choices=list(OUTPUTS))
        self.channels = Container(labels=True)
        self.options = Container(
            labels=True, widgets=[self.axes_box, self.spacing_edit, self.region_box, self.time_box, self.output_box]
        )
        self.quality = Container(labels=True, widgets=[self.preset_box])
        self.advanced = Container(
            labels=True,
            widgets=[self.folds_box, self.checkpoint_box, self.mirroring_box, self.step_box, self.device_box],
        )
        self.summary = QLabel()
        self.summary.setWordWrap(True)
        self.panel = RunPanel("Segment")
        self.table = VolumeTable()

    def _lay_out(self) -> None:
        chooser = QHBoxLayout()
        chooser.addWidget(QLabel("Model"))
        chooser.addWidget(self.model_box.native, 1)
        chooser.addWidget(self.browse)
        box = QGroupBox("1  Model")
        inner = QVBoxLayout(box)
        inner.addLayout(chooser)
        inner.addWidget(self.about)
        image = QGroupBox("2  Image")
        inner = QVBoxLayout(image)
        for part in (self.channels, self.options):
            part.margins = (0, 0, 0, 0)
            inner.addWidget(part.native)
        quality = QGroupBox("3  Quality")
        inner = QVBoxLayout(quality)
        self.quality.margins = (0, 0, 0, 0)
        inner.addWidget(self.quality.native)
        more = QCollapsible("Advanced")
        more.addWidget(self.advanced.native)
        inner.addWidget(more)
        self.folds_box.native.setMaximumHeight(70)
        content = QWidget()
        column = QVBoxLayout(content)
        for part in (box, image, quality, self.summary, self.panel, self.table):
            column.addWidget(part)
        column.addStretch(1)
        scroll = QScrollArea()
        scroll.setWidgetResizable(True)
        scroll.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        scroll.setWidget(content)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(scroll)
        self.setMinimumWidth(360)
        _let_shrink(content)

    def _connect(self) -> None:
        self.browse.clicked.connect(self._browse)
        self.model_box.changed.connect(self._model_chosen)
        for box in (self.axes_box, self.spacing_edit, self.region_box, self.time_box, self.output_box, self.device_box):
            box.changed.connect(self._changed)
        self.preset_box.changed.connect(self._preset_chosen)
        for box in (self.folds_box, self.mirroring_box, self.step_box):
            box.changed.connect(self._quality_changed)
        self.checkpoint_box.changed.connect(self._checkpoint_chosen)
        self._later = QTimer(self)
        self._later.setSingleShot(True)
        self._later.setInterval(150)
        self._later.timeout.connect(self._update)
        self.panel.start = self.run
        self.panel.happened.connect(self._on_event)
        self.panel.finished.connect(self._on_finished)
        self.panel.cancelled.connect(self._on_cancelled)
        self.panel.failed.connect(self._on_failed)
        layers = self.viewer.layers.events
        for signal in (layers.inserted, layers.removed, layers.reordered):
            signal.connect(self._layers_changed)
        layers.removed.connect(self._layer_removed)
        self.viewer.dims.events.connect(self._view_changed)
        self.viewer.camera.events.connect(self._view_changed)

    # ------------------------------------------------------------------------------------------------ models

    def _fill_models(self, select: Path | None = None) -> None:
        paths = known_models(read_preferences().folders())
        choices: list[tuple[str, Any]] = [(f"{path.parent.name} / {path.name.split('__')[-1]}", path) for path in paths]
        choices.append((_SAMPLE, "sample"))
        self.model_box.choices = _distinct(choices)
        self.model_box.value = select if select is not None else choices[0][1]
        self._model_chosen()

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
            self._model = None
            self.about.setText(error.message)
            self._changed()
            return
        self._fill_models(model.folder)

    def _model_chosen(self) -> None:
        value = self.model_box.value
        self._model = None
        try:
            if value == "sample":
                self._model = load_model(_sample_folder())
            elif value is not None:
                self._model = load_model(value)
        except NnunetError as error:
            self.about.setText(error.message)
        self._fill_for_model()
        self._changed()

    def _fill_for_model(self) -> None:
        model = self._model
        if model is None:
            self._make_channel_boxes([])
            return
        names = model.dataset.channel_names
        classes = [name for value, name in sorted(model.dataset.labels.names.items()) if value != 0]
        listed = ", ".join(classes[:8]) + (f" and {len(classes) - 8} more" if len(classes) > 8 else "")
        dice = list(model.validation_dice.values())
        quality = f"<br>Validation Dice {sum(dice) / len(dice):.3f}" if dice else ""
        kind = f"{model.configuration.ndim}D, {len(names)} channel{'s' if len(names) > 1 else ''} ({', '.join(names)})"
        self.about.setText(f"Finds {listed}.<br>{kind}, at {_spacing_text(model)}{quality}")
        with self._quietly():
            self.checkpoint_box.choices = list(model.checkpoints) or ["checkpoint_final.pth"]
            self._fill_folds()
        self._make_channel_boxes(list(names))
        self._preset_chosen()

    def _fill_folds(self) -> None:
        if self._model is None:
            return
        folds = [str(fold) for fold in self._model.folds(self.checkpoint_box.value)]
        self.folds_box.choices = folds
        self.folds_box.value = folds

    def _checkpoint_chosen(self) -> None:
        if not self._filling:
            with self._quietly():
                self._fill_folds()
            self._changed()

    # ------------------------------------------------------------------------------------------------ layers

    def _make_channel_boxes(self, names: Sequence[str]) -> None:
        with self._quietly():
            self.channels.clear()
            self.channel_boxes = []
            for i, name in enumerate(names[:_MAX_CHANNELS]):
                label = "Image" if len(names) == 1 else f"{name or f'Channel {i}'}"
                box = ComboBox(label=label, choices=self._image_choices if i == 0 else self._other_choices)
                box.tooltip = (
                    "The layer with this channel." if i == 0 else "Its layer, or in the first one's channel axis."
                )
                self.channels.append(box)
                self.channel_boxes.append(box)
                box.changed.connect(self._layer_chosen)
            _let_shrink(self.channels.native)
            self._match_channels(names)
        self._layer_chosen()

    def _match_channels(self, names: Sequence[str]) -> None:
        """Choose layers by name where names match, the selected layer otherwise."""
        images = self._images()
        if not images or not self.channel_boxes:
            return
        active = self.viewer.layers.selection.active
        self.channel_boxes[0].value = active if isinstance(active, Image) else images[-1]
        if len(names) > 1:
            found = {i: layer for i, name in enumerate(names) for layer in images if _matches(name, layer.name)}
            if len(found) == len(names) and len(set(map(id, found.values()))) == len(names):
                for i, box in enumerate(self.channel_boxes):
                    box.value = found[i]

    def _images(self) -> list[Image]:
        return [layer for layer in self.viewer.layers if isinstance(layer, Image)]

    def _image_choices(self, _: Any = None) -> list[tuple[str, Image]]:
        return _distinct([(layer.name, layer) for layer in self._images()])

    def _other_choices(self, _: Any = None) -> list[tuple[str, Image | None]]:
        return [(_SAME_LAYER, None), *self._image_choices()]

    def _region_choices(self, _: Any = None) -> list[tuple[str, Any]]:
        shapes = [(f"Shapes: {layer.name}", layer) for layer in self.viewer.layers if isinstance(layer, Shapes)]
        return [(_WHOLE, _WHOLE), (_VISIBLE, _VISIBLE), *_distinct(shapes)]

    def _layers_changed(self, event: Any = None) -> None:
        with self._quietly():
            before = [box.value for box in self.channel_boxes]
            for box in (*self.channel_boxes, self.region_box):
                box.reset_choices()
            empty = not before or before[0] is None
            if empty and self._model is not None and self._running is None:
                self._match_channels(self._model.dataset.channel_names)
        inserted: Any = getattr(event, "value", None)
        if getattr(event, "type", "") == "inserted" and hasattr(inserted, "events"):
            inserted.events.name.connect(self._layers_changed)
            for signal in ("scale", "units", "data"):
                getattr(inserted.events, signal).connect(self._changed)
        self._layer_chosen()

    def _layer_removed(self, event: Any) -> None:
        if self._running is not None and event.value is self._running.labels:
            self.panel.cancel()

    def _layer_chosen(self) -> None:
        if self._filling:
            return
        readings = default_axes(self._model, self._chosen_layers())
        with self._quietly():
            previous = self.axes_box.value
            self.axes_box.choices = readings
            if readings:
                self.axes_box.value = previous if previous in readings else readings[0]
        self._changed()

    def _chosen_layers(self) -> tuple[Image | None, ...]:
        return tuple(box.value for box in self.channel_boxes)

    # ------------------------------------------------------------------------------------------------ settings

    def _preset_chosen(self) -> None:
        name = self.preset_box.value
        if self._filling or self._model is None or name == _CUSTOM:
            self._changed()
            return
        folds = self._model.folds(self.checkpoint_box.value)
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
        folds = tuple(int(fold) if fold.isdigit() else "all" for fold in self.folds_box.value)
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
            model=self._model,
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
        current = self._position(layer)[axes.index("T")]
        count = layer.data[0].shape[axes.index("T")] if layer.multiscale else layer.data.shape[axes.index("T")]
        now = min(max(round(current), 0), count - 1)
        if self.time_box.value == "Current time point":
            return (now,)
        return (now, *(t for t in range(count) if t != now))  # what the user looks at comes first

    def _position(self, layer: Image) -> list[float]:
        """Return the current slice in voxels of the layer."""
        point = list(self.viewer.dims.point)[-layer.ndim :]
        return [float(v) for v in layer.world_to_data(point)]

    def _focus(self, layer: Image, axes: str) -> tuple[float | None, ...]:
        """Return where to begin: the slice on the screen; along displayed axes nothing is preferred."""
        position = self._position(layer)
        offset = self.viewer.dims.ndim - layer.ndim
        shown = {axis - offset for axis in self.viewer.dims.displayed}
        found = {letter: None if i in shown else position[i] for i, letter in enumerate(axes)}
        return tuple(found[letter] for letter in "ZYX" if letter in found)

    # ------------------------------------------------------------------------------------------------ checking

    @contextlib.contextmanager
    def _quietly(self) -> Any:
        before, self._filling = self._filling, True
        try:
            yield
        finally:
            self._filling = before

    def _changed(self, _: Any = None) -> None:
        if not self._filling:
            self._later.start()

    def _view_changed(self, _: Any = None) -> None:
        if self.region_box.value == _VISIBLE and self.panel.state is State.IDLE:
            self._later.start()

    def _update(self) -> None:
        """Check the form; say what Run will do, or why it cannot."""
        if self.panel.state is not State.IDLE:
            return
        self._hint_spacing()
        self.time_box.visible = "T" in (self.axes_box.value or "")
        self._generation += 1
        try:
            self._request = resolve(self.choices())
        except NotReadyError as reason:
            self._request = None
            self.summary.setText(f"<b>Not ready.</b> {reason}")
            self.panel.set_ready(str(reason))
            return
        self.panel.set_ready(None)
        self.summary.setText(_describe(self._request) + "<br>Estimating time and memory…")
        self._estimate(self._request)

    def _hint_spacing(self) -> None:
        """Show the layer's own voxel size in the empty field."""
        layers, axes = self._chosen_layers(), self.axes_box.value or ""
        known = voxel_size_mm(layers[0])[0] if layers and layers[0] is not None and axes else None
        spatial = [s for s, letter in zip(known or (), axes, strict=False) if letter in "ZYX"]
        self.spacing_edit.native.setPlaceholderText(f"{_size_text(spacing=spatial)} (layer)" if spatial else "")

    def _estimate(self, request: Request) -> None:
        """Work out time and memory on a thread: that is where torch is loaded."""
        if self._estimator is not None:
            self._estimator.quit()
        worker = JobWorker(_estimate_job(request))
        generation = self._generation

        def show(found: Any) -> None:
            if generation == self._generation and self.panel.state is State.IDLE:
                self._show_estimate(request, found)

        def fail(error: Exception) -> None:
            if generation == self._generation and self.panel.state is State.IDLE:
                self.summary.setText(f"<b>Not ready.</b> {error}")
                self.panel.set_ready(str(error))

        worker.returned.connect(show)
        worker.errored.connect(fail)
        self._estimator = worker
        worker.start()

    def _show_estimate(self, request: Request, found: dict[str, Any]) -> None:
        own = found["own"]
        frames = len(request.frames)
        lines = [_describe(request)]
        network = _size_text(own.network_spacing[-request.model.configuration.ndim :])
        of = f" of {network}" if request.spacing_known else ""
        lines.append(f"The network sees {_times_text(own.network_shape)} voxels{of}, in {own.tiles} tiles")
        when = "" if own.seconds is None else f"About {plain_time(own.seconds * frames)}"
        when += "" if own.measured or own.seconds is None else " (a first guess)"
        lines.append(f"{when or 'Time unknown'} and {own.memory_bytes / 1e9:.1f} GB of memory, on {own.choice}")
        if not request.spacing_known:
            lines.append("No voxel size is known; pixels are taken as 1")
        self.summary.setText(".<br>".join(lines) + ".")
        self._label_presets(request, found, frames)

    def _label_presets(self, request: Request, found: dict[str, Any], frames: int) -> None:
        dice = request.model.preset_dice
        titles: list[tuple[str, str]] = []
        for name, title in _TITLES.items():
            seconds = found[name].seconds
            parts = [] if seconds is None else [plain_time(seconds * frames)]
            if name in dice:
                parts.append(f"Dice {dice[name]:.3f}")
            titles.append((f"{title} – {', '.join(parts)}" if parts else title, name))
        with self._quietly():
            value = self.preset_box.value
            self.preset_box.choices = [*titles, (_CUSTOM, _CUSTOM)]
            self.preset_box.value = value

    # ------------------------------------------------------------------------------------------------ running

    def run(self) -> None:
        """Start segmenting; what is open and chosen now is what is used."""
        self._update()
        request = self._request
        if request is None:
            return
        self._running = result = ResultLayers(request)
        self.table.setVisible(False)
        self.viewer.add_layer(result.labels)
        if request.model.folder != _sample_folder():
            with contextlib.suppress(NnunetError):
                remember_model(request.model.folder)
        focus = self._focus(request.source, request.axes)
        self.panel.run(_segment_job(request, result.targets(), focus))

    def _on_event(self, event: Event) -> None:
        if isinstance(event, Painted) and self._running is not None:
            now = time.monotonic()
            three = self.viewer.dims.ndisplay == 3
            if now - self._last_refresh > _REFRESH_SECONDS * (5 if three else 1):
                self._last_refresh = now
                self._running.labels.refresh()

    def _on_finished(self, predictions: list[Any]) -> None:
        result, self._running = self._running, None
        if result is None:
            return
        request = result.request
        self._add_back(result)
        result.labels.metadata["nnunet"] = {
            "partial": False,
            "spacing_mm": request.spacing if request.spacing_known else None,
            "region": request.region,
            **predictions[0].recipe,
        }
        result.labels.refresh()
        for layer in result.probability_layers():
            self.viewer.add_layer(layer)
        if request.output == "Probabilities":
            self.viewer.layers.remove(result.labels)
        scheme = request.model.dataset.labels
        voxel = request.spacing if request.spacing_known else None
        frames = [
            (frame.index, class_volumes(prediction.counts, scheme, voxel))
            for frame, prediction in zip(request.frames, predictions, strict=True)
        ]
        self.table.show_volumes(sorted(frames, key=lambda entry: entry[0] or 0))
        seconds = sum(prediction.seconds for prediction in predictions)
        self.panel.say(f"Done in {plain_time(seconds)} on {predictions[0].recipe['device']}.")
        self._changed()

    def _on_cancelled(self, fraction: float) -> None:
        result, self._running = self._running, None
        if result is None:
            return
        percent = round(100 * fraction)
        if result.labels in self.viewer.layers:
            result.labels.name = f"{result.name} (partial {percent} %)"
            result.labels.metadata["nnunet"] = {**result.labels.metadata["nnunet"], "percent": percent}
            result.labels.refresh()
        self.panel.say(f"Cancelled at {percent} %. What was finished is kept.")
        self._changed()

    def _on_failed(self, _: Exception) -> None:
        result, self._running = self._running, None
        if result is not None and result.labels in self.viewer.layers and not result.canvas.any():
            self.viewer.layers.remove(result.labels)
        message = self.panel.status.text()
        self._update()
        self.panel.say(message)

    def _add_back(self, result: ResultLayers) -> None:
        if result.labels not in self.viewer.layers:
            self.viewer.add_layer(result.labels)
            show_info("The result's layer had been removed; it was added again.")


def _estimate_job(request: Request) -> Any:
    def start() -> Job[dict[str, Any]]:
        from napari_nnunet.jobs.estimate import estimate_presets

        frame = request.frames[0].volume
        return estimate_presets(request.model, frame.shape, request.spacing, request.settings)

    return start


def _segment_job(request: Request, targets: list[tuple[Any, Any, Any]], focus: Any) -> Any:
    def start() -> Job[Any]:
        from napari_nnunet.jobs.predict import predict_series

        return predict_series(request.model, targets, request.settings, focus=focus, roi=request.region, preview=True)

    return start


def _let_shrink(content: QWidget) -> None:
    """Let combo boxes be narrower than their longest entry, so that the dock fits beside the canvas."""
    for box in content.findChildren(QComboBox):
        box.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        box.setMinimumContentsLength(6)


def _sample_folder() -> Path:
    from importlib.resources import files

    return Path(str(files("napari_nnunet.resources"))) / "sample_model" / "nnUNetTrainer__nnUNetPlans__3d_fullres"


def _matches(channel: str, layer: str) -> bool:
    """True where a layer's name contains the channel's as a word ("T1" does not match "T1c")."""
    words = "".join(c if c.isalnum() else " " for c in layer.casefold()).split()
    return channel.casefold() in words


def _distinct(choices: Sequence[tuple[str, Any]]) -> list[tuple[str, Any]]:
    """Number equal names, so that none hides another in a combo box."""
    seen: dict[str, int] = {}
    out = []
    for name, value in choices:
        seen[name] = seen.get(name, 0) + 1
        out.append((name if seen[name] == 1 else f"{name} ({seen[name]})", value))
    return out


def _size_text(spacing: Sequence[float]) -> str:
    """Return a voxel size in the unit people use at that scale."""
    if max(spacing) < 0.05:
        return " × ".join(f"{s * 1000:.3g}" for s in spacing) + " µm"
    return " × ".join(f"{s:.3g}" for s in spacing) + " mm"


def _spacing_text(model: TrainedModel) -> str:
    if model.plans.reader == "NaturalImage2DIO":
        return "the pictures' own pixels"
    return _size_text(model.configuration.spacing)


def _times_text(shape: Sequence[int]) -> str:
    return " × ".join(str(n) for n in shape)


def _describe(request: Request) -> str:
    frames = len(request.frames)
    volume = request.frames[0].volume
    where = "a region of " if request.region is not None else ""
    count = f"{frames} time points of " if frames > 1 else ""
    size = f" of {_size_text(request.spacing)}" if request.spacing_known else ""
    return f"<b>Will segment</b> {where}'{request.source.name}': {count}{_times_text(volume.shape)} voxels{size}"
