"""Segment an image with several models (or folds) at once: predict with each, combine, postprocess."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_nnunet.engine.choosing.components import clean
from napari_nnunet.engine.prediction.vote import Vote, VoteSettings
from napari_nnunet.errors import SettingsError, counted
from napari_nnunet.events import Box, Job, Note, Progress, Pump, Stage
from napari_nnunet.formats.atomic import make_folder, remove_leftovers
from napari_nnunet.formats.model.folder import TrainedModel, load_model
from napari_nnunet.formats.model.known_models import cache_folder
from napari_nnunet.formats.model.side_files import rules_of_folds
from napari_nnunet.formats.results.inference_information import read_best
from napari_nnunet.formats.results.postprocessing import read_cleaning
from napari_nnunet.formats.results.probabilities import scratch
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.jobs.choosing.ensemble import check_models, check_weights
from napari_nnunet.jobs.prediction.estimate import remember_joining
from napari_nnunet.jobs.prediction.objects import decoding_said, room_for, with_objects
from napari_nnunet.jobs.prediction.predict import predict
from napari_nnunet.jobs.prediction.result import (
    Focus,
    FrameTarget,
    Halt,
    Prediction,
    count_labels,
    each_frame,
    halting,
)
from napari_nnunet.jobs.prediction.voxel_size import doubting_once
from napari_nnunet.schema.cleaning import Cleaning
from napari_nnunet.schema.dataset import LabelScheme
from napari_nnunet.schema.geometry import lift, lift_shape
from napari_nnunet.schema.requests.prediction import PredictSettings
from napari_nnunet.volume import Volume

_STEPS = 1000  # of the progress bar, over all members
_PIECE = 16e6  # voxels joined at once


@dataclass(frozen=True, eq=False)
class Member:
    """A model, or some folds of one, within an ensemble.

    Parameters
    ----------
    model : TrainedModel
        The model.
    settings : PredictSettings
        Folds, mirroring and so on.
    """

    model: TrainedModel
    settings: PredictSettings

    @property
    def name(self) -> str:
        """A name for people: the configuration, and the folds where they were chosen."""
        folds = self.settings.folds
        return self.model.configuration.name + ("" if folds is None else f" fold {', '.join(str(f) for f in folds)}")


@dataclass(frozen=True, eq=False)
class Combination:
    """A whole recipe: members, how they are combined, and what is done with the result.

    Parameters
    ----------
    members : tuple of Member
        One or more.
    vote : VoteSettings
        Mean or majority, weights, uncertainty.
    cleaning : Cleaning
        Postprocessing.
    cleaning_file : Path, optional
        Where it was read from.

    Raises
    ------
    SettingsError, ModelError
        If there is no member, weights do not fit, or members have other channels or classes.
    """

    members: tuple[Member, ...]
    vote: VoteSettings = field(default_factory=VoteSettings)
    cleaning: Cleaning = field(default_factory=Cleaning)
    cleaning_file: Path | None = None

    def __post_init__(self) -> None:
        if not self.members:
            raise SettingsError("Choose at least one model.")
        check_weights(self.vote.weights, len(self.members))
        check_models([member.model for member in self.members])

    @property
    def model(self) -> TrainedModel:
        """The model whose dataset.json and reader count."""
        return self.members[0].model

    @property
    def joins(self) -> bool:
        """Whether probabilities are combined; a single model's labels are taken as they are."""
        return len(self.members) > 1 or self.vote.uncertainty

    def deciding(self) -> dict[str, Any]:
        """Return what decides about labels, as JSON holds it: of other members or another vote they are others."""
        members = [
            {
                "model": str(own.model.folder),
                "sha256": own.model.hashes(
                    own.model.resolve_folds(own.settings.folds, own.settings.checkpoint), own.settings.checkpoint
                ),
                "object_rules": rules_of_folds(own.model, own.settings),
                **own.settings.model_dump(mode="json", include={"step", "mirroring", "gaussian", "classes"}),
            }
            for own in self.members
        ]
        vote = {"method": self.vote.method, "weights": self.vote.weights}
        return {"members": members, **vote, "postprocessing": self.cleaning.arguments()}


def best_combination(workspace: Workspace, dataset: str, settings: PredictSettings | None = None) -> Combination:
    """Return the recipe that ``find_best_configuration`` chose.

    Parameters
    ----------
    workspace : Workspace
        Where the models are.
    dataset : str
        Full name.
    settings : PredictSettings, optional
        Mirroring, device and so on; its folds are replaced by those that were compared.

    Raises
    ------
    ModelError, DatasetError
        If the models were not compared yet, or one of them is gone.
    """
    best = read_best(workspace.results / dataset)
    settings = settings or PredictSettings()
    members = tuple(
        Member(load_model(workspace.results / dataset / name.folder), settings.replace(folds=best.folds))
        for name in best.models
    )
    return Combination(members, cleaning=read_cleaning(best.postprocessing), cleaning_file=best.postprocessing)


def predict_combined(
    combination: Combination,
    volume: Volume,
    *,
    canvas: NDArray[Any] | None = None,
    probabilities: NDArray[np.float32] | None = None,
    focus: Focus | None = None,
    roi: Box | None = None,
    preview: bool = False,
    folder: Path | None = None,
    halt: Halt | None = None,
) -> Job[Prediction]:
    """Segment one image with a whole recipe.

    Parameters
    ----------
    combination : Combination
        Members, vote, postprocessing.
    volume : Volume
        The image (C, [Z,] Y, X).
    canvas, focus, roi, preview, halt
        As for :func:`~napari_nnunet.jobs.prediction.predict.predict`; the canvas shows each member's labels while
        it works.
    probabilities : ndarray of float32, shape (C, [Z,] Y, X), optional
        Receives the mean probabilities.
    folder : Path, optional
        Where the members' probabilities lie meanwhile (they may be larger than memory); a cache folder of this user
        if not given.

    Returns
    -------
    Prediction
        With ``uncertainty`` where the vote asks for it.
    """
    started = time.monotonic()
    decoding = yield from decoding_said([(member.model, member.settings) for member in combination.members])
    dtype = combination.model.dataset.labels.dtype if decoding is None else "uint32"
    labels = canvas if canvas is not None else np.zeros(volume.shape, dtype=dtype)
    options: dict[str, Any] = {"focus": focus, "roi": roi, "preview": preview}
    with halting(halt) as place:
        if combination.joins and decoding is None:
            result = yield from _joined(combination, volume, labels, probabilities, folder, place, options)
        elif combination.joins and decoding is not None:
            with room_for(probabilities, (combination.model.dataset.labels.heads, *volume.shape)) as store:
                result = yield from _joined(combination, volume, labels, store, folder, place, options)
                result = yield from with_objects(replace(result, probabilities=probabilities), store, decoding, labels)
        else:
            member = combination.members[0]
            settings = member.settings.replace(probabilities=probabilities is not None)
            own: dict[str, Any] = {"canvas": labels, "probabilities": probabilities, "halt": place.part}
            result = yield from predict(member.model, volume, settings, **own, **options)
    if combination.cleaning.steps and decoding is None:
        yield Stage(name="Postprocessing")
        removed = clean(labels, combination.cleaning)
        scheme = combination.model.dataset.labels
        yield Note(text=f"Kept {combination.cleaning.describe(scheme)}; {counted(removed, 'voxel')} became background.")
    recipe = {**result.recipe, **_cleaning_recipe(combination)}
    if decoding is None:
        result = replace(result, counts=count_labels(labels, max(combination.model.dataset.labels.names) + 1))
    return replace(result, recipe=recipe, seconds=time.monotonic() - started)


def _cleaning_recipe(combination: Combination) -> dict[str, Any]:
    cleaning, scheme = combination.cleaning, combination.model.dataset.labels
    return {
        "postprocessing": cleaning.arguments(),
        "postprocessing_kept": [step.describe(scheme) for step in cleaning.steps],
        "postprocessing_file": None if combination.cleaning_file is None else str(combination.cleaning_file),
    }


def _joined(
    combination: Combination,
    volume: Volume,
    labels: NDArray[Any],
    probabilities: NDArray[np.float32] | None,
    folder: Path | None,
    halt: Halt,
    options: Mapping[str, Any],
) -> Job[Prediction]:
    """Segment with each member, and combine; of a cancelled job, members that are finished are kept."""
    heads = combination.model.dataset.labels.heads
    count, roi = len(combination.members), options["roi"]
    stores = halt.room(lambda: _stores((heads, *volume.shape), count, folder))
    for i, (member, store) in enumerate(zip(combination.members, stores, strict=True)):
        if i < len(halt.results):
            continue
        settings = member.settings.replace(probabilities=True, classes=True)
        own: dict[str, Any] = {"canvas": labels, "probabilities": store, "halt": halt.part}
        job = predict(member.model, volume, settings, **own, **options)
        halt.part_done((yield from _shared_bar(job, i, count, f"{i + 1} of {count}, {member.name}")))
    results = halt.results
    yield Stage(name="Joining")
    began = time.monotonic()
    vote = Vote(combination.model.dataset.labels, lift_shape(volume.shape), count, combination.vote)
    yield from _join(vote, [lift(store, channels=True) for store in stores], probabilities)
    labels[...] = vote.finish().reshape(labels.shape)
    if roi is not None:
        _clear_outside(labels, roi)
    uncertainty = None
    if combination.vote.uncertainty:
        entropy, disagreement = (values.reshape(volume.shape) for values in vote.uncertainty())
        uncertainty = entropy, disagreement
    remember_joining(time.monotonic() - began, heads * float(np.prod(volume.shape, dtype=np.int64)) * count)
    return replace(
        results[0],
        labels=labels,
        probabilities=probabilities,
        uncertainty=uncertainty,
        recipe=_recipe(combination, results),
    )


@contextmanager
def _stores(shape: tuple[int, ...], count: int, folder: Path | None) -> Iterator[list[NDArray[np.float32]]]:
    """Give a scratch file for the probabilities (heads, [Z,] Y, X) of every member."""
    place = make_folder(folder or cache_folder())
    remove_leftovers(place)
    with ExitStack() as stack:
        yield [stack.enter_context(scratch(shape, place)) for _ in range(count)]


def _join(vote: Vote, stores: Sequence[NDArray[np.float32]], target: NDArray[np.float32] | None) -> Job[None]:
    """Combine class by class, some planes at a time."""
    c, z, y, x = stores[0].shape
    step = max(1, int(_PIECE // (y * x)))
    for channel in range(c):
        for lo in range(0, z, step):
            mean = vote.add(channel, lo, [np.asarray(store[channel, lo : lo + step]) for store in stores])
            if target is not None:
                lift(target, channels=True)[channel, lo : lo + step] = mean
        yield Progress(done=channel + 1, total=c)


def join_arrays(
    scheme: LabelScheme, members: Sequence[Sequence[NDArray[np.float32]]], vote: VoteSettings
) -> Job[tuple[NDArray[Any], tuple[NDArray[np.float32], NDArray[np.float32]] | None]]:
    """Combine probabilities that are already in memory.

    Parameters
    ----------
    scheme : LabelScheme
        Classes or regions.
    members : sequence of sequence of ndarray, shape (..., Y, X)
        Of every member one array per head.
    vote : VoteSettings
        Mean or majority, weights, uncertainty.

    Returns
    -------
    tuple
        Labels, and entropy and disagreement where they were asked for, in the shape of the arrays.
    """
    check_weights(vote.weights, len(members))
    shape = members[0][0].shape
    flat = (int(np.prod(shape[:-2], dtype=np.int64)), *shape[-2:])
    joined = Vote(scheme, flat, len(members), vote)
    step = max(1, int(_PIECE // (flat[1] * flat[2])))
    yield Stage(name="Joining", total=scheme.heads)
    for channel in range(scheme.heads):
        planes = [np.asarray(member[channel], dtype=np.float32).reshape(flat) for member in members]
        for lo in range(0, flat[0], step):
            joined.add(channel, lo, [array[lo : lo + step] for array in planes])
        yield Progress(done=channel + 1, total=scheme.heads)
    labels = joined.finish().reshape(shape)
    if not vote.uncertainty:
        return labels, None
    entropy, disagreement = joined.uncertainty()
    return labels, (entropy.reshape(shape), disagreement.reshape(shape))


def _clear_outside(labels: NDArray[Any], roi: Box) -> None:
    box = tuple(slice(lo, hi) for lo, hi in roi)
    inside = labels[box].copy()
    labels[...] = 0
    labels[box] = inside


def _shared_bar(job: Job[Prediction], index: int, count: int, name: str) -> Job[Prediction]:
    """Pass on a member's events with one bar over all members and the time left for all of them."""
    begun = time.monotonic()
    with Pump(job) as pump:
        for event in pump:
            match event:
                case Stage():
                    yield Stage(name=f"{name}: {event.name}", total=_STEPS)
                case Progress():
                    share = event.done / max(event.total, 1)
                    left = event.seconds_left
                    if left is not None:
                        # The members to come are taken to last as long as this one.
                        left += (count - index - 1) * (time.monotonic() - begun + left)
                    yield Progress(done=round(_STEPS * (index + share) / count), total=_STEPS, seconds_left=left)
                case _:
                    yield event
    return pump.result


def _recipe(combination: Combination, results: Sequence[Prediction]) -> dict[str, Any]:
    recipes = [dict(result.recipe) for result in results]
    versions = results[0].recipe["versions"]
    for recipe in recipes:
        del recipe["versions"]
    vote = combination.vote
    return {
        "model": " + ".join(member.name for member in combination.members),
        "folder": str(combination.model.folder),
        "members": recipes,
        "method": vote.method,
        "weights": None if vote.weights is None else list(vote.weights),
        "device": recipes[0]["device"],
        "versions": versions,
    }


def predict_combined_series(
    combination: Combination,
    frames: Sequence[FrameTarget],
    *,
    halt: Halt | None = None,
    **options: Any,
) -> Job[list[Prediction]]:
    """Segment the frames of a time series one after the other, each into its own canvas (and probabilities).

    A ``halt`` that is handed in again carries on in the frame that was cancelled.
    """
    told = doubting_once(combination.model)

    def segment(volume: Volume, **own: Any) -> Job[Prediction]:
        return told(volume, predict_combined(combination, volume, **own, **options))

    return (yield from each_frame(halt, frames, segment))
