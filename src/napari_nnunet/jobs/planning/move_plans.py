"""Use the plans of one dataset for another, for pretraining and comparison."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from napari_nnunet.errors import DatasetError
from napari_nnunet.formats.atomic import copy_file, write_json
from napari_nnunet.formats.claim import claimed
from napari_nnunet.formats.dataset.raw_dataset import RawDataset, open_dataset, reader_of
from napari_nnunet.formats.images.files import read_header
from napari_nnunet.formats.preprocessed.plans import read_plans
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.schema.names import require_plain
from napari_nnunet.schema.plans import Plans
from napari_nnunet.schema.requests.planning import MovePlansRequest

_FAR = 10.0  # times: a wrong unit is 1000, scanners and microscopes of one kind differ by less


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
    SettingsError
        If others are planning the same, or the target is being moved.
    """
    source, target = workspace.dataset_name(request.source), workspace.dataset_name(request.target)
    plans_name = request.plans
    plans = read_plans(workspace.preprocessed / source, plans_name)
    name = require_plain(request.new_name or plans_name, "The name of the plans")
    content: dict[str, Any] = copy.deepcopy(dict(plans.raw))
    content["dataset_name"] = target
    content["plans_name"] = name
    if name != plans_name:
        for configuration in content["configurations"].values():
            old = configuration.get("data_identifier")
            if old is not None:
                begins = old.startswith(plans_name)
                configuration["data_identifier"] = name + old[len(plans_name) :] if begins else f"{name}_{old}"
    path = workspace.preprocessed / target / f"{name}.json"
    with claimed(path.parent, f"{name} of {target} are already being planned", part=path.name):
        dataset = open_dataset(workspace.raw / target)
        _require_channels(plans, dataset)
        content["image_reader_writer"] = reader_of(dataset)
        copy_file(dataset.folder / "dataset.json", path.with_name("dataset.json"))
        write_json(path, content)
    return path


def move_warnings(workspace: Workspace, request: MovePlansRequest) -> tuple[str, ...]:
    """Return what speaks against plans of another dataset: intensities of another kind, voxels of another size.

    Raises
    ------
    PlanError, DatasetError, ImageError
        If plans, target or its first image cannot be read.
    """
    plans = read_plans(workspace.preprocessed / workspace.dataset_name(request.source), request.plans)
    dataset = open_dataset(workspace.raw / workspace.dataset_name(request.target))
    geometry = read_header(dataset.cases[0].images[0], reader=reader_of(dataset)).geometry
    found: dict[str, None] = {}
    for configuration in map(plans.configuration, plans.configurations):
        for channel, scheme in zip(dataset.info.channel_names, configuration.normalization_schemes, strict=True):
            if (channel.casefold() == "ct") != (scheme == "CTNormalization"):
                kind = (
                    "as CT, with the intensities of the other dataset"
                    if scheme == "CTNormalization"
                    else f"by {scheme}"
                )
                found[f"The plans normalise the channel {channel} {kind}."] = None
        spacing = [geometry.spacing_3d[axis] for axis in plans.transpose_forward][-len(configuration.spacing) :]
        far = [a / b for a, b in zip(spacing, configuration.spacing, strict=True) if not 1 / _FAR <= a / b <= _FAR]
        if far:
            own, planned = (" x ".join(f"{v:g}" for v in sizes) for sizes in (spacing, configuration.spacing))
            text = (
                f"The voxels of {dataset.folder.name} are {own} mm, {configuration.name} resamples them to {planned} mm"
            )
            found[f"{text}, more than {_FAR:g} times larger or smaller."] = None
    return tuple(found)


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
