"""Compiled loops: large samples in parts, any number of threads, values that are no numbers, and what they leave to torch."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_nnunet.engine.network import unet as network
from napari_nnunet.engine.network.backends import torch_threads
from napari_nnunet.engine.network.device import BackendChoice
from napari_nnunet.engine.network.layout import worth_compiling
from napari_nnunet.engine.network.norms import compiled, samples
from napari_nnunet.engine.training.learner import Learner
from napari_nnunet.engine.training.loss import SegmentationLoss
from napari_nnunet.schema.architecture import Architecture
from napari_nnunet.schema.trainers import TrainerRecipe

pytest.importorskip("numba", reason="compiled loops are an extra")
SMALL = Architecture(
    name="PlainConvUNet", ndim=3, features=(8, 16), kernel_sizes=((3, 3, 3),) * 2, strides=((1, 1, 1), (2, 2, 2)),
    blocks=(2, 2), decoder_convs=(2,),
)  # fmt: skip


def made(shape, kind, seed=0):
    rng = torch.Generator().manual_seed(seed)
    last = torch.channels_last if len(shape) == 4 else torch.channels_last_3d
    x = (torch.randn(shape, generator=rng) * 2 + 30).to(kind).contiguous(memory_format=last).requires_grad_()
    weight = (torch.rand(shape[1], generator=rng) + 0.5).requires_grad_()
    return x, weight, torch.randn(shape[1], generator=rng).requires_grad_()


def both_passes(way, inputs, slope=0.01):
    y = way(*inputs, 1e-5, slope)
    towards = torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).to(y.dtype)
    return [y.detach(), *torch.autograd.grad(y, inputs, towards)]


def error(found, exact):
    return float((found.double() - exact.double()).norm() / exact.double().norm())


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(2, 40, 24, 30, 41), (3, 7, 301, 257), (2, 1500, 20, 20)])
def test_samples_in_parts_are_more_exact_than_torch_far_from_zero(shape, kind):
    inputs = made(shape, kind)
    exact = both_passes(samples.normalized, [t.detach().double().requires_grad_() for t in inputs])
    ours, theirs = both_passes(compiled.normalized_by_loops, inputs), both_passes(samples.normalized, inputs)
    for own, other, true in zip(ours, theirs, exact, strict=True):
        assert (
            error(own, true) <= 1.2 * error(other, true) + 3e-7
        )  # some versions of torch are more exact on some processors


@pytest.mark.parametrize("shape", [(2, 32, 40, 40, 40), (64, 8, 24, 24)])
def test_results_do_not_depend_on_the_number_of_threads(shape):
    inputs, found = made(shape, torch.bfloat16), []
    for threads in (1, 2, 5):
        with torch_threads(threads):
            found.append(both_passes(compiled.normalized_by_loops, inputs))
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


def test_every_bfloat16_is_read_and_rounded_as_torch_does_it():
    from napari_nnunet.engine.network.norms import kernels

    numbers = torch.arange(2**16, dtype=torch.int32).to(torch.uint16)
    exact = numbers.view(torch.bfloat16).float()
    stored = numbers.numpy()
    assert np.array_equal(np.array([kernels._number(bits) for bits in stored]), exact.numpy(), equal_nan=True)
    towards = torch.randn(2**14, generator=torch.Generator().manual_seed(0)) * 100
    out = np.empty(2**14, np.uint16)
    for i, number in enumerate(towards.numpy()):
        kernels._put(out, i, number)
    assert torch.equal(torch.from_numpy(out.view(np.int16)).view(torch.bfloat16), towards.bfloat16())


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_what_is_no_number_is_not_hidden(kind, bad):
    x, weight, bias = made((2, 8, 9, 9), kind)
    with torch.no_grad():
        x[1, 3, 4, 4] = bad
    y = compiled.normalized_by_loops(x, weight, bias, 1e-5, 0.01)
    assert torch.isfinite(y[0]).all()
    assert torch.isnan(y[1, 3]).all()
    assert torch.isfinite(y[1, :3]).all()


def test_other_types_layouts_and_slopes_are_left_to_torch(monkeypatch):
    x, weight, bias = made((2, 8, 9, 9), torch.float32)
    monkeypatch.setattr(compiled, "_in_parts", None)
    for image, slope in ((x.double(), 0.01), (x.contiguous(), 0.01), (x, 1.5), (x, -0.1)):
        parameters = (p.to(image.dtype) for p in (weight, bias))
        assert compiled.normalized_by_loops(image, *parameters, 1e-5, slope).shape == image.shape


def learner(norms=None):
    unet = network.build(SMALL, 1, 3)
    network.initialize(unet, torch.Generator().manual_seed(1))
    recipe = TrainerRecipe()
    loss = SegmentationLoss(regions=False, ignore_label=None, batch_dice=False, smooth=recipe.smooth)
    found = Learner(unet, recipe, loss, BackendChoice("cpu", "torch", "float32", "", 2))
    if norms:
        found.use_norms(norms)
    return found


def test_a_network_learns_what_it_learns_with_torch():
    rng = torch.Generator().manual_seed(0)
    image = torch.randn(2, 1, 16, 16, 16, generator=rng)
    target = (torch.rand(2, 1, 16, 16, 16, generator=rng) * 3).to(torch.int16)
    losses = {}
    for norms in ("samples", "kernels"):
        one = learner(norms)
        assert one.norms == norms
        losses[norms] = [one.step(image, [target]) for _ in range(4)]
    assert losses["kernels"] == pytest.approx(losses["samples"], abs=2e-4)
    assert losses["kernels"][-1] < losses["kernels"][0] - 0.01


def test_where_nothing_can_be_compiled_torch_takes_its_place(monkeypatch):
    monkeypatch.setattr(compiled, "import_module", lambda name: (_ for _ in ()).throw(ImportError(name)))
    compiled.is_ready.cache_clear(), compiled._kernels.cache_clear()
    try:
        assert not compiled.is_ready(torch.float32)
        assert learner("kernels").norms == "samples"
    finally:
        compiled.is_ready.cache_clear(), compiled._kernels.cache_clear()


def test_they_are_tried_with_gradients_wherever_they_are_first_asked_for():
    compiled.is_ready.cache_clear()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert compiled.is_ready(torch.float32)


def test_short_trainings_and_small_networks_do_not_wait_for_a_compiler():
    whole = Architecture(
        name="PlainConvUNet", ndim=3, features=(32, 64, 128, 256), kernel_sizes=((3, 3, 3),) * 4,
        strides=((1, 1, 1), *((2, 2, 2),) * 3), blocks=(2,) * 4, decoder_convs=(2,) * 3,
    )  # fmt: skip
    assert worth_compiling(whole, (40, 56, 40), 7 * 250 * 1000)
    assert not worth_compiling(whole, (40, 56, 40), 7 * 250)
    assert not worth_compiling(whole, (40, 56, 40), 7 * 10)
    assert not worth_compiling(SMALL, (16, 16, 16), 2 * 20 * 10)
