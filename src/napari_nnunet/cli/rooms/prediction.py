"""Folders of images are segmented."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from napari_nnunet.errors import counted
from napari_nnunet.formats.model.folder import load_model
from napari_nnunet.jobs.prediction.combined import best_combination
from napari_nnunet.jobs.prediction.predict_files import predict_combined_folder, predict_folder
from napari_nnunet.jobs.prediction.presets import measure_presets as measure_presets_job
from napari_nnunet.schema.requests.prediction import PredictFolderRequest

if TYPE_CHECKING:
    from napari_nnunet.cli.shell import Shell
    from napari_nnunet.jobs.prediction.folder.loop import FolderResult
    from napari_nnunet.schema.requests.prediction import (
        MeasurePresetsRequest,
        PredictBestRequest,
        PredictFromModelfolderRequest,
        PredictRequest,
    )


def predict(request: PredictRequest, shell: Shell) -> int:
    """Segment with a model of the workspace."""
    folder = shell.workspace.model_folder(
        request.dataset, trainer=request.trainer, plans=request.plans, configuration=request.configuration
    )
    return _predict(folder, request, shell)


def predict_from_modelfolder(request: PredictFromModelfolderRequest, shell: Shell) -> int:
    """Segment with the model in a folder."""
    return _predict(request.model, request, shell)


def _predict(model: Path, request: PredictFolderRequest, shell: Shell) -> int:

    return _say(shell.run(predict_folder(load_model(model), request.only(PredictFolderRequest))))


def predict_best(request: PredictBestRequest, shell: Shell) -> int:
    """Segment with what was found to be best."""
    workspace = shell.workspace
    combination = best_combination(workspace, workspace.dataset_name(request.dataset), request.settings())
    if request.uncertainty:
        combination = replace(combination, vote=replace(combination.vote, uncertainty=True))
    return _say(shell.run(predict_combined_folder(combination, request.only(PredictFolderRequest))))


def _say(result: FolderResult) -> int:
    if not result.failed:
        return 0
    print(f"{len(result.failed)} of {counted(len(result.failed) + len(result.done), 'case')} failed.", file=sys.stderr)
    return 1


def measure_presets(request: MeasurePresetsRequest, shell: Shell) -> None:
    """Print Dice and time of every preset."""
    for name, entry in shell.run(measure_presets_job(request)).items():
        print(f"{name:<9} Dice {entry['dice']:.4f}   {entry['seconds_per_case']:.1f} s per case")
