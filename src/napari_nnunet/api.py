"""The Python door: ``load_model`` and ``predict``, without generators."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from napari_nnunet.errors import ImageError
from napari_nnunet.events import Event, drain
from napari_nnunet.formats.model import TrainedModel, load_model
from napari_nnunet.jobs.predict import Prediction, relay
from napari_nnunet.jobs.predict import predict as predict_job
from napari_nnunet.schema.geometry import Geometry
from napari_nnunet.schema.settings import PredictSettings
from napari_nnunet.volume import Volume


def predict(
    model: TrainedModel | str | Path,
    image: Volume | Any,
    *,
    spacing: tuple[float, ...] | None = None,
    settings: PredictSettings | None = None,
    on_event: Callable[[Event], None] | None = None,
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
        Voxel size in mm, ``([z,] y, x)``; needed with arrays.
    settings : PredictSettings, optional
        nnU-Net's own settings where not given.
    on_event : callable, optional
        Called with every event: progress, notes.
    **changes
        Fields of :class:`PredictSettings` to change, such as ``mirroring=False``.

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
    opened = model if isinstance(model, TrainedModel) else load_model(model)
    chosen = (settings or PredictSettings()).replace(**changes)
    job = predict_job(opened, _volume(image, spacing, len(opened.dataset.channel_names)), chosen)
    result: Prediction = drain(job if on_event is None else relay(job, on_event))
    return result


def _volume(image: Volume | Any, spacing: tuple[float, ...] | None, channels: int) -> Volume:
    if isinstance(image, Volume):
        return image
    array = image if hasattr(image, "shape") else np.asarray(image)
    if spacing is None:
        raise ImageError(
            "An array says nothing about the size of its voxels. Pass spacing=(z, y, x) in mm, or (y, x) for a "
            "picture; (1, 1) if it has none."
        )
    ndim = len(spacing)
    if len(array.shape) == ndim:
        array = array[None]
    if len(array.shape) != ndim + 1 or array.shape[0] != channels:
        raise ImageError(
            f"The array has shape {tuple(array.shape)}; with {ndim} spacings the model expects "
            f"({channels}, {', '.join('ZYX'[-ndim:])})" + (" or without the first axis." if channels == 1 else ".")
        )
    return Volume(array, Geometry(spacing=tuple(float(s) for s in spacing)))
