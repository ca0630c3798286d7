"""Whether a model, a large image and a result belong together, and what segmenting will take: before it starts."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from napari_nnunet.engine.image.turning import Turning
from napari_nnunet.engine.image.voxel_size import counts_voxels
from napari_nnunet.engine.large.blocks import chunk_shape
from napari_nnunet.engine.large.boxes import Shape3
from napari_nnunet.errors import ImageError, SettingsError
from napari_nnunet.events import Job
from napari_nnunet.formats.images.files import ending_of
from napari_nnunet.formats.large.journal import BlockJournal
from napari_nnunet.formats.large.label_image import ENDING, Destination, LabelImage
from napari_nnunet.formats.large.source import LargeImage
from napari_nnunet.formats.model.folder import TrainedModel
from napari_nnunet.formats.results.objects import roomier
from napari_nnunet.jobs.large.budget import Budget
from napari_nnunet.jobs.large.objects.numbering import Numbering, numbering_of
from napari_nnunet.jobs.large.work import work_of
from napari_nnunet.jobs.prediction.estimate import Estimate, estimate_presets
from napari_nnunet.jobs.prediction.predict import first_stage_of
from napari_nnunet.jobs.prediction.voxel_size import require_near
from napari_nnunet.schema.requests.large import PredictImageSettings
from napari_nnunet.schema.requests.prediction import PredictSettings


def require_fit(model: TrainedModel, image: LargeImage, settings: PredictSettings) -> None:
    """Raise what tells that a model and an image do not belong together, before anything is read."""
    if model.configuration.previous_stage is not None:
        first_stage_of(model, settings)
    if settings.probabilities:
        raise SettingsError("Probabilities of images larger than memory are not written. Leave them out.")
    if settings.quality:
        raise SettingsError(
            "The Dice of labels that are written block by block cannot be predicted. Leave it out, or segment the "
            "image in memory."
        )
    expected = len(model.configuration.normalization_schemes)
    if image.channels != expected:
        raise ImageError(
            f"The model expects {expected} channel{'s' if expected > 1 else ''} "
            f"({', '.join(model.dataset.channel_names)}), but {image.name} has {image.channels} (axes {image.axes}: "
            f"{' x '.join(str(n) for n in image.arrays[0].shape)}). Name the axes if these are others.",
            shell="For instance --axes CZYX.",
        )
    if not image.geometry.spacing_known and not counts_voxels(model.plans, model.configuration):
        raise ImageError(
            f"{image.name} has no voxel size{': its axes have no known unit' if image.level is not None else ''}. Give "
            "it in mm.",
            shell="For instance --spacing 0.002 0.0005 0.0005 (z y x).",
        )
    require_near(model, image.geometry, settings)
    # What is read box by box lies as it is stored, and a model that turns its images knows no other order.
    if model.turns and Turning.of(image.shape, image.geometry) is not None:
        raise ImageError(
            f"{model.name} was trained on images reoriented to RAS, but the axes of {image.name} lead to "
            f"{image.geometry.axes_code}. Segment it in memory, or save it as .nii.gz.",
            shell="In memory: predict_from_modelfolder, which turns it.",
        )


def chunk_of(asked: PredictImageSettings, image: LargeImage) -> Shape3:
    """Return the chunks (z, y, x) of a result; raises SettingsError if those asked for are none."""
    if asked.chunk is None:
        return chunk_shape(image.shape_3d)
    if len(asked.chunk) != len(image.shape) or min(asked.chunk) < 1:
        raise SettingsError(
            f"Chunks of {' x '.join(map(str, asked.chunk))} voxels were given for an image with {len(image.shape)} "
            "axes; give one number from 1 on for each."
        )
    z, y, x = (1, *asked.chunk)[-3:]
    return min(z, image.shape_3d[0]), min(y, image.shape_3d[1]), min(x, image.shape_3d[2])


def is_zarr_target(target: Path) -> bool:
    """Whether a result of this name is an OME-Zarr."""
    return target.name.lower().endswith(ENDING) or Destination(target).is_inside


def require_file(
    target: Path, image: LargeImage, model: TrainedModel, budget: Budget, numbers: Numbering | None
) -> None:
    """Raise an error if a result does not go into an ordinary file, or not into one of that name."""
    ending = ending_of(target)
    if os.path.realpath(target) in map(os.path.realpath, image.files):
        raise SettingsError(f"The labels would overwrite the image {target}. Choose another name.")
    if ending in (".jpg", ".jpeg") or (ending in (".png", ".bmp") and image.geometry.ndim == 3):
        what = "JPEG changes label values" if ending.startswith(".jp") else f"{ending} holds no volume"
        raise SettingsError(f"{target.name}: {what}. Choose a name with {ENDING}, .nii.gz or .tif.")
    itemsize = np.dtype(model.dataset.labels.dtype).itemsize if numbers is None else numbers.file_bytes
    size = float(np.prod(image.shape_3d)) * itemsize
    if image.times > 1:
        raise SettingsError(f"A time series is written as OME-Zarr, not as {target.name}. Choose a name with {ENDING}.")
    if numbers is not None and (other := roomier(target)) is not None and other.exists():
        raise SettingsError(
            f"{other} already exists: it would be taken for a part of the result, for {target.name} cannot number "
            "many objects. Choose another name, or delete it."
        )
    if 2 * size > budget.bytes:
        raise SettingsError(
            f"The labels take {size / 1e9:.1f} GB, and as much again to write them as {target.name}; "
            f"{budget.bytes / 1e9:.1f} GB of memory are allowed. Choose a name with {ENDING}, or allow more memory."
        )


@dataclass(frozen=True)
class ExpectedCost:
    """What is known before.

    Parameters
    ----------
    presets : mapping of str to Estimate
        See :func:`~napari_nnunet.jobs.prediction.estimate.estimate_presets`; of a time point, computed at once.
    budget : Budget
        The memory that it may take.
    numbers : Numbering, optional
        Where objects are numbered.
    """

    presets: Mapping[str, Estimate]
    budget: Budget
    numbers: Numbering | None = None


def expect_image(
    model: TrainedModel, image: LargeImage, asked: PredictImageSettings, target: Path
) -> Job[ExpectedCost]:
    """Work out what segmenting an image block by block will take.

    Raises
    ------
    ModelError, ImageError, SettingsError
        If it cannot be; an OtherWorkError where something else was begun in its place.
    """
    settings = asked.settings(model.resolve_folds(None, asked.checkpoint))
    require_fit(model, image, settings)
    place, budget = Destination.of(target, image), Budget.of(settings.memory_gb)
    numbers = numbering_of(model, image, settings, place, chunk_of(asked, image))
    if place.begun:
        labels = LabelImage(place, image, model.dataset.labels, chunk_of(asked, image))
        BlockJournal(place.unfinished).require_same(work_of(model, image, settings, labels, numbers))
    if numbers is not None:
        yield from numbers.require_room(budget)
    presets = yield from estimate_presets(model, image.shape, image.geometry.spacing, settings)
    return ExpectedCost(presets, budget, numbers)
