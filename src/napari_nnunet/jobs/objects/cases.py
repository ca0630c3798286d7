"""Training cases of numbered objects from arrays: added to a dataset, corrected; what nnU-Net learns is drawn anew."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_nnunet.errors import DatasetError, some
from napari_nnunet.events import Job, Stage
from napari_nnunet.formats.atomic import make_folder
from napari_nnunet.formats.dataset.case_trash import KINDS, OBJECTS, in_trash, masks_of, raw_case_files
from napari_nnunet.formats.dataset.changing import changing
from napari_nnunet.formats.dataset.objects import kinds_file, note_drawn, numbered, object_files, read_objects
from napari_nnunet.formats.dataset.raw_dataset import TrainingCase, read_info
from napari_nnunet.formats.dataset.raw_writer import create_dataset, save_case
from napari_nnunet.formats.dataset.read_case import labels_over
from napari_nnunet.formats.images.files import read_labels, read_volume, write_labels
from napari_nnunet.formats.preprocessed.journal import joined_by
from napari_nnunet.formats.preprocessed.plans import plan_files
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.grid import Grid, onto
from napari_nnunet.jobs.dataset.cases import NewCase, is_there
from napari_nnunet.jobs.objects.derive import derive_in
from napari_nnunet.jobs.objects.draw import Drawing, drawn
from napari_nnunet.schema.dataset import DatasetInfo
from napari_nnunet.schema.geometry import Geometry
from napari_nnunet.schema.objects import KEY, ObjectScheme, labels_with_objects
from napari_nnunet.schema.requests.dataset import DeriveObjectsRequest


def add_object_case(case: NewCase) -> Job[TrainingCase]:
    """Save a case whose labels number its objects and, if it is missing, its dataset.

    The objects go into ``objectsTr``, and cores and borders are drawn from them into ``labelsTr``. Until the dataset is
    planned, the width of borders is measured anew with every case; then it stays, for trainings depend on it.

    Parameters
    ----------
    case : NewCase
        With the ``kinds`` of its objects.

    Raises
    ------
    DatasetError
        If the case does not fit the dataset, or its objects cannot be kept as they are.
    SettingsError
        If another process changes the dataset.
    ResourceError
        If files cannot be written.
    """
    yield Stage(name=f"Saving {case.name}")
    channels = [np.asarray(channel) for channel in case.channels]
    objects, kinds = numbered(np.asarray(case.labels), case.name), dict(case.kinds or {})
    if not objects.any() and not (case.known or (case.folder / "dataset.json").is_file()):
        raise DatasetError(f"{case.name} has no object, so that a dataset cannot begin with it.")
    with changing(case.folder):
        if not is_there(case):
            _create(case, next(iter(kinds.values())))
        info, scheme = _scheme(case.folder)
        masks = _masks(case.folder, case.name, objects, kinds, case.geometry, info, scheme)
        labels, _ = drawn(objects, masks.get(KINDS), case.geometry, Drawing.of(info, scheme), case.name)
        saved = save_case(case.folder, case.name, channels, labels, case.geometry, masks)
        note_drawn(case.folder, [case.name])
        planned = plan_files(Workspace.around(case.folder).preprocessed / case.folder.name)
        if not planned and any(read_objects(path)[0].any() for path in object_files(case.folder).values()):
            yield from derive_in(case.folder, DeriveObjectsRequest(dataset=case.folder.name))
    return saved


def correct_objects(folder: Path, name: str, objects: NDArray[Any], kinds: Mapping[int, str]) -> Job[Path]:
    """Replace the numbered objects of a case; the files there were go to the dataset's trash folder.

    Parameters
    ----------
    folder : Path
        The raw dataset.
    name : str
        Of the case.
    objects : ndarray of int, shape ([Z,] Y, X)
        Corrected objects, on the voxels of the image. Files that store them in another order become some in the
        image's order.
    kinds : dict of int to str
        Object number to its kind; not needed where the dataset has but one.

    Returns
    -------
    Path
        The file of the objects; the case must be preprocessed again.

    Raises
    ------
    DatasetError
        If there is no such case, or the objects do not fit it.
    ImageError
        If the objects there were lie elsewhere than the image.
    """
    yield Stage(name=f"Saving the objects of {name}")
    with changing(folder):
        return _correct_objects(folder, name, objects, kinds)


def _correct_objects(folder: Path, name: str, objects: NDArray[Any], kinds: Mapping[int, str]) -> Path:
    info, scheme = _scheme(folder)
    path = object_files(folder).get(name)
    if path is None:
        raise DatasetError(f"{folder.name} has no objects of a case {name}.")
    shape, geometry, writer = _place(folder, name, path, info)
    if shape != objects.shape:
        raise DatasetError(f"The objects of {name} have {shape} voxels, the corrected ones {objects.shape}.")
    objects = numbered(objects, name)
    masks = _masks(folder, name, objects, kinds, geometry, info, scheme)
    labels, _ = drawn(objects, masks.get(KINDS), geometry, Drawing.of(info, scheme), name)
    target = folder / "labelsTr" / f"{name}{info.file_ending}"
    there = [*masks_of(folder, name, info), *([target] if target.is_file() else [])]
    with in_trash(folder, name, there, copied=True):
        for where, mask in {**masks, "labelsTr": labels}.items():
            write_labels(mask, geometry, make_folder(folder / where) / f"{name}{info.file_ending}", writer=writer)
        note_drawn(folder, [name])
    return path


def _place(folder: Path, name: str, path: Path, info: DatasetInfo) -> tuple[tuple[int, ...], Geometry, str | None]:
    """Return size and grid of the objects of a case, on its image's voxels, and who writes files on that grid."""
    files = raw_case_files(folder, name, info)
    images = [file for file in files if file.parent.name == "imagesTr" and file.name.endswith(info.file_ending)]
    if not images:
        old, geometry = read_objects(path)
        return old.shape, geometry, None
    image = read_volume(images[:1], reader=info.reader, as_stored=True)
    apart = joined_by(folder, name)
    laid = labels_over(path, Grid(image.shape, image.geometry), reader=None, as_stored=True, apart=apart)
    return laid.voxels.shape, laid.geometry, None if laid.found is None else info.reader


def _create(case: NewCase, kind: str) -> None:
    """Make a dataset of objects of one kind; the width of borders is measured when its first case is there."""
    labels, values, _ = labels_with_objects([kind], {}, ignore=False)
    scheme = ObjectScheme(kinds=values, width=1, unit=min(case.geometry.spacing), values={1: kind})
    create_dataset(case.folder, case.channel_names, labels, case.file_ending, **{KEY: scheme.model_dump(mode="json")})


def _scheme(folder: Path) -> tuple[DatasetInfo, ObjectScheme]:
    info = read_info(folder)
    scheme = ObjectScheme.of(info)
    if scheme is None:
        raise DatasetError(f"{folder.name} is not a dataset of objects.")
    return info, scheme


def _masks(
    folder: Path,
    name: str,
    objects: NDArray[Any],
    kinds: Mapping[int, str],
    geometry: Geometry,
    info: DatasetInfo,
    scheme: ObjectScheme,
) -> dict[str, NDArray[Any]]:
    """Return what is written by folder: the objects and, where it is needed, of which kind they are.

    Classes and what nobody annotated stay as they were in the case's mask of kinds.
    """
    plan = Drawing.of(info, scheme)
    if not plan.needs_kinds:
        return {OBJECTS: objects}
    before = kinds_file(folder, name)
    mask = np.zeros(objects.shape, dtype=np.int32)
    if before is not None:
        old, own = read_labels(before)
        old = onto(old, own, Grid(objects.shape, geometry), what=f"the objects and the kinds of {name}")
        mask[...] = np.where(np.isin(old, list(plan.others)), old, 0)
    elif plan.others:
        raise DatasetError(
            f"{folder.name} has ordinary classes beside its objects ({', '.join(scheme.classes) or 'ignore'}), which a "
            f"layer of objects cannot hold. Put masks of both into {OBJECTS} and {KINDS}."
        )
    numbers, place = np.unique(objects, return_inverse=True)
    of_kind = {kind: value for value, kind in plan.kinds.items()}
    only = scheme.only_kind
    told = [0 if n == 0 else of_kind.get(only or kinds.get(int(n), ""), -1) for n in numbers]
    unknown = [int(n) for n, value in zip(numbers, told, strict=True) if value < 0]
    if unknown:
        raise DatasetError(
            f"{name}: the kind of the objects {some(unknown)} is not known; it must be one of "
            f"{', '.join(scheme.kinds)}, in the column 'kind' of the layer's features."
        )
    values = np.array(told, dtype=np.int32)[place.reshape(objects.shape)]
    return {OBJECTS: objects, KINDS: np.where(objects != 0, values, mask)}
