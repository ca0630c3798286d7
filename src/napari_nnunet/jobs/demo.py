"""The main job from nothing: make a small dataset, plan it, train, segment unseen volumes, show how good it is."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import imageio.v3 as iio
import numpy as np
from numpy.typing import NDArray

from napari_nnunet.engine.choosing.metrics import measure_labels
from napari_nnunet.engine.synthetic import CLASSES, SPACING_UM, make_volume
from napari_nnunet.errors import SettingsError
from napari_nnunet.events import Job, Note, Stage
from napari_nnunet.formats.atomic import make_folder, write_json, written_beside
from napari_nnunet.formats.images.files import read_labels, read_volume, write_image, write_labels
from napari_nnunet.formats.model.fold import FoldFolder
from napari_nnunet.formats.model.folder import load_model
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.jobs.planning.plan_and_preprocess import plan_and_preprocess
from napari_nnunet.jobs.prediction.predict_files import predict_folder
from napari_nnunet.jobs.training.train import train
from napari_nnunet.schema.colours import class_rgb
from napari_nnunet.schema.geometry import Geometry
from napari_nnunet.schema.model_name import ModelName
from napari_nnunet.schema.requests.planning import PlanAndPreprocessRequest, PlanSettings
from napari_nnunet.schema.requests.prediction import PredictFolderRequest
from napari_nnunet.schema.requests.sharing import DemoRequest
from napari_nnunet.schema.requests.training import TrainRequest, TrainSettings

DATASET = "Dataset001_Demo"
CONFIGURATION = "3d_fullres"
_LENGTH = TrainSettings(epochs=20, iterations=25, validation_iterations=5)  # enough to learn this, on any computer
_TRAINING_SEEDS = range(100, 110)
_SEEDS = (1, 2, 3)
_PLANS = PlanSettings(planner="SmallPlanner", gpu_memory_gb=0.06)


@dataclass(frozen=True)
class DemoResult:
    """Where the demo put things and how well it went.

    Parameters
    ----------
    folder : Path
        Images, labels, predictions, pictures, and a workspace with the dataset and its model.
    picture : Path
        Image, truth and result side by side.
    curves : Path
        How the training went.
    dice : dict of str to float
        Mean Dice per class over the unseen volumes.
    """

    folder: Path
    picture: Path
    curves: Path
    dice: dict[str, float]


def sample_geometry() -> Geometry:
    """Return the grid of the synthetic volumes, in mm."""
    z, y, x = (s / 1000 for s in SPACING_UM)
    return Geometry(spacing=(z, y, x), origin=(0.0, 0.0, 0.0), direction=(1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0))


def demo(request: DemoRequest) -> Job[DemoResult]:
    """Do the whole job with synthetic volumes: dataset, plan, preprocessing, training, segmentation, comparison.

    Parameters
    ----------
    request : DemoRequest
        Everything is written below its folder: ``workspace``, ``imagesTs``, ``labelsTs``, ``predictions``,
        ``demo.png``. Without minutes, 500 steps are trained, which a slow computer does as well, only later.

    Raises
    ------
    SettingsError
        If the time is not positive.
    """
    folder, minutes = request.target, request.minutes
    if minutes is not None and not 0 < minutes < math.inf:
        raise SettingsError(f"The demo cannot train for {minutes:g} minutes; give a positive number, 3 for instance.")
    settings = _LENGTH if minutes is None else TrainSettings(time_budget=60 * minutes)
    images, truths, out = (make_folder(folder / name) for name in ("imagesTs", "labelsTs", "predictions"))
    workspace = Workspace.at(folder / "workspace")
    yield Stage(name="Making synthetic volumes", total=len(_TRAINING_SEEDS) + len(_SEEDS))
    make_demo_dataset(workspace)
    for seed in _SEEDS:
        _write_volume(seed, images, truths)
    plans = yield from plan_and_preprocess(
        workspace,
        PlanAndPreprocessRequest.like(_PLANS, dataset=DATASET, configurations=[CONFIGURATION]),
    )
    name = ModelName(settings.trainer, plans.plans.stem, CONFIGURATION)
    place = FoldFolder.at(workspace.model(DATASET, name), 0)
    trained = yield from train(
        workspace,
        TrainRequest.like(
            settings,
            dataset=DATASET,
            configuration=CONFIGURATION,
            fold=0,
            plans=plans.plans.stem,
            resume=bool(place.checkpoints),
        ),
    )
    model = load_model(place.path.parent)
    yield Note(text="Segmenting volumes that were not used for training.")
    yield from predict_folder(model, PredictFolderRequest(source=(images,), target=out))
    dice = _compare(truths, out)
    picture = folder / "demo.png"
    _write_picture(images, truths, out, picture)
    write_json(folder / "demo.json", {"dice": dice, "model": model.name, "epochs": trained.epochs})
    return DemoResult(folder, picture, place.path / "progress.png", dice)


def make_demo_dataset(workspace: Workspace) -> Path:
    """Write the synthetic volumes as a raw dataset; returns its folder."""
    raw = workspace.raw / DATASET
    images, labels = make_folder(raw / "imagesTr"), make_folder(raw / "labelsTr")
    for seed in _TRAINING_SEEDS:
        if not (labels / f"{_name(seed)}.nii.gz").is_file():
            _write_volume(seed, images, labels)
    content = {
        "name": "Synthetic nuclei and shells",
        "channel_names": {"0": "fluorescence"},
        "labels": {name: value for value, name in enumerate(CLASSES)},
        "numTraining": len(_TRAINING_SEEDS),
        "file_ending": ".nii.gz",
    }
    write_json(raw / "dataset.json", content)
    return raw


def _name(seed: int) -> str:
    return f"sample_{seed:03d}"


def _write_volume(seed: int, images: Path, labels: Path) -> None:
    image, truth = make_volume(seed)
    geometry = sample_geometry()
    write_image(np.rint(image).astype(np.uint16), geometry, images / f"{_name(seed)}_0000.nii.gz")
    write_labels(truth, geometry, labels / f"{_name(seed)}.nii.gz")


def _compare(truths: Path, results: Path) -> dict[str, float]:
    scores: dict[str, list[float]] = {name: [] for name in CLASSES[1:]}
    for seed in _SEEDS:
        truth, _ = read_labels(truths / f"{_name(seed)}.nii.gz")
        result, _ = read_labels(results / f"{_name(seed)}.nii.gz")
        for value, metrics in measure_labels(truth, result, range(1, len(CLASSES))).items():
            scores[CLASSES[int(value) if isinstance(value, int) else 0]].append(float(metrics["Dice"]))
    return {name: float(np.mean(values)) for name, values in scores.items()}


def _write_picture(images: Path, truths: Path, results: Path, path: Path) -> None:
    """Write image, truth and result of the first case side by side, the slice with most foreground."""
    case = _name(_SEEDS[0])
    image = np.asarray(read_volume([images / f"{case}_0000.nii.gz"]).array)[0]
    truth, _ = read_labels(truths / f"{case}.nii.gz")
    result, _ = read_labels(results / f"{case}.nii.gz")
    z = int((truth > 0).sum(axis=(1, 2)).argmax())
    grey = np.clip(image[z] / np.percentile(image[z], 99.5), 0, 1)[..., None] * 255
    colours = np.array([(0, 0, 0), *(class_rgb(value) for value in range(1, len(CLASSES)))], dtype=np.float32)
    panels: list[NDArray[Any]] = [np.repeat(grey, 3, axis=2)]
    for labels in (truth, result):
        colour = colours[labels[z]]
        panels.append(np.where((labels[z] > 0)[..., None], 0.45 * grey + 0.55 * colour, grey))
    gap = np.full((image.shape[1], 4, 3), 255.0)
    row = np.concatenate([panels[0], gap, panels[1], gap, panels[2]], axis=1).astype(np.uint8)
    with written_beside(path, suffix=".png") as temporary:
        iio.imwrite(temporary, np.repeat(np.repeat(row, 4, axis=0), 4, axis=1))
