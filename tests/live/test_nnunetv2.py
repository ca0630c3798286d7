"""Side by side with nnunetv2 itself (tox -e live)."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_nnunet.events import drain
from napari_nnunet.jobs.prediction.predict import predict
from napari_nnunet.schema.requests.prediction import PredictSettings

pytestmark = [
    pytest.mark.live,
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.skipif("not __import__('importlib').util.find_spec('nnunetv2')", reason="nnunetv2 is not installed"),
]


@pytest.mark.parametrize("mirroring", [False, True])
def test_nnunet_loads_our_checkpoint_and_predicts_what_we_predict(model, volume, mirroring):
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    peer = nnUNetPredictor(use_mirroring=mirroring, device=torch.device("cpu"), allow_tqdm=False)
    peer.initialize_from_trained_model_folder(str(model.folder), (0,), "checkpoint_final.pth")
    expected = peer.predict_single_npy_array(
        volume.array, {"spacing": list(volume.geometry.spacing)}, None, None, False
    )
    # float32: with random weights, bfloat16 changes up to a hundredth of the labels
    settings = PredictSettings(mirroring=mirroring, device="cpu", precision="float32")
    result = drain(predict(model, volume, settings))
    assert (result.labels == np.asarray(expected)).mean() > 0.995  # nnU-Net sums in float16


@pytest.mark.parametrize("block", ["BasicBlockD", "BottleneckD"])
def test_residual_networks_equal_those_of_dynamic_network_architectures(block):
    from dynamic_network_architectures.architectures.unet import ResidualEncoderUNet
    from dynamic_network_architectures.building_blocks import residual
    from torch import nn

    from napari_nnunet.engine.network import unet
    from napari_nnunet.schema.architecture import Architecture

    bottleneck = (2, 3, 4) if block == "BottleneckD" else None
    theirs = ResidualEncoderUNet(
        2, 3, (4, 8, 12), nn.Conv3d, [[3, 3, 3]] * 3, [[1, 1, 1], [1, 2, 2], [2, 2, 2]], (1, 2, 2), 3, (1, 1), True,
        nn.InstanceNorm3d, {"eps": 1e-5, "affine": True}, None, None, nn.LeakyReLU, {"inplace": True}, False,
        getattr(residual, block), bottleneck,
    ).eval()  # fmt: skip
    architecture = Architecture(
        name="ResidualEncoderUNet", ndim=3, features=(4, 8, 12), kernel_sizes=((3, 3, 3),) * 3,
        strides=((1, 1, 1), (1, 2, 2), (2, 2, 2)), blocks=(1, 2, 2), decoder_convs=(1, 1),
        block="bottleneck" if bottleneck else "basic", bottleneck_channels=bottleneck,
    )  # fmt: skip
    ours = unet.build(architecture, 2, 3).eval()
    unet.load_state(ours, theirs.state_dict())
    image = torch.randn(1, 2, 8, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(ours(image), theirs(image), atol=1e-5, rtol=1e-5)
    assert list(unet.nnunet_state(ours)) == list(theirs.state_dict())
    theirs.load_state_dict(unet.nnunet_state(ours), strict=True)
