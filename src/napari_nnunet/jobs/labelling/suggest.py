"""What to label next: unlabelled images, slices or boxes, ranked by what a model sees in them."""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from napari_nnunet.engine.labelling.curve import CurvePoint, Gain, expected_gain
from napari_nnunet.engine.labelling.queries import (
    Spot,
    boxes_in,
    choose_places,
    drawing_axis,
    entropy_of,
    places_of,
)
from napari_nnunet.errors import DatasetError, ModelError, NnunetError, SettingsError, for_people
from napari_nnunet.events import CaseDone, CaseFailed, Job, Note, Progress, Pump, Stage
from napari_nnunet.formats.atomic import make_folder, remove_leftovers, write_text
from napari_nnunet.formats.dataset.case_files import Case, volume_of_case
from napari_nnunet.formats.dataset.relabel import remap
from napari_nnunet.formats.images.files import read_labels, write_labels
from napari_nnunet.formats.model.folder import TrainedModel
from napari_nnunet.formats.preprocessed.journal import joined_by
from napari_nnunet.formats.results.probabilities import scratch
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.grid import Grid, relation, same_voxels
from napari_nnunet.jobs.amount import noted_amount
from napari_nnunet.jobs.labelling.judge import Judge, best_model, judges
from napari_nnunet.jobs.labelling.progress import standing
from napari_nnunet.jobs.labelling.suggestion import Suggestion, Suggestions
from napari_nnunet.jobs.labelling.unlabelled import Known, unlabelled_images
from napari_nnunet.jobs.prediction.folder.case import model_reader, require_storable
from napari_nnunet.jobs.prediction.predict import predict
from napari_nnunet.schema.dataset import LabelScheme
from napari_nnunet.schema.requests.labelling import JudgedBy, SuggestRequest, Unit
from napari_nnunet.schema.requests.prediction import PredictSettings, preset
from napari_nnunet.volume import Volume

SUGGESTIONS_FILE = "suggestions.csv"
_LOOK = 2.0  # seconds for each slice that is looked at, besides what is drawn in it


def suggest(workspace: Workspace, request: SuggestRequest) -> Job[Suggestions]:
    """Rank unlabelled images, or places in them, by what a model of the dataset sees there; write a table.

    Parameters
    ----------
    workspace : Workspace
        Where dataset and models are.
    request : SuggestRequest
        Images, what is labelled at a time, how many, by which strategy.

    Returns
    -------
    Suggestions
        The table has been written.

    Raises
    ------
    ModelError
        If the dataset has no trained model yet.
    DatasetError
        If there are no images, or all of them are labelled.
    """
    dataset = workspace.dataset_name(request.dataset)
    model = best_model(workspace, dataset, request)
    target = request.target or model.folder / SUGGESTIONS_FILE
    cases, known = unlabelled_images(workspace, dataset, model, request)
    yield from known.notes()
    values = (yield from _values_now(model, known.scheme)) if request.proposals is not None else {}
    make_folder(target.parent)
    remove_leftovers(target.parent)
    places: list[Spot] = []
    failed: NnunetError | None = None
    yield Stage(name="Images", total=len(cases))
    for index, case in enumerate(cases):
        try:
            with Pump(_places(case, model, request, known, values, target)) as pump:
                for event in pump:
                    warns = isinstance(event, Note) and event.level == "warning"
                    yield event if warns else Progress(done=index, total=len(cases))  # here it can be cancelled
            places += pump.result
            yield CaseDone(case=case.name, index=index, total=len(cases))
        except Exception as unforeseen:  # whatever it is, the images after it are looked at
            failed = for_people(unforeseen)
            yield CaseFailed.of(case.name, failed, index, len(cases))
    if not places:
        if failed is not None:
            raise failed
        raise DatasetError("Everything in these images is labelled already. Give images with something left to label.")
    rng = np.random.default_rng(request.seed + request.turn)
    chosen = choose_places(places, request.strategy, request.places, turn=request.turn, rng=rng)
    images = {case.name: case for case in cases}
    found = tuple(
        Suggestion(place, images[place.case], _kept(place.case, model, request), _minutes(place, request))
        for place in chosen
    )
    _drop_others(cases, {place.case for place in chosen}, model, request)
    gain = learning(workspace, dataset, model, found, request.unit)
    now = standing(workspace, dataset)
    result = Suggestions(found, len(places), model.dataset.labels, model.name, gain, now, target)
    write_text(target, result.csv())
    return result


def _values_now(model: TrainedModel, scheme: LabelScheme | None) -> Generator[Note, None, dict[int, int]]:
    """Return which value of the dataset stands for each value of the model: classes may have changed since.

    Raises
    ------
    ModelError
        If regions changed, which cannot be matched by their names.
    """
    own = model.dataset.labels
    if scheme is None or own.names == scheme.names:
        return {}
    if own.has_regions or scheme.has_regions:
        raise ModelError(
            f"The regions of the dataset are not those that {model.name} was trained with, so that its segmentations "
            "cannot be proposed. Train a model with the current regions first."
        )
    now = {name: value for value, name in scheme.names.items()}
    if new := [name for name in now if name not in own.names.values()]:
        yield Note(
            level="warning",
            text=f"{model.name} was trained without {', '.join(new)}, which is background in its proposals: draw it "
            "before a place is taken, for every voxel there counts as looked at. Better train a model with it first.",
        )
    gone = [name for name in own.names.values() if name not in now]
    if gone:
        yield Note(
            level="warning",
            text=f"The dataset has no class {', '.join(gone)} any more: it is background in the proposals.",
        )
    return {value: now.get(name, 0) for value, name in own.names.items()}


def _places(
    case: Case, model: TrainedModel, request: SuggestRequest, known: Known, values: Mapping[int, int], target: Path
) -> Job[list[Spot]]:
    """Segment an image and measure its places."""
    volume = volume_of_case(case, model_reader(model))
    require_storable(case, volume, model)
    scheme = model.dataset.labels
    checkpoint = model.first_checkpoint
    folds = model.resolve_folds(None, checkpoint)
    base = PredictSettings(device=request.device, checkpoint=checkpoint, probabilities=True, classes=True)
    with ExitStack() as stack:
        store = stack.enter_context(scratch((scheme.heads, *volume.shape), target.parent))
        result = yield from predict(model, volume, preset("balanced", folds=folds, base=base), probabilities=store)
        entropy = entropy_of((np.asarray(head) for head in store), scheme)
        del store
    seen = np.asarray(result.labels)
    if request.proposals is not None:
        make_folder(request.proposals)
        write_labels(
            remap(seen, values),
            volume.geometry,
            _proposal(case.name, model, request.proposals),
            writer=model_reader(model),
        )
    axis = drawing_axis(volume.geometry.spacing)
    annotated = None
    labels = known.labels.get(case.name)
    if labels is not None:
        drawn, own = read_labels(labels, reader=model_reader(model))
        grids = Grid(seen.shape, volume.geometry), Grid(drawn.shape, own)
        by_voxels = seen.shape == drawn.shape and joined_by(labels.parent.parent, case.name) == "ignore"
        if not (by_voxels or same_voxels(found := relation(*grids), *grids)):
            raise DatasetError(
                f"{labels} does not lie on the voxels of the image of the same name ({found}). Give the image as it is "
                "in the dataset, or another name."
            )
        annotated = np.asarray(drawn != known.ignored)
    boxes = boxes_in(seen.shape, request.unit, _size(model, volume, request), axis)
    return places_of(case.name, entropy, seen, scheme, boxes, unit=request.unit, axis=axis, annotated=annotated)


def _size(model: TrainedModel, volume: Volume, request: SuggestRequest) -> tuple[int, ...]:
    """Return the size of boxes: what was asked for, else half of the network's window in voxels of the image."""
    shape = volume.shape
    if request.size is not None:
        if len(request.size) != len(shape) or min(request.size) < 1:
            raise SettingsError(
                f"A box of {' '.join(map(str, request.size))} voxels does not fit an image with {len(shape)} axes. "
                "Give a number from 1 on for each axis."
            )
        return request.size
    order = np.argsort(model.plans.transpose_forward)
    patch = [model.configuration.patch_3d[axis] for axis in order][3 - len(shape) :]
    own = [(1.0, *model.configuration.spacing)[-3:][axis] for axis in order][3 - len(shape) :]
    spacing = volume.geometry.spacing
    return tuple(max(1, round(n * mm / s / 2)) for n, mm, s in zip(patch, own, spacing, strict=True))


def _minutes(place: Spot, request: SuggestRequest) -> float:
    sides = [hi - lo for lo, hi in place.box]
    slices = min(sides) if len(sides) == 3 else 1
    return (place.outlines * request.pace + slices * _LOOK) / 60


def _proposal(case: str, model: TrainedModel, folder: Path) -> Path:
    return folder / (case + model.dataset.file_ending)


def _kept(case: str, model: TrainedModel, request: SuggestRequest) -> Path | None:
    return None if request.proposals is None else _proposal(case, model, request.proposals)


def _drop_others(cases: Sequence[Case], chosen: set[str], model: TrainedModel, request: SuggestRequest) -> None:
    """Remove the proposals of images that were not suggested after all; they were written by this job."""
    if request.proposals is not None:
        for case in cases:
            if case.name not in chosen:
                _proposal(case.name, model, request.proposals).unlink(missing_ok=True)


def learning(
    workspace: Workspace, dataset: str, model: TrainedModel, found: Sequence[Suggestion], unit: Unit
) -> Gain | None:
    """Return what labelling these places is expected to bring, by the models of this trainer and configuration.

    What was annotated for each model is counted in what is suggested: cases, slices, or boxes of as many voxels.
    """
    wanted = JudgedBy(configuration=model.configuration.name, trainer=model.trainer)
    box = float(np.mean([suggestion.place.voxels for suggestion in found])) if found else 0.0
    points = []
    for judge in judges(workspace, dataset, wanted):
        scores, amount = judge.scores, _amount_for(judge, unit, box)
        alike = judge.model.dataset.labels.head_names == model.dataset.labels.head_names  # else another Dice is meant
        if alike and len(scores) > 1 and amount > 0:
            error = float(np.std(scores, ddof=1)) / math.sqrt(len(scores))
            points.append(CurvePoint(amount, float(np.mean(scores)), error))
    return expected_gain(points, max(1, len(found)), unit)


def _amount_for(judge: Judge, unit: Unit, box: float) -> float:
    """Return what was annotated when a model was trained; 0 where that is not known, as of earlier versions."""
    model = judge.model
    noted = [noted_amount(model.folder / f"fold_{fold}") for fold in judge.folds]
    known = [amount.counted_in(unit, box) for amount in noted if amount is not None]
    if len(known) == len(noted):
        return sum(known) / len(known)
    whole = unit == "cases" and model.dataset.labels.ignore_label is None
    return float(model.dataset.num_training or 0) if whole else 0.0
