"""Models of nnU-Net v1: a network of its own shape, imported exactly, and v1's rule of averaging."""

from __future__ import annotations

import itertools
import json
import pickle
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from helpers import Recipe, configuration_of, smooth_image
from napari_nnunet import load_model, predict
from napari_nnunet.cli import main
from napari_nnunet.engine.network import generic_unet
from napari_nnunet.engine.network import unet as network
from napari_nnunet.errors import DatasetError, ModelError
from napari_nnunet.events import drain
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.jobs.sharing.import_v1 import import_v1_model
from napari_nnunet.schema.geometry import Geometry
from napari_nnunet.schema.plans import Plans
from napari_nnunet.schema.requests.prediction import PredictSettings
from napari_nnunet.schema.requests.sharing import ImportV1Request
from napari_nnunet.volume import Volume

CPU = PredictSettings(device="cpu", backend="torch", precision="float32")
KERNELS = ((1, 3, 3), (3, 3, 3), (3, 3, 3))
POOLS = ((1, 2, 2), (2, 2, 2))
PATCH = (8, 16, 16)


class _Conv(nn.Module):
    def __init__(self, ndim, inputs, outputs, kernel, stride=1):
        super().__init__()
        conv, norm = (nn.Conv2d, nn.InstanceNorm2d) if ndim == 2 else (nn.Conv3d, nn.InstanceNorm3d)
        self.conv = conv(inputs, outputs, kernel, stride, [k // 2 for k in kernel])
        self.instnorm = norm(outputs, affine=True)

    def forward(self, x):
        return nn.functional.leaky_relu(self.instnorm(self.conv(x)), 0.01)


class _Stack(nn.Module):
    def __init__(self, *blocks):
        super().__init__()
        self.blocks = nn.Sequential(*blocks)

    def forward(self, x):
        return self.blocks(x)


class OldUNet(nn.Module):
    """A U-Net with the names and the decoder kernels of nnU-Net v1, written from its description."""

    def __init__(self, channels=1, classes=3, base=4, kernels=KERNELS, pools=POOLS):
        super().__init__()
        n, ndim = len(pools), len(pools[0])
        features = [base * 2**d for d in range(n + 1)]
        up = nn.ConvTranspose2d if ndim == 2 else nn.ConvTranspose3d
        one = nn.Conv2d if ndim == 2 else nn.Conv3d
        context = []
        for d in range(n):
            stride = pools[d - 1] if d else 1
            first = _Conv(ndim, features[d - 1] if d else channels, features[d], kernels[d], stride)
            context.append(_Stack(first, _Conv(ndim, features[d], features[d], kernels[d])))
        bottom = _Stack(_Conv(ndim, features[n - 1], features[n], kernels[n], pools[n - 1]))
        context.append(nn.Sequential(bottom, _Stack(_Conv(ndim, features[n], features[n], kernels[n]))))
        self.conv_blocks_context = nn.ModuleList(context)
        local, tu, outputs = [], [], []
        for u in range(n):
            d = n - 1 - u
            kernel = kernels[d + 1]  # that of the deeper level
            tu.append(up(features[d + 1], features[d], pools[d], pools[d], bias=False))
            first = _Stack(_Conv(ndim, 2 * features[d], features[d], kernel))
            local.append(nn.Sequential(first, _Stack(_Conv(ndim, features[d], features[d], kernel))))
            outputs.append(one(features[d], classes, 1, bias=False))
        self.conv_blocks_localization, self.tu = nn.ModuleList(local), nn.ModuleList(tu)
        self.seg_outputs = nn.ModuleList(outputs)

    def forward(self, x):
        skips = []
        for block in self.conv_blocks_context[:-1]:
            x = block(x)
            skips.append(x)
        x = self.conv_blocks_context[-1](x)
        for up, block in zip(self.tu, self.conv_blocks_localization, strict=True):
            x = block(torch.cat((up(x), skips.pop()), dim=1))
        return self.seg_outputs[-1](x)


def _old(seed=0, **options):
    torch.manual_seed(seed)
    unet = OldUNet(**options).eval()
    with torch.no_grad():
        for parameter in unet.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return unet


def _plans(ndim=3, **changes):
    stage = {
        "batch_size": 2,
        "patch_size": np.array(PATCH[-ndim:]),
        "median_patient_size_in_voxels": np.array((10, 24, 24)),
        "current_spacing": np.array((1.0, 1.0, 1.0)),
        "original_spacing": np.array((1.0, 1.0, 1.0)),
        "pool_op_kernel_sizes": [list(p) for p in POOLS],
        "conv_kernel_sizes": [list(k) for k in KERNELS],
    }
    return {
        "plans_per_stage": OrderedDict({0: stage}),
        "modalities": {0: "MRI"},
        "num_modalities": 1,
        "normalization_schemes": OrderedDict({0: "nonCT"}),
        "use_mask_for_norm": OrderedDict({0: False}),
        "dataset_properties": {"intensityproperties": None, "all_sizes": [(10, 24, 24)] * 7},
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "num_classes": 2,
        **changes,
    }


def _request(source, *, name="Dataset007_Old", **more):
    return ImportV1Request(source=source, name=name, **more)


def _folder(root, networks, plans=None, *, configuration="3d_fullres"):
    folder = root / "nnUNet" / configuration / "Task001_Tiny" / "nnUNetTrainerV2__nnUNetPlansv2.1"
    for i, unet in enumerate(networks):
        fold = folder / f"fold_{i}"
        fold.mkdir(parents=True)
        content = {
            "epoch": 1000,
            "state_dict": unet.state_dict(),
            "optimizer_state_dict": None,
            "lr_scheduler_state_dict": None,
            "plot_stuff": ([np.float64(0.5)], [], [], []),
            "best_stuff": (np.float32(0.1), np.float64(0.2), 0.3),
        }
        torch.save(content, fold / "model_final_checkpoint.model")
    (folder / "plans.pkl").write_bytes(pickle.dumps(plans or _plans()))
    return folder


@pytest.mark.parametrize("kernels", [KERNELS, ((3, 3, 3),) * 3, ((1, 3, 3), (1, 3, 3), (3, 3, 3))])
def test_a_converted_network_gives_the_same_logits(kernels):
    old = _old(kernels=kernels)
    found = generic_unet.convert(old.state_dict())
    architecture = _architecture_of(found)
    unet = network.build(architecture, found.channels, found.heads).eval()
    network.load_state(unet, found.weights, where="test")
    x = torch.randn(2, 1, *PATCH)
    with torch.no_grad():
        torch.testing.assert_close(unet(x), old(x), atol=2e-5, rtol=1e-4)


def _architecture_of(found):
    content = {**configuration_of(Recipe()), "architecture": found.architecture.to_json()}
    plans = {
        "configurations": {"3d_fullres": content},
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "dataset_name": "x",
        "plans_name": "y",
        "image_reader_writer": "SimpleITKIO",
    }
    return Plans.parse(plans).configuration("3d_fullres").architecture


def _by_hand(networks, image):
    """v1's rule on one window: softmax of every flipped copy, the mean over copies and folds."""
    x = torch.from_numpy((image - image.mean()) / (image.std() + 1e-8))[None]
    total = torch.zeros(3, *PATCH)
    with torch.no_grad():
        for unet in networks:
            for size in range(4):
                for axes in itertools.combinations((2, 3, 4), size):
                    total += torch.softmax(unet(x.flip(axes)), dim=1).flip(axes)[0] / 8
    return (total / len(networks)).numpy()


def test_a_model_is_taken_over_and_predicts_by_the_rule_of_v1(tmp_path, capsys):
    networks = [_old(seed, base=4) for seed in (0, 1)]
    source = _folder(tmp_path, networks)
    (tmp_path / "dataset.json").write_text(
        json.dumps({"modality": {"0": "T1"}, "labels": {"0": "background", "1": "anterior", "2": "posterior"}})
    )
    words = ["import_old_nnunet_model", str(source), "Dataset007_Old", "-dataset_json", str(tmp_path / "dataset.json")]
    assert main([*words, "--workspace", str(tmp_path)]) == 0
    model = load_model(capsys.readouterr().out.strip())
    assert model.folds() == (0, 1)
    assert model.average == "probabilities"
    assert model.dataset.labels.head_names == ("background", "anterior", "posterior")
    image = smooth_image(PATCH)
    result = predict(model, Volume(image, Geometry(spacing=(1.0,) * 3)), settings=CPU, probabilities=True)
    expected = _by_hand(networks, image)
    np.testing.assert_allclose(result.probabilities, expected, atol=1e-4)
    np.testing.assert_array_equal(result.labels, expected.argmax(axis=0))
    assert "probabilities" in result.recipe["average"]
    # Averaging logits is another rule: the mark in dataset.json is what makes the difference.
    content = json.loads((model.folder / "dataset.json").read_text(encoding="utf-8"))
    del content["inference_average"]
    (model.folder / "dataset.json").write_text(json.dumps(content))
    logits = predict(
        load_model(model.folder), Volume(image, Geometry(spacing=(1.0,) * 3)), settings=CPU, probabilities=True
    )
    assert np.abs(logits.probabilities - expected).max() > 0.01


def test_a_flat_model_is_taken_over(tmp_path):
    kernels, pools = ((3, 3),) * 3, ((2, 2), (2, 2))
    source = _folder(tmp_path, [_old(kernels=kernels, pools=pools)], _plans(2), configuration="2d")
    model = load_model(drain(import_v1_model(Workspace.at(tmp_path), _request(source))))
    assert model.configuration.name == "2d" and model.configuration.patch_size == (16, 16)
    assert model.dataset.labels.head_names == ("background", "class_1", "class_2")
    labels = predict(model, smooth_image((3, 20, 22)), spacing=(1.0,) * 3, settings=CPU).labels
    assert labels.shape == (3, 20, 22)


def test_ct_keeps_its_intensities(tmp_path):
    values = {"mean": 80.0, "sd": 40.0, "median": 70.0, "mn": -100.0, "mx": 500.0, "percentile_00_5": -20.0,
              "percentile_99_5": 200.0}  # fmt: skip
    plans = _plans(
        normalization_schemes=OrderedDict({0: "CT"}),
        dataset_properties={"intensityproperties": OrderedDict({0: {k: np.float32(v) for k, v in values.items()}})},
    )
    model = load_model(drain(import_v1_model(Workspace.at(tmp_path), _request(_folder(tmp_path, [_old()], plans)))))
    assert model.plans.intensities[0].std == 40.0
    assert model.configuration.normalization_schemes == ("CTNormalization",)


def test_what_cannot_be_taken_over_is_refused_and_leaves_nothing(tmp_path):
    workspace = Workspace.at(tmp_path)
    source = _folder(tmp_path, [_old()])
    with pytest.raises(DatasetError, match="not of the form DatasetXXX_Name"):
        drain(import_v1_model(workspace, _request(source, name="Old")))
    with pytest.raises(ModelError, match="not a trained model of nnU-Net v1"):
        drain(import_v1_model(workspace, _request(tmp_path)))
    (source / "plans.pkl").write_bytes(pickle.dumps(_plans(normalization_schemes={0: "CT2"})))
    with pytest.raises(ModelError, match="CT2"):
        drain(import_v1_model(workspace, _request(source)))
    (source / "plans.pkl").write_bytes(pickle.dumps(_plans()))
    (tmp_path / "d.json").write_text(json.dumps({"modality": {"0": "T1"}, "labels": {"0": "background", "1": "a"}}))
    with pytest.raises(ModelError, match="has 3 outputs"):
        drain(import_v1_model(workspace, _request(source, dataset_json=tmp_path / "d.json")))

    class Harmful:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "touched",))

    (source / "plans.pkl").write_bytes(pickle.dumps({"plans_per_stage": Harmful()}))
    with pytest.raises(DatasetError, match="refused"):
        drain(import_v1_model(workspace, _request(source)))
    state = _old().state_dict()
    state["attention.weight"] = torch.zeros(3)
    with pytest.raises(ModelError, match=r"attention\.weight"):
        generic_unet.convert(state)
    assert not (tmp_path / "touched").exists()
    assert not [path for path in workspace.results.rglob("*") if path.is_file()]
