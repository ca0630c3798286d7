"""What a training needs is done before it: new and changed cases are preprocessed and get their place in the folds.

Where a model goes on, what does not fit it is refused, and images unlike those it was trained on are said.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_nnunet.engine.image.annotated import has_whole_parts
from napari_nnunet.engine.image.intensities import intensity_warnings
from napari_nnunet.errors import DatasetError, ModelError, NnunetError, PlanError, SettingsError, counted, some
from napari_nnunet.events import Job, Note, Progress, Stage
from napari_nnunet.formats.dataset.raw_dataset import RawDataset, open_dataset, reader_of, survey
from napari_nnunet.formats.images.files import read_header, read_volume
from napari_nnunet.formats.model.checkpoint import OWN
from napari_nnunet.formats.model.folder import TrainedModel
from napari_nnunet.formats.preprocessed.cases import case_names, open_case
from napari_nnunet.formats.preprocessed.plans import read_plans
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.jobs.amount import Amount, amount_in
from napari_nnunet.jobs.dataset.splits import SPLITS_FILE, read_splits
from napari_nnunet.jobs.objects.draw import keep_drawn
from napari_nnunet.jobs.planning.folds import adopt_cases
from napari_nnunet.jobs.planning.preprocess import preprocess
from napari_nnunet.jobs.prediction.voxel_size import far_voxels
from napari_nnunet.jobs.training.order import Order, changed_cases, make_order
from napari_nnunet.schema.names import Fold
from napari_nnunet.schema.plans import Plans
from napari_nnunet.schema.requests.planning import PreprocessRequest
from napari_nnunet.schema.requests.training import TrainRequest
from napari_nnunet.volume import by_text

if TYPE_CHECKING:  # torch is not loaded to see what a training needs
    from napari_nnunet.jobs.training.loader import BatchSource

_GLANCED = 3  # cases whose intensities are looked at
_OPENED = 6  # cases whose labels are looked at
_LARGEST = 1 << 28  # voxels of one of them
_STROKES = 0.2  # of the voxels: with so few annotated it matters what the others count


@dataclass(frozen=True)
class Needs:
    """What is to be done before a configuration can be trained.

    Parameters
    ----------
    cases : tuple of str
        To be preprocessed.
    unused : tuple of str
        Cases of the dataset that are in no fold, so that no training but that of fold "all" sees them.
    """

    cases: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()


def look_at_needs(workspace: Workspace, requests: Sequence[TrainRequest]) -> Job[Needs]:
    """Find out what is to be done before trainings of one dataset and plans; nothing is written.

    Raises
    ------
    NnunetError
        If there are no plans, no such configuration, or no cases.
    """
    yield from ()
    base = workspace.preprocessed / workspace.dataset_name(requests[0].dataset)
    plans, raw = read_plans(base, requests[0].plans), workspace.raw / base.name
    there = [case.name for case in survey(raw)[0].cases] if (raw / "dataset.json").is_file() else []
    cases: set[str] = set()
    every = set(there)
    for name in _configurations(requests):
        configuration = plans.configuration(name)
        data = base / configuration.data_identifier
        ready = case_names(data) if data.is_dir() else []
        if not ready and not there:
            raise DatasetError(f"{raw} has no cases, and none are preprocessed for {name}.")
        cases |= set(changed_cases(workspace, plans, configuration, data)[0] if ready else there)
        every |= set(ready)
    unused: tuple[str, ...] = ()
    if (base / SPLITS_FILE).is_file() and requests[0].fold != "all":
        used = {name for split in read_splits(base / SPLITS_FILE) for name in (*split.train, *split.val)}
        unused = tuple(sorted(every - used))
    return Needs(tuple(sorted(cases)), unused)


def _configurations(requests: Sequence[TrainRequest]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(request.configuration for request in requests))


def prepare_training(workspace: Workspace, requests: Sequence[TrainRequest], *, adopt: Sequence[str] = ()) -> Job[None]:
    """Preprocess what is new or changed, then look at everything a training refuses.

    See :func:`prepare_cases` and :func:`check_training`.
    """
    yield from prepare_cases(workspace, requests, adopt=adopt)
    yield from check_training(workspace, requests)


def prepare_cases(workspace: Workspace, requests: Sequence[TrainRequest], *, adopt: Sequence[str] = ()) -> Job[None]:
    """Preprocess what is new or changed, and give new cases their place in the folds.

    Parameters
    ----------
    workspace : Workspace
        Where the dataset lies.
    requests : sequence of TrainRequest
        Folds of configurations of one dataset and plans.
    adopt : sequence of str
        Cases that every fold shall train with from now on; none validates them, so that scores stay comparable.

    Raises
    ------
    DatasetError
        If a case cannot be preprocessed.
    """
    first = requests[0]
    raw = workspace.raw / workspace.dataset_name(first.dataset)
    if (raw / "dataset.json").is_file():
        yield from keep_drawn(raw)
    needs = yield from look_at_needs(workspace, requests)
    base = workspace.preprocessed / workspace.dataset_name(first.dataset)
    if needs.cases:
        yield Stage(name=f"Preprocessing {counted(len(needs.cases), 'case')}")
        request = PreprocessRequest(dataset=base.name, plans=first.plans, configurations=_configurations(requests))
        result = yield from preprocess(workspace, request, as_before=True)
        if result.failed:
            name, reason = next(iter(result.failed.items()))
            raise DatasetError(
                f"{len(result.failed)} of {counted(len(needs.cases), 'case')} could not be preprocessed. "
                f"{name}: {reason}"
            )
    if adopt:
        adopt_cases(workspace, base.name, adopt)
        yield Note(text=f"{counted(len(adopt), 'new case is', 'new cases are')} trained with in every fold.")


def check_training(workspace: Workspace, requests: Sequence[TrainRequest]) -> Job[None]:
    """Look at everything a training refuses, before a process is started for it."""
    for request in requests:
        yield from make_order(workspace, request, anew=trained_anew(requests))


def trained_anew(requests: Sequence[TrainRequest]) -> tuple[Fold, ...]:
    """Return the folds that requests train from their beginning; of each, what it learnt before goes."""
    return tuple(request.fold for request in requests if not (request.resume or request.validate_only))


def shares_data(base: Path, model: TrainedModel) -> bool:
    """Whether the dataset's own plans of that name are the model's, so that what is preprocessed serves both."""
    try:
        own = read_plans(base, model.plans.plans_name)
    except NnunetError:
        return False  # none, or none that can be read
    return _rules(own) == _rules(model.plans)


def _rules(plans: Plans) -> Any:
    keys = ("configurations", "transpose_forward", "foreground_intensity_properties_per_channel")
    return [plans.raw.get(key) for key in keys]


def require_continuable(model: TrainedModel, request: TrainRequest, raw: Path) -> None:
    """Raise what speaks against going on with a model, before anything is written."""
    if request.resume or request.pretrained is not None:
        raise SettingsError(
            "A training is either resumed, begun from other weights, or the continuation of a model.",
            shell="Give one of --c, -pretrained_weights and --continue_from.",
        )
    if model.configuration.name != request.configuration:
        raise ModelError(
            f"{model.folder} is a {model.configuration.name} model; {request.configuration} was asked for. Name "
            f"{model.configuration.name}, or a model of {request.configuration}."
        )
    if model.configuration.previous_stage is not None:
        raise ModelError(f"{model.name} is the second stage of a cascade, which cannot be continued yet.")
    info = open_dataset(raw).info
    if len(info.channel_names) != len(model.dataset.channel_names):
        raise DatasetError(
            f"{raw.name} has the channels {', '.join(info.channel_names)}; {model.name} was trained with "
            f"{', '.join(model.dataset.channel_names)}. A model can be continued only with the same "
            f"number of channels.",
            shell="-pretrained_weights begins a new training with its weights, whatever the number of channels.",
            window="'Begin with' in the Train dock takes its weights, whatever the number of channels.",
        )
    if info.labels.has_regions != model.dataset.labels.has_regions:
        raise DatasetError(f"{raw.name} and {model.name} must both have classes, or both regions.")


def look_at_likeness(model: TrainedModel, dataset: RawDataset) -> Job[None]:
    """Say where images of a dataset are unlike those a model was trained on; few are read.

    Raises
    ------
    DatasetError
        If voxels are far larger or smaller: the model's plans would resample them to another size altogether.
    """
    reader = reader_of(dataset)
    far: dict[str, str] = {}
    for case in dataset.cases:
        with suppress(NnunetError):  # what cannot be read is said when it is preprocessed
            found = far_voxels(model, read_header(case.images[0], reader=reader).geometry)
            far |= {} if found is None else {case.name: found.text}
    if far:
        name, text = next(iter(far.items()))
        raise DatasetError(
            f"{len(far)} of {len(dataset.cases)} cases of {dataset.name} have other voxels than {model.name} was "
            f"trained on. {name}: {text}",
            shell="Correct the voxel size in the files, or begin a training with plans of its own "
            "(-pretrained_weights).",
            window="Correct the voxel size in the files, or choose the model under 'Begin with' in the Train dock.",
        )
    odd: dict[str, tuple[str, ...]] = {}
    for case in dataset.cases[:: -(-len(dataset.cases) // _GLANCED) or 1]:
        with suppress(NnunetError):
            array = read_volume(case.images, reader=reader, as_stored=True).array
            odd[case.name] = intensity_warnings(array, model.plans, model.configuration, dataset.info.channel_names)
    yield from (Note(level="warning", text=f"{names}: {text}") for names, text in by_text(odd))


def changed_plans(content: Mapping[str, Any], order: Order) -> Job[None]:
    """Say what the plans ask for that they did not when the checkpoint was written; the training goes on with it."""
    try:
        before = Plans.parse((content.get("init_args") or {})["plans"]).configuration(order.configuration.name)
    except (PlanError, LookupError, TypeError, AttributeError):
        return  # a checkpoint of another program may say nothing of it
    for what, then, now in (
        ("batch", before.batch_size, order.configuration.batch_size),
        ("patch", before.patch_size, order.configuration.patch_size),
    ):
        if then != now:
            yield Note(
                level="warning",
                text=f"The plans were changed since this was saved: the {what} was {then}, and is {now} from here on.",
            )


def favour_annotated(source: BatchSource, resumed: Mapping[str, Any] | None) -> Job[float]:
    """Draw cases of which more is annotated more often, and say so; returns the seconds it took.

    Trainings that began otherwise go on as they began.

    Parameters
    ----------
    source : BatchSource
        That makes the batches.
    resumed : mapping, optional
        The checkpoint that a training goes on from.

    Raises
    ------
    DatasetError
        Naming a case that cannot be used.
    """
    if resumed is not None and not (resumed.get(OWN) or {}).get("favours_annotated"):
        return 0.0
    began = time.monotonic()
    often = source.favour_annotated()
    if often > 1:
        told = f"they are drawn up to {often:.2g} times as often."
        yield Note(text=f"More is annotated of some cases than of others: {told}")
    return time.monotonic() - began if source.favours else 0.0


def say_strokes(order: Order) -> Job[None]:
    """Say where few voxels are annotated, and how that is learnt otherwise; a look at a few training cases.

    What nobody annotated teaches nothing, and a network that learnt from strokes alone draws structures where nobody
    painted; counted as background, it would hide structures where slices or boxes were labelled wholly. Which of the
    two it is a person knows.
    """
    ignored = order.info.labels.ignore_label
    if ignored is None:
        return
    cases = order.split.train
    shares, whole = list[float](), 0
    for name in cases[:: -(-len(cases) // _OPENED) or 1]:
        annotated = _annotated_in(order, name, ignored)
        if annotated is not None:
            shares.append(annotated.share)
            whole += annotated.wholly
    few, wholly = bool(shares) and float(np.median(shares)) < _STROKES, 2 * whole > len(shares)
    if few and not wholly and not order.recipe.scribbles:
        text = (
            f"Only {np.median(shares):.1%} of the voxels of a case are annotated, and the others teach nothing. Where "
            "slices or boxes were labelled wholly, that is right. Where labels are strokes in every structure and in "
            "the background, "
        )
        yield Note(
            level="warning",
            text=f"{text}train with --scribbles: sizes and places are learnt better.",
            in_window=f"{text}train with 'Scribbles' among the advanced settings: sizes and places are learnt better.",
        )
    if order.recipe.scribbles:
        yield from _said_of_scribbles(order, few, shares)


def _said_of_scribbles(order: Order, few: bool, shares: Sequence[float]) -> Iterator[Note]:
    """Say in which cases of a training on strokes whole slices or boxes are annotated, and where labels are none."""
    cases = order.split.train
    whole = [name for name in cases if name in order.wholly]
    if len(whole) == len(cases):
        text = (
            "Trained as scribbles, but whole slices or boxes are annotated in every case: what nobody annotated "
            "teaches nothing, as in any other training. To have it said so in the model, "
        )
    else:
        if whole:
            yield Note(
                text=f"Whole slices or boxes are annotated in {len(whole)} of {counted(len(cases), 'case')} "
                f"({some(whole, 3)}): what nobody annotated teaches nothing there. In the others, which are strokes, "
                "it counts as background."
            )
        if few:
            return
        text = (
            f"Trained as scribbles, but {np.median(shares):.0%} of the voxels of a case are annotated: what nobody "
            "annotated counts as background, so that structures come out too small or are missed where they were not "
            "labelled. Unless all labels are strokes, "
        )
    yield Note(level="warning", text=f"{text}train without --scribbles.", in_window=f"{text}train without 'Scribbles'.")


@dataclass(frozen=True)
class _Annotated:
    """The share of the voxels of a case that somebody annotated, and whether most of it is whole slices or boxes."""

    share: float
    wholly: bool


def _annotated_in(order: Order, name: str, ignored: int) -> _Annotated | None:
    """Return how a preprocessed case is annotated; None where it is too large to be looked at."""
    labels = open_case(order.data, name).labels
    if np.prod(labels.shape) > _LARGEST:
        return None
    values = np.asarray(labels[:])[0]
    annotated = values != ignored  # also what lies outside the content
    share = float(annotated[values >= 0].mean()) if (values >= 0).any() else 1.0
    return _Annotated(share, share > 0 and has_whole_parts(annotated))


def wholly_annotated(order: Order) -> Job[frozenset[str]]:
    """Return the cases of a training on strokes in which whole slices or boxes are annotated; of others, none.

    What nobody annotated there teaches nothing, as in every training without strokes: structures beyond what was
    labelled wholly would be taken for background, which strokes in every structure outweigh, and nothing here does.
    """
    ignored = order.info.labels.ignore_label
    cases = sorted({*order.split.train, *order.split.val})
    if ignored is None or not order.recipe.scribbles:
        return frozenset()
    yield Stage(name="Looking which labels are strokes", total=len(cases))
    found = set()
    for index, name in enumerate(cases):
        annotated = _annotated_in(order, name, ignored)
        if annotated is not None and annotated.wholly:
            found.add(name)
        yield Progress(done=index + 1, total=len(cases))
    return frozenset(found)


def amount_for(order: Order) -> Amount:
    """Return what is annotated in the cases of a training, and in those that validate it: all that was labelled."""
    cases = sorted({*order.split.train, *order.split.val})
    return amount_in([order.reference(name) for name in cases], order.info.reader, order.info.labels.ignore_label)
