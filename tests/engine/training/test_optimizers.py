"""What a resumed training takes from the optimizer and gradient scaler of a checkpoint, and what it refuses."""

from __future__ import annotations

import math

import pytest
import torch

from napari_nnunet.engine.training.optimizers import load_optimizer, make_optimizer, sound_scaler
from napari_nnunet.errors import ModelError
from napari_nnunet.schema.trainers import TrainerRecipe, recipe_of


def stepped(recipe):
    weight = torch.nn.Parameter(torch.ones(3, 2))
    optimizer = make_optimizer([weight], recipe)
    weight.sum().backward()
    optimizer.step()
    return optimizer


@pytest.mark.parametrize("name", ["nnUNetTrainer", "nnUNetTrainerAdam", "nnUNetTrainerVanillaAdam"])
def test_an_optimizer_continues_where_it_was(name):
    recipe = recipe_of(name)
    state = stepped(recipe).state_dict()
    for switch in ("foreach", "maximize", "differentiable", "fused"):  # versions of torch before have none of these
        state["param_groups"][0].pop(switch, None)
    optimizer = make_optimizer([torch.nn.Parameter(torch.ones(3, 2))], recipe)
    load_optimizer(optimizer, state, where="a.pth")
    for before, after in zip(state["state"][0].values(), optimizer.state_dict()["state"][0].values(), strict=True):
        torch.testing.assert_close(before, after)


def test_weights_that_no_gradient_reached_stay_without_an_entry():
    recipe = recipe_of("nnUNetTrainer")
    state = stepped(recipe).state_dict()
    state["param_groups"][0]["params"] = [0, 1]
    optimizer = make_optimizer([torch.nn.Parameter(torch.ones(3, 2)), torch.nn.Parameter(torch.ones(1))], recipe)
    load_optimizer(optimizer, state, where="a.pth")
    assert list(optimizer.state_dict()["state"]) == [0]


def _spoiled(state, kind):
    group, entry = state["param_groups"][0], state["state"][0]
    return {
        "no number in it": {**state, "state": {0: {"momentum_buffer": entry["momentum_buffer"] * math.nan}}},
        "endless": {**state, "state": {0: {"momentum_buffer": entry["momentum_buffer"] / 0}}},
        "another shape": {**state, "state": {0: {"momentum_buffer": torch.ones(2)}}},
        "no settings": {"state": state["state"]},
        "momentum": {**state, "param_groups": [{**group, "momentum": math.nan}]},
        "text": {**state, "param_groups": [{**group, "weight_decay": "x"}]},
        "no momentum": {**state, "param_groups": [{k: v for k, v in group.items() if k != "momentum"}]},
        "a list": [1, 2],
        "entries": {**state, "state": {0: 5}},
        "other weights": {**state, "param_groups": [{**group, "params": [0, 1]}]},
    }[kind]


@pytest.mark.parametrize(
    "kind",
    ["no number in it", "endless", "another shape", "no settings", "momentum", "text", "no momentum", "a list", "entries",
     "other weights"],
)  # fmt: skip
def test_an_optimizer_that_no_step_can_be_made_with_is_refused(kind):
    """A flipped bit there would become weights that are no numbers, epochs later."""
    state = _spoiled(stepped(TrainerRecipe()).state_dict(), kind)
    optimizer = make_optimizer([torch.nn.Parameter(torch.ones(3, 2))], TrainerRecipe())
    with pytest.raises(ModelError, match=r"a\.pth: its optimizer does not fit this training"):
        load_optimizer(optimizer, state, where="a.pth")


def test_a_gradient_scaler_has_positive_factors():
    good = {
        "scale": 65536.0,
        "growth_factor": 2.0,
        "backoff_factor": 0.5,
        "growth_interval": 2000,
        "_growth_tracker": 3,
    }
    assert sound_scaler(good, where="a.pth") == good
    for odd in (
        {**good, "scale": 0.0},
        {**good, "scale": math.nan},
        {**good, "growth_factor": "2"},
        {"scale": 1.0},
        [1],
    ):
        with pytest.raises(ModelError, match="the state of its gradient scaler"):
            sound_scaler(odd, where="a.pth")
