"""Two folders of images and numbered masks become a dataset of objects."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from napari_nnunet.errors import DatasetError, SettingsError
from napari_nnunet.events import Job, Stage
from napari_nnunet.formats.atomic import make_folder
from napari_nnunet.formats.dataset.case_trash import OBJECTS
from napari_nnunet.formats.dataset.new_dataset import new_dataset
from napari_nnunet.formats.dataset.objects import numbered
from napari_nnunet.formats.dataset.pairs import ImagePair
from napari_nnunet.formats.dataset.raw_dataset import read_info
from napari_nnunet.formats.images.files import write_labels
from napari_nnunet.formats.masks.facts import in_colours
from napari_nnunet.formats.masks.pieces import drawn_apart
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.grid import WhenApart
from napari_nnunet.jobs.dataset.import_case import placed_mask, read_image, sized, task
from napari_nnunet.jobs.dataset.import_folders import fill_dataset
from napari_nnunet.jobs.dataset.import_plan import ImportPlan, plan_import
from napari_nnunet.jobs.objects.derive import derive_in
from napari_nnunet.processes.pool import results_of, run_cases
from napari_nnunet.schema.requests.dataset import DeriveObjectsRequest, ImportFoldersRequest

_SPECK, _FEW = 2, 50  # voxels of a piece; pieces of a mask


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
        drawn = in_colours({case.name: case.facts for case in plan.cases})  # one answer for all: some may be grey
        tasks = [task(case.pair, beside / OBJECTS, ending, request.apart, drawn) for case in plan.cases]
        results_of((yield from run_cases(write_objects, tasks, workers=request.workers)), "imported")
        for numbers in (beside / "labelsTr").iterdir():  # they lie among the objects now, and are nothing to bring back
            numbers.unlink()
        derive = DeriveObjectsRequest(dataset=folder.name, kinds={1: kind}, workers=request.workers)
        yield from derive_in(beside, derive)
    return folder


def write_objects(pair: ImagePair, folder: Path, ending: str, apart: WhenApart, drawn: bool) -> None:
    """Write the numbered objects of a case on its image's grid; runs in a worker process.

    Numbers stay as they are where label files hold them; else they become 1, 2, 3, ... in their order. Where the
    masks are drawn in colours, every connected piece of a colour is an object: programs give several of them one
    colour.

    Raises
    ------
    DatasetError
        If most pieces are specks, as in smoothed drawings and photographs.
    """
    volume = read_image(pair, apart)
    mask, _ = placed_mask(pair, volume, apart)
    if drawn:
        _require_pieces(pieces := drawn_apart(mask), pair.mask.name)
        objects = numbered(pieces, pair.mask.name)
    else:
        objects = numbered(mask.array, pair.mask.name)
    write_labels(objects, sized(pair, volume).geometry, folder / f"{pair.name}{ending}")


def _require_pieces(objects: NDArray[np.int32], name: str) -> None:
    """Raise DatasetError where more than half of many pieces of colours have a voxel or two."""
    sizes = np.bincount(objects.reshape(-1))[1:]
    specks = int((sizes <= _SPECK).sum())
    if len(sizes) > _FEW and 2 * specks > len(sizes):
        raise DatasetError(
            f"{name}: {specks:,} of the {len(sizes):,} connected pieces of its colours have no more than {_SPECK} "
            "voxels. That is a drawing with smoothed edges, or a photograph, not objects in plain colours. Save it "
            "without smoothing (anti-aliasing) and scaling, or with a whole number of its own for every object and 0 "
            "elsewhere."
        )
