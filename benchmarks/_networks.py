"""Networks that benchmarks run: plain U-Nets of nnU-Net's shapes, with random weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch

from napari_nnunet.engine.network import unet
from napari_nnunet.schema.architecture import Architecture

LARGEST_3D = (32, 64, 128, 256, 320, 320)  # features of nnU-Net's network for windows of 128^3


def plain(ndim: Literal[2, 3], features: Sequence[int]) -> Architecture:
    """Return a plain U-Net that halves every axis from one stage to the next."""
    stages = len(features)
    return Architecture(
        name="PlainConvUNet",
        ndim=ndim,
        features=tuple(features),
        kernel_sizes=((3,) * ndim,) * stages,
        strides=((1,) * ndim, *((2,) * ndim,) * (stages - 1)),
        blocks=(2,) * stages,
        decoder_convs=(2,) * (stages - 1),
    )


def built(architecture: Architecture, heads: int) -> unet.UNet:
    """Return a network for one channel, with the same weights each time."""
    network = unet.build(architecture, 1, heads)
    unet.initialize(network, torch.Generator().manual_seed(0))
    return network
