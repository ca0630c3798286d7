"""Datasets in, checked, and a look at them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from napari_nnunet.errors import SettingsError, counted
from napari_nnunet.formats.dataset.raw_writer import describe_dataset
from napari_nnunet.jobs.dataset.convert import convert_msd, convert_old_nnunet
from napari_nnunet.jobs.dataset.import_folders import import_folders as import_folders_job
from napari_nnunet.jobs.dataset.import_plan import plan_import, table_lines
from napari_nnunet.jobs.dataset.look import look as look_job
from napari_nnunet.jobs.dataset.look import look_table
from napari_nnunet.jobs.dataset.overlays import plot_overlays
from napari_nnunet.jobs.dataset.verify import verify
from napari_nnunet.jobs.labelling.annotated import annotated_classes as annotated_classes_job
from napari_nnunet.jobs.objects.derive import derive_objects as derive_objects_job
from napari_nnunet.jobs.objects.import_objects import import_objects

if TYPE_CHECKING:
    from napari_nnunet.cli.shell import Shell
    from napari_nnunet.schema.requests.dataset import (
        AnnotatedClassesRequest,
        ConvertMsdRequest,
        ConvertOldRequest,
        DatasetJsonRequest,
        DeriveObjectsRequest,
        ImportFoldersRequest,
        LookRequest,
        OverlaysRequest,
        VerifyRequest,
    )


def look(request: LookRequest, shell: Shell) -> int:
    """Print a table of images; the status tells whether all can be read."""
    found = shell.run(look_job(request))
    print("\n".join(look_table(found)))
    return int(any(entry.error for entry in found))


def verify_dataset_integrity(request: VerifyRequest, shell: Shell) -> int:
    """Check a dataset; the status tells whether there are errors."""
    name = shell.workspace.dataset_name(request.dataset)
    report = shell.run(verify(shell.workspace, request))
    for problem in report.problems:
        print(problem)
    warnings = len(report.problems) - len(report.errors)
    print(f"{name}: {counted(report.cases, 'case')}, {len(report.errors)} errors, {warnings} warnings.")
    return int(bool(report.errors))


def import_folders(request: ImportFoldersRequest, shell: Shell) -> int:
    """Make a dataset of two folders, or show what an import would do; the status tells whether it can be done."""
    if not request.dry_run:
        if not request.name and request.dataset is None:
            raise SettingsError("Give the dataset a name (-n NAME), or look at the pairs first (--dry_run).")
        job = import_folders_job if request.objects is None else import_objects
        print(shell.run(job(shell.workspace, request)))
        return 0
    plan = shell.run(plan_import(shell.workspace, request))
    for case in plan.cases:
        print(f"{case.name}: {' + '.join(path.name for path in case.pair.images)}  <->  {case.pair.mask_words}")
    for name, error in plan.problems.items():
        print(f"{name}: {error.message}")
    for left in plan.left_out:
        print(f"left out ({left.why}): {left.path}")
    if plan.recognised is not None:
        print(plan.recognised.sentence, *table_lines(plan.recognised.rows), sep="\n")
    plan.require()
    return 0


def annotated_classes(request: AnnotatedClassesRequest, shell: Shell) -> None:
    """Print which classes were looked for in which cases, after writing what is said of them."""
    for case, looked in shell.run(annotated_classes_job(shell.workspace, request)).items():
        print(f"{case}: {', '.join(looked)}")


def convert_MSD_dataset(request: ConvertMsdRequest, shell: Shell) -> None:
    """Convert a task of the Medical Segmentation Decathlon."""
    source = Path(os.path.abspath(request.source))
    print(shell.run(convert_msd(shell.workspace, request.replace(source=source))))


def convert_old_nnUNet_dataset(request: ConvertOldRequest, shell: Shell) -> None:
    """Convert a dataset of nnU-Net v1."""
    print(shell.run(convert_old_nnunet(shell.workspace, request)))


def generate_dataset_json(request: DatasetJsonRequest, _: Shell) -> None:
    """Write a dataset.json."""
    labels = {"background": 0, **request.labels}
    order = request.regions_class_order
    print(describe_dataset(request.folder, request.channels, labels, request.file_ending, regions_class_order=order))


def plot_overlay_pngs(request: OverlaysRequest, shell: Shell) -> int:
    """Draw a picture of every case; the status tells whether any was drawn."""
    return 0 if shell.run(plot_overlays(shell.workspace, request)) else 1


def derive_objects(request: DeriveObjectsRequest, shell: Shell) -> None:
    """Draw cores and borders."""
    scheme = shell.run(derive_objects_job(shell.workspace, request))
    for width, score in scheme.scores.items():
        print(f"width {width:g}: {score:.4f}" + (" (taken)" if width == scheme.width else ""))
