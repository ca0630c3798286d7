"""The validation cases of all folds of a model, together: every case once, segmented by a model that never saw it."""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from napari_nnunet.errors import DatasetError, ModelError, SettingsError, some
from napari_nnunet.events import Job, Note, Stage
from napari_nnunet.formats.atomic import copy_file, make_folder, partial_name, remove_leftovers, replace_folder
from napari_nnunet.formats.claim import claimed
from napari_nnunet.formats.dataset.case_trash import OBJECTS
from napari_nnunet.formats.dataset.raw_dataset import read_info
from napari_nnunet.formats.model.folder import TrainedModel, load_model
from napari_nnunet.formats.results.objects import FOUND_KINDS, found_file
from napari_nnunet.formats.results.summary import SUMMARY_FILE, Summary
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.jobs.choosing.evaluate import Evaluation, Rules, evaluate_pairs
from napari_nnunet.jobs.choosing.evaluate_objects import OBJECTS_FILE, evaluate_objects, read_scores
from napari_nnunet.jobs.choosing.pairs import pair_up
from napari_nnunet.jobs.choosing.validation import FOUND_OBJECTS, VALIDATE_FIRST, validation_cases
from napari_nnunet.schema.dataset import IGNORE
from napari_nnunet.schema.json_text import read_json
from napari_nnunet.schema.names import Fold
from napari_nnunet.schema.objects import ObjectScheme
from napari_nnunet.schema.requests.choosing import AccumulateRequest, EvaluateObjectsRequest

DEFAULT_FOLDS: tuple[Fold, ...] = (0, 1, 2, 3, 4)


def validated_folds(model: TrainedModel) -> tuple[Fold, ...]:
    """Return the folds with validation cases."""
    ending = model.dataset.file_ending
    found = [path for path in model.folder.glob("fold_*") if any((path / "validation").glob(f"*{ending}"))]
    names = sorted((path.name.removeprefix("fold_") for path in found), key=lambda name: (len(name), name))
    return tuple(int(name) if name.isdecimal() else "all" for name in names)


def dataset_folds(workspace: Workspace, dataset: str) -> tuple[Fold, ...]:
    """Return the folds in which every case of a dataset validates once: splits_final.json's, else nnU-Net's five."""
    path = workspace.preprocessed / dataset / "splits_final.json"
    try:
        return tuple(range(len(read_json(path, DatasetError)))) or DEFAULT_FOLDS
    except (DatasetError, TypeError):
        return DEFAULT_FOLDS  # the data stayed elsewhere


def usable_folds(workspace: Workspace, model: TrainedModel) -> tuple[Fold, ...]:
    """Return those of the dataset's folds that were validated, or "all"; raises ModelError if there is none."""
    there = validated_folds(model)
    wanted = dataset_folds(workspace, model.folder.parent.name)
    folds = tuple(fold for fold in wanted if fold in there) or there
    if not folds:
        raise ModelError(f"{model.folder.name} has no validated fold.", **VALIDATE_FIRST)
    return folds


def require_same_classes(raw: Path, model: TrainedModel) -> None:
    """Raise ModelError where a dataset's classes have other values than those that a model was trained with.

    A class for voxels that nobody annotated may have been added or removed.
    """
    if not (raw / "dataset.json").is_file():
        return
    now, then = (
        {name: value for name, value in labels.labels.items() if name != IGNORE}
        for labels in (read_info(raw).labels, model.dataset.labels)
    )
    if now != then:
        said = [", ".join(f"{name} = {value}" for name, value in found.items()) for found in (then, now)]
        raise ModelError(
            f"{model.name} was trained with the classes {said[0]}; {raw.name} has {said[1]} now.",
            shell="Train it again, or continue it with the current classes (train --continue_from).",
            window="Train it again, or press 'Improve…' in the Train dock.",
        )


def reference_folder(workspace: Workspace, dataset: str) -> Path:
    """Return the folder with the references of a dataset: labelsTr, else the copy next to the preprocessed cases.

    Raises
    ------
    DatasetError
        If there is neither.
    """
    choices = (workspace.raw / dataset / "labelsTr", workspace.preprocessed / dataset / "gt_segmentations")
    for folder in choices:
        if folder.is_dir():
            return folder
    raise DatasetError(f"The references of {dataset} are in neither {choices[0]} nor {choices[1]}.")


@dataclass(frozen=True)
class Collected:
    """The validation cases of a model in one folder.

    Parameters
    ----------
    folder : Path
        With the cases and summary.json.
    folds : tuple of int or "all"
        Those that were collected.
    evaluation : Evaluation, optional
        None where the folder was there before.
    objects : float, optional
        Mean average precision of the objects; None for a dataset of classes, or where folds were validated without.
    """

    folder: Path
    folds: tuple[Fold, ...]
    evaluation: Evaluation | None
    objects: float | None = None


def accumulate(workspace: Workspace, request: AccumulateRequest) -> Job[Collected]:
    """Collect the validation cases of all folds of a model in one folder and score them.

    Parameters
    ----------
    workspace : Workspace
        Where model and references are.
    request : AccumulateRequest
        Which model and folds; the folder must be new or empty.

    Returns
    -------
    Collected
        Folder and scores.

    Raises
    ------
    ModelError, DatasetError, SettingsError
        If there is no such model, a fold has no validation cases, or the folder is in use.
    """
    folder = workspace.model_folder(
        request.dataset, trainer=request.trainer, plans=request.plans, configuration=request.configuration
    )
    model = load_model(folder)
    folds = usable_folds(workspace, model) if request.folds is None else request.folds
    return (yield from collect(workspace, model, folds, target=request.target, workers=request.workers))


def collect(
    workspace: Workspace,
    model: TrainedModel,
    folds: Sequence[Fold],
    *,
    target: Path | None = None,
    overwrite: bool = True,
    workers: int = 0,
) -> Job[Collected]:
    """Collect the validation cases of folds of a model, and score them.

    Parameters
    ----------
    workspace : Workspace
        Where the references are.
    model : TrainedModel
        The model.
    folds : sequence of int or "all"
        Folds that count.
    target : Path, optional
        An empty or new folder; ``crossval_results_folds_...`` in the model's folder if not given.
    overwrite : bool
        Whether that folder is made again if it is complete.
    workers : int
        Processes, at most; 0 means one per core.

    Returns
    -------
    Collected
        Folder and scores.
    """
    own = target is None
    folder = target or model.folder / f"crossval_results_folds_{'_'.join(str(fold) for fold in folds)}"
    if own and not overwrite and (folder / "summary.json").is_file():
        return Collected(folder, tuple(folds), None, mean_precision(folder))
    with claimed(folder.parent, f"{folder} is already being filled with validation cases", part=folder.name):
        if not own and folder.is_dir() and any(folder.iterdir()):
            raise SettingsError(f"The output folder {folder} is not empty. Choose another one.")
        result = yield from _collect(workspace, model, folds, folder, workers)
        return Collected(folder, tuple(folds), result, mean_precision(folder))


def _collect(
    workspace: Workspace, model: TrainedModel, folds: Sequence[Fold], folder: Path, workers: int
) -> Job[Evaluation]:
    reference = reference_folder(workspace, model.folder.parent.name)
    cases = validation_cases(model.folder, folds, model.dataset.file_ending)
    yield Stage(name=f"Collecting the folds of {model.folder.name}", total=len(cases))
    remove_leftovers(folder.parent)
    beside = folder.parent / partial_name(folder.name)
    make_folder(beside)
    try:
        for path in cases.values():
            copy_file(path, beside / path.name)
        for name in ("dataset.json", "plans.json"):
            copy_file(model.folder / name, beside / name)
        yield from _collect_objects(workspace, model, cases, beside, workers)
        rules = Rules.of(model.dataset, reader=model.plans.reader)
        result = yield from evaluated_at(reference, beside, folder, rules, workers=workers)
        replace_folder(beside, folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return result


def _collect_objects(
    workspace: Workspace, model: TrainedModel, cases: Mapping[str, Path], beside: Path, workers: int
) -> Job[None]:
    """Collect and score the objects of the validation cases, where the dataset has objects and all were looked for."""
    if ObjectScheme.of(model.dataset) is None:
        return
    found = {name: found_file(path.parent / FOUND_OBJECTS / path.name) for name, path in cases.items()}
    missing = [name for name, path in found.items() if not path.is_file()]
    if missing:
        yield Note(
            level="warning",
            text=f"{model.folder.name} was validated without looking for the objects of {len(missing)} of {len(cases)} "
            f"cases ({some(missing, 3)}), so that only its classes are compared.",
        )
        return
    target = make_folder(beside / FOUND_OBJECTS)
    for path in found.values():
        copy_file(path, target / path.name)
        kinds = path.parent / FOUND_KINDS / path.name
        if kinds.is_file():
            copy_file(kinds, make_folder(target / FOUND_KINDS) / path.name)
    yield from score_objects(workspace, model, beside, workers)


def score_objects(workspace: Workspace, model: TrainedModel, folder: Path, workers: int) -> Job[None]:
    """Compare the objects that a folder holds beside its classes with those of the dataset; writes objects.json."""
    reference = workspace.raw / model.folder.parent.name / OBJECTS
    if not reference.is_dir():
        yield Note(level="warning", text=f"{reference} is missing, so that only classes are compared.")
        return
    request = EvaluateObjectsRequest(
        reference=reference,
        prediction=folder / FOUND_OBJECTS,
        summary=folder / OBJECTS_FILE,
        missing_ok=True,
        workers=workers,
    )
    yield from evaluate_objects(request)


def mean_precision(folder: Path) -> float | None:
    """Return the mean average precision of the objects of a folder; None where they were not compared."""
    path = folder / OBJECTS_FILE
    if not path.is_file():
        return None
    value = read_scores(path)[""]["AP"]
    return math.nan if value is None else float(value)


def evaluated_at(reference: Path, beside: Path, folder: Path, rules: Rules, *, workers: int) -> Job[Evaluation]:
    """Measure a folder that will be called ``folder`` and write its summary.json."""
    pairs = pair_up(reference, beside, rules.ending, missing_ok=True)
    result = yield from evaluate_pairs(pairs, rules, workers=workers)
    result = result.moved_to(folder)
    result.summary.write(beside / SUMMARY_FILE)
    return result


def mean_dice(folder: Path) -> float:
    """Return the mean foreground Dice in the summary.json of a folder."""
    return Summary.read(folder / SUMMARY_FILE).dice
