"""Prediction side by side with nnunetv2, in one run on this machine: wall time and peak memory.

    python benchmarks/predict.py [--data DIR] [--peer PYTHON] [--device cpu|cuda] [--classes 2 20 60] [--busy 2] [--json FILE]
        [--size Z Y X] [--spacing Z Y X] [--model-spacing MM] [--alone]

Both sides are run as commands (start-up included), one after the other; wall time is measured around them and memory is
the largest sum of proportional set sizes over the whole process tree, sampled every
half second (measuring it costs time itself); ``--busy`` lets that many loops compute meanwhile. ``--peer`` names a Python with
nnunetv2 where it is not this one. ``--data`` holds ``data`` and ``models`` with the hippocampus set; without it that row
is left out. The large volume is 200 x 256 x 256 voxels at another spacing than the model's, so that both sides resample;
its network is the standard one (128^3, six stages, 32 to 320 features) with random weights, without mirroring. Another size
may be too large for nnunetv2: ``--alone`` leaves it out.
"""

from __future__ import annotations

import argparse
import compileall
import json
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
import SimpleITK as sitk

import napari_nnunet
from _measure import busy, measure

FOLDERS = {"nnUNet_raw": "/tmp", "nnUNet_preprocessed": "/tmp", "nnUNet_results": "/tmp"}
# As the shell starts it.
OURS = "import sys; from napari_nnunet.cli import main; sys.argv[:1] = ['napari-nnunet', 'predict_from_modelfolder']; sys.exit(main())"
PEER = (
    "import sys; sys.argv[0] = 'predict'; "
    "from nnunetv2.inference.predict_from_raw_data import predict_entry_point_modelfolder as run\n"
    "if __name__ == '__main__': run()"
)


def large_model(folder: Path, classes: int, spacing: float = 1.0) -> Path:
    """Write the standard 3-D model with random weights for a number of foreground classes, for voxels of some mm."""
    import torch

    from napari_nnunet.engine.network import unet as network
    from napari_nnunet.formats.model.checkpoint import write_checkpoint
    from napari_nnunet.schema.plans import Plans

    rule = {"is_seg": False, "order": 1, "order_z": 0, "force_separate_z": None}
    stages = 6
    configuration = {
        "data_identifier": "nnUNetPlans_3d_fullres", "preprocessor_name": "DefaultPreprocessor", "batch_size": 2,
        "patch_size": [128, 128, 128], "median_image_size_in_voxels": [240.0, 230.0, 230.0], "spacing": [spacing] * 3,
        "normalization_schemes": ["CTNormalization"], "use_mask_for_norm": [False],
        "resampling_fn_data": "resample_data_or_seg_to_shape", "resampling_fn_data_kwargs": {**rule, "order": 3},
        "resampling_fn_seg": "resample_data_or_seg_to_shape", "resampling_fn_seg_kwargs": {**rule, "is_seg": True},
        "resampling_fn_probabilities": "resample_data_or_seg_to_shape", "resampling_fn_probabilities_kwargs": rule,
        "batch_dice": False,
        "architecture": {
            "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
            "arch_kwargs": {
                "n_stages": stages, "features_per_stage": [32, 64, 128, 256, 320, 320],
                "conv_op": "torch.nn.modules.conv.Conv3d", "kernel_sizes": [[3, 3, 3]] * stages,
                "strides": [[1, 1, 1]] + [[2, 2, 2]] * (stages - 1), "n_conv_per_stage": [2] * stages,
                "n_conv_per_stage_decoder": [2] * (stages - 1), "conv_bias": True,
                "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
                "norm_op_kwargs": {"eps": 1e-05, "affine": True}, "dropout_op": None, "dropout_op_kwargs": None,
                "nonlin": "torch.nn.LeakyReLU", "nonlin_kwargs": {"inplace": True},
            },
            "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
        },
    }  # fmt: skip
    statistics = {"mean": 100.0, "std": 50.0, "median": 100.0, "min": -900.0, "max": 900.0}
    plans = {
        "dataset_name": "Dataset900_Large", "plans_name": "nnUNetPlans", "image_reader_writer": "SimpleITKIO",
        "original_median_spacing_after_transp": [1.0, 1.0, 1.0], "original_median_shape_after_transp": [240, 230, 230],
        "transpose_forward": [0, 1, 2], "transpose_backward": [0, 1, 2], "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager", "configurations": {"3d_fullres": configuration},
        "foreground_intensity_properties_per_channel": {
            "0": {**statistics, "percentile_00_5": -200.0, "percentile_99_5": 400.0}
        },
    }  # fmt: skip
    labels = {"background": 0, **{f"class{i}": i for i in range(1, classes + 1)}}
    dataset = {"channel_names": {"0": "CT"}, "labels": labels, "numTraining": 1, "file_ending": ".nii.gz"}
    target = folder / f"model{classes}" / "nnUNetTrainer__nnUNetPlans__3d_fullres"
    (target / "fold_0").mkdir(parents=True)
    (target / "plans.json").write_text(json.dumps(plans))
    (target / "dataset.json").write_text(json.dumps(dataset))
    unet = network.build(Plans.parse(plans).configuration("3d_fullres").architecture, 1, classes + 1)
    network.initialize(unet, torch.Generator().manual_seed(0))
    write_checkpoint(
        target / "fold_0" / "checkpoint_final.pth", {"network_weights": network.nnunet_state(unet)}, plans=plans, dataset=dataset,
        configuration="3d_fullres", fold=0, mirror_axes=(0, 1, 2), epoch=1000,
    )  # fmt: skip
    return target


def large_image(folder: Path, size: tuple[int, ...], spacing: tuple[float, ...]) -> Path:
    """Write one smooth volume of a size (z, y, x) and spacing in mm."""
    rng = np.random.default_rng(0)
    coarse = sitk.GetImageFromArray(rng.normal(100, 150, size=[-(-n // 8) for n in size]).astype(np.float32))
    array = sitk.GetArrayFromImage(sitk.Expand(coarse, (8, 8, 8), sitk.sitkLinear))
    image = sitk.GetImageFromArray(np.rint(array[tuple(slice(n) for n in size)]).astype(np.int16))
    image.SetSpacing(spacing[::-1])
    folder.mkdir()
    sitk.WriteImage(image, str(folder / "large_0000.nii.gz"))
    return folder


def agreement(ours: Path, peer: Path) -> float:
    """Return the share of voxels with the same label over all cases."""
    same = [
        (
            sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
            == sitk.GetArrayFromImage(sitk.ReadImage(str(peer / path.name)))
        )
        for path in sorted(ours.glob("*.nii.gz"))
    ]
    return float(np.mean(np.concatenate([s.ravel() for s in same])))


def compare(name: str, model: Path, images: Path, flags: list[str], options: argparse.Namespace, work: Path) -> dict:
    """Run both sides on a folder of images."""
    row: dict = {"name": name}
    common = ["-i", str(images), "-m", str(model), "-f", "0", "-device", options.device, *flags]
    sides = (("ours", sys.executable, OURS), ("nnunetv2", options.peer, PEER))[: 1 if options.alone else 2]
    for side, python, code in sides:
        script = work / f"run_{side}.py"
        script.write_text(code if side == "nnunetv2" else f"{code}\n")
        out = work / f"{name}-{side}".replace(" ", "_")
        found = measure([python, str(script), *common, "-o", str(out)], work / f"{side}.log", environment=FOLDERS)
        seconds, peak = found.seconds, found.tree
        row[side] = {"seconds": seconds, "peak_gb": peak / 1e9}
        print(f"  {name} {side}: {seconds:.1f} s, {peak / 1e9:.2f} GB", flush=True)
    if options.alone:
        return row
    row["speedup"] = row["nnunetv2"]["seconds"] / row["ours"]["seconds"]
    row["memory_share"] = row["ours"]["peak_gb"] / row["nnunetv2"]["peak_gb"]
    row["same_labels"] = agreement(*(work / f"{name}-{side}".replace(" ", "_") for side in ("ours", "nnunetv2")))
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--peer", default=sys.executable)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--classes", type=int, nargs="*", default=[2, 20, 60])
    parser.add_argument("--cases", type=int, default=8, help="hippocampus volumes")
    parser.add_argument("--busy", type=int, default=0, help="loops that compute beside both sides")
    parser.add_argument("--size", type=int, nargs=3, default=[200, 256, 256], help="of the large volume")
    parser.add_argument("--spacing", type=float, nargs=3, default=[1.2, 0.9, 0.9], help="of the large volume, in mm")
    parser.add_argument("--model-spacing", type=float, default=1.0, help="of its model, in mm")
    parser.add_argument("--alone", action="store_true", help="leave nnunetv2 out")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    compileall.compile_dir(Path(napari_nnunet.__file__).parent, quiet=1)  # as pip leaves it, and nnunetv2's modules are
    rows = []
    with tempfile.TemporaryDirectory() as folder, busy(options.busy):
        work = Path(folder)
        if options.data:
            images = work / "hippocampus"
            images.mkdir()
            source = options.data / "data" / "Dataset004_Hippocampus" / "imagesTr"
            for path in sorted(source.glob("*_0000.nii.gz"))[: options.cases]:
                shutil.copy(path, images)
            for configuration in ("3d_fullres", "2d"):
                model = (
                    options.data
                    / "models"
                    / "Dataset004_Hippocampus"
                    / f"nnUNetTrainer__nnUNetPlansSmall__{configuration}"
                )
                rows.append(compare(f"hippocampus {configuration}", model, images, [], options, work))
        if options.classes:
            images = large_image(work / "large", tuple(options.size), tuple(options.spacing))
            for classes in options.classes:
                model = large_model(work, classes, options.model_spacing)
                flags = ["--disable_tta", "-npp", "1", "-nps", "1"]
                rows.append(compare(f"large {classes} classes", model, images, flags, options, work))
    print("\n| task | nnunetv2 | napari-nnunet | times faster | peak memory | same labels |\n|---|---|---|---|---|---|")
    for row in rows:
        if options.alone:
            print(
                f"| {row['name']} | – | {row['ours']['seconds']:.0f} s, {row['ours']['peak_gb']:.1f} GB | – | – | – |"
            )
            continue
        a, b = row["nnunetv2"], row["ours"]
        print(
            f"| {row['name']} | {a['seconds']:.0f} s, {a['peak_gb']:.1f} GB | {b['seconds']:.0f} s, {b['peak_gb']:.1f} GB "
            f"| {row['speedup']:.1f} | {row['memory_share']:.2f} | {row['same_labels']:.5f} |"
        )
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()
