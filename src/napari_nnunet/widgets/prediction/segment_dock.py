"""The Segment dock: choose a model, see what will happen, run it, look at the result."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_nnunet.errors import NnunetError
from napari_nnunet.events import Job
from napari_nnunet.formats.model.known_models import remember_model
from napari_nnunet.formats.results.postprocessing import find_cleaning, read_cleaning
from napari_nnunet.schema.cleaning import Cleaning
from napari_nnunet.schema.names import Fold
from napari_nnunet.widgets.files.preferred import ReaderOffer
from napari_nnunet.widgets.frame.dock import RequestDock
from napari_nnunet.widgets.frame.layers import focus_of
from napari_nnunet.widgets.frame.words import plain_time
from napari_nnunet.widgets.frame.worker import lazy
from napari_nnunet.widgets.prediction.form import SegmentForm, sample_folder
from napari_nnunet.widgets.prediction.request import SegmentRequest
from napari_nnunet.widgets.prediction.show import ResultView
from napari_nnunet.widgets.prediction.words import describe, expect

if TYPE_CHECKING:
    import napari

    from napari_nnunet.jobs.prediction.estimate import estimate_presets
    from napari_nnunet.jobs.prediction.predict import predict_series
else:
    estimate_presets = lazy("napari_nnunet.jobs.prediction.estimate:estimate_presets")
    predict_series = lazy("napari_nnunet.jobs.prediction.predict:predict_series")


class SegmentWidget(RequestDock[SegmentRequest, dict[str, Any]]):
    """Segment image layers with a trained nnU-Net model.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
        Injected by napari.
    """

    def __init__(self, viewer: napari.viewer.Viewer) -> None:
        super().__init__(viewer, "Segment", stops="Stop within one tile; the finished part is kept.")
        self.form = SegmentForm(viewer)
        self.result = ResultView(viewer)
        self.offer = ReaderOffer()
        self.lay_out(self.offer, self.form, self.summary, self.panel, self.result)
        self.form.changed.connect(self.check_soon)
        viewer.layers.events.removed.connect(self._layer_removed)
        viewer.dims.events.connect(self._view_changed)
        viewer.scene.camera.events.connect(self._view_changed)
        self.check()

    def add_model(self, folder: Path) -> None:
        """Choose a model by its folder; what is wrong with it is said in the dock."""
        self.form.add_model(folder)

    def use(self, folder: Path, *, checkpoint: str, folds: tuple[Fold, ...]) -> None:
        """Choose a model with a checkpoint and folds, and segment the image that is open, if there is one."""
        self.add_model(folder)
        self.form.choose_checkpoint(checkpoint, folds)
        self.run()

    def _layer_removed(self, event: Any) -> None:
        if self.result.running is not None and event.value is self.result.running.labels:
            self.panel.cancel()

    def _view_changed(self, _: Any = None) -> None:
        if self.form.image.follows_view:
            self.check_soon()

    def request(self) -> SegmentRequest:
        """Return what the form asks for."""
        return self.form.request(self.panel)

    def describe(self, request: SegmentRequest) -> str:
        """Return what will be segmented."""
        return describe(request)

    def estimate(self, request: SegmentRequest) -> Job[dict[str, Any]]:
        """Return what works out time and memory of every preset."""
        shape = request.frames[0].volume.shape
        return estimate_presets(request.model, shape, request.grid.spacing, request.settings)

    def expect(self, request: SegmentRequest, found: dict[str, Any]) -> str:
        """Return what it takes; the presets say what they take behind their names."""
        dice = request.model.preset_dice
        titles = {}
        for name, estimate in found.items():
            if name == "own":
                continue
            seconds = estimate.seconds
            parts = [] if seconds is None else [plain_time(seconds * len(request.frames))]
            if name in dice:
                parts.append(f"Dice {dice[name]:.3f}")
            titles[name] = ", ".join(parts)
        self.form.label_presets(titles)
        return expect(request, found["own"])

    def begin(self, request: SegmentRequest) -> None:
        """Segment."""
        if request.model.folder != sample_folder():
            with contextlib.suppress(NnunetError):
                remember_model(request.model.folder)
        targets = self.result.begin(request).targets()
        focus = focus_of(request.source, request.axes, self.viewer.dims)

        def done(predictions: Sequence[Any]) -> str:
            return self.result.done(predictions, recommended=_recommended(request.model.folder))

        self.panel.run(
            predict_series(request.model, targets, request.settings, focus=focus, roi=request.region, preview=True),
            done=done,
            cancelled=self.result.cancelled,
            failed=self.result.failed,
            happened=self.result.paint,
        )


def _recommended(model: Path) -> Cleaning | None:
    """Return the postprocessing that helped a model in cross-validation, None where none is known."""
    path = find_cleaning(model)
    if path is not None:
        with contextlib.suppress(NnunetError):
            return read_cleaning(path)
    return None
