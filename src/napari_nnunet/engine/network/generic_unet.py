"""Weights of nnU-Net v1's Generic_UNet as those of a plain U-Net of v2.

The two differ in one thing: a decoder level of v1 has the kernels of the level below it, one of v2 those of its own.
Where these are not the same, the larger of both is taken and the smaller kernel is set into its middle, with zeros
around it: the convolution stays exactly the same, and the network is one that nnU-Net v2, too, can build.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from napari_nnunet.errors import ModelError
from napari_nnunet.schema.architecture import Architecture

_CONTEXT = re.compile(r"conv_blocks_context\.(\d+)\.(?:(\d+)\.)?blocks\.(\d+)\.(conv|instnorm)\.(weight|bias)")
_LOCAL = re.compile(r"conv_blocks_localization\.(\d+)\.(\d+)\.blocks\.(\d+)\.(conv|instnorm)\.(weight|bias)")
_KINDS = {"conv": "conv", "instnorm": "norm"}


@dataclass(frozen=True, eq=False)
class OldNetwork:
    """A network of v1 in v2's terms.

    Parameters
    ----------
    weights : dict of str to Tensor
        v2's names, without its duplicates.
    features, kernel_sizes, strides, blocks, decoder_convs
        As in plans.json.
    channels, heads : int
        Inputs and outputs.
    """

    weights: dict[str, Tensor]
    features: tuple[int, ...]
    kernel_sizes: tuple[tuple[int, ...], ...]
    strides: tuple[tuple[int, ...], ...]
    blocks: tuple[int, ...]
    decoder_convs: tuple[int, ...]
    channels: int
    heads: int

    @property
    def ndim(self) -> Literal[2, 3]:
        """Spatial axes."""
        return 2 if len(self.strides[0]) == 2 else 3

    @property
    def architecture(self) -> Architecture:
        """The same network in numbers."""
        return Architecture(
            name="PlainConvUNet",
            ndim=self.ndim,
            features=self.features,
            kernel_sizes=self.kernel_sizes,
            strides=self.strides,
            blocks=self.blocks,
            decoder_convs=self.decoder_convs,
        )


def convert(state: Mapping[str, Tensor]) -> OldNetwork:
    """Return the weights of a Generic_UNet as those of a PlainConvUNet.

    Parameters
    ----------
    state : mapping of str to Tensor
        v1's ``state_dict``.

    Raises
    ------
    ModelError
        If the names or shapes are not those of a Generic_UNet with convolutional pooling and InstanceNorm.
    """
    encoder, decoder = _sort(state)
    levels = len(decoder)
    if sorted(encoder) != list(range(levels + 1)) or levels == 0:
        raise ModelError(
            f"The network has encoder levels {sorted(encoder)} and {levels} decoder levels; no U-Net of nnU-Net v1 has."
        )
    strides = [_ups(state, levels - 1 - d) for d in range(levels)]
    sizes = [tuple(int(n) for n in encoder[d][0]["conv.weight"].shape[2:]) for d in range(levels + 1)]
    # decoder level of v2's encoder level d: counted from the deepest
    own = [tuple(int(n) for n in decoder[levels - 1 - d][0]["conv.weight"].shape[2:]) for d in range(levels)]
    kernels = [tuple(map(max, sizes[d], own[d])) for d in range(levels)] + [sizes[levels]]
    weights: dict[str, Tensor] = {}
    for d in range(levels + 1):
        for i, block in enumerate(encoder[d]):
            _add(weights, f"encoder.stages.{d}.0.convs.{i}", block, kernels[d])
    for u in range(levels):
        for i, block in enumerate(decoder[u]):
            _add(weights, f"decoder.stages.{u}.convs.{i}", block, kernels[levels - 1 - u])
        for old, new in ((f"tu.{u}", f"decoder.transpconvs.{u}"), (f"seg_outputs.{u}", f"decoder.seg_layers.{u}")):
            weight = _get(state, f"{old}.weight")
            weights[f"{new}.weight"] = weight
            outputs = weight.shape[1] if old.startswith("tu") else weight.shape[0]
            weights[f"{new}.bias"] = state.get(f"{old}.bias", torch.zeros(outputs))
    ones = (1,) * len(sizes[0])
    return OldNetwork(
        weights=weights,
        features=tuple(int(encoder[d][-1]["conv.weight"].shape[0]) for d in range(levels + 1)),
        kernel_sizes=tuple(kernels),
        strides=(ones, *strides),
        blocks=tuple(len(encoder[d]) for d in range(levels + 1)),
        decoder_convs=tuple(len(decoder[u]) for u in range(levels)),
        channels=int(encoder[0][0]["conv.weight"].shape[1]),
        heads=int(_get(state, f"seg_outputs.{levels - 1}.weight").shape[0]),
    )


Blocks = dict[int, list[dict[str, Tensor]]]


def _sort(state: Mapping[str, Tensor]) -> tuple[Blocks, Blocks]:
    """Return the convolutions of every encoder and decoder level in their order."""
    found: tuple[dict[int, dict[tuple[int, int], dict[str, Tensor]]], ...] = ({}, {})
    for name, tensor in state.items():
        context, local = _CONTEXT.fullmatch(name), _LOCAL.fullmatch(name)
        if context is not None:
            level, part, block, kind, what = context.groups()
            place = found[0].setdefault(int(level), {})
        elif local is not None:
            level, part, block, kind, what = local.groups()
            place = found[1].setdefault(int(level), {})
        elif name.startswith(("tu.", "seg_outputs.")):
            continue
        else:
            raise ModelError(f"The network has a parameter '{name}', which nnU-Net v1's standard U-Net does not have.")
        place.setdefault((int(part or 0), int(block)), {})[f"{_KINDS[kind]}.{what}"] = tensor
    encoder, decoder = ({level: [b[key] for key in sorted(b)] for level, b in levels.items()} for levels in found)
    for level in (*encoder.values(), *decoder.values()):
        for block_found in level:
            if {"conv.weight", "norm.weight", "norm.bias"} - set(block_found):
                raise ModelError("The network has convolutions without InstanceNorm; such models cannot be imported.")
    return encoder, decoder


def _ups(state: Mapping[str, Tensor], u: int) -> tuple[int, ...]:
    """Return the stride between two levels: the size of the transposed convolution's kernel."""
    return tuple(int(n) for n in _get(state, f"tu.{u}.weight").shape[2:])


def _get(state: Mapping[str, Tensor], name: str) -> Tensor:
    if name not in state:
        raise ModelError(f"The network has no '{name}': it is not nnU-Net v1's standard U-Net.")
    return state[name]


def _add(weights: dict[str, Tensor], prefix: str, block: Mapping[str, Tensor], kernel: tuple[int, ...]) -> None:
    for name, tensor in block.items():
        weights[f"{prefix}.{name}"] = _centred(tensor, kernel) if name == "conv.weight" else tensor
    if "conv.bias" not in block:
        weights[f"{prefix}.conv.bias"] = torch.zeros(block["conv.weight"].shape[0])


def _centred(weight: Tensor, kernel: tuple[int, ...]) -> Tensor:
    """Return a kernel with zeros around it, as large as asked for."""
    edges = [(want - have) // 2 for want, have in zip(kernel, weight.shape[2:], strict=True)]
    return functional.pad(weight, [n for edge in reversed(edges) for n in (edge, edge)])
