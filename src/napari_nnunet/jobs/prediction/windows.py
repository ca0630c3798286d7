"""Walk over the windows of a prepared image: sum up, decode what is complete, paint previews."""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from napari_nnunet.engine.image.prepare import PrepareRecord
from napari_nnunet.engine.network.device import BackendChoice
from napari_nnunet.engine.prediction import decode, infer
from napari_nnunet.engine.prediction.tiles import Accumulator, Tile, TileGrid, importance
from napari_nnunet.errors import ModelError
from napari_nnunet.events import Box, Job, Painted, Progress, Stage
from napari_nnunet.formats import speed
from napari_nnunet.formats.model.folder import TrainedModel
from napari_nnunet.jobs.network_speed import speed_key
from napari_nnunet.jobs.prediction.predictor import Predictor
from napari_nnunet.jobs.prediction.result import (
    Focus,
    Segmentation,
)
from napari_nnunet.schema.requests.prediction import PredictSettings


class NotFiniteError(Exception):
    """Reduced precision overflowed."""


def clear_outside(probabilities: NDArray[np.float32], region: Any, *, background: bool) -> None:
    """Leave probabilities inside the region only; the context around it was computed as well."""
    inside = probabilities[(slice(None), *region)].copy()
    probabilities[:] = 0
    if background:
        probabilities[0] = 1
    probabilities[(slice(None), *region)] = inside


def tiles_of(model: TrainedModel, record: PrepareRecord, settings: PredictSettings) -> TileGrid:
    """Return the windows of a prepared image."""
    return TileGrid(record.network_shape, model.configuration.patch_3d, settings.step)


@dataclass
class _Bar:
    """How many network runs of an image are done, and since when those of this time."""

    total: int
    done: int = 0
    before: int = 0
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
            yield Progress(done=self.done, total=self.total, seconds_left=self.each * (self.total - self.done))

    @property
    def each(self) -> float:
        """Seconds of a run."""
        return (time.monotonic() - self.began) / max(self.done - self.before, 1)


@dataclass(eq=False)
class Sums:
    """A segmentation between its first and its last window.

    Parameters
    ----------
    data : Tensor, shape (C, z, y, x)
        The prepared image, padded to at least one window.
    grid, tiles : TileGrid, list of Tile
        The windows, in their order.
    accumulator, assembler : Accumulator, Assembler
        Sums of windows that are not complete; what makes labels of those that are.
    labels : ndarray, shape (Z, Y, X)
        The canvas, or where only a region is shown, all labels.
    choice : BackendChoice
        Device and arithmetic; another one must not carry on.
    next : int
        The first window that was not added.
    """

    data: torch.Tensor
    grid: TileGrid
    tiles: Sequence[Tile]
    accumulator: Accumulator
    assembler: decode.Assembler
    labels: NDArray[Any]
    choice: BackendChoice
    next: int = 0


def begin_windows(
    model: TrainedModel, ensemble: infer.Ensemble, task: Segmentation, record: PrepareRecord, data: torch.Tensor
) -> Sums:
    """Return what the windows of a prepared image (C, z, y, x) are summed up in."""
    grid = tiles_of(model, record, task.settings)
    labels = task.labels if task.roi is None else np.zeros_like(task.labels)
    assembler = decode.Assembler(
        record,
        model.dataset.labels,
        model.configuration.resample_probabilities,
        labels,
        task.probabilities,
        ensemble.head(),
        model.average,
    )
    for other in task.also:
        other.begin()
    weights = window_weights(grid, data.device, gaussian=task.settings.gaussian)
    accumulator = Accumulator(grid, ensemble.channels, weights)
    tiles = list(grid.tiles(_network_focus(task.focus, record)))
    return Sums(infer.pad(data, grid), grid, tiles, accumulator, assembler, labels, ensemble.choice)


def segment_windows(predictor: Predictor, ensemble: infer.Ensemble, task: Segmentation, sums: Sums) -> Job[None]:
    """Walk over the windows that are left, sum them up, write what is complete."""
    slicewise = predictor.model.configuration.ndim == 2
    size = ensemble.windows_per_round
    rounds = {i: sums.tiles[i : i + size] for i in range(0, len(sums.tiles), size)}
    total = sum(ensemble.forwards(len(part)) for part in rounds.values())
    before = sum(ensemble.forwards(len(part)) for i, part in rounds.items() if i < sums.next)
    yield Stage(name="Segmenting", total=total)
    ensemble.compile()
    bar = _Bar(total, before, before)
    try:
        for i, part in rounds.items():
            if i < sums.next:
                continue
            logits = yield from bar.follow(ensemble.logits(infer.cut_windows(sums.data, part, slicewise=slicewise)))
            logits = logits.to(sums.data.device)
            windows = logits[:, :, None] if slicewise else logits
            # Nothing is said before all of it is added: a cancel leaves whole rounds behind.
            painted = [e for tile, window in zip(part, windows, strict=True) for e in _place(tile, window, task, sums)]
            sums.next = i + size
            yield from painted
    except GeneratorExit:
        if sums.data.device.type == "cpu":  # others may want the memory of a GPU, which is fast enough to begin anew
            task.halt.sums = sums
        raise
    speed.remember(speed_key(predictor.model, ensemble), bar.each)


def _place(tile: Tile, logits: torch.Tensor, task: Segmentation, sums: Sums) -> Job[None]:
    """Add one window; announce previews and finished planes."""
    record, labels = sums.assembler.record, sums.labels
    if task.preview:
        box = _paint_preview(tile, logits, sums.grid, sums.assembler, labels)
        yield from _announce(box, task, labels, record, final=False)
    for start, stop, mean in sums.accumulator.add(tile, logits):
        _require_finite(mean, sums)
        for other in task.also:
            other.push(start, stop, mean)
        for lo, hi in sums.assembler.push(start, stop, mean):
            (z0, _), y, x = record.box
            yield from _announce(((z0 + lo, z0 + hi), y, x), task, labels, record, final=True)


def _require_finite(mean: torch.Tensor, sums: Sums) -> None:
    """Refuse what is no number before it becomes a label: every comparison with it is false, so it would be background.

    Parameters
    ----------
    mean : Tensor, shape (C, z, y, x)
        Of a finished slab: logits, or features where the assembler has the last layer.
    sums : Sums
        Of the image.

    Raises
    ------
    NotFiniteError
        In 16-bit floats; float32 may hold what they do not.
    ModelError
        In float32.
    """
    # A sum is finite where everything in it is; looking at each value takes longer than deciding. And a look waits
    # for whatever a GPU has begun: once for a finished slab, not for every window.
    if math.isfinite(float(mean.sum())) and _stays_finite(mean, sums.assembler.head):
        return
    if sums.choice.precision != "float32":
        raise NotFiniteError
    if sums.assembler.head is None and bool(torch.isfinite(mean).all()):  # only their sum is too large
        return
    raise ModelError(
        "The network gives values that are not numbers (NaN or infinite), in float32 too. Its weights are damaged, or "
        "it diverged when it was trained, or the image has values beyond what float32 can compute with. Look at the "
        "image's values; if they are as usual, use another fold, or train this one again."
    )


def _stays_finite(features: torch.Tensor, head: tuple[torch.Tensor, torch.Tensor] | None) -> bool:
    """Whether a last layer that is applied later makes finite logits of features, which may be interpolated before."""
    if head is None:
        return True
    weights, biases = head
    largest = float(features.abs().amax()) * float(weights.abs().sum(dim=1).amax()) + float(biases.abs().amax())
    return largest < torch.finfo(torch.float32).max


def _announce(
    box: Box | None, task: Segmentation, scratch: NDArray[Any], record: PrepareRecord, *, final: bool
) -> Job[None]:
    """Copy what lies inside the region to the canvas and report which part of the image changed."""
    if box is None:
        return
    own: Box = tuple(box[record.transpose_forward.index(a)] for a in range(3))
    if task.roi is not None:
        roi = lifted_box(task.roi)
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


def window_weights(grid: TileGrid, device: torch.device, *, gaussian: bool) -> torch.Tensor:
    """Return how much each voxel (z, y, x) of a window counts, float32."""
    if not gaussian:
        return torch.ones(grid.patch, device=device)
    patch = grid.patch[1:] if grid.patch[0] == 1 else grid.patch
    weights = torch.from_numpy(importance(patch).astype(np.float32)).reshape(grid.patch)
    return weights.to(device)


def lifted_box(box: Box) -> Box:
    """Return a box with three axes; that of a 2-D image is one slice."""
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
