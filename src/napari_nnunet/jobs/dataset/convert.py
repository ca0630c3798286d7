"""Datasets of the Medical Segmentation Decathlon and of nnU-Net v1, converted as nnU-Net v2 does it."""

from __future__ import annotations

import re
import shutil
from functools import partial
from pathlib import Path
from typing import Any

from napari_nnunet.errors import DatasetError
from napari_nnunet.events import Job, Progress, Stage
from napari_nnunet.formats.atomic import make_folder, write_json, written_beside
from napari_nnunet.formats.dataset.new_dataset import new_dataset
from napari_nnunet.formats.images.files import read_header, split_channels
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.processes.pool import Task, results_of, run_cases
from napari_nnunet.schema.json_text import read_object
from napari_nnunet.schema.names import require_dataset_name
from napari_nnunet.schema.requests.dataset import ConvertMsdRequest, ConvertOldRequest

_ENDING = ".nii.gz"


def convert_msd(workspace: Workspace, request: ConvertMsdRequest) -> Job[Path]:
    """Convert a task of the Medical Segmentation Decathlon.

    Parameters
    ----------
    workspace : Workspace
        Where the dataset goes.
    request : ConvertMsdRequest
        The task's folder, ``TaskNN_Name`` with imagesTr, labelsTr, imagesTs and dataset.json.

    Returns
    -------
    Path
        ``nnUNet_raw/DatasetXXX_Name``.

    Raises
    ------
    DatasetError
        If the folder is no such task, or the number is taken.
    """
    source = request.source
    match = re.fullmatch(r"Task(\d+)_([^_]+)", source.name)
    if match is None:
        raise DatasetError(
            f"{source.name!r} is not the name of a Decathlon task. Rename it to TaskNN_Name, with one underscore."
        )
    content = _source_json(source, ("imagesTr", "labelsTr", "imagesTs"), ("labels", "modality"))
    chosen = int(match[1]) if request.number is None else request.number
    with new_dataset(workspace, f"Dataset{chosen:03d}_{match[2]}", own_number=True) as (beside, folder):
        yield from _convert_msd(source, beside, content, request.workers)
    return folder


def _convert_msd(source: Path, folder: Path, content: dict[str, Any], workers: int) -> Job[None]:
    files = [
        (path, part)
        for part in ("imagesTr", "imagesTs", "labelsTr")
        for path in sorted((source / part).glob(f"*{_ENDING}"))
        if not path.name.startswith((".", "_"))
    ]
    for part in ("imagesTr", "imagesTs", "labelsTr"):
        make_folder(folder / part)
    yield Stage(name=f"Converting {source.name}", total=len(files))
    tasks = [
        Task(f"{part}/{path.name}", (path, folder / part, part == "labelsTr"), partial(_bytes, path))
        for path, part in files
    ]
    outcomes = yield from run_cases(convert_file, tasks, workers=workers)
    results_of(outcomes, "converted")
    content["labels"] = {name: int(value) for value, name in content["labels"].items()}
    content["file_ending"] = _ENDING
    content["channel_names"] = content["modality"]
    for key in ("modality", "training", "test"):
        content.pop(key, None)
    write_json(folder / "dataset.json", content)


def _bytes(path: Path) -> float:
    shape, itemsize, _ = read_header(path)
    total = 1.0
    for n in shape:
        total *= n
    return 3 * total * itemsize


def convert_file(path: Path, folder: Path, label: bool) -> None:
    """Copy a label or a volume, or split a file of several volumes; runs in a worker process."""
    stem = path.name[: -len(_ENDING)]
    if label:
        _copy(path, folder / path.name)
    elif len(read_header(path)[0]) == 4 and read_header(path)[0][0] > 1:
        split_channels(path, [folder / f"{stem}_{c:04d}{_ENDING}" for c in range(read_header(path)[0][0])])
    else:
        _copy(path, folder / f"{stem}_0000{_ENDING}")


def _copy(source: Path, target: Path) -> None:
    with written_beside(target) as temporary:
        shutil.copyfile(source, temporary)


def _source_json(source: Path, folders: tuple[str, ...], keys: tuple[str, ...]) -> dict[str, Any]:
    """Return the dataset.json of a task; everything that is missing is named at once."""
    missing = [name for name in folders if not (source / name).is_dir()]
    path = source / "dataset.json"
    if not path.is_file():
        missing.append("dataset.json")
    if missing:
        raise DatasetError(f"{source} lacks {', '.join(missing)}.")
    content = read_object(path, DatasetError)
    absent = [key for key in keys if key not in content]
    if absent:
        raise DatasetError(f"{path} lacks the keys {', '.join(absent)}.")
    return content


def convert_old_nnunet(workspace: Workspace, request: ConvertOldRequest) -> Job[Path]:
    """Convert a dataset of nnU-Net v1 (a task folder).

    Parameters
    ----------
    workspace : Workspace
        Where the dataset goes.
    request : ConvertOldRequest
        The task's folder and the name of the dataset.

    Returns
    -------
    Path
        The new raw dataset.

    Raises
    ------
    DatasetError
        If the source is no such dataset, the name is not of that form, or is taken.
    """
    source, name = request.source, require_dataset_name(request.name)
    content = _source_json(source, ("imagesTr", "labelsTr"), ("labels", "modality"))
    with new_dataset(workspace, name) as (beside, folder):
        yield from _convert_old(source, beside, content)
    return folder


def _convert_old(source: Path, folder: Path, content: dict[str, Any]) -> Job[None]:
    parts = [
        part
        for part in ("imagesTr", "labelsTr", "imagesTs", "labelsTs", "imagesVal", "labelsVal")
        if (source / part).is_dir()
    ]
    files = [(path, part) for part in parts for path in sorted((source / part).iterdir()) if path.is_file()]
    yield Stage(name=f"Copying {source.name}", total=len(files))
    for i, (path, part) in enumerate(files):
        _copy(path, make_folder(folder / part) / path.name)
        yield Progress(done=i + 1, total=len(files))
    channels = content["modality"]
    for key in ("tensorImageSize", "numTest", "training", "test", "modality"):
        content.pop(key, None)
    content["channel_names"] = channels
    content["labels"] = {text: int(value) for value, text in content["labels"].items()}
    content["file_ending"] = _ENDING
    write_json(folder / "dataset.json", content)
