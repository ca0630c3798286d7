"""Check, measure, plan and preprocess a dataset in one go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from napari_nnunet.events import Job, Note
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.jobs.dataset.verify import require_sound, verify
from napari_nnunet.jobs.planning.plan import extract_fingerprint, plan_experiment
from napari_nnunet.jobs.planning.preprocess import PreprocessResult, preprocess
from napari_nnunet.processes.pool import warm_up
from napari_nnunet.schema.plans import STANDARD
from napari_nnunet.schema.requests.planning import PlanSettings


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
    workspace: Workspace,
    dataset_name: str,
    settings: PlanSettings | None = None,
    configurations: Sequence[str] = STANDARD,
    *,
    check: bool = False,
    clean: bool = False,
    sampled: bool = False,
    workers: int = 0,
    measure_workers: int = 0,
    memory_gb: float = 0,
) -> Job[Planned]:
    """Make a raw dataset ready for training.

    Parameters
    ----------
    workspace : Workspace
        Where the dataset lies.
    dataset_name : str
        ``DatasetXXX_Name``.
    settings : PlanSettings, optional
        Planner, memory, spacing and name of the plans.
    configurations : sequence of str
        What to preprocess; standard ones that the plans lack are passed over. None given: stop after planning.
    check : bool
        Verify the dataset first; warnings are notes, errors end the job.
    clean : bool
        Measure and preprocess again even if nothing changed.
    sampled : bool
        Measure with nnU-Net's random draws.
    workers, measure_workers : int
        Cases preprocessed and measured at the same time, at most; 0 means one per core.
    memory_gb : float
        Budget of all workers; 0 means most of what is free.

    Raises
    ------
    NnunetError
        What the steps raise.
    """
    warm_up(measure_workers)
    if check:
        report = yield from verify(workspace, dataset_name, workers=measure_workers, memory_gb=memory_gb)
        require_sound(report)
        for problem in report.problems:
            yield Note(level="warning", text=f"{problem.where}: {problem.text}")
    yield from extract_fingerprint(
        workspace, dataset_name, workers=measure_workers, memory_gb=memory_gb, clean=clean, sampled=sampled
    )
    plans = yield from plan_experiment(workspace, dataset_name, settings or PlanSettings())
    if not configurations:
        return Planned(plans, None)
    cases = yield from preprocess(
        workspace, dataset_name, plans.stem, configurations, workers=workers, memory_gb=memory_gb, clean=clean
    )
    return Planned(plans, cases)
