"""Segment one image of any size, block by block; what is finished is kept whatever happens."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from napari_nnunet.engine.image.prepare import PrepareRecord
from napari_nnunet.engine.image.turning import Turning
from napari_nnunet.engine.image.voxel_size import counts_voxels
from napari_nnunet.engine.large.blocks import BlockGrid, chunk_shape
from napari_nnunet.engine.large.boxes import Shape3
from napari_nnunet.engine.large.parts import Preparation
from napari_nnunet.engine.large.survey import ImageFacts
from napari_nnunet.engine.network.backends import torch_threads
from napari_nnunet.errors import ImageError, ModelError, SettingsError, counted
from napari_nnunet.events import Job, Note, Stage
from napari_nnunet.formats.claim import claimed
from napari_nnunet.formats.images.files import ending_of, write_labels
from napari_nnunet.formats.large.corrections import by_hand
from napari_nnunet.formats.large.journal import ArithmeticEntry, BlockEntry, BlockJournal, LayoutEntry
from napari_nnunet.formats.large.label_image import ENDING, Destination, LabelImage, require_free
from napari_nnunet.formats.large.ome_zarr import library
from napari_nnunet.formats.large.opening import Say, open_image
from napari_nnunet.formats.large.place import ImagePlace
from napari_nnunet.formats.large.source import LargeImage, Stamp
from napari_nnunet.formats.model.folder import TrainedModel
from napari_nnunet.jobs.large.budget import Budget
from napari_nnunet.jobs.large.elsewhere import Share, fill_elsewhere, loaded, plan_elsewhere, require_sendable
from napari_nnunet.jobs.large.fill import Filling, fill
from napari_nnunet.jobs.large.ready import as_large_as_allowed, limited_axis, planned, prepared
from napari_nnunet.jobs.large.survey import require_unmoved, surveyed
from napari_nnunet.jobs.large.view import View
from napari_nnunet.jobs.large.work import STATE, made_of, require_complete, take_up, work_of
from napari_nnunet.jobs.prediction.folder.case import model_reader
from napari_nnunet.jobs.prediction.objects import decoding_for
from napari_nnunet.jobs.prediction.predict import first_stage_of
from napari_nnunet.jobs.prediction.predictor import Predictor, borrowed
from napari_nnunet.jobs.prediction.voxel_size import require_near
from napari_nnunet.processes.cluster.team import Elsewhere, Team, result_of, team
from napari_nnunet.schema.geometry import Geometry
from napari_nnunet.schema.requests.large import PredictImageSettings
from napari_nnunet.schema.requests.prediction import PredictSettings

DONE = "Writing the result"  # the stage that begins when all blocks are there
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
    """

    path: Path
    counts: tuple[int, ...]
    blocks: int
    kept: int
    seconds: float


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
    by no more than rounding.

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
    if not _is_zarr(target):
        _require_file(target, image, model, budget)
    labels = LabelImage(place, image, model.dataset.labels, chunk_of(asked, image))
    with claimed(place.path.parent, f"{place.path} is already being written", part=place.path.name):
        if asked.carry_on and place.path.exists() and not place.begun:
            yield from require_complete(labels, work_of(model, image, settings, labels), image)
            return LargeResult(place.path, (), 0, 0, time.monotonic() - began)
        require_free(place, by_hand(place.path))
        known = work_of(model, image, settings, labels)
        journal = BlockJournal(place.unfinished)
        settings = take_up(journal, place, known, settings, carry_on=asked.carry_on)
        for text in image.notes:
            yield Note(text=text)
        for text in image.geometry.remarks:
            yield Note(level="warning", text=f"{image.name}: {text}.")
        if _is_zarr(target) and (unsaid := image.unsaid):
            yield Note(level="warning", text=f"{unsaid} {_FILES}", in_window=unsaid)
        stamp = Stamp(*known[STATE])
        work = _Work(model, image, labels, journal, settings, budget, stamp, workers, asked.memory_gb, view)
        facts = yield from surveyed(image, journal, limited_axis(model, image))
        filling = yield from _filled(work, facts)
        yield from require_unmoved(image, journal)
        yield Stage(name=DONE)
        if _is_zarr(target):
            labels.complete(made_of(known, journal, image))
            journal.remove()
            labels.settle()
        else:
            _write_file(work, target)
    return LargeResult(target, filling.total, filling.computed, filling.kept, time.monotonic() - began)


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


def _is_zarr(target: Path) -> bool:
    return target.name.lower().endswith(ENDING) or Destination(target).is_inside


def require_fit(model: TrainedModel, image: LargeImage, settings: PredictSettings) -> None:
    """Raise what tells that a model and an image do not belong together, before anything is read."""
    if model.configuration.previous_stage is not None:
        first_stage_of(model, settings)
    if decoding_for([(model, settings)]) is not None:
        raise ModelError(
            f"{model.name} finds numbered objects, which are put together in memory only.",
            shell="Add --classes for the classes it has learnt, or segment the image in memory (predict).",
            window="Segment a region that fits into memory: choose 'Labels' as Output, and a Region.",
        )
    if settings.probabilities:
        raise SettingsError("Probabilities of images larger than memory are not written. Leave them out.")
    if settings.quality:
        raise SettingsError(
            "The Dice of labels that are written block by block cannot be predicted. Leave it out, or segment the "
            "image in memory."
        )
    expected = len(model.configuration.normalization_schemes)
    if image.channels != expected:
        raise ImageError(
            f"The model expects {expected} channel{'s' if expected > 1 else ''} "
            f"({', '.join(model.dataset.channel_names)}), but {image.name} has {image.channels} (axes {image.axes}: "
            f"{' x '.join(str(n) for n in image.arrays[0].shape)}). Name the axes if these are others.",
            shell="For instance --axes CZYX.",
        )
    if not image.geometry.spacing_known and not counts_voxels(model.plans, model.configuration):
        raise ImageError(
            f"{image.name} has no voxel size{': its axes have no known unit' if image.level is not None else ''}. Give "
            "it in mm.",
            shell="For instance --spacing 0.002 0.0005 0.0005 (z y x).",
        )
    require_near(model, image.geometry, settings)
    # What is read box by box lies as it is stored, and a model that turns its images knows no other order.
    if model.turns and Turning.of(image.shape, image.geometry) is not None:
        raise ImageError(
            f"{model.name} was trained on images reoriented to RAS, but the axes of {image.name} lead to "
            f"{image.geometry.axes_code}. Segment it in memory, or save it as .nii.gz.",
            shell="In memory: predict_from_modelfolder, which turns it.",
        )


def chunk_of(asked: PredictImageSettings, image: LargeImage) -> Shape3:
    """Return the chunks (z, y, x) of a result; raises SettingsError if those asked for are none."""
    if asked.chunk is None:
        return chunk_shape(image.shape_3d)
    if len(asked.chunk) != len(image.shape) or min(asked.chunk) < 1:
        raise SettingsError(
            f"Chunks of {' x '.join(map(str, asked.chunk))} voxels were given for an image with {len(image.shape)} "
            "axes; give one number from 1 on for each."
        )
    z, y, x = (1, *asked.chunk)[-3:]
    return min(z, image.shape_3d[0]), min(y, image.shape_3d[1]), min(x, image.shape_3d[2])


def _require_file(target: Path, image: LargeImage, model: TrainedModel, budget: Budget) -> None:
    """Raise an error if a result does not go into an ordinary file, or not into one of that name."""
    ending = ending_of(target)
    if os.path.realpath(target) in map(os.path.realpath, image.files):
        raise SettingsError(f"The labels would overwrite the image {target}. Choose another name.")
    if ending in (".jpg", ".jpeg") or (ending in (".png", ".bmp") and image.geometry.ndim == 3):
        what = "JPEG changes label values" if ending.startswith(".jp") else f"{ending} holds no volume"
        raise SettingsError(f"{target.name}: {what}. Choose a name with {ENDING}, .nii.gz or .tif.")
    size = float(np.prod(image.shape_3d)) * np.dtype(model.dataset.labels.dtype).itemsize
    if image.times > 1:
        raise SettingsError(f"A time series is written as OME-Zarr, not as {target.name}. Choose a name with {ENDING}.")
    if 2 * size > budget.bytes:
        raise SettingsError(
            f"The labels take {size / 1e9:.1f} GB, and as much again to write them as {target.name}; "
            f"{budget.bytes / 1e9:.1f} GB of memory are allowed. Choose a name with {ENDING}, or allow more memory."
        )


def _filled(work: _Work, facts: Sequence[ImageFacts]) -> Job[Filling]:
    """Compute all blocks that are not finished."""
    model, journal = work.model, work.journal
    previous = yield from _first_stage(work)
    preparations = []
    for point, known in enumerate(facts):
        preparation = prepared(model, work.image, known, point, previous)
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
        work.labels.open(begun=bool(journal.all(BlockEntry)), seen=work.view is not None)
        filling = Filling(model, work.image, work.labels, journal, work.settings, work.stamp)
        yield from fill(filling, predictor, list(zip(preparations, layouts, strict=True)), work.view)
    work.labels.forget_beside(_FIRST)
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
    labels.open(begun=bool(journal.all(BlockEntry)))
    filling = Filling(model, image, labels, journal, share.settings, work.stamp)
    layouts = [BlockGrid(part.record, share.block) for part in preparations if share.block is not None]
    yield from fill_elsewhere(filling, workers, share, list(zip(preparations, layouts, strict=True)))
    labels.forget_beside(_FIRST)
    return filling


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
