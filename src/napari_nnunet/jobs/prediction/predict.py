"""Segment images with a trained model: one image, a series, or both stages of a cascade."""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from napari_nnunet.engine.image.prepare import PrepareRecord, prepare
from napari_nnunet.engine.image.turning import Turning
from napari_nnunet.engine.machine import available_memory
from napari_nnunet.engine.network.backends import torch_threads
from napari_nnunet.engine.network.device import BackendChoice
from napari_nnunet.engine.prediction import infer
from napari_nnunet.errors import ModelError, ResourceError, for_people, is_out_of_memory, out_of_memory
from napari_nnunet.events import Box, CaseDone, CaseFailed, Job, Note, Pump, Stage
from napari_nnunet.formats.model.folder import TrainedModel, load_model, origin_of
from napari_nnunet.jobs.arithmetic import prediction_choice
from napari_nnunet.jobs.prediction.estimate import Estimate, estimate_for, learn
from napari_nnunet.jobs.prediction.objects import decoding_said, room_for, with_objects
from napari_nnunet.jobs.prediction.predictor import Predictor, borrowed, forget
from napari_nnunet.jobs.prediction.quality import judged, require_quality
from napari_nnunet.jobs.prediction.result import (
    Focus,
    FrameTarget,
    Halt,
    ImageTurn,
    OpenedImage,
    Prediction,
    PreparedImage,
    Segmentation,
    count_labels,
    each_frame,
    halting,
    told_unturned,
    turned,
)
from napari_nnunet.jobs.prediction.voxel_size import doubting_once, require_near
from napari_nnunet.jobs.prediction.windows import (
    NotFiniteError,
    begin_windows,
    clear_outside,
    lifted_box,
    segment_windows,
)
from napari_nnunet.schema.geometry import lift
from napari_nnunet.schema.requests.prediction import PredictSettings
from napari_nnunet.version import __version__
from napari_nnunet.volume import Volume


def predict(
    model: TrainedModel,
    volume: Volume,
    settings: PredictSettings | None = None,
    *,
    previous: NDArray[Any] | None = None,
    canvas: NDArray[Any] | None = None,
    probabilities: NDArray[np.float32] | None = None,
    focus: Focus | None = None,
    roi: Box | None = None,
    preview: bool = False,
    halt: Halt | None = None,
) -> Job[Prediction]:
    """Segment one image.

    Parameters
    ----------
    model : TrainedModel
        See :func:`napari_nnunet.load_model`.
    volume : Volume
        The image (C, [Z,] Y, X) with its geometry.
    settings : PredictSettings, optional
        nnU-Net's own settings if not given.
    previous : ndarray, shape ([Z,] Y, X), optional
        Segmentation of the previous stage. A cascade without it runs its first stage by itself when that model lies
        beside.
    canvas : ndarray, shape ([Z,] Y, X), optional
        Labels are written into it while the job runs; a cancelled job leaves the finished part there.
    probabilities : ndarray of float32, shape (C, [Z,] Y, X), optional
        Written in place (it may be a memory map); made in memory where the settings ask for probabilities.
    focus : sequence of float or None, optional
        Voxel ([Z,] Y, X) to begin with; None for axes that do not matter.
    roi : tuple of (int, int), optional
        Half-open box in voxels to segment; intensities are still normalised by the whole image.
    preview : bool
        Paint every window's own labels into the canvas before the final ones.
    halt : Halt, optional
        Receives where a cancel stops; handed in again with the same of everything else, the job carries on from there.

    Yields
    ------
    Event
        Stage, Progress, Note, Painted.

    Returns
    -------
    Prediction
        Labels on the image's own grid; numbered objects, with the kind of each, where the model has learnt such.

    Raises
    ------
    ModelError, ImageError, PlanError, ResourceError
        If model and image do not fit, or there is not enough memory.
    SettingsError
        If the voxels are more than ten times from the model's and the settings do not accept that.
    """
    settings = settings or PredictSettings()
    decoding = yield from decoding_said([(model, settings)])
    with halting(halt) as place:
        segment = partial(_classes, model, volume, settings, canvas, previous, focus, roi, preview, place)
        if decoding is None and not settings.quality:
            return (yield from segment(probabilities))
        known = (yield from require_quality(model, settings, predict, whole=roi is None)) if settings.quality else None
        shape = (model.dataset.labels.heads, *volume.shape)
        store = place.room(lambda: room_for(probabilities, shape))
        result = yield from segment(store)
        kept = store if settings.probabilities else None
        if known is not None:
            seen = replace(result, probabilities=store)
            result = replace(result, quality=judged(known, model, volume, seen, settings))
        if decoding is None:
            return replace(result, probabilities=kept)
        return (yield from with_objects(replace(result, probabilities=kept), store, decoding, canvas))


def _classes(
    model: TrainedModel,
    volume: Volume,
    settings: PredictSettings,
    canvas: NDArray[Any] | None,
    previous: NDArray[Any] | None,
    focus: Focus | None,
    roi: Box | None,
    preview: bool,
    halt: Halt,
    probabilities: NDArray[np.float32] | None,
) -> Job[Prediction]:
    """Segment one image into the classes that were learnt."""
    require_near(model, volume.geometry, settings)
    started = time.monotonic()
    scheme = model.dataset.labels
    if previous is None and model.configuration.previous_stage is not None:
        if halt.previous is None:
            halt.previous = yield from _previous_stage(model, volume, settings, roi, halt.part)
        previous = halt.previous
    probabilities = halt.probabilities_in(probabilities, (scheme.heads, *volume.shape), wanted=settings.probabilities)
    if halt.labels is None:
        halt.labels = canvas if canvas is not None else np.zeros(volume.shape, dtype=scheme.dtype)
    result = halt.labels
    task = Segmentation(
        OpenedImage(volume, None if previous is None else lift(previous)),
        settings,
        lift(result),
        None if probabilities is None else lift(probabilities, channels=True),
        focus,
        roi,
        preview,
        halt=halt,
    )
    yield Stage(name="Loading the model")
    reading = time.monotonic()
    with borrowed(model, settings) as predictor, ExitStack() as stack:
        yield from predictor.said
        stack.enter_context(torch_threads(predictor.choice.threads))
        halt.go_by(model.hashes(predictor.folds, settings.checkpoint))
        record, used = yield from _as_trained(predictor, task, reading)
    recipe = _recipe(predictor, settings, used)
    return Prediction(
        labels=result,
        geometry=volume.geometry,
        scheme=scheme,
        probabilities=probabilities,
        recipe=recipe,
        properties={**volume.geometry.properties(), **record.properties()},
        counts=count_labels(result, max(scheme.names) + 1),
        seconds=time.monotonic() - started,
    )


def _as_trained(predictor: Predictor, task: Segmentation, since: float) -> Job[tuple[PrepareRecord, BackendChoice]]:
    """Segment an image in the order of axes that the model knows; what is written and said is in the image's own."""
    image, turning = task.image, None
    if predictor.model.turns and isinstance(image, OpenedImage):
        turning = Turning.of(image.volume.shape, image.volume.geometry)
    if turning is None:
        return (yield from _timed(predictor, task, since))
    yield Note(text="The image is reoriented to RAS, as those the model was trained on were; its result is not.")
    return (yield from told_unturned(_timed(predictor, turned(task, turning), since), turning))


def _timed(predictor: Predictor, task: Segmentation, since: float) -> Job[tuple[PrepareRecord, BackendChoice]]:
    """Segment, and remember what it took since the networks were wanted: the next estimate goes by it."""
    carried = task.halt.sums is not None
    record, used = yield from run_with_fallbacks(predictor, task)
    if not carried and predictor.reusable:
        taken = time.monotonic() - since
        learn(predictor.model, record, predictor.ensemble, task.settings, taken, new=predictor.new)
    return record, used


def predict_series(
    model: TrainedModel,
    frames: Iterable[FrameTarget],
    settings: PredictSettings,
    *,
    halt: Halt | None = None,
    **options: Any,
) -> Job[list[Prediction]]:
    """Segment the frames of a time series one after the other, each into its own canvas (and probabilities).

    A ``halt`` that is handed in again carries on in the frame that was cancelled.
    """
    told = doubting_once(model)

    def segment(volume: Volume, **own: Any) -> Job[Prediction]:
        return told(volume, predict(model, volume, settings, **own, **options))

    return (yield from each_frame(halt, frames, segment))


def predict_in_turn(model: TrainedModel, turns: Iterable[ImageTurn], total: int) -> Job[None]:
    """Segment several images into their canvases; one that fails does not end the others.

    Each turn is let go of when the next one is taken.

    Yields
    ------
    Event
        CaseDone and CaseFailed of the images, besides those of :func:`predict`. When CaseDone comes, the predictions
        of the image are the ``results`` of its halt; it is ``skipped`` where its earlier result is kept.
    """
    for i, turn in enumerate(turns):
        started = time.monotonic()
        job = predict_series(model, turn.frames, turn.settings, halt=turn.halt, focus=turn.focus, preview=True)
        try:
            with Pump(turn.unless_kept(job)) as pump:
                for event in pump:
                    if isinstance(event, Note) and event.level == "warning":
                        yield event.model_copy(update={"text": f"{turn.name}: {event.text}"})
                    elif not isinstance(event, CaseDone):  # of a time point
                        yield event
        except Exception as unforeseen:  # whatever it is, the images after it are segmented
            yield CaseFailed.of(turn.name, for_people(unforeseen), i, total)
        else:
            seconds = time.monotonic() - started
            yield CaseDone(case=turn.name, index=i, total=total, seconds=seconds, skipped=pump.result is None)


def _previous_stage(
    model: TrainedModel, volume: Volume, settings: PredictSettings, roi: Box | None, halt: Halt
) -> Job[NDArray[Any]]:
    """Run the first stage of a cascade from the model next to this one."""
    first, settings = first_stage_of(model, settings)
    yield Note(text=f"First stage of the cascade: {first.name}.")
    lower = yield from predict(first, volume, settings, roi=roi, halt=halt)
    yield Note(text=f"Second stage of the cascade: {model.name}.")
    return lower.labels


def first_stage_of(model: TrainedModel, settings: PredictSettings) -> tuple[TrainedModel, PredictSettings]:
    """Return the model of a cascade's first stage, which lies beside the second one's, and how it is applied.

    Raises
    ------
    ModelError
        If it is not there.
    """
    folder = model.previous_stage_folder()
    if folder is None or not folder.is_dir():
        raise ModelError(
            f"{model.configuration.name} needs the segmentation of its previous stage "
            f"'{model.configuration.previous_stage}'. Its model was looked for in {folder}, but is not there.",
            shell="Put it there, or pass the segmentations (-prev_stage_predictions).",
            window="Put it there.",
        )
    first = load_model(folder)
    available = first.folds(settings.checkpoint)
    folds = settings.folds if settings.folds is None or set(settings.folds) <= set(available) else None
    return first, settings.replace(folds=folds, probabilities=False, classes=True)


def run_with_fallbacks(predictor: Predictor, task: Segmentation) -> Job[tuple[PrepareRecord, BackendChoice]]:
    """Run; if GPU memory runs out or a 16-bit float overflows, say so and run again more carefully."""
    on_device = task.settings.on_device
    ensemble = predictor.ensemble
    while True:
        predictor.reusable = ensemble is predictor.ensemble
        try:
            record = yield from _run(predictor, ensemble, task, on_device=on_device)
        except NotFiniteError:
            yield Note(
                level="warning",
                text=f"{ensemble.choice.precision} overflowed; repeating in float32.",
            )
            ensemble = ensemble.rebuilt(replace(ensemble.choice, precision="float32", why="range of values"))
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            if forget():
                yield Note(text="Memory ran out; the networks of earlier images were dropped. Trying again.")
                continue
            on_device, ensemble = yield from after_out_of_memory(
                ensemble, predictor.model, on_device=on_device, error=error
            )
        else:
            return record, ensemble.choice


def after_out_of_memory(
    ensemble: infer.Ensemble, model: TrainedModel, *, on_device: bool, error: Exception
) -> Job[tuple[bool, infer.Ensemble]]:
    """Say what is tried after memory ran out: sums elsewhere, then the CPU; raises ResourceError if nothing is left."""
    if ensemble.choice.kind == "cpu":
        raise out_of_memory(error, "Segment a region, or close other programs.") from error
    if ensemble.choice.kind == "cuda":
        torch.cuda.empty_cache()
    if on_device:
        yield Note(level="warning", text="Not enough GPU memory; keeping the sums in main memory instead.")
        return False, ensemble.rebuilt(ensemble.choice)  # as many windows at once as there is memory for by now
    yield Note(level="warning", text="Not enough GPU memory for the network; continuing on the CPU.")
    return False, ensemble.rebuilt(prediction_choice(PredictSettings(device="cpu"), model.architecture))


def _run(predictor: Predictor, ensemble: infer.Ensemble, task: Segmentation, *, on_device: bool) -> Job[PrepareRecord]:
    model, settings = predictor.model, task.settings
    region = tuple(slice(lo, hi) for lo, hi in lifted_box(task.roi)) if task.roi is not None else ...
    sums, task.halt.sums = task.halt.sums, None
    if sums is None or sums.choice != ensemble.choice:
        yield Stage(name="Preparing the image")
        on_device = on_device and ensemble.choice.kind != "cpu"
        device = torch.device(ensemble.choice.device if on_device else "cpu")
        data, record = _prepared(model, task, device)
        for text in record.notes:
            yield Note(text=text, level="warning")
        task.labels[region] = 0  # what lies outside the nonzero part stays background
        if 0 in record.cropped_shape:
            yield Note(text="The region contains only zeros: everything is background.")
            return record
        if ensemble.choice.kind == "cpu" or not on_device:
            wrapped = task.focus is not None
            _check_memory(estimate_for(model, record, ensemble, settings, wrapped=wrapped), settings.memory_gb)
        sums = begin_windows(model, ensemble, task, record, data)
        del data
    yield from segment_windows(predictor, ensemble, task, sums)
    if task.roi is not None and task.probabilities is not None:
        clear_outside(task.probabilities, region, background=not model.dataset.labels.has_regions)
    return sums.assembler.record


def _prepared(model: TrainedModel, task: Segmentation, device: torch.device) -> tuple[torch.Tensor, PrepareRecord]:
    image = task.image
    if isinstance(image, PreparedImage):
        return image.data.to(device), image.record
    return prepare(
        image.volume,
        model.plans,
        model.configuration,
        previous=image.previous,
        foreground_labels=model.dataset.labels.foreground_labels,
        device=device,
        roi=None if task.roi is None else lifted_box(task.roi),
    )


def _check_memory(expected: Estimate, limit_gb: float) -> None:
    free = available_memory()
    if expected.memory_bytes > free and forget():
        free = available_memory()
    allowed = min(free, limit_gb * 1e9) if limit_gb else free
    if expected.memory_bytes > allowed:
        what = f"{free / 1e9:.1f} GB are free" if allowed == free else f"{limit_gb:g} GB are allowed"
        raise ResourceError(
            f"This prediction needs about {expected.memory_bytes / 1e9:.1f} GB of main memory, but only {what}. "
            "Segment a region, close other programs, or leave out the probabilities."
        )


def _recipe(predictor: Predictor, settings: PredictSettings, choice: BackendChoice) -> dict[str, Any]:
    return {
        **origin_of(predictor.model, predictor.folds, settings.checkpoint),
        "channels": list(predictor.model.dataset.channel_names),
        "file_ending": predictor.model.dataset.file_ending,
        "reader": predictor.model.plans.reader,
        "mirror_axes": list(predictor.mirror_axes),
        "step": settings.step,
        "gaussian": settings.gaussian,
        "average": predictor.model.average,
        "device": choice.device,
        "backend": choice.backend,
        "precision": choice.precision,
        "versions": {"napari-nnunet": __version__, "torch": str(torch.__version__), "numpy": np.__version__},
    }
