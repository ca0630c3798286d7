"""Models out and in; the demo and the look at this computer."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from napari_nnunet.errors import ModelError, ResourceError
from napari_nnunet.formats.model.folder import load_model
from napari_nnunet.jobs.sharing.cards import card_text
from napari_nnunet.jobs.sharing.carry import export_model as export_model_job
from napari_nnunet.jobs.sharing.catalogue import fetch_model as fetch_by_name
from napari_nnunet.jobs.sharing.catalogue import list_models as list_catalogue
from napari_nnunet.jobs.sharing.export import export_models
from napari_nnunet.jobs.sharing.install import download_model, install_zip
from napari_nnunet.jobs.sharing.quantize import quantize as quantize_job
from napari_nnunet.schema.plans import TRAINABLE

if TYPE_CHECKING:
    from napari_nnunet.cli.shell import Shell
    from napari_nnunet.formats.model.folder import TrainedModel
    from napari_nnunet.formats.workspace import Workspace
    from napari_nnunet.jobs.sharing.install import Installed
    from napari_nnunet.schema.requests.sharing import (
        CarryRequest,
        DemoRequest,
        DoctorRequest,
        DownloadRequest,
        ExportRequest,
        FetchModelRequest,
        ImportV1Request,
        InstallRequest,
        ListModelsRequest,
        QuantizeRequest,
    )


def export_model_to_zip(request: ExportRequest, shell: Shell) -> None:
    """Write models into a zip."""
    print(shell.run(export_models(_chosen(shell.workspace, request), request.target, request)))


def export_model(request: CarryRequest, shell: Shell) -> None:
    """Write a model for other programs."""
    print(shell.run(export_model_job(request)))


def _chosen(workspace: Workspace, request: ExportRequest) -> list[TrainedModel]:

    found, missing = [], None
    for configuration in request.configurations or TRAINABLE:
        try:
            folder = workspace.model_folder(
                request.dataset, trainer=request.trainer, plans=request.plans, configuration=configuration
            )
            found.append(load_model(folder))
        except ModelError as error:
            missing = missing or error
            if request.configurations is not None and request.strict:
                raise
    if not found and missing is not None:
        raise missing
    return found


def install_pretrained_model_from_zip(request: InstallRequest, shell: Shell) -> None:
    """Install the models of a zip."""
    _say(shell.run(install_zip(shell.workspace, request)))


def download_pretrained_model_by_url(request: DownloadRequest, shell: Shell) -> None:
    """Download a zip and install its models."""
    _say(shell.run(download_model(shell.workspace, request)))


def list_models(request: ListModelsRequest, shell: Shell) -> None:
    """Print what a catalogue has."""
    for entry in shell.run(list_catalogue(request)).entries:
        print(f"{entry.name}: {', '.join(entry.segments)} in {entry.modality} ({entry.size / 1e6:,.1f} MB)")
        print(f"    {entry.licence}{f'; {entry.title}' if entry.title else ''}")


def fetch_model(request: FetchModelRequest, shell: Shell) -> None:
    """Download a model by its name and install it."""
    _say(shell.run(fetch_by_name(shell.workspace, request)))


def _say(installed: Installed) -> None:
    if installed.card is not None:
        print(card_text(installed.card))
    for folder in installed.folders:
        print(folder)


def quantize(request: QuantizeRequest, shell: Shell) -> None:
    """Quantise a model and say what that brings."""
    print(shell.run(quantize_job(shell.workspace, request)).advice)


def import_old_nnunet_model(request: ImportV1Request, shell: Shell) -> None:
    """Import a model of nnU-Net v1."""
    from napari_nnunet.jobs.sharing.import_v1 import import_v1_model  # only this verb loads torch for it

    print(shell.run(import_v1_model(shell.workspace, request)))


def doctor(request: DoctorRequest, _: Shell) -> None:
    """Print what this computer has."""
    from napari_nnunet.jobs.doctor import examine  # likewise

    print(examine(again=request.again))


def demo(request: DemoRequest, shell: Shell) -> None:
    """Do the main job from nothing."""
    if request.objects:
        _demo_objects(request, shell)
        return
    from napari_nnunet.jobs.demo import demo as job  # all other rooms

    result = shell.run(job(request))
    for name, value in result.dice.items():
        print(f"Dice {name:<8} {value:.3f}")
    print(f"Image, truth, result: {result.picture}")
    print(f"Training curves: {result.curves}")
    print(f"Dataset, plans and model: {result.folder / 'workspace'}")
    if request.gui:
        _open_napari(request.target, "sample_001", ".nii.gz")


def _demo_objects(request: DemoRequest, shell: Shell) -> None:
    from napari_nnunet.jobs.demo_objects import demo_objects  # likewise

    result = shell.run(demo_objects(request))
    for name in ("AP@0.5", "AP@0.75", "F1@0.5", "PQ"):
        print(f"{name:<8} {result.scores[name]:.3f}")
    print(f"{result.scores['found']} of {result.scores['references']} found, {result.scores['invented']} invented")
    print(f"Image, truth, result: {result.picture}")
    print(f"Dataset, plans and model: {result.folder / 'workspace'}")
    if request.gui:
        _open_napari(request.target, "nuclei_000", ".png")


def _open_napari(folder: Path, case: str, ending: str) -> None:
    """Open image and result in napari, as a program of its own: the command line does not know napari."""
    files = [folder / f"imagesTs/{case}_0000{ending}", folder / f"predictions/{case}{ending}"]
    program = "napari_nnunet.widgets.show"
    try:
        subprocess.run([sys.executable, "-m", program, *map(str, files)], check=True)
    except subprocess.CalledProcessError as error:
        raise ResourceError(
            "napari could not be opened. Is there a screen, and is it installed (pip install 'napari-nnunet[all]')?"
        ) from error
