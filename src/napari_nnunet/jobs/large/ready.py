"""What any part of a large image needs to become ready for the network, in this process or on a worker."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from napari_nnunet.engine.image.prepare import PrepareRecord, plan_grid
from napari_nnunet.engine.image.voxel_size import as_trained
from napari_nnunet.engine.large.blocks import BlockCosts, BlockGrid, plan_blocks
from napari_nnunet.engine.large.boxes import Shape3
from napari_nnunet.engine.large.case import masked_channels
from napari_nnunet.engine.large.parts import Preparation, PreviousStage, Within
from napari_nnunet.engine.large.survey import ImageFacts
from napari_nnunet.errors import ResourceError
from napari_nnunet.events import Job, Note
from napari_nnunet.formats.large.kept import KeptImage
from napari_nnunet.formats.large.source import LargeImage
from napari_nnunet.formats.model.folder import TrainedModel
from napari_nnunet.jobs.large.budget import Budget
from napari_nnunet.jobs.large.objects.numbering import probability_bytes
from napari_nnunet.jobs.prediction.predictor import Predictor
from napari_nnunet.jobs.prediction.windows import tiles_of
from napari_nnunet.schema.requests.prediction import PredictSettings

CONTENT = "content"  # within an unfinished result
_NOTHING = ImageFacts(((0, 0), (0, 0), (0, 0)), 0, 0, ())


def limited_axis(model: TrainedModel, image: LargeImage) -> int | None:
    """Return the image's own axis whose planes are limited one by one, None if there is none."""
    record = record_of(model, image, None)
    preparation = Preparation(image.read, record, model.configuration.resample_data, (), (), _NOTHING)
    return None if preparation.separate is None else record.transpose_forward[preparation.separate]


def record_of(model: TrainedModel, image: LargeImage, facts: ImageFacts | None) -> PrepareRecord:
    """Return the grids of an image; without facts, as if nothing of it were empty."""
    spacing = as_trained(model.plans, model.configuration, image.geometry).spacing_3d
    box = None
    if facts is not None:
        z, y, x = (facts.box[axis] for axis in model.plans.transpose_forward)
        box = (z, y, x)
    return plan_grid(image.shape_3d, spacing, model.plans, model.configuration, box)


def kept_content(model: TrainedModel, image: LargeImage, unfinished: Path, chunk: Shape3) -> KeptImage | None:
    """Return where an image's content is kept (what is not 0, holes filled); None if nothing is normalised in it."""
    if not any(masked_channels(model.configuration)):
        return None
    return KeptImage(unfinished, image, chunk, name=CONTENT, channels=1, dtype="bool", packed=True)


def prepared(
    model: TrainedModel,
    image: LargeImage,
    facts: ImageFacts,
    point: int,
    previous: LargeImage | None,
    content: KeptImage | None,
) -> Preparation:
    """Return what makes any part of a time point ready for the network."""
    configuration, stage, within = model.configuration, None, None
    if content is not None and facts.is_hollow:
        within = Within(partial(content.read, time=point), masked_channels(configuration))
    if previous is not None:
        labels = tuple(model.dataset.labels.foreground_labels)
        stage = PreviousStage(partial(previous.read, time=point), configuration.resample_seg, labels)
    return Preparation(
        partial(image.read, time=point),
        record_of(model, image, facts),
        configuration.resample_data,
        configuration.normalization_schemes,
        model.plans.intensities,
        facts,
        stage,
        within,
    )


def planned(
    predictor: Predictor,
    record: PrepareRecord,
    chunk: Shape3,
    settings: PredictSettings,
    budget: Budget,
    workers: int = 1,
) -> BlockGrid:
    """Return the blocks that an image is cut into, by the memory that is left beside the network, for some workers."""
    model, ensemble = predictor.model, predictor.ensemble
    each = np.dtype(model.dataset.labels.dtype).itemsize + probability_bytes(model, record, settings)
    costs = BlockCosts(model.channels_in, ensemble.channels, each)
    rule = model.configuration.resample_probabilities
    allowed = budget.left_beside(model, ensemble)
    return plan_blocks(record, tiles_of(model, record, settings), rule, chunk, costs, allowed, workers)


def as_large_as_allowed(
    predictor: Predictor, layout: BlockGrid, settings: PredictSettings, asked: Budget | None
) -> Job[None]:
    """Say if blocks that were chosen earlier take more memory than is allowed now.

    Raises
    ------
    ResourceError
        If they take far more than what was asked for, or more than there is.
    """
    free, now = Budget.free(), asked or Budget.of(0)

    def fit(budget: Budget) -> bool:
        try:
            planned(predictor, layout.record, layout.block, settings, budget)
        except ResourceError:
            return False
        return True

    if fit(now):
        return
    allowed = f"The blocks of what was begun were chosen with more memory than the {now.bytes / 1e9:.1f} GB allowed now"
    if not fit(free) or (asked is not None and not fit(asked.or_a_little_more)):
        raise ResourceError(
            f"{allowed}, into which they do not fit. What is finished is kept. Allow more memory or close other "
            "programs, and continue; or delete it, and begin again with smaller blocks."
        )
    yield Note(level="warning", text=f"{allowed}, and take more than that.")
