"""The values of a painted layer, how often each occurs, and the class each stands for."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from napari.layers import Labels
from numpy.typing import NDArray
from qtpy.QtCore import QSignalBlocker, Qt
from qtpy.QtGui import QColor
from qtpy.QtWidgets import QHeaderView, QInputDialog, QTableWidget, QTableWidgetItem, QWidget

from napari_nnunet.errors import DatasetError, counted, some
from napari_nnunet.events import Job, Progress
from napari_nnunet.formats.dataset.relabel import remap
from napari_nnunet.jobs.dataset.cases import NewCase, unlooked_in
from napari_nnunet.schema.dataset import BACKGROUND, IGNORE, DatasetInfo
from napari_nnunet.widgets.dataset.case_request import MOST_CLASSES, CaseChoices, PaintedClass, Replaced
from napari_nnunet.widgets.frame.layers import ORIGIN, SPARSE, VALUES
from napari_nnunet.widgets.frame.words import as_text, failure_text
from napari_nnunet.widgets.frame.worker import Latest

_MANY = 5  # values without a name from which on they may be numbers of objects
_QUICK_VOXELS = 2e6  # counted at once; more of them on a thread, so that painting is not held up
_ROWS = 6  # seen without scrolling


@dataclass
class _Names:
    """What the values of a layer are called."""

    guessed: dict[int, str] = field(default_factory=dict)  # the first names they were given
    typed: dict[int, str] = field(default_factory=dict)  # and those that somebody typed, in other slices too
    one: str = ""  # the class that all values have


class ClassTable(QTableWidget):
    """Counts the values of a layer and lets each be named; emits ``itemChanged`` as every table."""

    def __init__(self) -> None:
        super().__init__(0, 3)
        self._values: tuple[int, ...] = ()
        self._more: tuple[int, ...] = ()  # values that have no line any more
        self._layers: WeakKeyDictionary[Labels, _Names] = WeakKeyDictionary()
        self._names = _Names()  # of the layer whose values are listed
        self._lent = _Names()  # what was typed for other layers, for values of which a layer says nothing
        self._counter = Latest(self)
        self.setHorizontalHeaderLabels(["Value", "Voxels", "Class"])
        self.setAccessibleName("Classes of the painted values")
        self.setToolTip("Double-click a class to name it.")
        self.setTabKeyNavigation(False)
        self.verticalHeader().setVisible(False)
        header = self.horizontalHeader()
        header.setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        header.setSectionResizeMode(2, QHeaderView.ResizeMode.Stretch)

    def clear_values(self) -> None:
        """Show nothing, and forget the names that were typed."""
        self._layers.clear()
        self._names, self._lent = _Names(), _Names()
        self._show_nothing()

    def _show_nothing(self) -> None:
        self._values = self._more = ()
        self.setRowCount(0)
        self.setVisible(False)

    def turn_to(self, labels: Labels) -> None:
        """Show nothing of another layer than before until it is counted: the names of its values are its own."""
        names = self._layers.setdefault(labels, _Names())
        if names is not self._names:
            self._keep_typed()
            self._lent.typed |= self._names.typed
            self._lent.one = self._names.one or self._lent.one
            self._names = names
            self._show_nothing()

    def _keep_typed(self) -> dict[int, str]:
        """Remember what was typed; returns the names of all values that are listed."""
        names, painted = self._names, self.painted()
        listed = {entry.value: entry.name for entry in painted}
        for value, name in listed.items():
            lent = {self._lent.typed.get(value, name), self._lent.one or name}
            if name != names.guessed.get(value, name) or (value in names.typed and lent != {name}):
                names.typed[value] = name
            else:  # a name that was put back is no longer typed, unless another would be lent in its place
                names.typed.pop(value, None)
        known = {name for value, name in listed.items() if value}
        names.one = _shared(painted) or (names.one if known <= {names.one} else "")
        return listed

    def painted(self) -> tuple[PaintedClass, ...]:
        """Return what the values of the layer mean."""
        items = [self.item(row, 2) for row in range(len(self._values))]
        listed = tuple(
            PaintedClass(value, "" if item is None else item.text().strip())
            for value, item in zip(self._values, items, strict=True)
        )
        return listed + tuple(PaintedClass(value, _shared(listed)) for value in self._more)

    @property
    def many(self) -> bool:
        """Whether the values look like numbers of objects: there are many, and nobody named them."""
        painted = self.painted()
        return not _shared(painted) and (
            bool(self._more) or sum(entry.name == f"class_{entry.value}" for entry in painted) >= _MANY
        )

    def name_all(self, name: str) -> None:
        """Make all values one class, but for 0; values that are painted later belong to it too."""
        with QSignalBlocker(self):
            for row, value in enumerate(self._values):
                if value:
                    self.item(row, 2).setText(name)
        self.itemChanged.emit(self.item(0, 2))

    def count(self, part: Any, shown: Callable[[list[int], list[int]], object]) -> None:
        """Count the values of an array and hand them on; of a large one on a thread, unless another is counted then."""
        self._counter.stop()
        if math.prod(part.shape) <= _QUICK_VOXELS:
            shown(*count_values(part))
        else:
            self._counter.start(_count_job(part), returned=lambda found: shown(*found), errored=self._not_counted)

    def _not_counted(self, error: BaseException) -> None:
        self.clear_values()
        self.setToolTip(as_text(failure_text(error)))

    def show_values(
        self, values: Sequence[int], counts: Sequence[int], labels: Labels, info: DatasetInfo | None, *, sparse: bool
    ) -> None:
        """List values; names that were typed stay, but for the fixed ones of 0."""
        self.turn_to(labels)
        listed, own = self._keep_typed(), _own_names(labels)
        lent = {value: name for value, name in self._lent.typed.items() if value not in own}
        typed = {**lent, **self._names.typed, **listed}
        self._values, self._more = tuple(values[:MOST_CLASSES]), tuple(values[MOST_CLASSES:])
        self.setRowCount(len(self._values))
        guesses = default_names(self._values, labels, info, sparse=sparse)
        for row, (guess, count) in enumerate(zip(guesses, counts, strict=False)):
            shared = self._names.one or ("" if guess.value in own else self._lent.one)
            before = typed.get(guess.value, shared if guess.value else None)
            name = before if before and not (guess.value == 0 and before in (BACKGROUND, IGNORE)) else guess.name
            if name != self._names.guessed.setdefault(guess.value, guess.name):
                self._names.typed.setdefault(guess.value, name)
            items = [QTableWidgetItem(str(guess.value)), QTableWidgetItem(f"{count:,}"), QTableWidgetItem(name)]
            if guess.value:
                colour = np.ravel(labels.colormap.map(guess.value))  # as on the canvas
                items[0].setData(Qt.ItemDataRole.DecorationRole, QColor.fromRgbF(*colour[:3].tolist()))
            for item in items[: 3 if guess.value == 0 else 2]:
                item.setFlags(item.flags() & ~Qt.ItemFlag.ItemIsEditable)
            for column, item in enumerate(items):
                self.setItem(row, column, item)
        heights = [self.rowHeight(row) for row in range(min(len(self._values), _ROWS))]
        self.setVisible(bool(heights))
        self.setFixedHeight(self.horizontalHeader().sizeHint().height() + sum(heights) + 6)


def _shared(painted: Sequence[PaintedClass]) -> str:
    """Return the class that many values have in common; empty where there is none."""
    names = [entry.name for entry in painted if entry.value]
    return names[0] if len(names) >= _MANY and len(set(names)) == 1 else ""


def count_values(part: Any) -> tuple[list[int], list[int]]:
    """Return the values of an array, ascending, and how often each occurs."""
    values, counts = np.unique(np.asarray(part), return_counts=True)
    return values.tolist(), counts.tolist()


def _count_job(part: Any) -> Job[tuple[list[int], list[int]]]:
    """Count slice by slice, so that it can be given up when the layer is painted on."""
    found: dict[int, int] = {}
    for i, plane in enumerate(part):
        for value, count in zip(*count_values(plane), strict=True):
            found[value] = found.get(value, 0) + count
        yield Progress(done=i + 1, total=len(part))
    return sorted(found), [found[value] for value in sorted(found)]


def _own_names(labels: Labels) -> dict[int, str]:
    """Return the classes that a layer itself knows."""
    features = labels.features
    if not {"index", "name"} <= set(features.columns):
        return {}
    return {int(i): str(name) for i, name in zip(features["index"], features["name"], strict=True)}


def default_names(
    values: Sequence[int], labels: Labels, info: DatasetInfo | None, *, sparse: bool
) -> list[PaintedClass]:
    """Return a first guess of what painted values mean.

    A class name the layer knows (from a file or from the Segment dock) comes first, then the dataset's class of that
    value, then "class_1", ...
    """
    own = _own_names(labels)
    known = {value: name for name, value in info.labels.labels.items() if isinstance(value, int)} if info else {}
    classes = [name for value, name in known.items() if value and name != IGNORE]
    strange = [value for value in values if value and value not in known and value not in own]
    if len(classes) == 1 and strange and set(values) == {0, *strange[:1]}:
        known[strange[0]] = classes[0]  # such as 255 for the one class there is
    out = []
    for value in values:
        name = own.get(value) or known.get(value) or f"class_{value}"
        if value == 0:
            name = IGNORE if sparse else BACKGROUND
        elif sparse and name == IGNORE:
            name = BACKGROUND
        out.append(PaintedClass(int(value), name))
    return out


def swap_ignore(labels: NDArray[Any], ignore: int) -> NDArray[Any]:
    """Exchange 0 and the ignore label: sparse labels as they are painted for labels as they are stored, and back."""
    out = labels.copy()
    out[labels == 0], out[labels == ignore] = ignore, 0
    return out


def as_painted(labels: NDArray[Any], names: Mapping[int, str]) -> tuple[NDArray[Any], dict[int, str]] | None:
    """Return stored labels as somebody painted them who left most voxels out, and what the values mean then.

    Returns
    -------
    tuple or None
        None where the labels are not sparse: less is ignored than is background.
    """
    ignore = next((value for value, name in names.items() if name == IGNORE), None)
    if ignore is None or np.count_nonzero(labels == ignore) <= np.count_nonzero(labels == 0):
        return None
    return swap_ignore(labels, ignore), {**names, 0: IGNORE, ignore: BACKGROUND}


def remember_values(labels: Labels, case: NewCase) -> None:
    """Keep in a layer which values of the dataset its own became when it was saved as a case."""
    labels.metadata[VALUES] = {int(painted): int(value) for painted, value in case.mapping.items()}
    if 0 in case.mapping and case.kinds is None:
        labels.metadata[SPARSE] = case.mapping[0] == case.classes.get(IGNORE)


def as_stored(labels: Labels, info: DatasetInfo) -> NDArray[Any]:
    """Return a layer's labels, as they are shown, with the values of their dataset.

    Raises
    ------
    DatasetError
        If there are values that came after the layer was saved with other values, so that nobody said what they are,
        or if 0 is no annotation and the dataset has no value for that.
    """
    data, ignore = np.array(labels.data), info.labels.ignore_label
    if labels.metadata.get(SPARSE) and ignore is None and not data.all():
        raise DatasetError(
            f"Unlabelled voxels of '{labels.name}' are not annotated, as was said in the Training cases dock, and the "
            "dataset has no class 'ignore' for them. Save it as a case there, which adds that class, or say there that "
            "they are background."
        )
    known: Mapping[int, int] = labels.metadata.get(VALUES, {})
    swapped = {0: ignore, ignore: 0} if labels.metadata.get(SPARSE) and ignore is not None else {}
    renumbered = any(swapped.get(painted, painted) != value for painted, value in known.items())
    strange = sorted(set(np.unique(data).tolist()) - set(known) - {0}) if renumbered else []
    if strange:
        raise DatasetError(
            f"'{labels.name}' holds {some(strange)}, to which no class was given when it was saved. "
            "Save it in the Training cases dock, which asks for the class."
        )
    mapping = {**swapped, **known}
    return remap(data, mapping) if mapping else data


def is_sparse(labels: Labels, info: DatasetInfo | None) -> bool:
    """Whether 0 in a layer means "nobody looked here": what the layer says, else of what was painted, the dataset."""
    said = labels.metadata.get(SPARSE)
    if said is not None:
        return bool(said)
    painted = not {ORIGIN, "nnunet"} & set(labels.metadata)  # neither a case nor a result
    return painted and info is not None and IGNORE in info.labels.labels


def set_sparse(labels: Labels, sparse: bool) -> None:
    """Say in a layer whether its 0 means "nobody looked here"; what it was saved as before counts no longer."""
    labels.metadata[SPARSE] = sparse
    if VALUES in labels.metadata:
        labels.metadata[VALUES] = {old: value for old, value in labels.metadata[VALUES].items() if old}


def asked_class(parent: QWidget, info: DatasetInfo | None) -> str:
    """Ask for the class of all objects; empty if nobody wants one."""
    known = [] if info is None else [name for name, value in info.labels.labels.items() if value and name != IGNORE]
    title, text = "One class for all", "Class of all values but 0:"
    name, yes = QInputDialog.getItem(parent, title, text, known or ["object"])
    return name.strip() if yes else ""


def asked_kind(parent: QWidget) -> str:
    """Ask what the objects are that labels number; empty if nobody says."""
    text = "Every value is an object of its own. What are they?"
    name, yes = QInputDialog.getText(parent, "Numbered objects", text)
    return name.strip() if yes else ""


def new_classes(case: NewCase, choices: CaseChoices, replaced: Replaced) -> str:
    """Return what is to be asked of classes that the dataset's other cases do not know; empty where there are none."""
    known: Mapping[str, Any] = choices.info.labels.labels if choices.info is not None else case.classes
    added = [name for name in case.classes if name not in (*known, IGNORE)]  # none of a case of objects
    others = 0 if choices.info is None else (choices.info.num_training or 0) - (replaced != "nothing")
    if not added or others < 1:
        return ""
    return (
        f"'{added[0]}' is a new class, and nothing is labelled '{added[0]}' in the {counted(others, 'other case')}. "
        "Is there none, or did nobody look for it? What nobody looked for does not count as background in training."
    )


def unlooked_classes(case: NewCase, choices: CaseChoices, replaced: Replaced) -> str:
    """Return what is to be asked where another image takes the place of a partly annotated case, or nothing."""
    unknown = [] if choices.info is None or replaced != "another" else unlooked_in(case, choices.info)
    if not unknown:
        return ""
    names = " and ".join(f"'{name}'" for name in unknown)
    return (
        f"Nobody looked for {names} in the case '{case.name}' that is replaced, and nothing is labelled so in the new "
        "one. Is there none, or did nobody look for it here either? What nobody looked for does not count as "
        "background in training."
    )
