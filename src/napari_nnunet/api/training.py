"""Check datasets, plan, preprocess, train."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_nnunet.api.doors import Folder, OnEvent, merged, workspace_at
from napari_nnunet.events import drain
from napari_nnunet.jobs.dataset.verify import verify
from napari_nnunet.jobs.planning.plan_and_preprocess import plan_and_preprocess as plan_and_preprocess_job
from napari_nnunet.schema.requests.dataset import VerifyRequest
from napari_nnunet.schema.requests.keywords import keywords
from napari_nnunet.schema.requests.planning import PlanAndPreprocessRequest
from napari_nnunet.schema.requests.training import TrainAllRequest, TrainRequest

if TYPE_CHECKING:
    from napari_nnunet.jobs.dataset.verify import DatasetReport
    from napari_nnunet.jobs.planning.plan_and_preprocess import Planned
    from napari_nnunet.jobs.scheduling.train_all import TrainAllResult
    from napari_nnunet.jobs.training.train import TrainResult
    from napari_nnunet.schema.names import Fold
    from napari_nnunet.schema.requests.planning import PlanSettings
    from napari_nnunet.schema.requests.training import TrainSettings


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
    return drain(verify(workspace_at(workspace), VerifyRequest.of(dataset=dataset, **changes)), on_event)


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
    request = merged(PlanAndPreprocessRequest, settings, {"dataset": dataset, **changes})
    return drain(plan_and_preprocess_job(workspace_at(workspace), request), on_event)


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
    from napari_nnunet.jobs.training.train import train_one as job  # loads torch

    where = {"dataset": dataset, "configuration": configuration, "fold": fold}
    return drain(job(workspace_at(workspace), merged(TrainRequest, settings, {**where, **changes})), on_event)


@keywords(TrainAllRequest)
def train_all(
    dataset: str,
    *,
    workspace: Folder | None = None,
    settings: TrainSettings | None = None,
    on_event: OnEvent | None = None,
    **changes: Any,
) -> TrainAllResult:
    """Train configurations and folds of a planned and preprocessed dataset as jobs of a scheduler.

    Parameters
    ----------
    dataset, workspace, on_event
        As for :func:`verify_dataset`.
    settings : TrainSettings, optional
        What the keywords change; nnU-Net's own where not given.
    **changes

    Returns
    -------
    TrainAllResult
        ``submitted``, the numbers of the jobs; ``finished`` and ``failed`` where they ran on this computer.

    Examples
    --------
    >>> from napari_nnunet import train_all
    >>> train_all("4", configurations=("2d",), choose=True, cluster="slurm:gpu.toml").submitted  # doctest: +SKIP
    """
    from napari_nnunet.jobs.scheduling.train_all import train_all as job  # loads torch

    return drain(
        job(workspace_at(workspace), merged(TrainAllRequest, settings, {"dataset": dataset, **changes})), on_event
    )
