"""Raw datasets are made and changed here: cases added, replaced, put into the trash, labels renumbered."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_nnunet.errors import DatasetError, NnunetError, counted, some
from napari_nnunet.formats.atomic import make_folder, write_error, write_json
from napari_nnunet.formats.dataset.case_trash import homes_of, in_trash, masks_of, moved, raw_case_files
from napari_nnunet.formats.dataset.changing import one_at_a_time
from napari_nnunet.formats.dataset.raw_dataset import TrainingCase, dataset_json, read_info, said_of_renamed, survey
from napari_nnunet.formats.images.files import adapter_for, read_labels, read_volume, write_image, write_labels
from napari_nnunet.formats.trash import Trashed
from napari_nnunet.grid import Grid, Turned, relation
from napari_nnunet.schema.dataset import ANNOTATED, DatasetInfo
from napari_nnunet.schema.geometry import Geometry
from napari_nnunet.schema.json_text import read_object
from napari_nnunet.schema.names import require_plain

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._ -]*")
_PICTURES = (".png", ".bmp")  # that hold no floating point


def create_dataset(
    folder: Path,
    channel_names: Sequence[str],
    labels: Mapping[str, int | Sequence[int]],
    file_ending: str,
    **extra: Any,
) -> None:
    """Make an empty raw dataset: its folders and dataset.json.

    Raises
    ------
    DatasetError
        If the folder holds a dataset already, or the labels break a rule.
    """
    if (folder / "dataset.json").exists():
        raise DatasetError(f"{folder} already contains a dataset; choose another name.")
    content = dataset_json(channel_names, labels, 0, file_ending, **extra)
    for name in ("imagesTr", "labelsTr"):
        make_folder(folder / name)
    write_json(folder / "dataset.json", content)


def check_case_name(name: str) -> str:
    """Return a case's name without blanks at its ends; raises DatasetError if no file can be named so."""
    plain = name.strip()
    if _NAME.fullmatch(plain):
        require_plain(plain, "The name of the case")
    if not _NAME.fullmatch(plain) or plain.endswith("_seg"):
        raise DatasetError(
            f"{name!r} cannot name a case; use letters, digits, '.', '-', '_' and blanks, and not '_seg' at the end."
        )
    return plain


def save_case(
    folder: Path,
    name: str,
    channels: Sequence[NDArray[Any]],
    labels: NDArray[np.integer],
    geometry: Geometry,
    masks: Mapping[str, NDArray[Any]] | None = None,
    *,
    header: Geometry | None = None,
) -> TrainingCase:
    """Write a training case into a raw dataset, or replace the one of that name.

    Files that change are put into the dataset's trash folder; images that are the same stay as they are. Whoever calls
    this has claimed the dataset (:func:`changing`).

    Parameters
    ----------
    folder : Path
        ``DatasetXXX_Name``, with a dataset.json.
    name : str
        Of the case.
    channels : sequence of ndarray, each ([Z,] Y, X)
        One per channel of the dataset.
    labels : ndarray of int, shape ([Z,] Y, X)
        Its reference.
    geometry : Geometry
        Of all of them.
    masks : mapping of str to ndarray, optional
        What the labels were drawn from, by folder: objectsTr, kindsTr.
    header : Geometry, optional
        What the file of the labels says of its place whatever is true, as long as the images stay as they are.

    Raises
    ------
    DatasetError
        If channels are missing, shapes differ, labels are unknown to the dataset, or the dataset lists its files.
    """
    info = read_info(folder)
    if isinstance(info.raw.get("dataset"), dict):
        raise DatasetError(f"{folder.name} lists its files in dataset.json; add the case there.")
    name = check_case_name(name)
    _check(info, channels, labels)
    ending = info.file_ending
    paths = tuple(folder / "imagesTr" / f"{name}_{c:04d}{ending}" for c in range(len(channels)))
    target = folder / "labelsTr" / f"{name}{ending}"
    for where in ("imagesTr", "labelsTr"):
        make_folder(folder / where)
    changed = {p: c for p, c in zip(paths, channels, strict=True) if not _holds(p, c, geometry, info.reader)}
    kept = {path for path in paths if path not in changed}
    kept |= {path.with_name(path.name.removesuffix(ending) + ".json") for path in kept}  # their voxel size
    kept |= set() if changed else {folder / "imagesTr" / f"{name}.json"}
    old = [path for path in raw_case_files(folder, name, info) if path not in kept]
    place = geometry if header is None or changed else header
    with in_trash(folder, name, old):
        for path, channel in changed.items():
            write_image(_whole_numbers(np.asarray(channel), ending), geometry, path)
        for where, mask in {"labelsTr": labels, **(masks or {})}.items():
            write_labels(mask, place, make_folder(folder / where) / target.name)
    update_count(folder)
    return TrainingCase(name, paths, target)


def _whole_numbers(channel: NDArray[Any], ending: str) -> NDArray[Any]:
    """Return an image as a picture stores it: intensities that were read as floating point are whole numbers there."""
    if ending not in _PICTURES or channel.dtype.kind != "f" or channel.size == 0:
        return channel
    low, high = float(channel.min()), float(channel.max())
    if not (low >= 0 and high <= np.iinfo(np.uint16).max):  # also where something is not a number
        return channel
    whole = channel.astype(np.uint8 if high <= np.iinfo(np.uint8).max else np.uint16)
    return whole if np.array_equal(whole, channel) else channel


def _holds(path: Path, channel: NDArray[Any], geometry: Geometry, reader: str | None) -> bool:
    """Whether an image file has these voxels in this place already."""
    try:
        stored = read_volume([path], reader=reader, as_stored=True)
    except NnunetError:
        return False
    return (
        stored.channels == 1
        and _same_place(stored.geometry, geometry)
        and np.array_equal(np.asarray(stored.array)[0], np.asarray(channel))
    )


def _same_place(stored: Geometry, wanted: Geometry) -> bool:
    """Whether a file lies where it should; what the wanted geometry leaves open does not matter."""
    pairs = ((stored.spacing, wanted.spacing), (stored.origin, wanted.origin), (stored.direction, wanted.direction))
    return stored.ndim == wanted.ndim and all(
        new is None or (old is not None and np.allclose(old, new, rtol=1e-5, atol=1e-6)) for old, new in pairs
    )


def _check(info: DatasetInfo, channels: Sequence[NDArray[Any]], labels: NDArray[np.integer]) -> None:
    if len(channels) != len(info.channel_names):
        raise DatasetError(
            f"The dataset has {counted(len(info.channel_names), 'channel')} ({', '.join(info.channel_names)}), "
            f"but {len(channels)} were given."
        )
    shapes = {tuple(channel.shape) for channel in channels} | {tuple(labels.shape)}
    if len(shapes) > 1:
        raise DatasetError(f"Channels and labels must have the same shape; they have {sorted(shapes)}.")
    allowed = {*info.labels.all_labels} | ({info.labels.ignore_label} - {None})
    unknown = sorted(set(np.unique(labels).tolist()) - allowed)
    if unknown:
        raise DatasetError(
            f"The labels contain {some(unknown, 6)}, which dataset.json does not define; it has "
            f"{', '.join(f'{value} {name}' for value, name in sorted(info.labels.names.items()))}."
        )


@one_at_a_time
def set_count(folder: Path) -> int:
    """Do what :func:`update_count` does, for those that have not claimed the dataset."""
    return update_count(folder)


@one_at_a_time
def describe_dataset(
    folder: Path,
    /,
    channel_names: Sequence[str],
    labels: Mapping[str, int | Sequence[int]],
    file_ending: str,
    **options: Any,
) -> Path:
    """Write dataset.json for the images and labels of a folder, with their number; errors as :func:`dataset_json`."""
    path, content = folder / "dataset.json", dataset_json(channel_names, labels, 0, file_ending, **options)
    dataset, _ = survey(folder, DatasetInfo.parse(content))
    write_json(path, {**content, "numTraining": len(dataset.cases)})  # at once: a disk may be full before a second time
    return path


def update_count(folder: Path) -> int:
    """Write the number of complete cases into dataset.json and return it."""
    dataset, _ = survey(folder)
    change_json(folder, numTraining=len(dataset.cases))
    return len(dataset.cases)


def change_json(folder: Path, **changes: Any) -> None:
    """Write entries of dataset.json, if they are others than before."""
    path = folder / "dataset.json"
    content = read_object(path, DatasetError)
    if any(content.get(key) != value for key, value in changes.items()):
        write_json(path, {**content, **changes})


def set_labels(folder: Path, labels: Mapping[str, int | Sequence[int]], names: Mapping[str, str] | None = None) -> None:
    """Replace the classes of a dataset; label files are not touched.

    Parameters
    ----------
    folder : Path
        The dataset.
    labels : mapping of str to int or sequence of int
        Its classes from now on.
    names : mapping of str to str, optional
        New names of earlier classes.

    Raises
    ------
    DatasetError
        Where a rule is broken; nothing is written then.
    """
    changes: dict[str, Any] = {"labels": dict(labels)}
    info = read_info(folder)
    if info.annotated and names is not None:
        changes[ANNOTATED] = said_of_renamed(info, names, labels)
    DatasetInfo.parse({**info.raw, **changes})
    change_json(folder, **changes)


@one_at_a_time
def drop_case(folder: Path, name: str) -> Path:
    """Move the files of a case to the dataset's trash folder and return where they are.

    Raises
    ------
    DatasetError
        If there is no such case, or the dataset lists its files.
    """
    info = read_info(folder)
    listed = info.raw.get("dataset")
    if isinstance(listed, dict):
        if name not in listed:
            raise DatasetError(f"{folder.name} has no case {name}.")
        rest = {case: files for case, files in listed.items() if case != name}
        change_json(folder, dataset=rest, numTraining=len(rest))
        return folder / "dataset.json"
    files = raw_case_files(folder, name, info)
    if not files:
        raise DatasetError(f"{folder.name} has no case {name}.")
    with in_trash(folder, name, files) as trash:
        update_count(folder)
    return trash


@one_at_a_time
def bring_case_back(folder: Path, entry: Trashed) -> None:
    """Put files of the trash where they were; what is there now goes to the trash instead.

    Parameters
    ----------
    folder : Path
        The dataset.
    entry : Trashed
        Of :func:`cases_in_trash`.

    Raises
    ------
    NnunetError
        If files cannot be moved; everything stays as it is then.
    """
    homes = homes_of(folder, entry)
    now = [path for path in raw_case_files(folder, entry.name, read_info(folder)) if path in homes.values()]
    if any(path.parent.name == "imagesTr" for path in homes.values()):
        now = raw_case_files(folder, entry.name, read_info(folder))  # another number of channels must not stay beside
    try:
        with in_trash(folder, entry.name, now), moved(homes):
            pass
    except OSError as error:
        raise write_error(folder, error) from error
    shutil.rmtree(entry.path, ignore_errors=True)
    update_count(folder)


@one_at_a_time
def set_spacing(folder: Path, spacing: Sequence[float], cases: Sequence[str] = ()) -> None:
    """Write a voxel size (mm, array order) into the files of a dataset, images and labels.

    Parameters
    ----------
    folder : Path
        The dataset.
    spacing : sequence of float
        Two or three positive numbers, as many as the images have axes.
    cases : sequence of str
        Names; all where empty.
    """
    dataset, _ = survey(folder)
    wished = Geometry(spacing=tuple(float(s) for s in spacing))
    for case in dataset.cases:
        if cases and case.name not in cases:
            continue
        for path in (*case.images, case.label, *masks_of(folder, case.name, dataset.info)):
            _set_spacing(path, wished, dataset.info.reader)


@one_at_a_time
def place_labels(folder: Path, name: str) -> None:
    """Write the labels of a case on the grid of its image; the old file goes to the dataset's trash.

    Labels in another orientation are turned; others of the same size keep their voxels, and only their place
    becomes the image's.

    Raises
    ------
    DatasetError
        If there is no such case, or its labels have another size.
    """
    dataset, _ = survey(folder)
    case = next((case for case in dataset.cases if case.name == name), None)
    if case is None:
        raise DatasetError(f"{folder.name} has no complete case '{name}'.")
    reader = dataset.info.reader
    image = read_volume(case.images[:1], reader=reader, as_stored=True)
    grid, placed = Grid(image.shape, image.geometry), {}
    for path in (case.label, *masks_of(folder, name, dataset.info)):
        labels, geometry = read_labels(path, reader=reader)
        found = relation(grid, Grid(labels.shape, geometry))
        placed[path] = found.turn(labels) if isinstance(found, Turned) else labels
        if placed[path].shape != image.shape:
            raise DatasetError(f"The labels of '{name}' have {labels.shape} voxels, its image has {image.shape}.")
    with in_trash(folder, name, list(placed)):
        for path, labels in placed.items():
            write_labels(labels, image.geometry, path, writer=reader)


def _set_spacing(path: Path, wished: Geometry, reader: str | None) -> None:
    if path.name.lower().endswith((".tif", ".tiff")):
        from napari_nnunet.formats.images import tiff  # loads tifffile, which planning need not wait for

        write_json(tiff.sidecar(path), {"spacing": list(wished.spacing)})
        return
    is_mask = path.parent.name != "imagesTr"
    array, geometry = read_labels(path, reader=reader) if is_mask else _read(path, reader)
    if geometry.ndim != wished.ndim or geometry.origin is None:
        raise DatasetError(
            f"The voxel size of {path.name} cannot be set: the format does not store it, or has other axes."
        )
    changed = geometry.model_copy(update={"spacing": wished.spacing})
    if is_mask:
        write_labels(array, changed, path)
    else:
        write_image(array, changed, path)


def _read(path: Path, reader: str | None) -> tuple[NDArray[Any], Geometry]:
    array, geometry = adapter_for(path, reader).read(path)
    return array[0], geometry
