"""The Segment dock: choose a model, see what will happen, run it, look at the result."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from napari_nnunet.errors import NnunetError
from napari_nnunet.events import CaseDone, CaseFailed, Event, Found, Job
from napari_nnunet.formats.large.corrections import gained_by_hand
from napari_nnunet.formats.model.folder import TrainedModel
from napari_nnunet.formats.model.known_models import remember_model
from napari_nnunet.formats.results.postprocessing import find_cleaning, read_cleaning
from napari_nnunet.formats.results.recipe import read_recipe
from napari_nnunet.jobs.prediction.result import ImageTurn
from napari_nnunet.jobs.prediction.table import Line, found_in
from napari_nnunet.schema.cleaning import Cleaning
from napari_nnunet.schema.names import Fold
from napari_nnunet.widgets.files.preferred import ReaderOffer, follow_pictures
from napari_nnunet.widgets.frame.dock import RequestDock
from napari_nnunet.widgets.frame.layers import focus_of
from napari_nnunet.widgets.frame.tabs import open_dock
from napari_nnunet.widgets.frame.words import plain_time
from napari_nnunet.widgets.frame.worker import lazy
from napari_nnunet.widgets.large.correct import CorrectRow
from napari_nnunet.widgets.large.order import LargeOrder
from napari_nnunet.widgets.large.run import LargeRun
from napari_nnunet.widgets.prediction.form import SegmentForm
from napari_nnunet.widgets.prediction.many import (
    FolderOrder,
    OpenImages,
    count_kept,
    describe_many,
    expect_many,
    look_at_many,
    preset_times,
    segment_folder,
)
from napari_nnunet.widgets.prediction.request import SegmentRequest
from napari_nnunet.widgets.prediction.show import ResultView
from napari_nnunet.widgets.prediction.words import describe, expect, sample_folder
from napari_nnunet.widgets.tour import Stop, Tour

if TYPE_CHECKING:
    import napari

    from napari_nnunet.jobs.large.predict_image import LargeResult
    from napari_nnunet.jobs.prediction.estimate import estimate_presets
    from napari_nnunet.jobs.prediction.predict import predict_in_turn, predict_series
else:
    estimate_presets = lazy("napari_nnunet.jobs.prediction.estimate:estimate_presets")
    predict_in_turn = lazy("napari_nnunet.jobs.prediction.predict:predict_in_turn")
    predict_series = lazy("napari_nnunet.jobs.prediction.predict:predict_series")


SegmentOrder: TypeAlias = SegmentRequest | LargeOrder | OpenImages | FolderOrder


_SEGMENT, _CONTINUE = "Segment", "Continue"


class SegmentWidget(RequestDock[SegmentOrder, Any]):
    """Segment image layers, or a folder, with a trained nnU-Net model.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
        Injected by napari.
    """

    def __init__(self, viewer: napari.viewer.Viewer) -> None:
        super().__init__(viewer, _SEGMENT, stops="Stop within one tile; the finished part is kept.")
        self.form = SegmentForm(viewer)
        self.result = ResultView(viewer)
        self.large: LargeRun | None = None
        self.correct = CorrectRow(viewer)
        self.correct.recount = self._recount
        #: What is on disk, the voxels of its label values, and what corrections had added when these were counted.
        self._counted: tuple[LargeOrder, list[int], dict[int, int] | None] | None = None
        self.offer = ReaderOffer()
        follow_pictures(viewer)
        self.tour = Tour(self._stops())
        self.form.head.help.tour = self.tour.begin
        self.lay_out(self.offer, self.form, self.summary, self.panel, self.correct, self.result, last=self.tour)
        self.form.changed.connect(self.check_soon)
        viewer.layers.events.removed.connect(self._layer_removed)
        viewer.dims.events.connect(self._view_changed)
        viewer.scene.camera.events.connect(self._view_changed)
        self.check()

    def _stops(self) -> list[Stop]:
        form, viewer = self.form, self.viewer
        return [
            Stop(
                "An image",
                "Any image layer of napari will do. For the tour, open a small volume of nuclei and shells.",
                form.image,
                ("Open the sample", lambda: viewer.open_sample("napari-nnunet", "nuclei_and_shells")),
            ),
            Stop(
                "A model",
                "Somebody sends you a folder or a zip, or you train one. For the tour, take the small model that is "
                "included; the line below it says what it finds, and in which images.",
                form.model_box.native,
                ("Choose the sample model", form.choose_sample),
            ),
            Stop(
                "What will happen",
                "Before anything runs, the dock says here how large the image is, how long it will take, and how much "
                "memory. If something does not fit, it says what, with a button where it can be fixed.",
                self.summary,
            ),
            Stop(
                "Segment",
                "Press Segment (Ctrl+Enter works, too). The slice you look at comes first. Cancel (Esc) keeps what is "
                "finished.",
                self.panel,
            ),
            Stop(
                "The result",
                "A Labels layer lies over the image, and a table below the button has the volume of every class. The "
                "sample knows the truth: it is the hidden layer 'truth'.",
                self.result,
            ),
            Stop(
                "A model of your own",
                "It takes a folder of images, a folder of masks with the same names, and three docks: Training cases, "
                "Plan, Train. '?' in each of them opens its page.",
                form.head,
                ("Open Training cases", lambda: open_dock(viewer, "Training cases")),
            ),
        ]

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
        self.result.forget(event.value)

    def _view_changed(self, _: Any = None) -> None:
        if self.large is not None and self.busy:
            self.large.look()
        if self.form.image.follows_view:
            self.check_soon()

    def request(self) -> SegmentOrder:
        """Return what the form asks for."""
        return self.form.order(self.panel)

    def verb(self, request: SegmentOrder) -> str:
        """Return what Run does: begin, or go on where it was cancelled."""
        if isinstance(request, FolderOrder):
            return self.panel.text  # known when the folder was looked at
        if isinstance(request, LargeOrder):
            return _CONTINUE if request.continues else _SEGMENT
        goes_on = request.continues if isinstance(request, OpenImages) else self.result.carries_on(request)
        return _CONTINUE if goes_on else _SEGMENT

    def describe(self, request: SegmentOrder) -> str:
        """Return what will be segmented."""
        if isinstance(request, LargeOrder):
            return request.describe()
        return describe(request) if isinstance(request, SegmentRequest) else describe_many(request)

    def estimate(self, request: SegmentOrder) -> Job[Any]:
        """Return what works out time and memory of every preset."""
        if isinstance(request, LargeOrder):
            return _knowing_dice(request.model, request.expected())
        if not isinstance(request, SegmentRequest):
            return _knowing_dice(request.model, look_at_many(request, self.form.image.scope.put_results))
        shape = request.frames[0].volume.shape
        job = estimate_presets(request.model, shape, request.grid.spacing, request.settings)
        return _knowing_dice(request.model, job)

    def expect(self, request: SegmentOrder, found: Any) -> str:
        """Return what it takes; the presets say what they take behind their names."""
        if isinstance(request, SegmentRequest):
            self._label_times(request.model, found, len(request.frames))
            return expect(request, found["own"])
        if isinstance(request, LargeOrder):
            self._label_times(request.model, found.presets, request.image().times)
            return request.expect(found)
        survey, costs = found
        self._label_presets(request.model, preset_times(costs))
        if survey is not None:
            self.panel.rename(_CONTINUE if 0 < survey.there < survey.cases else _SEGMENT)
        return expect_many(request, survey, costs)

    def _label_times(self, model: TrainedModel, found: Mapping[str, Any], frames: int) -> None:
        known = {name: one.seconds for name, one in found.items()}
        self._label_presets(model, {n: "" if one is None else plain_time(one * frames) for n, one in known.items()})

    def _label_presets(self, model: TrainedModel, times: Mapping[str, str]) -> None:
        dice, outdated = model.preset_dice, model.presets_outdated
        titles = {}
        for name, time in times.items():
            if name == "own":
                continue
            parts = [time] if time else []
            if name in dice:
                parts.append(f"Dice {dice[name]:.3f}")
            elif outdated:
                parts.append("Dice measured with other weights")
            titles[name] = ", ".join(parts)
        self.form.label_presets(titles)

    def begin(self, request: SegmentOrder) -> None:
        """Segment."""
        model = request.model
        if model.folder != sample_folder():
            with contextlib.suppress(NnunetError):
                remember_model(model.folder)
        self.large = self._counted = None
        if isinstance(request, FolderOrder):
            self._begin_folder(request)
        elif isinstance(request, LargeOrder):
            self._begin_large(request)
        elif isinstance(request, OpenImages):
            self._begin_open(request)
        else:
            self._begin_one(request)

    def _begin_one(self, request: SegmentRequest) -> None:
        result = self.result.begin(request)
        job = predict_series(
            request.model,
            result.targets(),
            request.settings,
            halt=result.halt,
            focus=focus_of(request.source, request.axes, self.viewer.dims),
            roi=request.region,
            preview=True,
        )

        def done(predictions: Sequence[Any]) -> str:
            return self.result.done(predictions, recommended=_recommended(request.model.folder))

        self.panel.run(
            result.noted(job),
            done=done,
            cancelled=self.result.cancelled,
            failed=self.result.failed,
            happened=self.result.paint,
        )

    def _begin_open(self, order: OpenImages) -> None:
        results = self.result.begin_many(order.todo, order.kept if order.continues else ())
        total, dims = len(results), self.viewer.dims
        waiting = deque((one, focus_of(one.request.source, one.request.axes, dims)) for one in results)
        del results  # what is over is held by the viewer alone

        def turns() -> Iterator[ImageTurn]:
            while waiting:
                result, focus = waiting.popleft()
                yield result.turn(focus, partial(count_kept, result))

        def cancelled(fraction: float) -> str:
            self.result.cancelled(fraction * total - self.result.over)
            return f"Cancelled. {self.result.many.summary()}; press Continue for the others."

        def happened(event: Event) -> None:
            self.result.paint(event)
            if isinstance(event, CaseDone | CaseFailed):
                self.result.image_over(event)

        self.panel.run(
            predict_in_turn(order.model, turns(), total),
            done=lambda _: f"{self.result.many.summary()}.",
            cancelled=cancelled,
            failed=self.result.failed,
            happened=happened,
            each="Image",
            listed=True,
        )

    def _begin_large(self, order: LargeOrder) -> None:
        self.result.clear()
        self.large = run = LargeRun(self.viewer, order)

        def done(result: LargeResult) -> str:
            if result.counts:
                self._counted = order, list(result.counts), gained_by_hand(order.target)
                found = found_in(result.counts, order.model.dataset, order.voxel_mm)
                self.result.many.add([Line(order.source.name, "done", result.seconds, found)])
            elif result.objects is not None:
                kinds = tuple(Found(name=kind, objects=number) for kind, number in result.objects.items())
                self.result.many.add([Line(order.source.name, "done", result.seconds, kinds)])
            said = run.done(result)
            self.correct.look()
            return said

        self.panel.run(
            order.job(run.view), done=done, cancelled=run.cancelled, failed=run.failed, happened=run.happened
        )

    def _recount(self, path: Path) -> bool:
        """Keep the table in step with labels on disk that were corrected; returns whether it is about these and is."""
        if self._counted is None or self._counted[0].target != path or not self.result.many.lines:
            return False
        order, counts, before = self._counted
        now = gained_by_hand(path)
        if now == before and now is not None:
            return True
        if now is None or before is None:
            self.result.many.fall_behind()
            return False
        counts = counts + [0] * (max({*now, *before}, default=0) + 1 - len(counts))
        for value in {*now, *before}:
            counts[value] += now.get(value, 0) - before.get(value, 0)
        self._counted = order, counts, now
        self.result.many.correct(order.source.name, found_in(counts, order.model.dataset, order.voxel_mm))
        return True

    def _begin_folder(self, order: FolderOrder) -> None:
        self.result.clear()
        table, target = self.result.many, order.folder.target

        def ended(text: str) -> str:
            with contextlib.suppress(NnunetError):
                table.add_recipe("", read_recipe(target), source=str(order.folder.source[0]), target=str(target))
            return text

        def happened(event: Event) -> None:
            if isinstance(event, CaseDone | CaseFailed):
                table.add([Line.of(event)])

        self.panel.run(
            segment_folder(order),
            done=lambda _: ended(f"{table.summary()}. The segmentations and table.csv are in {target}."),
            cancelled=lambda _: ended(f"Cancelled. {table.summary()}; press Continue for the others."),
            happened=happened,
            each="Image",
            listed=True,
        )

    def close_down(self) -> None:
        """Let go of what a cancelled run would go on with."""
        self.result.forget()
        super().close_down()


def _knowing_dice(model: TrainedModel, job: Job[Any]) -> Job[Any]:
    """Find out on the job's thread what the Dice of presets was measured with: large checkpoints are read for it."""
    _ = model.preset_dice, model.presets_outdated
    return (yield from job)


def _recommended(model: Path) -> Cleaning | None:
    """Return the postprocessing that helped a model in cross-validation, None where none is known."""
    path = find_cleaning(model)
    if path is not None:
        with contextlib.suppress(NnunetError):
            return read_cleaning(path)
    return None
