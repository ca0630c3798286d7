"""What can be done with a result: postprocess it, to and fro, and say how it was made."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import ref

import numpy as np
from napari.layers import Labels
from napari.utils.notifications import show_info
from numpy.typing import NDArray
from qtpy.QtCore import QSignalBlocker, Signal
from qtpy.QtWidgets import QApplication, QCheckBox, QGridLayout, QGroupBox, QMenu, QPushButton, QVBoxLayout

from napari_nnunet.engine.choosing.components import Removed, take_out
from napari_nnunet.events import Job, Progress, Stage
from napari_nnunet.formats.results.recipe import as_command, as_methods, as_python
from napari_nnunet.schema.cleaning import Cleaning, Target
from napari_nnunet.schema.dataset import LabelScheme
from napari_nnunet.volume import digest_of
from napari_nnunet.widgets.frame.parts import Sentence
from napari_nnunet.widgets.frame.words import failure_text
from napari_nnunet.widgets.frame.worker import follow
from napari_nnunet.widgets.prediction.result import left_in

Frames = Callable[[NDArray[Any]], Sequence[NDArray[Any]]]
_COLUMNS = 2
_OTHER_DATA = "The layer now holds other data; nothing was taken out or put back."
_STYLES: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "command line": as_command,
    "Python": as_python,
    "methods paragraph": as_methods,
}


@dataclass(frozen=True, eq=False)
class Postprocessed:
    """What postprocessing changes in a layer; it is written by the window, in which people paint.

    Parameters
    ----------
    layer : Labels
        The result.
    labels : ndarray
        The array it showed.
    where : tuple of ndarray
        The voxels that change.
    before, after : ndarray
        Their values.
    digest : int or None
        Of all voxels afterwards; None where somebody had painted: then it is not what the program left.
    removed : list of (int, Removed)
        What was taken out of which frame.
    frames : callable
        Returns the frames of an array like the layer's.
    """

    layer: Labels
    labels: NDArray[Any]
    where: tuple[NDArray[np.intp], ...]
    before: NDArray[Any]
    after: NDArray[Any]
    digest: int | None
    removed: list[tuple[int, Removed]]
    frames: Frames

    def write(self) -> bool:
        """Change the layer, but for what somebody painted since; return whether it still shows its array."""
        if self.layer.data is not self.labels:
            return False
        same = self.labels[self.where] == self.before
        self.labels[tuple(axis[same] for axis in self.where)] = self.after[same]
        left = left_in(self.layer)
        if left is not None and self.digest is not None:
            left.digest = self.digest if same.all() else None  # who erased what was taken out meanwhile did it, too
        self._leave_to_the_hand(~same)
        self.layer.refresh()
        return True

    def _leave_to_the_hand(self, painted: NDArray[np.bool_]) -> None:
        """Forget to put back what somebody painted over, or erased, since."""
        if not painted.any():
            return
        theirs = np.zeros(self.labels.shape, bool)
        theirs[tuple(axis[painted] for axis in self.where)] = True
        views = self.frames(theirs)
        for place, (i, removed) in enumerate(self.removed):
            own = ~views[i][removed.where]
            self.removed[place] = i, Removed(tuple(axis[own] for axis in removed.where), removed.values[own])


class RecipeButton(QPushButton):
    """Copies how results were made, in the style that is chosen from its menu.

    Parameters
    ----------
    recipes : callable
        Returns the recipes as they are now, by the names of their images; those that are alike are said once.
    """

    def __init__(self, recipes: Callable[[], Mapping[str, Mapping[str, Any]]]) -> None:
        super().__init__("Copy recipe")
        self._recipes = recipes
        self.folders: dict[str, str] = {}  # of the images and the results, where the command can name them
        self.setAccessibleName("Copy recipe")
        self.setToolTip("How this result was made, to repeat it or to report it.")
        menu = QMenu(self)
        for name in _STYLES:
            action = menu.addAction(f"as {name}")
            action.triggered.connect(lambda _=False, name=name: self._copy(name))
        self.setMenu(menu)

    def texts(self) -> dict[str, str]:
        """Return the recipe in every style."""
        return {name: self._text(style) for name, style in _STYLES.items()}

    def _text(self, style: Callable[[Mapping[str, Any]], str]) -> str:
        of: dict[str, list[str]] = {}
        for name, recipe in self._recipes().items():
            text = as_command(recipe, **self.folders) if style is as_command else style(recipe)
            of.setdefault(text, []).append(name)
        if len(of) == 1:
            return next(iter(of))
        return "\n".join(f"# {', '.join(names)}\n{text}" for text, names in of.items())

    def _copy(self, name: str) -> None:
        clipboard = QApplication.clipboard()
        if clipboard is not None:
            clipboard.setText(self.texts()[name])
            show_info(f"Copied as {name}.")


class AfterResult(QGroupBox):
    """Postprocessing that can be switched on and off, and the recipe of a result.

    Emits ``changed`` when labels were taken out or put back, or nothing came of it after all.
    """

    changed = Signal()

    def __init__(self) -> None:
        super().__init__("Result")
        self._layer: Labels | None = None
        self._frames: Frames = lambda labels: [labels]
        self._shape: tuple[int, ...] = ()
        self._removed: list[tuple[int, Removed]] = []
        self._array: Callable[[], Any] = lambda: None  # from which that was taken
        self._applied_targets: list[Target] = []
        self._recipe: Mapping[str, Any] = {}
        self._targets: list[tuple[QCheckBox, Target, str]] = []
        self.busy = False
        self.corrected: Callable[[], bool] = lambda: False
        self.keep = Sentence("Keep only the largest part of")
        self.keep.setToolTip("Smaller parts become background. Switch it off to restore them.")
        self.hint = Sentence()
        self._grid = QGridLayout()
        self.copy = RecipeButton(lambda: {"": self.recipe()})
        column = QVBoxLayout(self)
        column.addWidget(self.keep)
        column.addLayout(self._grid)
        for part in (self.hint, self.copy):
            column.addWidget(part)
        self.setVisible(False)

    def show_result(
        self,
        layer: Labels,
        frames: Frames,
        scheme: LabelScheme,
        recipe: Mapping[str, Any],
        *,
        recommended: Cleaning | None = None,
        applied: bool = False,
        parts: bool = True,
    ) -> None:
        """Offer what can be done with a result.

        Parameters
        ----------
        layer : Labels
            The result.
        frames : callable
            Returns views of an array like the layer's that are taken by themselves: one per time point.
        scheme : LabelScheme
            Its classes.
        recipe : mapping
            Where it comes from.
        recommended : Cleaning, optional
            What helped in cross-validation; it is marked.
        applied : bool
            Whether that was done already, so that there is nothing to switch.
        parts : bool
            Whether keeping the largest part of a class makes sense; not for numbered objects.
        """
        self._layer, self._frames, self._recipe = layer, frames, recipe
        self._removed, self._applied_targets, self._shape = [], [], np.shape(layer.data)
        for box, _, _ in self._targets:
            self._grid.removeWidget(box)
            box.deleteLater()
        self._targets = []
        steps = recommended.steps if recommended is not None else ()
        helpful = [step.target for step in steps]
        entries: list[tuple[str, Target]] = [("the foreground", list(scheme.foreground_labels))]
        if scheme.has_regions:
            entries += [(name, region) for name, region in zip(scheme.head_names, scheme.regions, strict=True)]
        elif len(scheme.foreground_labels) > 1:
            entries += [(scheme.names[value], value) for value in scheme.foreground_labels]
        for i, (name, target) in enumerate(entries):
            box = QCheckBox(name.replace("&", "&&") + (" ★" if target in helpful else ""))
            box.setAccessibleName(f"Keep only the largest part of {name}")
            box.setEnabled(not self.busy)  # a result of before may still be worked on
            box.toggled.connect(self._toggled)
            self._grid.addWidget(box, i // _COLUMNS, i % _COLUMNS)
            self._targets.append((box, target, name))
        for part in (self.keep, *(box for box, _, _ in self._targets)):
            part.setVisible(parts and not applied)
        self.hint.setText(_hint(recommended, scheme, applied=applied) if parts else "")
        self.hint.setVisible(bool(self.hint.text()))
        self.setVisible(True)

    def hide_result(self) -> None:
        """Forget the result."""
        self._layer = None
        self._frames, self._recipe = lambda labels: [labels], {}
        self._removed, self._applied_targets = [], []
        self.setVisible(False)

    def chosen(self) -> list[Target]:
        """Return what is to be kept only in its largest part, in order."""
        return [target for box, target, _ in self._targets if box.isChecked()]

    def _toggled(self) -> None:
        if self._layer is None or self.busy:
            return
        layer, data = self._layer, self._layer.data
        mine = not self._applied_targets or data is self._array()
        if not mine or not isinstance(data, np.ndarray) or data.shape != self._shape:
            self._forget_other_data()
            return
        self.busy = True
        for box, _, _ in self._targets:
            box.setEnabled(False)
        job = _keep_largest(layer, self._frames, self._removed, self.chosen())
        follow(self, job, returned=self._applied, errored=lambda error: self._failed(layer, error))

    def _applied(self, found: Postprocessed) -> None:
        self._end()
        written = found.write()
        if found.layer is not self._layer:
            self.changed.emit()  # another result is shown by now, which nobody looked at meanwhile
        elif not written:
            self._forget_other_data()
        else:
            self._removed, self._array, self._applied_targets = found.removed, ref(found.labels), self.chosen()
            self.changed.emit()

    def _failed(self, layer: Labels, error: BaseException) -> None:
        self._end()
        if layer is self._layer:
            self._set_back(failure_text(error))
        else:
            self.changed.emit()

    def _forget_other_data(self) -> None:
        """Let go of what was taken out of data that the layer does not hold any more."""
        self._removed, self._applied_targets = [], []
        self._set_back(_OTHER_DATA)

    def _set_back(self, text: str) -> None:
        """Tick the boxes of what is applied, after something else could not be, and say why."""
        for box, target, _ in self._targets:
            with QSignalBlocker(box):
                box.setChecked(target in self._applied_targets)
        self._say(text)
        self.changed.emit()

    def _say(self, text: str) -> None:
        self.hint.setText(text)
        self.hint.setVisible(True)

    def _end(self) -> None:
        self.busy = False
        for box, _, _ in self._targets:
            box.setEnabled(True)

    def recipe(self) -> dict[str, Any]:
        """Return the recipe with the postprocessing that is switched on, and whether somebody corrected the labels."""
        chosen = [(target, name) for box, target, name in self._targets if box.isChecked()]
        recipe = {**self._recipe, "corrected": self.corrected()}
        if not chosen:
            return recipe
        return {
            **recipe,
            "postprocessing": Cleaning.of([target for target, _ in chosen]).arguments(),
            "postprocessing_kept": [f"the largest part of {name}" for _, name in chosen],
            "postprocessing_file": None,
        }

    def texts(self) -> dict[str, str]:
        """Return the recipe in every style."""
        return self.copy.texts()


def _keep_largest(
    layer: Labels, frames: Frames, taken: Sequence[tuple[int, Removed]], targets: Sequence[Target]
) -> Job[Postprocessed]:
    """Work out what comes back of what was taken out, and what is taken out now; on a thread, and on a copy."""
    yield Stage(name="Postprocessing")
    labels, left = layer.data, left_in(layer)
    before = np.array(labels)
    after = before.copy()
    views = frames(after)
    for i, removed in taken:
        removed.put_back(views[i])
    done = []
    for i, view in enumerate(views):
        done += [(i, removed) for removed in take_out(view, targets)]
        yield Progress(done=i + 1, total=len(views))
    where = np.nonzero(before != after)
    untouched = left is not None and left.digest == digest_of(before)
    digest = digest_of(after) if untouched else None
    return Postprocessed(layer, labels, where, before[where], after[where], digest, done, frames)


def _hint(recommended: Cleaning | None, scheme: LabelScheme, *, applied: bool) -> str:
    if recommended is None:
        return ""
    if not recommended.steps:
        return "In cross-validation, no postprocessing helped."
    what = recommended.describe(scheme)
    return f"Postprocessed: kept {what}." if applied else "★ helped in cross-validation."
