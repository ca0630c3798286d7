"""The Python door: ``predict``, ``verify_dataset``, ``plan_and_preprocess``, ``train``, without generators."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_nnunet.errors import ImageError
from napari_nnunet.events import Event, drain
from napari_nnunet.formats.model import TrainedModel, load_model
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.schema.geometry import Geometry
from napari_nnunet.schema.plans import STANDARD
from napari_nnunet.schema.settings import PredictSettings
from napari_nnunet.volume import Volume

if TYPE_CHECKING:
    from napari_nnunet.jobs.plan_and_preprocess import Planned
    from napari_nnunet.jobs.predict import Prediction
    from napari_nnunet.jobs.train import TrainResult
    from napari_nnunet.jobs.verify import Report
    from napari_nnunet.schema.settings import Fold, PlanSettings
    from napari_nnunet.schema.training import TrainSettings


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
    from napari_nnunet.jobs.predict import predict as job  # loads torch, which the rest of this page does without

    opened = model if isinstance(model, TrainedModel) else load_model(model)
    chosen = (settings or PredictSettings()).replace(**changes)
    return drain(job(opened, _volume(image, spacing, len(opened.dataset.channel_names)), chosen), on_event)


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


def verify_dataset(
    dataset: str,
    *,
    workspace: str | Path | None = None,
    workers: int = 0,
    on_event: Callable[[Event], None] | None = None,
) -> Report:
    """Check a raw dataset and return every problem that was found.

    Parameters
    ----------
    dataset : str
        Number or name.
    workspace : str or Path, optional
        Folder with nnUNet_raw, nnUNet_preprocessed and nnUNet_results; nnU-Net's variables or a folder of this user
        where not given.
    workers : int
        Cases at the same time, at most; 0 means one per core.
    on_event : callable, optional
        Called with every event: progress, notes.

    Returns
    -------
    Report
        ``problems`` (errors first), ``errors``, ``cases``.
    """
    from napari_nnunet.jobs.verify import verify

    place = _workspace(workspace)
    return drain(verify(place, place.dataset_name(dataset), workers=workers), on_event)


def plan_and_preprocess(
    dataset: str,
    *,
    workspace: str | Path | None = None,
    settings: PlanSettings | None = None,
    configurations: Sequence[str] = STANDARD,
    workers: int = 0,
    on_event: Callable[[Event], None] | None = None,
) -> Planned:
    """Measure, plan and preprocess a raw dataset; what is up to date is left as it is.

    Parameters
    ----------
    dataset, workspace, workers, on_event
        As for :func:`verify_dataset`.
    settings : PlanSettings, optional
        Planner, GPU memory, voxel size and name of the plans.
    configurations : sequence of str
        What to preprocess; none given: stop after planning.

    Returns
    -------
    Planned
        ``plans``, the file, and ``cases``: what was done, skipped, and failed with the reason.
    """
    from napari_nnunet.jobs.plan_and_preprocess import plan_and_preprocess as job

    place = _workspace(workspace)
    return drain(job(place, place.dataset_name(dataset), settings, configurations, workers=workers), on_event)


def train(
    dataset: str,
    configuration: str,
    fold: Fold,
    *,
    workspace: str | Path | None = None,
    plans: str = "nnUNetPlans",
    settings: TrainSettings | None = None,
    resume: bool = False,
    on_event: Callable[[Event], None] | None = None,
    **changes: Any,
) -> TrainResult:
    """Train a fold of a planned and preprocessed dataset, and validate it.

    Parameters
    ----------
    dataset, workspace, on_event
        As for :func:`verify_dataset`.
    configuration : str
        ``2d``, ``3d_fullres``, ...
    fold : int or "all"
        Which cases are held out.
    plans : str
        Name of the plans.
    settings : TrainSettings, optional
        nnU-Net's own where not given.
    resume : bool
        Go on from the newest checkpoint.
    **changes
        Fields of :class:`TrainSettings` to change, such as ``time_budget=7200``.

    Returns
    -------
    TrainResult
        ``folder`` with the checkpoints, ``validation.dice``, ``validation.per_class``.

    Examples
    --------
    >>> from napari_nnunet import train
    >>> result = train("4", "3d_fullres", 0, time_budget=7200)  # doctest: +SKIP
    >>> result.validation.dice  # doctest: +SKIP
    """
    from napari_nnunet.jobs.train import train as job  # loads torch
    from napari_nnunet.schema.training import TrainSettings as Settings

    place = _workspace(workspace)
    chosen = (settings or Settings()).replace(**changes)
    made = job(
        place, place.dataset_name(dataset), configuration, fold, plans_name=plans, settings=chosen, resume=resume
    )
    return drain(made, on_event)


def _workspace(folder: str | Path | None) -> Workspace:
    return Workspace.resolve(None if folder is None else Path(folder))
