"""Compare numbered objects with their references, case by case and all together."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_nnunet.engine.objects.match import THRESHOLDS, Matching, annotated_part
from napari_nnunet.engine.objects.table import scattered_pieces
from napari_nnunet.errors import DatasetError
from napari_nnunet.events import Job, Note, Stage
from napari_nnunet.formats.atomic import make_folder, write_json, write_text
from napari_nnunet.formats.dataset.objects import holds_classes, ignored_beside, kinds_beside, read_objects
from napari_nnunet.formats.tables import cell
from napari_nnunet.grid import Grid, onto
from napari_nnunet.jobs.choosing.pairs import Pair, compare_cases, pair_up_objects
from napari_nnunet.schema.json_text import read_object
from napari_nnunet.schema.requests.choosing import EvaluateObjectsRequest
from napari_nnunet.volume import by_text

OBJECTS_FILE = "objects.json"


@dataclass(frozen=True)
class ObjectEvaluation:
    """How well objects were found.

    Parameters
    ----------
    matched : dict of str to dict of str to Matching
        By case and kind; the kind is empty where it is not told.
    """

    matched: Mapping[str, Mapping[str, Matching]]

    @property
    def cases(self) -> dict[str, Matching]:
        """The objects of all kinds by case; those of different kinds are not matched."""
        return {name: sum(each.values(), Matching.none()) for name, each in self.matched.items()}

    @property
    def kinds(self) -> dict[str, ObjectEvaluation]:
        """The same for every kind, where kinds are told."""
        names = sorted({kind for each in self.matched.values() for kind in each if kind})
        return {
            kind: ObjectEvaluation({case: {kind: each[kind]} for case, each in self.matched.items() if kind in each})
            for kind in names
        }

    @property
    def all(self) -> Matching:
        """The objects of all cases."""
        return sum(self.cases.values(), Matching.none())

    def content(self) -> dict[str, Any]:
        """Return what objects.json says; what has no value is null."""
        figures = {"all": scores(self.all), "cases": {name: scores(found) for name, found in self.cases.items()}}
        kinds = self.kinds
        return figures if len(kinds) < 2 else {**figures, "kinds": {kind: own.content() for kind, own in kinds.items()}}

    def csv(self) -> str:
        """Return one line per case, worst first, and where there are several kinds one for each of them, too."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        kinds = self.kinds if len(self.kinds) > 1 else {}
        writer.writerow(["case", *(["kind"] if kinds else []), *scores(Matching.none())])
        for name, row in worst_first(self.content()["cases"]):
            writer.writerow([cell(name), *([""] if kinds else []), *_cells(row)])
            for kind, own in kinds.items():
                if name in own.matched:
                    writer.writerow([cell(name), cell(kind), *_cells(scores(own.cases[name]))])
        return text.getvalue()


def worst_first(cases: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, Mapping[str, Any]]]:
    """Return cases and their figures by rising AP@0.5; those without objects come last."""
    return sorted(cases.items(), key=lambda item: (item[1]["AP@0.5"] is None, item[1]["AP@0.5"] or 0))


def _cells(row: Mapping[str, Any]) -> list[Any]:
    return ["" if value is None else value for value in row.values()]


def scores(found: Matching) -> dict[str, float | int | None]:
    """Return all figures of a matching: AP at each IoU and on average, F1, PQ, SEG, and what was counted."""
    hits, invented, missed = found.counts()
    precisions = {f"AP@{threshold:g}": found.precision(threshold) for threshold in THRESHOLDS}
    values = {
        **precisions,
        "AP": float(np.mean(list(precisions.values()))),
        "F1@0.5": found.f1(),
        "PQ": found.panoptic_quality,
        "SEG": found.seg,
    }
    known = {name: None if math.isnan(value) else round(value, 6) for name, value in values.items()}
    return {
        **known,
        "references": len(found.references),
        "predictions": len(found.predictions),
        "found": hits,
        "invented": invented,
        "missed": missed,
        "split": len(found.split),
        "merged": len(found.merged),
    }


def read_scores(path: Path) -> dict[str, dict[str, Any]]:
    """Return what objects.json says of every case, and of all under an empty name.

    Raises
    ------
    DatasetError
        If the file is not there, or is something else.
    """
    content = read_object(path, DatasetError)
    wanted = set(scores(Matching.none()))
    try:
        found = {"": dict(content["all"]), **{str(name): dict(own) for name, own in content["cases"].items()}}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DatasetError(
            f"{path} is not what evaluate_objects writes ({error}). Evaluate the objects again."
        ) from error
    numbers = all(isinstance(own.get(name), int | float | None) for own in found.values() for name in wanted)
    if not numbers or any(wanted - set(own) for own in found.values()):
        raise DatasetError(
            f"{path} is not what evaluate_objects writes: it lacks figures, or they are not numbers. Evaluate again."
        )
    return found


def evaluate_objects(request: EvaluateObjectsRequest) -> Job[ObjectEvaluation]:
    """Compare two folders of numbered objects and write objects.json.

    Returns
    -------
    ObjectEvaluation
        The matching of every case.

    Raises
    ------
    DatasetError, ImageError
        If the folders do not hold the same cases, or a case's files do not lie on the same grid.
    """
    pairs = pair_up_objects(request.reference, request.prediction, missing_ok=request.missing_ok)
    for folder in (request.reference, request.prediction):
        if holds_classes(folder):
            yield Note(
                level="warning",
                text=f"According to dataset.json, {folder} holds classes, not numbered objects: every class of an "
                "image counts as one object, and the figures mean nothing.",
            )
    result = yield from match_pairs(pairs, workers=request.workers)
    yield from _classes_instead(pairs, result)
    target = request.summary or request.prediction / OBJECTS_FILE
    make_folder(target.parent)
    write_json(target, result.content())
    if request.csv is not None:
        make_folder(request.csv.parent)
        write_text(request.csv, result.csv())
    return result


def _classes_instead(pairs: Sequence[Pair], result: ObjectEvaluation) -> Job[None]:
    """Say where references or predictions look like masks of classes: few values, which lie in many pieces."""
    cases = [result.cases[pair.name] for pair in pairs]
    if all(0 < len(case.references) <= 2 < len(case.predictions) for case in cases):
        looks = ["reference"]
    else:
        looks = [
            which for which, count, path in (
                ("reference", [len(case.references) for case in cases], pairs[0].reference),
                ("prediction", [len(case.predictions) for case in cases], pairs[0].prediction),
            )
            if all(0 < n <= 2 for n in count) and scattered_pieces(read_objects(path)[0], count[0])
        ]  # fmt: skip
    for which in looks:
        yield Note(
            level="warning",
            text=f"No {which} has more than two values. If these are classes and not numbered objects, the figures "
            "mean nothing.",
        )


def match_pairs(pairs: Sequence[Pair], *, workers: int = 0) -> Job[ObjectEvaluation]:
    """Match the objects of all cases, and say what is odd about their files."""
    yield Stage(name="Comparing", total=len(pairs))
    found = yield from compare_cases(match_pair, pairs, None, workers=workers)
    for names, text in by_text({pair.name: odd for pair, (_, odd) in zip(pairs, found, strict=True)}):
        yield Note(level="warning", text=f"{names}: {text}.")
    return ObjectEvaluation({pair.name: matching for pair, (matching, _) in zip(pairs, found, strict=True)})


@dataclass(frozen=True, eq=False)
class ObjectPair:
    """The numbered objects of a case.

    Parameters
    ----------
    reference, prediction : ndarray of int, shape ([Z,] Y, X)
        On the reference's grid; what nobody annotated is left out of the prediction.
    kinds : tuple of (dict of int to str, dict of int to str)
        Of the objects of both; empty where nothing tells them.
    remarks : tuple of str
        What is odd about the files.
    """

    reference: NDArray[Any]
    prediction: NDArray[Any]
    kinds: tuple[dict[int, str], dict[int, str]]
    remarks: tuple[str, ...]


def read_object_pair(pair: Pair) -> ObjectPair:
    """Read the numbered objects of one case, laid over each other."""
    reference, geometry = read_objects(pair.reference)
    prediction, own = read_objects(pair.prediction)
    first = kinds_beside(pair.reference, reference, geometry)
    second = kinds_beside(pair.prediction, prediction, own)
    grid = Grid(reference.shape, geometry)
    what = f"{pair.name}: the reference {pair.reference} and the prediction {pair.prediction}"
    prediction = onto(prediction, own, grid, what=what)
    ignored = ignored_beside(pair.reference, grid)
    if ignored is not None:
        prediction = annotated_part(prediction, ignored, reference)
    odd = (f"of its prediction: {text}" for text in own.remarks if text not in geometry.remarks)
    return ObjectPair(reference, prediction, (first, second), (*geometry.remarks, *odd))


def match_pair(pair: Pair) -> tuple[dict[str, Matching], tuple[str, ...]]:
    """Match the objects of one case on the reference's grid, by kind; may run in a worker process.

    Kinds are told apart where both sides tell them (a mask of kinds and dataset.json beside). What nobody annotated is
    left out. What is odd about the files is returned, too.
    """
    read = read_object_pair(pair)
    return matched_by_kind(Matching.of(read.reference, read.prediction), *read.kinds), read.remarks


def matched_by_kind(
    found: Matching, references: Mapping[int, str], predictions: Mapping[int, str]
) -> dict[str, Matching]:
    """Return a matching by kind; whole, under an empty name, where a side does not tell kinds."""
    if (len(found.references) and not references) or (len(found.predictions) and not predictions):
        return {"": found}
    return found.by_kind(references, predictions) or {"": found}
