"""Numbered objects of a raw dataset: objectsTr beside labelsTr, and kindsTr where objects are of several kinds.

Labels are drawn from objects. Whether they are still those that were drawn is told by the content of files; sizes and
times are noted beside, so that only files that were touched are read again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_nnunet.errors import DatasetError, ImageError, some
from napari_nnunet.formats.atomic import write_json, write_text
from napari_nnunet.formats.dataset.case_trash import KINDS, OBJECTS
from napari_nnunet.formats.dataset.changing import one_at_a_time
from napari_nnunet.formats.dataset.raw_dataset import read_info, survey
from napari_nnunet.formats.images.files import read_labels
from napari_nnunet.formats.json_lines import read_lines
from napari_nnunet.formats.results.objects import FOUND_KINDS, scheme_beside
from napari_nnunet.grid import Grid, onto
from napari_nnunet.schema.dataset import BACKGROUND, IGNORE, DatasetInfo
from napari_nnunet.schema.geometry import Geometry
from napari_nnunet.schema.objects import ObjectScheme, labels_with_objects
from napari_nnunet.volume import NotWholeError

SOURCES = "objects_sources.jsonl"  # of what each case's labels were drawn


def object_files(folder: Path) -> dict[str, Path]:
    """Return the files with numbered objects by case, sorted.

    Raises
    ------
    DatasetError
        If the dataset has none.
    """
    ending = read_info(folder).file_ending
    home = folder / OBJECTS
    found = sorted(home.glob(f"*{ending}")) if home.is_dir() else []
    files = {path.name.removesuffix(ending): path for path in found if not path.name.startswith(".")}
    if not files:
        raise DatasetError(
            f"{folder.name} has no numbered objects: {OBJECTS} is missing or holds no file that ends in {ending}. "
            "Put a mask for each case there in which every object has its own number."
        )
    return files


def kinds_file(folder: Path, case: str) -> Path | None:
    """Return the mask that says of which kind the objects of a case are, and where ordinary classes lie."""
    path = folder / KINDS / f"{case}{read_info(folder).file_ending}"
    return path if path.is_file() else None


def read_objects(path: Path, reader: str | None = None) -> tuple[NDArray[Any], Geometry]:
    """Return numbered objects ([Z,] Y, X), 0 elsewhere, and their geometry.

    Raises
    ------
    ImageError
        If the file cannot be read, or a value is negative or no whole number: it would count as an object.
    """
    try:
        objects, geometry = read_labels(path, reader=reader, as_stored=True)
    except NotWholeError as error:
        raise ImageError(
            f"{error.seen}; every object has a whole number of its own, and 0 is background. Are these probabilities, "
            "or was it resampled with interpolation? Number the objects first, or resample with nearest neighbours."
        ) from error
    if objects.dtype.kind == "i" and (lowest := objects.min()) < 0:
        raise ImageError(
            f"{path} has the value {lowest}; objects are numbered from 1, and 0 is background. Renumber them first."
        )
    return objects, geometry


def reference_file(folder: Path, case: str, info: DatasetInfo) -> Path:
    """Return the mask of a case that people draw and correct: its numbered objects, or else its labels."""
    where = "labelsTr" if ObjectScheme.of(info) is None else OBJECTS
    return folder / where / f"{case}{info.file_ending}"


def numbered(array: NDArray[Any], where: str) -> NDArray[np.uint32]:
    """Return an array as numbers of objects that label files can hold.

    Numbers stay as they are where they fit into 16 bits; else they become 1, 2, 3, ... in their order.

    Raises
    ------
    ImageError
        If a value is negative, or no whole number.
    """
    if array.dtype.kind == "f" and not np.array_equal(array, np.rint(array)):
        raise ImageError(
            f"{where} has values that are not whole numbers; every object must have one, and 0 is background"
        )
    if array.size and array.min() < 0:
        raise ImageError(f"{where} has the value {array.min():g}; objects are numbered from 1, and 0 is background")
    objects = array.astype(np.int64)
    if objects.size and objects.max() > np.iinfo(np.uint16).max:
        _, place = np.unique(objects, return_inverse=True)
        objects = place.reshape(objects.shape) + int(not (objects == 0).any())
    return objects.astype(np.uint32)


def kinds_of(objects: NDArray[Any], kinds: NDArray[Any], names: dict[int, str], where: str) -> dict[int, str]:
    """Return the kind of every object: what most of its voxels have in the mask of kinds.

    Parameters
    ----------
    objects, kinds : ndarray of int, shape ([Z,] Y, X)
        Numbered objects; values of kinds and classes.
    names : dict of int to str
        Value to kind.
    where : str
        Named in errors.

    Raises
    ------
    DatasetError
        If the shapes differ, or an object lies for the most part where no kind is.
    """
    if objects.shape != kinds.shape:
        raise DatasetError(f"{where}: the objects have shape {objects.shape}, the mask of kinds {kinds.shape}.")
    inside = objects != 0
    numbers, place = np.unique(objects[inside], return_inverse=True)
    values, column = np.unique(kinds[inside], return_inverse=True)
    table = np.bincount(place * len(values) + column, minlength=len(numbers) * len(values))
    most = values[table.reshape(len(numbers), len(values)).argmax(axis=1)] if len(numbers) else values
    unknown = [int(n) for n, value in zip(numbers, most, strict=True) if int(value) not in names]
    if unknown:
        listed = some(unknown)
        raise DatasetError(
            f"{where}: the objects {listed} lie where the mask of kinds has no kind; its kinds are "
            f"{', '.join(f'{value} ({name})' for value, name in names.items())}."
        )
    return {int(n): names[int(value)] for n, value in zip(numbers, most, strict=True)}


def kinds_beside(path: Path, objects: NDArray[Any], geometry: Geometry) -> dict[int, str]:
    """Return the kind of each object of a file, as a mask and dataset.json beside say; nothing where they do not.

    Parameters
    ----------
    path : Path
        File with objects: in objectsTr, with kindsTr beside, or of a prediction, with ``kinds`` in its folder.
    objects : ndarray of int, shape ([Z,] Y, X)
        What it holds.
    geometry : Geometry
        Where its voxels lie; a mask of kinds that is stored in another orientation is turned onto them.

    Raises
    ------
    DatasetError, ImageError
        If the mask of kinds does not fit the objects, or lies elsewhere.
    """
    scheme, mask = scheme_beside(path), _mask_beside(path)
    if scheme is None or mask is None or scheme.only_kind is not None:
        return {}
    names = {value: kind for kind, value in scheme.mask_values.items()}
    values, own = read_labels(mask, as_stored=True)
    values = onto(values, own, Grid(objects.shape, geometry), what=f"the objects {path} and the mask of kinds {mask}")
    return kinds_of(objects, values, names, str(path))


def ignored_beside(path: Path, grid: Grid, reader: str | None = None) -> NDArray[np.bool_] | None:
    """Return what nobody annotated in a case, shape ([Z,] Y, X), by the mask of kinds beside its objects.

    On the voxels of ``grid``; raises ImageError if the mask has others.
    """
    scheme, mask = scheme_beside(path), _mask_beside(path)
    if scheme is None or scheme.ignore is None or mask is None:
        return None
    values, own = read_labels(mask, reader=reader, as_stored=True)
    values = onto(values, own, grid, what=f"the mask of kinds {mask} and its image")
    found: NDArray[np.bool_] = values == scheme.ignore
    return found if found.any() else None


def holds_classes(folder: Path) -> bool:
    """Whether a dataset.json says that a folder of segmentations, or labelsTr, holds classes and no objects."""
    if folder.name == "labelsTr":
        return (folder.parent / "dataset.json").is_file()
    beside = folder / "dataset.json"
    return beside.is_file() and ObjectScheme.of(DatasetInfo.read(beside)) is None


def _mask_beside(path: Path) -> Path | None:
    own = path.parent / FOUND_KINDS / path.name
    other = path.parent.parent / KINDS / path.name
    if own.is_file():
        return own
    return other if path.parent.name == OBJECTS and other.is_file() else None


def object_kinds(folder: Path, case: str, objects: NDArray[Any], geometry: Geometry) -> dict[int, str]:
    """Return the kind of each object of a case, with its geometry; nothing where its dataset has but one kind.

    Raises
    ------
    DatasetError, ImageError
        If the mask of kinds does not fit the objects.
    """
    scheme, path = object_scheme(folder), kinds_file(folder, case)
    if scheme is None or scheme.only_kind is not None or path is None:
        return {}
    mask, own = read_labels(path)
    mask = onto(mask, own, Grid(objects.shape, geometry), what=f"the objects and the kinds of {case}")
    return kinds_of(objects, mask, dict(scheme.values), f"{folder.name}, {case}")


def object_scheme(folder: Path) -> ObjectScheme | None:
    """Return what the dataset.json of a folder says of objects; None for an ordinary dataset or model."""
    return ObjectScheme.of(read_info(folder))


@dataclass(frozen=True)
class DrawnObjects:
    """How the labels of a dataset of objects agree with the objects.

    Parameters
    ----------
    stale : tuple of str
        Cases whose objects, kinds or rules are others than those their labels were drawn from, or that have no labels.
    changed : tuple of str
        Cases whose labels are others than were drawn, while the objects are the same.
    without : tuple of str
        Cases that have labels, but no objects.
    """

    stale: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    without: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Files:
    objects: Path
    kinds: Path | None
    label: Path

    @property
    def seen(self) -> str:
        parts = []
        for path in (self.objects, self.kinds, self.label):
            if path is not None and path.is_file():
                status = path.stat()
                parts.append(f"{path.parent.name} {status.st_size} {status.st_mtime_ns}")
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def sources(self, rules: str) -> str:
        """Return a digest of everything that the labels are drawn from."""
        return hashlib.sha256(f"{rules} {_content(self.objects)} {_content(self.kinds)}".encode()).hexdigest()


def look_at_drawn(folder: Path) -> DrawnObjects:
    """Compare objects and labels of a dataset with what was noted; nothing of a dataset of classes.

    Raises
    ------
    DatasetError
        If dataset.json cannot be read.
    """
    info = read_info(folder)
    scheme = ObjectScheme.of(info)
    if scheme is None:
        return DrawnObjects()
    noted, rules = _noted(folder), _rules(info, scheme)
    stale, changed = [], []
    files = _files(folder, info) if any((folder / OBJECTS).glob(f"*{info.file_ending}")) else {}
    for case, own in files.items():
        before = noted.get(case, {})
        if before.get("seen") == own.seen and before.get("rules") == rules and own.label.is_file():
            continue
        if before.get("sources") != own.sources(rules) or not own.label.is_file():
            stale.append(case)
        elif before.get("labels") != _content(own.label):
            changed.append(case)
    dataset, _ = survey(folder)
    without = tuple(case.name for case in dataset.cases if case.name not in files)
    return DrawnObjects(tuple(stale), tuple(changed), without)


def note_drawn(folder: Path, cases: Iterable[str]) -> None:
    """Note of which objects, kinds and rules the labels of cases were drawn just now; of cases that are gone nothing.

    Raises
    ------
    DatasetError
        If the dataset has no objects.
    """
    info = read_info(folder)
    scheme = ObjectScheme.of(info)
    if scheme is None:
        raise DatasetError(f"{folder.name} is not a dataset of objects.")
    rules, files = _rules(info, scheme), _files(folder, info)
    noted = {case: entry for case, entry in _noted(folder).items() if case in files}
    for case in cases:
        own = files[case]
        noted[case] = {
            "case": case,
            "seen": own.seen,
            "rules": rules,
            "sources": own.sources(rules),
            "labels": _content(own.label),
        }
    write_text(folder / SOURCES, "".join(f"{json.dumps(noted[case])}\n" for case in sorted(noted)))


@one_at_a_time
def rename_kinds(folder: Path, names: Mapping[str, str]) -> None:
    """Give kinds of objects, and ordinary classes beside them, other names; labels stay as they are.

    Raises
    ------
    DatasetError
        If it is not a dataset of objects, a name is unknown, taken, reserved or empty.
    """
    info = read_info(folder)
    scheme = ObjectScheme.of(info)
    if scheme is None:
        raise DatasetError(f"{folder.name} is not a dataset of objects.")
    before = [*scheme.kinds, *scheme.classes]
    unknown = [name for name in names if name not in before]
    if unknown:
        raise DatasetError(f"{folder.name} has no kind or class '{unknown[0]}'; it has {', '.join(before)}.")
    after = {name: names.get(name, name).strip() for name in before}
    if len(set(after.values())) < len(after) or not {"", BACKGROUND, IGNORE}.isdisjoint(after.values()):
        raise DatasetError(
            "Kinds of objects cannot be joined or removed here, because every object is of one kind, and 'background' "
            "and 'ignore' have their own meaning. Change the masks in kindsTr, then derive_objects."
        )
    found = look_at_drawn(folder)
    kinds = list(scheme.kinds)
    labels, _, _ = labels_with_objects([after[kind] for kind in kinds], {}, ignore=False)
    pairs = {value: name for name, value in labels.items()}  # cores and borders come first, in the order of the kinds
    named = {
        pairs.get(value, after.get(name, name)) if isinstance(value, int) else name: value
        for name, value in info.labels.labels.items()
    }
    renamed = scheme.model_copy(
        update={
            "kinds": {after[kind]: pair for kind, pair in scheme.kinds.items()},
            "values": {value: after[kind] for value, kind in scheme.values.items()},
            "classes": {after[name]: value for name, value in scheme.classes.items()},
        }
    )
    write_json(folder / "dataset.json", renamed.write_into({**info.raw, "labels": named}))
    note_drawn(folder, sorted(set(_files(folder, info)) - {*found.stale, *found.changed}))


def foreign_labels(folder: Path, cases: Iterable[str]) -> list[Path]:
    """Return the label files of cases that are there and were not drawn from objects; they must not be lost."""
    noted, info = _noted(folder), read_info(folder)
    paths = {case: folder / "labelsTr" / f"{case}{info.file_ending}" for case in cases}
    return [
        path for case, path in paths.items() if path.is_file() and noted.get(case, {}).get("labels") != _content(path)
    ]


def _noted(folder: Path) -> dict[str, dict[str, Any]]:
    return {str(entry.get("case")): entry for entry in read_lines(folder / SOURCES)}


def _files(folder: Path, info: DatasetInfo) -> dict[str, _Files]:
    labels = folder / "labelsTr"
    return {
        case: _Files(path, kinds_file(folder, case), labels / f"{case}{info.file_ending}")
        for case, path in object_files(folder).items()
    }


def _content(path: Path | None) -> str:
    if path is None or not path.is_file():
        return ""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _rules(info: DatasetInfo, scheme: ObjectScheme) -> str:
    """Return a digest of what decides how labels are drawn."""
    content: Mapping[str, Any] = {
        **scheme.model_dump(mode="json", exclude={"scores"}),
        "labels": dict(info.labels.labels),
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
