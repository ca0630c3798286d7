"""A case is opened with what a network sees in it, and its corrected labels are saved."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari.layers import Labels
from napari.utils.notifications import show_info
from qtpy.QtWidgets import QMessageBox, QWidget

from napari_nnunet.errors import NnunetError
from napari_nnunet.formats.dataset.objects import reference_file
from napari_nnunet.formats.dataset.raw_dataset import read_info
from napari_nnunet.schema.objects import ObjectScheme
from napari_nnunet.widgets.dataset.class_table import as_stored
from napari_nnunet.widgets.files.origins import case_origin, changed_since
from napari_nnunet.widgets.files.unsaved import Unsaved, ask_before_closing, is_saved
from napari_nnunet.widgets.frame.layers import (
    ORIGIN,
    activate,
    kinds_of_features,
    pointer_away,
)
from napari_nnunet.widgets.frame.words import as_text
from napari_nnunet.widgets.frame.worker import follow, lazy
from napari_nnunet.widgets.objects.look import on_screen, show_fullest_slice, show_voxel
from napari_nnunet.widgets.training.layers import score_layers

if TYPE_CHECKING:
    import napari

    from napari_nnunet.jobs.dataset.cases import correct_reference
    from napari_nnunet.jobs.objects.cases import correct_objects
else:
    correct_objects = lazy("napari_nnunet.jobs.objects.cases:correct_objects")
    correct_reference = lazy("napari_nnunet.jobs.dataset.cases:correct_reference")


class Correcting:
    """Opens cases of a dock, and saves what was corrected in them.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
        Shows the layers.
    dock : QWidget
        Keeps the threads.
    failed : callable
        Told what went wrong.
    written : callable
        Called when labels were saved.
    """

    def __init__(
        self,
        viewer: napari.viewer.Viewer,
        dock: QWidget,
        failed: Callable[[BaseException], object],
        written: Callable[[], object],
    ) -> None:
        self.viewer, self._dock, self._failed, self._written = viewer, dock, failed, written
        self.before: Callable[[], object] = lambda: None

    def open(self, raw: Path, name: str, prediction: Path, place: tuple[int, ...] | None = None) -> None:
        """Open a case with its labels, what the network sees, and their differences; go to a voxel of it."""
        job = score_layers(raw, name, prediction)
        follow(self._dock, job, returned=lambda layers: self._add(layers, place), errored=self._failed)

    def _add(self, layers: list[Any], place: tuple[int, ...] | None) -> None:
        self.before()
        for layer in self.viewer.layers:
            layer.visible = False
        with pointer_away(self.viewer):
            added = [getattr(self.viewer, f"add_{kind}")(data, **options) for data, options, kind in layers]
        for layer in added:
            if not isinstance(layer, Labels):
                continue
            if ORIGIN in layer.metadata:
                layer.events.paint.connect(_keep)
            else:  # the result, and what it got wrong: strokes there would be saved nowhere
                layer.editable = False
        ask_before_closing(self._dock, "labels of cases", lambda: _painted(self.viewer))
        self.viewer.reset_view()
        labels = next(layer for layer in added if isinstance(layer, Labels))  # images, labels, result, differences
        activate(self.viewer, labels)  # what is corrected; the Training cases dock follows it
        if place is None:
            show_fullest_slice(self.viewer, added[-1])
            return
        labels.visible = True
        show_voxel(self.viewer, labels, place)
        self.viewer.scene.camera.center = on_screen(labels, place, self.viewer.dims)

    def save(self) -> None:
        """Save the selected labels as the reference of the case they came from."""
        layer = self.viewer.layers.selection.active
        origin = layer.metadata.get(ORIGIN) if isinstance(layer, Labels) else None
        if origin is None:
            show_info("Select the labels of a validation case that was opened from this table, then press again.")
            return
        folder = Path(origin["folder"])
        try:
            info = read_info(folder)
            labels = as_stored(layer, info)
        except (NnunetError, OSError) as error:
            self._failed(error)
            return
        there = reference_file(folder, origin["name"], info)
        if there.is_file() and changed_since(origin, there) and not self._replaces(origin["name"]):
            return
        if ObjectScheme.of(info) is None:
            job = correct_reference(folder, origin["name"], labels)
        else:
            job = correct_objects(folder, origin["name"], labels, kinds_of_features(layer.features))
        layer.locked = False  # before the job: what is painted while it runs locks them again
        follow(
            self._dock,
            job,
            returned=lambda path: self._corrected(path, layer, origin),
            errored=lambda error: self._not_saved(error, layer),
        )

    def _not_saved(self, error: BaseException, layer: Labels) -> None:
        layer.locked = True
        self._failed(error)

    def _replaces(self, name: str) -> bool:
        """Ask whether labels that somebody else changed meanwhile are to be replaced."""
        question = (
            f"The labels of '{name}', or what their values mean, were changed elsewhere since they were opened here. "
            "Replace them? They go to the dataset's trash folder."
        )
        button = QMessageBox.question(self._dock, "Labels changed", as_text(question))
        return button == QMessageBox.StandardButton.Yes

    def _corrected(self, path: Path, saved: Labels, origin: dict[str, Any]) -> None:
        for layer in self.viewer.layers:
            if layer is saved or (not isinstance(layer, Labels) and layer.metadata.get(ORIGIN) == origin):
                # other labels of this case are not what is stored now
                layer.metadata[ORIGIN] = case_origin(Path(origin["folder"]), origin["name"], path)
        self._written()
        show_info(
            f"{path.name} is replaced; the old one is in the trash. Resume or train on: this case is "
            f"preprocessed again "
            "first."
        )


def _keep(event: Any) -> None:
    """Lock labels that somebody painted in: what is not saved does not go with the key that deletes layers."""
    event.source.locked = True


def _painted(viewer: napari.viewer.Viewer) -> list[Unsaved]:
    """Return the labels of cases that were painted in and are not saved."""
    cases = [layer for layer in viewer.layers if isinstance(layer, Labels) and ORIGIN in layer.metadata]
    how = "Then select the layer and press 'Save the corrected reference' in Train."
    return [Unsaved(layer.name, None, how) for layer in cases if layer.locked and not is_saved(layer.data)]
