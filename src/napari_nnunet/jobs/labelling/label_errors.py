"""Which labels of a dataset look wrong: held against the cross-validation, worst first."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from napari_nnunet.engine.labelling.another import may_be_of
from napari_nnunet.engine.labelling.doubt import ClassDoubt
from napari_nnunet.errors import some
from napari_nnunet.events import CaseFailed, Job, Note, Pump, Stage
from napari_nnunet.formats.atomic import make_folder, write_text
from napari_nnunet.formats.dataset.raw_dataset import survey
from napari_nnunet.formats.results.accepted import read_accepted
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.jobs.choosing.crossval import reference_folder, require_same_classes
from napari_nnunet.jobs.choosing.evaluate import Rules
from napari_nnunet.jobs.choosing.pairs import Pair, outcomes_of_pairs, some_files, undefined_values
from napari_nnunet.jobs.choosing.validation import npz_of, validate_command, validation_cases
from napari_nnunet.jobs.labelling.accept import accept_cases, take_back_cases
from napari_nnunet.jobs.labelling.examine import MOST_TWINS, About, Looked, Suspicion, examine_case, explain
from napari_nnunet.jobs.labelling.judge import best_judge
from napari_nnunet.jobs.labelling.suspects import Examined, LabelErrors
from napari_nnunet.processes.pool import rest_of
from napari_nnunet.schema.dataset import LabelScheme
from napari_nnunet.schema.requests.labelling import FindLabelErrorsRequest
from napari_nnunet.volume import by_text

SUSPECTS_FILE = "suspects.csv"
_AT_LEAST = 0.1  # excess that makes a case suspect, however alike all cases are
_FEW = 5  # cases, of which the middle says little
_BEYOND = 3  # robust standard deviations above the middle case
_MOST_OTHERS = 30  # suspects that are compared with one another
_ROBUST = 1.4826  # times the median absolute deviation: the standard deviation of a normal distribution


def find_label_errors(workspace: Workspace, request: FindLabelErrorsRequest) -> Job[LabelErrors]:
    """Hold the labels of a dataset against the cross-validation of one of its models, and write a table.

    Parameters
    ----------
    workspace : Workspace
        Where dataset and models are.
    request : FindLabelErrorsRequest
        Which.

    Returns
    -------
    LabelErrors
        All cases, worst first; the table has been written.

    Raises
    ------
    ModelError, DatasetError
        If no model was validated on cases that it did not see, or references are missing.
    SettingsError
        If what is accepted, or doubted again, is not there.
    """
    dataset = workspace.dataset_name(request.dataset)
    judge = best_judge(workspace, dataset, request, request.folds)
    model, folds = judge.model, judge.folds
    require_same_classes(workspace.raw / dataset, model)
    scheme, rules = model.dataset.labels, Rules.of(model.dataset, reader=model.plans.reader)
    references = reference_folder(workspace, dataset)
    cases = validation_cases(model.folder, folds, rules.ending)
    if scheme.has_regions and rules.unknown:
        partial = sorted(set(cases) & set(rules.unknown))
        yield Note(
            level="warning", text=f"Not judged, as not all regions were looked for in them: {some_files(partial)}."
        )
        cases = {name: path for name, path in cases.items() if name not in rules.unknown}
    pairs = [Pair(name, references / (name + rules.ending), path) for name, path in sorted(cases.items())]
    yield from _unjudged(references, rules.ending, cases)
    with_npz = all(npz_of(pair.prediction, rules.ending).is_file() for pair in pairs)
    if not with_npz:
        yield Note(
            level="warning",
            text=f"{model.name} was validated without probabilities: how sure it is of itself is not known, and hard "
            f"cases look like wrong labels. Write them with {validate_command(model.folder, folds)}",
            in_window=f"{model.name} was validated without probabilities: how sure it is of itself is not known, and "
            "hard cases look like wrong labels. Train with 'Probabilities' ticked to have them.",
        )
    yield Stage(name=f"Examining the labels with {model.name}", total=len(pairs))
    about = _known_of(workspace.raw / dataset, references.parent, request.doubt)
    outcomes = yield from outcomes_of_pairs(
        examine_case, pairs, rules.reader, rules, scheme, with_npz, about, workers=request.workers
    )
    found: dict[str, Looked] = rest_of(outcomes, "examined")
    pairs = [pair for pair in pairs if pair.name in found]
    for names, text in by_text({name: case.odd for name, case in found.items()}):
        yield Note(level="warning", text=f"{names}: {text}.")
    strange = [{"references": found[pair.name].undefined, "predictions": set[int]()} for pair in pairs]
    yield from undefined_values(pairs, strange)
    judged = _judge({pair.name: found[pair.name] for pair in pairs}, cases)
    yield from _explained(pairs, judged, found, rules, scheme, request.workers)
    yield from accept_cases(references.parent, judged, request.accept, scheme)
    ranked = tuple(sorted(judged.values(), key=lambda case: (-case.score, case.name)))
    failed = {name: outcome.error for name, outcome in sorted(outcomes.items()) if outcome.error is not None}
    file = request.target or model.folder / SUSPECTS_FILE
    result = LabelErrors(ranked, scheme, model.name, file, failed, references.parent)
    make_folder(result.file.parent)
    write_text(result.file, result.csv())
    return result


def _known_of(raw: Path, folder: Path, doubted: Sequence[str]) -> dict[str, About]:
    """Return by case where its image lies, and what was found right in it and is not doubted again."""
    take_back_cases(folder, doubted)
    accepted = defaultdict(list)
    for entry in read_accepted(folder):
        accepted[entry.case].append(entry)
    images: dict[str, tuple[Path, ...]] = {}
    if (raw / "dataset.json").is_file():
        images = {case.name: tuple(case.images) for case in survey(raw)[0].cases}
    return {name: About(images.get(name, ()), tuple(accepted[name])) for name in {*images, *accepted}}


def _explained(
    pairs: Sequence[Pair],
    judged: dict[str, Examined],
    found: Mapping[str, Looked],
    rules: Rules,
    scheme: LabelScheme,
    workers: int,
) -> Job[None]:
    """Look for what went wrong in suspects, and note it in ``judged``; where that fails, nothing is said of it."""
    suspects = [pair for pair in pairs if judged[pair.name].suspect]
    if not suspects:
        return
    yield Stage(name="Looking for what went wrong", total=len(suspects))
    wanted = {pair.name: _suspicion(pair, pairs, suspects, judged, found) for pair in suspects}
    with Pump(outcomes_of_pairs(explain, suspects, rules.reader, rules, scheme, wanted, workers=workers)) as pump:
        for event in pump:
            if not isinstance(event, CaseFailed):  # the case itself was looked at
                yield event
    for name, outcome in pump.result.items():
        judged[name] = replace(judged[name], slips=outcome.result or ())


def _suspicion(
    pair: Pair,
    pairs: Sequence[Pair],
    suspects: Sequence[Pair],
    judged: Mapping[str, Examined],
    found: Mapping[str, Looked],
) -> Suspicion:
    """Return what is looked at to explain a case: with few cases that are as it is by nature, none of them is."""
    case, own = judged[pair.name], found[pair.name]
    same = tuple(name for name in case.twins if name not in case.copies)
    labels = own.sketch.labels
    alike = tuple(
        other
        for other in pairs
        if other.name not in (pair.name, *case.twins, *case.copies)
        and found[other.name].digest
        and may_be_of(labels, found[other.name].sketch.labels)
    )
    others = tuple(other for other in suspects if other.name != pair.name) if len(suspects) <= _MOST_OTHERS else ()
    few = len(case.twins) <= MOST_TWINS
    return Suspicion(case.classes, case.dice, same if few else (), alike if few else (), others)


def _unjudged(references: Path, ending: str, cases: Mapping[str, Path]) -> Iterator[Note]:
    every = {path.name.removesuffix(ending) for path in references.glob(f"*{ending}") if path.name[0] != "."}
    left = sorted(every - set(cases))
    if left:
        yield Note(
            level="warning",
            text=f"{len(left)} of {len(every)} cases ({some(left, 3)}) are not judged: no validated fold has them. "
            "Train the other folds to have all cases judged.",
        )
    if len(cases) < _FEW:
        yield Note(
            level="warning",
            text=f"Only {len(cases)} validated case{'s' if len(cases) > 1 else ''}: what is usual cannot be known from "
            "so few, so that wrong labels may be overlooked.",
        )


def _judge(found: Mapping[str, Looked], files: Mapping[str, Path]) -> dict[str, Examined]:
    """Compare each case with what is usual."""
    gaps = {name: {t: _gap(c) for t, c in case.doubt.classes.items()} for name, case in found.items()}
    targets = next(iter(gaps.values()), {})
    usual = {t: _median([values[t] for values in gaps.values()]) for t in targets}
    scores = {}
    for name, values in gaps.items():
        excess = [max(0.0, gap - usual[t]) for t, gap in values.items() if not math.isnan(gap)]
        scores[name] = math.sqrt(sum(e * e for e in excess) / len(excess)) if excess else 0.0
    middle = _median(list(scores.values()))
    spread = _ROBUST * _median([abs(score - middle) for score in scores.values()])
    limit = max(_AT_LEAST, middle + _BEYOND * spread)
    twins = _sharing({name: case.digest for name, case in found.items()})
    copies = _sharing({name: case.image for name, case in found.items()})
    return {
        name: Examined(
            name=name,
            score=scores[name],
            unusual=scores[name] > limit,
            classes=case.doubt.classes,
            parts=case.doubt.parts,
            slips=(),
            twins=twins.get(name, ()),
            voxel=case.voxel,
            prediction=files[name],
            copies=copies.get(name, ()),
            mark=case.mark,
            differing=case.differing,
        ).with_accepted(case.accepted)
        for name, case in found.items()
    }


def _sharing(digests: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """Return for each name the others with the same digest, if there are any."""
    same = defaultdict(list)
    for name, digest in digests.items():
        if digest:
            same[digest].append(name)
    return {name: tuple(n for n in names if n != name) for names in same.values() for name in names if len(names) > 1}


def _gap(found: ClassDoubt) -> float:
    """Return the gap of a class; without probabilities, how far its Dice is from 1."""
    return 1 - found.dice if math.isnan(found.expected) else found.gap


def _median(values: Sequence[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return float(np.median(known)) if known else 0.0
