"""Numbered objects of a Labels layer are corrected with one or two clicks each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Labels
from qtpy.QtWidgets import QGridLayout, QGroupBox, QPushButton, QVBoxLayout

from napari_nnunet.engine.objects.repair import Correction, delete_object, join_objects, number_anew, split_object
from napari_nnunet.widgets.frame.layers import kinds_of_features, units_per_world
from napari_nnunet.widgets.frame.parts import Sentence, button

if TYPE_CHECKING:
    import napari

_TOOLS = {
    "join": ("Merge", "Click two objects: the second gets the number of the first."),
    "cut": ("Split", "Click an object twice, once in each part: it is cut where it is thinnest between them."),
    "out": ("Delete", "Click an object: it becomes background."),
}
_FIRST = {"join": "Click the first object.", "cut": "Click in the first part.", "out": "Click the object to delete."}
_SLOP = 3.0  # pixels of the screen that a click may move


class RepairTools(QGroupBox):
    """Buttons that give the mouse another meaning until they are pressed again; Ctrl+Z takes a change back.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
        Whose selected Labels layer is corrected.
    layer : callable, optional
        The layer to correct; the selected one by default.
    """

    def __init__(self, viewer: napari.viewer.Viewer, layer: Callable[[], Labels | None] | None = None) -> None:
        super().__init__("Correct objects")
        self.viewer = viewer
        self._layer = layer or self._selected
        self._tool = ""
        self._first: tuple[int, ...] | None = None
        self.tools: dict[str, QPushButton] = {}
        self.changed: Callable[[Labels], object] = lambda layer: None
        grid = QGridLayout()
        for i, (name, (text, tip)) in enumerate(_TOOLS.items()):
            self.tools[name] = button(text, tip)
            self.tools[name].setCheckable(True)
            self.tools[name].clicked.connect(lambda on, name=name: self.use(name if on else ""))
            grid.addWidget(self.tools[name], 0, i)
        self.renumber = button("Number 1, 2, 3…", "Close the gaps between the numbers.")
        grid.addWidget(self.renumber, 1, 0, 1, len(_TOOLS))
        self.note = Sentence()
        column = QVBoxLayout(self)
        column.addLayout(grid)
        column.addWidget(self.note)
        self.renumber.clicked.connect(self._number_anew)

    def _selected(self) -> Labels | None:
        active = self.viewer.layers.selection.active
        return active if isinstance(active, Labels) else None

    def use(self, tool: str) -> None:
        """Let clicks do what a tool does; what they always do with an empty name."""
        callbacks = self.viewer.mouse_drag_callbacks
        if self._clicked in callbacks:
            callbacks.remove(self._clicked)
        self._tool, self._first = tool, None
        for name, own in self.tools.items():
            own.setChecked(name == tool)
        self.note.setText(_FIRST.get(tool, ""))
        if tool:
            layer = self._layer()
            if layer is not None:
                layer.mode = "pan_zoom"
            callbacks.append(self._clicked)

    def hideEvent(self, event: Any) -> None:
        """Give the mouse its meaning back when the tools are out of sight."""
        self.use("")
        super().hideEvent(event)

    def _clicked(self, viewer: Any, event: Any) -> Iterator[None]:
        """Take a click, not a drag, for a place."""
        begun = np.asarray(event.pos, dtype=float)
        yield
        while event.type == "mouse_move":
            yield
        if np.abs(np.asarray(event.pos, dtype=float) - begun).max() > _SLOP:
            return
        layer = self._layer()
        if layer is None:
            self.note.setText("Select the Labels layer with the objects first.")
        elif viewer.dims.ndisplay == 3:
            self.note.setText("Switch to the 2-D view to correct objects.")
        else:
            self.click(layer, tuple(event.position))

    def click(self, layer: Labels, world: tuple[float, ...]) -> None:
        """Do what the tool does at a place of the world."""
        own = np.asarray(world[-layer.ndim :]) * units_per_world(layer, self.viewer.dims)
        place = tuple(int(n) for n in np.rint(layer.world_to_data(own)))
        inside = all(0 <= p < n for p, n in zip(place, layer.data.shape, strict=True))
        number = int(layer.data[place]) if inside else 0
        if number == 0:
            self.note.setText(f"There is no object. {_FIRST[self._tool]}")
        elif self._tool == "out":
            self._apply(layer, delete_object(np.asarray(layer.data), number), f"Deleted object {number}.")
        elif self._first is None:
            self._first = place
            what = "Click the object to merge with" if self._tool == "join" else "Click in the other part of"
            self.note.setText(f"{what} object {number}.")
        else:
            first, self._first = self._first, None
            self._second(layer, first, place, int(layer.data[first]), number)

    def _second(self, layer: Labels, first: tuple[int, ...], second: tuple[int, ...], before: int, number: int) -> None:
        data = np.asarray(layer.data)
        if self._tool == "join":
            if number == before:
                self.note.setText(f"Both are object {number}. {_FIRST['join']}")
            else:
                self._apply(
                    layer, join_objects(data, before, number), f"Object {number} is part of object {before} now."
                )
            return
        if number != before or first == second:
            self.note.setText(f"Click twice within one object, at two places. {_FIRST['cut']}")
            return
        keep = data.ndim if data.ndim <= 3 and not _is_series(layer) else data.ndim - 1
        lead = first[: data.ndim - keep]
        if lead != second[: data.ndim - keep]:
            self.note.setText(f"Both clicks must lie in the same time point. {_FIRST['cut']}")
            return
        free = int(data.max()) + 1
        own = split_object(data[lead], first[len(lead) :], second[len(lead) :], layer.scale[-keep:], free)
        places = (*(np.full(len(own.places[0]), p) for p in lead), *own.places)
        self._apply(
            layer, Correction(places, own.numbers, own.new), f"Split object {before}; its other part is {free}."
        )

    def _number_anew(self) -> None:
        layer = self._layer()
        if layer is None:
            self.note.setText("Select the Labels layer with the objects first.")
            return
        change = number_anew(np.asarray(layer.data))
        if not len(change.places[0]):
            self.note.setText("The numbers have no gaps.")
            return
        kinds = kinds_of_features(layer.features)
        numbers = [int(n) for n in np.unique(layer.data) if n]
        self._apply(layer, change, f"{len(numbers)} objects have the numbers 1 to {len(numbers)} now.")
        if kinds:
            told = [kinds.get(number, "") for number in numbers]
            layer.features = {"index": [0, *range(1, len(numbers) + 1)], "kind": ["", *told]}

    def _apply(self, layer: Labels, change: Correction, text: str) -> None:
        """Write a change into the layer so that it can be undone, and tell who follows the layer."""
        if np.max(change.numbers, initial=0) > np.iinfo(layer.data.dtype).max:
            layer.data = np.asarray(layer.data).astype(np.uint32)
        layer.data_setitem(change.places, change.numbers)
        kinds = kinds_of_features(layer.features)
        for number, before in change.new.items():
            if before in kinds:
                kinds[number] = kinds[before]
                layer.features = {"index": [0, *kinds], "kind": ["", *kinds.values()]}
        layer.events.paint(value=[])
        self.note.setText(f"{text} {_FIRST.get(self._tool, '')}".strip())
        self.changed(layer)


def _is_series(layer: Labels) -> bool:
    """Whether the first axis of a layer is time."""
    return layer.ndim > 3 or (layer.ndim == 3 and str(layer.axis_labels[0]).lower() in ("t", "time"))
