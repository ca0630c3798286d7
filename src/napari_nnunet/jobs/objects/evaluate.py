"""Compare numbered objects with their references, case by case and all together."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from napari_nnunet.engine.objects.match import THRESHOLDS, Matching
from napari_nnunet.events import Job, Note, Stage
from napari_nnunet.formats.atomic import make_folder, write_json, write_text
from napari_nnunet.formats.dataset.objects import read_objects
from napari_nnunet.formats.images.files import common_ending
from napari_nnunet.grid import Grid, onto
from napari_nnunet.jobs.choosing.evaluate import compare_cases
from napari_nnunet.jobs.choosing.pairs import Pair, pair_up
from napari_nnunet.schema.requests.choosing import EvaluateObjectsRequest

OBJECTS_FILE = "objects.json"


@dataclass(frozen=True)
class ObjectEvaluation:
    """How well objects were found.

    Parameters
    ----------
    cases : dict of str to Matching
        By case.
    """

    cases: Mapping[str, Matching]

    @property
    def all(self) -> Matching:
        """The objects of all cases."""
        return sum(self.cases.values(), Matching.none())

    def content(self) -> dict[str, Any]:
        """Return what objects.json says; what has no value is null."""
        return {"all": scores(self.all), "cases": {name: scores(found) for name, found in self.cases.items()}}

    def csv(self) -> str:
        """Return one line per case, worst first."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        rows = {name: scores(found) for name, found in self.cases.items()}
        writer.writerow(["case", *scores(Matching.none())])
        for name, row in sorted(rows.items(), key=lambda item: (item[1]["AP@0.5"] is None, item[1]["AP@0.5"] or 0)):
            writer.writerow([name, *("" if value is None else value for value in row.values())])
        return text.getvalue()


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
    ending = common_ending(request.prediction)
    pairs = pair_up(request.reference, request.prediction, ending, missing_ok=request.missing_ok)
    yield Stage(name="Comparing", total=len(pairs))
    found = yield from compare_cases(match_pair, pairs, None, workers=request.workers)
    result = ObjectEvaluation({pair.name: matching for pair, matching in zip(pairs, found, strict=True)})
    same = [n for n, matching in result.cases.items() if 0 < len(matching.references) <= 2 < len(matching.predictions)]
    if same and len(same) == len(result.cases):
        yield Note(
            level="warning",
            text="No reference has more than two values. If these are classes and not numbered objects, the figures "
            "mean nothing.",
        )
    target = request.summary or request.prediction / OBJECTS_FILE
    make_folder(target.parent)
    write_json(target, result.content())
    if request.csv is not None:
        make_folder(request.csv.parent)
        write_text(request.csv, result.csv())
    return result


def match_pair(pair: Pair) -> Matching:
    """Match the objects of one case on the reference's grid; may run in a worker process."""
    reference, geometry = read_objects(pair.reference)
    prediction, own = read_objects(pair.prediction)
    what = f"{pair.name}: the reference {pair.reference} and the prediction {pair.prediction}"
    return Matching.of(reference, onto(prediction, own, Grid(reference.shape, geometry), what=what))
