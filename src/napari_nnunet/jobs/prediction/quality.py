"""How good the segmentations of a model probably are: learnt once from its validation cases, kept beside it."""

from __future__ import annotations

import contextlib
import json
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from napari_nnunet.engine.choosing.expected import expected_dice, targets_of_heads
from napari_nnunet.engine.choosing.metrics import evaluated, measure_labels
from napari_nnunet.engine.choosing.signs import signs_of
from napari_nnunet.engine.prediction.looks import DEGRADED, CaseLook, degrade, look_of
from napari_nnunet.engine.prediction.quality import (
    LEAST_CASES,
    MEAN,
    Judged,
    KnownResult,
    QualityModel,
    averaged_in_words,
)
from napari_nnunet.errors import ModelError, NnunetError, SettingsError, counted, some
from napari_nnunet.events import Job, Note, Progress, Pump, Stage
from napari_nnunet.formats.atomic import write_json
from napari_nnunet.formats.claim import claimed
from napari_nnunet.formats.dataset.raw_dataset import TrainingCase, survey
from napari_nnunet.formats.images.files import read_labels, read_volume
from napari_nnunet.formats.model.folder import TrainedModel
from napari_nnunet.formats.preprocessed.journal import joined_in
from napari_nnunet.formats.results.made_of import Files
from napari_nnunet.formats.workspace import Workspace, stamp
from napari_nnunet.grid import Grid, onto
from napari_nnunet.jobs.choosing.crossval import require_same_classes, validated_folds
from napari_nnunet.jobs.choosing.validation import VALIDATE_FIRST, validation_cases
from napari_nnunet.jobs.prediction.result import Prediction
from napari_nnunet.schema.dataset import Region
from napari_nnunet.schema.json_text import message
from napari_nnunet.schema.names import Fold
from napari_nnunet.schema.objects import ObjectScheme
from napari_nnunet.schema.requests.prediction import PredictSettings
from napari_nnunet.volume import Volume

QUALITY_FILE = "quality.json"
#: In what is said where labels changed and it cannot be measured again.
EARLIER_LABELS = "labels that changed since"
_MOST_CASES = 24
_PATIENCE = 10.0  # seconds; writing takes no time
_COPIES = 3  # degraded, of each case
_ABSOLUTE = ("CTNormalization", "RGBTo01Normalization", "NoNormalization")

#: Segments a volume: (model, volume, settings).
Segmenter = Callable[[TrainedModel, Volume, PredictSettings], Job[Prediction]]


def require_quality(
    model: TrainedModel, settings: PredictSettings, segment: Segmenter, *, whole: bool
) -> Job[QualityModel]:
    """Return what is known of a model's quality, as :func:`quality_of` does; ``whole`` says whether images are.

    Raises
    ------
    SettingsError
        If the Dice of what is asked for cannot be predicted.
    """
    if ObjectScheme.of(model.dataset) is not None or model.configuration.previous_stage is not None:
        raise SettingsError(
            f"The Dice of {model.name} cannot be predicted: that is possible for models of classes and regions, not of "
            "numbered objects or the second stage of a cascade."
        )
    if not whole:
        raise SettingsError("The Dice of a part of an image cannot be predicted. Segment the whole image.")
    return (yield from quality_of(model, settings, segment))


def quality_of(model: TrainedModel, settings: PredictSettings, segment: Segmenter) -> Job[QualityModel]:
    """Return what is known of a model's quality; the first time, learn it from its validation cases.

    Parameters
    ----------
    model : TrainedModel
        In a workspace with its dataset, or with a ``quality.json`` of an earlier time.
    settings : PredictSettings
        With mirroring or without, which are calibrated apart.
    segment : callable
        Segments a volume.

    Raises
    ------
    ModelError
        If nothing is known and there are fewer than five validation cases to learn from.
    """
    key = "mirrored" if settings.mirroring else "plain"
    weights = model.hashes(model.resolve_folds(settings.folds, settings.checkpoint), settings.checkpoint)
    path = model.folder / QUALITY_FILE
    entry = _stored(path).get(key, {})
    known = _known(entry, weights)
    moved = () if known is None else _relabelled(model, known, entry)
    if known is not None and not moved:
        return known
    try:
        if known is None:
            found, learnt = yield from _calibrated(model, settings, segment)
        else:
            found, learnt = yield from _calibrated_again(model, settings, segment, known, entry, moved)
    except NnunetError as error:
        if known is None:
            raise
        before = f"The Dice is predicted by {EARLIER_LABELS} ({some(moved, 3)}); that could not be measured again:"
        yield Note.about(before, error)
        return known
    entry = {**learnt, "weights": {**learnt["weights"], **weights}, "model": found.model_dump(mode="json")}
    with claimed(model.folder, f"{path} is already being written", part=QUALITY_FILE, patience=_PATIENCE):
        write_json(path, {**_stored(path), key: entry})  # what another job measured meanwhile stays
    return found


def _known(entry: Any, weights: Mapping[str, str]) -> QualityModel | None:
    """Return what was learnt earlier with these weights."""
    if isinstance(entry, dict) and set(weights.items()) <= set(dict(entry.get("weights") or {}).items()):
        with contextlib.suppress(ValidationError):
            return _fitted_once(json.dumps(entry.get("model")))
    return None


def _relabelled(model: TrainedModel, known: QualityModel, entry: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the cases from which was learnt and whose labels are not what they were then.

    Files of earlier versions do not say what they were: then it may be any of them. None where the model came without
    its dataset.
    """
    raw, noted = _raw(model), entry.get("labels")
    there = _labels_now(raw, stamp(raw / "labelsTr"), stamp(raw / "dataset.json"))
    cases = dict.fromkeys(result.case for result in known.scored)
    if not set(cases) & set(there):
        return ()
    before = noted if isinstance(noted, dict) else {}
    return tuple(case for case in cases if not (case in there and _agree(there[case], str(before.get(case, "")))))


def _agree(path: Path, noted: str) -> bool:
    with contextlib.suppress(OSError):
        return Files([path]).agree(noted)
    return False


@lru_cache(maxsize=4)
def _labels_now(raw: Path, *_: tuple[int, int] | None) -> Mapping[str, Path]:
    """Return where the labels of the cases of a dataset lie; kept while its folder and its description stay.

    None where there is no dataset that can be read: segmenting does not need it.
    """
    if (raw / "dataset.json").is_file():
        with contextlib.suppress(NnunetError, OSError):
            return {case.name: case.label for case in survey(raw)[0].cases}
    return {}


@lru_cache(maxsize=4)
def _fitted_once(text: str) -> QualityModel:
    """Return what is known, with what was fitted to it for the image before."""
    return QualityModel.model_validate_json(text)


def _stored(path: Path) -> dict[str, Any]:
    return message(path) if path.is_file() else {}


#: What was learnt from validation cases, and from which weights and labels, as the file has them.
_Learnt = tuple[QualityModel, dict[str, Any]]


def _calibrated(model: TrainedModel, settings: PredictSettings, segment: Segmenter) -> Job[_Learnt]:
    """Segment the validation cases, and degraded copies, each with the network that did not see it."""
    cases = _cases(model, settings)
    yield Note(text=f"How good {model.name} is was not measured yet: {_planned(len(cases))}")
    return (yield from _measured(model, settings, segment, cases))


def _calibrated_again(
    model: TrainedModel,
    settings: PredictSettings,
    segment: Segmenter,
    known: QualityModel,
    entry: Mapping[str, Any],
    moved: Sequence[str],
) -> Job[_Learnt]:
    """Learn again from cases whose labels moved; the others stay as they were, if these are enough."""
    weights = dict(entry["weights"])
    folds = tuple(fold for fold in model.folds(settings.checkpoint) if f"fold_{fold}" in weights)
    cases = _cases(model, settings.replace(folds=folds))
    stay = {result.case for result in known.scored} - set(moved)
    plain = [result.case for result in known.scored if result.plain]
    enough = len(stay) >= LEAST_CASES and len(plain) == len(known.looks)  # the file may be somebody else's
    again = [(case, fold) for case, fold in cases if case.name in moved or not enough]
    yield Note(
        text=f"The labels of {some(moved, 3)} changed since it was measured how good {model.name} is, or it was not "
        f"noted what they were: {_planned(len(again))}"
    )
    if not enough:
        return (yield from _measured(model, settings, segment, again))
    found, learnt = yield from _measured(model, settings, segment, again, least=0)
    looks = [look for case, look in zip(plain, known.looks, strict=True) if case in stay]
    scored = tuple(result for result in known.scored if result.case in stay)
    labels = {case: noted for case, noted in dict(entry.get("labels") or {}).items() if case in stay}
    both = QualityModel(scored=scored + found.scored, looks=(*looks, *found.looks))
    return both, {"weights": weights, "labels": {**labels, **learnt["labels"]}}


def _planned(cases: int) -> str:
    each = "" if cases == 1 else " of each"
    return f"{counted(cases, 'validation case')} and {_COPIES} degraded copies{each} are segmented once."


def _measured(
    model: TrainedModel,
    settings: PredictSettings,
    segment: Segmenter,
    cases: Sequence[tuple[TrainingCase, Fold]],
    *,
    least: int = LEAST_CASES,
) -> Job[_Learnt]:
    """Segment cases, and degraded copies, and hold them against their labels."""
    scored: list[KnownResult] = []
    looks: list[CaseLook] = []
    labels: dict[str, str] = {}
    yield Stage(name="Measuring the quality", total=len(cases))
    joined = joined_in(_raw(model))
    for index, (case, fold) in enumerate(cases):
        own = settings.replace(folds=(fold,), probabilities=True, quality=False)
        try:
            noted = Files([case.label]).noted
            apart = joined.get(case.name, "refuse")
            volume = read_volume(case.images, reader=model.plans.reader, apart=apart)
            grid = Grid(volume.shape, volume.geometry)
            truth, own_grid = read_labels(case.label, reader=model.plans.reader)
            truth = onto(truth, own_grid, grid, what="its image and its labels", apart=apart)
            rng = np.random.default_rng(zlib.crc32(case.name.encode()))
            ways = ("", *(str(how) for how in rng.choice(DEGRADED, _COPIES, replace=False)))
            array = np.asarray(volume.array, dtype=np.float32)
            for how in ways:
                worse = Volume(degrade(array, how, rng), volume.geometry) if how else volume
                with Pump(segment(model, worse, own)) as pump:
                    for _ in pump:  # what each of them says is not for people, but here it can be cancelled
                        yield Progress(done=index, total=len(cases))
                look = look_of_case(model, worse, pump.result)
                scored.append(_scored(case.name, worse, pump.result, truth, model, look, plain=not how))
                if not how:
                    looks.append(look)
                    labels[case.name] = noted
        except NnunetError as error:
            yield Note.about(f"{case.name} is left out:", error)
    if len(looks) < least:
        raise _too_few(model, len(looks))
    hashes = {f"fold_{fold}": "" for _, fold in cases}
    folds = tuple(fold for fold in model.folds(settings.checkpoint) if f"fold_{fold}" in hashes)
    learnt = {"weights": model.hashes(folds, settings.checkpoint), "labels": labels}
    return QualityModel(scored=tuple(scored), looks=tuple(looks)), learnt


def _raw(model: TrainedModel) -> Path:
    """Return where the dataset of a model lies in its workspace."""
    return Workspace.around(model.folder).raw / model.folder.parent.name


def _cases(model: TrainedModel, settings: PredictSettings) -> list[tuple[TrainingCase, Fold]]:
    """Return validation cases with the fold that did not see each, a share of every fold where there are many."""
    wanted = model.resolve_folds(settings.folds, settings.checkpoint)
    folds = [fold for fold in validated_folds(model) if fold != "all" and fold in wanted]
    raw = _raw(model)
    if not folds or not (raw / "dataset.json").is_file():
        raise _too_few(model, 0)
    require_same_classes(raw, model)
    dataset, _ = survey(raw)
    there = {case.name: case for case in dataset.cases}
    found: list[list[tuple[TrainingCase, Fold]]] = []
    for fold in folds:
        names = validation_cases(model.folder, (fold,), model.dataset.file_ending)
        # a case in which not all classes were looked for has no mean to be compared with
        usable = set(there) - set(dataset.info.annotated)
        found.append([(there[name], fold) for name in sorted(names) if name in usable])
    mixed = [entry for i in range(max(map(len, found))) for part in found for entry in part[i : i + 1]]
    if len(mixed) < LEAST_CASES:
        raise _too_few(model, len(mixed))
    return mixed[:_MOST_CASES]


def _too_few(model: TrainedModel, count: int) -> ModelError:
    return ModelError(
        f"The Dice of {model.name} cannot be predicted: that is learnt from at least {LEAST_CASES} "
        f"validation cases, whose images and labels (of all classes) lie in the workspace; there are {count}, and no "
        f"{QUALITY_FILE} lies in the model's folder.",
        **VALIDATE_FIRST,
    )


def _name(target: Region, model: TrainedModel) -> str:
    return next((str(name) for name, value in model.dataset.labels.labels.items() if value == target), str(target))


def _named(values: Mapping[Region, float], model: TrainedModel) -> dict[str, float]:
    named = {_name(target, model): float(value) for target, value in values.items() if np.isfinite(value)}
    return {**named, MEAN: float(np.mean(list(named.values())))} if named else named


def _scored(
    case: str,
    volume: Volume,
    result: Prediction,
    truth: NDArray[Any],
    model: TrainedModel,
    look: CaseLook,
    *,
    plain: bool,
) -> KnownResult:
    scheme, spacing = model.dataset.labels, volume.geometry.spacing
    measured = measure_labels(truth, result.labels, evaluated(scheme), scheme.ignore_label)
    dice = {target: float(metrics["Dice"]) for target, metrics in measured.items()}
    expected = _expected(result, model)
    seen = {target: value for target, value in dice.items() if target in expected}
    return KnownResult(
        case=case,
        plain=plain,
        expected=_named(expected, model),
        dice=_named(seen, model),
        signs=_signs(result, model, spacing),
        look=look.shape,
        drawn=tuple(_name(target, model) for target, metrics in measured.items() if metrics["n_ref"]),
    )


def _heads(result: Prediction) -> Iterator[NDArray[np.float32]]:
    assert result.probabilities is not None
    return (np.asarray(head) for head in result.probabilities)


def _expected(result: Prediction, model: TrainedModel) -> dict[Region, float]:
    return expected_dice(_heads(result), result.labels, model.dataset.labels)


def _signs(result: Prediction, model: TrainedModel, spacing: Sequence[float]) -> dict[str, dict[str, float]]:
    """Return by name of the classes that are seen what their probabilities tell."""
    scheme = model.dataset.labels
    found = {}
    for target, head in zip(targets_of_heads(scheme), _heads(result), strict=True):
        own = np.isin(result.labels, target)
        if target != 0 and own.any():
            found[_name(target, model)] = signs_of(head, own, spacing)
    return found


def look_of_case(model: TrainedModel, volume: Volume, result: Prediction) -> CaseLook:
    """Return what an image and its segmentation look like."""
    names = model.dataset.channel_names
    absolute = [scheme in _ABSOLUTE for scheme in model.configuration.normalization_schemes]
    size = float(np.prod(volume.geometry.spacing))
    classes = model.dataset.labels.names
    volumes = {classes[value]: count * size for value, count in enumerate(result.counts) if value and value in classes}
    return look_of(volume.array, volume.geometry, names, absolute, volumes)


def folds_in_words(model: TrainedModel, settings: PredictSettings) -> str:
    """Return what is to be said of a predicted Dice where several folds are averaged."""
    return averaged_in_words(len(model.resolve_folds(settings.folds, settings.checkpoint)))


def judged(
    quality: QualityModel, model: TrainedModel, volume: Volume, result: Prediction, settings: PredictSettings
) -> Judged:
    """Return how good a segmentation, with its probabilities, probably is."""
    expected = {name: value for name, value in _named(_expected(result, model), model).items() if name != MEAN}
    signs = _signs(result, model, volume.geometry.spacing)
    found = quality.judge(expected, look_of_case(model, volume, result), signs)
    return found.model_copy(update={"averaged": folds_in_words(model, settings)})
