"""Folders of labels and probabilities, and models with a validation, written by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from helpers import Recipe, make_model, write_nifti
from napari_nnunet.cli import main
from napari_nnunet.events import Note, drain
from napari_nnunet.formats.images.files import write_labels
from napari_nnunet.formats.results.probabilities import write_probabilities, write_properties
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.jobs.choosing.evaluate import Rules
from napari_nnunet.jobs.prediction.combined import (
    Member,
)
from napari_nnunet.schema.dataset import DatasetInfo
from napari_nnunet.schema.geometry import Geometry
from napari_nnunet.schema.requests.prediction import PredictSettings

SHAPE = (6, 10, 9)
DATASET_JSON = {
    "channel_names": {"0": "MR"},
    "labels": {"background": 0, "organ": 1, "lesion": 2},
    "numTraining": 4,
    "file_ending": ".nii.gz",
}
INFO = DatasetInfo.parse(DATASET_JSON)
RULES = Rules.of(INFO)
VOLUME = Geometry(spacing=(2.0, 0.5, 0.5))
CPU = PredictSettings(device="cpu", precision="float32", mirroring=False)


def random_labels(seed, shape=SHAPE):
    return np.random.default_rng(seed).integers(0, 3, shape).astype(np.uint8)


def label_folder(path, arrays, *, info=True):
    path.mkdir(parents=True, exist_ok=True)
    for name, array in arrays.items():
        write_nifti(path / f"{name}.nii.gz", array)
    if info:
        (path / "dataset.json").write_text(json.dumps(DATASET_JSON))
    return path


def member_folder(path, cases=("a", "b"), *, seed=0, heads=3, shape=SHAPE):
    """Write what predict --save_probabilities leaves, plans aside."""
    rng = np.random.default_rng(seed)
    arrays = {}
    for name in cases:
        p = rng.random((heads, *shape)).astype(np.float32)
        p /= p.sum(axis=0)
        path.mkdir(parents=True, exist_ok=True)
        write_probabilities(p, path / f"{name}.npz")
        properties = {
            "spacing": [1.0, 1.0, 1.0],
            "sitk_stuff": {
                "spacing": (1.0, 1.0, 1.0),
                "origin": (3.0, 2.0, 1.0),
                "direction": (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0),
            },
        }
        write_properties(properties, path / f"{name}.pkl")
        arrays[name] = p
    (path / "dataset.json").write_text(json.dumps(DATASET_JSON))
    return arrays


def fold_members(model, settings, folds):
    """Return every fold of a model as a member of its own."""
    return tuple(Member(model, settings.replace(folds=(fold,))) for fold in folds)


def run_verb(*words):
    return main([str(word) for word in words])


def validated(root, configuration, folds, *, quality, npz=True, dataset="Dataset001_Tiny"):
    """Write a model whose validation is right in a share of the voxels; returns the workspace."""
    recipe = Recipe(configuration=configuration, patch=(16, 16) if configuration == "2d" else (8, 16, 16), folds=folds)
    model = make_model(root / "nnUNet_results", recipe)
    gt = root / "nnUNet_preprocessed" / dataset / "gt_segmentations"
    plans = root / "nnUNet_preprocessed" / dataset / "nnUNetPlans.json"
    gt.mkdir(parents=True, exist_ok=True)
    known = (
        json.loads(plans.read_text(encoding="utf-8"))
        if plans.is_file()
        else json.loads((model.folder / "plans.json").read_text(encoding="utf-8"))
    )
    own = json.loads((model.folder / "plans.json").read_text(encoding="utf-8"))
    known["configurations"] = {**known["configurations"], **own["configurations"]}
    plans.write_text(json.dumps(known))
    for fold in folds:
        case = f"c{fold}"
        truth = random_labels(fold)
        write_nifti(gt / f"{case}.nii.gz", truth)
        rng = np.random.default_rng(100 * fold + len(configuration))
        p = rng.random((3, *SHAPE)).astype(np.float32) + quality * np.eye(3, dtype=np.float32)[truth].transpose(
            3, 0, 1, 2
        )
        p /= p.sum(axis=0)
        folder = model.folder / f"fold_{fold}" / "validation"
        folder.mkdir()
        write_nifti(folder / f"{case}.nii.gz", p.argmax(axis=0).astype(np.uint8))
        if npz:
            write_probabilities(p, folder / f"{case}.npz")
    return Workspace.at(root)


def notes(job):
    events = []
    return drain(job, events.append), " ".join(e.text for e in events if isinstance(e, Note))


def speckled():
    truth = np.zeros((8, 16, 16), dtype=np.uint8)
    truth[2:6, 3:8, 3:8] = 1
    truth[2:6, 9:13, 9:13] = 2
    wrong = truth.copy()
    wrong[7, 15, 15] = 1
    wrong[0, 0, 0:3] = 1
    return truth, wrong


def boxes(*numbers: int) -> np.ndarray:
    """Boxes of 3 x 4 x 4 in a row, with these numbers (0: none)."""
    objects = np.zeros((5, 8, 6 * len(numbers)), dtype=np.uint16)
    for i, number in enumerate(numbers):
        objects[1:4, 2:6, 6 * i + 1 : 6 * i + 5] = number
    return objects


def write_objects_folder(folder: Path, **cases: np.ndarray) -> Path:
    """Write objects as NIfTI."""
    folder.mkdir()
    for name, objects in cases.items():
        write_labels(objects, VOLUME, folder / f"{name}.nii.gz")
    return folder
