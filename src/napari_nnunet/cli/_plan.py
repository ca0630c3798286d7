"""From a raw dataset to a preprocessed one: nnU-Net's verbs with its flags."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from napari_nnunet.cli._checked import checked
from napari_nnunet.cli._predict import Verbs
from napari_nnunet.schema.plans import STANDARD
from napari_nnunet.schema.requests.planning import PlanSettings

if TYPE_CHECKING:
    from napari_nnunet.events import Job
    from napari_nnunet.formats.workspace import Workspace
    from napari_nnunet.jobs.planning.preprocess import PreprocessResult

T = TypeVar("T")


def add_verbs(verbs: Verbs) -> None:
    """Add the verbs."""
    whole = _verb(
        verbs,
        "plan_and_preprocess",
        _plan_and_preprocess,
        "measure, plan and preprocess datasets",
        "Do everything between raw data and training: check (on request), measure, plan, preprocess.",
    )
    _add_measuring(whole, "-npfp")
    whole.add_argument("--no_pp", action="store_true", help="stop after planning")
    _add_planning(whole)
    _add_preprocessing(whole)
    measuring = _verb(
        verbs,
        "extract_fingerprint",
        _fingerprint,
        "measure the training cases of datasets",
        "Measure all training cases of datasets (spacings, shapes, intensities) for planning.",
    )
    _add_measuring(measuring, "-np")
    planning = _verb(
        verbs,
        "plan_experiment",
        _plan,
        "plan measured datasets",
        "Choose spacing, patch, network and batch of every configuration from the fingerprint.",
    )
    _add_planning(planning)
    preprocessing = _verb(
        verbs,
        "preprocess",
        _preprocess,
        "preprocess planned datasets",
        "Crop, normalise and resample all training cases; what is up to date is left as it is.",
    )
    preprocessing.add_argument(
        "-plans_name", "-p", default="nnUNetPlans", metavar="NAME", help="(default: %(default)s)"
    )
    preprocessing.add_argument("--clean", action="store_true", help="make everything again")
    _add_preprocessing(preprocessing)
    checking = _verb(
        verbs,
        "verify_dataset_integrity",
        _verify,
        "check raw datasets and list every problem",
        "Check files, labels, geometry and values of raw datasets; report every problem at once.",
    )
    checking.add_argument("-np", type=int, default=0, metavar="N", help="cases at the same time (default: all cores)")
    moving = verbs.add_parser(
        "move_plans_between_datasets",
        help="use the plans of one dataset for another",
        description="Write the plans of one dataset for another; preprocess it with them afterwards.",
        allow_abbrev=False,
    )
    moving.add_argument("-s", required=True, metavar="SOURCE", help="dataset whose plans are used")
    moving.add_argument("-t", required=True, metavar="TARGET", help="dataset that gets them")
    moving.add_argument("-sp", required=True, metavar="PLANS", help="name of the plans")
    moving.add_argument("-tp", metavar="NAME", help="their name in the target (default: the same)")
    moving.add_argument("--workspace", type=Path, metavar="DIR", help=WORKSPACE_HELP)
    moving.set_defaults(run=_move)


WORKSPACE_HELP = "folder with nnUNet_raw, nnUNet_preprocessed and nnUNet_results"


def _verb(verbs: Verbs, name: str, run: Any, short: str, long: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = verbs.add_parser(name, help=short, description=long, allow_abbrev=False)
    parser.add_argument("-d", nargs="+", required=True, metavar="DATASET", help="dataset numbers or names")
    add_output(parser)
    parser.set_defaults(run=run)
    return parser


def add_output(parser: argparse.ArgumentParser) -> None:
    """Add what every verb that takes time has: where things lie, and how progress is shown."""
    parser.add_argument("--workspace", type=Path, metavar="DIR", help=WORKSPACE_HELP)
    parser.add_argument("--verbose", action="store_true", help="print every note")
    parser.add_argument("--no_pbar", action="store_true", help="no progress bar")
    parser.add_argument("--events", type=Path, metavar="FILE", help="append every event to FILE as JSON lines")


def _add_measuring(parser: argparse.ArgumentParser, workers: str) -> None:
    parser.add_argument(
        "-fpe",
        default="DatasetFingerprintExtractor",
        choices=["DatasetFingerprintExtractor"],
        help="accepted for nnU-Net's sake; there is one",
    )
    parser.add_argument(
        workers, type=int, default=0, metavar="N", help="cases measured at the same time (default: all cores)"
    )
    parser.add_argument("--verify_dataset_integrity", action="store_true", help="check the dataset first")
    parser.add_argument("--clean", action="store_true", help="do it again even if nothing changed")
    parser.add_argument(
        "--sampled", action="store_true", help="nnU-Net's random draws instead of exact figures, for identical numbers"
    )


def _add_planning(parser: argparse.ArgumentParser) -> None:
    default = PlanSettings()
    parser.add_argument("-pl", default=default.planner, metavar="PLANNER", help="planner (default: %(default)s)")
    parser.add_argument("-gpu_memory_target", type=float, metavar="GB", help="default: the planner's")
    parser.add_argument("-preprocessor_name", default="DefaultPreprocessor", choices=["DefaultPreprocessor"])
    parser.add_argument(
        "-overwrite_target_spacing", type=float, nargs=3, metavar=("Z", "Y", "X"), help="in mm, the reader's axis order"
    )
    parser.add_argument("-overwrite_plans_name", metavar="NAME", help="default: the planner's")


def _add_preprocessing(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-c", nargs="+", default=list(STANDARD), metavar="CONFIGURATION", help="(default: %(default)s)")
    parser.add_argument(
        "-np",
        type=int,
        nargs="+",
        default=[0],
        metavar="N",
        help="cases at the same time, at most; fewer run where memory does not suffice (default: all cores). "
        "Of nnU-Net's one number per configuration the largest is taken: all are made in one pass",
    )
    parser.add_argument("--memory", type=float, default=0, metavar="GB", help="for all workers (default: what is free)")


def _each(options: argparse.Namespace) -> tuple[Workspace, list[str]]:
    from napari_nnunet.formats.workspace import Workspace

    workspace = Workspace.resolve(options.workspace, os.environ)
    return workspace, [workspace.dataset_name(dataset) for dataset in options.d]


def run_shown(job: Job[T], options: argparse.Namespace) -> T:
    """Run a job and show its events as the options ask."""
    from napari_nnunet.cli._show import show

    return show(job, events=options.events, bar=not options.no_pbar, verbose=options.verbose)


def _fingerprint(options: argparse.Namespace) -> int:
    from napari_nnunet.jobs.planning.plan import extract_fingerprint

    workspace, names = _each(options)
    for name in names:
        if options.verify_dataset_integrity:
            _check(workspace, name, options, options.np)
        job = extract_fingerprint(workspace, name, workers=options.np, clean=options.clean, sampled=options.sampled)
        run_shown(job, options)
        print(workspace.preprocessed / name / "dataset_fingerprint.json")
    return 0


def _settings(options: argparse.Namespace) -> PlanSettings:
    spacing = options.overwrite_target_spacing
    with checked():
        return PlanSettings(
            planner=options.pl,
            gpu_memory_gb=options.gpu_memory_target,
            target_spacing=None if spacing is None else tuple(spacing),
            plans_name=options.overwrite_plans_name,
        )


def _plan(options: argparse.Namespace) -> int:
    from napari_nnunet.jobs.planning.plan import plan_experiment

    workspace, names = _each(options)
    for name in names:
        print(run_shown(plan_experiment(workspace, name, _settings(options)), options))
    return 0


def _preprocess(options: argparse.Namespace) -> int:
    from napari_nnunet.jobs.planning.preprocess import preprocess

    workspace, names = _each(options)
    status = 0
    for name in names:
        job = preprocess(
            workspace,
            name,
            options.plans_name,
            options.c,
            workers=max(options.np),
            memory_gb=options.memory,
            clean=options.clean,
        )
        status |= _tell(run_shown(job, options))
    return status


def _tell(result: PreprocessResult) -> int:
    for folder in result.folders:
        print(folder)
    if result.failed:
        total = len(result.failed) + len(result.done) + len(result.skipped)
        print(f"{len(result.failed)} of {total} cases failed: {', '.join(sorted(result.failed))}.", file=sys.stderr)
        return 1
    return 0


def _plan_and_preprocess(options: argparse.Namespace) -> int:
    from napari_nnunet.jobs.planning.plan_and_preprocess import plan_and_preprocess

    workspace, names = _each(options)
    status = 0
    for name in names:
        job = plan_and_preprocess(
            workspace,
            name,
            _settings(options),
            () if options.no_pp else options.c,
            check=options.verify_dataset_integrity,
            clean=options.clean,
            sampled=options.sampled,
            measure_workers=options.npfp,
            workers=max(options.np),
            memory_gb=options.memory,
        )
        result = run_shown(job, options)
        print(result.plans)
        if result.cases is not None:
            status |= _tell(result.cases)
    return status


def _verify(options: argparse.Namespace) -> int:
    from napari_nnunet.jobs.dataset.verify import verify

    workspace, names = _each(options)
    status = 0
    for name in names:
        report = run_shown(verify(workspace, name, workers=options.np), options)
        for problem in report.problems:
            print(problem)
        warnings = len(report.problems) - len(report.errors)
        print(f"{name}: {report.cases} cases, {len(report.errors)} errors, {warnings} warnings.")
        status |= bool(report.errors)
    return status


def _check(workspace: Workspace, name: str, options: argparse.Namespace, workers: int) -> None:
    """Verify; warnings are printed, errors end the verb."""
    from napari_nnunet.jobs.dataset.verify import require_sound, verify

    report = run_shown(verify(workspace, name, workers=workers), options)
    require_sound(report)
    for problem in report.problems:
        print(problem, file=sys.stderr)


def _move(options: argparse.Namespace) -> int:
    from napari_nnunet.formats.workspace import Workspace
    from napari_nnunet.jobs.planning.move_plans import move_plans

    workspace = Workspace.resolve(options.workspace, os.environ)
    source, target = workspace.dataset_name(options.s), workspace.dataset_name(options.t)
    print(move_plans(workspace, source, target, options.sp, options.tp))
    return 0
