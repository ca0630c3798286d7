"""Segment one image of any size, block by block; what is finished is kept whatever happens."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from napari_nnunet.engine.image.prepare import PrepareRecord
from napari_nnunet.engine.large.blocks import BlockGrid
from napari_nnunet.engine.large.case import masked_channels
from napari_nnunet.engine.large.parts import Preparation
from napari_nnunet.engine.large.survey import ImageFacts
from napari_nnunet.engine.network.backends import torch_threads
from napari_nnunet.errors import counted
from napari_nnunet.events import Job, Note, Stage
from napari_nnunet.formats.claim import claimed
from napari_nnunet.formats.images.files import write_labels
from napari_nnunet.formats.large.corrections import by_hand
from napari_nnunet.formats.large.journal import ArithmeticEntry, BlockEntry, BlockJournal, LayoutEntry
from napari_nnunet.formats.large.kept import KeptImage
from napari_nnunet.formats.large.label_image import Destination, LabelImage, require_free
from napari_nnunet.formats.large.ome_zarr import library
from napari_nnunet.formats.large.opening import Say, open_image
from napari_nnunet.formats.large.place import ImagePlace
from napari_nnunet.formats.large.source import LargeImage, Stamp
from napari_nnunet.formats.model.folder import TrainedModel
from napari_nnunet.jobs.large.budget import Budget
from napari_nnunet.jobs.large.elsewhere import Share, fill_elsewhere, loaded, plan_elsewhere, require_sendable
from napari_nnunet.jobs.large.expected import chunk_of, is_zarr_target, require_file, require_fit
from napari_nnunet.jobs.large.fill import Filling, fill
from napari_nnunet.jobs.large.objects.numbering import Numbering, kept_objects, numbering_of
from napari_nnunet.jobs.large.ready import (
    CONTENT,
    as_large_as_allowed,
    kept_content,
    limited_axis,
    planned,
    prepared,
)
from napari_nnunet.jobs.large.survey import content_surveyed, require_unmoved, surveyed
from napari_nnunet.jobs.large.view import View
from napari_nnunet.jobs.large.work import DONE, STATE, made_of, require_complete, take_up, work_of
from napari_nnunet.jobs.prediction.folder.case import model_reader
from napari_nnunet.jobs.prediction.predict import first_stage_of
from napari_nnunet.jobs.prediction.predictor import Predictor, borrowed
from napari_nnunet.processes.cluster.team import Elsewhere, Team, result_of, team
from napari_nnunet.schema.geometry import Geometry
from napari_nnunet.schema.objects import forgotten_objects
from napari_nnunet.schema.requests.large import PredictImageSettings
from napari_nnunet.schema.requests.prediction import PredictSettings

_FIRST = "first-stage.zarr"  # within an unfinished result
_FILES = "A .nii.gz or .nrrd keeps it, where the labels fit into memory twice."


@dataclass(frozen=True)
class LargeResult:
    """What became of a large image.

    Parameters
    ----------
    path : Path
        The result.
    counts : tuple of int
        Voxels of each label value, beginning with 0.
    blocks, kept : int
        How many blocks were computed, and how many an earlier run had finished.
    seconds : float
        Wall time.
    objects : dict of str to int, optional
        Where the labels are numbered objects, how many there are of each kind, in all time points together; ``counts``
        is empty then.
    """

    path: Path
    counts: tuple[int, ...]
    blocks: int
    kept: int
    seconds: float
    objects: dict[str, int] | None = None


def predict_image(
    model: TrainedModel,
    image: LargeImage,
    target: Path,
    asked: PredictImageSettings | None = None,
    workers: Team | None = None,
    view: View | None = None,
) -> Job[LargeResult]:
    """Segment an image of any size; neither it nor its result is ever in memory as a whole.

    The labels are those of :func:`~napari_nnunet.jobs.prediction.predict.predict`, except where two classes are ahead
    by no more than rounding. A model of numbered objects gives these: blocks keep the probabilities of cores and
    borders on the disk, in which objects are found slab by slab at the end.

    Parameters
    ----------
    model : TrainedModel
        The model.
    image : LargeImage
        See :func:`~napari_nnunet.formats.large.opening.open_image`.
    target : Path
        OME-Zarr (``NAME.zarr``, or ``labels/NAME`` in the image's folder), or a file of another format.
    asked : PredictImageSettings, optional
        nnU-Net's own settings if not given.
    workers : Team, optional
        Workers of a cluster that are there already; ``asked.cluster`` names others.
    view : View, optional
        Where somebody looks meanwhile, on this computer: what is seen comes first, and coarser levels are filled too.

    Yields
    ------
    Event
        Stage, Progress, Note; Painted when a block is finished.

    Returns
    -------
    LargeResult
        Where it is, and what is in it.

    Raises
    ------
    ModelError, ImageError, SettingsError, ResourceError
        If model, image and result do not fit, something cannot be read or written, or memory is not enough. What is
        finished is kept, and continued by the same with ``carry_on``.
    """
    asked = asked or PredictImageSettings()
    if asked.cluster is None or workers is not None:
        return (yield from _predicted(model, image, target, asked, workers, view))
    library("zarr", "Labels of large images are kept")  # before workers are waited for
    need = Elsewhere(asked.cluster, (model.folder, *image.files, *image.behind), target.parent, network=True)
    require_sendable(image)
    with team(need) as found:
        yield from result_of(found.gathered())
        found.tell(loaded)
        return (yield from _predicted(model, image, target, asked, found))


def _predicted(
    model: TrainedModel,
    image: LargeImage,
    target: Path,
    asked: PredictImageSettings,
    workers: Team | None,
    view: View | None = None,
) -> Job[LargeResult]:
    began = time.monotonic()
    settings = asked.settings(model.resolve_folds(None, asked.checkpoint))
    require_fit(model, image, settings)
    place, budget = Destination.of(target, image), Budget.of(asked.memory_gb)
    numbers = numbering_of(model, image, settings, place, chunk_of(asked, image))
    if not is_zarr_target(target):
        require_file(target, image, model, budget, numbers)
    labels = LabelImage(place, image, model.dataset.labels, chunk_of(asked, image))
    known = work_of(model, image, settings, labels, numbers)
    with claimed(place.path.parent, f"{place.path} is already being written", part=place.path.name):
        if asked.carry_on and place.path.exists() and (not place.begun or labels.origin()):
            yield from require_complete(labels, known, image)
            labels.forget()  # what a kill left
            return LargeResult(place.path, (), 0, 0, time.monotonic() - began, kept_objects(labels.origin()))
        require_free(place, by_hand(place.path))
        journal = BlockJournal(place.unfinished)
        settings = take_up(journal, place, known, settings, carry_on=asked.carry_on)
        yield from _told_before(image, target)
        if numbers is not None:
            yield from numbers.require_room(budget)
        elif not settings.classes and (forgotten := forgotten_objects(model.dataset)):
            yield Note(level="warning", text=forgotten)
        stamp = Stamp(*known[STATE])
        work = _Work(model, image, labels, journal, settings, budget, stamp, workers, asked.memory_gb, view, numbers)
        filling = yield from _filled(work, (yield from _facts(work)))
        yield from require_unmoved(image, journal)
        found = yield from _ended(work, filling, target, made_of(known, journal, image))
    return replace(found, seconds=time.monotonic() - began)


def _told_before(image: LargeImage, target: Path) -> Job[None]:
    """Say what was chosen in opening an image, and what is odd about it."""
    for text in image.notes:
        yield Note(text=text)
    for text in image.geometry.remarks:
        yield Note(level="warning", text=f"{image.name}: {text}.")
    if is_zarr_target(target) and (unsaid := image.unsaid):
        yield Note(level="warning", text=f"{unsaid} {_FILES}", in_window=unsaid)


def _ended(work: _Work, filling: Filling, target: Path, origin: Mapping[str, Any]) -> Job[LargeResult]:
    """Make the result of what the blocks gave."""
    counts = (filling.computed, filling.kept, 0.0)
    if work.numbers is not None:
        writer = None if is_zarr_target(target) else model_reader(work.model)
        found = yield from work.numbers.write(target, work.budget, origin, DONE, writer)
        work.labels.forget()
        return LargeResult(found.path, (), *counts, found.objects)
    yield Stage(name=DONE)
    if is_zarr_target(target):
        work.labels.complete(origin)
        work.journal.remove()
        work.labels.settle()
    else:
        _write_file(work, target)
    return LargeResult(target, filling.total, *counts)


@dataclass(frozen=True, eq=False)
class _Work:
    """What is done, where to, with how much memory, by whom and for whose eyes; ``stamp`` is the image's at first."""

    model: TrainedModel
    image: LargeImage
    labels: LabelImage
    journal: BlockJournal
    settings: PredictSettings
    budget: Budget
    stamp: Stamp
    workers: Team | None
    memory_gb: float
    view: View | None
    numbers: Numbering | None = None

    @cached_property
    def content(self) -> KeptImage | None:
        """Where the image's content is kept, in which some channel is normalised."""
        return kept_content(self.model, self.image, self.labels.place.unfinished, self.labels.chunk)

    def forget_beside(self) -> None:
        """Delete what only blocks need, which are all there."""
        self.labels.forget_beside(_FIRST)
        self.labels.forget_beside(CONTENT)


def _facts(work: _Work) -> Job[list[ImageFacts]]:
    """Return what is known of every time point as a whole."""
    model, image, axis = work.model, work.image, limited_axis(work.model, work.image)
    facts = yield from surveyed(image, work.journal, axis)
    if work.content is None:
        return facts
    masked, allowed = masked_channels(model.configuration), work.budget.left_now / 2
    return (yield from content_surveyed(image, work.journal, facts, axis, masked, work.content, allowed))


def _filled(work: _Work, facts: Sequence[ImageFacts]) -> Job[Filling]:
    """Compute all blocks that are not finished."""
    model, journal = work.model, work.journal
    previous = yield from _first_stage(work)
    preparations = []
    for point, known in enumerate(facts):
        preparation = prepared(model, work.image, known, point, previous, work.content)
        yield from _noted(known, preparation.record)
        preparations.append(preparation)
    if work.workers is not None:
        return (yield from _filled_elsewhere(work, work.workers, facts, preparations, previous))
    yield Stage(name="Loading the model")
    with borrowed(model, work.settings) as predictor, ExitStack() as stack:
        choice = predictor.choice
        yield from predictor.said
        stack.enter_context(torch_threads(choice.threads))
        if not journal.all(ArithmeticEntry):
            own = {"device": choice.device, "backend": choice.backend, "precision": choice.precision}
            journal.note(ArithmeticEntry(**own))
        if (noted := _noted_layout(work, preparations[0].record)) is not None:
            yield from as_large_as_allowed(predictor, noted, work.settings, work.budget if work.memory_gb else None)
        layouts = [_layout(predictor, part.record, work) for part in preparations]
        filling = _opened(work, work.settings, seen=work.view is not None)
        yield from fill(filling, predictor, list(zip(preparations, layouts, strict=True)), work.view)
    work.forget_beside()
    return filling


def _filled_elsewhere(
    work: _Work,
    workers: Team,
    facts: Sequence[ImageFacts],
    preparations: Sequence[Preparation],
    previous: LargeImage | None,
) -> Job[Filling]:
    """Let workers compute all blocks that are not finished; the first of them chooses arithmetic and blocks."""
    model, journal, image, labels = work.model, work.journal, work.image, work.labels
    noted = _noted_layout(work, preparations[0].record)
    share = Share(
        secrets.token_hex(8),
        model.folder,
        image.again,
        None if previous is None else previous.again,
        labels.place,
        labels.chunk,
        work.settings,
        work.memory_gb or workers.memory_gb,
        tuple(facts),
        work.stamp,
        None if noted is None else noted.block,
    )
    if noted is None or not journal.all(ArithmeticEntry):
        yield Stage(name="Loading the model")
        settings, chosen, block = yield from result_of(workers.one(plan_elsewhere, share, workers.count))
        yield Note(text=f"Computing on {chosen}.")
        if not journal.all(ArithmeticEntry):
            own = {"device": settings.device, "backend": settings.backend, "precision": settings.precision}
            journal.note(ArithmeticEntry(**own))
        if noted is None:
            journal.note(LayoutEntry(block=block))
        share = replace(share, token=secrets.token_hex(8), settings=settings, block=block)
    filling = _opened(work, share.settings)
    layouts = [BlockGrid(part.record, share.block) for part in preparations if share.block is not None]
    yield from fill_elsewhere(filling, workers, share, list(zip(preparations, layouts, strict=True)))
    work.forget_beside()
    return filling


def _opened(work: _Work, settings: PredictSettings, *, seen: bool = False) -> Filling:
    """Open what is filled, or make it."""
    begun = bool(work.journal.all(BlockEntry))
    work.labels.open(begun=begun, seen=seen)
    store = None if work.numbers is None else work.numbers.store
    if store is not None:
        store.open(begun=begun)
    return Filling(work.model, work.image, work.labels, work.journal, settings, work.stamp, store)


def _noted(facts: ImageFacts, record: PrepareRecord) -> Job[None]:
    """Say what is odd about an image."""
    if facts.invalid:
        yield Note(
            level="warning",
            text=f"{counted(facts.invalid, 'voxel was', 'voxels were')} NaN or infinite and set to 0.",
        )
    if not facts.content:
        yield Note(level="warning", text="The image contains only zeros.")
    for text in record.notes:
        yield Note(level="warning", text=text)


def _first_stage(work: _Work) -> Job[LargeImage | None]:
    """Return the labels of a cascade's first stage, which are kept within the unfinished result; None without one."""
    if work.model.configuration.previous_stage is None:
        return None
    first, settings = first_stage_of(work.model, work.settings)
    yield Note(text=f"First stage of the cascade: {first.name}.")
    size = (*work.labels.chunk,)[-len(work.image.shape) :]
    memory = work.budget.bytes / 1e9 if work.workers is None else work.memory_gb
    asked = PredictImageSettings.like(settings, memory_gb=memory, carry_on=True, chunk=size)
    path = work.labels.place.unfinished / _FIRST
    image = replace(work.image, notes=(), place=ImagePlace(Geometry(spacing=work.image.geometry.spacing)))
    yield from predict_image(first, image, path, asked, work.workers)
    yield Note(text=f"Second stage of the cascade: {work.model.name}.")
    axes = ("T" if work.image.times > 1 else "") + "ZYX"[-len(work.image.shape) :]
    return open_image([path], Say(level="0", axes=axes, spacing=work.image.geometry.spacing))


def _noted_layout(work: _Work, record: PrepareRecord) -> BlockGrid | None:
    """Return the blocks that an earlier run noted; raises SettingsError if they cannot be those of this image."""
    known = next(iter(work.journal.all(LayoutEntry)), None)
    if known is None:
        return None
    sizes = zip(known.block, work.labels.chunk, work.image.shape_3d, strict=True)
    if not all(size % chunk == 0 and size < whole + chunk for size, chunk, whole in sizes):
        raise work.journal.damaged("its blocks are not made of whole chunks.")
    return BlockGrid(record, known.block)


def _layout(predictor: Predictor, record: PrepareRecord, work: _Work) -> BlockGrid:
    """Return the blocks that were noted, or plan and note them."""
    layout = _noted_layout(work, record)
    if layout is not None:
        return layout
    layout = planned(predictor, record, work.labels.chunk, work.settings, work.budget)
    work.journal.note(LayoutEntry(block=layout.block))
    return layout


def _write_file(work: _Work, target: Path) -> None:
    """Write the labels as a file of another format, and delete what was kept until then."""
    whole = work.labels.read([(0, n) for n in work.image.shape_3d])
    labels = whole if len(work.image.shape) == 3 else whole[0]
    write_labels(labels, work.image.lies.geometry, target, writer=model_reader(work.model))
    work.labels.forget()
