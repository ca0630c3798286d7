"""A network of nnU-Net v1 itself, saved as v1 saves it, imported, and compared with v1's own prediction."""

from __future__ import annotations

import os
import pickle
from collections import OrderedDict

import numpy as np
import pytest
import torch
from torch import nn

from helpers import smooth_image
from napari_nnunet import load_model, predict
from napari_nnunet.events import drain
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.jobs.sharing.import_v1 import import_v1_model
from napari_nnunet.schema.geometry import Geometry
from napari_nnunet.schema.requests.prediction import PredictSettings
from napari_nnunet.schema.requests.sharing import ImportV1Request
from napari_nnunet.volume import Volume

pytestmark = [pytest.mark.live, pytest.mark.filterwarnings("ignore")]
os.environ.setdefault("nnUNet_raw_data_base", "")
pytest.importorskip("nnunet.network_architecture.generic_UNet")

PATCH = (8, 16, 16)
POOLS, KERNELS = [[1, 2, 2], [2, 2, 2]], [[1, 3, 3], [3, 3, 3], [3, 3, 3]]


def _network(seed):
    from nnunet.network_architecture.generic_UNet import Generic_UNet
    from nnunet.utilities.nd_softmax import softmax_helper

    torch.manual_seed(seed)
    norm, dropout = {"eps": 1e-5, "affine": True}, {"p": 0, "inplace": True}
    unet = Generic_UNet(
        1, 8, 3, 2, 2, 2, nn.Conv3d, nn.InstanceNorm3d, norm, nn.Dropout3d, dropout, nn.LeakyReLU,
        {"negative_slope": 1e-2, "inplace": True}, True, False, lambda x: x, None, POOLS, KERNELS, False, True, True,
    )  # fmt: skip
    with torch.no_grad():
        for parameter in unet.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    unet.inference_apply_nonlin = softmax_helper
    unet.do_ds = False
    return unet.eval()


def test_predictions_are_those_of_nnunet_v1(tmp_path):
    networks = [_network(seed) for seed in (0, 1)]
    source = tmp_path / "3d_fullres" / "Task001_X" / "nnUNetTrainerV2__nnUNetPlansv2.1"
    stage = {
        "batch_size": 2, "patch_size": np.array(PATCH), "current_spacing": np.array((1.0, 1.0, 1.0)),
        "median_patient_size_in_voxels": np.array((12, 30, 28)), "pool_op_kernel_sizes": POOLS,
        "conv_kernel_sizes": KERNELS,
    }  # fmt: skip
    plans = {
        "plans_per_stage": {0: stage}, "modalities": {0: "MRI"}, "num_modalities": 1, "num_classes": 2,
        "normalization_schemes": OrderedDict({0: "nonCT"}), "use_mask_for_norm": OrderedDict({0: False}),
        "dataset_properties": {"intensityproperties": None}, "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
    }  # fmt: skip
    for i, unet in enumerate(networks):
        (source / f"fold_{i}").mkdir(parents=True)
        torch.save(
            {"state_dict": unet.state_dict(), "epoch": 1000}, source / f"fold_{i}" / "model_final_checkpoint.model"
        )
    (source / "plans.pkl").write_bytes(pickle.dumps(plans))
    model = load_model(
        drain(import_v1_model(Workspace.at(tmp_path), ImportV1Request(source=source, name="Dataset007_Old")))
    )
    image = smooth_image((12, 30, 28))
    settings = PredictSettings(device="cpu", backend="torch", precision="float32", probabilities=True)
    ours = predict(model, Volume(image, Geometry(spacing=(1.0,) * 3)), settings=settings)
    normalised = (image - image.mean()) / (image.std() + 1e-8)
    theirs = [
        unet.predict_3D(normalised, True, (0, 1, 2), True, 0.5, PATCH, None, True, "constant", {"constant_values": 0},
                        False, False, mixed_precision=False)[1]
        for unet in networks
    ]  # fmt: skip
    expected = np.mean(theirs, axis=0)
    np.testing.assert_allclose(ours.probabilities, expected, atol=2e-3)
    assert (ours.labels == expected.argmax(axis=0)).mean() > 0.999
