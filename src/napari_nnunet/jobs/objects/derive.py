"""From numbered objects to the labels that nnU-Net learns: a core and a border for every kind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from napari_nnunet.engine.objects.match import Matching
from napari_nnunet.engine.objects.shell import best_width, classes, pieces, thin, tried_widths
from napari_nnunet.errors import DatasetError, SettingsError
from napari_nnunet.events import Job, Note, Stage
from napari_nnunet.formats.atomic import make_folder, write_json
from napari_nnunet.formats.dataset.changing import changing
from napari_nnunet.formats.dataset.objects import kinds_file, kinds_of, object_files, read_objects
from napari_nnunet.formats.dataset.raw_dataset import read_info
from napari_nnunet.formats.dataset.raw_writer import update_count
from napari_nnunet.formats.images.files import read_header, read_labels, write_labels
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.processes.pool import Task, each_case, results_of
from napari_nnunet.schema.dataset import BACKGROUND
from napari_nnunet.schema.objects import ObjectScheme, labels_with_objects
from napari_nnunet.schema.requests.dataset import DeriveObjectsRequest

_TRIED = 24  # pictures on which widths are tried
_TRIED_VOXELS = 4e6  # of each, at most
_BYTES = 40  # per voxel, while objects are thinned and grown again
_HUGE = 0.2  # of a picture: objects are hardly ever as large on average


@dataclass(frozen=True)
class _Counted:
    """What a picture's objects are like."""

    objects: int
    in_pieces: int
    single: int
    share: float
    tried: Mapping[float, Matching]


def derive_objects(workspace: Workspace, request: DeriveObjectsRequest) -> Job[ObjectScheme]:
    """Write labelsTr of a dataset from its numbered objects, and say in dataset.json what was done.

    The width of borders is measured: objects of up to 24 pictures are thinned and grown again with several widths,
    and the widest is taken that hardly loses any. All it needs lies in ``objectsTr`` (a mask per case in which every
    object has its own number) and, where objects are of several kinds or there are ordinary classes as well, in
    ``kindsTr`` (a mask per case with a value for each kind and class). nnU-Net reads the result like any dataset.

    Returns
    -------
    ObjectScheme
        What dataset.json says of the objects now.

    Raises
    ------
    DatasetError
        If there are no objects, or kinds and objects do not fit.
    SettingsError
        If the kinds in the request contradict the masks.
    """
    folder = workspace.raw / workspace.dataset_name(request.dataset)
    with changing(folder):
        return (yield from derive_in(folder, request))


def derive_in(folder: Path, request: DeriveObjectsRequest) -> Job[ObjectScheme]:
    """Do that in a folder which may be a dataset in the making."""
    files = object_files(folder)
    kinds = dict(request.kinds) or {1: "object"}
    with_kinds = {case: path for case in files if (path := kinds_file(folder, case)) is not None}
    _check_kinds(kinds, request, with_kinds, files)
    unit = _network_edge(list(files.values()))
    yield Stage(name="Looking at objects", total=len(files))
    chosen = sorted(files)[:: max(1, -(-len(files) // _TRIED))]
    tasks = [Task(case, (path, unit, case in chosen), partial(_memory, path)) for case, path in sorted(files.items())]
    voxels = sum(_memory(path) for path in files.values()) / _BYTES
    counted = results_of((yield from each_case(count, tasks, workers=request.workers, work=voxels)), "looked at")
    yield from _remarks(counted)
    measured, scores = best_width([counted[case].tried for case in chosen])
    width = request.width or measured
    names = [kinds[value] for value in sorted(kinds)]
    labels, values, renumbered = labels_with_objects(names, dict(request.classes), ignore=request.ignore is not None)
    scheme = ObjectScheme(kinds=values, width=width, unit=unit, scores=scores)
    plan = _Drawing(width * unit, values, kinds, renumbered, request.ignore, labels.get("ignore"))
    make_folder(folder / "labelsTr")
    yield Stage(name="Drawing cores and borders", total=len(files))
    ending = read_info(folder).file_ending
    tasks = [
        Task(case, (path, with_kinds.get(case), folder / "labelsTr" / f"{case}{ending}", plan), partial(_memory, path))
        for case, path in sorted(files.items())
    ]
    lost = results_of((yield from each_case(draw, tasks, workers=request.workers, work=voxels)), "drawn")
    content = {**read_info(folder).raw, "labels": labels}
    content.pop("regions_class_order", None)
    write_json(folder / "dataset.json", scheme.write_into(content))
    update_count(folder)
    yield Note(text=_summary(counted, width, unit, scores, sum(lost.values())))
    return scheme


def count(path: Path, unit: float, tried: bool) -> _Counted:
    """Look at the objects of a picture; may run in a worker process."""
    objects, geometry = read_objects(path)
    number, in_pieces, single = pieces(objects)
    share = float(np.count_nonzero(objects)) / objects.size
    part = objects
    while part.size > _TRIED_VOXELS:
        axis = int(np.argmax(part.shape))
        middle, half = part.shape[axis] // 2, max(1, part.shape[axis] // 4)
        part = part[(slice(None),) * axis + (slice(middle - half, middle + half),)]
    widths = tried_widths(part, geometry.spacing, unit) if tried else {}
    return _Counted(number, in_pieces, single, share, widths)


@dataclass(frozen=True)
class _Drawing:
    """What is drawn into the labels: width in mm, and the values of kinds and classes there and in the masks."""

    width: float
    values: Mapping[str, tuple[int, int]]
    kinds: Mapping[int, str]
    renumbered: Mapping[int, int]
    ignore: int | None
    ignore_label: int | None


def draw(path: Path, kinds_path: Path | None, target: Path, plan: _Drawing) -> int:
    """Write the labels of a case, return how many objects are thinner than their borders; may run in a worker."""
    objects, geometry = read_objects(path)
    thinned = thin(objects, plan.width, geometry.spacing)
    kinds = others = None
    if kinds_path is not None:
        mask, _ = read_labels(kinds_path)
        kinds = kinds_of(objects, mask, dict(plan.kinds), path.name)
        others = np.zeros_like(mask)
        for value, new in plan.renumbered.items():
            others[mask == value] = new
        if plan.ignore is not None and plan.ignore_label is not None:
            others[mask == plan.ignore] = plan.ignore_label
    write_labels(classes(objects, thinned.core, plan.values, kinds, others), geometry, target)
    return len(thinned.coreless)


def _check_kinds(
    kinds: Mapping[int, str], request: DeriveObjectsRequest, with_kinds: Mapping[str, Path], files: Mapping[str, Path]
) -> None:
    if len(kinds) == 1 and not (request.classes or request.ignore is not None or with_kinds):
        return
    missing = [case for case in files if case not in with_kinds]
    if missing:
        raise DatasetError(
            f"{len(missing)} of {len(files)} cases have no mask in kindsTr that says of which kind their objects are: "
            f"{', '.join(missing[:5])}{', ...' if len(missing) > 5 else ''}."
        )
    doubled = set(kinds) & {*request.classes.values(), request.ignore}
    if doubled or BACKGROUND in kinds.values() or 0 in kinds:
        raise SettingsError(
            f"The values of kinds, classes and ignore must differ and 0 is the background; {sorted(doubled) or [0]} "
            "is named twice."
        )


def _network_edge(paths: Sequence[Path]) -> float:
    """Return the edge of the finest voxel that nnU-Net will plan: the smallest median of the spacings."""
    spacings = [read_header(path).geometry.spacing for path in paths]
    axes = min(len(spacing) for spacing in spacings)
    return float(np.median([spacing[-axes:] for spacing in spacings], axis=0).min())


def _memory(path: Path) -> float:
    return float(np.prod(read_header(path).shape, dtype=np.float64)) * _BYTES


def _remarks(counted: Mapping[str, _Counted]) -> Job[None]:
    """Say what is odd about the objects before anything is drawn."""
    total = sum(case.objects for case in counted.values())
    if not total:
        raise DatasetError("The masks of the objects hold only 0: there is no object to learn.")
    empty = [name for name, case in counted.items() if not case.objects]
    if empty:
        yield Note(level="warning", text=f"{len(empty)} cases have no object: {', '.join(empty[:5])}.")
    in_pieces = sum(case.in_pieces for case in counted.values())
    if in_pieces:
        where = [name for name, case in counted.items() if case.in_pieces]
        yield Note(
            level="warning",
            text=f"{in_pieces} of {total} objects lie in several pieces ({', '.join(where[:5])}); each piece will be "
            "found as an object of its own.",
        )
    mean = np.mean([case.share / case.objects for case in counted.values() if case.objects])
    few = max(case.objects for case in counted.values())
    if few <= 3 and (mean > _HUGE or in_pieces > total / 2):
        yield Note(
            level="warning",
            text=f"No picture has more than {few} objects, and these are large or lie in pieces. If the masks hold "
            "classes instead of numbered objects, import them as classes.",
        )


def _summary(
    counted: Mapping[str, _Counted], width: float, unit: float, scores: Mapping[float, float], coreless: int
) -> str:
    total = sum(case.objects for case in counted.values())
    text = f"{total} objects in {len(counted)} cases; borders are {width:g} voxels wide ({width * unit:g} mm)"
    if width in scores:
        text += f", with which a perfect network would reach an average precision of {scores[width]:.3f}"
    if coreless:
        text += f"; {coreless} objects are thinner than their borders and keep their innermost voxels as core"
    return text + "."
