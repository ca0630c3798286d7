"""What the Compare dock compares: two Labels layers, or two folders of segmentations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from magicgui.widgets import CheckBox, ComboBox
from napari.layers import Labels
from napari.utils.notifications import show_info
from numpy.typing import NDArray
from qtpy.QtWidgets import QFormLayout, QVBoxLayout, QWidget

from napari_nnunet.formats.workspace import is_folder
from napari_nnunet.grid import Grid, onto
from napari_nnunet.schema.dataset import Region
from napari_nnunet.schema.geometry import Geometry
from napari_nnunet.schema.requests.choosing import CompareRequest
from napari_nnunet.widgets.files.overlay import require_over
from napari_nnunet.widgets.files.place import STORED, axes_of
from napari_nnunet.widgets.files.reader import label_layer
from napari_nnunet.widgets.frame.forms import DERIVED, FieldRows, LayerForm, add_row, distinct
from napari_nnunet.widgets.frame.layers import KIND, class_names_of, full_resolution, placement_of
from napari_nnunet.widgets.frame.panel import RunPanel, RunState
from napari_nnunet.widgets.frame.parts import Tabs
from napari_nnunet.widgets.frame.ready import NotReadyError
from napari_nnunet.widgets.frame.words import as_text
from napari_nnunet.widgets.pages.browser import HelpButton

if TYPE_CHECKING:
    from pathlib import Path

    import napari

_NAMED = 8  # classes that a sentence lists
_LOOKS = ("name", "colormap", "features")  # of a layer itself, not of its place


@dataclass(frozen=True, eq=False)
class TwoLayers:
    """Two Labels layers that lie over each other; ``series`` where their first axis is time."""

    first: Labels
    second: Labels
    series: bool = False


Compared: TypeAlias = TwoLayers | CompareRequest


class CompareForm(LayerForm):
    """Edits what is compared; emits ``changed``.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
        Whose layers are offered.
    """

    def __init__(self, viewer: napari.viewer.Viewer) -> None:
        super().__init__(viewer)
        self.first_box, self.second_box = (
            ComboBox(label=label, choices=self._label_choices, nullable=True, tooltip=f"A Labels layer: {what}.")
            for label, what in (("First", "a reference, or one reader"), ("Second", "what is compared"))
        )
        for box in (self.first_box, self.second_box):
            box.null_string = "(choose a layer)"
        folder = {"mode": "d", "nullable": True}
        self.folders = FieldRows(
            CompareRequest, {"first": folder, "second": folder, "dataset_json": {"filter": "dataset.json"}}
        )
        self.tabs = Tabs()
        self.tabs.addTab(self._layer_page(), "Layers")
        self.tabs.addTab(self._folder_page(), "Folders")
        self.tabs.fit()
        corner = HelpButton("ensemble.md")
        self.tabs.setCornerWidget(corner)
        QWidget.setTabOrder(self.tabs.tabBar(), corner)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(self.tabs)
        self.objects_box = CheckBox(
            text="Every value is an object",
            tooltip="Match objects, and say which were found, missed, split or merged, instead of comparing classes.",
        )
        self._told = False  # whether somebody said what the values are
        column.addWidget(self.objects_box.native)
        self.objects_box.changed.connect(self._objects_told)
        for box in (self.first_box, self.second_box):
            box.changed.connect(self._changed)
        self.tabs.currentChanged.connect(self._changed)
        self._follow_layers()
        self._layers_changed()

    def _layer_page(self) -> QWidget:
        page = QWidget()
        form = QFormLayout(page)
        for widget in (self.first_box, self.second_box):
            add_row(form, widget)
        return page

    def _folder_page(self) -> QWidget:
        page = QWidget()
        self.folders.add_to(QFormLayout(page), self._changed)
        return page

    def _changed(self, _: Any = None) -> None:
        if not self._filling:
            if not self._told and self.tabs.currentIndex() == 0:
                with self._quietly():
                    self.objects_box.value = any(map(_numbers_objects, (self.first_box.value, self.second_box.value)))
            self.changed.emit()

    def _objects_told(self, _: Any = None) -> None:
        if not self._filling:
            self._told = True
            self.changed.emit()

    def _labels(self) -> list[Labels]:
        return [layer for layer in self.viewer.layers if isinstance(layer, Labels) and DERIVED not in layer.metadata]

    def _label_choices(self, _: Any = None) -> list[tuple[str, Labels]]:
        return distinct([(layer.name, layer) for layer in self._labels()])

    def _layers_changed(self, event: Any = None) -> None:
        found = self._labels()
        with self._quietly():
            for box in (self.first_box, self.second_box):
                before = box.value
                box.reset_choices()
                box.value = before if before in found else None
            for box, other in ((self.first_box, self.second_box), (self.second_box, self.first_box)):
                if box.value is None:
                    box.value = next((layer for layer in found if layer is not other.value), None)
        if getattr(event, "type", "") == "inserted":
            self._watch(event.value)
        self._changed()

    def _watch(self, layer: Any) -> None:
        events = layer.events
        events.name.connect(self._layers_changed)
        for signal in (events.scale, events.translate, events.rotate, events.shear, events.affine, events.units):
            signal.connect(self._changed)
        if isinstance(layer, Labels):
            for signal in (events.data, events.features):
                signal.connect(self._changed)

    def exchange(self, old: Any, new: Any) -> None:
        """Choose another layer wherever one is chosen."""
        for box in (self.first_box, self.second_box):
            if box.value is old:
                box.value = new

    @property
    def objects(self) -> bool:
        """Whether every value is an object, and no class."""
        return bool(self.objects_box.value)

    def compared(self) -> Compared:
        """Return what is compared; raises NotReadyError with what is missing."""
        return self._two_layers() if self.tabs.currentIndex() == 0 else self._two_folders()

    def _two_folders(self) -> CompareRequest:
        chosen = self.folders.values()
        folders = [chosen["first"], chosen["second"]]
        if None in folders:
            raise NotReadyError("Choose two folders of segmentations.")
        gone = next((folder for folder in folders if not is_folder(folder)), None)
        if gone is not None:
            raise NotReadyError(f"The folder {gone} does not exist.")
        if folders[0] == folders[1]:
            raise NotReadyError("Choose two different folders.")
        return CompareRequest.of(**chosen)

    def _two_layers(self) -> TwoLayers:
        first, second = self.first_box.value, self.second_box.value
        if first is None or second is None:
            raise NotReadyError("Open two Labels layers to compare.")
        if first is second:
            raise NotReadyError("Choose two different layers.")
        axes = axes_of(first.ndim, placement_of(first))
        if first.ndim != second.ndim:
            raise NotReadyError(f"'{first.name}' has {first.ndim} axes, '{second.name}' has {second.ndim}.")
        times = [full_resolution(layer).shape[axes.index("T")] for layer in (first, second) if "T" in axes]
        if len(set(times)) > 1:
            raise NotReadyError(f"'{first.name}' has {times[0]} time points, '{second.name}' has {times[1]}.")
        require_over(first, second, axes)
        return TwoLayers(first, second, "T" in axes)


def _numbers_objects(layer: Labels | None) -> bool:
    """Whether a layer says that its values number objects."""
    return layer is not None and (KIND in layer.metadata or "kind" in layer.features)


def pair_of(first: Labels, second: Labels) -> str:
    """Return a word for what two layers differ by, the same whatever they hold and are called by now."""
    return repr(("differences", str(first.unique_id), str(second.unique_id)))


def names_of_both(first: Labels, second: Labels) -> dict[Region, str]:
    """Return what the values of two layers are called; by both names where these differ."""
    ours, theirs = class_names_of(first.features), class_names_of(second.features)
    return {
        value: f"{own} / {other}" if (own := ours.get(value, other)) != other else own
        for value in {**ours, **theirs}
        for other in [theirs.get(value, ours.get(value, ""))]
    }


def names_apart(first: Labels, second: Labels) -> str:
    """Return a sentence, without its full stop, where two layers give a value or a name another meaning; else nothing.

    A value that only one of them names means the same.
    """
    told = [class_names_of(layer.features) for layer in (first, second)]
    ours, theirs = ({value: name.strip().casefold() for value, name in own.items()} for own in told)
    wrong = [v for v, n in theirs.items() if ours.get(v, n) != n or (v not in ours and n in ours.values())]
    if not wrong:
        return ""
    values = {*wrong, *(value for value, name in ours.items() if name in [theirs[v] for v in wrong])}
    said = [", ".join([f"{name} = {v}" for v, name in own.items() if v in values][:_NAMED]) for own in told]
    return (
        f"'{first.name}' says {said[0]}, '{second.name}' says {said[1]}: the values do not mean the same classes, and "
        "values are compared"
    )


def is_idle(panel: RunPanel, case: str) -> bool:
    """Whether a case can be opened; says so where it cannot, for another one is being read."""
    if panel.state is RunState.IDLE:
        return True
    wait = "the panel is still busy. Wait for it, or press Cancel, and try again."
    show_info(as_text(f"'{case}' was not opened: {wait}"))
    return False


def layers_of_files(first: Path, second: Path) -> list[tuple[NDArray[Any], dict[str, Any]]]:
    """Return arrays and keywords of two Labels layers for two files of an image, both on the first one's voxels.

    Raises
    ------
    ImageError
        If a file cannot be read, or the second one has other voxels.
    """
    (one, looks), (other, own) = map(label_layer, (first, second))
    here, there = (Geometry.model_validate(keywords["metadata"][STORED]) for keywords in (looks, own))
    other = onto(other, there, Grid(one.shape, here), what=f"{first} and {second}")
    place = {key: value for key, value in looks.items() if key not in _LOOKS}
    return [(one, looks), (other, {**{key: own[key] for key in _LOOKS if key in own}, **place})]
