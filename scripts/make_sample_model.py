"""Train the tiny model that ships with the package, on synthetic volumes only (about four minutes on two cores).

    python scripts/make_sample_model.py [ITERATIONS]

Writes src/napari_nnunet/resources/sample_model. The network is trained here without the real pipeline on purpose: the
model only has to be small and good at the sample.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from napari_nnunet.engine.network import unet as network
from napari_nnunet.engine.synthetic import CLASSES, SPACING_UM, make_volume
from napari_nnunet.formats.model.checkpoint import write_checkpoint
from napari_nnunet.schema.plans import Plans

FOLDER = Path(__file__).parents[1] / "src/napari_nnunet/resources/sample_model/nnUNetTrainer__nnUNetPlans__3d_fullres"
PATCH = (16, 48, 48)
SPACING = [s / 1000 for s in SPACING_UM]  # mm
DATASET = {
    "name": "Synthetic nuclei and shells",
    "description": "Made on the fly by napari_nnunet.engine.synthetic; no patient, no animal, no microscope.",
    "licence": "CC0-1.0",
    "channel_names": {"0": "fluorescence"},
    "labels": {name: value for value, name in enumerate(CLASSES)},
    "numTraining": 24,
    "file_ending": ".nii.gz",
}
SEG = {"is_seg": True, "order": 1, "order_z": 0, "force_separate_z": None}
CONFIGURATION = {
    "data_identifier": "nnUNetPlans_3d_fullres",
    "preprocessor_name": "DefaultPreprocessor",
    "batch_size": 4,
    "patch_size": list(PATCH),
    "median_image_size_in_voxels": [32.0, 96.0, 96.0],
    "spacing": SPACING,
    "normalization_schemes": ["ZScoreNormalization"],
    "use_mask_for_norm": [False],
    "resampling_fn_data": "resample_data_or_seg_to_shape",
    "resampling_fn_seg": "resample_data_or_seg_to_shape",
    "resampling_fn_data_kwargs": {**SEG, "is_seg": False, "order": 3},
    "resampling_fn_seg_kwargs": SEG,
    "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
    "resampling_fn_probabilities_kwargs": {**SEG, "is_seg": False},
    "architecture": {
        "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
        "arch_kwargs": {
            "n_stages": 4,
            "features_per_stage": [8, 16, 24, 32],
            "conv_op": "torch.nn.modules.conv.Conv3d",
            "kernel_sizes": [[1, 3, 3], [3, 3, 3], [3, 3, 3], [3, 3, 3]],
            "strides": [[1, 1, 1], [1, 2, 2], [2, 2, 2], [2, 2, 2]],
            "n_conv_per_stage": [2, 2, 2, 2],
            "n_conv_per_stage_decoder": [2, 2, 2],
            "conv_bias": True,
            "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
            "norm_op_kwargs": {"eps": 1e-05, "affine": True},
            "dropout_op": None,
            "dropout_op_kwargs": None,
            "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": True},
        },
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    },
    "batch_dice": False,
}


def loss_of(logits, target):
    onehot = functional.one_hot(target, len(CLASSES)).movedim(-1, 1).float()
    probability = logits.softmax(1)
    axes = (0, 2, 3, 4)
    overlap, size = (probability * onehot).sum(axes), probability.sum(axes) + onehot.sum(axes)
    dice = ((2 * overlap + 1e-5) / (size + 1e-5))[1:].mean()
    return functional.cross_entropy(logits, target) - dice


def draw(cases, rng, count=4):
    images, labels = [], []
    for _ in range(count):
        image, truth = cases[rng.integers(len(cases))]
        start = [rng.integers(0, n - p + 1) for n, p in zip(image.shape, PATCH, strict=True)]
        window = tuple(slice(s, s + p) for s, p in zip(start, PATCH, strict=True))
        flip = [axis for axis in range(3) if rng.random() < 0.5]
        gain, shift = rng.uniform(0.8, 1.25), rng.normal(scale=0.1)
        images.append(np.flip(image[window], flip) * gain + shift)
        labels.append(np.flip(truth[window], flip))
    return torch.from_numpy(np.stack(images)[:, None]).float(), torch.from_numpy(np.stack(labels)).long()


def main():
    iterations = int(sys.argv[1]) if len(sys.argv) > 1 else 4000
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    cases, foreground = [], []
    for seed in range(DATASET["numTraining"]):
        image, labels = make_volume(1000 + seed)
        foreground.append(image[labels > 0])
        cases.append(((image - image.mean()) / image.std(), labels))
    values = np.concatenate(foreground)
    statistics = {
        "max": float(values.max()),
        "mean": float(values.mean()),
        "median": float(np.median(values)),
        "min": float(values.min()),
        "percentile_00_5": float(np.percentile(values, 0.5)),
        "percentile_99_5": float(np.percentile(values, 99.5)),
        "std": float(values.std()),
    }
    content = {
        "dataset_name": "Dataset000_NucleiAndShells",
        "plans_name": "nnUNetPlans",
        "original_median_spacing_after_transp": SPACING,
        "original_median_shape_after_transp": [32, 96, 96],
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "configurations": {"3d_fullres": CONFIGURATION},
        "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {"0": statistics},
    }
    architecture = Plans.parse(content).configuration("3d_fullres").architecture
    unet = network.build(architecture, 1, len(CLASSES))
    network.initialize(unet, torch.Generator().manual_seed(0))
    optimizer = torch.optim.AdamW(unet.parameters(), lr=3e-3, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=iterations)
    began = time.time()
    for i in range(iterations):
        x, y = draw(cases, rng)
        loss = loss_of(unet(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if i % 100 == 0:
            print(f"{i:5d}  loss {loss.item():.3f}  {time.time() - began:.0f} s", flush=True)
    FOLDER.joinpath("fold_0").mkdir(parents=True, exist_ok=True)
    (FOLDER / "plans.json").write_text(json.dumps(content, indent=4))
    (FOLDER / "dataset.json").write_text(json.dumps(DATASET, indent=4))
    write_checkpoint(
        FOLDER / "fold_0/checkpoint_final.pth",
        {"network_weights": network.nnunet_state(unet)},
        plans=content,
        dataset=DATASET,
        configuration="3d_fullres",
        fold=0,
        mirror_axes=(0, 1, 2),
        epoch=iterations // 250,
    )


if __name__ == "__main__":
    main()
