"""The Python door: what the command line does, as plain functions without generators.

Keywords are the fields of the requests (``napari_nnunet.schema.requests``), as the command line's flags are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from napari_nnunet.events import Box, Event, drain
from napari_nnunet.formats.model.folder import TrainedModel, load_model
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.jobs.choosing.best import find_best as find_best_job
from napari_nnunet.jobs.choosing.evaluate import evaluate as evaluate_job
from napari_nnunet.jobs.dataset.verify import verify
from napari_nnunet.jobs.planning.plan_and_preprocess import plan_and_preprocess as plan_and_preprocess_job
from napari_nnunet.jobs.sharing.export import export_models as export_models_job
from napari_nnunet.jobs.sharing.install import download_model, install_zip
from napari_nnunet.schema.cleaning import Cleaning
from napari_nnunet.schema.requests.choosing import EvaluateFolderRequest, FindBestRequest
from napari_nnunet.schema.requests.dataset import VerifyRequest
from napari_nnunet.schema.requests.keywords import keywords
from napari_nnunet.schema.requests.option import Request
from napari_nnunet.schema.requests.planning import PlanAndPreprocessRequest
from napari_nnunet.schema.requests.prediction import PredictSettings, region_box
from napari_nnunet.schema.requests.sharing import DownloadRequest, ExportSettings, InstallRequest
from napari_nnunet.schema.requests.training import TrainRequest
from napari_nnunet.volume import Volume, as_volume

if TYPE_CHECKING:
    from napari_nnunet.jobs.choosing.best import Answer
    from napari_nnunet.jobs.choosing.evaluate import Evaluation
    from napari_nnunet.jobs.dataset.verify import DatasetReport
    from napari_nnunet.jobs.planning.plan_and_preprocess import Planned
    from napari_nnunet.jobs.prediction.result import Prediction
    from napari_nnunet.jobs.training.train import TrainResult
    from napari_nnunet.schema.cleaning import Target
    from napari_nnunet.schema.names import Fold
    from napari_nnunet.schema.requests.planning import PlanSettings
    from napari_nnunet.schema.requests.training import TrainSettings

R = TypeVar("R", bound=Request)
OnEvent = Callable[[Event], None]
Folder = str | Path


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
    from napari_nnunet.jobs.prediction.predict import predict as job  # loads torch

    opened = _opened(model)
    volume = as_volume(image, spacing, len(opened.dataset.channel_names))
    return drain(job(opened, volume, _request(PredictSettings, settings, changes), roi=_box(region, volume)), on_event)


def _box(region: Box | None, volume: Volume) -> Box | None:
    return None if region is None else region_box([end for pair in region for end in pair], volume.shape)


def _request(kind: type[R], settings: Request | None, changes: dict[str, Any]) -> R:
    """Return a request of settings, and keywords that win over them."""
    given = {} if settings is None else settings.model_dump(exclude_unset=True)
    return kind.of(**{**given, **changes})


def _opened(model: TrainedModel | Folder) -> TrainedModel:
    return model if isinstance(model, TrainedModel) else load_model(model)


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
    from napari_nnunet.engine.prediction.vote import VoteSettings
    from napari_nnunet.jobs.prediction.combined import Combination, Member, predict_combined

    pairs = [entry if isinstance(entry, tuple) else (entry, PredictSettings()) for entry in members]
    joined = tuple(Member(_opened(model), settings) for model, settings in pairs)
    vote = VoteSettings(method, weights, uncertainty, temperature)
    combination = Combination(joined, vote, Cleaning.of(keep_largest))
    volume = as_volume(image, spacing, len(combination.model.dataset.channel_names))
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
    from napari_nnunet.jobs.prediction.combined import best_combination, predict_combined

    place = _workspace(workspace)
    combination = best_combination(place, place.dataset_name(dataset), _request(PredictSettings, settings, changes))
    volume = as_volume(image, spacing, len(combination.model.dataset.channel_names))
    return drain(predict_combined(combination, volume), on_event)


@keywords(FindBestRequest)
def find_best(
    dataset: str, *, workspace: Folder | None = None, on_event: OnEvent | None = None, **changes: Any
) -> Answer:
    """Compare all trained models of a dataset, and ensembles of them, by their cross-validations.

    Parameters
    ----------
    dataset, workspace, on_event
        As for :func:`verify_dataset`.
    **changes

    Returns
    -------
    Answer
        ``best``, ``scored``, ``postprocessing``; nnU-Net's files have been written.
    """
    return drain(find_best_job(_workspace(workspace), FindBestRequest.of(dataset=dataset, **changes)), on_event)


@keywords(EvaluateFolderRequest)
def evaluate(
    reference: Folder, prediction: Folder, dataset_json: Folder, *, on_event: OnEvent | None = None, **changes: Any
) -> Evaluation:
    """Compare a folder of segmentations with a folder of references, and write summary.json beside them.

    Parameters
    ----------
    reference, prediction : str or Path
        Folders with files of the same names.
    dataset_json : str or Path
        Which labels there are.
    on_event
        As for :func:`verify_dataset`.
    **changes

    Returns
    -------
    Evaluation
        ``summary``, ``dice``, ``cases``, ``csv()``.
    """
    where = {"reference": reference, "prediction": prediction, "dataset_json": dataset_json}
    return drain(evaluate_job(EvaluateFolderRequest.of(**where, **changes)), on_event)


@keywords(ExportSettings)
def export_models(
    models: Sequence[TrainedModel | Folder],
    target: Folder,
    *,
    light: bool = True,
    on_event: OnEvent | None = None,
    **changes: Any,
) -> Path:
    """Write trained models of one dataset into a zip that nnU-Net, too, installs.

    Parameters
    ----------
    models : sequence of TrainedModel, str or Path
        Models or their folders; the first stage of a cascade goes along.
    target : str or Path
        The zip.
    light : bool
        Only what inference needs; such a model cannot be trained further.
    on_event : callable, optional
        Called with every event: progress, notes.
    **changes

    Returns
    -------
    Path
        The zip.
    """
    opened = [_opened(model) for model in models]
    return drain(export_models_job(opened, Path(target), ExportSettings.of(light=light, **changes)), on_event)


def install_models(
    source: Folder,
    *,
    workspace: Folder | None = None,
    sha256: str | None = None,
    replace: bool = False,
    on_event: OnEvent | None = None,
) -> tuple[Path, ...]:
    """Install the models of a zip, or of an address where one lies, after checking it.

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
    place = _workspace(workspace)
    if str(source).startswith(("http://", "https://")):
        address = DownloadRequest.of(url=str(source), sha256=sha256, replace_models=replace)
        return drain(download_model(place, address), on_event).folders
    return drain(install_zip(place, InstallRequest.of(source=source, replace_models=replace)), on_event).folders


@keywords(VerifyRequest)
def verify_dataset(
    dataset: str, *, workspace: Folder | None = None, on_event: OnEvent | None = None, **changes: Any
) -> DatasetReport:
    """Check a raw dataset and return every problem that was found.

    Parameters
    ----------
    dataset : str
        Number or name.
    workspace : str or Path, optional
        Folder with nnUNet_raw, nnUNet_preprocessed and nnUNet_results; nnU-Net's variables or a folder of this user
        where not given.
    on_event : callable, optional
        Called with every event: progress, notes.
    **changes

    Returns
    -------
    DatasetReport
        ``problems`` (errors first), ``errors``, ``cases``.
    """
    return drain(verify(_workspace(workspace), VerifyRequest.of(dataset=dataset, **changes)), on_event)


@keywords(PlanAndPreprocessRequest)
def plan_and_preprocess(
    dataset: str,
    *,
    workspace: Folder | None = None,
    settings: PlanSettings | None = None,
    on_event: OnEvent | None = None,
    **changes: Any,
) -> Planned:
    """Measure, plan and preprocess a raw dataset; what is up to date is left as it is.

    Parameters
    ----------
    dataset, workspace, on_event
        As for :func:`verify_dataset`.
    settings : PlanSettings, optional
        What the keywords change.
    **changes

    Returns
    -------
    Planned
        ``plans``, the file, and ``cases``: what was done, skipped, and failed with the reason.
    """
    request = _request(PlanAndPreprocessRequest, settings, {"dataset": dataset, **changes})
    return drain(plan_and_preprocess_job(_workspace(workspace), request), on_event)


@keywords(TrainRequest)
def train(
    dataset: str,
    configuration: str,
    fold: Fold,
    *,
    workspace: Folder | None = None,
    settings: TrainSettings | None = None,
    on_event: OnEvent | None = None,
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
    settings : TrainSettings, optional
        What the keywords change; nnU-Net's own where not given.
    **changes

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

    where = {"dataset": dataset, "configuration": configuration, "fold": fold}
    return drain(job(_workspace(workspace), _request(TrainRequest, settings, {**where, **changes})), on_event)


def _workspace(folder: Folder | None) -> Workspace:
    return Workspace.resolve(None if folder is None else Path(folder))
