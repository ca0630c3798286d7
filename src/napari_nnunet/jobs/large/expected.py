"""What segmenting a large image will take, before it starts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from napari_nnunet.events import Job
from napari_nnunet.formats.large.source import LargeImage
from napari_nnunet.formats.model.folder import TrainedModel
from napari_nnunet.jobs.large.budget import Budget
from napari_nnunet.jobs.large.predict_image import require_fit
from napari_nnunet.jobs.prediction.estimate import Estimate, estimate_presets
from napari_nnunet.schema.requests.prediction import PredictSettings


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


def expect_image(model: TrainedModel, image: LargeImage, settings: PredictSettings) -> Job[ExpectedCost]:
    """Work out what segmenting an image block by block will take.

    Raises
    ------
    ModelError, ImageError, SettingsError
        If it cannot be.
    """
    require_fit(model, image, settings)
    presets = yield from estimate_presets(model, image.shape, image.geometry.spacing, settings)
    return ExpectedCost(presets, Budget.of(settings.memory_gb))
