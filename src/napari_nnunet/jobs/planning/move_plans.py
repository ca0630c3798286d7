"""Use the plans of one dataset for another, for pretraining and comparison."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from napari_nnunet.errors import DatasetError
from napari_nnunet.formats.atomic import copy_file, make_folder, write_json
from napari_nnunet.formats.dataset.raw_dataset import RawDataset, open_dataset, reader_of
from napari_nnunet.formats.preprocessed.plans import read_plans
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.schema.names import require_plain
from napari_nnunet.schema.plans import Plans
from napari_nnunet.schema.requests.planning import MovePlansRequest


def move_plans(workspace: Workspace, request: MovePlansRequest) -> Path:
    """Write the plans of one dataset for another.

    Spacing, patches, normalisation and intensity statistics are kept; only names and the image reader change. The
    target's dataset.json is put beside, so that preprocessing can follow at once.

    Parameters
    ----------
    workspace : Workspace
        Where both lie.
    request : MovePlansRequest
        Which plans, from which dataset, for which.

    Returns
    -------
    Path
        The new plans file.

    Raises
    ------
    PlanError
        If the source has no such plans.
    DatasetError
        If the target's raw data are incomplete, or have another number of channels than the plans normalise.
    """
    source, target = workspace.dataset_name(request.source), workspace.dataset_name(request.target)
    plans_name = request.plans
    plans = read_plans(workspace.preprocessed / source, plans_name)
    dataset = open_dataset(workspace.raw / target)
    name = require_plain(request.new_name or plans_name, "The name of the plans")
    _require_channels(plans, dataset)
    content: dict[str, Any] = copy.deepcopy(dict(plans.raw))
    content["dataset_name"] = target
    content["image_reader_writer"] = reader_of(dataset)
    content["plans_name"] = name
    if name != plans_name:
        for configuration in content["configurations"].values():
            old = configuration.get("data_identifier")
            if old is not None:
                begins = old.startswith(plans_name)
                configuration["data_identifier"] = name + old[len(plans_name) :] if begins else f"{name}_{old}"
    base = make_folder(workspace.preprocessed / target)
    path = base / f"{name}.json"
    write_json(path, content)
    copy_file(dataset.folder / "dataset.json", base / "dataset.json")
    return path


def _require_channels(plans: Plans, dataset: RawDataset) -> None:
    channels = dataset.info.channel_names
    for configuration in map(plans.configuration, plans.configurations):
        planned = len(configuration.normalization_schemes)
        if planned != len(channels):
            raise DatasetError(
                f"The plans {plans.plans_name} are for images with {_many(planned)}, {dataset.folder.name} has "
                f"{_many(len(channels))} ({', '.join(channels)}). Plan it by itself."
            )


def _many(channels: int) -> str:
    return f"{channels} channel{'s' if channels > 1 else ''}"
