"""Blocks are computed, written and noted, one after the other."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from napari_nnunet.engine.image.prepare import PrepareRecord
from napari_nnunet.engine.large.blocks import DECODED_VOXELS, Block, BlockGrid
from napari_nnunet.engine.large.parts import Preparation
from napari_nnunet.engine.machine import give_memory_back
from napari_nnunet.engine.prediction.decode import Assembler
from napari_nnunet.engine.prediction.infer import Ensemble
from napari_nnunet.engine.prediction.sampling import sampling_parts
from napari_nnunet.engine.prediction.tiles import Accumulator
from napari_nnunet.errors import counted, is_out_of_memory
from napari_nnunet.events import Job, Note, Painted, Progress, Pump, Stage
from napari_nnunet.formats.large.journal import BlockEntry, BlockJournal
from napari_nnunet.formats.large.kept import ProbabilityImage
from napari_nnunet.formats.large.label_image import LabelImage
from napari_nnunet.formats.large.source import LargeImage, Stamp
from napari_nnunet.formats.model.folder import TrainedModel
from napari_nnunet.jobs.large.view import View, in_view
from napari_nnunet.jobs.prediction.predict import after_out_of_memory
from napari_nnunet.jobs.prediction.predictor import Predictor
from napari_nnunet.jobs.prediction.result import PreparedImage, Segmentation, count_labels
from napari_nnunet.jobs.prediction.windows import NotFiniteError, Sums, segment_windows, tiles_of, window_weights
from napari_nnunet.schema.requests.prediction import PredictSettings

T = TypeVar("T")
_Made = tuple[NDArray[Any], NDArray[np.float32] | None]  # labels, and probabilities
_LOOKING = 0.05  # of the time, at most


@dataclass(eq=False)
class Filling:
    """A label image that is being filled.

    Parameters
    ----------
    model : TrainedModel
        What segments.
    image : LargeImage
        What is segmented.
    labels : LabelImage
        Where to.
    journal : BlockJournal
        What is finished.
    settings : PredictSettings
        How.
    stamp : Stamp
        Of the image when it was first looked at.
    store : ProbabilityImage, optional
        Where probabilities go, in which numbered objects are found later.
    counts : dict
        Voxels of each label value, block by block.
    computed, kept : int
        Blocks of this run, and of earlier ones.
    """

    model: TrainedModel
    image: LargeImage
    labels: LabelImage
    journal: BlockJournal
    settings: PredictSettings
    stamp: Stamp
    store: ProbabilityImage | None = None
    counts: dict[tuple[int, ...], Sequence[int]] = field(default_factory=dict)
    computed: int = 0
    kept: int = 0

    @property
    def total(self) -> tuple[int, ...]:
        """Voxels of each label value in the whole image."""
        values = max(self.model.dataset.labels.names) + 1
        found = np.zeros(values, dtype=np.int64)
        for counts in self.counts.values():
            found[: len(counts)] += np.asarray(counts, dtype=np.int64)
        found[0] = self.image.times * int(np.prod(self.image.shape_3d)) - int(found[1:].sum())
        return tuple(int(n) for n in found)


def fill(
    filling: Filling,
    predictor: Predictor,
    points: Sequence[tuple[Preparation, BlockGrid]],
    view: View | None = None,
) -> Job[None]:
    """Compute the blocks of all time points that are not finished; first those that are seen now.

    Raises
    ------
    ImageError
        If the image cannot be read somewhere, or was changed meanwhile.
    ResourceError
        If a block cannot be written, or memory runs out.
    """
    todo = list(left(filling, points))
    if filling.kept:
        yield Note(text=f"{counted(filling.kept, 'block is', 'blocks are')} finished already; {len(todo)} are left.")
    runs = [_runs(filling, predictor, preparation.record, block) for _, preparation, block in todo]
    total, before, began, watch = sum(runs), 0, time.monotonic(), ImageWatch(partial(require_unchanged, filling))
    yield Stage(name="Segmenting", total=total)
    for number in in_view([(point, block.box) for point, _, block in todo], view):
        point, preparation, block = todo[number]
        counts = yield from _followed(finished(filling, predictor, preparation, block, point), before, total, began)
        before += runs[number]
        watch.look()
        yield settled(filling, block, point, counts)
    require_unchanged(filling)


def finished(
    filling: Filling, predictor: Predictor, preparation: Preparation, block: Block, point: int
) -> Job[tuple[int, ...]]:
    """Compute a block and write it; returns the voxels of each label value. It may be done more than once."""
    labels, probabilities = yield from _computed(filling, predictor, preparation, block)
    if filling.store is not None and probabilities is not None:
        filling.store.write(block.box, [probabilities[head] for head in filling.store.heads], point)
    filling.labels.write(block.box, labels, point)
    counts = tuple(int(n) for n in count_labels(labels, max(filling.model.dataset.labels.names) + 1))
    del labels, probabilities
    give_memory_back()
    return counts


def settled(filling: Filling, block: Block, point: int, counts: tuple[int, ...]) -> Painted:
    """Note that a block is written; returns what to tell of it."""
    filling.counts[(point, *block.place)] = counts
    filling.journal.note(BlockEntry(at=(point, *block.place), counts=counts))
    filling.computed += 1
    return Painted(box=block.box[-len(filling.image.shape) :], final=True)


def left(filling: Filling, points: Sequence[tuple[Preparation, BlockGrid]]) -> Iterator[tuple[int, Preparation, Block]]:
    """Give the blocks that are not finished, but for those of the empty border."""
    noted = {entry.at: entry.counts for entry in filling.journal.all(BlockEntry)}
    for point, (preparation, layout) in enumerate(points):
        for block in layout.blocks():
            if (at := (point, *block.place)) in noted:
                filling.counts[at] = _counted(filling, block, noted[at])
                filling.kept += 1
            elif block.inner is not None:
                yield point, preparation, block


def _counted(filling: Filling, block: Block, counts: tuple[int, ...]) -> tuple[int, ...]:
    """Return the noted voxels of each label value in a block; raises SettingsError if a block has others."""
    values = max(filling.model.dataset.labels.names) + 1
    if len(counts) > values or sum(counts) != math.prod(hi - lo for lo, hi in block.box):
        raise filling.journal.damaged("the voxels it counts in a finished block are not as many as the block has.")
    return counts


def _followed(job: Job[T], before: int, total: int, began: float) -> Job[T]:
    """Return what a block's job returns; of its progress, say what it is of the whole image's."""
    with Pump(job) as pump:
        for event in pump:
            if isinstance(event, Progress):
                done = before + event.done
                left = (time.monotonic() - began) / done * (total - done)
                yield Progress(done=done, total=total, seconds_left=left)
            elif isinstance(event, Note):
                yield event
    return pump.result


def require_unchanged(filling: Filling) -> None:
    """Raise ImageError if the image is no longer what it was when it was first looked at."""
    if filling.image.stamp() != filling.stamp:
        raise filling.journal.changed(filling.image.name)


class ImageWatch:
    """Looks whether the image changed, for a small part of the time only: it may have millions of files.

    Parameters
    ----------
    require : callable
        Raises ImageError where it was changed.
    """

    def __init__(self, require: Callable[[], None]) -> None:
        self._require = require
        self._next = 0.0

    def look(self) -> None:
        """Look, if it is time to; raises ImageError where it was changed."""
        began = time.monotonic()
        if began >= self._next:
            self._require()
            now = time.monotonic()
            self._next = now + (now - began) / _LOOKING


def _runs(filling: Filling, predictor: Predictor, record: PrepareRecord, block: Block) -> int:
    """Return how many network runs a block takes."""
    part = _part_of(filling, record, block)[1]
    size, ensemble = predictor.ensemble.windows_per_round, predictor.ensemble
    whole, rest = divmod(part.count, size)
    return whole * ensemble.forwards(size) + (ensemble.forwards(rest) if rest else 0)


def _part_of(filling: Filling, record: PrepareRecord, block: Block) -> Any:
    """Return the way back to a block and the windows it needs."""
    if block.inner is None:
        raise ValueError("a block outside of the nonzero box has no windows")
    model = filling.model
    axes, needed = sampling_parts(record, model.configuration.resample_probabilities, block.inner)
    return axes, tiles_of(model, record, filling.settings).part(needed)


def _computed(filling: Filling, predictor: Predictor, preparation: Preparation, block: Block) -> Job[_Made]:
    """Return the labels (z, y, x) of a block, in the image's own order; falls back as a prediction in memory does.

    Where they are kept, its probabilities (C, z, y, x) come with it.

    Every block begins with the arithmetic of the whole image, so that it does not matter which ones a run computes.
    """
    ensemble, on_device = predictor.ensemble, filling.settings.on_device
    while True:
        try:
            return (yield from _once(filling, predictor, ensemble, preparation, block, on_device=on_device))
        except NotFiniteError:
            yield Note(level="warning", text=f"{ensemble.choice.precision} overflowed; repeating in float32.")
            ensemble = ensemble.rebuilt(replace(ensemble.choice, precision="float32", why="range of values"))
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            model = filling.model
            on_device, ensemble = yield from after_out_of_memory(ensemble, model, on_device=on_device, error=error)


def _once(
    filling: Filling,
    predictor: Predictor,
    ensemble: Ensemble,
    preparation: Preparation,
    block: Block,
    *,
    on_device: bool,
) -> Job[_Made]:
    model, whole = filling.model, preparation.record
    labels = np.zeros([hi - lo for lo, hi in block.box], dtype=model.dataset.labels.dtype)
    place, probabilities = _place(whole, block), None
    if filling.store is not None:
        probabilities = np.zeros((model.dataset.labels.heads, *labels.shape), dtype=np.float32)
    axes, grid = _part_of(filling, whole, block)
    inner = block.inner or ()
    z, y, x = (hi - lo for lo, hi in inner)
    record = replace(whole, shape=(z, y, x), box=((0, z), (0, y), (0, x)), network_shape=grid.shape, notes=())
    device = torch.device(ensemble.choice.device if on_device and ensemble.choice.kind != "cpu" else "cpu")
    data = torch.from_numpy(preparation.part(grid.covered)).to(device)
    assembler = Assembler(
        record,
        model.dataset.labels,
        model.configuration.resample_probabilities,
        labels[place],
        None if probabilities is None else probabilities[(slice(None), *place)],
        head=ensemble.head(),
        average=model.average,
        axes=axes,
        at_once=DECODED_VOXELS,
    )
    weights = window_weights(grid, device, gaussian=filling.settings.gaussian)
    accumulator = Accumulator(grid, ensemble.channels, weights)
    sums = Sums(data, grid, list(grid.tiles()), accumulator, assembler, labels, ensemble.choice)
    task = Segmentation(PreparedImage(data, record), filling.settings, labels, None)
    yield from segment_windows(predictor, ensemble, task, sums)
    return labels, probabilities


def _place(record: PrepareRecord, block: Block) -> tuple[slice, ...]:
    """Return where in a block what lies within the nonzero box is, in the image's own order."""
    slices = []
    for axis, (first, _) in enumerate(block.box):
        moved = record.transpose_forward.index(axis)
        lo, hi = (end + record.box[moved][0] for end in (block.inner or ())[moved])
        slices.append(slice(lo - first, hi - first))
    return tuple(slices)
