"""An image that is named by its files is opened at the level that fits a model, and segmented."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

from napari_nnunet.engine.image.voxel_size import counts_voxels
from napari_nnunet.events import Job
from napari_nnunet.formats.dataset.case_files import reader_for
from napari_nnunet.formats.large.level import Level
from napari_nnunet.formats.large.opening import Say, open_image
from napari_nnunet.formats.large.source import LargeImage
from napari_nnunet.formats.model.folder import TrainedModel
from napari_nnunet.jobs.large.predict_image import LargeResult, predict_image
from napari_nnunet.jobs.prediction.folder.case import model_reader
from napari_nnunet.schema.requests.large import PredictImageRequest, PredictImageSettings


def predict_image_files(model: TrainedModel, request: PredictImageRequest) -> Job[LargeResult]:
    """Segment an image of any size; see :func:`~napari_nnunet.jobs.large.predict_image.predict_image`."""
    image = open_for(model, request)
    return (yield from predict_image(model, image, request.target, request.only(PredictImageSettings)))


def open_for(model: TrainedModel, request: PredictImageRequest) -> LargeImage:
    """Open the image of a request without reading a voxel.

    Raises
    ------
    ImageError
        If it cannot be opened, or does not say what must be known.
    """
    axes = None if request.axes is None else request.axes.upper()
    reader = partial(reader_for, reader=model_reader(model))
    return open_image(request.source, Say(request.level, axes, request.spacing, nearest_level(model), reader))


def nearest_level(model: TrainedModel) -> Callable[[Sequence[Level]], int]:
    """Return what chooses the level of a pyramid whose voxels are the nearest to those a model works at.

    Where a level does not say its voxel size, or the model knows none, that is the finest one.
    """
    own = model.configuration.spacing
    goals = dict(zip(model.plans.transpose_forward[-len(own) :], own, strict=True))

    def far(size: tuple[float, ...]) -> float:
        pairs = [(axis + len(size) - 3, goal) for axis, goal in goals.items()]
        return sum(abs(math.log(size[place] / goal)) for place, goal in pairs if place >= 0)

    def best(levels: Sequence[Level]) -> int:
        sizes = [size for level in levels if (size := level.spacing()) is not None]
        if counts_voxels(model.plans, model.configuration) or len(sizes) < len(levels):
            return 0
        return min(range(len(levels)), key=lambda i: far(sizes[i]))

    return best
