"""Two segmentations of the same images side by side, and where they differ."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_nnunet.engine.choosing.metrics import Joint, Metrics
from napari_nnunet.events import Job, Stage
from napari_nnunet.formats.atomic import make_folder, write_text
from napari_nnunet.formats.images.files import common_ending
from napari_nnunet.jobs.choosing.evaluate import Evaluation, Rules, badness, evaluate_pairs, other_classes, read_pair
from napari_nnunet.jobs.choosing.pairs import Pair, compare_cases, pair_up
from napari_nnunet.jobs.choosing.validation import info_beside
from napari_nnunet.schema.dataset import DatasetInfo, Region
from napari_nnunet.schema.requests.choosing import CompareRequest

_SHOWN = 20  # cases of a long table


@dataclass(frozen=True)
class Comparison:
    """How much two folders agree.

    Parameters
    ----------
    evaluation : Evaluation
        The first folder's files are the references, the second's the predictions; Dice does not care.
    names : mapping
        What each label or region is called.
    """

    evaluation: Evaluation
    names: Mapping[Region, str]

    @property
    def cases(self) -> list[tuple[str, dict[Region, Metrics]]]:
        """Name and metrics of every case, the most different first."""
        found = zip((pair.name for pair in self.evaluation.pairs), self.evaluation.cases, strict=True)
        return sorted(found, key=lambda entry: badness(entry[1]))

    def csv(self) -> str:
        """Return one line per case and label, the most different first."""
        return self.evaluation.csv()

    def text(self) -> str:
        """Return a table: Dice of each class, mean and the most different cases."""
        labels = self.evaluation.labels
        width = max([len(name) for name, _ in self.cases] + [4])
        heads = [self.names.get(label, str(label))[:14] for label in labels]
        lines = [" ".join([f"{'case':<{width}}", *(f"{head:>14}" for head in heads)])]
        means = self.evaluation.summary.mean
        lines.append(_row("mean", width, [means[str(label)]["Dice"] for label in labels]))
        for name, metrics in self.cases[:_SHOWN]:
            lines.append(_row(name, width, [metrics[label]["Dice"] for label in labels]))
        more = len(self.cases) - _SHOWN
        return "\n".join(lines) + "\n" + (f"... and {more} that agree more (--csv has all)\n" if more > 0 else "")


def _row(name: str, width: int, values: Sequence[float]) -> str:
    cells = ["–" if math.isnan(value) else f"{value:.4f}" for value in values]
    return " ".join([f"{name:<{width}}", *(f"{cell:>14}" for cell in cells)])


def folder_rules(
    first: Path,
    second: Path,
    dataset_json: Path | None = None,
    *,
    ignore_geometry: bool = False,
    workers: int = 0,
) -> Job[tuple[Rules, dict[Region, str]]]:
    """Return what is compared, voxel by voxel where geometry is ignored, and what it is called.

    From a dataset.json: the one given, or in either folder, or above; without one, all values that occur.
    """
    places = [dataset_json] if dataset_json else [p / "dataset.json" for p in (first, second, *first.parents[:1])]
    for place in places:
        if place.is_file():
            info = info_beside(place.parent) if place.name == "dataset.json" else DatasetInfo.read(place)
            yield from other_classes(info, place, first, second)
            rules = replace(Rules.of(info), ignore_geometry=ignore_geometry, asked_by_voxels=True)
            return rules, class_names(info, rules.labels)
    ending = common_ending(first)
    pairs = pair_up(first, second, ending, missing_ok=True)
    by_voxels = Rules((), ending, ignore_geometry=ignore_geometry, asked_by_voxels=True)
    yield Stage(name="Finding the labels", total=len(pairs))
    found = yield from compare_cases(_present, pairs, None, by_voxels, workers=workers)
    labels = tuple(sorted(set[int]().union(*found)))
    return replace(by_voxels, labels=labels), {label: f"label {label}" for label in labels}


def _present(pair: Pair, rules: Rules) -> tuple[int, ...]:
    """Return the values but 0 of a case; may run in a worker process."""
    one, other, _ = read_pair(pair, rules)
    return Joint.count(one, other).present


def class_names(info: DatasetInfo, labels: Sequence[Region]) -> dict[Region, str]:
    """Return the name of each label or region."""
    named = {value: name for name, value in info.labels.labels.items()}
    return {label: named.get(label, info.labels.names.get(label, str(label)) if isinstance(label, int) else str(label))
            for label in labels}  # fmt: skip


def compare_folders(request: CompareRequest) -> Job[Comparison]:
    """Compare two folders of segmentations; what only one of them has is an error.

    Returns
    -------
    Comparison
        Dice per class and case.
    """
    rules, names = yield from folder_rules(
        request.first,
        request.second,
        request.dataset_json,
        ignore_geometry=request.ignore_geometry,
        workers=request.workers,
    )
    evaluation = yield from evaluate_pairs(
        pair_up(request.first, request.second, rules.ending), rules, workers=request.workers
    )
    result = Comparison(evaluation, names)
    if request.csv is not None:
        make_folder(request.csv.parent)
        write_text(request.csv, result.csv())
    return result


def compare_arrays(
    first: NDArray[Any], second: NDArray[Any], labels: Sequence[Region] | None = None
) -> dict[Region, Metrics]:
    """Compare two label maps ([Z,] Y, X) on the same grid; every value that occurs if no labels are given."""
    joint = Joint.count(first, second)
    return joint.metrics(joint.present if labels is None else labels)


def difference(first: NDArray[Any], second: NDArray[Any]) -> NDArray[np.uint8]:
    """Return where two label maps differ: 1 only the first has something, 2 only the second, 3 both, but not the same.

    Parameters
    ----------
    first, second : ndarray of int
        Of the same shape.
    """
    result = np.zeros(first.shape, dtype=np.uint8)
    differs = first != second
    result[differs & (second == 0)] = 1
    result[differs & (first == 0)] = 2
    result[differs & (first != 0) & (second != 0)] = 3
    return result
