"""What can be done with a result: postprocess it, to and fro, and say how it was made."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from napari.layers import Labels
from napari.utils.notifications import show_info
from numpy.typing import NDArray
from qtpy.QtCore import Signal
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
from napari_nnunet.widgets.prediction.volumes import is_untouched

Postprocessed = tuple[list[tuple[NDArray[Any], Removed]], Labels, int | None]
_COLUMNS = 2
_STYLES: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "command line": as_command,
    "Python": as_python,
    "methods paragraph": as_methods,
}


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

    Emits ``changed`` when labels were taken out or put back.
    """

    changed = Signal()

    def __init__(self) -> None:
        super().__init__("Result")
        self._layer: Labels | None = None
        self._frames: Sequence[NDArray[Any]] = ()
        self._removed: list[tuple[NDArray[Any], Removed]] = []
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
        frames: Sequence[NDArray[Any]],
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
        frames : sequence of ndarray
            Views of its array that are taken by themselves: one per time point.
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
        self._removed = []
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
        self._removed = []
        self.setVisible(False)

    def chosen(self) -> list[Target]:
        """Return what is to be kept only in its largest part, in order."""
        return [target for box, target, _ in self._targets if box.isChecked()]

    def _toggled(self) -> None:
        if self._layer is None or self.busy:
            return
        self.busy = True
        for box, _, _ in self._targets:
            box.setEnabled(False)
        job = _keep_largest(self._layer, self._frames, self._removed, self.chosen())
        follow(self, job, returned=self._applied, errored=self._failed)

    def _applied(self, found: Postprocessed) -> None:
        self._removed, layer, digest = found
        self._end()
        if digest is not None:
            layer.metadata["nnunet"]["digest"] = digest
        if self._layer is not None:
            self._layer.refresh()
            self.changed.emit()

    def _failed(self, error: BaseException) -> None:
        self._end()
        self.hint.setText(failure_text(error))
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
    layer: Labels,
    frames: Sequence[NDArray[Any]],
    before: Sequence[tuple[NDArray[Any], Removed]],
    targets: Sequence[Target],
) -> Job[Postprocessed]:
    """Put back what was taken out before, then take out what is chosen now; runs on a thread.

    With the layer and its digest, which is None where somebody had painted: then it is not what the program left.
    """
    yield Stage(name="Postprocessing")
    untouched = is_untouched(layer)
    for frame, removed in before:
        removed.put_back(frame)
    done = []
    for i, frame in enumerate(frames):
        done += [(frame, removed) for removed in take_out(frame, targets)]
        yield Progress(done=i + 1, total=len(frames))
    return done, layer, digest_of(np.asarray(layer.data)) if untouched else None


def _hint(recommended: Cleaning | None, scheme: LabelScheme, *, applied: bool) -> str:
    if recommended is None:
        return ""
    if not recommended.steps:
        return "In cross-validation, no postprocessing helped."
    what = recommended.describe(scheme)
    return f"Postprocessed: kept {what}." if applied else "★ helped in cross-validation."
