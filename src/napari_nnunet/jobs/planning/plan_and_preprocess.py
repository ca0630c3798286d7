"""Check, measure, plan and preprocess a dataset in one go."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from napari_nnunet.events import Job
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.jobs.dataset.verify import require_sound, verify
from napari_nnunet.jobs.objects.draw import keep_drawn
from napari_nnunet.jobs.planning.folds import look_at_folds, take_raw_folds
from napari_nnunet.jobs.planning.plan import extract_fingerprint, plan_experiment
from napari_nnunet.jobs.planning.preprocess import PreprocessResult, preprocess
from napari_nnunet.processes.pool import warm_up
from napari_nnunet.schema.requests.dataset import VerifyRequest
from napari_nnunet.schema.requests.planning import (
    FingerprintRequest,
    PlanAndPreprocessRequest,
    PlanRequest,
    PreprocessRequest,
)


@dataclass(frozen=True)
class Planned:
    """What was made of a dataset.

    Parameters
    ----------
    plans : Path
        The plans file.
    cases : PreprocessResult, optional
        What became of the cases; None if only plans were asked for.
    """

    plans: Path
    cases: PreprocessResult | None


def plan_and_preprocess(
    workspace: Workspace, request: PlanAndPreprocessRequest, *, as_before: bool = False, checked: bool = False
) -> Job[Planned]:
    """Make a raw dataset ready for training.

    Parameters
    ----------
    workspace : Workspace
        Where the dataset lies.
    request : PlanAndPreprocessRequest
        What is asked for.
    as_before : bool
        Bring the files of each case together as when it was preprocessed, whatever the request says.
    checked : bool
        Whether a check has just said what is odd.

    Raises
    ------
    NnunetError
        What the steps raise.
    """
    measuring = {"dataset": request.dataset, "workers": request.measure_workers, "memory_gb": request.memory_gb}
    if request.asks:
        look_at_folds(
            workspace, request.dataset, request
        )  # what is wrong with them is said before anything is measured
    else:
        take_raw_folds(workspace, workspace.dataset_name(request.dataset), dry_run=True)
    if request.cluster is None:
        warm_up(request.measure_workers)
    if request.check:
        yield from keep_drawn(workspace.raw / workspace.dataset_name(request.dataset), request.measure_workers)
        report = yield from verify(workspace, VerifyRequest(**measuring), apart=None if as_before else request.apart)
        require_sound(report)
        for problem in report.problems:
            yield problem.note
    measured = request.only(FingerprintRequest).replace(**measuring)
    yield from extract_fingerprint(workspace, measured, as_before=as_before, checked=checked or request.check)
    plans = yield from plan_experiment(workspace, request.only(PlanRequest))
    if not request.configurations or not request.preprocess:
        return Planned(plans, None)
    making = request.only(PreprocessRequest).replace(plans=plans.stem)
    cases = yield from preprocess(workspace, making, as_before=as_before)
    return Planned(plans, cases)
