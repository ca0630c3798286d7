"""``extract_fingerprint`` and ``plan_experiment`` with nnU-Net's flags (facts 9.3)."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from napari_nnunet.cli._predict import Verbs
from napari_nnunet.schema.settings import PlanSettings


def add_verbs(verbs: Verbs) -> None:
    """Add both verbs."""
    fingerprint = verbs.add_parser(
        "extract_fingerprint",
        help="measure the training cases of datasets",
        description="Measure all training cases of datasets (spacings, shapes, intensities) for planning.",
        allow_abbrev=False,
    )
    _add_common(fingerprint)
    fingerprint.add_argument(
        "-np", type=int, default=0, metavar="N", help="cases at the same time (default: all cores)"
    )
    fingerprint.add_argument("--clean", action="store_true", help="measure again even if nothing changed")
    fingerprint.add_argument(
        "--sampled", action="store_true", help="nnU-Net's random draws instead of exact figures, for identical numbers"
    )
    fingerprint.set_defaults(run=_fingerprint)
    default = PlanSettings()
    planning = verbs.add_parser(
        "plan_experiment",
        help="plan measured datasets",
        description="Choose spacing, patch, network and batch of every configuration from the fingerprint.",
        allow_abbrev=False,
    )
    _add_common(planning)
    planning.add_argument("-pl", default=default.planner, metavar="PLANNER", help="planner (default: %(default)s)")
    planning.add_argument("-gpu_memory_target", type=float, metavar="GB", help="default: the planner's")
    planning.add_argument("-preprocessor_name", default="DefaultPreprocessor", choices=["DefaultPreprocessor"])
    planning.add_argument(
        "-overwrite_target_spacing", type=float, nargs=3, metavar=("Z", "Y", "X"), help="in mm, the reader's axis order"
    )
    planning.add_argument("-overwrite_plans_name", metavar="NAME", help="default: the planner's")
    planning.set_defaults(run=_plan)


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-d", nargs="+", required=True, metavar="DATASET", help="dataset numbers or names")
    parser.add_argument(
        "--workspace", type=Path, metavar="DIR", help="folder with nnUNet_raw, nnUNet_preprocessed and nnUNet_results"
    )
    parser.add_argument("--verbose", action="store_true", help="print every note")
    parser.add_argument("--no_pbar", action="store_true", help="no progress bar")
    parser.add_argument("--events", type=Path, metavar="FILE", help="append every event to FILE as JSON lines")


def _fingerprint(options: argparse.Namespace) -> int:
    from napari_nnunet.cli._show import show
    from napari_nnunet.formats.workspace import Workspace
    from napari_nnunet.jobs.plan import extract_fingerprint

    workspace = Workspace.resolve(options.workspace, os.environ)
    for dataset in options.d:
        name = workspace.dataset_name(dataset)
        job = extract_fingerprint(workspace, name, workers=options.np, clean=options.clean, sampled=options.sampled)
        show(job, events=options.events, bar=not options.no_pbar, verbose=options.verbose)
        print(workspace.preprocessed / name / "dataset_fingerprint.json")
    return 0


def _plan(options: argparse.Namespace) -> int:
    from napari_nnunet.cli._show import show
    from napari_nnunet.formats.workspace import Workspace
    from napari_nnunet.jobs.plan import plan_experiment

    workspace = Workspace.resolve(options.workspace, os.environ)
    spacing = options.overwrite_target_spacing
    settings = PlanSettings(
        planner=options.pl,
        gpu_memory_gb=options.gpu_memory_target,
        target_spacing=None if spacing is None else tuple(spacing),
        plans_name=options.overwrite_plans_name,
    )
    for dataset in options.d:
        job = plan_experiment(workspace, workspace.dataset_name(dataset), settings)
        print(show(job, events=options.events, bar=not options.no_pbar, verbose=options.verbose))
    return 0
