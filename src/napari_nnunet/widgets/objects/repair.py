"""Numbered objects of a Labels layer are corrected with one or two clicks each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Labels
from numpy.typing import NDArray
from qtpy.QtWidgets import QGridLayout, QGroupBox, QPushButton, QVBoxLayout

from napari_nnunet.engine.objects.repair import Correction, delete_object, join_objects, number_anew, split_object
from napari_nnunet.widgets.frame.layers import FOLLOWED, kinds_of_features, units_per_world
from napari_nnunet.widgets.frame.parts import Sentence, button
from napari_nnunet.widgets.objects.feature_table import columns_of_others, write_features

if TYPE_CHECKING:
    import napari

_TOOLS = {
    "join": ("Merge", "Click two objects: the second gets the number of the first."),
    "cut": ("Split", "Click an object twice, once in each part: it is cut where it is thinnest between them."),
    "out": ("Delete", "Click an object: it becomes background."),
}
_FIRST = {"join": "Click the first object.", "cut": "Click in the first part.", "out": "Click the object to delete."}
_TIME = ("t", "time", "frame", "frames")
_SLOP = 3.0  # pixels of the screen that a click may move


class RepairTools(QGroupBox):
    """Buttons that give the mouse another meaning until they are pressed again; Ctrl+Z takes a change back.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
        Whose selected Labels layer is corrected.
    layer : callable, optional
        The layer to correct; the selected one by default.
    time : callable, optional
        Which axis of a layer is time, None without one; told by the names of its axes by default.
    """

    def __init__(
        self,
        viewer: napari.viewer.Viewer,
        layer: Callable[[], Labels | None] | None = None,
        time: Callable[[Labels], int | None] | None = None,
    ) -> None:
        super().__init__("Correct objects")
        self.viewer = viewer
        self._layer = layer or self._selected
        self._time = time or time_axis
        self._tool = ""
        self._first: tuple[int, ...] | None = None
        self.tools: dict[str, QPushButton] = {}
        #: Called with objects that a cut made, the one that each was a part of, and the time point by its axis.
        self.divided: Callable[[Mapping[int, int], Mapping[int, int]], object] = lambda new, now: None
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
            part, at = self._part(layer, place)
            where = " at this time point" if at else ""
            self._apply(layer, _within(delete_object(part, number), at), f"Deleted object {number}{where}.")
        elif self._first is None:
            self._first = place
            what = "Click the object to merge with" if self._tool == "join" else "Click in the other part of"
            self.note.setText(f"{what} object {number}.")
        else:
            first, self._first = self._first, None
            self._second(layer, first, place, int(layer.data[first]), number)

    def _second(self, layer: Labels, first: tuple[int, ...], second: tuple[int, ...], before: int, number: int) -> None:
        part, own = self._part(layer, second)
        if any(first[axis] != place for axis, place in own.items()):
            self.note.setText(f"Both clicks must lie in the same time point. {_FIRST[self._tool]}")
            return
        if self._tool == "join":
            if number == before:
                self.note.setText(f"Both are object {number}. {_FIRST['join']}")
            else:
                where = " at this time point" if own else " now"
                change = _within(join_objects(part, before, number), own)
                self._apply(layer, change, f"Object {number} is part of object {before}{where}.")
            return
        if number != before or first == second:
            self.note.setText(f"Click twice within one object, at two places. {_FIRST['cut']}")
            return
        time = self._time(layer)
        now = {} if time is None else {time: second[time]}
        if time is not None and first[time] != second[time]:
            self.note.setText(f"Both clicks must lie in the same time point. {_FIRST['cut']}")
            return
        data = np.asarray(layer.data)
        space = [axis for axis in range(data.ndim) if axis != time]
        free = int(data.max()) + 1
        one, other = ([place[axis] for axis in space] for place in (first, second))
        found = split_object(_at(data, now), one, other, [layer.scale[axis] for axis in space], free)
        self.divided(found.new, now)
        self._apply(layer, _within(found, now), f"Split object {before}; its other part is {free}.")

    def _part(self, layer: Labels, place: tuple[int, ...]) -> tuple[NDArray[Any], dict[int, int]]:
        """Return the objects whose numbers mean the same, and at which time they are.

        Before the objects of a series were followed, every time point has numbers of its own.
        """
        time = self._time(layer)
        own = {} if time is None or FOLLOWED in layer.metadata else {time: place[time]}
        return _at(np.asarray(layer.data), own), own

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
        many = f"{len(numbers)} objects have the numbers 1 to {len(numbers)} now."
        text = many if len(numbers) > 1 else "The object has the number 1 now."
        known = bool(kinds or columns_of_others(layer))
        self._apply(layer, change, f"{text} Ctrl+Z does not take that back." if known else text)
        now = {number: i for i, number in enumerate(numbers, start=1)}
        told = {"kind": ["", *(kinds.get(number, "") for number in numbers)]} if kinds else {}
        if known:  # old numbers would come back, but not what the table says of them
            layer._reset_history()  # noqa: SLF001
            write_features(layer, {"index": [0, *now.values()], **told}, renamed=now)

    def _apply(self, layer: Labels, change: Correction, text: str) -> None:
        """Write a change into the layer so that it can be undone, and tell who follows the layer."""
        if np.max(change.numbers, initial=0) > np.iinfo(layer.data.dtype).max:
            layer.data = np.asarray(layer.data).astype(np.uint32)
        layer.data_setitem(change.places, change.numbers)
        kinds = kinds_of_features(layer.features)
        for number, before in change.new.items():
            if before in kinds:
                kinds[number] = kinds[before]
                write_features(layer, {"index": [0, *kinds], "kind": ["", *kinds.values()]})
        layer.events.paint(value=[])
        self.note.setText(f"{text} {_FIRST.get(self._tool, '')}".strip())


def time_axis(layer: Labels) -> int | None:
    """Return which axis of a layer is time, by the names of its axes and their number; None where none is."""
    names = [str(name).lower() in _TIME for name in layer.axis_labels]
    return names.index(True) if any(names) else 0 if layer.ndim > 3 else None


def _at(data: NDArray[Any], own: Mapping[int, int]) -> NDArray[Any]:
    """Return a part of an array: at one place along some of its axes."""
    part: NDArray[Any] = data[tuple(own.get(axis, slice(None)) for axis in range(data.ndim))]
    return part


def _within(change: Correction, own: Mapping[int, int]) -> Correction:
    """Return a change of a part as one of the whole array (see :func:`_at`)."""
    places = list(change.places)
    for axis, place in sorted(own.items()):
        places.insert(axis, np.full(len(change.places[0]), place))
    return Correction(tuple(places), change.numbers, change.new)
