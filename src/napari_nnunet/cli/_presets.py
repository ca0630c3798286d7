"""``measure_presets``: what Fast and Balanced cost in Dice, noted in the model folder."""

from __future__ import annotations

import argparse
from pathlib import Path

from napari_nnunet.cli._checked import checked
from napari_nnunet.cli._predict import Verbs


def add_verbs(verbs: Verbs) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "measure_presets",
        help="measure what the presets fast and balanced cost in Dice",
        description="Segment labelled cases with every preset, print Dice and time, and note them in the model folder, "
        "where the Segment dock finds them. Use cases the model was not trained on.",
        allow_abbrev=False,
    )
    parser.add_argument("-m", required=True, type=Path, metavar="MODEL", help="model folder")
    parser.add_argument("-i", required=True, type=Path, metavar="IMAGES", help="folder with CASE_0000.ext, ...")
    parser.add_argument("-l", required=True, type=Path, metavar="LABELS", help="folder with CASE.ext")
    parser.add_argument("-device", default="auto", metavar="DEVICE", help="auto, cpu, cuda, mps (default: %(default)s)")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from napari_nnunet.cli._show import show
    from napari_nnunet.formats.model.folder import load_model
    from napari_nnunet.jobs.prediction.presets import measure_presets
    from napari_nnunet.schema.requests.prediction import PredictSettings

    with checked():
        settings = PredictSettings(device=options.device)
    measured = show(measure_presets(load_model(options.m), options.i, options.l, settings=settings))
    for name, entry in measured.items():
        print(f"{name:<9} Dice {entry['dice']:.4f}   {entry['seconds_per_case']:.1f} s per case")
    return 0
