"""Two folders of images and numbered masks become a dataset of objects."""

from __future__ import annotations

from pathlib import Path

from napari_nnunet.errors import SettingsError
from napari_nnunet.events import Job, Stage
from napari_nnunet.formats.atomic import make_folder
from napari_nnunet.formats.dataset.case_trash import OBJECTS
from napari_nnunet.formats.dataset.new_dataset import new_dataset
from napari_nnunet.formats.dataset.objects import numbered
from napari_nnunet.formats.dataset.pairs import ImagePair
from napari_nnunet.formats.dataset.raw_dataset import read_info
from napari_nnunet.formats.images.files import write_labels
from napari_nnunet.formats.masks.facts import facts_of, in_colours
from napari_nnunet.formats.masks.pieces import drawn_apart
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.grid import WhenApart
from napari_nnunet.jobs.dataset.import_case import placed_mask, read_image, sized, task
from napari_nnunet.jobs.dataset.import_folders import fill_dataset
from napari_nnunet.jobs.dataset.import_plan import ImportPlan, plan_import
from napari_nnunet.jobs.objects.derive import derive_in
from napari_nnunet.processes.pool import results_of, run_cases
from napari_nnunet.schema.requests.dataset import DeriveObjectsRequest, ImportFoldersRequest


def import_objects(workspace: Workspace, request: ImportFoldersRequest, plan: ImportPlan | None = None) -> Job[Path]:
    """Make a raw dataset of a folder of images and a folder of masks in which every object has its own number.

    The masks are kept in ``objectsTr``; labelsTr gets the cores and borders that nnU-Net learns.

    Parameters
    ----------
    workspace : Workspace
        Gets the dataset.
    request : ImportFoldersRequest
        ``objects`` is the kind of the objects.
    plan : ImportPlan, optional
        The one that the request was decided for; made here by default.

    Returns
    -------
    Path
        ``nnUNet_raw/DatasetXXX_Name``.

    Raises
    ------
    DatasetError, ImageError
        As for any import, or if a mask has values that are no numbers of objects.
    SettingsError
        If settings for classes are given as well.
    """
    kind = request.objects or "object"
    told = [request.mapping, request.class_names, request.threshold, request.ignore, request.dataset]
    if any(value not in (None, {}, ()) for value in told):
        raise SettingsError(
            "Masks of numbered objects go into a dataset of their own, and their values are not translated.",
            shell="Leave out --map, --classes, --threshold, --ignore and -d.",
        )
    with new_dataset(workspace, request.name) as (beside, folder):
        if plan is None:
            plan = yield from plan_import(workspace, request)
        yield from fill_dataset(plan, beside, folder.name, request)
        ending = read_info(beside).file_ending
        make_folder(beside / OBJECTS)
        yield Stage(name="Writing objects", total=len(plan.cases))
        tasks = [task(case.pair, beside / OBJECTS, ending, request.apart) for case in plan.cases]
        results_of((yield from run_cases(write_objects, tasks, workers=request.workers)), "imported")
        for numbers in (beside / "labelsTr").iterdir():  # they lie among the objects now, and are nothing to bring back
            numbers.unlink()
        derive = DeriveObjectsRequest(dataset=folder.name, kinds={1: kind}, workers=request.workers)
        yield from derive_in(beside, derive)
    return folder


def write_objects(pair: ImagePair, folder: Path, ending: str, apart: WhenApart) -> None:
    """Write the numbered objects of a case on its image's grid; runs in a worker process.

    Numbers stay as they are where label files hold them; else they become 1, 2, 3, ... in their order. Where the mask
    is drawn in colours, every connected piece of a colour is an object: programs give several of them one colour.
    """
    volume = read_image(pair, apart)
    mask, _ = placed_mask(pair, volume, apart)
    objects = numbered(drawn_apart(mask) if in_colours({pair.name: facts_of(mask)}) else mask.array, pair.mask.name)
    write_labels(objects, sized(pair, volume).geometry, folder / f"{pair.name}{ending}")
