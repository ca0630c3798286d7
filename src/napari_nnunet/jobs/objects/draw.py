"""Cores and borders are drawn into labelsTr, and drawn again where the objects changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_nnunet.errors import DatasetError, NnunetError, of_all, some
from napari_nnunet.events import Job, Note, Stage
from napari_nnunet.formats.atomic import make_folder
from napari_nnunet.formats.dataset.case_trash import KINDS, OBJECTS, in_trash
from napari_nnunet.formats.dataset.changing import changing
from napari_nnunet.formats.dataset.objects import (
    DrawnObjects,
    foreign_labels,
    kinds_file,
    kinds_of,
    look_at_drawn,
    note_drawn,
    object_files,
    read_objects,
)
from napari_nnunet.formats.dataset.raw_dataset import read_info
from napari_nnunet.formats.dataset.raw_writer import update_count
from napari_nnunet.formats.images.files import read_header, read_labels, write_labels
from napari_nnunet.grid import Grid, onto
from napari_nnunet.processes.pool import Task, each_case, results_of
from napari_nnunet.schema.dataset import DatasetInfo
from napari_nnunet.schema.geometry import Geometry
from napari_nnunet.schema.objects import ObjectScheme

BYTES = 40  # per voxel, while objects are thinned and grown again


@dataclass(frozen=True)
class Drawing:
    """What is drawn into labels.

    Parameters
    ----------
    width : float
        Of borders, in mm.
    values : dict of str to (int, int)
        Kind to the values of its core and border in the labels.
    kinds : dict of int to str
        Kinds by their values in kindsTr.
    others : dict of int to int
        Values in kindsTr of ordinary classes and of what nobody annotated, to those in the labels.
    """

    width: float
    values: Mapping[str, tuple[int, int]]
    kinds: Mapping[int, str]
    others: Mapping[int, int]

    @property
    def needs_kinds(self) -> bool:
        """Whether a second mask must say of which kind objects are and where classes lie."""
        return len(self.values) > 1 or bool(self.others)

    @classmethod
    def of(cls, info: DatasetInfo, scheme: ObjectScheme) -> Drawing:
        """Return what dataset.json says is to be drawn.

        Raises
        ------
        DatasetError
            If it does not say what the values in kindsTr mean.
        """
        labels, ignore = info.labels.labels, info.labels.ignore_label
        others = {value: labels[name] for name, value in scheme.classes.items() if name in labels}
        if scheme.ignore is not None and ignore is not None:
            others[scheme.ignore] = ignore
        told = {value: label for value, label in others.items() if isinstance(label, int)}
        if set(scheme.values.values()) != set(scheme.kinds) or len(told) < len(scheme.classes):
            raise DatasetError(
                "dataset.json does not say which values in kindsTr mean which kind or class.",
                shell="Say it: derive_objects DATASET --kinds VALUE=NAME --classes VALUE=NAME.",
                window="Import images and masks once more in the Training cases dock, which asks what the values mean.",
            )
        return cls(scheme.width * scheme.unit, scheme.kinds, scheme.values, told)


def draw_cases(
    folder: Path, info: DatasetInfo, scheme: ObjectScheme, cases: Sequence[str], workers: int = 0
) -> Job[int]:
    """Draw the labels of cases; what lies in their place and was not drawn goes to the trash.

    Parameters
    ----------
    folder : Path
        The raw dataset, claimed by whoever calls this.
    info : DatasetInfo
        Its dataset.json, or the one that it will get.
    scheme : ObjectScheme
        What that says of objects.
    cases : sequence of str
        With objects.
    workers : int
        Processes; 0 for as many as help.

    Returns
    -------
    int
        How many objects are thinner than their borders.
    """
    files, plan = object_files(folder), Drawing.of(info, scheme)
    kinds = {case: kinds_file(folder, case) for case in sorted(cases)}
    if plan.needs_kinds:
        require_kinds([case for case, path in kinds.items() if path is None], len(files))
    home = make_folder(folder / "labelsTr")
    foreign, labels = foreign_labels(folder, cases), {case: home / f"{case}{info.file_ending}" for case in kinds}
    yield Stage(name="Drawing cores and borders", total=len(cases))
    tasks = [
        Task(
            case,
            (files[case], path, labels[case], plan, case if labels[case] in foreign else ""),
            partial(memory_of, files[case]),
        )
        for case, path in kinds.items()
    ]
    voxels = sum(memory_of(files[case]) for case in cases) / BYTES
    lost = results_of((yield from each_case(draw_case, tasks, workers=workers, work=voxels)), "drawn")
    return sum(lost.values())


def require_kinds(missing: Sequence[str], count: int) -> None:
    """Refuse cases of which no mask says of which kind their objects are."""
    if missing:
        raise DatasetError(
            f"{of_all(len(missing), count, 'case has', 'cases have')} no mask in {KINDS} that says of "
            f"which kind their objects are: {some(missing)}."
        )


def draw_case(path: Path, kinds_path: Path | None, target: Path, plan: Drawing, foreign: str = "") -> int:
    """Write the labels of a case, return how many objects are thinner than their borders; may run in a worker.

    ``foreign`` is the name of a case whose labels may be somebody's own: they go to the trash, unless they are what is
    drawn. These are of a job that was killed before it noted them.
    """
    objects, geometry = read_objects(path)
    mask = None
    if kinds_path is not None:
        mask, own = read_labels(kinds_path)
        what = f"the objects {path.parent.name}/{path.name} and the mask of kinds {kinds_path.parent.name}/{path.name}"
        mask = onto(mask, own, Grid(objects.shape, geometry), what=what)
    labels, lost = drawn(objects, mask, geometry, plan, path.name)
    if not foreign:
        write_labels(labels, geometry, target)
    elif not _hold(target, labels):
        with in_trash(target.parents[1], foreign, [target], copied=True):
            write_labels(labels, geometry, target)
    return lost


def _hold(path: Path, labels: NDArray[Any]) -> bool:
    """Whether a file holds these labels; one that is damaged holds others."""
    try:
        return np.array_equal(read_labels(path)[0], labels)
    except NnunetError:
        return False


def drawn(
    objects: NDArray[Any], mask: NDArray[Any] | None, geometry: Geometry, plan: Drawing, where: str
) -> tuple[NDArray[np.uint8], int]:
    """Return the labels that nnU-Net learns, and how many objects are thinner than their borders.

    Parameters
    ----------
    objects : ndarray of int, shape ([Z,] Y, X)
        Numbered objects.
    mask : ndarray of int, same shape, optional
        Kinds and classes by the values of kindsTr.
    geometry : Geometry
        Of both.
    plan : Drawing
        What is drawn.
    where : str
        Named in errors.
    """
    from napari_nnunet.engine.objects.shell import classes, thin  # loads scipy, which only the workers need

    thinned = thin(objects, plan.width, geometry.spacing)
    kinds = others = None
    if mask is not None:
        kinds = kinds_of(objects, mask, dict(plan.kinds), where)
        others = np.zeros_like(mask)
        for value, new in plan.others.items():
            others[mask == value] = new
    return classes(objects, thinned.core, plan.values, kinds, others), len(thinned.coreless)


def memory_of(path: Path) -> float:
    """Return the bytes that a file of objects takes while it is looked at or drawn."""
    return float(np.prod(read_header(path).shape, dtype=np.float64)) * BYTES


def keep_drawn(folder: Path, workers: int = 0) -> Job[DrawnObjects]:
    """Draw the labels of cases again whose objects are others than before; nothing in a dataset of classes.

    Parameters
    ----------
    folder : Path
        A raw dataset.
    workers : int
        Processes; 0 for as many as help.

    Returns
    -------
    DrawnObjects
        As it was found.

    Raises
    ------
    DatasetError
        If labels were changed instead of objects, or cases have none: nobody but a person can tell what is meant.
    """
    found = look_at_drawn(folder)
    _require_drawn(folder, found)
    if not found.stale:
        return found
    with changing(folder):
        found = look_at_drawn(folder)  # once more: others may have drawn or changed them till now
        _require_drawn(folder, found)
        yield from _draw(folder, found.stale, workers)
    if found.stale:
        yield Note(
            text=f"The objects of {some(found.stale)} changed since cores and borders were drawn from them; they were "
            "drawn again."
        )
    return found


def draw_again(folder: Path) -> Job[tuple[str, ...]]:
    """Draw the labels of all cases again that are not what is drawn from their objects; return these cases.

    Raises
    ------
    DatasetError
        If it is not a dataset of objects.
    """
    with changing(folder):
        found = look_at_drawn(folder)
        cases = tuple(sorted({*found.stale, *found.changed}))
        yield from _draw(folder, cases, 0)
    return cases


def _draw(folder: Path, cases: Sequence[str], workers: int) -> Job[None]:
    info = read_info(folder)
    scheme = ObjectScheme.of(info)
    if scheme is None:
        raise DatasetError(f"{folder.name} is not a dataset of objects.")
    if cases:
        yield from draw_cases(folder, info, scheme, cases, workers)
        note_drawn(folder, cases)
        update_count(folder)


def _require_drawn(folder: Path, found: DrawnObjects) -> None:
    if found.changed:
        raise DatasetError(
            f"{folder.name}: the labels of {some(found.changed)} are not those that were drawn from the objects in "
            f"{OBJECTS}. Correct the objects instead.",
            shell="derive_objects draws the labels again; those there are now go to the trash of the dataset.",
            window="'Check dataset' in the Training cases dock draws the labels again.",
        )
    if found.without:
        raise DatasetError(
            f"{folder.name}: {some(found.without)} have labels, but no file in {OBJECTS}. In a dataset of objects "
            f"every case needs one; add it, or remove the case."
        )
