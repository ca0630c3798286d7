"""The main job for numbered objects from nothing: touching nuclei, training, unseen pictures, the score."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import imageio.v3 as iio
import numpy as np
from numpy.typing import NDArray

from napari_nnunet.engine.synthetic import make_crowd
from napari_nnunet.events import Job, Note, Stage
from napari_nnunet.formats.atomic import make_folder, write_json, written_beside
from napari_nnunet.formats.dataset.objects import read_objects
from napari_nnunet.formats.images.files import read_volume, write_image, write_labels
from napari_nnunet.formats.model.fold import FoldFolder
from napari_nnunet.formats.model.folder import load_model
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.jobs.choosing.evaluate_objects import evaluate_objects, scores
from napari_nnunet.jobs.objects.import_objects import import_objects
from napari_nnunet.jobs.planning.plan_and_preprocess import plan_and_preprocess
from napari_nnunet.jobs.prediction.predict_files import predict_folder
from napari_nnunet.jobs.training.train import train
from napari_nnunet.schema.colours import class_rgb
from napari_nnunet.schema.geometry import Geometry
from napari_nnunet.schema.model_name import ModelName
from napari_nnunet.schema.requests.choosing import EvaluateObjectsRequest
from napari_nnunet.schema.requests.dataset import ImportFoldersRequest
from napari_nnunet.schema.requests.planning import PlanAndPreprocessRequest, PlanSettings
from napari_nnunet.schema.requests.prediction import PredictFolderRequest
from napari_nnunet.schema.requests.sharing import DemoRequest
from napari_nnunet.schema.requests.training import TrainRequest, TrainSettings

_NAME = "Nuclei"
_LENGTH = TrainSettings(epochs=20, iterations=25, validation_iterations=5)
_TRAINING_SEEDS = range(100, 120)
_SEEDS = range(4)
_PLANS = PlanSettings(planner="SmallPlanner", gpu_memory_gb=0.12)
_PLANE = Geometry(spacing=(1.0, 1.0))


@dataclass(frozen=True)
class ObjectDemo:
    """Where the demo put things and how well it went.

    Parameters
    ----------
    folder : Path
        Images, objects, predictions, and a workspace with the dataset and its model.
    picture : Path
        Image, truth and result side by side.
    scores : dict of str to float
        See :func:`napari_nnunet.jobs.choosing.evaluate_objects.scores`.
    """

    folder: Path
    picture: Path
    scores: dict[str, float | int | None]


def demo_objects(request: DemoRequest) -> Job[ObjectDemo]:
    """Do the whole job with synthetic pictures: import numbered masks, plan, train, find objects, compare.

    Everything is written below the request's folder: ``images``, ``masks``, ``workspace``, ``imagesTs``,
    ``objectsTs``, ``predictions``, ``demo.png``.
    """
    folder, minutes = request.target, request.minutes
    settings = _LENGTH if minutes is None else TrainSettings(time_budget=60 * minutes)
    workspace = Workspace.at(folder / "workspace")
    yield Stage(name="Making pictures", total=len(_TRAINING_SEEDS) + len(_SEEDS))
    images, masks = _write_pictures(folder / "images", folder / "masks", _TRAINING_SEEDS, channel="")
    unseen, truths = _write_pictures(folder / "imagesTs", folder / "objectsTs", _SEEDS, channel="_0000")
    found = sorted(workspace.raw.glob(f"Dataset*_{_NAME}"))
    dataset = found[0] if found else (yield from _imported(workspace, images, masks))
    plans = yield from plan_and_preprocess(
        workspace, PlanAndPreprocessRequest.like(_PLANS, dataset=dataset.name, configurations=["2d"])
    )
    name = ModelName(settings.trainer, plans.plans.stem, "2d")
    place = FoldFolder.at(workspace.model(dataset.name, name), 0)
    order = TrainRequest.like(
        settings,
        dataset=dataset.name,
        configuration="2d",
        fold=0,
        plans=plans.plans.stem,
        resume=bool(place.checkpoints),
    )
    yield from train(workspace, order)
    yield Note(text="Finding objects in pictures that were not used for training.")
    out = make_folder(folder / "predictions")
    yield from predict_folder(load_model(place.path.parent), PredictFolderRequest(source=(unseen,), target=out))
    evaluation = yield from evaluate_objects(EvaluateObjectsRequest(reference=truths, prediction=out))
    picture = folder / "demo.png"
    _write_picture(unseen, truths, out, picture)
    result = scores(evaluation.all)
    write_json(folder / "demo.json", result)
    return ObjectDemo(folder, picture, result)


def _imported(workspace: Workspace, images: Path, masks: Path) -> Job[Path]:
    return (
        yield from import_objects(
            workspace, ImportFoldersRequest(images=images, masks=masks, name=_NAME, objects="nucleus", workers=1)
        )
    )


def _write_pictures(images: Path, objects: Path, seeds: Sequence[int], channel: str) -> tuple[Path, Path]:
    for folder in (images, objects):
        shutil.rmtree(folder, ignore_errors=True)
        make_folder(folder)
    for seed in seeds:
        image, truth = make_crowd(seed)
        write_image(
            np.rint(np.clip(image, 0, 255)).astype(np.uint8), _PLANE, images / f"nuclei_{seed:03d}{channel}.png"
        )
        write_labels(truth, _PLANE, objects / f"nuclei_{seed:03d}.png")
    return images, objects


def _write_picture(images: Path, truths: Path, results: Path, path: Path) -> None:
    """Write image, truth and result of the first picture side by side; neighbours differ in colour."""
    case = f"nuclei_{_SEEDS[0]:03d}"
    image = np.asarray(read_volume([images / f"{case}_0000.png"]).array)[0]
    grey = np.repeat(np.clip(image / np.percentile(image, 99.5), 0, 1)[..., None] * 255, 3, axis=2)
    panels = [grey]
    for folder in (truths, results):
        objects, _ = read_objects(folder / f"{case}.png")
        panels.append(_coloured(grey, objects))
    gap = np.full((image.shape[0], 4, 3), 255.0)
    row = np.concatenate([panels[0], gap, panels[1], gap, panels[2]], axis=1).astype(np.uint8)
    with written_beside(path, suffix=".png") as temporary:
        iio.imwrite(temporary, np.repeat(np.repeat(row, 3, axis=0), 3, axis=1))


def _coloured(grey: NDArray[np.float64], objects: NDArray[np.integer]) -> NDArray[np.float64]:
    colours = np.array([(0, 0, 0), *(class_rgb(value) for value in range(1, 18))], dtype=np.float64)
    colour = colours[np.where(objects > 0, objects % 17 + 1, 0)]
    return np.where((objects > 0)[..., None], 0.45 * grey + 0.55 * colour, grey)
