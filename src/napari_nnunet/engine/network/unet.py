"""The two U-Nets of nnU-Net v2, with its state-dict names.

A checkpoint of nnU-Net lists every encoder tensor four times and every decoder tensor twice, because its modules are
registered twice. Here every tensor exists once; :func:`nnunet_state` writes the duplicates, :func:`own_state` drops
them.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_nnunet.engine.network.blocks import CONV, ConvBlock, ConvStack, ResidualBlock, ResidualStage
from napari_nnunet.errors import ModelError, some
from napari_nnunet.schema.architecture import Architecture

Biases = Literal["within", "apart", "rounded"]
_TRANSPOSED = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}


class Encoder(nn.Module):
    """All resolutions of the contracting path; returns every one of them."""

    def __init__(self, architecture: Architecture, channels_in: int) -> None:
        super().__init__()
        a = architecture
        residual = a.name == "ResidualEncoderUNet"
        channels = channels_in
        self.stem = None
        if residual:
            channels = a.stem_channels or a.features[0]
            self.stem = ConvStack(a, 1, channels_in, channels, a.kernel_sizes[0], (1,) * a.ndim)
        stages: list[nn.Module] = []
        for s in range(a.stages):
            if residual:
                stages.append(_residual_stage(a, s, channels))
            else:
                stack = ConvStack(a, a.blocks[s], channels, a.features[s], a.kernel_sizes[s], a.strides[s])
                stages.append(nn.Sequential(stack))
            channels = a.features[s]
        self.stages = nn.Sequential(*stages)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the features of every stage, full resolution first."""
        if self.stem is not None:
            x = self.stem(x)
        skips = []
        for stage in self.stages:
            x = stage(x)
            skips.append(x)
        return skips


def _residual_stage(architecture: Architecture, stage: int, channels_in: int) -> ResidualStage:
    a = architecture
    bottleneck = None
    if a.block == "bottleneck":
        bottleneck = a.bottleneck_channels[stage] if a.bottleneck_channels else a.features[stage] // 4
    ones = (1,) * a.ndim
    return ResidualStage(
        [
            ResidualBlock(
                a, a.features[stage] if b else channels_in, a.features[stage], a.kernel_sizes[stage],
                ones if b else a.strides[stage], bottleneck,
            )
            for b in range(a.blocks[stage])
        ]
    )  # fmt: skip


class Decoder(nn.Module):
    """The expanding path; ``stages[0]`` is the lowest resolution.

    ``biases`` says how transposed convolutions get theirs. "apart" adds them by themselves: on a CPU, torch's gradient
    of them takes longer than those of the weights. "rounded" adds them in the type of the map: torch adds float32 to
    bfloat16 by way of copies, which takes a twelfth of a step.
    """

    def __init__(self, architecture: Architecture, heads: int) -> None:
        super().__init__()
        a = architecture
        self.biases: Biases = "within"
        stages, transposed, seg_layers = [], [], []
        for d in range(a.stages - 1):
            below, here = a.features[a.stages - 1 - d], a.features[a.stages - 2 - d]
            stride = a.strides[a.stages - 1 - d]
            transposed.append(
                _TRANSPOSED[a.ndim](below, here, stride, stride, bias=a.conv_bias)  # type: ignore[arg-type]
            )
            kernel = a.kernel_sizes[a.stages - 2 - d]
            stages.append(ConvStack(a, a.decoder_convs[d], 2 * here, here, kernel, (1,) * a.ndim))
            seg_layers.append(CONV[a.ndim](here, heads, 1))
        self.stages = nn.ModuleList(stages)
        self.transpconvs = nn.ModuleList(transposed)
        self.seg_layers = nn.ModuleList(seg_layers)

    def _up(self, layer: Any, x: Tensor) -> Tensor:
        if layer.bias is None or self.biases == "within":
            found: Tensor = layer(x)
            return found
        convolve = functional.conv_transpose2d if x.ndim == 4 else functional.conv_transpose3d
        out = convolve(x, layer.weight, None, layer.stride)
        bias = layer.bias if self.biases == "apart" else layer.bias.to(out.dtype)
        return out.add_(bias.view(-1, *(1,) * (x.ndim - 2)))

    def features(self, skips: Sequence[Tensor]) -> Tensor:
        """Return what the last head gets: full resolution, ``features[0]`` channels."""
        x = skips[-1]
        for d, (up, stage) in enumerate(zip(self.transpconvs, self.stages, strict=True)):
            x = stage(torch.cat((self._up(up, x), skips[-2 - d]), dim=1))
        return x

    def forward(self, skips: Sequence[Tensor], *, all_outputs: bool) -> list[Tensor]:
        """Return logits, highest resolution first; only that one unless ``all_outputs``."""
        x = skips[-1]
        outputs = []
        last = len(self.stages) - 1
        for d, (up, stage, seg) in enumerate(zip(self.transpconvs, self.stages, self.seg_layers, strict=True)):
            x = stage(torch.cat((self._up(up, x), skips[-2 - d]), dim=1))
            if all_outputs or d == last:
                outputs.append(seg(x))
        return outputs[::-1]


class UNet(nn.Module):
    """PlainConvUNet or ResidualEncoderUNet.

    Parameters
    ----------
    architecture : Architecture
        Stages, kernels, strides and blocks.
    channels_in : int
        Image channels, plus one per foreground label behind a previous stage.
    heads : int
        Number of outputs.

    Raises
    ------
    ModelError
        If the architecture has a single stage: such a network has no output.
    """

    def __init__(self, architecture: Architecture, channels_in: int, heads: int) -> None:
        super().__init__()
        if architecture.stages < 2:
            raise ModelError(
                "The plans describe a network of a single stage, which has no output. The images were too small "
                "for a U-Net (every axis below 8 voxels); plan with a finer target spacing."
            )
        self.architecture = architecture
        self.channels_in = channels_in
        self.heads = heads
        self.deep_supervision = False
        self.ranges: Mapping[str, tuple[float, float]] = {}  # of 8-bit arithmetic
        self.encoder = Encoder(architecture, channels_in)
        self.decoder = Decoder(architecture, heads)

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        """Map (B, C, [Z,] Y, X) to logits (B, heads, [Z,] Y, X), or to a list, finest first, when deeply supervised."""
        outputs = self.decoder(self.encoder(x), all_outputs=self.deep_supervision)
        return outputs if self.deep_supervision else outputs[0]

    def features(self, x: Tensor) -> Tensor:
        """Map (B, C, [Z,] Y, X) to what the last head gets, (B, features, [Z,] Y, X); see :attr:`head`."""
        out: Tensor = self.decoder.features(self.encoder(x))
        return out

    @property
    def head(self) -> tuple[Tensor, Tensor]:
        """Weights (heads, features) and biases (heads,) of the last layer, a convolution of one voxel."""
        layer: Any = self.decoder.seg_layers[-1]
        return layer.weight.detach().flatten(1), layer.bias.detach()


def build(architecture: Architecture, channels_in: int, heads: int) -> UNet:
    """Build a network with torch's default weights; see :func:`initialize` and :func:`load_state`."""
    return UNet(architecture, channels_in, heads)


def initialize(network: UNet, generator: torch.Generator | None = None) -> None:
    """Draw initial weights as nnU-Net does: Kaiming normal, slope 0.01, biases 0.

    The last normalisation of every residual branch starts at zero.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Conv3d | nn.ConvTranspose2d | nn.ConvTranspose3d):
            fan_in = module.weight[0].numel()
            std = math.sqrt(2 / (1 + 0.01**2)) / math.sqrt(fan_in)
            with torch.no_grad():
                module.weight.normal_(0, std, generator=generator)
                if module.bias is not None:
                    module.bias.zero_()
    for module in network.modules():
        if isinstance(module, ResidualBlock):
            norm = module.body[-1].norm
            for parameter in norm.parameters() if norm is not None else ():
                nn.init.zeros_(parameter)


def weights_digest(network: UNet) -> str:
    """Return a digest of the weights of a network, whatever file they came from."""
    digest = hashlib.sha256()
    for name, tensor in network.state_dict().items():
        digest.update(f"{name} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


_WRAPPERS = ("module.", "_orig_mod.")  # what torch's parallel and compiled networks put before names of theirs
_COUNTED = ("total_ops", "total_params")  # what programs that count operations leave in every part of a network


def own_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Drop wrappers' prefixes and nnU-Net's duplicate keys."""
    cleaned: dict[str, Tensor] = {}
    for key, tensor in state.items():
        name = "".join(part for part in re.split(r"(?<=\.)", key) if part not in _WRAPPERS)
        counted = name.rpartition(".")[2] in _COUNTED
        if ".all_modules." not in name and not name.startswith("decoder.encoder.") and not counted:
            cleaned[f"{name} (twice)" if name in cleaned else name] = tensor
    return cleaned


def load_state(network: UNet, state: Mapping[str, Tensor], *, where: str = "The checkpoint") -> None:
    """Load weights strictly: every tensor must be there, none may be left over, every shape must fit.

    Raises
    ------
    ModelError
        Naming the first tensors that do not fit, or that hold NaN or infinite values.
    """
    own = own_state(state)
    expected = network.state_dict()
    missing = [name for name in expected if name not in own]
    surplus = [name for name in own if name not in expected]
    wrong = [
        f"{name} {tuple(own[name].shape)} instead of {tuple(expected[name].shape)}"
        for name in expected
        if name in own and own[name].shape != expected[name].shape
    ]
    whole = [
        name
        for name in expected
        if name in own and expected[name].is_floating_point() and not own[name].is_floating_point()
    ]
    if missing or surplus or wrong or whole:
        details = "; ".join(
            f"{label}: {some(names, 3)}"
            for label, names in (
                ("missing", missing),
                ("unexpected", surplus),
                ("wrong shape", wrong),
                ("in whole numbers", whole),
            )
            if names
        )
        raise ModelError(
            f"{where} does not fit the network that plans.json and dataset.json describe ({details}). "
            "They probably belong to different trainings."
        )
    broken = [name for name in expected if not bool(torch.isfinite(own[name]).all())]
    if broken:
        raise ModelError(
            f"{where} holds values that are not numbers (NaN or infinite) in {some(broken, 3)}"
            ": the training diverged, or the file is damaged."
        )
    network.load_state_dict(own, strict=True)


def nnunet_state(network: UNet) -> OrderedDict[str, Tensor]:
    """Return the state dict with all duplicate keys, in nnU-Net's order; duplicates share their storage."""
    out: OrderedDict[str, Tensor] = OrderedDict()
    _emit(network.encoder, "encoder.", out)
    _emit(network.encoder, "decoder.encoder.", out)
    _emit(network.decoder, "decoder.", out)
    return out


def _emit(module: nn.Module, prefix: str, out: OrderedDict[str, Tensor]) -> None:
    for name, tensor in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)):
        out[prefix + name] = tensor.detach()
    for name, child in module.named_children():
        _emit(child, f"{prefix}{name}.", out)
    if isinstance(module, ConvBlock):
        for index, name in enumerate(module.module_names):
            _emit(getattr(module, name), f"{prefix}all_modules.{index}.", out)


def multiply_adds(architecture: Architecture, channels_in: int, heads: int, patch: Sequence[int]) -> float:
    """Return the number of multiply-add operations of one forward pass over a patch.

    Parameters
    ----------
    architecture : Architecture
        The network.
    channels_in, heads : int
        Input channels and outputs.
    patch : sequence of int
        Size in voxels, one entry per axis of the network.
    """
    total = 0.0
    sizes = [list(patch)]
    for stride in architecture.strides[1:]:
        sizes.append([n // s for n, s in zip(sizes[-1], stride, strict=True)])
    voxels = [math.prod(size) for size in sizes]
    channels = channels_in
    residual = architecture.name == "ResidualEncoderUNet"
    if residual:
        kernel = math.prod(architecture.kernel_sizes[0])
        channels = architecture.stem_channels or architecture.features[0]
        total += channels_in * channels * kernel * voxels[0]
    for s, features in enumerate(architecture.features):
        kernel = math.prod(architecture.kernel_sizes[s])
        convs = architecture.blocks[s] * (2 if residual else 1)
        total += (channels + (convs - 1) * features) * features * kernel * voxels[s]
        channels = features
    for d in range(architecture.stages - 1):
        s = architecture.stages - 2 - d
        here, kernel = architecture.features[s], math.prod(architecture.kernel_sizes[s])
        total += architecture.features[s + 1] * here * voxels[s]
        total += (2 + architecture.decoder_convs[d] - 1) * here * here * kernel * voxels[s]
    return total + architecture.features[0] * heads * voxels[0]
