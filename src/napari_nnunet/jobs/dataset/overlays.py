"""One picture per training case: the slice with the most foreground, its labels in colour."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import imageio.v3 as iio
import numpy as np
from numpy.typing import NDArray

from napari_nnunet.engine.image.axis_operators import nearest_index
from napari_nnunet.errors import DatasetError, ImageError, NnunetError, SettingsError, counted
from napari_nnunet.events import CaseDone, Job, Note, Stage
from napari_nnunet.formats.atomic import make_folder, written_beside
from napari_nnunet.formats.dataset.raw_dataset import TrainingCase, open_dataset, reader_of
from napari_nnunet.formats.dataset.read_case import header_in_words, label_relation, misplaced_in_words
from napari_nnunet.formats.images.files import read_labels, read_volume
from napari_nnunet.formats.preprocessed.cases import case_names, open_case
from napari_nnunet.formats.preprocessed.journal import joined_at
from napari_nnunet.formats.preprocessed.plans import read_plans
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.grid import WhenApart
from napari_nnunet.jobs.case_size import measure_bytes
from napari_nnunet.jobs.dataset.import_case import PlannedCase, placed_mask, read_image
from napari_nnunet.processes.pool import Task, results_of, run_cases
from napari_nnunet.schema.colours import class_rgb
from napari_nnunet.schema.requests.dataset import OverlaysRequest
from napari_nnunet.volume import by_text

_SIDE = 96  # pixels of a thumbnail
_MOST_PAIRS = 60  # that are drawn
_FEW, _MANY = 16, 64  # values of masks, and of images


def plot_overlays(workspace: Workspace, request: OverlaysRequest) -> Job[int]:
    """Write a PNG per training case; spacing is not regarded.

    Parameters
    ----------
    workspace : Workspace
        Where the dataset lies.
    request : OverlaysRequest
        What is asked for.

    Returns
    -------
    int
        Pictures written.

    Raises
    ------
    NnunetError
        If cases could not be drawn, after the others were.
    """
    dataset_name = workspace.dataset_name(request.dataset)
    make_folder(request.target)
    tasks = _raw_tasks if request.raw else _stored_tasks
    found = tasks(workspace, dataset_name, request)
    yield Stage(name=f"Drawing {dataset_name}", total=len(found))
    function = draw_raw if request.raw else draw_stored
    outcomes = yield from run_cases(function, found, workers=request.workers, finished=lambda _: None)
    for names, text in by_text(
        {name: [outcome.result] if outcome.result else [] for name, outcome in outcomes.items()}
    ):
        yield Note(level="warning", text=f"{names}: {text}. The pictures show the voxels as they lie.")
    written = sum(outcome.error is None for outcome in outcomes.values())
    yield Note(text=f"{counted(written, 'picture is', 'pictures are')} in {request.target}.")
    results_of(outcomes, "drawn")
    return written


def _raw_tasks(workspace: Workspace, name: str, request: OverlaysRequest) -> list[Task]:
    dataset = open_dataset(workspace.raw / name)
    reader = reader_of(dataset)
    joined = joined_at(workspace.preprocessed / name)
    return [
        Task(
            case.name,
            (case, reader, *_how(request, case.name), joined.get(case.name, "refuse")),
            partial(measure_bytes, case, reader),
        )
        for case in dataset.cases
    ]


def _stored_tasks(workspace: Workspace, name: str, request: OverlaysRequest) -> list[Task]:
    base = workspace.preprocessed / name
    plans = read_plans(base, request.plans)
    chosen = request.configuration or ("3d_fullres" if "3d_fullres" in plans.configurations else "2d")
    folder = base / plans.configuration(chosen).data_identifier
    cases = case_names(folder)
    if not cases:
        raise DatasetError(f"{folder} contains no cases. Preprocess the dataset first.")
    return [Task(case, (folder, case, *_how(request, case)), lambda: 0.0) for case in cases]


def _how(request: OverlaysRequest, case: str) -> tuple[int, float, Path]:
    return request.channel, request.intensity, request.target / f"{case}.png"


def draw_raw(
    case: TrainingCase, reader: str, channel: int, intensity: float, target: Path, apart: WhenApart = "refuse"
) -> str:
    """Draw a raw case, voxel by voxel; returns what is wrong with how its labels lie. Runs in a worker process."""
    volume = read_volume(case.images, reader=reader, apart=apart)
    labels, geometry = read_labels(case.label, reader=reader)
    if labels.shape != volume.shape:
        raise ImageError(f"The labels have {labels.shape} voxels, the image has {volume.shape}. Check the dataset.")
    data = np.asarray(volume.array)
    _draw(data.reshape(data.shape[0], *volume.shape_3d), labels.reshape(volume.shape_3d), channel, intensity, target)
    found = label_relation(volume, labels.shape, geometry)
    return "" if found is None else header_in_words(found) if apart == "ignore" else misplaced_in_words(found)


def draw_stored(folder: Path, case: str, channel: int, intensity: float, target: Path) -> None:
    """Draw a preprocessed case; runs in a worker process."""
    stored = open_case(folder, case)
    _draw(stored.data[:], stored.labels[:][0], channel, intensity, target)


def _draw(data: NDArray[Any], labels: NDArray[Any], channel: int, intensity: float, target: Path) -> None:
    if channel >= len(data):
        raise SettingsError(
            f"The case has {counted(len(data), 'channel')}, numbered from 0; there is no channel {channel}."
        )
    picture = overlay(data[channel, z := telling_slice(labels)], labels[z], intensity)
    with written_beside(target, suffix=".png") as temporary:
        temporary.write_bytes(iio.imwrite("<bytes>", picture, extension=".png"))  # its own writer complains at its end


def telling_slice(labels: NDArray[Any]) -> int:
    """Return the slice of (z, y, x) that shows the largest share of the classes, each class with the same weight."""
    shares = np.zeros(len(labels))
    for value in np.unique(labels[labels > 0]):
        counts = np.count_nonzero(labels == value, axis=(1, 2))
        shares += counts / counts.sum()
    return int(np.argmax(shares)) if shares.any() else len(labels) // 2


def overlay(image: NDArray[Any], labels: NDArray[Any], intensity: float = 0.6) -> NDArray[np.uint8]:
    """Return an RGB picture (Y, X, 3) of a slice (Y, X), or of colours (Y, X, 3), with its labels (Y, X) in colour.

    Voxels of 0 and below stay as they are.
    """
    finite = np.isfinite(image)
    low, high = np.percentile(image[finite], (0.5, 99.5)) if finite.any() else (0.0, 0.0)
    grey = np.clip((np.where(finite, image, low) - low) / max(high - low, 1e-8), 0, 1) * 255
    picture = grey if grey.ndim == 3 else np.repeat(grey[..., None], 3, axis=-1)
    for value in np.unique(labels[labels > 0]):
        inside = labels == value
        colour = np.array(class_rgb(int(value)), dtype=float)
        picture[inside] = (1 - intensity) * picture[inside] + intensity * colour
    result: NDArray[np.uint8] = picture.astype(np.uint8)
    return result


def small_picture(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return a picture of the thumbnail's size, by nearest pixels, the rest black."""
    scale = _SIDE / max(picture.shape[:2])
    height, width = (max(1, round(n * scale)) for n in picture.shape[:2])
    rows, columns = nearest_index(picture.shape[0], height), nearest_index(picture.shape[1], width)
    canvas = np.zeros((_SIDE, _SIDE, 3), dtype=np.uint8)
    top, left = (_SIDE - height) // 2, (_SIDE - width) // 2
    canvas[top : top + height, left : left + width] = picture[rows][:, columns]
    return canvas


def pair_pictures(cases: Sequence[PlannedCase], folder: Path) -> Job[None]:
    """Draw the first pairs, image under mask, into a folder; yields one event per picture."""
    for i, case in enumerate(cases[:_MOST_PAIRS]):
        target = folder / f"{i}.png"
        try:
            volume = read_image(case.pair, "ignore")
            mask, _ = placed_mask(case.pair, volume, "ignore")
        except NnunetError:
            continue  # it is told when it is imported
        stack = (np.asarray(mask.array).reshape(volume.shape_3d) != 0).astype(np.uint8)
        z = telling_slice(stack)
        array = np.asarray(volume.array)
        coloured = case.picture and len(array) > 1
        image = np.moveaxis(array[:3], 0, -1) if coloured else array[0].reshape(volume.shape_3d)[z]
        iio.imwrite(target, small_picture(overlay(image, stack[z])))
        yield CaseDone(case=case.name, index=i, total=len(cases), path=str(target))


def look_swapped(cases: Sequence[PlannedCase]) -> Job[bool]:
    """Say whether masks look like images and images like masks, by the number of values in the first pair."""
    yield from ()
    if not cases or cases[0].facts.distinct < _MANY:
        return False
    image = np.asarray(read_image(cases[0].pair, "ignore").array)
    return len(np.unique(image)) <= _FEW
