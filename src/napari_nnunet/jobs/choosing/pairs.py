"""Which segmentation belongs to which reference, a call for each of them, and those with values nobody defined."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from napari_nnunet.engine.choosing.metrics import Metrics
from napari_nnunet.errors import DatasetError, NnunetError, some
from napari_nnunet.events import Job, Note
from napari_nnunet.formats.images.files import adapter_for, read_header
from napari_nnunet.formats.regular import no_folder
from napari_nnunet.formats.results.objects import found_files
from napari_nnunet.processes.cluster.team import Elsewhere, spread
from napari_nnunet.processes.pool import Outcome, Task, collected, each_case, results_of
from napari_nnunet.schema.dataset import Region

_COPIES = 4  # of a label map: two files, one of them while it is unpacked, and one that is changed
_PARTS = 6  # bytes per voxel: the number of the part it belongs to, and masks
_STRAY = 98  # a value above it, and far above all classes, means something else: 99, 254, 255
_TRIED = 3  # cases that tell how large all are; one of them may be damaged


@dataclass(frozen=True)
class Pair:
    """One case.

    Parameters
    ----------
    name : str
        Of the case.
    reference, prediction : Path
        Its files.
    """

    name: str
    reference: Path
    prediction: Path


def pair_up(reference: Path, prediction: Path, ending: str, *, missing_ok: bool = False) -> tuple[Pair, ...]:
    """Return the cases of a folder of predictions with their references, sorted by name.

    Raises
    ------
    DatasetError
        If a folder is missing or empty, a prediction has no reference, or (unless ``missing_ok``) a reference has no
        prediction.
    """
    real, predicted = (files_of(folder, ending) for folder in (reference, prediction))
    _require_pairs(reference, real, prediction, predicted, missing_ok=missing_ok)
    return tuple(Pair(name.removesuffix(ending), real[name], predicted[name]) for name in sorted(predicted))


def pair_up_objects(reference: Path, prediction: Path, *, missing_ok: bool = False) -> tuple[Pair, ...]:
    """Return the same for numbered objects; where a format has too few numbers for a case, it is in another one.

    Raises
    ------
    DatasetError, ImageError
        As :func:`pair_up`, and if a folder holds files of several kinds.
    """
    real, predicted = found_files(reference), found_files(prediction)
    _require_pairs(reference, real, prediction, predicted, missing_ok=missing_ok)
    return tuple(Pair(name, real[name], predicted[name]) for name in predicted)


def _require_pairs(
    reference: Path, real: Mapping[str, Path], prediction: Path, predicted: Mapping[str, Path], *, missing_ok: bool
) -> None:
    orphans = sorted(set(predicted) - set(real))
    absent = [] if missing_ok else sorted(set(real) - set(predicted))
    problems = [
        f"{some_files([files[name].name for name in names])} of {folder} {'are' if len(names) > 1 else 'is'} not in "
        f"{other}"
        for names, files, folder, other in (
            (orphans, predicted, prediction, reference),
            (absent, real, reference, prediction),
        )
        if names
    ]
    if problems:
        text = "The folders hold different cases: " + "; ".join(problems) + "."
        raise DatasetError(text, shell="--chill leaves missing predictions out." if absent and not orphans else "")


def some_files(names: Sequence[str]) -> str:
    """Return how many files there are, and the names of the first."""
    files = "files" if len(names) > 1 else "file"
    return f"{len(names)} {files} ({some(names, 3)})"


def files_of(folder: Path, ending: str) -> dict[str, Path]:
    """Return the files of a folder by name, with the ending as it was asked for: ``.NII.GZ`` counts as ``.nii.gz``.

    Raises
    ------
    DatasetError
        If there are none, or two for one name.
    """
    if not folder.is_dir():
        raise DatasetError(no_folder(folder))
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.name.lower().endswith(ending.lower()) and not path.name.startswith("."):
            name = path.name[: len(path.name) - len(ending)] + ending
            if name in found:
                raise DatasetError(
                    f"{folder} has {found[name].name} and {path.name}: one case, and which file is meant is not "
                    "certain. Keep one of them there."
                )
            found[name] = path
    if not found:
        there = sorted({"".join(p.suffixes[-2:]) for p in folder.iterdir() if p.is_file()})[:6]
        raise DatasetError(
            f"{folder} has no files ending in {ending}" + (f"; it has {', '.join(there)}." if there else ".")
        )
    return found


def size_of(path: Path, reader: str | None) -> tuple[int, int]:
    """Return (voxels, bytes per voxel) of a file from its header; zeros if that cannot be read."""
    try:
        shape, itemsize, _ = adapter_for(path, reader).header(path)
    except Exception:  # every library has its own; reading the file itself will say what is wrong
        return 0, 0
    return int(np.prod(shape, dtype=np.int64)), itemsize


def case_tasks(pairs: Sequence[Pair], reader: str | None, *more: Any) -> list[Task]:
    """Return one task per case with (pair, *more) as arguments, and an estimate of its memory."""

    def memory(pair: Pair) -> Callable[[], float]:
        def needed() -> float:
            voxels, itemsize = size_of(pair.reference, reader)
            return voxels * (_COPIES * itemsize + _PARTS)

        return needed

    return [Task(pair.name, (pair, *more), memory(pair)) for pair in pairs]


def compare_cases(
    function: Callable[..., Any],
    pairs: Sequence[Pair],
    reader: str | None,
    *more: Any,
    workers: int = 0,
    cluster: str | None = None,
    verb: str = "compared",
) -> Job[list[Any]]:
    """Call ``function(pair, *more)`` for every case; returns the results in the order of the cases.

    Few small images are compared here; ``cluster`` names workers that do it in any case; ``verb`` is what errors say of
    cases that failed.

    Raises
    ------
    DatasetError
        If any case failed, with all reasons.
    """
    outcomes = yield from outcomes_of_pairs(function, pairs, reader, *more, workers=workers, cluster=cluster)
    results = results_of(outcomes, verb)
    return [results[pair.name] for pair in pairs]


def outcomes_of_pairs(
    function: Callable[..., Any],
    pairs: Sequence[Pair],
    reader: str | None,
    *more: Any,
    workers: int = 0,
    cluster: str | None = None,
) -> Job[dict[str, Outcome]]:
    """Return what became of every case, by its name; as :func:`compare_cases`, but no case that failed ends the job."""
    tasks = case_tasks(pairs, reader, *more)
    if cluster is not None:
        need = Elsewhere(cluster, reads=tuple(path for pair in pairs[:1] for path in (pair.reference, pair.prediction)))
        return (yield from collected(spread(need, function, tasks), len(tasks), lambda _: None))
    voxels = max((size_of(pair.reference, reader)[0] for pair in pairs[:_TRIED]), default=0) * len(pairs)
    return (yield from each_case(function, tasks, workers=workers, work=voxels))


def undefined_values(pairs: Sequence[Pair], values: Sequence[Mapping[str, set[int]]]) -> Job[None]:
    """Warn about files with values that dataset.json lacks: no score tells of them."""
    for which in ("references", "predictions"):
        files = [pair.prediction.name for pair, own in zip(pairs, values, strict=True) if own[which]]
        listed = sorted(set[int]().union(*(own[which] for own in values)))
        if files:
            shown = some(listed, 6)
            yield Note(
                level="warning",
                text=f"{some_files(files)} of the {which} have values that dataset.json does not define ({shown}); "
                "they count as background. Is this the right dataset.json?",
            )


def other_values(
    labels: Sequence[Region], cases: Sequence[Mapping[Region, Metrics]], values: Sequence[Mapping[str, set[int]]]
) -> Job[None]:
    """Warn about labels that one side lacks altogether, where it has values that nobody asked for and the other lacks.

    Parameters
    ----------
    labels : sequence of int or tuple of int
        That were asked for.
    cases : sequence of dict
        Their metrics.
    values : sequence of dict of str to set of int
        Of every case, what only the "references" and only the "predictions" have.
    """
    asked = {0, *(value for label in labels for value in (label if isinstance(label, tuple) else (label,)))}
    for key, which, other in (("n_pred", "predictions", "references"), ("n_ref", "references", "predictions")):
        lacking = [str(label) for label in labels if not any(case[label][key] > 0 for case in cases)]
        instead = sorted(set[int]().union(*(own[which] for own in values)) - asked)
        if lacking and instead:
            shown = some(instead, 6)
            yield Note(
                level="warning",
                text=f"The {which} never have the label {', '.join(lacking)}, but {shown}, which the {other} do not "
                "have. Do both mean the same classes?",
            )


def stray_values(
    labels: Sequence[Region], cases: Sequence[Mapping[Region, Metrics]], values: Sequence[Mapping[str, set[int]]]
) -> Job[None]:
    """Warn about values that only one side has and that mean no class: below 0, or far above all that were asked for.

    Not where they may stand for a label that the side lacks; parameters as for :func:`other_values`.
    """
    asked = {value for label in labels for value in (label if isinstance(label, tuple) else (label,))}
    highest = max(asked)
    for key, which in (("n_ref", "references"), ("n_pred", "predictions")):
        if not all(any(case[label][key] > 0 for case in cases) for label in labels):
            continue
        every = set[int]().union(*(own[which] for own in values)) - asked
        stray = sorted(value for value in every if value < 0 or value > max(_STRAY, 4 * highest))
        if stray:
            shown = some(stray, 6)
            advice = ""
            if which == "references":
                advice = f" If nobody annotated these voxels, leave them out (-il {stray[-1]})."
            yield Note(
                level="warning",
                text=f"The {which} have the value {shown}, which the other side lacks and which was not asked for: it "
                f"counts as background.{advice}",
            )


def unsized_references(pairs: Sequence[Pair], reader: str | None) -> Job[None]:
    """Warn about references that have no voxel size; those that cannot be read are said later."""
    unknown = []
    for pair in pairs:
        with suppress(NnunetError):
            if not read_header(pair.reference, reader=reader).geometry.spacing_known:
                unknown.append(pair.reference.name)
    if unknown:
        yield Note(
            level="warning",
            text=f"{some_files(unknown)} of the references have no voxel size: there, distances of "
            "surfaces are counted in voxels, not in mm.",
        )
