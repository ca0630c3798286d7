"""From a raw dataset to a preprocessed one."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from napari_nnunet.errors import counted, some
from napari_nnunet.jobs.planning.folds import fold_job
from napari_nnunet.jobs.planning.move_plans import move_plans, move_warnings
from napari_nnunet.jobs.planning.plan import extract_fingerprint as extract_fingerprint_job
from napari_nnunet.jobs.planning.plan import plan_experiment as plan_experiment_job
from napari_nnunet.schema.requests.dataset import VerifyRequest

if TYPE_CHECKING:
    from napari_nnunet.cli.shell import Shell
    from napari_nnunet.jobs.planning.preprocess import PreprocessResult
    from napari_nnunet.schema.requests.planning import (
        FingerprintRequest,
        FoldsRequest,
        MovePlansRequest,
        PlanAndPreprocessRequest,
        PlanRequest,
        PreprocessRequest,
    )

_SHOWN = 6  # names of a fold in a line


def extract_fingerprint(request: FingerprintRequest, shell: Shell) -> None:
    """Measure a dataset; where it is checked first, errors end the verb and warnings are printed."""
    name = shell.workspace.dataset_name(request.dataset)
    if request.check:
        from napari_nnunet.jobs.dataset.verify import require_sound, verify  # planning starts sooner without

        asked = VerifyRequest(dataset=name, workers=request.workers)
        report = shell.run(verify(shell.workspace, asked, apart=request.apart))
        require_sound(report)
        for problem in report.problems:
            print(problem, file=sys.stderr)
    shell.run(extract_fingerprint_job(shell.workspace, request))
    print(shell.workspace.preprocessed / name / "dataset_fingerprint.json")


def plan_experiment(request: PlanRequest, shell: Shell) -> None:
    """Plan a dataset."""
    print(shell.run(plan_experiment_job(shell.workspace, request)))


def preprocess(request: PreprocessRequest, shell: Shell) -> int:
    """Preprocess a dataset."""
    from napari_nnunet.jobs.planning.preprocess import preprocess as preprocess_job  # planning starts sooner without

    return _say(shell.run(preprocess_job(shell.workspace, request)))


def plan_and_preprocess(request: PlanAndPreprocessRequest, shell: Shell) -> int:
    """Do everything between raw data and training."""
    from napari_nnunet.jobs.planning.plan_and_preprocess import plan_and_preprocess as job  # likewise

    result = shell.run(job(shell.workspace, request))
    print(result.plans)
    return 0 if result.cases is None else _say(result.cases)


def _say(result: PreprocessResult) -> int:
    for folder in result.folders:
        print(folder)
    if not result.failed:
        return 0
    total = len(result.failed) + len(result.done) + len(result.skipped)
    print(
        f"{len(result.failed)} of {counted(total, 'case')} failed: {', '.join(sorted(result.failed))}.", file=sys.stderr
    )
    return 1


def folds(request: FoldsRequest, shell: Shell) -> None:
    """Show the folds of a dataset as a table, made first where others are asked for."""
    found = shell.run(fold_job(shell.workspace, request))
    for row in found.rows:
        print(f"fold {row.fold}: {row.train} train, {row.val} validate: {some(row.held, _SHOWN)}")
    if not found.stored:
        print("These folds are not written yet" + ("." if request.dry_run else "; the first training does."))


def move_plans_between_datasets(request: MovePlansRequest, shell: Shell) -> None:
    """Use the plans of one dataset for another."""
    print(move_plans(shell.workspace, request))
    for text in move_warnings(shell.workspace, request):
        print(f"Warning: {text} Plan the dataset by itself if it is not related to the other.", file=sys.stderr)
