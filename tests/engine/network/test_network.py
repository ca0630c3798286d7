"""Networks that the recorded figures do not cover."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_nnunet.engine.network import unet as network
from napari_nnunet.engine.network.blocks import InstanceNorm
from napari_nnunet.engine.network.device import BackendChoice, has_fast_bfloat16
from napari_nnunet.engine.network.openvino_backend import OpenVinoNetwork
from napari_nnunet.engine.network.torch_backend import TorchNetwork
from napari_nnunet.engine.prediction import infer
from napari_nnunet.engine.prediction.infer import batch_size, mirror_sets
from napari_nnunet.errors import ModelError
from napari_nnunet.schema.architecture import Architecture

BASE = Architecture(
    name="PlainConvUNet",
    ndim=3,
    features=(4, 8, 12),
    kernel_sizes=((1, 3, 3), (3, 3, 3), (3, 3, 3)),
    strides=((1, 1, 1), (1, 2, 2), (2, 2, 2)),
    blocks=(2, 2, 2),
    decoder_convs=(2, 2),
)
VARIANTS = {
    "plain": {},
    "two-dimensional": {"ndim": 2, "kernel_sizes": ((3, 3),) * 3, "strides": ((1, 1), (2, 2), (2, 2))},
    "residual": {"name": "ResidualEncoderUNet", "blocks": (1, 2, 2), "decoder_convs": (1, 1)},
    "bottleneck": {"name": "ResidualEncoderUNet", "blocks": (1, 2, 2), "block": "bottleneck",
                   "bottleneck_channels": (2, 3, 4), "stem_channels": 6},
    "batch norm": {"norm": "batch"},
    "dropout": {"dropout": 0.3},
    "nonlinearity first": {"nonlin_first": True},
    "relu without bias": {"nonlinearity": "relu", "conv_bias": False},
    "no norm": {"norm": "none"},
}  # fmt: skip


def _built(changes: dict) -> tuple[network.UNet, torch.Tensor]:
    unet = network.build(BASE.model_copy(update=changes), 2, 3)
    network.initialize(unet, torch.Generator().manual_seed(0))
    for module in unet.modules():
        if isinstance(module, torch.nn.BatchNorm3d):
            module.running_mean.uniform_(-0.2, 0.2)
            module.running_var.uniform_(0.5, 2)
    shape = (2, 2, 16, 16) if unet.architecture.ndim == 2 else (2, 2, 8, 16, 16)
    return unet.eval(), torch.randn(shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", VARIANTS)
def test_every_backend_computes_the_same(name):
    unet, image = _built(VARIANTS[name])
    with torch.no_grad():
        expected = unet(image).clone()
    given = OpenVinoNetwork(unet, image.shape, precision="float32", threads=1)(image)
    np.testing.assert_allclose(given, expected, atol=3e-5 * float(expected.abs().max()))
    np.testing.assert_allclose(TorchNetwork(unet, device="cpu", precision="float32")(image), expected, atol=1e-4)


@pytest.mark.parametrize("name", VARIANTS)
def test_a_state_dict_survives_the_way_out_and_in(name):
    unet, image = _built(VARIANTS[name])
    state = network.nnunet_state(unet)
    assert sum(".all_modules." in key for key in state) > 0
    other = network.build(unet.architecture, 2, 3).eval()
    network.load_state(other, state)
    with torch.no_grad():
        torch.testing.assert_close(other(image), unet(image))


def test_residual_branches_start_at_zero():
    unet, _ = _built(VARIANTS["residual"])
    block = unet.encoder.stages[1].blocks[0]
    assert (block.conv2.norm.weight == 0).all()


def test_group_norm_stands_in_for_instance_norm():
    norm = InstanceNorm(5, eps=1e-5, affine=True)
    torch.nn.init.normal_(norm.weight)
    x = torch.randn(2, 5, 6, 7, 8)
    expected = norm(x)
    norm.path = "group"
    torch.testing.assert_close(norm(x), expected)


@pytest.mark.parametrize("precision", ["bfloat16"])
def test_short_floats_stay_close(precision):
    if not has_fast_bfloat16():
        precision = "bfloat16"  # emulated, slow but equal
    unet, image = _built({})
    with torch.no_grad():
        expected = unet(image).clone()
    given = TorchNetwork(unet, device="cpu", precision=precision)(image)
    assert float((given - expected).abs().mean()) < 0.03 * float(expected.abs().max())


def test_a_single_stage_is_refused():
    one = BASE.model_copy(
        update={"features": (4,), "kernel_sizes": ((3, 3, 3),), "strides": ((1, 1, 1),), "blocks": (2,)}
    )
    with pytest.raises(ModelError, match="single stage, which has no output"):
        network.build(one, 1, 2)


def test_mirrors_come_as_nnunet_orders_them_and_batches_hold_whole_sets():
    assert mirror_sets((0, 1, 2)) == [(), (0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (0, 1, 2)]
    assert mirror_sets(None) == [()]
    from napari_nnunet.engine.network.device import BackendChoice

    cpu = BackendChoice("cpu", "openvino", "float32", "", 2)
    assert batch_size((128, 128, 128), cpu, 8) == 1
    assert batch_size((40, 56, 40), cpu, 8) == 8
    assert batch_size((64, 64), cpu, 4) == 16


@pytest.mark.parametrize(("free", "windows"), [(40e9, 4), (8e9, 1), (1e9, 1)])
def test_a_gpu_takes_as_many_windows_as_its_memory_holds(monkeypatch, free, windows):
    monkeypatch.setattr(infer, "free_memory", lambda _: free)
    gpu = BackendChoice("cuda:0", "torch", "float16", "", 1)
    assert batch_size((128, 128, 128), gpu, 8) == windows
    assert batch_size((40, 56, 40), gpu, 8) == {4: 64, 1: 40 if free == 8e9 else 5}[windows]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused_by_name(value):
    built, _ = _built({})
    state = {name: tensor.clone() for name, tensor in network.nnunet_state(built).items()}
    name = next(name for name in state if name.endswith("conv.weight") and name.startswith("encoder"))
    state[name].view(-1)[3] = value
    with pytest.raises(ModelError, match=f"not numbers .* in {name}"):
        network.load_state(built, state)
