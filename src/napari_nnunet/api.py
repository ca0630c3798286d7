"""The Python door: what the command line does, as plain functions without generators."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from napari_nnunet.errors import ImageError
from napari_nnunet.events import Event, drain
from napari_nnunet.formats.model.folder import TrainedModel, load_model
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.schema.geometry import Geometry
from napari_nnunet.schema.plans import STANDARD
from napari_nnunet.schema.requests.prediction import PredictSettings
from napari_nnunet.volume import Volume

if TYPE_CHECKING:
    from napari_nnunet.jobs.choosing.best import Answer, Question
    from napari_nnunet.jobs.choosing.evaluate import Evaluation
    from napari_nnunet.jobs.dataset.verify import Report
    from napari_nnunet.jobs.planning.plan_and_preprocess import Planned
    from napari_nnunet.jobs.prediction.result import Prediction
    from napari_nnunet.jobs.training.train import TrainResult
    from napari_nnunet.schema.cleaning import Target
    from napari_nnunet.schema.names import Fold
    from napari_nnunet.schema.requests.planning import PlanSettings
    from napari_nnunet.schema.requests.training import TrainSettings


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
    from napari_nnunet.jobs.prediction.predict import (
        predict as job,  # loads torch, which the rest of this page does without
    )

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


def ensemble_predict(
    members: Sequence[tuple[TrainedModel, PredictSettings] | TrainedModel | str | Path],
    image: Volume | Any,
    *,
    spacing: tuple[float, ...] | None = None,
    method: Literal["soft", "hard"] = "soft",
    weights: tuple[float, ...] | None = None,
    uncertainty: bool = False,
    temperature: float = 1.0,
    keep_largest: Sequence[Target] = (),
    on_event: Callable[[Event], None] | None = None,
) -> Prediction:
    """Segment an image with several trained models, or several folds of one, at once.

    Parameters
    ----------
    members : sequence
        Models, or pairs of a model and its settings (``folds=(0,)``, ...). They take the same channels and know the
        same classes.
    image, spacing, on_event
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
    from napari_nnunet.engine.prediction.vote import VoteSettings
    from napari_nnunet.jobs.prediction.combined import Combination, Member, predict_combined
    from napari_nnunet.schema.cleaning import Cleaning

    pairs = [entry if isinstance(entry, tuple) else (entry, PredictSettings()) for entry in members]
    opened = [(m if isinstance(m, TrainedModel) else load_model(m), settings) for m, settings in pairs]
    vote = VoteSettings(method, weights, uncertainty, temperature)
    combination = Combination(tuple(Member(*pair) for pair in opened), vote, Cleaning.of(keep_largest))
    volume = _volume(image, spacing, len(combination.model.dataset.channel_names))
    return drain(predict_combined(combination, volume), on_event)


def predict_best(
    dataset: str,
    image: Volume | Any,
    *,
    workspace: str | Path | None = None,
    spacing: tuple[float, ...] | None = None,
    settings: PredictSettings | None = None,
    on_event: Callable[[Event], None] | None = None,
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
    """
    from napari_nnunet.jobs.prediction.combined import best_combination, predict_combined

    place = _workspace(workspace)
    combination = best_combination(place, place.dataset_name(dataset), settings)
    volume = _volume(image, spacing, len(combination.model.dataset.channel_names))
    return drain(predict_combined(combination, volume), on_event)


def find_best(
    dataset: str,
    *,
    workspace: str | Path | None = None,
    question: Question | None = None,
    workers: int = 0,
    on_event: Callable[[Event], None] | None = None,
) -> Answer:
    """Compare all trained models of a dataset, and ensembles of them, by their cross-validations.

    Parameters
    ----------
    dataset, workspace, workers, on_event
        As for :func:`verify_dataset`.
    question : Question, optional
        What is compared; nnU-Net's four configurations and all pairs where not given.

    Returns
    -------
    Answer
        ``best``, ``scored``, ``postprocessing``; nnU-Net's files have been written.
    """
    from napari_nnunet.jobs.choosing.best import Question as Asked
    from napari_nnunet.jobs.choosing.best import find_best as job

    place = _workspace(workspace)
    return drain(job(place, place.dataset_name(dataset), question or Asked(), workers=workers), on_event)


def evaluate(
    reference: str | Path,
    prediction: str | Path,
    dataset_json: str | Path,
    *,
    surface: float | None = None,
    missing_ok: bool = False,
    workers: int = 0,
    on_event: Callable[[Event], None] | None = None,
) -> Evaluation:
    """Compare a folder of segmentations with a folder of references, and write summary.json next to them.

    Parameters
    ----------
    reference, prediction : str or Path
        Folders with files of the same names.
    dataset_json : str or Path
        Which labels there are.
    surface : float, optional
        Also measure HD95 and the normalised surface Dice with this tolerance in mm (needs MONAI).
    missing_ok : bool
        Whether references without a segmentation are left out.
    workers, on_event
        As for :func:`verify_dataset`.

    Returns
    -------
    Evaluation
        ``summary``, ``dice``, ``cases``, ``csv()``.
    """
    from napari_nnunet.jobs.choosing.ensemble import read_reader
    from napari_nnunet.jobs.choosing.evaluate import Rules, evaluate_folder
    from napari_nnunet.schema.dataset import DatasetInfo

    path = Path(dataset_json)
    info = DatasetInfo.parse_json(path.read_text(encoding="utf-8"), where=str(path))
    rules = Rules.of(info, reader=read_reader(Path(prediction)), surface=surface)
    job = evaluate_folder(Path(reference), Path(prediction), rules, missing_ok=missing_ok, workers=workers)
    return drain(job, on_event)


def export_models(
    models: Sequence[TrainedModel | str | Path],
    target: str | Path,
    *,
    light: bool = True,
    replace: bool = False,
    on_event: Callable[[Event], None] | None = None,
    **card: str,
) -> Path:
    """Write trained models of one dataset into a zip that nnU-Net, too, installs.

    Parameters
    ----------
    models : sequence of TrainedModel, str or Path
        Models or their folders; the first stage of a cascade goes along.
    target : str or Path
        The zip.
    light : bool
        Only what inference needs; the model cannot be trained further.
    replace : bool
        Whether a zip of that name is replaced.
    on_event : callable, optional
        Called with every event: progress, notes.
    **card
        ``title``, ``description``, ``authors``, ``licence``, ``citation``.

    Returns
    -------
    Path
        The zip.
    """
    from napari_nnunet.jobs.sharing.share import ExportSettings
    from napari_nnunet.jobs.sharing.share import export_models as job

    opened = [model if isinstance(model, TrainedModel) else load_model(model) for model in models]
    return drain(job(opened, Path(target), ExportSettings(light=light, card=card), replace=replace), on_event)


def install_models(
    source: str | Path,
    *,
    workspace: str | Path | None = None,
    sha256: str | None = None,
    replace: bool = False,
    on_event: Callable[[Event], None] | None = None,
) -> tuple[Path, ...]:
    """Install the models of a zip, or of the address of one, after checking it.

    Parameters
    ----------
    source : str or Path
        A file, or an address that begins with http:// or https://.
    workspace, on_event
        As for :func:`verify_dataset`.
    sha256 : str, optional
        Checksum of what is downloaded.
    replace : bool
        Whether models of the same name are moved to the trash first.

    Returns
    -------
    tuple of Path
        The models' folders.
    """
    from napari_nnunet.jobs.sharing.share import download_model, install_zip

    results = _workspace(workspace).results
    if str(source).startswith(("http://", "https://")):
        return drain(download_model(str(source), results, sha256=sha256, replace=replace), on_event).folders
    return drain(install_zip(Path(source), results, replace=replace), on_event).folders


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
    from napari_nnunet.jobs.dataset.verify import verify

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
    from napari_nnunet.jobs.planning.plan_and_preprocess import plan_and_preprocess as job

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
    from napari_nnunet.jobs.training.train import train as job  # loads torch
    from napari_nnunet.schema.requests.training import TrainSettings as Settings

    place = _workspace(workspace)
    chosen = (settings or Settings()).replace(**changes)
    made = job(
        place, place.dataset_name(dataset), configuration, fold, plans_name=plans, settings=chosen, resume=resume
    )
    return drain(made, on_event)


def _workspace(folder: str | Path | None) -> Workspace:
    return Workspace.resolve(None if folder is None else Path(folder))
