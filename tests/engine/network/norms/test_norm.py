"""Normalisation by torch and by compiled loops: values and gradients against float64, in every layout and type."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from napari_nnunet.engine.network import unet as network
from napari_nnunet.engine.network.backends import torch_threads
from napari_nnunet.engine.network.layout import choose_norms, laid_out, lay_out
from napari_nnunet.engine.network.norms import compiled, samples
from napari_nnunet.schema.architecture import Architecture

WAYS = {"samples": samples.normalized, "kernels": compiled.normalized_by_loops}  # which is the former without numba
FORMATS = {4: torch.channels_last, 5: torch.channels_last_3d}


def reference(x, weight, bias, slope, eps=1e-5):
    """In float64, by its definition."""
    x = x.double()
    dims = tuple(range(2, x.ndim))
    y = (x - x.mean(dims, keepdim=True)) / torch.sqrt(x.var(dims, unbiased=False, keepdim=True) + eps)
    shape = (1, -1) + (1,) * len(dims)
    y = y if weight is None else y * weight.double().view(shape)
    y = y if bias is None else y + bias.double().view(shape)
    return torch.where(y > 0, y, y * slope)


def made(shape, *, kind=torch.float32, last=True, affine=True, seed=0):
    rng = torch.Generator().manual_seed(seed)
    x = (torch.randn(shape, generator=rng) * 2 + 3).to(kind)
    x = x.contiguous(memory_format=FORMATS[len(shape)]) if last else x
    weight = torch.rand(shape[1], generator=rng) + 0.5 if affine else None
    bias = torch.randn(shape[1], generator=rng) if affine else None
    return x.requires_grad_(), *((p.requires_grad_() if p is not None else None) for p in (weight, bias))


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    batch=st.integers(1, 4),
    channels=st.integers(1, 9),
    space=st.lists(st.integers(2, 7), min_size=2, max_size=3),
    kind=st.sampled_from([torch.float32, torch.bfloat16]),
    last=st.booleans(),
    affine=st.booleans(),
    slope=st.sampled_from([0.0, 0.01, 0.2, 1.0]),
    way=st.sampled_from(list(WAYS)),
)
def test_values_and_gradients_are_those_of_float64(batch, channels, space, kind, last, affine, slope, way):
    x, weight, bias = made((batch, channels, *space), kind=kind, last=last, affine=affine)
    y = WAYS[way](x, weight, bias, 1e-5, slope)
    assert y.dtype == kind and y.stride() == x.stride()
    exact = reference(x, weight, bias, slope)
    tolerance = 5e-6 if kind is torch.float32 else 1e-2
    torch.testing.assert_close(y.double(), exact, atol=tolerance * float(exact.detach().abs().max()), rtol=0)
    inputs = [t for t in (x, weight, bias) if t is not None]
    given = torch.randn(y.shape, generator=torch.Generator().manual_seed(1))
    ours = torch.autograd.grad(y, inputs, given.to(kind))
    theirs = torch.autograd.grad(exact, inputs, given.to(kind).double())
    for found, expected in zip(ours, theirs, strict=True):
        scale = float(expected.double().norm()) + 1e-3 * float(given.norm())
        bound = 2e-5 if kind is torch.float32 else 0.15 if slope else 0.3  # bfloat16 flips signs at zero, in few voxels
        assert float((found.double() - expected.double()).norm()) <= bound * scale


@pytest.mark.parametrize("slope", [0.01, 1.0])
def test_its_gradient_is_that_of_its_values(slope):
    x, weight, bias = made((2, 3, 3, 4), seed=3)
    doubles = [t.detach().double().requires_grad_() for t in (x, weight, bias)]
    assert torch.autograd.gradcheck(lambda *t: samples.normalized(*t, 1e-5, slope), doubles)


@pytest.mark.parametrize("way", WAYS)
def test_a_map_of_one_voxel_becomes_the_bias(way):
    x, weight, bias = made((2, 3, 1, 1))
    y = WAYS[way](x, weight, bias, 1e-5, 1.0)
    torch.testing.assert_close(y.view(2, 3), bias.expand(2, 3), atol=1e-4, rtol=0)  # the mean is rounded
    y.sum().backward()
    assert torch.isfinite(x.grad).all()


def test_small_samples_are_computed_with_one_thread_and_large_ones_with_all():
    class Threads(TorchDispatchMode):
        """Notes with how many threads each normalisation runs."""

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            if "batch_norm" in str(function):
                seen.add(torch.get_num_threads())
            return function(*args, **(kwargs or {}))

    with torch_threads(3):
        for shape, expected in (((4, 8, 16, 16), {1}), ((2, 32, 96, 96), {3})):
            seen: set[int] = set()
            x, weight, bias = made(shape)
            with Threads():
                torch.autograd.grad(samples.normalized(x, weight, bias, 1e-5, 0.01).sum(), (x, weight))
            assert seen == expected
            assert torch.get_num_threads() == 3


@pytest.mark.parametrize("way", WAYS)
def test_a_gradient_in_another_layout_is_understood(way):
    x, weight, bias = made((2, 4, 5, 6))
    y = WAYS[way](x, weight, bias, 1e-5, 0.01)
    wide = torch.cat([y, y], dim=1)[:, 2:6]
    given = torch.randn(wide.shape)
    found = torch.autograd.grad(wide, x, given)[0]
    exact = reference(x, weight, bias, 0.01)
    expected = torch.autograd.grad(torch.cat([exact, exact], dim=1)[:, 2:6], x, given.double())[0]
    torch.testing.assert_close(found.double(), expected.double(), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ["PlainConvUNet", "ResidualEncoderUNet"])
@pytest.mark.parametrize("layout", ["plain", "channels_last"])
def test_a_network_learns_the_same_by_every_path(name, layout):
    architecture = Architecture(
        name=name, ndim=3, features=(4, 6), kernel_sizes=((3, 3, 3),) * 2, strides=((1, 1, 1), (2, 2, 2)),
        blocks=(2, 2), decoder_convs=(1,),
    )  # fmt: skip
    image, gradients = torch.randn(2, 1, 8, 8, 8, generator=torch.Generator().manual_seed(0)), {}
    for norms in ("torch", "samples", "kernels"):
        unet = network.build(architecture, 1, 2)
        network.initialize(unet, torch.Generator().manual_seed(1))
        lay_out(unet, layout)
        choose_norms(unet, layout, norms)
        out = unet(laid_out(image, layout))
        functional.cross_entropy(out[0] if isinstance(out, list) else out, torch.zeros(2, 8, 8, 8).long()).backward()
        gradients[norms] = torch.cat([p.grad.flatten() for p in unet.parameters() if p.grad is not None])
    for norms in ("samples", "kernels"):
        difference = float((gradients["torch"] - gradients[norms]).norm() / gradients["torch"].norm())
        assert 0 < difference < 1e-4 or (difference == 0 and layout == "plain")


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_biases_that_are_added_by_themselves_have_the_gradients_of_float64(ndim, kind):
    architecture = Architecture(
        name="PlainConvUNet", ndim=ndim, features=(4, 6, 8), kernel_sizes=((3,) * ndim,) * 3,
        strides=((1,) * ndim, (2,) * ndim, (2,) * ndim), blocks=(1, 1, 1), decoder_convs=(1, 1),
    )  # fmt: skip
    unet = network.build(architecture, 1, 2)
    network.initialize(unet, torch.Generator().manual_seed(1))
    rng = torch.Generator().manual_seed(0)
    x, towards = torch.randn(2, 8, *(4,) * ndim, generator=rng), torch.randn(2, 6, *(8,) * ndim, generator=rng)
    layer = unet.decoder.transpconvs[0]
    with torch.no_grad():
        layer.bias.normal_(generator=rng)

    def found(biases, double):
        unet.decoder.biases = biases
        layer.to(torch.float64 if double else torch.float32).zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=not double and kind is torch.bfloat16):
            y = unet.decoder._up(layer, x.double() if double else x)
        (y * towards).sum().backward()
        return y.detach(), layer.bias.grad.clone(), layer.weight.grad.clone()

    exacts = found("within", True)
    for ours, exact in (pair for way in ("apart", "rounded") for pair in zip(found(way, False), exacts, strict=True)):
        tolerance = 1e-6 if kind is torch.float32 else 0.01
        assert float((ours.double() - exact).norm() / exact.norm()) < tolerance
