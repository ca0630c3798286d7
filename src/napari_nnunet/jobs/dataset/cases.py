"""Training cases from arrays: added to a dataset, looked at, drawn small."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import imageio.v3 as iio
import numpy as np
from numpy.typing import NDArray

from napari_nnunet.errors import DatasetError, NnunetError, for_people, some
from napari_nnunet.events import CaseDone, CaseFailed, Job, Note, Progress, Stage
from napari_nnunet.formats.atomic import make_folder, written_beside
from napari_nnunet.formats.dataset.case_trash import in_trash, raw_case_files
from napari_nnunet.formats.dataset.changing import changing
from napari_nnunet.formats.dataset.new_dataset import free_dataset_name, new_dataset
from napari_nnunet.formats.dataset.raw_dataset import TrainingCase, read_info, survey
from napari_nnunet.formats.dataset.raw_writer import change_json, create_dataset, save_case, set_labels
from napari_nnunet.formats.dataset.read_case import grid_of_image, labels_over
from napari_nnunet.formats.dataset.relabel import remap
from napari_nnunet.formats.images.files import read_volume, write_labels
from napari_nnunet.formats.preprocessed.journal import joined_by, joined_in
from napari_nnunet.formats.trash import TRASH
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.grid import Grid, WhenApart
from napari_nnunet.jobs.dataset.overlays import overlay, small_picture, telling_slice
from napari_nnunet.schema.dataset import ANNOTATED, IGNORE, DatasetInfo, LabelScheme, unlooked_values
from napari_nnunet.schema.geometry import Geometry

_FOLDER = ".thumbnails"
_BY_VOXELS = 2 * 10**9  # ns: how much later a picture counts as drawn that was drawn whatever the headers say


@dataclass(frozen=True, eq=False)
class NewCase:
    """A case that is about to be saved.

    Parameters
    ----------
    folder : Path
        ``DatasetXXX_Name``; it is made where it does not exist.
    name : str
        Of the case.
    channels : sequence of array-like, each ([Z,] Y, X)
        One per channel.
    labels : array-like of int, shape ([Z,] Y, X)
        As they were painted.
    geometry : Geometry
        Of both.
    mapping : dict of int to int
        Painted value to the dataset's value.
    classes : dict of str to int or tuple of int
        All classes of the dataset with this case.
    channel_names : tuple of str
        For a new dataset.
    file_ending : str
        For a new dataset.
    kinds : dict of int to str, optional
        Kind of each object, where the labels number objects instead of naming classes.
    looked_before : bool
        Whether classes that are new were looked for in the cases there are; where nobody did, they are unknown there.
    looked_here : bool
        Whether all classes were looked for now in a case of which it was said that only some were.
    known : bool
        Whether the dataset was there when the case was put together, so that none is made if it is gone.
    fresh : bool
        Whether it had no case of this name then, so that none is replaced that came since.
    """

    folder: Path
    name: str
    channels: Sequence[Any]
    labels: Any
    geometry: Geometry
    mapping: Mapping[int, int]
    classes: Mapping[str, int | Sequence[int]]
    channel_names: tuple[str, ...]
    file_ending: str
    kinds: Mapping[int, str] | None = None
    looked_before: bool = True
    looked_here: bool = False
    known: bool = False
    fresh: bool = False


def add_case(case: NewCase) -> Job[TrainingCase]:
    """Save a case and, if they are missing, its dataset and its classes.

    Raises
    ------
    DatasetError
        If the case does not fit the dataset, or that was renamed, or classes or labels changed since then.
    SettingsError
        If another process changes the dataset.
    ResourceError
        If files cannot be written.
    """
    yield Stage(name=f"Saving {case.name}")
    labels = _translated(case)
    channels = [np.asarray(channel) for channel in case.channels]
    with changing(case.folder):
        if not is_there(case):
            create_dataset(case.folder, case.channel_names, case.classes, case.file_ending)
        else:
            yield from _say_classes(case, labels)
        return save_case(case.folder, case.name, channels, labels, case.geometry, header=_kept_header(case))


def _translated(case: NewCase) -> NDArray[np.int32]:
    """Return the labels with the dataset's values; refuse one without a class, whose number may be another class's."""
    painted = np.asarray(case.labels)
    unknown = sorted(set(np.unique(painted).tolist()) - set(case.mapping)) if case.mapping else []
    if unknown:
        listed = some(unknown)
        raise DatasetError(
            f"The labels of {case.name} now hold {listed}, to which no class was given. Look at the classes of its "
            "values, then save it again."
        )
    return remap(painted, case.mapping)


def _kept_header(case: NewCase) -> Geometry | None:
    """Return where the labels lie by the header they have; None where it was believed when they were preprocessed.

    Earlier results have the same header, and are compared with these labels.
    """
    if joined_by(case.folder, case.name) != "ignore":
        return None
    dataset, _ = survey(case.folder)
    labels = next((other.label for other in dataset.cases if other.name == case.name), None)
    own = None if labels is None else grid_of_image(labels, dataset.info.reader)
    return own.geometry if own is not None and own.shape == np.shape(case.labels) else None


def is_there(case: NewCase) -> bool:
    """Whether the dataset of a case is there, now that it is claimed; raises DatasetError if it was otherwise."""
    there = (case.folder / "dataset.json").is_file()
    if case.known and not there:
        raise DatasetError(f"{case.folder.name} was renamed or removed meanwhile. Choose the dataset again, then save.")
    if there and case.fresh and raw_case_files(case.folder, case.name, read_info(case.folder)):
        raise DatasetError(
            f"{case.folder.name} now has a case '{case.name}', which another job saved. Look at it; give this one "
            "another name, or save it again to replace that one."
        )
    return there


def _require_classes(case: NewCase, info: DatasetInfo) -> None:
    """Refuse a case that was put together for other classes than there are now: values would get another meaning."""
    wished = {name: value if isinstance(value, int) else tuple(value) for name, value in case.classes.items()}
    for name, value in info.labels.labels.items():
        if wished.get(name) != value:
            raise DatasetError(
                f"The classes of {case.folder.name} were changed meanwhile: '{name}' has the value {value} now. Check "
                f"the classes of {case.name}, then save it again."
            )


def _say_classes(case: NewCase, labels: NDArray[np.integer]) -> Job[None]:
    """Write the classes of the dataset with a case, and in which cases they were looked for."""
    dataset, _ = survey(case.folder)
    info = dataset.info
    _require_classes(case, info)
    if dict(info.labels.labels) != dict(case.classes):
        set_labels(case.folder, case.classes)
    new = [name for name in case.classes if name not in (*info.labels.labels, IGNORE)]
    said = {}  # a case of this name that is gone said nothing of this one
    for name in (other.name for other in dataset.cases):
        looked = info.annotated.get(name, info.labels.classes)
        here = new if case.looked_before or name == case.name else []
        if name == case.name and case.looked_here:
            continue
        if name == case.name and name in info.annotated:
            looked = tuple((yield from _looked_for_now(info, name, labels)))
        if name in info.annotated or (new and not here):
            said[name] = [*looked, *here]
    if said or info.annotated:
        change_json(case.folder, **{ANNOTATED: said})


def unlooked_in(case: NewCase, info: DatasetInfo) -> list[str]:
    """Return the classes that, by the case of this name, nobody looked for and of which nothing is labelled now."""
    if case.name not in info.annotated:
        return []
    return _unlooked(info, case.name, remap(np.unique(np.asarray(case.labels)), case.mapping))[1]


def _unlooked(info: DatasetInfo, name: str, values: NDArray[np.integer]) -> tuple[list[str], list[str]]:
    """Return the classes that were not looked for in a case: those that values are of, and the others."""
    drawn = set(unlooked_values(info, name, values))
    others = {
        region: info.labels.labels[region] for region in info.labels.classes if region not in info.annotated[name]
    }
    added = [region for region, value in others.items() if drawn & set(value if isinstance(value, tuple) else (value,))]
    return added, [region for region in others if region not in added]


def _looked_for_now(info: DatasetInfo, name: str, labels: NDArray[np.integer]) -> Job[list[str]]:
    """Return the classes that were looked for in a partly annotated case with its new labels, and say them.

    Who labels a class has looked for it; of the others nothing is known, as before.
    """
    looked = info.annotated[name]
    added, rest = _unlooked(info, name, np.unique(labels))
    said = [
        (added, "labelled now, so that it counts as looked for, and as background where it is not labelled"),
        (rest, "not looked for, as before, so that it does not count as background"),
    ]
    text = "; ".join(f"{', '.join(names)}: {what}" for names, what in said if names)
    yield Note(level="warning", text=f"In {name}, {text}.")
    return [region for region in info.labels.classes if region in looked or region in added]


def correct_reference(
    folder: Path, name: str, labels: NDArray[np.integer], *, seen: NDArray[np.integer] | None = None
) -> Job[Path]:
    """Replace the reference of a case; the old one is put into the dataset's trash folder.

    Parameters
    ----------
    folder : Path
        The raw dataset.
    name : str
        Of the case.
    labels : ndarray of int, shape ([Z,] Y, X)
        The corrected reference, on the voxels of the image. A file that stores them in another order becomes one in
        the image's order; where the case was preprocessed whatever the headers say, its header stays as it is.
    seen : ndarray of int, optional
        The reference as it was when it was corrected, where it must be that still; on the voxels of the image.

    Returns
    -------
    Path
        The file that was written; the case must be preprocessed again.

    Raises
    ------
    DatasetError
        If there is no such case, the labels are not those of the dataset, or the reference was changed meanwhile.
    ImageError
        If the reference lies elsewhere than the image.
    """
    yield Stage(name=f"Saving the reference of {name}")
    with changing(folder):
        return (yield from _correct_reference(folder, name, labels, seen))


def _correct_reference(
    folder: Path, name: str, labels: NDArray[np.integer], seen: NDArray[np.integer] | None
) -> Job[Path]:
    dataset, _ = survey(folder)
    case = next((case for case in dataset.cases if case.name == name), None)
    if case is None:
        raise DatasetError(f"{folder.name} has no case {name}.")
    reader = dataset.info.reader
    grid = grid_of_image(case.images[0], reader)
    laid = labels_over(case.label, grid, reader=reader, apart=joined_by(folder, name))
    old, geometry = laid.voxels, laid.geometry
    if old.shape != labels.shape:
        raise DatasetError(f"The reference of {name} has {old.shape} voxels, the corrected one {labels.shape}.")
    scheme = dataset.info.labels
    strange = sorted(set(np.unique(labels).tolist()) - {*scheme.all_labels, *_ignored(scheme)})
    if strange:
        raise DatasetError(
            f"The corrected reference contains {strange}; {folder.name} defines only {sorted(scheme.all_labels)}."
        )
    if seen is not None and not np.array_equal(old, seen):
        raise DatasetError(f"The labels of {name} changed since they were looked at. Look at them again, then save.")
    with in_trash(folder, name, [case.label], copied=True):
        write_labels(labels, geometry, case.label, writer=dataset.info.reader)
        if name in dataset.info.annotated:
            looked = yield from _looked_for_now(dataset.info, name, labels)
            change_json(folder, **{ANNOTATED: {**dataset.info.annotated, name: looked}})
    return case.label


def copy_dataset(source: Path, workspace: Workspace) -> Job[Path]:
    """Copy a raw dataset into a workspace, under the next free number where its own is taken or it has none.

    Parameters
    ----------
    source : Path
        Folder with dataset.json, imagesTr and labelsTr; it is not changed.
    workspace : Workspace
        Gets the copy.

    Returns
    -------
    Path
        The new dataset's folder.

    Raises
    ------
    DatasetError
        If the folder's name cannot be a dataset's.
    ResourceError
        If files cannot be written; nothing is left behind then, nor after a cancel.
    """
    name = free_dataset_name(workspace, source.name)
    files = [path for path in sorted(source.rglob("*")) if path.is_file() and not path.name.startswith(".")]
    files = [path for path in files if path.relative_to(source).parts[0] not in (TRASH, _FOLDER)]
    with new_dataset(workspace, name) as (beside, target):
        yield Stage(name=f"Copying {source.name}", total=len(files))
        for i, path in enumerate(files):
            place = beside / path.relative_to(source)
            make_folder(place.parent)
            shutil.copyfile(path, place)
            yield Progress(done=i + 1, total=len(files))
    return target


def _ignored(scheme: LabelScheme) -> tuple[int, ...]:
    return () if scheme.ignore_label is None else (scheme.ignore_label,)


def thumbnails(folder: Path) -> Job[int]:
    """Draw small pictures of a dataset's cases, those that changed; yields one event per case.

    Returns
    -------
    int
        Number of complete cases.
    """
    dataset, _ = survey(folder)
    place = make_folder(folder / _FOLDER)
    wanted = {f"{case.name}.png" for case in dataset.cases}
    for path in place.glob("[!.]*"):  # hidden ones are being drawn, by a job that looked before this one perhaps
        if path.name not in wanted:
            path.unlink(missing_ok=True)
    joined = joined_in(folder)
    for i, case in enumerate(dataset.cases):
        target = place / f"{case.name}.png"
        apart = joined.get(case.name, "refuse")
        try:
            newest = max(path.stat().st_mtime_ns for path in (case.label, case.images[0]))
            newest += _BY_VOXELS if apart == "ignore" else 0
            if not target.is_file() or target.stat().st_mtime_ns != newest:  # files from the trash are older
                _draw(case, dataset.info, target, newest, apart)
            yield CaseDone(case=case.name, index=i, total=len(dataset.cases), path=str(target))
        except (NnunetError, OSError) as error:  # somebody may move the files of a case meanwhile
            yield CaseFailed.of(case.name, for_people(error), i, len(dataset.cases))
    return len(dataset.cases)


def _draw(case: TrainingCase, info: DatasetInfo, target: Path, changed: int, apart: WhenApart) -> None:
    volume = read_volume(case.images[:1], reader=info.reader)
    labels = labels_over(case.label, Grid(volume.shape, volume.geometry), reader=info.reader, apart=apart).voxels
    if info.labels.ignore_label is not None:
        labels = np.where(labels == info.labels.ignore_label, 0, labels)  # the image is seen where nobody painted
    stack = labels.reshape(volume.shape_3d)
    z = telling_slice(stack)
    image = np.asarray(volume.array)[0].reshape(volume.shape_3d)[z]
    with written_beside(target, suffix=".png") as temporary:
        iio.imwrite(temporary, small_picture(overlay(image, stack[z])))
        os.utime(temporary, ns=(changed, changed))
