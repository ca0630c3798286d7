"""More jobs for the laws of cancelling and failing, each with one small case; they run in one process."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from choices import VOLUME, boxes, label_folder, random_labels, validated, write_objects_folder
from helpers import DATASET, TRAINED, make_dataset, make_trainable, smooth_image, write_nifti
from kinds_of_jobs import KINDS, Kind
from napari_nnunet.errors import DatasetError
from napari_nnunet.events import Job
from napari_nnunet.formats.dataset.raw_writer import create_dataset
from napari_nnunet.formats.images.files import write_labels
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.jobs.choosing.calibrate import calibrate
from napari_nnunet.jobs.choosing.compare import compare_folders
from napari_nnunet.jobs.choosing.crossval import accumulate
from napari_nnunet.jobs.choosing.evaluate import evaluate
from napari_nnunet.jobs.choosing.evaluate_objects import evaluate_objects
from napari_nnunet.jobs.dataset.cases import NewCase, add_case, correct_reference
from napari_nnunet.jobs.dataset.convert import convert_msd, convert_old_nnunet
from napari_nnunet.jobs.labelling.label_errors import find_label_errors
from napari_nnunet.jobs.objects.derive import derive_objects
from napari_nnunet.jobs.objects.measure import measure_objects
from napari_nnunet.jobs.objects.track import track_objects
from napari_nnunet.jobs.planning.folds import fold_job
from napari_nnunet.schema.geometry import Geometry
from napari_nnunet.schema.requests.choosing import (
    AccumulateRequest,
    CalibrateRequest,
    CompareRequest,
    EvaluateFolderRequest,
    EvaluateObjectsRequest,
    MeasureObjectsRequest,
    TrackRequest,
)
from napari_nnunet.schema.requests.dataset import ConvertMsdRequest, ConvertOldRequest, DeriveObjectsRequest
from napari_nnunet.schema.requests.labelling import FindLabelErrorsRequest
from napari_nnunet.schema.requests.planning import FoldsRequest

_PLANE = Geometry(spacing=(1.0, 1.0))


def _squares(folder: Path) -> None:
    """A dataset of two pictures and their objects."""
    raw = Workspace.at(folder).raw / "Dataset001_Squares"
    create_dataset(raw, ["grey"], {"background": 0, "object": 1}, ".tif")
    (raw / "objectsTr").mkdir()
    for case in "ab":
        objects = np.zeros((24, 24), np.uint16)
        objects[2:10, 2:10], objects[2:10, 10:18] = 1, 2
        picture = np.random.default_rng(ord(case)).integers(0, 255, objects.shape, dtype=np.uint8)
        write_labels(picture, _PLANE, raw / "imagesTr" / f"{case}_0000.tif")
        write_labels(objects, _PLANE, raw / "objectsTr" / f"{case}.tif")


def _task(folder: Path) -> None:
    """A Decathlon task, which is a dataset of nnU-Net v1 as well."""
    for part in ("imagesTr", "labelsTr", "imagesTs"):
        (folder / "Task07_Liver" / part).mkdir(parents=True)
    for i, case in enumerate("ab"):
        for part, name in (("imagesTr", f"{case}_0000"), ("labelsTr", case)):
            image = smooth_image((6, 8, 9), seed=i)[0]
            array = image if part == "imagesTr" else (image > 110).astype(np.uint8)
            write_nifti(folder / "Task07_Liver" / part / f"{name}.nii.gz", array)
            if part == "imagesTr":
                write_nifti(folder / "Task07_Liver" / part / f"{case}.nii.gz", array)
    content = {
        "name": "Liver", "tensorImageSize": "3D", "modality": {"0": "CT"}, "labels": {"0": "background", "1": "liver"},
        "numTraining": 2, "numTest": 0, "training": [], "test": [],
    }  # fmt: skip
    (folder / "Task07_Liver" / "dataset.json").write_text(json.dumps(content))


def _without(pattern: str) -> Callable[[Path], None]:
    """Return what makes a task whose training images have only one of the two names."""

    def prepare(folder: Path) -> None:
        _task(folder)
        for path in (folder / "Task07_Liver" / "imagesTr").glob(pattern):
            path.unlink()

    return prepare


def _once(job: Job[Any]) -> Job[Any]:
    """Run what refuses to replace its own result: where that is whole, there is nothing to be run again."""
    try:
        return (yield from job)
    except DatasetError as error:
        if "already exists" not in error.message and "is taken by" not in error.message:
            raise
        return None


def _moving(folder: Path) -> None:
    (folder / "in").mkdir()
    for time in range(3):
        objects = np.zeros((30, 40), np.uint16)
        objects[10:16, 4 + time : 10 + time] = 1 + time % 2
        write_labels(objects, _PLANE, folder / "in" / f"pos_t{time:03d}.tif")


def _two_readers(folder: Path) -> None:
    for place, seed in (("ref", 0), ("pred", 7)):
        label_folder(folder / place, {name: random_labels(seed + i) for i, name in enumerate("ab")})


def _objects(folder: Path) -> None:
    write_objects_folder(folder / "ref", a=boxes(1, 2), b=boxes(0, 5))
    write_objects_folder(folder / "pred", a=boxes(2, 2), b=boxes(1, 5))


def _new_case(folder: Path) -> Job[Any]:
    image = smooth_image((12, 16, 14), seed=9)
    return add_case(
        NewCase(
            Workspace.at(folder).raw / DATASET, "new", image, (image[0] > 120).astype(np.uint8), VOLUME, {},
            {"background": 0, "a": 1}, ("MR",), ".nii.gz",
        )
    )  # fmt: skip


def _small_dataset(folder: Path) -> None:
    make_dataset(folder, cases=2, shape=(12, 16, 14))


def _doubted(folder: Path) -> None:
    """Validated folds, with the labels of the raw dataset."""
    validated(folder, "3d_fullres", (0, 1, 2), quality=0.8)
    raw = folder / "nnUNet_raw" / "Dataset001_Tiny" / "labelsTr"
    raw.mkdir(parents=True)
    for path in (folder / "nnUNet_preprocessed" / "Dataset001_Tiny" / "gt_segmentations").iterdir():
        (raw / path.name).write_bytes(path.read_bytes())


#: What the trash holds depends on how often a job was run, and its names on the time.
SMALL = {
    "derive objects": Kind(
        _squares,
        lambda folder: derive_objects(Workspace.at(folder), DeriveObjectsRequest(dataset="1", width=2)),
        ("nnUNet_raw/Dataset001_Squares/labelsTr/*", "nnUNet_raw/Dataset001_Squares/dataset.json"),
    ),
    "convert a Decathlon task": Kind(
        _without("*_0000.nii.gz"),
        lambda folder: _once(convert_msd(Workspace.at(folder), ConvertMsdRequest(source=folder / "Task07_Liver"))),
        ("nnUNet_raw/Dataset007_Liver/**/*",),
    ),
    "convert an old dataset": Kind(
        _without("?.nii.gz"),
        lambda folder: _once(
            convert_old_nnunet(
                Workspace.at(folder), ConvertOldRequest(source=folder / "Task07_Liver", name="Dataset107_Old")
            )
        ),
        ("nnUNet_raw/Dataset107_Old/**/*",),
    ),
    "folds": Kind(
        make_trainable,
        lambda folder: fold_job(Workspace.at(folder), FoldsRequest(dataset=TRAINED, folds=3)),
        (f"nnUNet_preprocessed/{TRAINED}/splits_final.json",),
    ),
    "accumulate": Kind(
        lambda folder: validated(folder, "2d", (0, 1), quality=0.8),
        lambda folder: accumulate(
            Workspace.at(folder), AccumulateRequest(dataset="1", configuration="2d", folds=(0, 1))
        ),
        ("nnUNet_results/*/*/crossval_results*/**/*",),
    ),
    "calibrate": Kind(
        lambda folder: validated(folder, "2d", (0, 1), quality=0.8),
        lambda folder: calibrate(Workspace.at(folder), CalibrateRequest(dataset="1", configurations=("2d",))),
        ("nnUNet_results/*/*/calibration.json",),
    ),
    "measure": Kind(
        _objects,
        lambda folder: measure_objects(MeasureObjectsRequest(objects=folder / "ref", target=folder / "t.csv")),
        ("t.csv",),
    ),
    "track": Kind(
        _moving,
        lambda folder: track_objects(TrackRequest(objects=folder / "in", target=folder / "out", distance=8)),
        ("out/*.tif", "out/*.csv"),
    ),
    "evaluate": Kind(
        _two_readers,
        lambda folder: evaluate(
            EvaluateFolderRequest(
                reference=folder / "ref", prediction=folder / "pred", dataset_json=folder / "ref" / "dataset.json",
                csv=folder / "t.csv",
            )
        ),
        ("pred/summary.json", "t.csv"),
    ),
    "evaluate objects": Kind(
        _objects,
        lambda folder: evaluate_objects(
            EvaluateObjectsRequest(reference=folder / "ref", prediction=folder / "pred", csv=folder / "t.csv")
        ),
        ("t.csv", "pred/*.json"),
    ),
    "compare": Kind(
        _two_readers,
        lambda folder: compare_folders(
            CompareRequest(first=folder / "ref", second=folder / "pred", csv=folder / "t.csv")
        ),
        ("t.csv",),
    ),
    "find label errors": Kind(
        _doubted,
        lambda folder: find_label_errors(Workspace.at(folder), FindLabelErrorsRequest(dataset="1")),
        ("nnUNet_results/*/*/suspects.csv",),
    ),
    "add a case": Kind(_small_dataset, _new_case, (f"nnUNet_raw/{DATASET}/*Tr/*", f"nnUNet_raw/{DATASET}/dataset.json")),
    "correct a reference": Kind(
        _small_dataset,
        lambda folder: correct_reference(
            Workspace.at(folder).raw / DATASET, "c0", np.ones((12, 16, 14), np.uint8)
        ),
        (f"nnUNet_raw/{DATASET}/*Tr/*",),
    ),
}  # fmt: skip

EVERY_KIND = [pytest.param(name, marks=pytest.mark.slow if name == "train" else ()) for name in (*KINDS, *SMALL)]


def kind_of(name, request):
    """Return a kind of job; small ones run in one process, for what they do is not about workers."""
    if name == "track":
        pytest.importorskip("laptrack", reason="laptrack is not installed: it comes with napari-nnunet[tracking]")
    if name in SMALL:
        request.getfixturevalue("in_one_process")
    return (KINDS | SMALL)[name]
