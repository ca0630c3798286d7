"""Compare cross-validations and find the best model or ensemble."""

from __future__ import annotations

import itertools
import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from napari_nnunet.engine.prediction.vote import VoteSettings
from napari_nnunet.errors import DatasetError, ModelError, NnunetError, some
from napari_nnunet.events import Job, Note
from napari_nnunet.formats.atomic import (
    copy_file,
    make_folder,
    partial_name,
    remove_leftovers,
    replace_folder,
    write_json,
    write_text,
)
from napari_nnunet.formats.claim import claimed
from napari_nnunet.formats.model.folder import TrainedModel, is_model_folder, load_model
from napari_nnunet.formats.results.inference_information import (
    INFORMATION,
    INSTRUCTIONS,
    OBJECTS_KEY,
    Best,
    read_best,
)
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.jobs.choosing.crossval import (
    collect,
    dataset_folds,
    evaluated_at,
    mean_dice,
    mean_precision,
    reference_folder,
    score_objects,
    validated_folds,
)
from napari_nnunet.jobs.choosing.ensemble import EnsembleRules, ensemble_cases
from napari_nnunet.jobs.choosing.evaluate import Rules
from napari_nnunet.jobs.choosing.instructions import instructions
from napari_nnunet.jobs.choosing.postprocess import Determined, determine
from napari_nnunet.jobs.choosing.validation import VALIDATE_FIRST, validation_cases, validation_members
from napari_nnunet.jobs.objects.find import decoding_of
from napari_nnunet.schema.model_name import EnsembleName, ModelName
from napari_nnunet.schema.names import Fold
from napari_nnunet.schema.objects import ObjectScheme
from napari_nnunet.schema.plans import Plans
from napari_nnunet.schema.requests.choosing import FindBestRequest


@dataclass(frozen=True)
class Scored:
    """A model or an ensemble with its cross-validation.

    Parameters
    ----------
    identifier : str
        As nnU-Net names it.
    models : tuple of ModelName
        One, or the members.
    folder : Path
        With the segmentations and summary.json.
    dice : float
        Mean over labels of the mean over cases.
    objects : float, optional
        Mean average precision of the objects (IoU 0.5 to 0.95); None where a dataset has none, or they are not known.
    """

    identifier: str
    models: tuple[ModelName, ...]
    folder: Path
    dice: float
    objects: float | None = None

    @property
    def told(self) -> str:
        """How good it is, in words."""
        return f"Dice {self.dice:.4f}" if self.objects is None else f"average precision {self.objects:.4f}"


@dataclass(frozen=True)
class Answer:
    """The best, and everything it was compared with.

    Parameters
    ----------
    best : Best
        As written to inference_information.json.
    scored : tuple of Scored
        In the order in which they were compared.
    postprocessing : Determined
        For the best.
    instructions : Path
        inference_instructions.txt.
    """

    best: Best
    scored: tuple[Scored, ...]
    postprocessing: Determined = field(repr=False)
    instructions: Path


def find_best(workspace: Workspace, request: FindBestRequest) -> Job[Answer]:
    """Compare all trained models of a dataset, and ensembles of them, by their cross-validations.

    Parameters
    ----------
    workspace : Workspace
        Where everything is.
    request : FindBestRequest
        What is compared.

    Returns
    -------
    Answer
        inference_information.json and inference_instructions.txt have been written.

    Raises
    ------
    ModelError, DatasetError
        If nothing that was asked for is trained, or folds that were asked for are missing.
    """
    dataset = workspace.dataset_name(request.dataset)
    results = workspace.results / dataset
    with claimed(results, f"The best model of {dataset} is already being looked for", part=INFORMATION):
        return (yield from _find_best(workspace, dataset, request))


def _find_best(workspace: Workspace, dataset: str, request: FindBestRequest) -> Job[Answer]:
    models = yield from _candidates(workspace, dataset, request)
    models, folds = yield from _common_folds(models, request.folds, dataset_folds(workspace, dataset))
    yield from _tell_of_other_cases(models, folds)
    scored: list[Scored] = []
    for model in models:
        found = yield from collect(workspace, model, folds, overwrite=request.overwrite, workers=request.workers)
        dice = mean_dice(found.folder)
        scored.append(Scored(model.folder.name, (model_name(model),), found.folder, dice, found.objects))
        yield Note(text=f"{model.folder.name}: {scored[-1].told}")
    if request.ensembling:
        for size in (2, 3) if request.triples else (2,):
            for members in itertools.combinations(models, size):
                scored.extend((yield from _score_ensemble(workspace, dataset, members, folds, request)))
    winner, by_objects = yield from _winner(dataset, scored, models[0])
    first = next(model for model in models if model_name(model) == winner.models[0])
    scheme = ObjectScheme.of(first.dataset)
    determined = yield from determine(
        winner.folder,
        reference_folder(workspace, dataset),
        Rules.of(first.dataset, reader=first.plans.reader),
        first.dataset.labels,
        untouched=() if scheme is None else scheme.learnt,
        workers=request.workers,
    )
    results = workspace.results / dataset
    write_json(
        results / INFORMATION, _information(dataset, folds, models, request, scored, winner, determined, by_objects)
    )
    best = read_best(results)
    write_text(results / INSTRUCTIONS, instructions(workspace, best))
    cleaned = f"{determined.cleaning.describe(first.dataset.labels) or 'no postprocessing helps'}"
    after = f", after postprocessing {best.dice_cleaned:.4f} ({cleaned})" if not by_objects else ""
    yield Note(text=f"Best: {winner.identifier}, {winner.told if by_objects else f'Dice {best.dice:.4f}'}{after}.")
    return Answer(best, tuple(scored), determined, results / INSTRUCTIONS)


def _winner(dataset: str, scored: Sequence[Scored], model: TrainedModel) -> Job[tuple[Scored, bool]]:
    """Return the best, and whether it was chosen by its objects: only where those of all that is compared are known."""
    by_objects = all(entry.objects is not None and not math.isnan(entry.objects) for entry in scored)
    if by_objects:
        yield Note(text="Compared by the mean average precision of the objects, at an IoU of 0.5 to 0.95.")
        return max(scored, key=lambda entry: entry.objects or 0.0), True
    if ObjectScheme.of(model.dataset) is not None:
        lacking = ", ".join(entry.identifier for entry in scored if entry.objects is None)
        why = f"those of {lacking} are not known; validate its folds again (--val)" if lacking else "there are none"
        yield Note(
            level="warning",
            text=f"Compared by the Dice of cores and borders, not by the objects that are found: {why}.",
        )
    # Of equal ones the first, so a single model; what cannot be judged is never the best.
    winner = max(scored, key=lambda entry: -1.0 if math.isnan(entry.dice) else entry.dice)
    if math.isnan(winner.dice):
        raise DatasetError(
            f"No model of {dataset} can be scored: a label occurs in no reference and no prediction, so the mean Dice "
            "is not a number. Remove that label from dataset.json, or add cases that have it."
        )
    return winner, False


def _planned(workspace: Workspace, dataset: str, plans: str) -> tuple[str, ...]:
    """Return the configurations of some plans: of the file, or if that is gone, of what was trained with it."""
    path = workspace.preprocessed / dataset / f"{plans}.json"
    if path.is_file():
        return tuple(Plans.read(path).configurations)
    return tuple(name.configuration for name in workspace.models(dataset) if name.plans == plans)


def model_name(model: TrainedModel) -> ModelName:
    """Return the names a model's folder is made of."""
    return ModelName.parse(model.folder.name)


def _candidates(workspace: Workspace, dataset: str, request: FindBestRequest) -> Job[list[TrainedModel]]:
    """Return every combination that was planned and trained; notes what is skipped."""
    found = []
    for trainer, plans, configuration in itertools.product(request.trainers, request.plans, request.configurations):
        planned = _planned(workspace, dataset, plans)
        if configuration not in planned:
            yield Note(text=f"{configuration} is not in {plans} ({', '.join(planned)}); skipped.")
            continue
        folder = workspace.model(dataset, ModelName(trainer, plans, configuration))
        if not folder.is_dir():
            yield Note(level="warning", text=f"{folder.name} was not trained; skipped.")
            continue
        if not is_model_folder(folder):
            text = f"{folder.name} is incomplete (its training never began) and is skipped: {folder}."
            yield Note(level="warning", text=text)
            continue
        found.append(load_model(folder))
    if not found:
        raise ModelError(
            f"Nothing to compare: none of {', '.join(request.configurations)} with {', '.join(request.trainers)} and "
            f"{', '.join(request.plans)} was trained for {dataset}. Train one first."
        )
    return found


def _common_folds(
    models: list[TrainedModel], wanted: tuple[Fold, ...] | None, every: tuple[Fold, ...]
) -> Job[tuple[list[TrainedModel], tuple[Fold, ...]]]:
    """Return the models and folds that can be compared; what was asked for by number must be there."""
    there = {model.folder.name: validated_folds(model) for model in models}
    if wanted is not None:
        missing = _lacking(there, wanted)
        if missing:
            raise ModelError(f"Folds without validation: {missing}. Train them, or name the folds to compare (-f).")
        return models, wanted
    usable = [model for model in models if set(there[model.folder.name]) & set(every)]
    for model in models:
        if model not in usable:
            yield Note(level="warning", text=f"{model.folder.name} has no validated fold; skipped.")
    if not usable:
        raise ModelError("No model has a validated fold.", **VALIDATE_FIRST)
    folds = tuple(fold for fold in every if all(fold in there[model.folder.name] for model in usable))
    if not folds:
        listed = "; ".join(f"{model.folder.name}: {list(there[model.folder.name])}" for model in usable)
        raise ModelError(f"The models have no validated fold in common ({listed}). Train the same folds of each.")
    lacking = _lacking({model.folder.name: there[model.folder.name] for model in usable}, every)
    if lacking:
        yield Note(
            level="warning",
            text=f"Compared on fold {', '.join(map(str, folds))} only, not on all {len(every)}: {lacking}. "
            "More folds make the choice more reliable.",
        )
    return usable, folds


def _lacking(there: Mapping[str, Sequence[Fold]], wanted: Sequence[Fold]) -> str:
    """Return which models lack which of some folds; empty where none does."""
    return "; ".join(
        f"{name} lacks fold {', '.join(str(fold) for fold in wanted if fold not in folds)}"
        for name, folds in there.items()
        if set(wanted) - set(folds)
    )


def _tell_of_other_cases(models: Sequence[TrainedModel], folds: tuple[Fold, ...]) -> Job[None]:
    """Warn where models were validated on different cases of the same folds: their means say little of each other."""
    cases = {
        model.folder.name: set(validation_cases(model.folder, folds, model.dataset.file_ending)) for model in models
    }
    every = set().union(*cases.values())
    lacking = [
        f"{name} lacks {len(every - there)} ({some(sorted(every - there), 4)})"
        for name, there in cases.items()
        if there != every
    ]
    if lacking:
        yield Note(
            level="warning",
            text=f"The models were validated on different cases, so that their scores cannot be compared: of "
            f"{len(every)} cases {'; '.join(lacking)}. Validate their folds again (train --val).",
            in_window=f"The models were validated on different cases, so that their scores cannot be compared: of "
            f"{len(every)} cases {'; '.join(lacking)}. Validate their folds again in the Train dock.",
        )


def _score_ensemble(
    workspace: Workspace,
    dataset: str,
    models: Sequence[TrainedModel],
    folds: tuple[Fold, ...],
    request: FindBestRequest,
) -> Job[list[Scored]]:
    """Combine the validation cases of some models and score them; None if probabilities are missing."""
    names = tuple(model_name(model) for model in models)
    identifier = EnsembleName.join((name.folder for name in names), folds).folder
    folder = workspace.results / dataset / "ensembles" / identifier
    if request.overwrite or not (folder / "summary.json").is_file():
        try:
            yield from _join(workspace, dataset, models, folds, folder, request.workers)
        except NnunetError as error:
            yield Note.about(f"No ensemble of {' and '.join(n.configuration for n in names)}:", error)
            return []
    found = Scored(identifier, names, folder, mean_dice(folder), mean_precision(folder))
    yield Note(text=f"Ensemble of {' and '.join(n.configuration for n in names)}: {found.told}")
    return [found]


def _join(
    workspace: Workspace,
    dataset: str,
    models: Sequence[TrainedModel],
    folds: tuple[Fold, ...],
    folder: Path,
    workers: int,
) -> Job[None]:
    first = models[0]
    members = validation_members([model.folder for model in models], folds, first.dataset.file_ending)
    remove_leftovers(make_folder(folder.parent))
    beside = make_folder(folder.parent / partial_name("ensemble"))  # its own name is almost as long as is allowed
    try:
        objects = decoding_of([(model, folds) for model in models])
        rules = EnsembleRules(first.dataset, first.plans.reader, VoteSettings(), objects=objects)
        yield from ensemble_cases(members, beside, rules, workers=workers)
        for name in ("dataset.json", "plans.json"):
            copy_file(first.folder / name, beside / name)
        if objects is not None:
            yield from score_objects(workspace, first, beside, workers)
        scores = Rules.of(first.dataset, reader=first.plans.reader)
        yield from evaluated_at(reference_folder(workspace, dataset), beside, folder, scores, workers=workers)
        replace_folder(beside, folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _information(
    dataset: str,
    folds: tuple[Fold, ...],
    models: Sequence[TrainedModel],
    request: FindBestRequest,
    scored: Sequence[Scored],
    winner: Scored,
    determined: Determined,
    by_objects: bool,
) -> dict[str, Any]:
    considered = [model_name(model) for model in models]
    objects = {entry.identifier: entry.objects for entry in scored} if by_objects else None
    return {
        "folds": list(folds),
        "dataset_name_or_id": dataset,
        "considered_models": [
            {"plans": name.plans, "configuration": name.configuration, "trainer": name.trainer} for name in considered
        ],
        "ensembling_allowed": request.ensembling,
        "all_results": {entry.identifier: entry.dice for entry in scored},
        "best_model_or_ensemble": {
            "result_on_crossval_pre_pp": determined.before.dice,
            "result_on_crossval_post_pp": determined.after.dice,
            "postprocessing_file": str(determined.file),
            "some_plans_file": str(winner.folder / "plans.json"),
            "selected_model_or_models": [
                {"configuration": name.configuration, "trainer": name.trainer, "plans_identifier": name.plans}
                for name in winner.models
            ],
        },
        **({} if objects is None else {OBJECTS_KEY: objects}),
    }
