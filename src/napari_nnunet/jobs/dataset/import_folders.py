"""Two folders of images and masks become a raw dataset, or cases of one."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from napari_nnunet.events import Job, Note, Stage
from napari_nnunet.formats.atomic import make_folder, write_json, written_beside
from napari_nnunet.formats.dataset.changing import changing
from napari_nnunet.formats.dataset.new_dataset import new_dataset
from napari_nnunet.formats.dataset.pairs import ImagePair
from napari_nnunet.formats.dataset.raw_dataset import dataset_json, read_info
from napari_nnunet.formats.dataset.raw_writer import update_count
from napari_nnunet.formats.images import tiff
from napari_nnunet.formats.images.files import ending_of, write_image, write_labels
from napari_nnunet.formats.masks.translation import Translation
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.grid import WhenApart
from napari_nnunet.jobs.dataset.import_case import PlannedCase, placed_mask, read_image, task
from napari_nnunet.jobs.dataset.import_plan import ImportPlan, plan_import
from napari_nnunet.processes.pool import results_of, run_cases
from napari_nnunet.schema.requests.dataset import ImportFoldersRequest

_PLAIN = (".png", ".bmp", ".tif", ".tiff", ".nii.gz", ".nii", ".nrrd", ".mha", ".gipl")  # what nnU-Net knows as well


def import_folders(workspace: Workspace, request: ImportFoldersRequest) -> Job[Path]:
    """Make a raw dataset of a folder of images and a folder of masks, or add them to one.

    Files are copied where nnU-Net can read them as they are, and rewritten otherwise: volumes and whatever knows its
    voxel size as .nii.gz, pictures as .png or .tif. Mask values become 0, 1, 2, ...

    Returns
    -------
    Path
        ``nnUNet_raw/DatasetXXX_Name``.

    Raises
    ------
    DatasetError
        If nothing matches, files cannot be read, cases differ in channels or dimensions, or it is not certain what the
        values of the masks mean; everything that is in the way is named.
    """
    if request.dataset is not None:
        return (yield from import_planned(workspace, request, (yield from plan_import(workspace, request))))
    with new_dataset(workspace, request.name) as (beside, folder):  # nobody else gets the name while masks are read
        yield from fill_dataset((yield from plan_import(workspace, request)), beside, folder.name, request)
    return folder


def import_planned(workspace: Workspace, request: ImportFoldersRequest, plan: ImportPlan) -> Job[Path]:
    """Do what a plan says.

    Parameters
    ----------
    workspace : Workspace
        Gets the dataset.
    request : ImportFoldersRequest
        The one that the plan was made, or decided, for.
    plan : ImportPlan
        Without an open question.

    Returns
    -------
    Path
        The dataset's folder.

    Raises
    ------
    DatasetError
        If problems or questions of the plan are open.
    """
    if plan.target is not None:
        with changing(plan.target):
            yield from _add(plan, plan.target, request)
        return plan.target
    with new_dataset(workspace, request.name) as (beside, folder):
        yield from fill_dataset(plan, beside, folder.name, request)
    return folder


def _notes(plan: ImportPlan, translation: Translation, *, values: bool = True) -> Job[None]:
    """Say what is left out, renumbered and turned."""
    for why in dict.fromkeys(left.why for left in plan.left_out):
        names = [left.path.name for left in plan.left_out if left.why == why]
        files = "1 file is" if len(names) == 1 else f"{len(names)} files are"
        yield Note(level="warning", text=f"{files} left out ({why}): {_some(names)}.")
    changed = {old: new for old, new in translation.values.items() if old != new}
    if plan.recognised is not None and plan.recognised.kind == "class files":
        yield Note(text=plan.recognised.sentence)
    elif values and changed and not translation.colours:
        text = ", ".join(f"{old} -> {new}" for old, new in list(changed.items())[:40])
        yield Note(text=f"Mask values are renumbered: {text}{', ...' if len(changed) > 40 else ''}.")
    turned = [case.name for case in plan.cases if case.turned]
    if turned:
        count = f"{len(turned)} of {len(plan.cases)}"
        text = f"The masks of {count} cases are stored in another order and turned onto their images"
        yield Note(level="warning", text=f"{text}: {_some(turned)}.")
    for case in plan.cases:
        yield from (Note(level="warning", text=f"{case.name}: {text}") for text in case.notes)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")


def fill_dataset(plan: ImportPlan, folder: Path, name: str, request: ImportFoldersRequest) -> Job[None]:
    """Fill a folder that will be a dataset of that name."""
    translation = plan.require()
    yield from _notes(plan, translation, values=request.objects is None)
    ending, copied = _ending(plan.cases, translation)
    content = dataset_json(plan.channels, translation.labels, len(plan.cases), ending)
    for part in ("imagesTr", "labelsTr"):
        make_folder(folder / part)
    yield Stage(name=f"Writing {name}", total=len(plan.cases))
    tasks = [task(case.pair, folder, ending, translation, copied, copied, request.apart) for case in plan.cases]
    outcomes = yield from run_cases(write_pair, tasks, workers=request.workers)
    results_of(outcomes, "imported")
    write_json(folder / "dataset.json", content)


def _add(plan: ImportPlan, folder: Path, request: ImportFoldersRequest) -> Job[None]:
    """Write the cases of a plan into a dataset that has others."""
    translation = plan.require()
    yield from _notes(plan, translation)
    ending = read_info(folder).file_ending
    yield Stage(name=f"Adding to {folder.name}", total=len(plan.cases))
    tasks = []
    for case in plan.cases:
        images = not case.notes and all(not path.is_dir() and ending_of(path) == ending for path in case.pair.images)
        mask = case.facts.plain and not translation.changes and not case.turned
        mask = mask and not case.pair.mask.is_dir() and ending_of(case.pair.mask) == ending
        tasks.append(task(case.pair, folder, ending, translation, images, mask, request.apart))
    outcomes = yield from run_cases(write_pair, tasks, workers=request.workers)
    update_count(folder)
    results_of(outcomes, "imported")


def _ending(cases: Sequence[PlannedCase], translation: Translation) -> tuple[str, bool]:
    """Return the ending of the dataset's files, and whether the given files can be copied as they are."""
    files = [path for case in cases for path in (*case.pair.images, *case.pair.masks)]
    as_stored = all(case.facts.plain and not case.turned and not case.notes for case in cases)
    if as_stored and not translation.changes and not any(path.is_dir() for path in files):
        endings = {ending_of(path) for path in files}
        if len(endings) == 1 and endings <= set(_PLAIN):
            return endings.pop(), True
    if len(cases[0].shape) == 3 or all(case.spacing is not None for case in cases):
        return ".nii.gz", False
    return (".png" if all(case.eight_bit for case in cases) else ".tif"), False


def write_pair(
    pair: ImagePair,
    folder: Path,
    ending: str,
    translation: Translation,
    copy_images: bool,
    copy_mask: bool,
    apart: WhenApart,
) -> None:
    """Write one case of a dataset; runs in a worker process."""
    targets = [folder / "imagesTr" / f"{pair.name}_{c:04d}{ending}" for c in range(len(pair.images))]
    label = folder / "labelsTr" / f"{pair.name}{ending}"
    if copy_images:
        for source, target in zip(pair.images, targets, strict=True):
            _copy(source, target, pair.name)
    if copy_mask:
        _copy(pair.mask, label, pair.name)
    if copy_images and copy_mask:
        return
    volume = read_image(pair, apart)
    if not copy_images:
        for c, channel in enumerate(np.asarray(volume.array)):
            write_image(_narrow(channel), volume.geometry, folder / "imagesTr" / f"{pair.name}_{c:04d}{ending}")
    if not copy_mask:
        mask, _ = placed_mask(pair, volume, apart)
        write_labels(translation.apply(mask, pair.mask.name), volume.geometry, label)


def _copy(source: Path, target: Path, name: str) -> None:
    """Copy a file, and the voxel size that lies beside a TIFF."""
    with written_beside(target) as temporary:
        shutil.copyfile(source, temporary)
    beside = tiff.sidecar(source)
    if ending_of(source) in (".tif", ".tiff") and beside.is_file():
        shutil.copyfile(beside, target.parent / f"{name}.json")


def _narrow(channel: NDArray[np.float32]) -> NDArray[np.generic]:
    """Return integers as int16 or uint16 where they fit, for smaller files."""
    if not (channel == np.rint(channel)).all():
        return channel
    low, high = float(channel.min()), float(channel.max())
    for kind in (np.uint8, np.int16, np.uint16):
        if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max:
            return channel.astype(kind)
    return channel
