"""The main job from nothing: make a small dataset, segment it, show how good it is."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_nnunet.engine.synthetic import CLASSES, SPACING_UM, make_volume
from napari_nnunet.events import Job, Note, Stage
from napari_nnunet.formats.atomic import make_folder, write_json, written_beside
from napari_nnunet.formats.images import read_labels, read_volume, write_labels
from napari_nnunet.formats.model import TrainedModel, load_model
from napari_nnunet.jobs.predict_files import FolderSettings, predict_folder
from napari_nnunet.schema.geometry import Geometry
from napari_nnunet.schema.settings import PredictSettings

_SEEDS = (1, 2, 3)
_COLOURS = np.array([[0, 0, 0], [0, 158, 255], [255, 140, 0]], dtype=np.float32)  # told apart by colour-blind eyes too


@dataclass(frozen=True)
class DemoResult:
    """Where the demo put things and how well it went.

    Parameters
    ----------
    folder : Path
        Images, labels, predictions and the picture.
    picture : Path
        Image, truth and result side by side.
    dice : dict of str to float
        Mean Dice per class over the cases.
    """

    folder: Path
    picture: Path
    dice: dict[str, float]


def sample_model() -> TrainedModel:
    """Open the tiny model that ships with the package."""
    with as_file(files("napari_nnunet.resources") / "sample_model" / "nnUNetTrainer__nnUNetPlans__3d_fullres") as path:
        return load_model(path)


def sample_geometry() -> Geometry:
    """Return the grid of the synthetic volumes, in mm."""
    z, y, x = (s / 1000 for s in SPACING_UM)
    return Geometry(spacing=(z, y, x), origin=(0.0, 0.0, 0.0), direction=(1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0))


def dice(truth: NDArray[Any], result: NDArray[Any], label: int) -> float:
    """Return the Dice overlap of one label, NaN where neither has it."""
    a, b = truth == label, result == label
    total = int(a.sum()) + int(b.sum())
    return 2 * int((a & b).sum()) / total if total else float("nan")


def demo(folder: Path) -> Job[DemoResult]:
    """Make unseen synthetic volumes, segment them with the model that ships with the package, compare with the truth.

    Parameters
    ----------
    folder : Path
        Everything is written below it: ``imagesTs``, ``labelsTs``, ``predictions``, ``demo.png``.
    """
    images, truths, out = (make_folder(folder / name) for name in ("imagesTs", "labelsTs", "predictions"))
    yield Stage(name="Making three synthetic volumes", total=len(_SEEDS))
    geometry = sample_geometry()
    for seed in _SEEDS:
        image, labels = make_volume(seed)
        write_labels(np.rint(image), geometry, images / f"sample_{seed:02d}_0000.nii.gz")
        write_labels(labels, geometry, truths / f"sample_{seed:02d}.nii.gz")
    model = sample_model()
    yield Note(text=f"Segmenting with the model that ships with the package ({model.name}).")
    yield from predict_folder(model, FolderSettings(images, out), PredictSettings())
    scores: dict[str, list[float]] = {name: [] for name in CLASSES[1:]}
    for seed in _SEEDS:
        truth, _ = read_labels(truths / f"sample_{seed:02d}.nii.gz")
        result, _ = read_labels(out / f"sample_{seed:02d}.nii.gz")
        for value, name in enumerate(CLASSES[1:], start=1):
            scores[name].append(dice(truth, result, value))
    means = {name: float(np.mean(values)) for name, values in scores.items()}
    picture = folder / "demo.png"
    _write_picture(images, truths, out, picture)
    write_json(folder / "demo.json", {"dice": means, "model": model.name})
    return DemoResult(folder, picture, means)


def _write_picture(images: Path, truths: Path, results: Path, path: Path) -> None:
    """Write image, truth and result of the first case side by side, the slice with most foreground."""
    import imageio.v3 as iio

    case = f"sample_{_SEEDS[0]:02d}"
    image = np.asarray(read_volume([images / f"{case}_0000.nii.gz"]).array)[0]
    truth, _ = read_labels(truths / f"{case}.nii.gz")
    result, _ = read_labels(results / f"{case}.nii.gz")
    z = int((truth > 0).sum(axis=(1, 2)).argmax())
    grey = np.clip(image[z] / np.percentile(image[z], 99.5), 0, 1)[..., None] * 255
    panels = [np.repeat(grey, 3, axis=2)]
    for labels in (truth, result):
        colour = _COLOURS[labels[z]]
        panels.append(np.where((labels[z] > 0)[..., None], 0.45 * grey + 0.55 * colour, grey))
    gap = np.full((image.shape[1], 4, 3), 255.0)
    row = np.concatenate([panels[0], gap, panels[1], gap, panels[2]], axis=1).astype(np.uint8)
    with written_beside(path, suffix=".png") as temporary:
        iio.imwrite(temporary, np.repeat(np.repeat(row, 4, axis=0), 4, axis=1))
