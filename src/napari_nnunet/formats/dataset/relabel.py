"""The label values and classes of a whole dataset are changed: renumbered, renamed, merged, removed, brought back."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ValidationError

from napari_nnunet.errors import DatasetError
from napari_nnunet.formats.atomic import copy_file, make_folder, write_json
from napari_nnunet.formats.dataset.changing import one_at_a_time
from napari_nnunet.formats.dataset.raw_dataset import RawDataset, read_info, said_of_renamed, survey
from napari_nnunet.formats.dataset.raw_writer import set_labels
from napari_nnunet.formats.images.files import read_labels, write_labels
from napari_nnunet.formats.trash import TRASH, Trashed, trash_path, trashed
from napari_nnunet.schema.dataset import ANNOTATED, BACKGROUND, IGNORE, DatasetInfo
from napari_nnunet.schema.json_text import first_problem, read_object
from napari_nnunet.schema.names import require_plain
from napari_nnunet.schema.objects import ObjectScheme

ALL_LABELS = "labels of all cases"  # what an entry in the trash is called
_ASIDE = ".renumbered"
_COMPLETE = "complete.json"


def compact_values(values: Sequence[int], ignore: int | None = None) -> dict[int, int]:
    """Return a mapping of label values to 0, 1, 2, ... in their order; the ignore label comes last.

    Background stays 0, whether it occurs or not.
    """
    ordered = sorted({0, *(int(v) for v in values)} - {ignore})
    mapping = {value: i for i, value in enumerate(ordered)}
    if ignore is not None:
        mapping[ignore] = len(mapping)
    return mapping


def remap(labels: NDArray[np.integer], mapping: Mapping[int, int]) -> NDArray[np.int32]:
    """Return labels with their values replaced; values without an entry stay."""
    values, inverse = np.unique(labels, return_inverse=True)
    table = np.array([mapping.get(int(value), int(value)) for value in values], dtype=np.int32)
    return table[inverse.reshape(labels.shape)]


@one_at_a_time
def remap_dataset(folder: Path) -> dict[int, int]:
    """Renumber the labels of a whole dataset to 0, 1, 2, ..., in its files and in dataset.json.

    Values that dataset.json does not name get the name ``label_VALUE``. All files are written aside first and moved
    in place only when they are complete, the old ones go to the trash; an interrupted move is finished by the next
    call.

    Returns
    -------
    dict of int to int
        Old value to new value.
    """
    finished = _finish(folder)
    if finished is not None:
        return finished
    dataset, _ = survey(folder)
    _require_own_values(dataset)
    scheme = dataset.info.labels
    if scheme.has_regions:
        raise DatasetError("Regions join label values; renumber them by hand, in the files and in dataset.json.")
    mapping = compact_values(sorted(_values_of(dataset)), scheme.ignore_label)
    names = {value: name for name, value in scheme.labels.items() if isinstance(value, int)}
    ordered = sorted(mapping.items(), key=lambda entry: entry[1])
    labels = {names.get(old, f"label_{old}"): new for old, new in ordered}
    return _rewrite(dataset, mapping, labels, dataset.info.annotated)


@one_at_a_time
def change_classes(folder: Path, names: Mapping[str, str]) -> dict[int, int]:
    """Rename, merge or remove classes of a dataset, in its label files and in dataset.json.

    Parameters
    ----------
    folder : Path
        The dataset; the old label files go to its trash folder where values change.
    names : mapping of str to str
        Class to its new name. Classes of the same new name become one; an empty name, or "background", makes a class
        part of the background.

    Returns
    -------
    dict of int to int
        Old value to new value.

    Raises
    ------
    DatasetError
        If a class is unknown, none is left, a name is not allowed, or regions would have to be changed.
    """
    _finish(folder)
    dataset, _ = survey(folder)
    _require_own_values(dataset)
    before = dict(dataset.info.labels.labels)
    unknown = [name for name in names if name not in before or name in (BACKGROUND, IGNORE)]
    if unknown:
        raise DatasetError(f"{folder.name} has no class '{unknown[0]}'; it has {', '.join(before)}.")
    target = {name: names.get(name, name).strip() or BACKGROUND for name in before}
    if IGNORE in {new for old, new in target.items() if old != IGNORE}:
        raise DatasetError("A class cannot be called 'ignore'; that name is for voxels nobody looked at.")
    merged = len(set(target.values())) < len(target)
    if dataset.info.labels.has_regions:
        if merged:
            raise DatasetError("Regions join label values; they can be renamed, but not merged or removed.")
        set_labels(folder, {target[name]: value for name, value in before.items()}, target)
        return {}
    ordered = [target[name] for name, _ in sorted(before.items(), key=lambda entry: _one(entry[1]))]
    kept = [name for name in dict.fromkeys(ordered) if name not in (BACKGROUND, IGNORE)]
    if not kept:
        raise DatasetError("At least one class must be left.")
    labels = {name: i for i, name in enumerate([BACKGROUND, *kept, *([IGNORE] if IGNORE in before else [])])}
    mapping = {_one(value): labels[target[name]] for name, value in before.items()}
    if all(old == new for old, new in mapping.items()):
        set_labels(folder, labels, target)
        return mapping
    strange = _values_of(dataset) - set(mapping)
    if strange:
        raise DatasetError(
            f"The labels contain {min(strange)}, which dataset.json does not define; check the dataset first."
        )
    return _rewrite(dataset, mapping, labels, said_of_renamed(dataset.info, target, labels))


def _require_own_values(dataset: RawDataset) -> None:
    """Refuse to change labels that are drawn from numbered objects: they would be others than what is drawn."""
    if ObjectScheme.of(dataset.info) is not None:
        raise DatasetError(
            f"The labels of {dataset.folder.name} are drawn from its numbered objects and mean cores and borders.",
            shell="Name kinds and classes with derive_objects: --kinds VALUE=NAME, --classes VALUE=NAME.",
            window="Rename kinds under 'Edit dataset...' in the Training cases dock.",
        )


def _one(value: int | Sequence[int]) -> int:
    return value if isinstance(value, int) else value[0]


@one_at_a_time
def bring_labels_back(folder: Path, entry: Trashed) -> None:
    """Undo a change of all labels: old label files and classes take the place of the present ones.

    Raises
    ------
    DatasetError
        If cases came since, for their values would mean other classes.
    """
    _finish(folder)
    dataset, _ = survey(folder)
    _require_own_values(dataset)
    files = {path.name: path for path in sorted((entry.path / "labelsTr").iterdir())}
    since = [case.name for case in dataset.cases if case.label.name not in files]
    moment = entry.path.stat().st_mtime_ns
    since += [later.name for later in trashed(folder / TRASH) if later.path.stat().st_mtime_ns > moment]
    if since:
        raise DatasetError(
            f"{since[0]} was added or changed since, and its values would mean other classes. Remove it from the "
            "dataset first, or bring its own old labels back."
        )
    info = read_info(entry.path)
    aside = make_folder(folder / _ASIDE)
    for case in dataset.cases:
        copy_file(files[case.label.name], aside / case.label.name)
    _complete(folder, {}, info.labels.labels, info.annotated)
    _finish(folder)
    shutil.rmtree(entry.path, ignore_errors=True)


def _values_of(dataset: RawDataset) -> set[int]:
    reader = dataset.info.reader
    found: set[int] = set()
    for case in dataset.cases:
        found.update(int(v) for v in np.unique(read_labels(case.label, reader=reader)[0]))
    return found


def _rewrite(
    dataset: RawDataset,
    mapping: Mapping[int, int],
    labels: Mapping[str, int | Sequence[int]],
    annotated: Mapping[str, Sequence[str]],
) -> dict[int, int]:
    """Write all label files anew, aside first, and exchange them."""
    if any(case.label.parent != dataset.folder / "labelsTr" for case in dataset.cases):
        raise DatasetError(f"{dataset.folder.name} lists its files in dataset.json; change the values there.")
    DatasetInfo.parse({**dataset.info.raw, "labels": dict(labels), ANNOTATED: annotated})  # before anything is written
    aside, reader = make_folder(dataset.folder / _ASIDE), dataset.info.reader
    for case in dataset.cases:
        voxels, geometry = read_labels(case.label, reader=reader)
        write_labels(remap(voxels, mapping), geometry, aside / case.label.name, writer=reader)
    _complete(dataset.folder, mapping, labels, annotated)
    _finish(dataset.folder)
    return dict(mapping)


def _complete(
    folder: Path,
    mapping: Mapping[int, int],
    labels: Mapping[str, int | Sequence[int]],
    annotated: Mapping[str, Sequence[str]],
) -> None:
    """Say that the files aside are complete, what they mean, and where the old ones go."""
    trash = make_folder(trash_path(folder / TRASH, ALL_LABELS))
    content = {"mapping": {str(old): new for old, new in mapping.items()}, "labels": dict(labels), "trash": trash.name}
    write_json(folder / _ASIDE / _COMPLETE, {**content, "annotated": {case: [*own] for case, own in annotated.items()}})


class _Complete(BaseModel):
    """What lies aside: new values by old ones, the classes they belong to, and where the old files go."""

    mapping: dict[int, int]
    labels: dict[str, int | list[int]]
    trash: str
    annotated: dict[str, list[str]] = {}


def _finish(folder: Path) -> dict[int, int] | None:
    """Exchange label files that lie complete aside, also where an earlier call was interrupted; None without such."""
    aside = folder / _ASIDE
    if not (aside / _COMPLETE).is_file():
        shutil.rmtree(aside, ignore_errors=True)
        return None
    try:
        content = _Complete.model_validate(read_object(aside / _COMPLETE, DatasetError))
    except ValidationError as error:
        raise DatasetError(
            f"{aside / _COMPLETE} cannot be read: {first_problem(error)} Delete the folder {aside} and give the "
            "classes their values once more."
        ) from error
    trash = make_folder(folder / TRASH / require_plain(content.trash, "The entry of the trash") / "labelsTr")
    if not (trash.parent / "dataset.json").is_file():
        copy_file(folder / "dataset.json", trash.parent / "dataset.json")
    for written in sorted(path for path in aside.iterdir() if path.name != _COMPLETE):
        if not (trash / written.name).is_file():
            copy_file(folder / "labelsTr" / written.name, trash / written.name)
        os.replace(written, folder / "labelsTr" / written.name)
    before = read_object(folder / "dataset.json", DatasetError)
    said = {ANNOTATED: content.annotated} if content.annotated or ANNOTATED in before else {}
    write_json(folder / "dataset.json", {**before, "labels": content.labels, **said})
    shutil.rmtree(aside)
    return content.mapping
