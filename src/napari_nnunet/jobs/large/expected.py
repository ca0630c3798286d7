"""What segmenting a large image will take, before it starts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from napari_nnunet.events import Job
from napari_nnunet.formats.large.journal import BlockJournal
from napari_nnunet.formats.large.label_image import Destination, LabelImage
from napari_nnunet.formats.large.source import LargeImage
from napari_nnunet.formats.model.folder import TrainedModel
from napari_nnunet.jobs.large.budget import Budget
from napari_nnunet.jobs.large.predict_image import chunk_of, require_fit
from napari_nnunet.jobs.large.work import work_of
from napari_nnunet.jobs.prediction.estimate import Estimate, estimate_presets
from napari_nnunet.schema.requests.large import PredictImageSettings


@dataclass(frozen=True)
class ExpectedCost:
    """What is known before.

    Parameters
    ----------
    presets : mapping of str to Estimate
        See :func:`~napari_nnunet.jobs.prediction.estimate.estimate_presets`; of a time point, computed at once.
    budget : Budget
        The memory that it may take.
    """

    presets: Mapping[str, Estimate]
    budget: Budget


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
    place = Destination.of(target, image)
    if place.begun:
        labels = LabelImage(place, image, model.dataset.labels, chunk_of(asked, image))
        BlockJournal(place.unfinished).require_same(work_of(model, image, settings, labels))
    presets = yield from estimate_presets(model, image.shape, image.geometry.spacing, settings)
    return ExpectedCost(presets, Budget.of(settings.memory_gb))
