"""How the numbers of a network that learns lie in memory: which order is faster, and how to get it."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from napari_nnunet.engine.network.blocks import InstanceNorm, NormPath
from napari_nnunet.engine.network.unet import UNet

Layout = Literal["plain", "channels_last"]
Norms = Literal["samples", "torch"]
_FORMATS = {4: torch.channels_last, 5: torch.channels_last_3d}
_WIDE = 32  # features of the first stage from which two-dimensional networks gain by the channels-last layout


def best_layout(network: UNet, kind: str) -> Layout:
    """Return the memory layout that was measured to be faster (see docs/benchmarks.md).

    It follows from the network alone, so that a training can be repeated to the bit.

    Parameters
    ----------
    network : UNet
        That learns.
    kind : str
        Of the device: "cpu", "cuda" or "mps".
    """
    a = network.architecture
    quick = kind == "cpu" and (a.ndim == 3 or a.features[0] >= _WIDE)
    return "channels_last" if quick else "plain"


def lay_out(network: UNet, layout: Layout) -> None:
    """Bring the weights of a network into a layout."""
    if layout == "channels_last":
        network.to(memory_format=_FORMATS[network.architecture.ndim + 2])  # type: ignore[call-overload]


def choose_norms(network: UNet, layout: Layout, norms: Norms) -> None:
    """Choose how a network that learns normalises.

    Parameters
    ----------
    network : UNet
        That learns.
    layout : Layout
        Of its images.
    norms : Norms
        "samples" is the fastest on a CPU: sample by sample in the channels-last layout, group normalisation in the
        plain one, and biases of transposed convolutions added by themselves. Trainings that began with "torch"
        continue with it, since results differ in the last bits.
    """
    paths: dict[Norms, dict[Layout, NormPath]] = {
        "samples": {"channels_last": "samples", "plain": "group"},
        "torch": {"channels_last": "group", "plain": "torch"},
    }
    for module in network.modules():
        if isinstance(module, InstanceNorm):
            module.path = paths[norms][layout]
    network.decoder.bias_apart = norms == "samples"


def laid_out(image: Tensor, layout: Layout) -> Tensor:
    """Return a batch (B, C, [Z,] Y, X) in a layout."""
    return image.contiguous(memory_format=_FORMATS[image.ndim]) if layout == "channels_last" else image
