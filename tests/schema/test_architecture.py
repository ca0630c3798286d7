"""The network of a plan: what is written is what is read."""

from __future__ import annotations

import pytest

from napari_nnunet.errors import PlanError
from napari_nnunet.schema.architecture import Architecture

_SIZES = {
    "features": (8, 16),
    "strides": ((1, 1, 1), (1, 2, 2)),
    "kernel_sizes": ((1, 3, 3), (3, 3, 3)),
    "blocks": (1, 3),
    "decoder_convs": (2,),
}


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, id="plain"),
        pytest.param({"name": "ResidualEncoderUNet"}, id="residual"),
        pytest.param({"norm": "batch", "norm_eps": 1e-3, "norm_affine": False, "conv_bias": False}, id="batch norm"),
        pytest.param({"dropout": 0.2, "nonlinearity": "relu", "nonlin_first": True}, id="dropout"),
        pytest.param({"slope": 0.2}, id="slope"),
        pytest.param(
            {"name": "ResidualEncoderUNet", "block": "bottleneck", "bottleneck_channels": (4, 8), "stem_channels": 8},
            id="bottleneck",
        ),
    ],
)
def test_a_network_survives_being_written_into_plans(changes):
    network = Architecture(**{"name": "PlainConvUNet", "ndim": 3, **_SIZES, **changes})
    assert Architecture.parse({"architecture": network.to_json()}, "plans.json") == network


def test_an_unknown_network_is_named():
    entry = Architecture(name="PlainConvUNet", ndim=3, **_SIZES).to_json()
    with pytest.raises(PlanError, match=r"unknown architecture 'my\.Primus'\. Known: PlainConvUNet"):
        Architecture.parse({"architecture": {**entry, "network_class_name": "my.Primus"}}, "plans.json")
