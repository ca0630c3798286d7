"""Models out and in: ``export_model_to_zip`` and what takes zips in."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from napari_nnunet.cli._plan import add_output, run_shown
from napari_nnunet.cli._predict import Verbs
from napari_nnunet.errors import ModelError
from napari_nnunet.schema.names import parse_fold
from napari_nnunet.schema.plans import TRAINABLE

if TYPE_CHECKING:
    from napari_nnunet.formats.model.folder import TrainedModel
    from napari_nnunet.formats.workspace import Workspace
    from napari_nnunet.jobs.sharing.share import Installed


def add_verbs(verbs: Verbs) -> None:
    """Add the verbs."""
    _add_export(verbs)
    install = verbs.add_parser(
        "install_pretrained_model_from_zip",
        help="take in models from a zip",
        description="Unpack the models of a zip (of this program or nnU-Net) into the workspace, after checking it.",
        allow_abbrev=False,
    )
    install.add_argument("zip", type=Path, help="the file")
    _add_install(install)
    install.set_defaults(run=_install)
    download = verbs.add_parser(
        "download_pretrained_model_by_url",
        help="download a zip and take its models in",
        description="Download a zip with models and take them in. After an interruption, the same command goes on.",
        allow_abbrev=False,
    )
    download.add_argument("url", help="https://...zip")
    download.add_argument("--sha256", metavar="SUM", help="checksum of the file")
    _add_install(download)
    download.set_defaults(run=_download)
    old = verbs.add_parser(
        "import_old_nnunet_model",
        help="take in a trained model of nnU-Net v1",
        description="Turn a trained model of nnU-Net v1 (TRAINER__PLANS with plans.pkl and fold_*) into the layout of "
        "v2. It is read without executing anything.",
        allow_abbrev=False,
    )
    old.add_argument("input_folder", type=Path, help="nnUNet/3d_fullres/TaskXXX_Name/nnUNetTrainerV2__nnUNetPlansv2.1")
    old.add_argument("output_dataset_name", help="DatasetXXX_Name")
    old.add_argument("-dataset_json", type=Path, metavar="FILE", help="the task's dataset.json: names of classes")
    add_output(old)
    old.set_defaults(run=_import_old)


def _add_export(verbs: Verbs) -> None:
    parser = verbs.add_parser(
        "export_model_to_zip",
        help="write trained models into a zip, to give away",
        description="Write trained models of a dataset into a zip that this program and nnU-Net install.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("-d", required=True, metavar="DATASET", help="number or name")
    add("-o", required=True, type=Path, metavar="ZIP", help="the file")
    add("-c", nargs="+", metavar="CONFIGURATION", help="(default: all that were trained)")
    add("-tr", default="nnUNetTrainer", metavar="TRAINER", help="(default: %(default)s)")
    add("-p", default="nnUNetPlans", metavar="PLANS", help="(default: %(default)s)")
    add("-f", nargs="+", metavar="FOLD", help="folds (default: all that were trained)")
    add("-chk", nargs="+", default=["checkpoint_final.pth"], metavar="NAME", help="checkpoints (default: %(default)s)")
    add("--not_strict", action="store_true", help="leave out what is asked for with -c but was not trained")
    add("--exp_cv_preds", action="store_true", help="also the segmentations of the validation cases")
    add("--light", action="store_true", help="only what inference needs: half the size, no training goes on from it")
    for name, what in (
        ("title", "title of the card"),
        ("description", "what the model is for"),
        ("authors", "who made it"),
        ("licence", "licence of the weights"),
        ("citation", "what to cite"),
    ):
        add(f"--{name}", metavar="TEXT", help=f"on the card: {what}")
    add("--thumbnail", type=Path, metavar="PNG", help="on the card: a picture (remember that it may show a patient)")
    add("--replace", action="store_true", help="replace a zip of that name")
    add_output(parser)
    parser.set_defaults(run=_export)


def _add_install(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--replace", action="store_true", help="move models of the same name to the trash first")
    add_output(parser)


def _export(options: argparse.Namespace) -> int:
    from napari_nnunet.formats.workspace import Workspace
    from napari_nnunet.jobs.sharing.share import ExportSettings, export_models

    workspace = Workspace.resolve(options.workspace, os.environ)
    card = {
        name: value
        for name in ("title", "description", "authors", "licence", "citation")
        if (value := getattr(options, name)) is not None
    }
    settings = ExportSettings(
        folds=None if options.f is None else tuple(parse_fold(word) for word in options.f),
        checkpoints=tuple(options.chk),
        light=options.light,
        validation=options.exp_cv_preds,
        card=card,
        thumbnail=options.thumbnail,
    )
    models = _chosen(workspace, options)
    print(run_shown(export_models(models, options.o, settings, replace=options.replace), options))
    return 0


def _chosen(workspace: Workspace, options: argparse.Namespace) -> list[TrainedModel]:
    from napari_nnunet.formats.model.folder import load_model

    found, missing = [], None
    for configuration in options.c or TRAINABLE:
        try:
            folder = workspace.model_folder(options.d, trainer=options.tr, plans=options.p, configuration=configuration)
            found.append(load_model(folder))
        except ModelError as error:
            missing = missing or error
            if options.c is not None and not options.not_strict:
                raise
    if not found and missing is not None:
        raise missing
    return found


def _install(options: argparse.Namespace) -> int:
    from napari_nnunet.formats.workspace import Workspace
    from napari_nnunet.jobs.sharing.share import install_zip

    results = Workspace.resolve(options.workspace, os.environ).results
    return _tell(run_shown(install_zip(options.zip, results, replace=options.replace), options))


def _download(options: argparse.Namespace) -> int:
    from napari_nnunet.formats.workspace import Workspace
    from napari_nnunet.jobs.sharing.share import download_model

    results = Workspace.resolve(options.workspace, os.environ).results
    job = download_model(options.url, results, sha256=options.sha256, replace=options.replace)
    return _tell(run_shown(job, options))


def _tell(installed: Installed) -> int:
    if installed.card is not None:
        from napari_nnunet.jobs.sharing.share import card_text

        print(card_text(installed.card))
    for folder in installed.folders:
        print(folder)
    return 0


def _import_old(options: argparse.Namespace) -> int:
    from napari_nnunet.formats.workspace import Workspace
    from napari_nnunet.jobs.sharing.import_v1 import import_v1_model

    results = Workspace.resolve(options.workspace, os.environ).results
    job = import_v1_model(options.input_folder, results, options.output_dataset_name, dataset_json=options.dataset_json)
    print(run_shown(job, options))
    return 0
