"""Segment images with a trained model: one image, a series, or both stages of a cascade."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from napari_nnunet.engine.image.prepare import PrepareRecord, prepare
from napari_nnunet.engine.machine import available_memory
from napari_nnunet.engine.network.backends import torch_threads
from napari_nnunet.engine.network.device import Choice, choose
from napari_nnunet.engine.prediction import decode, infer
from napari_nnunet.engine.prediction.tiles import Accumulator, Tile, TileGrid, importance
from napari_nnunet.errors import ModelError, ResourceError, is_out_of_memory, out_of_memory
from napari_nnunet.events import Box, CaseDone, Job, Note, Painted, Progress, Stage
from napari_nnunet.formats import speed
from napari_nnunet.formats.model.folder import TrainedModel, load_model, recipe_of
from napari_nnunet.jobs.prediction import predictor as _predictor
from napari_nnunet.jobs.prediction.estimate import Estimate, estimate_for, speed_key
from napari_nnunet.jobs.prediction.predictor import Predictor
from napari_nnunet.jobs.prediction.result import (
    Focus,
    OpenedImage,
    Prediction,
    PreparedImage,
    Segmentation,
    count_labels,
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

    Yields
    ------
    Event
        Stage, Progress, Note, Painted.

    Returns
    -------
    Prediction
        Labels on the image's own grid.

    Raises
    ------
    ModelError, ImageError, PlanError, ResourceError
        If model and image do not fit, or there is not enough memory.
    """
    settings = settings or PredictSettings()
    started = time.monotonic()
    scheme = model.dataset.labels
    if previous is None and model.configuration.previous_stage is not None:
        previous = yield from _previous_stage(model, volume, settings, roi)
    result = canvas if canvas is not None else np.zeros(volume.shape, dtype=scheme.dtype)
    if settings.probabilities and probabilities is None:
        probabilities = np.zeros((scheme.heads, *volume.shape), dtype=np.float32)
    task = Segmentation(
        OpenedImage(volume, None if previous is None else lift(previous)),
        settings,
        lift(result),
        None if probabilities is None else lift(probabilities, channels=True),
        focus,
        roi,
        preview,
    )
    yield Stage(name="Loading the model")
    with _predictor.borrowed(model, settings) as predictor, ExitStack() as stack:
        yield Note(text=f"Computing on {predictor.choice} ({predictor.choice.why}).")
        stack.enter_context(torch_threads(predictor.choice.threads))
        record, used = yield from run_with_fallbacks(predictor, task)
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


def predict_series(
    model: TrainedModel,
    frames: Iterable[tuple[Volume, NDArray[Any], NDArray[np.float32] | None]],
    settings: PredictSettings,
    **options: Any,
) -> Job[list[Prediction]]:
    """Segment the frames of a time series one after the other, each into its own canvas (and probabilities)."""
    results = []
    listed = list(frames)
    for i, (volume, canvas, probabilities) in enumerate(listed):
        result = yield from predict(model, volume, settings, canvas=canvas, probabilities=probabilities, **options)
        results.append(result)
        yield CaseDone(case=f"time point {i + 1}", index=i, total=len(listed), seconds=result.seconds)
    return results


def _previous_stage(
    model: TrainedModel, volume: Volume, settings: PredictSettings, roi: Box | None
) -> Job[NDArray[Any]]:
    """Run the first stage of a cascade from the model next to this one."""
    folder = model.previous_stage_folder()
    if folder is None or not folder.is_dir():
        raise ModelError(
            f"{model.configuration.name} needs the segmentation of its previous stage "
            f"'{model.configuration.previous_stage}'. Its model was looked for in {folder}, but is not there; put it "
            "there, or pass the segmentations (-prev_stage_predictions)."
        )
    first = load_model(folder)
    available = first.folds(settings.checkpoint)
    folds = settings.folds if settings.folds is None or set(settings.folds) <= set(available) else None
    yield Note(text=f"First stage of the cascade: {first.name}.")
    lower = yield from predict(first, volume, settings.replace(folds=folds, probabilities=False), roi=roi)
    yield Note(text=f"Second stage of the cascade: {model.name}.")
    return lower.labels


def run_with_fallbacks(predictor: Predictor, task: Segmentation) -> Job[tuple[PrepareRecord, Choice]]:
    """Run; if GPU memory runs out or a 16-bit float overflows, say so and run again more carefully."""
    on_device = task.settings.on_device
    ensemble = predictor.ensemble
    while True:
        predictor.reusable = ensemble is predictor.ensemble
        try:
            record = yield from _run(predictor, ensemble, task, on_device=on_device)
        except _NotFiniteError:
            yield Note(
                level="warning",
                text=f"{ensemble.choice.precision} overflowed; repeating in float32.",
            )
            ensemble = ensemble.rebuilt(replace(ensemble.choice, precision="float32", why="range of values"))
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            if _predictor.forget():
                yield Note(text="Memory ran out; the networks of earlier images were dropped. Trying again.")
                continue
            on_device, ensemble = yield from _after_out_of_memory(ensemble, on_device=on_device, error=error)
        else:
            return record, ensemble.choice


def _after_out_of_memory(
    ensemble: infer.Ensemble, *, on_device: bool, error: Exception
) -> Job[tuple[bool, infer.Ensemble]]:
    if ensemble.choice.kind == "cpu":
        raise out_of_memory(error, "Segment a region, or close other programs.") from error
    if ensemble.choice.kind == "cuda":
        torch.cuda.empty_cache()
    if on_device:
        yield Note(level="warning", text="Not enough GPU memory; keeping the sums in main memory instead.")
        return False, ensemble
    yield Note(level="warning", text="Not enough GPU memory for the network; continuing on the CPU.")
    return False, ensemble.rebuilt(choose(PredictSettings(device="cpu")))


class _NotFiniteError(Exception):
    """Reduced precision overflowed."""


def _run(predictor: Predictor, ensemble: infer.Ensemble, task: Segmentation, *, on_device: bool) -> Job[PrepareRecord]:
    model, settings = predictor.model, task.settings
    yield Stage(name="Preparing the image")
    on_device = on_device and ensemble.choice.kind != "cpu"
    device = torch.device(ensemble.choice.device if on_device else "cpu")
    data, record = _prepared(model, task, device)
    for text in record.notes:
        yield Note(text=text, level="warning")
    region = tuple(slice(lo, hi) for lo, hi in _lifted_box(task.roi)) if task.roi is not None else ...
    task.labels[region] = 0  # what lies outside the nonzero part stays background
    if 0 in record.cropped_shape:
        yield Note(text="The region contains only zeros: everything is background.")
        return record
    if ensemble.choice.kind == "cpu" or not on_device:
        _check_memory(
            estimate_for(model, record, ensemble, settings, wrapped=task.focus is not None), settings.memory_gb
        )
    yield from _windows(predictor, ensemble, task, record, infer.pad(data, _grid(model, record, settings)))
    if task.roi is not None and task.probabilities is not None:
        _clear_outside(task.probabilities, region, background=not model.dataset.labels.has_regions)
    return record


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
        roi=None if task.roi is None else _lifted_box(task.roi),
    )


def _clear_outside(probabilities: NDArray[np.float32], region: Any, *, background: bool) -> None:
    """Leave probabilities inside the region only; the context around it was computed as well."""
    inside = probabilities[(slice(None), *region)].copy()
    probabilities[:] = 0
    if background:
        probabilities[0] = 1
    probabilities[(slice(None), *region)] = inside


def _grid(model: TrainedModel, record: PrepareRecord, settings: PredictSettings) -> TileGrid:
    return TileGrid(record.network_shape, model.configuration.patch_3d, settings.step)


@dataclass
class _Bar:
    """How many network runs of an image are done."""

    total: int
    done: int = 0
    began: float = field(default_factory=time.monotonic)

    def follow(self, runs: Generator[None, None, torch.Tensor]) -> Job[torch.Tensor]:
        """Say after every run how long the others will take; returns what the runs return."""
        while True:
            try:
                next(runs)
            except StopIteration as end:
                logits: torch.Tensor = end.value
                return logits
            self.done += 1
            left = (time.monotonic() - self.began) / self.done * (self.total - self.done)
            yield Progress(done=self.done, total=self.total, seconds_left=left)


def _windows(
    predictor: Predictor, ensemble: infer.Ensemble, task: Segmentation, record: PrepareRecord, data: torch.Tensor
) -> Job[None]:
    """Walk over all windows, sum them up, write what is complete."""
    model, settings = predictor.model, task.settings
    grid = _grid(model, record, settings)
    slicewise = model.configuration.ndim == 2
    scratch = task.labels if task.roi is None else np.zeros_like(task.labels)
    assembler = decode.Assembler(
        record,
        model.dataset.labels,
        model.configuration.resample_probabilities,
        scratch,
        task.probabilities,
        ensemble.head(),
        model.average,
    )
    accumulator = Accumulator(grid, ensemble.channels, _weights(grid, data.device, gaussian=settings.gaussian))
    tiles = list(grid.tiles(_network_focus(task.focus, record)))
    size = ensemble.windows_per_round
    rounds = [tiles[i : i + size] for i in range(0, len(tiles), size)]
    total = sum(ensemble.forwards(len(part)) for part in rounds)
    yield Stage(name="Segmenting", total=total)
    ensemble.compile()
    bar = _Bar(total)
    for part in rounds:
        logits = yield from bar.follow(ensemble.logits(infer.cut(data, part, slicewise=slicewise)))
        if ensemble.choice.precision != "float32" and not bool(torch.isfinite(logits).all()):
            raise _NotFiniteError
        logits = logits.to(data.device)
        for tile, window in zip(part, logits[:, :, None] if slicewise else logits, strict=True):
            yield from _place(tile, window, grid, accumulator, assembler, task, scratch)
    speed.remember(speed_key(model, ensemble), (time.monotonic() - bar.began) / max(total, 1))


def _place(
    tile: Tile,
    logits: torch.Tensor,
    grid: TileGrid,
    accumulator: Accumulator,
    assembler: decode.Assembler,
    task: Segmentation,
    scratch: NDArray[Any],
) -> Job[None]:
    """Add one window; announce previews and finished planes."""
    record = assembler.record
    if task.preview:
        yield from _announce(_paint_preview(tile, logits, grid, assembler, scratch), task, scratch, record, final=False)
    for start, stop, mean in accumulator.add(tile, logits):
        for other in task.also:
            other.push(start, stop, mean)
        for lo, hi in assembler.push(start, stop, mean):
            (z0, _), y, x = record.box
            yield from _announce(((z0 + lo, z0 + hi), y, x), task, scratch, record, final=True)


def _announce(
    box: Box | None, task: Segmentation, scratch: NDArray[Any], record: PrepareRecord, *, final: bool
) -> Job[None]:
    """Copy what lies inside the region to the canvas and report which part of the image changed."""
    if box is None:
        return
    own: Box = tuple(box[record.transpose_forward.index(a)] for a in range(3))
    if task.roi is not None:
        roi = _lifted_box(task.roi)
        own = tuple((max(a, c), min(b, d)) for (a, b), (c, d) in zip(own, roi, strict=True))
        if any(a >= b for a, b in own):
            return
        slices = tuple(slice(a, b) for a, b in own)
        task.labels[slices] = scratch[slices]
    yield Painted(box=own if task.image.ndim == 3 else own[1:], final=final)


def _paint_preview(
    tile: Tile, logits: torch.Tensor, grid: TileGrid, assembler: decode.Assembler, scratch: NDArray[Any]
) -> Box | None:
    record = assembler.record
    begin, slices = [], [slice(None)]
    for start, size, (before, _), n in zip(tile.start, tile.size, grid.padding, record.network_shape, strict=True):
        lo, hi = max(start, before), min(start + size, before + n)
        begin.append(lo - before)
        slices.append(slice(lo - start, hi - start))
    labels, box = decode.preview(logits[tuple(slices)], (begin[0], begin[1], begin[2]), assembler)
    if labels.size == 0:
        return None
    view = scratch.transpose(record.transpose_forward)
    view[tuple(slice(lo, hi) for lo, hi in box)] = labels
    return box


def _weights(grid: TileGrid, device: torch.device, *, gaussian: bool) -> torch.Tensor:
    if not gaussian:
        return torch.ones(grid.patch, device=device)
    patch = grid.patch[1:] if grid.patch[0] == 1 else grid.patch
    weights = torch.from_numpy(importance(patch).astype(np.float32)).reshape(grid.patch)
    return weights.to(device)


def _lifted_box(box: Box) -> Box:
    return box if len(box) == 3 else ((0, 1), *box)


def _network_focus(focus: Focus | None, record: PrepareRecord) -> tuple[float | None, float | None, float | None]:
    """Translate a position in image voxels to the network grid."""
    if focus is None:
        return None, None, None
    lifted = list(focus) if len(focus) == 3 else [None, *focus]
    moved = [lifted[a] for a in record.transpose_forward]
    z, y, x = (
        None if position is None else (position - lo) * n / max(hi - lo, 1)
        for position, (lo, hi), n in zip(moved, record.box, record.network_shape, strict=True)
    )
    return z, y, x


def _check_memory(expected: Estimate, limit_gb: float) -> None:
    free = available_memory()
    if expected.memory_bytes > free and _predictor.forget():
        free = available_memory()
    allowed = min(free, limit_gb * 1e9) if limit_gb else free
    if expected.memory_bytes > allowed:
        what = f"{free / 1e9:.1f} GB are free" if allowed == free else f"{limit_gb:g} GB are allowed"
        raise ResourceError(
            f"This prediction needs about {expected.memory_bytes / 1e9:.1f} GB of main memory, but only {what}. "
            "Segment a region, close other programs, or leave out the probabilities."
        )


def _recipe(predictor: Predictor, settings: PredictSettings, choice: Choice) -> dict[str, Any]:
    return {
        **recipe_of(predictor.model, predictor.folds, settings.checkpoint),
        "mirror_axes": list(predictor.mirror_axes),
        "step": settings.step,
        "gaussian": settings.gaussian,
        "average": predictor.model.average,
        "device": choice.device,
        "backend": choice.backend,
        "precision": choice.precision,
        "versions": {"napari-nnunet": __version__, "torch": str(torch.__version__), "numpy": np.__version__},
    }
