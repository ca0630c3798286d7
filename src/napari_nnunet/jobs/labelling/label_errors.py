"""Which labels of a dataset look wrong: held against the cross-validation, worst first."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_nnunet.engine.labelling.doubt import ClassDoubt, Doubt, Part, doubt_of
from napari_nnunet.engine.labelling.explain import Slip, slips
from napari_nnunet.errors import ImageError, NnunetError, some
from napari_nnunet.events import CaseFailed, Job, Note, Pump, Stage
from napari_nnunet.formats.atomic import make_folder, write_text
from napari_nnunet.formats.images.files import read_labels
from napari_nnunet.formats.results.probabilities import ProbabilityReader, planes_at_once
from napari_nnunet.formats.tables import text_of
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.grid import Grid, Same, Turned, relation
from napari_nnunet.jobs.choosing.crossval import reference_folder, require_same_classes
from napari_nnunet.jobs.choosing.evaluate import Rules, read_pair
from napari_nnunet.jobs.choosing.pairs import Pair, outcomes_of_pairs, some_files, undefined_values
from napari_nnunet.jobs.choosing.validation import npz_of, validate_command, validation_cases
from napari_nnunet.jobs.labelling.judge import best_judge
from napari_nnunet.processes.pool import rest_of
from napari_nnunet.schema.dataset import LabelScheme, Region
from napari_nnunet.schema.geometry import lift_shape
from napari_nnunet.schema.requests.labelling import FindLabelErrorsRequest
from napari_nnunet.volume import by_text

SUSPECTS_FILE = "suspects.csv"
_AT_LEAST = 0.1  # excess that makes a case suspect, however alike all cases are
_FEW = 5  # cases, of which the middle says little
_BEYOND = 3  # robust standard deviations above the middle case
_ROBUST = 1.4826  # times the median absolute deviation: the standard deviation of a normal distribution


@dataclass(frozen=True)
class Examined:
    """A case, held against the network that did not see it.

    Parameters
    ----------
    name : str
        Of the case.
    score : float
        How much less its labels agree with the network than usual: root of the mean over classes of the squared excess.
        The excess of a class is what :class:`~napari_nnunet.engine.labelling.doubt.ClassDoubt` calls its gap, beyond
        the gap of the middle case of that class.
    suspect : bool
        Whether that is far more than usual.
    classes : dict of Region to ClassDoubt
        Every class or region.
    parts : tuple of Part
        Places to look at, the heaviest first.
    slips : tuple of Slip
        What explains it; of suspects only.
    twins : tuple of str
        Other cases with the very same labels.
    voxel : float
        Volume (area in 2-D) of a voxel in mm.
    prediction : Path
        What the network sees.
    """

    name: str
    score: float
    suspect: bool
    classes: Mapping[Region, ClassDoubt]
    parts: tuple[Part, ...]
    slips: tuple[Slip, ...]
    twins: tuple[str, ...]
    voxel: float
    prediction: Path

    @property
    def dice(self) -> float:
        """Mean Dice of the classes that are there."""
        known = [found.dice for found in self.classes.values() if not math.isnan(found.dice)]
        return sum(known) / len(known) if known else math.nan

    @property
    def text(self) -> str:
        """What explains it, in words; empty if nothing does."""
        told = [slip.text for slip in self.slips]
        return "; ".join([*told, *(f"the same labels as {twin}" for twin in self.twins)])


@dataclass(frozen=True)
class LabelErrors:
    """All examined cases.

    Parameters
    ----------
    cases : tuple of Examined
        Worst first.
    scheme : LabelScheme
        What the labels mean.
    model : str
        The model whose cross-validation was asked.
    file : Path
        The table.
    failed : mapping of str to NnunetError
        Cases that could not be examined, and why.
    """

    cases: tuple[Examined, ...]
    scheme: LabelScheme
    model: str
    file: Path
    failed: Mapping[str, NnunetError] = field(default_factory=dict)

    @property
    def suspects(self) -> tuple[Examined, ...]:
        """Those that are far from usual, worst first."""
        return tuple(case for case in self.cases if case.suspect)

    def csv(self) -> str:
        """Return one line per suspicious part, and at least one per case, worst cases first."""
        names = self.scheme.names
        rows: list[dict[str, Any]] = []
        for rank, case in enumerate(self.cases, start=1):
            about = {
                "rank": rank,
                "case": case.name,
                "suspect": "yes" if case.suspect else "no",
                "score": case.score,
                "Dice": "" if math.isnan(case.dice) else case.dice,
                "finding": case.text,
            }
            parts = [_row_of(number, part, names, case.voxel) for number, part in enumerate(case.parts, start=1)]
            rows += [{**about, **part} for part in parts or [_NO_PART]]
        return text_of(rows)


_NO_PART: dict[str, Any] = dict.fromkeys(("part", "drawn", "seen", "voxels", "size", "certainty", "z", "y", "x"), "")


def _row_of(number: int, part: Part, names: Mapping[int, str], voxel: float) -> dict[str, Any]:
    z, y, x = ("", *part.place) if len(part.place) == 2 else part.place
    return {
        "part": number,
        "drawn": names.get(part.label, str(part.label)),
        "seen": names.get(part.seen, str(part.seen)),
        "voxels": part.voxels,
        "size": part.voxels * voxel,
        "certainty": part.certainty,
        "z": z,
        "y": y,
        "x": x,
    }


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
    if len(pairs) < _FEW:
        yield Note(
            level="warning",
            text=f"Only {len(pairs)} validated case{'s' if len(pairs) > 1 else ''}: what is usual cannot be known from "
            "so few, so that wrong labels may be overlooked.",
        )
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
    outcomes = yield from outcomes_of_pairs(
        examine_case, pairs, rules.reader, rules, scheme, with_npz, workers=request.workers
    )
    found: dict[str, _Case] = rest_of(outcomes, "examined")
    pairs = [pair for pair in pairs if pair.name in found]
    for names, text in by_text({name: case.odd for name, case in found.items()}):
        yield Note(level="warning", text=f"{names}: {text}.")
    strange = [{"references": found[pair.name].undefined, "predictions": set[int]()} for pair in pairs]
    yield from undefined_values(pairs, strange)
    judged = _judge({pair.name: found[pair.name] for pair in pairs}, cases)
    yield from _explained(pairs, judged, rules, scheme, request.workers)
    ranked = tuple(sorted(judged.values(), key=lambda case: (-case.score, case.name)))
    target = request.target or model.folder / SUSPECTS_FILE
    failed = {name: outcome.error for name, outcome in sorted(outcomes.items()) if outcome.error is not None}
    result = LabelErrors(ranked, scheme, model.name, target, failed)
    make_folder(result.file.parent)
    write_text(result.file, result.csv())
    return result


def _explained(
    pairs: Sequence[Pair], judged: dict[str, Examined], rules: Rules, scheme: LabelScheme, workers: int
) -> Job[None]:
    """Look for what went wrong in suspects, and note it in ``judged``; where that fails, nothing is said of it."""
    suspects = [pair for pair in pairs if judged[pair.name].suspect]
    if not suspects:
        return
    yield Stage(name="Looking for what went wrong", total=len(suspects))
    wanted = {pair.name: judged[pair.name].classes for pair in suspects}
    with Pump(outcomes_of_pairs(explain, suspects, rules.reader, rules, scheme, wanted, workers=workers)) as pump:
        for event in pump:
            if not isinstance(event, CaseFailed):  # the case itself was looked at
                yield event
    for name, outcome in pump.result.items():
        judged[name] = replace(judged[name], slips=outcome.result or ())


def _unjudged(references: Path, ending: str, cases: Mapping[str, Path]) -> Iterator[Note]:
    every = {path.name.removesuffix(ending) for path in references.glob(f"*{ending}") if path.name[0] != "."}
    left = sorted(every - set(cases))
    if left:
        yield Note(
            level="warning",
            text=f"{len(left)} of {len(every)} cases ({some(left, 3)}) are not judged: no validated fold has them. "
            "Train the other folds to have all cases judged.",
        )


@dataclass(frozen=True)
class _Case:
    """What a worker found out about a case."""

    doubt: Doubt
    digest: str
    voxel: float
    undefined: set[int]
    odd: tuple[str, ...]


def examine_case(pair: Pair, rules: Rules, scheme: LabelScheme, with_npz: bool) -> _Case:
    """Hold one case against its prediction; may run in a worker process."""
    reference, seen, geometry = read_pair(pair, rules)
    unknown = rules.unknown.get(pair.name, frozenset())
    seen = without_unknown(seen, unknown)
    facts = (
        _digest(reference, scheme.ignore_label),
        float(np.prod(geometry.spacing)),
        _undefined(reference, rules),
        geometry.remarks,
    )
    stored, own = read_labels(pair.prediction, reader=rules.reader, as_stored=True)
    found = relation(Grid(reference.shape, geometry), Grid(stored.shape, own))
    # Segmentations are turned onto their references; probabilities, and the image that is opened, are not.
    if isinstance(found, Turned) or (with_npz and not isinstance(found, Same)):
        raise ImageError(
            f"{pair.reference} stores its voxels in another orientation than {pair.prediction} and its probabilities: "
            "the labels were saved again since the validation. Validate again."
        )
    if not with_npz:
        return _Case(_known(doubt_of(reference, seen, None, scheme), unknown), *facts)
    with closing(ProbabilityReader(npz_of(pair.prediction, rules.ending))) as reader:
        if reader.shape != (scheme.heads, *lift_shape(reference.shape)):
            raise ImageError(
                f"{reader.path} holds {reader.shape[0]} classes of {reader.shape[1:]} voxels; {scheme.heads} of "
                f"{lift_shape(reference.shape)} were expected. The labels, or dataset.json, changed since the "
                "validation: validate again."
            )
        doubt = doubt_of(reference, seen, _heads(reader, reference.shape), scheme)
        return _Case(_known(doubt, unknown), *facts)


def _undefined(labels: NDArray[Any], rules: Rules) -> set[int]:
    """Return the values that dataset.json does not define; all are looked for only where the range tells of some."""
    defined = rules.defined or frozenset({0})
    if labels.size and labels.min() >= 0 and set(range(int(labels.max()) + 1)) <= defined:
        return set()
    return set(np.unique(labels).tolist()) - defined


def without_unknown(seen: NDArray[Any], unknown: Collection[Region]) -> NDArray[Any]:
    """Return a segmentation without the classes that nobody looked for: nothing is wrong where they are seen."""
    return np.where(np.isin(seen, list(unknown)), 0, seen) if unknown else seen


def _known(found: Doubt, unknown: Collection[Region]) -> Doubt:
    """Return what is said of the classes that were looked for."""
    nothing = ClassDoubt(math.nan, math.nan, 0, 0)
    return replace(found, classes={t: nothing if t in unknown else doubt for t, doubt in found.classes.items()})


def _heads(reader: ProbabilityReader, shape: tuple[int, ...]) -> Iterator[NDArray[np.float32]]:
    count, z, _, _ = reader.shape
    step = planes_at_once(reader.shape)
    for _ in range(count):
        yield np.concatenate([reader.read(min(step, z - lo)) for lo in range(0, z, step)]).reshape(shape)


def _digest(labels: NDArray[Any], ignored: int | None) -> str:
    """Return what tells whether two cases have the same labels, wherever on their grids; empty if nothing is drawn."""
    drawn = labels > 0 if ignored is None else (labels > 0) & (labels != ignored)
    if not drawn.any():
        return ""
    box = tuple(
        slice(int(there[0]), int(there[-1]) + 1)
        for axis in range(drawn.ndim)
        for there in [np.flatnonzero(drawn.any(axis=tuple(a for a in range(drawn.ndim) if a != axis)))]
    )
    inside = np.ascontiguousarray(labels[box].astype(np.uint32))
    return hashlib.sha256(repr(inside.shape).encode() + inside.tobytes()).hexdigest()


def explain(pair: Pair, rules: Rules, scheme: LabelScheme, classes: Mapping[str, Mapping[Region, ClassDoubt]]) -> Any:
    """Look for what went wrong in one case; may run in a worker process. Returns a tuple of Slip."""
    reference, seen, _ = read_pair(pair, rules)
    seen = without_unknown(seen, rules.unknown.get(pair.name, frozenset()))
    if scheme.ignore_label is not None:
        counts = reference != scheme.ignore_label
        reference, seen = np.where(counts, reference, 0), np.where(counts, seen, 0)
    return slips(reference, seen, classes[pair.name], scheme.names)


def _judge(found: Mapping[str, _Case], files: Mapping[str, Path]) -> dict[str, Examined]:
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
    same: dict[str, list[str]] = {}
    for name, case in found.items():
        if case.digest:
            same.setdefault(case.digest, []).append(name)
    return {
        name: Examined(
            name=name,
            score=scores[name],
            suspect=scores[name] > limit,
            classes=case.doubt.classes,
            parts=case.doubt.parts,
            slips=(),
            twins=tuple(other for other in same.get(case.digest, ()) if other != name),
            voxel=case.voxel,
            prediction=files[name],
        )
        for name, case in found.items()
    }


def _gap(found: ClassDoubt) -> float:
    """Return the gap of a class; without probabilities, how far its Dice is from 1."""
    return 1 - found.dice if math.isnan(found.expected) else found.gap


def _median(values: Sequence[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return float(np.median(known)) if known else 0.0
