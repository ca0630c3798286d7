"""Which segmentation belongs to which reference, by their names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from napari_nnunet.errors import DatasetError
from napari_nnunet.formats.results.objects import found_files


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
