"""How networks that learn on a GPU normalise, as far as a computer without one can tell."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional

from napari_nnunet.engine.network import unet as network
from napari_nnunet.engine.network.device import BackendChoice
from napari_nnunet.engine.network.layout import best_layout, choose_norms, laid_out, lay_out
from napari_nnunet.engine.network.norms import whole
from napari_nnunet.engine.training.learner import Learner
from napari_nnunet.engine.training.loss import SegmentationLoss
from napari_nnunet.schema.architecture import Architecture
from napari_nnunet.schema.trainers import TrainerRecipe


def small(norm="instance"):
    architecture = Architecture(
        name="PlainConvUNet", ndim=3, features=(4, 6), kernel_sizes=((3, 3, 3),) * 2, strides=((1, 1, 1), (2, 2, 2)),
        blocks=(2, 2), decoder_convs=(1,), norm=norm,
    )  # fmt: skip
    unet = network.build(architecture, 1, 2)
    network.initialize(unet, torch.Generator().manual_seed(1))
    return unet


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("space", [(6, 5), (3, 4, 5)])
def test_normalising_and_a_leaky_relu_in_one_step_give_what_two_give_to_the_bit(space, affine):
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, *space, generator=rng) * 2 + 3
    weight, bias = (torch.rand(3, generator=rng) + 0.5 if affine else None for _ in range(2))
    given, found = torch.randn(x.shape, generator=rng), []
    for together in (True, False):
        inputs = [None if part is None else part.clone().requires_grad_() for part in (x, weight, bias)]
        if together:
            y = whole.normalized_at_once(*inputs, 1e-5, 0.01)
        else:
            one = functional.instance_norm(inputs[0], weight=inputs[1], bias=inputs[2], eps=1e-5)
            y = functional.leaky_relu(one, 0.01)
        gradients = torch.autograd.grad(y, [part for part in inputs if part is not None], given)
        found.append([y, *gradients])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_the_formula_is_used_where_a_network_is_compiled_and_learns_what_torchs_own_does():
    image, gradients, asked = torch.randn(2, 1, 8, 8, 8, generator=torch.Generator().manual_seed(0)), {}, []

    def by_formula(*given):
        asked.append(given[0].shape)
        return formula(*given)

    formula = whole.by_formula
    for norms in ("torch", "formula"):
        unet = small()
        layout = "channels_last" if norms == "formula" else "plain"
        lay_out(unet, layout)
        choose_norms(unet, layout, norms)
        run = torch.compile(unet, backend="eager") if norms == "formula" else unet
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(whole, "by_formula", by_formula)
            out = run(laid_out(image, layout))
            unet(laid_out(image, layout))  # a picture for the film, say: not compiled
        functional.cross_entropy(out[0] if isinstance(out, list) else out, torch.zeros(2, 8, 8, 8).long()).backward()
        gradients[norms] = torch.cat([p.grad.flatten() for p in unet.parameters() if p.grad is not None])
    assert len(asked) == 5  # once a block
    difference = float((gradients["torch"] - gradients["formula"]).norm() / gradients["torch"].norm())
    assert 0 < difference < 1e-4


@pytest.mark.parametrize(
    ("kind", "precision", "compiled", "layout"),
    [
        ("cuda", "float16", True, "channels_last"),
        ("cuda", "bfloat16", True, "channels_last"),
        ("cuda", "float16", False, "plain"),
        ("cuda", "float32", True, "plain"),
        ("mps", "float16", True, "plain"),
        ("cpu", "float32", True, "channels_last"),
        ("cpu", "bfloat16", False, "channels_last"),
    ],
)
def test_the_layout_follows_from_what_computes(kind, precision, compiled, layout):
    assert best_layout(small(), kind, precision=precision, compiled=compiled) == layout


def test_weights_come_back_from_the_channels_last_layout():
    unet = small()
    kept = {name: value.clone() for name, value in unet.state_dict().items()}
    for layout in ("channels_last", "plain"):
        lay_out(unet, layout)
        assert all(torch.equal(value, kept[name]) for name, value in unet.state_dict().items())
    assert all(value.is_contiguous() for value in unet.state_dict().values())


def test_with_a_scaler_a_batch_that_is_no_number_leaves_the_weights_as_they_are():
    choice = BackendChoice("cpu", "torch", "float32", "", 1)
    learner = Learner(small(), TrainerRecipe(deep_supervision=False), SegmentationLoss(), choice)
    learner.scaler = torch.amp.GradScaler("cpu", init_scale=16.0)
    image, target = torch.randn(1, 1, 8, 8, 8), torch.ones(1, 1, 8, 8, 8)

    def weights():
        return torch.cat([p.detach().flatten().clone() for p in learner.network.parameters()])

    before = weights()
    assert math.isnan(learner.step(torch.full_like(image, math.nan), [target]))
    assert torch.equal(weights(), before)
    assert math.isfinite(learner.step(image, [target]))
    assert not torch.equal(weights(), before)
