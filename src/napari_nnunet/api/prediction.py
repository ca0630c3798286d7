"""Segment images with trained models."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, Literal

from napari_nnunet.api.doors import Folder, OnEvent, merged, opened_model, workspace_at
from napari_nnunet.engine.prediction.vote import VoteSettings
from napari_nnunet.events import Box, drain
from napari_nnunet.formats.model.folder import TrainedModel
from napari_nnunet.jobs.prediction.combined import Combination, Member, best_combination, predict_combined
from napari_nnunet.jobs.prediction.predict import predict as predict_job
from napari_nnunet.jobs.prediction.result import Prediction
from napari_nnunet.schema.cleaning import Cleaning, Target
from napari_nnunet.schema.objects import forgotten_objects
from napari_nnunet.schema.requests.keywords import keywords
from napari_nnunet.schema.requests.prediction import PredictSettings, region_box
from napari_nnunet.volume import Volume, as_volume


@keywords(PredictSettings)
def predict(
    model: TrainedModel | Folder,
    image: Volume | Any,
    *,
    spacing: tuple[float, ...] | None = None,
    region: Box | None = None,
    settings: PredictSettings | None = None,
    on_event: OnEvent | None = None,
    **changes: Any,
) -> Prediction:
    """Segment an image with a trained model.

    Parameters
    ----------
    model : TrainedModel, str or Path
        A model folder, opened or not.
    image : Volume or array-like
        A volume, or an array ``([C,] [Z,] Y, X)``. Without a channel axis the model must have one channel; a picture
        with colours last, (Y, X, 3), is not guessed: move the axis first.
    spacing : tuple of float, optional
        Voxel size in mm, ``([z,] y, x)``; needed with arrays, instead of a volume's own.
    region : tuple of (int, int), optional
        Half-open box in voxels to segment, one pair per axis; intensities are normalised by the whole image.
    settings : PredictSettings, optional
        What the keywords change; nnU-Net's own settings where not given.
    on_event : callable, optional
        Called with every event: progress, notes.
    **changes

    Returns
    -------
    Prediction
        ``labels`` on the image's own grid, ``probabilities`` where asked for, ``scheme.names``, ``recipe``.

    Examples
    --------
    >>> from napari_nnunet import load_model, predict
    >>> model = load_model("Dataset004_Hippocampus/nnUNetTrainer__nnUNetPlans__3d_fullres")  # doctest: +SKIP
    >>> labels = predict(model, array, spacing=(1.0, 1.0, 1.0)).labels  # doctest: +SKIP
    """
    opened = opened_model(model)
    volume = as_volume(image, spacing, len(opened.dataset.channel_names))
    asked = merged(PredictSettings, settings, changes)
    _warn_of_classes(opened, asked)
    return drain(predict_job(opened, volume, asked, roi=_box(region, volume)), on_event)


def _warn_of_classes(model: TrainedModel, settings: PredictSettings) -> None:
    """Warn where classes come of a model whose classes are called like those of objects: events may go unheard."""
    if not settings.classes and (forgotten := forgotten_objects(model.dataset)):
        warnings.warn(forgotten, stacklevel=3)


def _box(region: Box | None, volume: Volume) -> Box | None:
    return None if region is None else region_box([end for pair in region for end in pair], volume.shape)


def ensemble_predict(
    members: Sequence[tuple[TrainedModel, PredictSettings] | TrainedModel | Folder],
    image: Volume | Any,
    *,
    spacing: tuple[float, ...] | None = None,
    region: Box | None = None,
    method: Literal["soft", "hard"] = "soft",
    weights: tuple[float, ...] | None = None,
    uncertainty: bool = False,
    temperature: float = 1.0,
    keep_largest: Sequence[Target] = (),
    on_event: OnEvent | None = None,
) -> Prediction:
    """Segment an image with several trained models, or several folds of one, at once.

    Parameters
    ----------
    members : sequence
        Models, or pairs of a model and its settings (``folds=(0,)``, ...). They take the same channels and know the
        same classes.
    image, spacing, region, on_event
        As for :func:`predict`.
    method : {"soft", "hard"}
        "soft": the mean of the probabilities decides, as in nnU-Net. "hard": the majority of the labels.
    weights : tuple of float, optional
        One per member; equal where not given.
    uncertainty : bool
        Also return entropy and disagreement, 0 to 1, as ``uncertainty``.
    temperature : float
        For the entropy, as ``calibrate`` found it.
    keep_largest : sequence of int, tuple or list
        Postprocessing: of each label, region (tuple) or union (list) only the largest connected part is kept.

    Returns
    -------
    Prediction
        ``labels`` on the image's own grid, ``uncertainty``, ``recipe``.
    """
    pairs = [entry if isinstance(entry, tuple) else (entry, PredictSettings()) for entry in members]
    joined = tuple(Member(opened_model(model), settings) for model, settings in pairs)
    vote = VoteSettings(method, weights, uncertainty, temperature)
    combination = Combination(joined, vote, Cleaning.of(keep_largest))
    volume = as_volume(image, spacing, len(combination.model.dataset.channel_names))
    _warn_of_classes(combination.model, combination.members[0].settings)
    return drain(predict_combined(combination, volume, roi=_box(region, volume)), on_event)


@keywords(PredictSettings)
def predict_best(
    dataset: str,
    image: Volume | Any,
    *,
    workspace: Folder | None = None,
    spacing: tuple[float, ...] | None = None,
    settings: PredictSettings | None = None,
    on_event: OnEvent | None = None,
    **changes: Any,
) -> Prediction:
    """Segment an image with the model or ensemble that :func:`find_best` chose, and its postprocessing.

    Parameters
    ----------
    dataset : str
        Number or name.
    image, spacing, settings, on_event
        As for :func:`predict`; the folds are those that were compared.
    workspace : str or Path, optional
        As for :func:`verify_dataset`.
    **changes
    """
    place = workspace_at(workspace)
    combination = best_combination(place, place.dataset_name(dataset), merged(PredictSettings, settings, changes))
    volume = as_volume(image, spacing, len(combination.model.dataset.channel_names))
    _warn_of_classes(combination.model, combination.members[0].settings)
    return drain(predict_combined(combination, volume), on_event)
