"""``predict`` and ``predict_from_modelfolder`` with nnU-Net's flags."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_nnunet.cli._checked import checked
from napari_nnunet.schema.names import parse_fold
from napari_nnunet.schema.requests.prediction import PRESETS, PredictSettings

if TYPE_CHECKING:
    from napari_nnunet.formats.model.folder import TrainedModel

Verbs = Any  # argparse names its own type only privately


def add_verbs(verbs: Verbs) -> None:
    """Add both verbs."""
    by_name = verbs.add_parser(
        "predict",
        help="segment a folder of images with a model of the workspace",
        description="Segment a folder of images with a trained model, given by dataset and configuration.",
        allow_abbrev=False,
    )
    _add_common(by_name)
    by_name.add_argument("-d", required=True, metavar="DATASET", help="dataset number or name")
    by_name.add_argument("-c", required=True, metavar="CONFIGURATION", help="2d, 3d_fullres, 3d_lowres, ...")
    by_name.add_argument("-p", default="nnUNetPlans", metavar="PLANS", help="plans name (default: %(default)s)")
    by_name.add_argument("-tr", default="nnUNetTrainer", metavar="TRAINER", help="trainer (default: %(default)s)")
    by_name.add_argument("-num_parts", type=int, default=1, metavar="N", help="split the cases into N parts ...")
    by_name.add_argument("-part_id", type=int, default=0, metavar="K", help="... and take part K (0 to N-1)")
    by_name.add_argument(
        "--workspace", type=Path, metavar="DIR", help="folder with nnUNet_raw, nnUNet_preprocessed and nnUNet_results"
    )
    by_name.set_defaults(run=_predict)
    by_folder = verbs.add_parser(
        "predict_from_modelfolder",
        help="segment a folder of images with the model in a folder",
        description="Segment a folder of images with the trained model in a folder.",
        allow_abbrev=False,
    )
    _add_common(by_folder)
    by_folder.add_argument("-m", required=True, type=Path, metavar="MODEL", help="folder with plans.json and fold_*")
    by_folder.set_defaults(run=_predict_from_modelfolder)


def _add_common(parser: argparse.ArgumentParser) -> None:
    default = PredictSettings()
    add = parser.add_argument
    add("-i", required=True, type=Path, metavar="INPUT", help="folder with CASE_0000.ext, CASE_0001.ext, ...")
    add("-o", required=True, type=Path, metavar="OUTPUT", help="folder for the segmentations")
    add("-f", nargs="+", metavar="FOLD", help="folds to average, numbers or 'all' (default: all that were trained)")
    add("-step_size", type=float, metavar="S", help=f"tile step as a fraction of the tile (default: {default.step})")
    add("--disable_tta", action="store_true", help="no mirroring: up to 8 times faster, a little less accurate")
    add("--preset", choices=list(PRESETS), help="a preset for folds, mirroring and step; flags given beside it win")
    add("--save_probabilities", action="store_true", help="also write CASE.npz and CASE.pkl, for ensembling")
    add("--continue_prediction", "--c", action="store_true", help="skip cases whose complete output is there")
    add("-chk", default=default.checkpoint, metavar="NAME", help="checkpoint (default: %(default)s)")
    add(
        "-prev_stage_predictions",
        type=Path,
        metavar="DIR",
        help="segmentations of a cascade's first stage (default: predict them)",
    )
    add("-device", default=default.device, metavar="DEVICE", help="auto, cpu, cuda, cuda:1, mps (default: %(default)s)")
    add("--backend", default=default.backend, choices=["auto", "torch", "openvino"], help="(default: %(default)s)")
    add(
        "--precision",
        default=default.precision,
        choices=["auto", "float32", "bfloat16", "float16"],
        help="(default: %(default)s)",
    )
    add("--threads", type=int, default=default.threads, metavar="N", help="CPU threads (default: all)")
    add("--not_on_device", action="store_true", help="sum up in main memory instead of the GPU's")
    add("-npp", type=int, metavar="N", help="accepted as in nnU-Net, but not needed: no worker processes are used")
    add("-nps", type=int, metavar="N", help="accepted as in nnU-Net, but not needed: no worker processes are used")
    add("--verbose", action="store_true", help="print every note")
    add("--disable_progress_bar", action="store_true", help="no progress bar")
    add("--events", type=Path, metavar="FILE", help="append every event to FILE as JSON lines")


def _predict(options: argparse.Namespace) -> int:
    from napari_nnunet.formats.model.folder import load_model
    from napari_nnunet.formats.workspace import Workspace

    workspace = Workspace.resolve(options.workspace, os.environ)
    folder = workspace.model_folder(options.d, trainer=options.tr, plans=options.p, configuration=options.c)
    return _run(options, load_model(folder), part=options.part_id, parts=options.num_parts)


def _predict_from_modelfolder(options: argparse.Namespace) -> int:
    from napari_nnunet.formats.model.folder import load_model

    return _run(options, load_model(options.m), part=0, parts=1)


def _run(options: argparse.Namespace, model: TrainedModel, *, part: int, parts: int) -> int:
    from napari_nnunet.cli._show import show
    from napari_nnunet.jobs.prediction.predict_files import FolderSettings, predict_folder

    folder = FolderSettings(
        source=options.i,
        target=options.o,
        keep_finished=options.continue_prediction,
        previous=options.prev_stage_predictions,
        part=part,
        parts=parts,
    )
    settings = settings_of(options, model)
    result = show(
        predict_folder(model, folder, settings),
        events=options.events,
        bar=not options.disable_progress_bar,
        verbose=options.verbose,
    )
    if result.failed:
        print(f"{len(result.failed)} of {len(result.failed) + len(result.done)} cases failed.", file=sys.stderr)
        return 1
    return 0


def settings_of(options: argparse.Namespace, model: TrainedModel) -> PredictSettings:
    """Return what the flags ask for; a preset first, then the flags that were given."""
    from napari_nnunet.schema.requests.prediction import preset

    settings = PredictSettings(checkpoint=options.chk)
    if options.preset is not None:
        settings = preset(options.preset, folds=model.resolve_folds(None, options.chk), base=settings)
    changes: dict[str, object] = {
        "device": options.device,
        "backend": options.backend,
        "precision": options.precision,
        "threads": options.threads,
        "on_device": not options.not_on_device,
        "probabilities": options.save_probabilities,
    }
    if options.f is not None:
        changes["folds"] = tuple(parse_fold(word) for word in options.f)
    if options.step_size is not None:
        changes["step"] = options.step_size
    if options.disable_tta:
        changes["mirroring"] = False
    with checked():
        return settings.replace(**changes)
