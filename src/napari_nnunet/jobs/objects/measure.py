"""A table of all objects of some files, as CSV."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_nnunet.engine.objects.table import Row, object_table, scattered_pieces
from napari_nnunet.errors import DatasetError, ImageError, NnunetError, counted, of_all, some
from napari_nnunet.events import Job, Note, Progress, Stage
from napari_nnunet.formats.atomic import make_folder, write_text
from napari_nnunet.formats.dataset.objects import kinds_beside, read_objects
from napari_nnunet.formats.images.files import common_ending, ending_of, read_header, read_volume
from napari_nnunet.formats.results.objects import found_files
from napari_nnunet.formats.tables import text_of
from napari_nnunet.grid import Grid, onto
from napari_nnunet.jobs.case_size import bytes_of
from napari_nnunet.processes.pool import Task, each_case, rest_of
from napari_nnunet.schema.requests.choosing import MeasureObjectsRequest
from napari_nnunet.volume import by_text

_REPORTED = 50  # objects between two signs of life
_BYTES = 40  # per voxel: objects, their numbers made dense, an image as float32


def measure_objects(request: MeasureObjectsRequest) -> Job[list[Row]]:
    """Measure the objects of a file or a folder, and write the table.

    Returns
    -------
    list of dict
        One per object, with its ``case`` in front; see :func:`napari_nnunet.engine.objects.table.object_table`.

    Raises
    ------
    DatasetError, ImageError
        If there are no files, an image is missing, or no case can be measured. Those that are damaged or lie on another
        grid than their image are told as events; the table has the others.
    """
    if not request.objects.exists():
        raise ImageError(f"The objects {request.objects} do not exist.")
    if request.objects.is_dir():
        cases = found_files(request.objects)
    else:
        cases = {request.objects.name[: -len(ending_of(request.objects))]: request.objects}
    if request.images is not None and request.images.is_file() and len(cases) > 1:
        raise DatasetError(
            f"{request.images} is one image, but there are objects of {counted(len(cases), 'case')} "
            f"({some(list(cases), 3)}). "
            "Give the folder with the image of each case."
        )
    images = {case: images_of(request.images, case) for case in cases}
    yield from unsized([next(iter(images[case]), path) for case, path in cases.items()])
    yield Stage(name="Measuring", total=len(cases))
    tasks = [Task(case, (path, images[case]), partial(bytes_of, path, _BYTES)) for case, path in cases.items()]
    voxels = sum(bytes_of(path, 1) for path in cases.values())
    outcomes = yield from each_case(object_rows, tasks, workers=request.workers, work=voxels)
    rows: dict[str, MeasuredRows] = rest_of(outcomes, "measured")
    yield from odd_files({case: own.remarks for case, own in rows.items()})
    yield from scattered({case: own.pieces for case, own in rows.items()})
    table = [{"case": case, **row} for case in cases if case in rows for row in rows[case]]
    make_folder(request.target.parent)
    write_text(request.target, text_of(table))
    return table


def measure_arrays(
    frames: Sequence[tuple[NDArray[Any], NDArray[Any] | None, Mapping[int, str]]],
    spacing: Sequence[float],
    channels: Sequence[str] = (),
) -> Job[list[list[Row]]]:
    """Measure the objects of arrays, one after the other; progress in objects.

    Parameters
    ----------
    frames : sequence of (ndarray, ndarray or None, mapping)
        Numbered objects ([Z,] Y, X), the image (C, [Z,] Y, X), and the kind of each object.
    spacing : sequence of float
        Size of a voxel in mm along each axis.
    channels : sequence of str
        Names of the image's channels.

    Returns
    -------
    list of list of dict
        For every frame the rows of its objects.
    """
    yield Stage(name="Measuring objects")
    tables = []
    for objects, image, kinds in frames:
        rows: list[Row] = []
        for row in object_table(objects, spacing, image, channels, kinds):
            rows.append(row)
            if len(rows) % _REPORTED == 0:
                yield Progress(done=len(rows), total=max(len(kinds), len(rows)))
        tables.append(rows)
    return tables


class MeasuredRows(list[Row]):
    """The rows of a file, what is odd about it, and numbers and pieces where its few numbers lie in many pieces."""

    pieces: tuple[int, int] | None = None
    remarks: tuple[str, ...] = ()


def object_rows(path: Path, images: tuple[Path, ...]) -> MeasuredRows:
    """Measure the objects of one file, with their kinds where these are told beside; may run in a worker process."""
    objects, geometry = read_objects(path)
    kinds, remarks = kinds_beside(path, objects, geometry), geometry.remarks
    image = None
    if images:
        volume = read_volume(images)
        grid = Grid(volume.shape, volume.geometry)
        objects = onto(objects, geometry, grid, what=f"the objects {path.name} and the image {images[0].name}")
        geometry, image = volume.geometry, np.asarray(volume.array)
        remarks = (*remarks, *(f"of its image: {text}" for text in volume.said if text not in remarks))
    rows = MeasuredRows(object_table(objects, geometry.spacing, image, kinds=kinds or None))
    rows.pieces = scattered_pieces(objects, len(rows))
    rows.remarks = remarks
    return rows


def odd_files(remarks: Mapping[str, Sequence[str]]) -> Job[None]:
    """Say what is odd about the files of each case."""
    for names, text in by_text(remarks):
        yield Note(level="warning", text=f"{names}: {text}.")


def scattered(found: Mapping[str, tuple[int, int] | None]) -> Job[None]:
    """Say which cases look like masks of classes, by the numbers and pieces of each."""
    named = {case: pieces for case, pieces in found.items() if pieces is not None}
    if named:
        listed = "; ".join(f"{case}: {counted(pieces, 'piece')}, {numbers} number{'s' * (numbers > 1)}"
                           for case, (numbers, pieces) in list(named.items())[:3])  # fmt: skip
        more = "; ..." if len(named) > 3 else ""
        yield Note(
            level="warning",
            text=f"In {len(named)} of {counted(len(found), 'file')} few numbers lie in many separate pieces "
            f"({listed}{more}). "
            "Each number counts as one object. If these are masks of classes, number their objects first.",
        )


def images_of(source: Path | None, case: str) -> tuple[Path, ...]:
    """Return the channel files of a case in a folder of images; nothing without one."""
    if source is None:
        return ()
    if source.is_file():
        return (source,)
    if not source.is_dir():
        raise ImageError(f"The images {source} do not exist.")
    ending = common_ending(source)
    channels = tuple(sorted(source.glob(f"{case}_[0-9][0-9][0-9][0-9]{ending}")))
    alone = source / f"{case}{ending}"
    found = channels or ((alone,) if alone.is_file() else ())
    if not found:
        raise DatasetError(f"{source} has no image of {case}; {case}_0000{ending} or {case}{ending} was looked for.")
    return found


def unsized(paths: Sequence[Path]) -> Job[bool]:
    """Say which files do not tell how large their voxels are; return whether any do not.

    Of files that cannot be read nothing is said: reading them whole tells why.
    """
    grids = {}
    for path in paths:
        with suppress(NnunetError):
            grids[path.name] = read_header(path).geometry
    unknown = [name for name, grid in grids.items() if not grid.spacing_known]
    if unknown:
        listed = some(unknown, 3)
        yield Note(
            level="warning",
            text=f"{of_all(len(unknown), len(paths), 'file has', 'files have')} no voxel size ({listed}): "
            "lengths, areas and volumes of their objects are counted in voxels, not in mm.",
        )
    return bool(unknown)
