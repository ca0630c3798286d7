"""Which model of a dataset is asked about labels."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from napari_nnunet.errors import ModelError, NnunetError, SettingsError
from napari_nnunet.formats.dataset.raw_dataset import read_info
from napari_nnunet.formats.model.fold import CONTINUED_FILE
from napari_nnunet.formats.model.folder import TrainedModel, is_model_folder, load_model
from napari_nnunet.formats.results.summary import SUMMARY_FILE, Summary
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.jobs.choosing.crossval import dataset_folds, validated_folds
from napari_nnunet.jobs.choosing.validation import VALIDATE_FIRST, validation_cases
from napari_nnunet.schema.json_text import message
from napari_nnunet.schema.names import Fold, typed
from napari_nnunet.schema.requests.labelling import JudgedBy


@dataclass(frozen=True)
class Judge:
    """A model, its folds that were validated on cases that they did not see, and whether its classes are today's."""

    model: TrainedModel
    folds: tuple[Fold, ...]
    fits: bool = True

    @property
    def cases(self) -> int:
        """How many cases these folds validated."""
        return len(validation_cases(self.model.folder, self.folds, self.model.dataset.file_ending))

    @property
    def scores(self) -> list[float]:
        """The mean Dice of each validation case, as far as summaries can be read."""
        files = [self.model.folder / f"fold_{fold}" / "validation" / SUMMARY_FILE for fold in self.folds]
        means = [case.mean for file in files if file.is_file() for case in Summary.read(file).cases]
        return [dice for dice in means if not math.isnan(dice)]

    @property
    def rank(self) -> tuple[bool, int, float, str]:
        """Higher is better: today's classes, then the most cases, then the best Dice."""
        scores = self.scores
        return self.fits, self.cases, sum(scores) / len(scores) if scores else 0.0, self.model.folder.name


def trained_models(workspace: Workspace, dataset: str, wanted: JudgedBy) -> Iterator[TrainedModel]:
    """Yield the models of a dataset that were asked for."""
    for name in workspace.models(dataset):
        pairs = ((wanted.configuration, name.configuration), (wanted.trainer, name.trainer), (wanted.plans, name.plans))
        folder = workspace.model(dataset, name)
        if all(asked in (None, own) for asked, own in pairs) and is_model_folder(folder):
            yield load_model(folder)


def judges(
    workspace: Workspace, dataset: str, wanted: JudgedBy, folds: Sequence[Fold] | None = None
) -> Iterator[Judge]:
    """Yield the models that were validated, with ``folds`` or those the dataset has.

    Raises
    ------
    SettingsError
        If fold "all" is asked for, which has seen every case.
    """
    if folds is not None and "all" in folds:
        raise SettingsError(
            "Fold 'all' was trained on every case, so that it agrees with wrong labels too. Name folds by number."
        )
    usual, names = dataset_folds(workspace, dataset), _names_now(workspace.raw / dataset)
    for model in trained_models(workspace, dataset, wanted):
        there = tuple(fold for fold in validated_folds(model) if fold != "all")
        used = tuple(folds or ()) or tuple(fold for fold in usual if fold in there) or there
        if used and not set(used) - set(there):
            yield Judge(model, used, names in (None, set(model.dataset.labels.head_names)))


def _names_now(raw: Path) -> set[str] | None:
    """Return the classes, or regions, that a dataset has now; None where that cannot be read."""
    try:
        return set(read_info(raw).labels.head_names)
    except NnunetError:
        return None


def best_judge(workspace: Workspace, dataset: str, wanted: JudgedBy, folds: Sequence[Fold] | None = None) -> Judge:
    """Return the validated model that knows today's classes, with the most validated cases, of several the best.

    Raises
    ------
    ModelError
        If there is none.
    """
    found = list(judges(workspace, dataset, wanted, folds))
    if not found:
        which = _said(wanted)
        raise ModelError(f"No model of {dataset}{which} was validated on cases that it did not see.", **VALIDATE_FIRST)
    return best_among(found)


def best_among(found: Sequence[Judge]) -> Judge:
    """Return the best of some judges, at least one.

    Of a model and the one it was continued to, it is never the one that did worse on the cases of both: what each says
    of itself was measured on the labels there were when it was trained, a few strokes perhaps. But a model of which
    only some folds were continued knows cases that its continuation does not, and stays.
    """
    fitting = [judge for judge in found if judge.fits] or list(found)
    folds = {_home(judge.model.folder): set(judge.folds) for judge in fitting}
    worse = {folder for judge in fitting for folder in _outdone(judge, folds)}
    left = [judge for judge in fitting if _home(judge.model.folder) not in worse] or fitting
    return max(left, key=lambda judge: judge.rank)


def _outdone(judge: Judge, folds: Mapping[tuple[str, str], set[Fold]]) -> Iterator[tuple[str, str]]:
    """Yield which did worse where a model was continued, on the cases of all folds: it, or the one before it."""
    gains = defaultdict[str, float](float)
    for fold in judge.folds:
        path = judge.model.folder / f"fold_{fold}" / CONTINUED_FILE
        content = message(path) if path.is_file() else {}
        dice, before = content.get("dice"), content.get("model")
        pairs = [pair for pair in (dice.values() if isinstance(dice, dict) else ()) if _is_pair(pair)]
        if pairs and isinstance(before, str):
            gains[before] += sum(after - then for then, after in pairs)
    for before, gain in gains.items():
        if gain < 0:
            yield _home(judge.model.folder)
        elif folds.get(_home(Path(before)), set()) <= set(judge.folds):
            yield _home(Path(before))


def _is_pair(value: object) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(isinstance(part, int | float) for part in value)


def _home(folder: Path) -> tuple[str, str]:
    return folder.parent.name, folder.name


def best_model(workspace: Workspace, dataset: str, wanted: JudgedBy) -> TrainedModel:
    """Return the best judge's model; where none was validated, the one that was trained last.

    Raises
    ------
    ModelError
        If there is no trained model.
    """
    found = list(judges(workspace, dataset, wanted))
    if found:
        return best_among(found).model
    trained = [model for model in trained_models(workspace, dataset, wanted) if model.checkpoints]
    if not trained:
        raise ModelError(
            f"{dataset} has no trained model{_said(wanted)} yet, so that nothing is known of unlabelled images. Label "
            "a few cases as different as your images are, and train on them first.",
            shell=f"Train one: 'napari-nnunet plan_and_preprocess -d {typed(dataset)}', then 'napari-nnunet train "
            f"{typed(dataset)} 3d_fullres 0 --time-budget 10m' (pictures: 2d).",
            window="Add the cases in the Training cases dock, then press 'Train this'.",
        )
    names = _names_now(workspace.raw / dataset)
    fitting = [model for model in trained if set(model.dataset.labels.head_names) == names]
    return max(fitting or trained, key=lambda model: max(_time(path) for path in model.folder.glob("fold_*/*.pth")))


def _time(path: Path) -> float:
    return path.stat().st_mtime


def _said(wanted: JudgedBy) -> str:
    which = " ".join(word for word in (wanted.configuration, wanted.trainer, wanted.plans) if word)
    return f" ({which})" if which else ""
