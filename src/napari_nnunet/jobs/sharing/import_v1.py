"""Trained models of nnU-Net v1 in v2's layout, read without executing anything."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from napari_nnunet.engine.network import generic_unet
from napari_nnunet.engine.network.generic_unet import OldNetwork
from napari_nnunet.engine.network.unet import build, load_state, nnunet_state
from napari_nnunet.errors import ModelError
from napari_nnunet.events import Job, Note, Progress, Stage
from napari_nnunet.formats.atomic import make_folder, partial_name, remove_leftovers, replace_folder, write_json
from napari_nnunet.formats.claim import claimed
from napari_nnunet.formats.model.checkpoint import write_checkpoint
from napari_nnunet.formats.model.torch_file import read_torch
from napari_nnunet.formats.pickles import read_pickle
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.schema.dataset import DatasetInfo
from napari_nnunet.schema.json_text import read_object
from napari_nnunet.schema.model_name import DEFAULT_TRAINER, ModelName
from napari_nnunet.schema.names import require_dataset_name
from napari_nnunet.schema.plans import Plans
from napari_nnunet.schema.requests.sharing import ImportV1Request

PLANS = "nnUNetPlansV1"
_CHECKPOINTS = {"model_final_checkpoint.model": "checkpoint_final.pth", "model_best.model": "checkpoint_best.pth"}
_SCHEMES = {"CT": "CTNormalization", "nonCT": "ZScoreNormalization", "noNorm": "NoNormalization"}
_CONFIGURATIONS = ("2d", "3d_fullres", "3d_lowres", "3d_cascade_fullres")


def import_v1_model(workspace: Workspace, request: ImportV1Request) -> Job[Path]:
    """Turn a trained model of nnU-Net v1 into one of v2.

    v1 averages probabilities over windows, mirrors and folds where v2 averages logits; the model is marked so that this
    program does it v1's way. nnU-Net v2 itself reads the result, but averages logits.

    Parameters
    ----------
    workspace : Workspace
        Which receives it.
    request : ImportV1Request
        Its folder is ``nnUNet/CONFIGURATION/TaskXXX_Name/TRAINER__PLANS`` with plans.pkl and fold_*; the task's
        dataset.json knows the names of channels and classes.

    Returns
    -------
    Path
        The new model's folder.

    Raises
    ------
    ModelError, DatasetError
        If something is missing, or the network, its normalisation or its classes have no counterpart in v2.
    """
    source = request.source
    require_dataset_name(request.name)
    folders = sorted(p.parent for p in source.glob("fold_*/model_final_checkpoint.model"))
    folders = folders or sorted(p.parent for p in source.glob("all/model_final_checkpoint.model"))
    if not (source / "plans.pkl").is_file() or not folders:
        raise ModelError(
            f"{source} is not a trained model of nnU-Net v1: it lacks plans.pkl or fold_X/model_final_checkpoint.model."
        )
    configuration = next((name for name in _CONFIGURATIONS if name in source.parts), "")
    if not configuration:
        raise ModelError(
            f"Could not determine the configuration of {source}: no folder above it is called "
            f"{', '.join(_CONFIGURATIONS)}."
        )
    target = workspace.model(request.name, ModelName(DEFAULT_TRAINER, PLANS, configuration))
    with claimed(target.parent, f"{target} is already being imported", part=target.name):
        if target.exists():
            raise ModelError(f"{target} already exists. Remove it first, or choose another dataset name.")
        yield from _import(source, folders, target, request.dataset_json)
    return target


def _import(source: Path, folders: Sequence[Path], target: Path, dataset_json: Path | None) -> Job[None]:
    """Convert the folds of a model beside ``target``, which appears when all are done."""
    dataset, configuration = target.parent.name, ModelName.parse(target.name).configuration
    old = read_pickle(source / "plans.pkl")
    yield Stage(name="Importing", total=len(folders))
    remove_leftovers(target.parent)
    beside = make_folder(target.parent / partial_name(target.name))
    try:
        for i, folder in enumerate(folders):
            unet = _convert(folder / "model_final_checkpoint.model")
            if i == 0:
                content = _dataset_json(old, unet, dataset, dataset_json)
                plans = _plans_json(old, unet, dataset, configuration)
                yield from _say(plans, configuration)
            _write_fold(folder, beside, plans, content, configuration)
            yield Progress(done=i + 1, total=len(folders))
        write_json(beside / "plans.json", plans)
        write_json(beside / "dataset.json", content)
        replace_folder(beside, target)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _say(plans: Mapping[str, Any], configuration: str) -> Job[None]:
    if plans["configurations"][configuration].get("previous_stage"):
        yield Note(text="This is the second stage of a cascade; import its 3d_lowres under the same dataset name, too.")


def _convert(path: Path) -> OldNetwork:
    content = read_torch(path)
    if not isinstance(content.get("state_dict"), Mapping):
        raise ModelError(f"{path} is not a checkpoint of nnU-Net v1: it has no 'state_dict'.")
    try:
        return generic_unet.convert({name.removeprefix("module."): t for name, t in content["state_dict"].items()})
    except ModelError as error:
        raise ModelError(f"{path}: {error.message}") from error


def _write_fold(
    folder: Path, target: Path, plans: Mapping[str, Any], dataset: Mapping[str, Any], configuration: str
) -> None:
    name = folder.name.removeprefix("fold_")
    where = make_folder(target / f"fold_{name}")
    info, settings = DatasetInfo.parse(dataset), Plans.parse(plans).configuration(configuration)
    for old, new in _CHECKPOINTS.items():
        if not (folder / old).is_file():
            continue
        converted = _convert(folder / old)
        network = build(settings.architecture, converted.channels, info.labels.heads)
        load_state(network, converted.weights, where=str(folder / old))
        write_checkpoint(
            where / new,
            {"network_weights": nnunet_state(network)},
            plans=plans,
            dataset=dataset,
            configuration=configuration,
            fold=int(name) if name.isdecimal() else name,
            mirror_axes=tuple(range(converted.ndim)),
            epoch=1000,
        )


def _dataset_json(old: Mapping[str, Any], unet: OldNetwork, dataset: str, given: Path | None) -> dict[str, Any]:
    modalities = _get(old, "modalities")
    labels = {"background": 0, **{f"class_{i}": i for i in range(1, unet.heads)}}
    channels = {str(i): str(name) for i, name in dict(modalities).items()}
    if given is not None:
        task = read_object(given, ModelError)
        try:
            named = {int(value): str(name) for value, name in task["labels"].items()}
            channels = {str(i): str(name) for i, name in task["modality"].items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ModelError(f"{given} is not a dataset.json of nnU-Net v1 ({error}).") from error
        labels = {("background" if value == 0 else name): value for value, name in sorted(named.items())}
    if sorted(labels.values()) != list(range(unet.heads)):
        raise ModelError(
            f"The network has {unet.heads} outputs, background included, but the labels are {labels}. Models with "
            "regions, or with classes other than 0, 1, 2, ..., cannot be imported."
        )
    return {
        "channel_names": channels,
        "labels": labels,
        "numTraining": len(_get(old, "dataset_properties").get("all_sizes", ())) or 1,
        "file_ending": ".nii.gz",
        "name": dataset,
        "overwrite_image_reader_writer": "SimpleITKIO",
        # Unknown to nnU-Net, which ignores it: how this program averages (see TrainedModel.average).
        "inference_average": "probabilities",
    }


def _get(old: Any, name: str) -> Any:
    if not isinstance(old, Mapping) or name not in old:
        raise ModelError(f"plans.pkl has no '{name}'; it is not of nnU-Net v1.")
    return old[name]


def _plans_json(old: Mapping[str, Any], unet: OldNetwork, dataset: str, configuration: str) -> dict[str, Any]:
    stages = dict(_get(old, "plans_per_stage"))
    stage = stages[min(stages) if configuration in ("2d", "3d_lowres") else max(stages)]
    schemes = [str(_get(old, "normalization_schemes")[i]) for i in range(int(_get(old, "num_modalities")))]
    unknown = sorted(set(schemes) - set(_SCHEMES))
    if unknown:
        raise ModelError(f"The normalisation {', '.join(unknown)} of nnU-Net v1 is not supported.")
    patch = [int(n) for n in stage["patch_size"]][-unet.ndim :]
    spacing = [float(s) for s in stage["current_spacing"]][-unet.ndim :]
    resampling = {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None}
    content: dict[str, Any] = {
        "data_identifier": f"{PLANS}_{configuration}",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": int(stage["batch_size"]),
        "patch_size": patch,
        "median_image_size_in_voxels": _numbers(stage.get("median_patient_size_in_voxels", patch)),
        "spacing": spacing,
        "normalization_schemes": [_SCHEMES[scheme] for scheme in schemes],
        "use_mask_for_norm": [bool(_get(old, "use_mask_for_norm")[i]) for i in range(len(schemes))],
        "resampling_fn_data": "resample_data_or_seg_to_shape",
        "resampling_fn_seg": "resample_data_or_seg_to_shape",
        "resampling_fn_data_kwargs": resampling,
        "resampling_fn_seg_kwargs": {**resampling, "is_seg": True, "order": 1},
        "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
        "resampling_fn_probabilities_kwargs": {**resampling, "order": 1},
        "batch_dice": configuration == "2d",
        "architecture": unet.architecture.to_json(),
    }
    if configuration == "3d_cascade_fullres":
        content["previous_stage"] = "3d_lowres"
    return {
        "dataset_name": dataset,
        "plans_name": PLANS,
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [int(a) for a in old.get("transpose_forward", (0, 1, 2))],
        "transpose_backward": [int(a) for a in old.get("transpose_backward", (0, 1, 2))],
        "configurations": {configuration: content},
        "foreground_intensity_properties_per_channel": _intensities(old, len(schemes)),
    }


def _numbers(values: Sequence[Any]) -> list[float]:
    return [float(v) for v in values]


def _intensities(old: Mapping[str, Any], channels: int) -> dict[str, dict[str, float]]:
    names = {"mean": "mean", "sd": "std", "median": "median", "mn": "min", "mx": "max",
             "percentile_00_5": "percentile_00_5", "percentile_99_5": "percentile_99_5"}  # fmt: skip
    given = dict(_get(old, "dataset_properties")).get("intensityproperties") or {}
    plain = {"mean": 0.0, "std": 1.0, "median": 0.0, "min": 0.0, "max": 1.0,
             "percentile_00_5": 0.0, "percentile_99_5": 1.0}  # fmt: skip
    return {
        str(c): {**plain, **{new: float(given[c][v]) for v, new in names.items() if c in given and v in given[c]}}
        for c in range(channels)
    }
