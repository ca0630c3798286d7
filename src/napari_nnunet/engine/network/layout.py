"""How the numbers of a network that learns lie in memory: which order is faster, and how to get it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from napari_nnunet.engine.network.blocks import InstanceNorm, NormPath
from napari_nnunet.engine.network.unet import Biases, UNet
from napari_nnunet.schema.architecture import Architecture

Layout = Literal["plain", "channels_last"]
Norms = Literal["kernels", "samples", "torch", "formula"]
_FORMATS = {4: torch.channels_last, 5: torch.channels_last_3d}
_HALF = ("float16", "bfloat16")
_WORTH = 10**11  # numbers that a training normalises, from which compiled loops save more than compiling takes
_WIDE = 32  # features of the first stage from which two-dimensional networks gain by the channels-last layout


def best_layout(network: UNet, kind: str, *, precision: str = "float32", compiled: bool = False) -> Layout:
    """Return the memory layout that was measured to be faster (see docs/benchmarks.md).

    It follows from the network and its arithmetic alone, so that a training can be repeated to the bit.

    Parameters
    ----------
    network : UNet
        That learns.
    kind : str
        Of the device: "cpu", "cuda" or "mps".
    precision : str
        Of its arithmetic. A GPU's units for half precision compute in the channels-last layout alone, and bring every
        map there and back if need be: a quarter of a step.
    compiled : bool
        By torch.compile. Torch's own normalisation is slow in the channels-last layout on a GPU, by more than that
        gains.
    """
    a = network.architecture
    if kind == "cuda":
        return "channels_last" if compiled and precision in _HALF else "plain"
    quick = kind == "cpu" and (a.ndim == 3 or a.features[0] >= _WIDE)
    return "channels_last" if quick else "plain"


def lay_out(network: UNet, layout: Layout) -> None:
    """Bring the weights of a network into a layout."""
    channels_last = _FORMATS[network.architecture.ndim + 2]
    network.to(memory_format=channels_last if layout == "channels_last" else torch.contiguous_format)  # type: ignore[call-overload]


def choose_norms(network: UNet, layout: Layout, norms: Norms, biases: Biases = "rounded") -> None:
    """Choose how a network that learns normalises.

    Parameters
    ----------
    network : UNet
        That learns.
    layout : Layout
        Of its images.
    norms : Norms
        "kernels" is the fastest on a CPU, and "samples" where numba is not installed: compiled loops, or sample by
        sample, in the channels-last layout, group normalisation in the plain one. Trainings continue with what they
        began with, since results differ in the last bits. "formula" is for networks that are compiled for a GPU.
    biases : Biases
        How transposed convolutions get theirs; but beside "kernels" and "samples" they are always within the
        convolution.
    """
    paths: dict[Norms, dict[Layout, NormPath]] = {
        "kernels": {"channels_last": "kernels", "plain": "group"},
        "samples": {"channels_last": "samples", "plain": "group"},
        "torch": {"channels_last": "group", "plain": "torch"},
        "formula": {"channels_last": "formula", "plain": "torch"},
    }
    for module in network.modules():
        if isinstance(module, InstanceNorm):
            module.path = paths[norms][layout]
    network.decoder.biases = biases if norms in ("kernels", "samples") else "within"


def worth_compiling(architecture: Architecture, patch: Sequence[int], samples: int) -> bool:
    """Whether a training is long enough for compiled normalisation.

    It follows from the network and the number of steps alone, so that a training can be repeated to the bit.

    Parameters
    ----------
    architecture : Architecture
        Of the network.
    patch : sequence of int
        What it gets.
    samples : int
        How many of them in all steps.
    """
    voxels, numbers = math.prod(patch), 0
    of_decoder = (*reversed(architecture.decoder_convs), 0)  # the lowest stage has none
    for stage, stride in enumerate(architecture.strides):
        voxels //= math.prod(stride)
        numbers += voxels * architecture.features[stage] * (architecture.blocks[stage] + of_decoder[stage])
    return numbers * samples >= _WORTH


def laid_out(image: Tensor, layout: Layout) -> Tensor:
    """Return a batch (B, C, [Z,] Y, X) in a layout."""
    return image.contiguous(memory_format=_FORMATS[image.ndim]) if layout == "channels_last" else image
