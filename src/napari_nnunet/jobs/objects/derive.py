"""From numbered objects to the labels that nnU-Net learns: a core and a border for every kind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from napari_nnunet.engine.objects.match import Matching
from napari_nnunet.engine.objects.shell import best_width, pieces, tried_widths
from napari_nnunet.errors import DatasetError, SettingsError, of_all, some
from napari_nnunet.events import Job, Note, Stage
from napari_nnunet.formats.atomic import write_json
from napari_nnunet.formats.dataset.changing import changing
from napari_nnunet.formats.dataset.objects import kinds_file, note_drawn, object_files, read_objects
from napari_nnunet.formats.dataset.raw_dataset import read_info
from napari_nnunet.formats.dataset.raw_writer import update_count
from napari_nnunet.formats.images.files import read_header
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.jobs.objects.draw import BYTES, draw_cases, memory_of, require_kinds
from napari_nnunet.jobs.objects.kinds_table import kinds_from_table
from napari_nnunet.processes.pool import Task, each_case, results_of
from napari_nnunet.schema.dataset import BACKGROUND, DatasetInfo
from napari_nnunet.schema.objects import ObjectScheme, labels_with_objects
from napari_nnunet.schema.requests.dataset import DeriveObjectsRequest

_TRIED = 24  # pictures on which widths are tried
_TRIED_VOXELS = 4e6  # of each, at most
_FEW, _CLASSES = 3, 20  # objects in a picture that may be classes: by their size, and where all have as many
_SEVERAL = 3  # pictures
_COVERED = 0.5  # of a picture
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
    info = read_info(folder)
    if request.table is None:
        request = _as_before(ObjectScheme.of(info), request)
    if isinstance(info.raw.get("dataset"), dict):
        raise DatasetError(f"{folder.name} lists its files in dataset.json; copy them into imagesTr and objectsTr.")
    files = object_files(folder)
    if request.table is not None:
        if request.kinds or request.classes or request.ignore is not None:
            raise SettingsError(
                "A table says which kinds there are; classes and what nobody annotated need masks in kindsTr.",
                shell="Leave out --kinds, --classes and --ignore.",
            )
        told = yield from kinds_from_table(folder, request.table, files, ObjectScheme.of(info))
        request = request.replace(kinds=told)
    kinds = dict(request.kinds) or {1: "object"}
    with_kinds = {case: path for case in files if (path := kinds_file(folder, case)) is not None}
    _check_kinds(kinds, request, with_kinds, files)
    unit, sized = _network_edge(list(files.values()))
    yield Stage(name="Looking at objects", total=len(files))
    chosen = sorted(files)[:: max(1, -(-len(files) // _TRIED))]
    tasks = [Task(case, (path, unit, case in chosen), partial(memory_of, path)) for case, path in sorted(files.items())]
    voxels = sum(memory_of(path) for path in files.values()) / BYTES
    counted = results_of((yield from each_case(count, tasks, workers=request.workers, work=voxels)), "looked at")
    yield from _remarks(counted)
    measured, scores = best_width([counted[case].tried for case in chosen])
    width = request.width or measured
    names = [kinds[value] for value in sorted(kinds)]
    labels, values, _ = labels_with_objects(names, dict(request.classes), ignore=request.ignore is not None)
    meanings = {"values": kinds, "classes": dict(request.classes), "ignore": request.ignore}
    scheme = ObjectScheme(kinds=values, width=width, unit=unit, scores=scores, **meanings)
    content = {**info.raw, "labels": labels}
    content.pop("regions_class_order", None)
    content = scheme.write_into(content)
    lost = yield from draw_cases(folder, DatasetInfo.parse(content), scheme, tuple(files), request.workers)
    write_json(folder / "dataset.json", {**content, "numTraining": len(files)})  # at once, whoever is killed
    note_drawn(folder, files)
    update_count(folder)
    yield Note(text=_summary(counted, width, unit if sized else None, scores, lost))
    return scheme


def _as_before(scheme: ObjectScheme | None, request: DeriveObjectsRequest) -> DeriveObjectsRequest:
    """Return a request that means what was derived before, where it says nothing of kinds and classes."""
    if scheme is None or not scheme.values or request.kinds or request.classes or request.ignore is not None:
        return request
    return request.replace(kinds=scheme.values, classes=scheme.classes, ignore=scheme.ignore)


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


def _check_kinds(
    kinds: Mapping[int, str], request: DeriveObjectsRequest, with_kinds: Mapping[str, Path], files: Mapping[str, Path]
) -> None:
    if len(kinds) == 1 and not (request.classes or request.ignore is not None or with_kinds):
        return
    require_kinds([case for case in files if case not in with_kinds], len(files))
    doubled = set(kinds) & {*request.classes.values(), request.ignore}
    if doubled or BACKGROUND in kinds.values() or 0 in kinds:
        raise SettingsError(
            f"The values of kinds, classes and ignore must differ and 0 is the background; {sorted(doubled) or [0]} "
            "is named twice."
        )


def _network_edge(paths: Sequence[Path]) -> tuple[float, bool]:
    """Return the edge of the finest voxel that nnU-Net will plan, and whether all files say how large theirs are.

    It is the smallest median of the spacings.
    """
    grids = [read_header(path).geometry for path in paths]
    axes = min(grid.ndim for grid in grids)
    edge = float(np.median([grid.spacing[-axes:] for grid in grids], axis=0).min())
    return edge, all(grid.spacing_known for grid in grids)


def _remarks(counted: Mapping[str, _Counted]) -> Job[None]:
    """Say what is odd about the objects before anything is drawn."""
    total = sum(case.objects for case in counted.values())
    if not total:
        raise DatasetError("The masks of the objects hold only 0: there is no object to learn.")
    empty = [name for name, case in counted.items() if not case.objects]
    if empty:
        many = "1 case has" if len(empty) == 1 else f"{len(empty)} cases have"
        yield Note(level="warning", text=f"{many} no object: {some(empty)}.")
    in_pieces = sum(case.in_pieces for case in counted.values())
    if in_pieces:
        where = [name for name, case in counted.items() if case.in_pieces]
        yield Note(
            level="warning",
            text=f"{of_all(in_pieces, total, 'object lies', 'objects lie')} in several pieces ({some(where)}); each "
            "piece will be found as an object of its own.",
        )
    single = sum(case.single for case in counted.values())
    if single:
        where = [name for name, case in counted.items() if case.single]
        yield Note(
            level="warning",
            text=f"{of_all(single, total, 'object is', 'objects are')} one voxel large ({some(where)}): all of it "
            "becomes core, without a border. Are these slips of a drawing?",
        )
    mean = np.mean([case.share / case.objects for case in counted.values() if case.objects])
    few = max(case.objects for case in counted.values())
    as_many = len(counted) >= _SEVERAL and {case.objects for case in counted.values()} == {few}
    odd = ""
    if few <= _FEW and (mean > _HUGE or in_pieces > total / 2):
        odd = f"No picture has more than {few} object{'s' * (few != 1)}, and these are large or lie in pieces"
    elif as_many and 1 < few <= _CLASSES and few * mean > _COVERED:
        odd = f"Every picture has {few} objects, which cover most of it"
    elif in_pieces > total / 2:
        odd = "Most objects lie in several pieces"
    if odd:
        text = f"{odd}. If the masks hold classes instead of numbered objects, import them as classes."
        yield Note(level="warning", text=text)


def _summary(
    counted: Mapping[str, _Counted], width: float, unit: float | None, scores: Mapping[float, float], coreless: int
) -> str:
    total = sum(case.objects for case in counted.values())
    cases = "1 case" if len(counted) == 1 else f"{len(counted)} cases"
    text = f"{total} objects in {cases}; borders are {width:g} voxel{'s' * (width != 1)} wide"
    if unit is not None:
        text += f" ({width * unit:g} mm)"
    if width in scores:
        text += f", with which a perfect network would reach an average precision of {scores[width]:.3f}"
    if coreless:
        few = "1 object is thinner than its border and keeps its" if coreless == 1 else ""
        text += (
            f"; {few or f'{coreless} objects are thinner than their borders and keep their'} innermost voxels as core"
        )
    return text + "."
