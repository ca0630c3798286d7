"""Two folders of images and masks become a raw dataset, or cases of one."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from napari_nnunet.errors import DatasetError, counted, of_all, some
from napari_nnunet.events import Job, Note, Stage
from napari_nnunet.formats.atomic import make_folder, write_json, written_beside
from napari_nnunet.formats.dataset.changing import changing
from napari_nnunet.formats.dataset.new_dataset import new_dataset
from napari_nnunet.formats.dataset.pairs import ImagePair
from napari_nnunet.formats.dataset.raw_dataset import dataset_json, read_info, said_of_cases, survey
from napari_nnunet.formats.dataset.raw_writer import change_json, update_count
from napari_nnunet.formats.images import tiff
from napari_nnunet.formats.images.files import ENDINGS, ending_of, read_header, write_image, write_labels
from napari_nnunet.formats.masks.translation import Translation
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.grid import WhenApart
from napari_nnunet.jobs.dataset.import_case import PlannedCase, placed_mask, read_image, sized, task
from napari_nnunet.jobs.dataset.import_plan import ImportPlan, decide, plan_import
from napari_nnunet.processes.pool import results_of, run_cases
from napari_nnunet.schema.dataset import ANNOTATED, LabelScheme, looked_for
from napari_nnunet.schema.json_text import read_object
from napari_nnunet.schema.requests.dataset import ImportFoldersRequest
from napari_nnunet.volume import by_text

_IN_PNG = 1 << 16  # different values that fit into a picture; numbers of objects may be more
_PLAIN = (".png", ".bmp", ".tif", ".tiff", ".nii.gz", ".nii", ".nrrd", ".mha", ".gipl")  # what nnU-Net knows as well
_TIFF = (".tif", ".tiff")


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
            yield from _add(_as_it_is_now(plan, request), plan.target, request)
        return plan.target
    with new_dataset(workspace, request.name) as (beside, folder):
        yield from fill_dataset(plan, beside, folder.name, request)
    return folder


def _as_it_is_now(plan: ImportPlan, request: ImportFoldersRequest) -> ImportPlan:
    """Look at the dataset once more, now that it is claimed; raises DatasetError where masks would mean something else.

    A case that came since, of a name that is to be imported, is a problem of the plan.
    """
    assert plan.target is not None
    before, now = plan.require(), decide(plan, request)
    if (now.require().labels, now.require().values) != (before.labels, before.values):
        raise DatasetError(f"The classes of {plan.target.name} were changed meanwhile. Look at the import again.")
    return now


def import_notes(plan: ImportPlan, request: ImportFoldersRequest) -> Job[None]:
    """Say what an import renumbers, turns and assumes; nothing is read or written.

    Raises
    ------
    DatasetError
        If problems or questions of the plan are open.
    """
    translation = plan.require()
    changed = {old: new for old, new in translation.values.items() if old != new}
    if plan.recognised is not None and plan.recognised.kind == "class files":
        yield Note(text=plan.recognised.sentence)
    elif request.objects is None and changed and not translation.colours:
        text = some([f"{old} -> {new}" for old, new in changed.items()], 40)
        yield Note(text=f"Mask values are renumbered: {text}.")
    yield from _mostly_foreground(plan, translation)
    turned = [case.name for case in plan.cases if case.turned]
    if turned:
        count = f"{len(turned)} of {counted(len(plan.cases), 'case')}"
        text = f"The masks of {count} are stored in another orientation and reoriented onto their images"
        yield Note(level="warning", text=f"{text}: {some(turned)}.")
    changed_colours = [case.name for case in plan.cases if case.pair.colours]
    if changed_colours:
        how = "grey" if request.colours == "grey" else "coloured"
        are = of_all(len(changed_colours), len(plan.cases), "picture is", "pictures are")
        text = f"{are} made {how} ({some(changed_colours)}). What is segmented later must be {how} as well"
        yield Note(text=f"{text}.")
    yield from _size_notes(plan.cases)
    odd = by_text({case.name: [text.rstrip(".") for text in (*case.notes, *case.remarks)] for case in plan.cases})
    yield from (Note(level="warning", text=f"{names}: {text}.") for names, text in odd)


def _left_out_notes(plan: ImportPlan, request: ImportFoldersRequest) -> Job[None]:
    for why in dict.fromkeys(left.why for left in plan.left_out):
        names = [_within(left.path, request) for left in plan.left_out if left.why == why]
        files = counted(len(names), "file is", "files are")
        yield Note(level="warning", text=f"{files} left out ({why}): {some(names)}.")


def _mostly_foreground(plan: ImportPlan, translation: Translation) -> Job[None]:
    """Say where 0 is the smaller part of drawings in two values: it may be what was drawn, in black on white."""
    found = plan.recognised
    if found is None or found.kind != "two values" or translation.threshold is not None:
        return
    for row in found.rows:
        if row.word not in ("0", "1") and row.share > 0.5 and translation.values.get(int(row.word)) == 1:
            text = f"The value {row.word} covers {row.share:.0%} of the masks and becomes the foreground"
            yield Note(
                level="warning",
                text=f"{text}. If 0 is what was drawn: --map 0=object {row.word}=background.",
                in_window=f"{text}. If 0 is what was drawn, import with 0 as object and {row.word} as background.",
            )


def _size_notes(cases: Sequence[PlannedCase]) -> Job[None]:
    """Say where the size of voxels is not the image's own; pictures need none."""
    without = [case.name for case in cases if case.spacing is None and len(case.shape) == 3]
    if without:
        of = f"{len(without)} of {counted(len(cases), 'case')}"
        text = f"No voxel size in the files of {of} ({some(without)}); 1 mm is assumed"
        yield Note(
            level="warning",
            text=f"{text}. Give the size if that is wrong (--spacing).",
            in_window=f"{text}. If that is wrong, import with the size in 'Voxel size (mm)'.",
        )
    by_mask = [case.name for case in cases if case.sized_by == "mask"]
    if by_mask:
        of = f"{len(by_mask)} of {counted(len(cases), 'case')}"
        text = f"The images of {of} have no voxel size; that of their masks is used"
        yield Note(level="warning", text=f"{text} ({some(by_mask)}).")


def _within(path: Path, request: ImportFoldersRequest) -> str:
    """Return the path of a file within the folder it was found in."""
    root = next((root for root in (request.images, request.masks) if path.is_relative_to(root)), path.parent)
    return path.relative_to(root).as_posix()


def fill_dataset(plan: ImportPlan, folder: Path, name: str, request: ImportFoldersRequest) -> Job[None]:
    """Fill a folder that will be a dataset of that name."""
    translation = plan.require()
    yield from _left_out_notes(plan, request)
    yield from import_notes(plan, request)
    ending, copied = _ending(plan.cases, translation)
    content = dataset_json(plan.channels, translation.labels, len(plan.cases), ending)
    for part in ("imagesTr", "labelsTr"):
        make_folder(folder / part)
    yield Stage(name=f"Writing {name}", total=len(plan.cases))
    tasks = [task(case.pair, folder, ending, translation, copied, copied, request.apart) for case in plan.cases]
    outcomes = yield from run_cases(write_pair, tasks, workers=request.workers)
    results_of(outcomes, "imported")
    if request.annotated:
        looked = looked_for(request.annotated, LabelScheme(labels=translation.labels), "--annotated")
        content[ANNOTATED] = {case.name: list(looked) for case in plan.cases}
    write_json(folder / "dataset.json", content)


def _add(plan: ImportPlan, folder: Path, request: ImportFoldersRequest) -> Job[None]:
    """Write the cases of a plan into a dataset that has others."""
    translation = plan.require()
    yield from _left_out_notes(plan, request)
    yield from import_notes(plan, request)
    info = read_info(folder)
    ending, earlier = info.file_ending, [case.name for case in survey(folder)[0].cases]
    changes = said_of_cases(info, earlier, [case.name for case in plan.cases], request.annotated, translation.labels)
    yield Stage(name=f"Adding to {folder.name}", total=len(plan.cases))
    tasks = []
    for case in plan.cases:
        same = _keeps_size(case, ending)
        images = all(_stored_as(path) == ending for path in case.pair.images)
        images = images and same and case.plain and not (case.notes or case.pair.colours)
        mask = same and case.facts.plain and not translation.changes and not case.turned
        mask = mask and _stored_as(case.pair.mask) == ending
        tasks.append(task(case.pair, folder, ending, translation, images, mask, request.apart))
    outcomes = yield from run_cases(write_pair, tasks, workers=request.workers)
    change_json(folder, **changes)
    update_count(folder)
    results_of(outcomes, "imported")


def _ending(cases: Sequence[PlannedCase], translation: Translation) -> tuple[str, bool]:
    """Return the ending of the dataset's files, and whether the given files can be copied as they are."""
    files = [path for case in cases for path in (*case.pair.images, *case.pair.masks)]
    plain = all(case.plain and case.facts.plain for case in cases)
    as_stored = plain and not any(case.turned or case.notes or case.pair.colours for case in cases)
    if as_stored and not translation.changes:
        endings = {_stored_as(path) for path in files}
        if len(endings) == 1 and endings <= set(_PLAIN) and all(_keeps_size(case, *endings) for case in cases):
            return endings.pop(), True
    if len(cases[0].shape) == 3 or all(case.spacing is not None for case in cases):
        return ".nii.gz", False
    small = all(case.eight_bit and case.facts.distinct <= _IN_PNG for case in cases)
    return (".png" if small else ".tif"), False


def _stored_as(path: Path) -> str:
    """Return the ending of a file that nnU-Net may read; empty for DICOM, whose files are copied nowhere."""
    return ending_of(path) if path.name.lower().endswith(ENDINGS) and not path.is_dir() else ""


def _keeps_size(case: PlannedCase, ending: str) -> bool:
    """Whether a copy of the files, with a size beside it where they are stacks of TIFF pages, has the right size."""
    return not case.sized_by or (ending in _TIFF and len(case.shape) == 3)


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
            _copy(source, target, pair)
    if copy_mask:
        _copy(pair.mask, label, pair)
    if copy_images and copy_mask:
        return
    volume = read_image(pair, apart)
    geometry = sized(pair, volume).geometry
    if not copy_images:
        for c, channel in enumerate(np.asarray(volume.array)):
            write_image(_narrow(channel), geometry, folder / "imagesTr" / f"{pair.name}_{c:04d}{ending}")
    if not copy_mask:
        mask, _ = placed_mask(pair, volume, apart)
        write_labels(translation.apply(mask, pair.mask.name), geometry, label)


def _copy(source: Path, target: Path, pair: ImagePair) -> None:
    """Copy a file; the voxel size that lies beside or inside of a stack of TIFF pages then lies beside the copy."""
    with written_beside(target) as temporary:
        shutil.copyfile(source, temporary)
    if ending_of(source) not in _TIFF:
        return
    beside = target.parent / f"{pair.name}.json"
    if pair.spacing is not None:
        write_json(beside, {"spacing": list(pair.spacing)})
    elif tiff.sidecar(source).is_file():
        write_json(beside, read_object(tiff.sidecar(source), DatasetError))  # in UTF-8: nnU-Net reads no other
    else:
        found = read_header(pair.images[0]).geometry
        if found.spacing_known and found.ndim == 3:  # nnU-Net looks beside the file only
            write_json(beside, {"spacing": list(found.spacing)})


def _narrow(channel: NDArray[np.float32]) -> NDArray[np.generic]:
    """Return integers as int16 or uint16 where they fit, for smaller files."""
    if not (channel == np.rint(channel)).all():
        return channel
    low, high = float(channel.min()), float(channel.max())
    for kind in (np.uint8, np.int16, np.uint16):
        if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max:
            return channel.astype(kind)
    return channel
