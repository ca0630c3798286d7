"""Blocks of a large image on workers of a cluster: each opens the image once, then computes and writes blocks."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

from napari_nnunet.engine.large.blocks import Block, BlockGrid
from napari_nnunet.engine.large.boxes import Shape3
from napari_nnunet.engine.large.parts import Preparation
from napari_nnunet.engine.large.survey import ImageFacts
from napari_nnunet.engine.network.backends import torch_threads
from napari_nnunet.errors import SettingsError, counted
from napari_nnunet.events import Job, Note, Progress, Pump, Stage
from napari_nnunet.formats.large.journal import BlockJournal
from napari_nnunet.formats.large.label_image import Destination, LabelImage
from napari_nnunet.formats.large.source import LargeImage, Stamp
from napari_nnunet.formats.model.folder import TrainedModel, load_model
from napari_nnunet.jobs.large.budget import Budget
from napari_nnunet.jobs.large.fill import Filling, ImageWatch, finished, left, require_unchanged, settled
from napari_nnunet.jobs.large.objects.numbering import store_of
from napari_nnunet.jobs.large.ready import kept_content, planned, prepared
from napari_nnunet.jobs.prediction.predictor import borrowed
from napari_nnunet.processes.cluster.team import Team
from napari_nnunet.processes.pool import Outcome, Task
from napari_nnunet.schema.requests.prediction import PredictSettings


@dataclass(frozen=True, eq=False)
class Share:
    """What a worker must know to compute any block of an image.

    Parameters
    ----------
    token : str
        Tells it from others, so that a worker opens everything once.
    model : Path
        The model's folder.
    image, previous : callable
        Open the image, and the labels of a cascade's first stage; None without one.
    place : Destination
        Of the result.
    chunk : tuple of int
        Of the result (z, y, x).
    settings : PredictSettings
        How it predicts.
    memory_gb : float
        What a worker may take; 0 means half of what is free there.
    facts : tuple of ImageFacts
        Of every time point.
    stamp : Stamp
        Of the image when it was first looked at.
    block : tuple of int, optional
        Voxels of a block (z, y, x); None until they are chosen.
    """

    token: str
    model: Path
    image: Callable[[], LargeImage] | None
    previous: Callable[[], LargeImage] | None
    place: Destination
    chunk: Shape3
    settings: PredictSettings
    memory_gb: float
    facts: tuple[ImageFacts, ...]
    stamp: Stamp
    block: Shape3 | None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Share) and other.token == self.token

    def __hash__(self) -> int:
        return hash(self.token)


def require_sendable(image: LargeImage) -> None:
    """Raise SettingsError if workers cannot open an image: an array of this process."""
    if image.again is None:
        raise SettingsError(
            f"{image.name} is in this process alone, where workers of a cluster cannot see it. Save it, as zarr for "
            "instance, and give the file."
        )


def fill_elsewhere(
    filling: Filling, workers: Team, share: Share, points: Sequence[tuple[Preparation, BlockGrid]]
) -> Job[None]:
    """Let workers compute the blocks of all time points that are not finished; each is noted when it is written.

    Raises
    ------
    ImageError, ResourceError
        What a block failed with, or that the image was changed meanwhile; the other blocks are kept.
    """
    todo = {f"{point} {block.place}": (point, block) for point, _, block in left(filling, points)}
    if filling.kept:
        yield Note(text=f"{counted(filling.kept, 'block is', 'blocks are')} finished already; {len(todo)} are left.")
    yield Stage(name="Segmenting", total=len(todo))
    began, done, watch = time.monotonic(), 0, ImageWatch(partial(require_unchanged, filling))
    tasks = (Task(name, (share, point, block.place), lambda: 0.0) for name, (point, block) in todo.items())
    with closing(workers.outcomes(compute_block, tasks)) as stream:
        for item in stream:
            if isinstance(item, Note):
                yield item
            elif isinstance(item, Outcome):
                if item.error is not None:
                    raise item.error
                point, block = todo[item.name]
                counts, notes = item.result
                watch.look()
                yield from notes
                yield settled(filling, block, point, counts)
                done += 1
            spent = time.monotonic() - began
            yield Progress(done=done, total=len(todo), seconds_left=spent / done * (len(todo) - done) if done else None)
    require_unchanged(filling)


def loaded() -> None:
    """Load what computes blocks, with this module: a worker that waits can do that meanwhile."""


def plan_elsewhere(share: Share, workers: int) -> tuple[PredictSettings, str, Shape3]:
    """Choose arithmetic and blocks on a worker, which all of so many will use.

    Returns
    -------
    PredictSettings, str, tuple of int
        With the arithmetic; what it is, in words; voxels of a block (z, y, x).
    """
    opened = _opened(share)
    with borrowed(opened.model, share.settings) as predictor:
        choice = predictor.choice
        settings = share.settings.replace(device=choice.device, backend=choice.backend, precision=choice.precision)
        block = share.block
        if block is None:
            record = opened.preparations[0].record
            block = planned(predictor, record, share.chunk, settings, Budget.of(share.memory_gb), workers).block
    return settings, f"{choice} ({choice.why})", block


def compute_block(share: Share, point: int, place: Shape3) -> tuple[tuple[int, ...], tuple[Note, ...]]:
    """Compute and write a block on a worker; done twice, it writes the same.

    Returns
    -------
    tuple of int, tuple of Note
        Voxels of each label value in it, and what was said meanwhile.
    """
    opened = _opened(share)
    labels = LabelImage(share.place, opened.image, opened.model.dataset.labels, share.chunk)
    labels.open(begun=True)
    journal = BlockJournal(share.place.unfinished)
    store = store_of(opened.model, opened.image, share.settings, share.place, share.chunk)
    if store is not None:
        store.open(begun=True)
    filling = Filling(opened.model, opened.image, labels, journal, share.settings, share.stamp, store)
    preparation = opened.preparations[point]
    block: Block = BlockGrid(preparation.record, share.block or share.chunk).at(place)
    with borrowed(opened.model, share.settings) as predictor, torch_threads(predictor.choice.threads):
        with Pump(finished(filling, predictor, preparation, block, point)) as pump:
            notes = tuple(event for event in pump if isinstance(event, Note))
        return pump.result, notes


@dataclass(frozen=True, eq=False)
class _Opened:
    model: TrainedModel
    image: LargeImage
    preparations: tuple[Preparation, ...]


@lru_cache(maxsize=2)
def _opened(share: Share) -> _Opened:
    """Open model and image once per worker; the networks are kept as well, by :func:`borrowed`."""
    model = load_model(share.model)
    if share.image is None:
        raise ValueError("an image that cannot be opened elsewhere was sent to a worker")
    image = share.image()
    previous = None if share.previous is None else share.previous()
    content = kept_content(model, image, share.place.unfinished, share.chunk)
    if content is not None and any(facts.is_hollow for facts in share.facts):
        content.open(begun=True)
    parts = (prepared(model, image, facts, point, previous, content) for point, facts in enumerate(share.facts))
    return _Opened(model, image, tuple(parts))
