"""Tiny models and images, made on the fly."""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage

from napari_nnunet.engine.network import unet as network
from napari_nnunet.formats.model.checkpoint import write_checkpoint
from napari_nnunet.formats.model.folder import TrainedModel, load_model
from napari_nnunet.formats.results.probabilities import ProbabilityReader
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.schema.dataset import DatasetInfo
from napari_nnunet.schema.plans import Plans

STATISTICS = {
    "mean": 100.0, "std": 30.0, "median": 100.0, "min": 0.0, "max": 300.0, "percentile_00_5": 10.0,
    "percentile_99_5": 250.0,
}  # fmt: skip
FIGURES = Path(__file__).parent / "data" / "numerics"


@dataclass
class Recipe:
    """What kind of tiny model to make."""

    patch: tuple[int, ...] = (8, 16, 16)
    spacing: tuple[float, ...] = (1.0, 1.0, 1.0)
    channels: tuple[str, ...] = ("MR",)
    schemes: tuple[str, ...] = ()
    labels: dict = field(default_factory=lambda: {"background": 0, "organ": 1, "lesion": 2})
    regions_class_order: tuple[int, ...] | None = None
    transpose: tuple[int, int, int] = (0, 1, 2)
    folds: tuple = (0,)
    name: str = "Dataset001_Tiny"
    configuration: str = "3d_fullres"
    previous_stage: str | None = None
    file_ending: str = ".nii.gz"
    reader: str = "SimpleITKIO"
    norm: str = "InstanceNorm"
    mirror: bool = True
    use_mask: bool = False


def configuration_of(recipe: Recipe) -> dict:
    ndim = len(recipe.patch)
    seg = {"is_seg": True, "order": 1, "order_z": 0, "force_separate_z": None}
    schemes = list(recipe.schemes or ["ZScoreNormalization"] * len(recipe.channels))
    content = {
        "data_identifier": f"nnUNetPlans_{recipe.configuration}",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": list(recipe.patch),
        "median_image_size_in_voxels": [float(p) for p in recipe.patch],
        "spacing": list(recipe.spacing),
        "normalization_schemes": schemes,
        "use_mask_for_norm": [recipe.use_mask] * len(schemes),
        "resampling_fn_data": "resample_data_or_seg_to_shape",
        "resampling_fn_seg": "resample_data_or_seg_to_shape",
        "resampling_fn_data_kwargs": {**seg, "is_seg": False, "order": 3},
        "resampling_fn_seg_kwargs": seg,
        "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
        "resampling_fn_probabilities_kwargs": {**seg, "is_seg": False},
        "batch_dice": False,
        "architecture": {
            "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
            "arch_kwargs": {
                "n_stages": 3,
                "features_per_stage": [4, 6, 8],
                "conv_op": f"torch.nn.modules.conv.Conv{ndim}d",
                "kernel_sizes": [[3] * ndim] * 3,
                "strides": [[1] * ndim, [2] * ndim, [2] * ndim],
                "n_conv_per_stage": [2, 2, 2],
                "n_conv_per_stage_decoder": [2, 2],
                "conv_bias": True,
                "norm_op": f"torch.nn.modules.{recipe.norm.lower()}.{recipe.norm}{ndim}d",
                "norm_op_kwargs": {"eps": 1e-05, "affine": True},
                "dropout_op": None,
                "dropout_op_kwargs": None,
                "nonlin": "torch.nn.LeakyReLU",
                "nonlin_kwargs": {"inplace": True},
            },
            "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
        },
    }
    if recipe.previous_stage:
        content["previous_stage"] = recipe.previous_stage
    return content


#: The plans of a tiny network, with a configuration that takes over from another one.
REGIONS = {  # a dataset.json
    "channel_names": {"0": "CT", "1": "MR"},
    "labels": {"background": 0, "whole": [1, 2], "core": 2, "ignore": 3},
    "regions_class_order": [1, 2],
    "numTraining": 3,
    "file_ending": ".nii.gz",
    "overwrite_image_reader_writer": "SimpleITKIO",
}
TINY_PLANS = {
    "dataset_name": "Dataset001_Tiny",
    "plans_name": "nnUNetPlans",
    "image_reader_writer": "SimpleITKIO",
    "transpose_forward": [0, 1, 2],
    "transpose_backward": [0, 1, 2],
    "configurations": {
        "3d_fullres": configuration_of(Recipe()),
        "changed": {"inherits_from": "3d_fullres", "batch_size": 3},
    },
    "foreground_intensity_properties_per_channel": {"0": STATISTICS},
}


def make_model(root: Path, recipe: Recipe | None = None, *, seed: int = 0) -> TrainedModel:
    """Write a model folder with random weights whose last layer is scaled so that every label occurs."""
    recipe = recipe or Recipe()
    folder = root / recipe.name / f"nnUNetTrainer__nnUNetPlans__{recipe.configuration}"
    dataset = {
        "channel_names": {str(i): name for i, name in enumerate(recipe.channels)},
        "labels": recipe.labels,
        "numTraining": 5,
        "file_ending": recipe.file_ending,
    }
    if recipe.regions_class_order:
        dataset["regions_class_order"] = list(recipe.regions_class_order)
    plans = {
        "dataset_name": recipe.name,
        "plans_name": "nnUNetPlans",
        "image_reader_writer": recipe.reader,
        "transpose_forward": list(recipe.transpose),
        "transpose_backward": [recipe.transpose.index(a) for a in range(3)],
        "configurations": {recipe.configuration: configuration_of(recipe)},
        "foreground_intensity_properties_per_channel": {str(i): STATISTICS for i in range(len(recipe.channels))},
    }
    info = DatasetInfo.parse(dataset)
    configuration = Plans.parse(plans).configuration(recipe.configuration)
    previous = len(info.labels.foreground_labels) if recipe.previous_stage else 0
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "plans.json").write_text(json.dumps(plans))
    (folder / "dataset.json").write_text(json.dumps(dataset))
    for i, fold in enumerate(recipe.folds):
        unet = network.build(configuration.architecture, len(recipe.channels) + previous, info.labels.heads)
        network.initialize(unet, torch.Generator().manual_seed(seed + i))
        with torch.no_grad():
            head = unet.decoder.seg_layers[-1]
            head.weight *= 3
            noise = torch.randn((2, unet.channels_in, *recipe.patch), generator=torch.Generator().manual_seed(seed + i))
            head.bias -= unet.eval()(noise).transpose(0, 1).flatten(1).mean(1)  # no label wins everywhere
        (folder / f"fold_{fold}").mkdir(exist_ok=True)
        write_checkpoint(
            folder / f"fold_{fold}" / "checkpoint_final.pth",
            {"network_weights": network.nnunet_state(unet)},
            plans=plans,
            dataset=dataset,
            configuration=recipe.configuration,
            fold=fold,
            mirror_axes=tuple(range(len(recipe.patch))) if recipe.mirror else None,
            epoch=1000,
        )
    return load_model(folder)


def smooth_image(shape: tuple[int, ...], *, seed: int = 0, channels: int = 1) -> np.ndarray:
    """Return (C, *shape) float32 with structures a few voxels wide."""
    from scipy import ndimage

    rng = np.random.default_rng(seed)
    noise = rng.normal(size=(channels, *shape))
    sigma = [0.0] + [min(2.0, n / 4) for n in shape]
    out = ndimage.gaussian_filter(noise, sigma)
    return (100 + 60 * out / out.std()).astype(np.float32)


DATASET = "Dataset005_Test"


def make_dataset(
    root: Path, *, cases: int = 4, shape=(20, 24, 22), spacing=(1.0, 0.8, 0.8), name: str = DATASET
) -> Path:
    """Write a raw dataset of NIfTI volumes with one class into ``root/nnUNet_raw``; returns its folder."""
    folder = root / "nnUNet_raw" / name
    for part in ("imagesTr", "labelsTr"):
        (folder / part).mkdir(parents=True)
    for i in range(cases):
        image = smooth_image(shape, seed=i)[0]
        write_nifti(folder / "imagesTr" / f"c{i}_0000.nii.gz", image, spacing)
        write_nifti(folder / "labelsTr" / f"c{i}.nii.gz", (image > 120).astype(np.uint8), spacing)
    content = {
        "channel_names": {"0": "MR"},
        "labels": {"background": 0, "a": 1},
        "numTraining": cases,
        "file_ending": ".nii.gz",
    }
    (folder / "dataset.json").write_text(json.dumps(content))
    return folder


def read_probabilities(path: Path) -> np.ndarray:
    """Read (C, Z, Y, X) from an npz."""
    with closing(ProbabilityReader(path)) as reader:
        c, z, y, x = reader.shape
        return np.concatenate([reader.read(z) for _ in range(c)]).reshape(c, z, y, x)


def write_nifti(path: Path, array: np.ndarray, spacing=(1.0, 1.0, 1.0)) -> None:
    """Write an array (z, y, x) with its spacing in the same order."""
    import SimpleITK as sitk

    image = sitk.GetImageFromArray(array)
    image.SetSpacing(tuple(float(s) for s in reversed(spacing)))
    sitk.WriteImage(image, str(path))


def dataset_json(folder: Path, **changes) -> None:
    """Change keys of a dataset.json; None removes one."""
    path = folder / "dataset.json"
    content = {**json.loads(path.read_text(encoding="utf-8")), **changes}
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


TRAINED = "Dataset006_Train"


def make_trainable(root: Path, recipe: Recipe | None = None, *, cases: int = 5, shape=(12, 24, 22), **dataset) -> Path:
    """Write a raw dataset, hand-made plans of a tiny network, and the preprocessed cases; returns the workspace.

    Two cubes of each label lie in every case, brighter than what is around them.
    """
    from napari_nnunet.formats.dataset.raw_dataset import open_dataset

    recipe = recipe or Recipe(spacing=(1.0,) * 3)
    workspace = Workspace.at(root)
    raw = workspace.raw / TRAINED
    for part in ("imagesTr", "labelsTr"):
        (raw / part).mkdir(parents=True)
    ignore = recipe.labels.get("ignore")
    for i in range(cases):
        rng = np.random.default_rng(i)
        image, labels = smooth_image(shape, seed=i)[0], np.zeros(shape, np.uint8)
        members = [v for entry in recipe.labels.values() for v in (entry if isinstance(entry, list) else [entry])]
        for value in sorted(set(members) - {0, ignore}):
            for _ in range(2):
                corner = [int(rng.integers(1, n - 6)) for n in shape]
                box = tuple(slice(c, c + 5) for c in corner)
                labels[box], image[box] = value, 150 + 90 * value
        if ignore is not None:
            labels[: shape[0] // 3] = ignore
        write_nifti(raw / "imagesTr" / f"c{i}_0000.nii.gz", image)
        write_nifti(raw / "labelsTr" / f"c{i}.nii.gz", labels)
    content = {"channel_names": {"0": "MR"}, "labels": recipe.labels, "numTraining": cases, "file_ending": ".nii.gz"}
    (raw / "dataset.json").write_text(json.dumps({**content, **dataset}))
    base = workspace.preprocessed / TRAINED
    base.mkdir(parents=True)
    (base / "dataset.json").write_text((raw / "dataset.json").read_text(encoding="utf-8"))
    plans = {
        "dataset_name": TRAINED, "plans_name": "nnUNetPlans", "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2], "transpose_backward": [0, 1, 2],
        "configurations": {recipe.configuration: configuration_of(recipe)},
        "foreground_intensity_properties_per_channel": {"0": STATISTICS},
    }  # fmt: skip
    (base / "nnUNetPlans.json").write_text(json.dumps(plans))
    preprocess_here(workspace, open_dataset(raw))
    return root


def make_objects_trainable(root: Path) -> Workspace:
    """Preprocess cases whose labels are cores and borders, with the objects of one kind beside them."""
    from napari_nnunet.formats.dataset.objects import note_drawn
    from napari_nnunet.formats.images.files import read_labels

    recipe = Recipe(spacing=(1.0,) * 3, labels={"background": 0, "cell core": 1, "cell border": 2})
    scheme = {"kinds": {"cell": [1, 2]}, "width": 1.0, "unit": 1.0}
    workspace = Workspace.at(make_trainable(root, recipe, napari_nnunet_objects=scheme))
    raw = workspace.raw / TRAINED
    (raw / "objectsTr").mkdir()
    for path in sorted((raw / "labelsTr").iterdir()):
        labels, _ = read_labels(path)
        write_nifti(raw / "objectsTr" / path.name, ndimage.label(labels > 0)[0].astype(np.uint16))
    note_drawn(raw, [path.name.removesuffix(".nii.gz") for path in (raw / "labelsTr").iterdir()])
    return workspace


def preprocess_here(workspace, dataset) -> None:
    """Preprocess a tiny dataset in this process, which is quicker than starting workers."""
    import shutil

    from napari_nnunet.formats.preprocessed.journal import Journal
    from napari_nnunet.formats.preprocessed.plans import read_plans
    from napari_nnunet.jobs.planning.freshness import content_of, made_from, rules_of
    from napari_nnunet.jobs.planning.preprocess import preprocess_case

    base = workspace.preprocessed / dataset.name
    plans = read_plans(base, "nnUNetPlans")
    (base / "gt_segmentations").mkdir(exist_ok=True)
    for name in plans.configurations:
        configuration = plans.configuration(name)
        folder = base / configuration.data_identifier
        folder.mkdir(exist_ok=True)
        rules, journal = rules_of(plans, configuration, dataset), Journal(base / f"{folder.name}.cases.jsonl")
        for case in dataset.cases:
            preprocess_case(case, plans, ((configuration, folder),), dataset.info.labels, base)
            journal.note([case.name], made_from(case, rules, content_of(case)))
            shutil.copy(case.label, base / "gt_segmentations" / case.label.name)


def just_before(monkeypatch, module, name, change):
    """Let something happen once, just before a function of a module is called."""
    real, left = getattr(module, name), [change]

    def late(*args, **keywords):
        while left:
            left.pop()()
        return real(*args, **keywords)

    monkeypatch.setattr(module, name, late)
