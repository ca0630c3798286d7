"""Which segmentation belongs to which reference, by their names; and those with values that nobody defined."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from napari_nnunet.engine.choosing.metrics import Metrics
from napari_nnunet.errors import DatasetError, NnunetError
from napari_nnunet.events import Job, Note
from napari_nnunet.formats.images.files import read_header
from napari_nnunet.formats.results.objects import found_files
from napari_nnunet.schema.dataset import Region


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
        f"{some_files([files[name].name for name in names])} of {folder} are not in {other}"
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
    return f"{len(names)} {files} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"


def files_of(folder: Path, ending: str) -> dict[str, Path]:
    """Return the files of a folder by name; raises DatasetError where there are none."""
    if not folder.is_dir():
        raise DatasetError(f"The folder {folder} does not exist.")
    found = {p.name: p for p in folder.iterdir() if p.name.endswith(ending) and not p.name.startswith(".")}
    if not found:
        there = sorted({"".join(p.suffixes[-2:]) for p in folder.iterdir() if p.is_file()})[:6]
        raise DatasetError(
            f"{folder} has no files ending in {ending}" + (f"; it has {', '.join(there)}." if there else ".")
        )
    return found


def undefined_values(pairs: Sequence[Pair], values: Sequence[Mapping[str, set[int]]]) -> Job[None]:
    """Warn about files with values that dataset.json lacks: no score tells of them."""
    for which in ("references", "predictions"):
        files = [pair.prediction.name for pair, own in zip(pairs, values, strict=True) if own[which]]
        listed = sorted(set[int]().union(*(own[which] for own in values)))
        if files:
            shown = ", ".join(map(str, listed[:6])) + (", ..." if len(listed) > 6 else "")
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
            shown = ", ".join(map(str, instead[:6])) + (", ..." if len(instead) > 6 else "")
            yield Note(
                level="warning",
                text=f"The {which} never have the label {', '.join(lacking)}, but {shown}, which the {other} do not "
                "have. Do both mean the same classes?",
            )


def unsized_references(pairs: Sequence[Pair], reader: str | None) -> Job[None]:
    """Warn about references that do not say how large their voxels are; those that cannot be read are said later."""
    unknown = []
    for pair in pairs:
        with suppress(NnunetError):
            if not read_header(pair.reference, reader=reader).geometry.spacing_known:
                unknown.append(pair.reference.name)
    if unknown:
        yield Note(
            level="warning",
            text=f"{some_files(unknown)} of the references do not say how large their voxels are: there, distances of "
            "surfaces are counted in voxels, not in mm.",
        )
