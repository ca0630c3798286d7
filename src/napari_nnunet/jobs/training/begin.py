"""Build everything a training needs, and load what it starts from."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from napari_nnunet.engine.batches.batch import BatchRule
from napari_nnunet.engine.network.device import BackendChoice, has_fast_bfloat16
from napari_nnunet.engine.network.layout import worth_compiling
from napari_nnunet.engine.network.unet import UNet, build, initialize
from napari_nnunet.engine.training.learner import Learner
from napari_nnunet.engine.training.loss import SegmentationLoss
from napari_nnunet.engine.training.parallel import Group
from napari_nnunet.engine.training.schedule import Schedule
from napari_nnunet.errors import ModelError, SettingsError, counted, is_out_of_memory
from napari_nnunet.events import Job, Note, Stage
from napari_nnunet.formats.atomic import make_folder, remove_leftovers, write_json, write_text
from napari_nnunet.formats.claim import is_claimed
from napari_nnunet.formats.model.checkpoint import OWN, read_raw
from napari_nnunet.formats.model.torch_file import require_whole
from napari_nnunet.formats.preprocessed.cases import case_names
from napari_nnunet.formats.preprocessed.plans import unchanged
from napari_nnunet.jobs.amount import note_amount
from napari_nnunet.jobs.arithmetic import fails_in_bfloat16
from napari_nnunet.jobs.planning.folds import current_splits
from napari_nnunet.jobs.training import prepare
from napari_nnunet.jobs.training.improve import fit_output_layers, going_on, initialised
from napari_nnunet.jobs.training.loader import BatchLoader, BatchSource, default_workers
from napari_nnunet.jobs.training.logbook import write_debug
from napari_nnunet.jobs.training.memory import check_memory, too_large
from napari_nnunet.jobs.training.order import Order
from napari_nnunet.jobs.training.session import Session
from napari_nnunet.processes.alone import why_alone
from napari_nnunet.schema.dataset import DatasetInfo
from napari_nnunet.schema.json_text import read_text
from napari_nnunet.schema.trainers import require_fitting

_COMPILE = "nnUNet_compile"
_UNLABELLED = 1.0  # how much voxels of scribbles that nobody annotated count together; docs/benchmarks.md
_LONG = 300.0  # seconds of a time budget
_STEPS = 2000  # from which a GPU gains by a compiled network, which takes it a minute
_AS_LONG = 600.0  # seconds of a time budget, likewise
_KEEPS_UP = 1.4  # times as long as a GPU's step may take to make a batch: augmenting it there lengthens a step by that


@dataclass(frozen=True)
class Start:
    """How a training starts: from scratch, from other weights, or resumed; perhaps to be finished soon."""

    resume: bool = False
    finish_in: int | None = None
    pretrained: Path | None = None
    pretrained_heads: bool = False
    continue_from: Path | None = None


@dataclass(frozen=True, eq=False)
class Fresh:
    """A network that this training has not changed yet, and what it took from elsewhere, in plain values."""

    network: UNet
    begun_with: dict[str, Any] | None = None


def require_the_same(order: Order) -> None:
    """Look again, once the fold is claimed, at what others could change until then.

    Raises
    ------
    SettingsError
        If its cases are being preprocessed, or the dataset was renamed, planned anew or given other folds meanwhile.
    """
    name, data = order.dataset_name, order.data
    if is_claimed(order.base, data.name):
        raise SettingsError(f"The cases in {data} are being preprocessed. Wait for that, or stop it first.")
    lost = sorted({*order.split.train, *order.split.val} - set(case_names(data) if data.is_dir() else ()))
    if lost:
        raise SettingsError(
            f"{lost[0]} and perhaps other preprocessed cases of {name} were moved or removed just now. If {name} was "
            "renamed, start the training under its new name."
        )
    if not unchanged(order.plans) or DatasetInfo.read(order.base / "dataset.json").raw != order.info.raw:
        raise SettingsError(f"{name} was just planned again. Start the training again.")
    if order.fold == "all":
        return
    splits, number = current_splits(order.base), int(order.fold)
    if number < len(splits) and splits[number] != order.split:
        raise SettingsError(f"The folds of {name} were changed just now. Start the training again.")


def fresh_network(order: Order, choice: BackendChoice, group: Group, start: Start) -> Job[Fresh]:
    """Return a network that has learnt nothing yet, or begins with other weights. Nothing is written.

    Raises
    ------
    ResourceError
        If a step will not fit into memory; the message says which batch would.
    ModelError
        If the other weights do not fit.
    """
    check_memory(order, choice, group)
    network = build(order.architecture, order.channels_in, order.info.labels.heads)
    initialize(network, torch.Generator().manual_seed(order.settings.seed))
    begun_with = None
    if start.pretrained is not None:
        begun_with = yield from initialised(network, order, start.pretrained, heads=start.pretrained_heads)
    if start.continue_from is not None:
        begun_with = yield from going_on(network, order, start.continue_from)
    return Fresh(network, begun_with)


def begin(order: Order, fresh: Fresh, choice: BackendChoice, group: Group, start: Start) -> Job[Session]:
    """Build everything a training needs around a network, and load what it resumes from.

    Raises
    ------
    ModelError
        If a checkpoint does not fit.
    """
    resumed = _newest(order) if start.resume else None
    if resumed is not None:
        require_whole(resumed[0])  # it goes on with more than weights
        order = yield from _as_weighted(order, *resumed)
    order = replace(order, wholly=(yield from prepare.wholly_annotated(order)))
    loss = SegmentationLoss(
        regions=order.info.labels.has_regions,
        ignore_label=order.info.labels.ignore_label,
        batch_dice=order.configuration.batch_dice,
        smooth=order.recipe.smooth,
        terms=order.recipe.loss,
        label_smoothing=order.recipe.label_smoothing,
        class_weights=order.class_weights,
        unlabelled=_UNLABELLED if order.recipe.scribbles else 0.0,
        partial=order.partial,
        total=None if group.alone else group.total,
    )
    learner = Learner(fresh.network, order.recipe, loss, choice, compiled=_compiles(order, choice))
    if resumed is None and learner.norms == "samples" and _is_long(order):
        learner.use_norms("kernels")
    source = make_source(order, group)
    asked = order.settings.workers
    workers = default_workers(choice.kind, choice.threads) if asked is None else asked
    if workers and (alone := why_alone()) is not None:
        yield Note(text=f"Batches are made in this process, between the steps: {alone}.")
        workers = 0
    loader = BatchLoader(source, workers, pinned=choice.kind == "cuda", device=choice.device)
    schedule = Schedule(order.recipe, order.recipe.epochs)
    session = Session(order, learner, group, source, loader, order.recipe, schedule, order.settings.seed)
    session.begun_with = fresh.begun_with
    if resumed is not None:
        session.restore(resumed[1], str(resumed[0]))
        yield from prepare.changed_plans(resumed[1], order)
        yield from _other_norms(resumed[1], learner)
        yield Note(text=f"Resuming from {resumed[0].name}: epoch {session.epoch}, step {session.iteration}.")
    elif start.resume:
        yield Note(level="warning", text=f"There is no checkpoint in {session.folder.path}; starting from scratch.")
    else:
        yield from fit_output_layers(session)
    session.aside += yield from prepare.favour_annotated(source, None if resumed is None else resumed[1])
    if start.finish_in is not None:
        session.schedule = session.schedule.finishing(session.epoch, start.finish_in)
    if learner.compiled or (choice.kind == "cuda" and _has_many_steps(order)):
        yield from _try(session, workers, resumed=resumed is not None)
    if not group.alone:
        learner.distribute()
    if group.leads:
        yield from _write_side_files(session)
    yield Note(text=_description(session, workers))
    return session


def _compiles(order: Order, choice: BackendChoice) -> bool:
    """Whether the network is compiled: where that is asked for, here or by nnU-Net's own variable, or pays."""
    asked, told = order.settings.compile, os.environ.get(_COMPILE, "").lower()
    if asked is not None:
        return asked
    if choice.kind != "cuda" or find_spec("triton") is None:
        return False
    return told in ("true", "1", "t") if told else _has_many_steps(order)


def _has_many_steps(order: Order) -> bool:
    """Whether a training on a GPU is worth a look at what it would wait for."""
    budget = order.settings.time_budget
    return order.recipe.iterations * order.recipe.epochs >= _STEPS if budget is None else budget >= _AS_LONG


def _try(session: Session, workers: int, *, resumed: bool) -> Job[None]:
    """Compile the network, and look whether the processes make batches as fast as a GPU takes them."""
    learner, source, order = session.learner, session.source, session.order
    if learner.compiled:
        yield Stage(name="Compiling the network: a minute, once")
    began = time.monotonic()
    making, batch = source.tried()
    try:
        step, problem = learner.try_step(batch.image, batch.targets)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise too_large(order, learner.choice, tried=True) from error
    session.aside += time.monotonic() - began
    if problem:
        yield Note(level="warning", text=f"The network cannot be compiled here ({problem}); it learns without.")
    open_ = order.settings.augment_on == "auto" and source.can_be_unfinished
    if resumed or not open_ or learner.choice.kind != "cuda" or not workers:
        return
    source.unfinished = bool(session.group.agree(float(making / workers > _KEEPS_UP * step)))
    if source.unfinished:
        yield Note(
            text=f"A batch takes a process {making:.2f} s, and a step takes {step:.2f} s: {workers} would keep "
            f"{learner.choice.device} waiting, so it augments the patches itself."
        )


def _is_long(order: Order) -> bool:
    """Whether a training normalises so much that compiling pays, which takes some five seconds."""
    if order.settings.time_budget is not None:
        return order.settings.time_budget >= _LONG
    samples = order.configuration.batch_size * order.recipe.iterations * order.recipe.epochs
    return worth_compiling(order.architecture, order.patch.final, samples)


def _other_norms(content: Mapping[str, Any], learner: Learner) -> Job[None]:
    if (content.get(OWN) or {}).get("norms") == "kernels" != learner.norms and learner.choice.kind == "cpu":
        yield Note(
            text="This training began with loops that numba compiled, and cannot use them here. It continues with "
            "operations of torch, which are slower and differ in the last bits."
        )


def make_source(order: Order, group: Group) -> BatchSource:
    """Return what makes the batches of a fold."""
    recipe = order.recipe
    rule = BatchRule(
        patch=order.patch,
        batch_size=order.configuration.batch_size,
        scheme=order.info.labels,
        scales=order.scales,
        masked=order.configuration.use_mask_for_norm,
        mirror_axes=order.mirror_axes,
        foreground=order.foreground,
        probabilistic=recipe.probabilistic,
        jitter=order.settings.foreground_jitter,
        anywhere=recipe.scribbles and not order.wholly >= {*order.split.train},
        augmented=recipe.augmentation != "none",
        strong=recipe.augmentation == "strong",
        disturbed=recipe.augmentation != "none",
        image_order=recipe.image_order,
        label_order=recipe.label_order,
        previous_labels=order.previous_labels,
        partial=order.partial,
    )
    plain = BatchRule(
        patch=rule.patch,
        batch_size=rule.batch_size,
        scheme=rule.scheme,
        scales=rule.scales,
        foreground=rule.foreground,
        probabilistic=rule.probabilistic,
        augmented=False,
        disturbed=False,
        previous_labels=rule.previous_labels,
        partial=rule.partial,
    )
    return BatchSource(
        order.data,
        order.previous,
        {"train": order.split.train, "val": order.split.val},
        {"train": rule, "val": plain},
        order.settings.seed,
        group.places(rule.batch_size),
        unfinished=order.settings.augment_on == "device",
    )


def _newest(order: Order) -> tuple[Path, dict[str, Any]] | None:
    """Return the most advanced checkpoint of a fold, None if there is none.

    Raises
    ------
    ModelError
        If it belongs to another configuration.
    """

    def place(entry: tuple[Path, dict[str, Any]]) -> tuple[int, int]:
        content = entry[1]
        return int(content.get("current_epoch") or 0), int((content.get(OWN) or {}).get("iteration", 0))

    found = max(((path, read_raw(path)) for path in order.folder.checkpoints), key=place, default=None)
    if found is not None:
        trained = (found[1].get("init_args") or {}).get("configuration")
        if trained is not None and trained != order.configuration.name:
            raise ModelError(f"{found[0]} was trained for {trained}, not for {order.configuration.name}.")
    return found


def kept_arithmetic(order: Order, choice: BackendChoice) -> Job[BackendChoice]:
    """Return the arithmetic that a training on a CPU began with, unless another one is asked for.

    Raises
    ------
    ModelError
        If its checkpoint belongs to another configuration.
    """
    resumed = _newest(order) if choice.kind == "cpu" and order.settings.precision == "auto" else None
    if resumed is None:
        return choice
    began = (resumed[1].get(OWN) or {}).get("precision", "float32")  # whatever wrote no such key trained in float32
    fails = fails_in_bfloat16(order.configuration.patch_size)
    if began == "bfloat16" and (fails or not has_fast_bfloat16()):
        lack = "fails for such flat patches on this processor" if fails else "this processor does not have"
        said = f"This training began in bfloat16, which {lack}: it continues in float32."
        yield Note(level="warning", text=f"{said} Its results will differ slightly from those of where it began.")
        began = "float32"
    return replace(choice, precision=began, why="as it began") if began in ("float32", "bfloat16") else choice


def _as_weighted(order: Order, path: Path, content: Mapping[str, Any]) -> Job[Order]:
    """Return a training with the class weights that its checkpoint was made with, unless others are asked for.

    What began as scribbles goes on as that.

    Raises
    ------
    ModelError, SettingsError
        If they cannot be read, or are of classes that there are not.
    """
    before = content.get(OWN) or {}
    order = order.as_scribbles() if before.get("scribbles") else order
    kept, own = before.get("class_weights") or {}, order.recipe.class_weights
    try:
        weighted = order.weighing(kept)
    except (TypeError, ValueError, SettingsError) as error:
        raise ModelError(f"{path} is damaged: its weights of classes are {kept!r:.80}.") from error
    if not own:
        require_fitting(weighted.recipe, order.info.labels, str(path))
        return weighted
    if own != weighted.recipe.class_weights:
        then = ", ".join(f"{name}={weight:g}" for name, weight in kept.items()) or "all alike"
        now = ", ".join(f"{name}={weight:g}" for name, weight in own.items())
        yield Note(level="warning", text=f"The class weights were {then} until here, and are {now} from here on.")
    return order


def _write_side_files(session: Session) -> Job[None]:
    """Write what nnU-Net puts next to its checkpoints, and how much is annotated; say how that is learnt."""
    order = session.order
    note_amount(make_folder(order.folder.path), prepare.amount_for(order))
    yield from prepare.say_strokes(order)
    remove_leftovers(make_folder(order.model))
    remove_leftovers(session.folder.path)
    write_json(order.model / "plans.json", dict(order.plans.raw))  # those that are trained, whatever the file says now
    write_json(order.model / "dataset.json", dict(order.info.raw))
    fingerprint = order.base / "dataset_fingerprint.json"
    if fingerprint.is_file():
        write_text(order.model / fingerprint.name, read_text(fingerprint, ModelError))
    facts = {
        "dataset": order.dataset_name,
        "configuration_name": order.configuration.name,
        "fold": order.fold,
        "device": session.learner.choice,
        "layout": session.learner.layout,
        "settings": order.settings.model_dump(mode="json"),
        "recipe": session.recipe.model_dump(mode="json"),
        "training_cases": list(order.split.train),
        "validation_cases": list(order.split.val),
        "patch": order.patch,
        "channels": order.channels_in,
        "loss": session.learner.loss,
        "output_weights": session.learner.weights,
        "begun_with": session.begun_with,
    }
    write_debug(session.folder.path / "debug.json", facts)
    session.logbook.say(_description(session, None))


def _description(session: Session, workers: int | None) -> str:
    order, recipe, choice = session.order, session.recipe, session.learner.choice
    length = f"{counted(session.schedule.epochs, 'epoch')} of {counted(recipe.iterations, 'step')}"
    if order.settings.time_budget is not None and not session.measured:
        length = f"as many epochs as fit into {counted(round(order.settings.time_budget / 60), 'minute')}"
    made = "" if workers is None else f", batches made by {counted(workers, 'process', 'processes')}"
    return (
        f"{order.dataset_name} {order.configuration.name}, fold {order.fold}: {len(order.split.train)} training and "
        f"{len(order.split.val)} validation cases, {length}, "
        f"batch {order.configuration.batch_size}, seed {session.seed}, on {choice} ({choice.why}){made}."
    )
