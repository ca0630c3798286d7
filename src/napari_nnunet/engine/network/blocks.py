"""What U-Nets are made of: normalisation, convolutions, residual blocks, with nnU-Net's names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_nnunet.engine.network.norms import compiled, samples, whole
from napari_nnunet.schema.architecture import Architecture

CONV = {2: nn.Conv2d, 3: nn.Conv3d}
POOL = {2: nn.AvgPool2d, 3: nn.AvgPool3d}
_BATCH_NORM = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}

NormPath = Literal["torch", "group", "formula", "samples", "kernels"]
_Normalized = Callable[[Tensor, Tensor | None, Tensor | None, float, float], Tensor]
_NORMALIZED: dict[str, _Normalized] = {"samples": samples.normalized, "kernels": compiled.normalized_by_loops}


class InstanceNorm(nn.Module):
    """Normalise every channel of every sample over space, in one of five ways that agree up to rounding.

    ``path`` "torch" is torch's own instance normalisation; "group" a group normalisation with one channel per group,
    which keeps the channels-last layout on CPUs; "samples" goes sample by sample, and "kernels" by compiled loops
    (see ``norms``): the fastest ones where a network learns in the channels-last layout on a CPU. "formula" is what
    torch.compile makes one loop of in that layout on a GPU; where nothing is compiled it is torch's own.
    """

    def __init__(self, channels: int, *, eps: float, affine: bool) -> None:
        super().__init__()
        self.channels = channels
        self.eps = eps
        self.path: NormPath = "torch"
        self.weight = nn.Parameter(torch.ones(channels)) if affine else None
        self.bias = nn.Parameter(torch.zeros(channels)) if affine else None

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``x`` of shape (B, C, [Z,] Y, X)."""
        if self.path in _NORMALIZED:
            return _NORMALIZED[self.path](x, self.weight, self.bias, self.eps, 1.0)
        if self.path == "group":
            return functional.group_norm(x, self.channels, self.weight, self.bias, self.eps)
        if self.path == "formula" and torch.compiler.is_compiling():
            return whole.by_formula(x, self.weight, self.bias, self.eps)
        return functional.instance_norm(x, weight=self.weight, bias=self.bias, eps=self.eps)

    def with_leaky(self, x: Tensor) -> _Normalized | None:
        """Return what normalises ``x`` and applies a leaky ReLU in one step, None where these are two."""
        if self.path in _NORMALIZED:
            return _NORMALIZED[self.path]
        apart = torch.compiler.is_compiling() or not (x.is_cuda and torch.is_grad_enabled())
        return None if apart else whole.normalized_at_once


def _norm(architecture: Architecture, channels: int) -> nn.Module | None:
    if architecture.norm == "instance":
        return InstanceNorm(channels, eps=architecture.norm_eps, affine=architecture.norm_affine)
    if architecture.norm == "batch":
        return _BATCH_NORM[architecture.ndim](channels, eps=architecture.norm_eps, affine=architecture.norm_affine)
    return None


def _nonlinearity(architecture: Architecture) -> nn.Module:
    if architecture.nonlinearity == "relu":
        return nn.ReLU(inplace=True)
    return nn.LeakyReLU(architecture.slope, inplace=True)


def _convolved(conv: Any, x: Tensor) -> Tensor:
    """Convolve; in float32 where an axis has fewer voxels than the kernel.

    There, oneDNN's bfloat16 kernels (torch 2.13) read memory that nobody wrote: gradients of the weights, and sometimes
    results, are whatever it holds. Maps that small cost nothing in float32.
    """
    thin = any(n < k for n, k in zip(x.shape[2:], conv.kernel_size, strict=True))
    if not (thin and x.device.type == "cpu" and torch.is_autocast_enabled("cpu")):
        found: Tensor = conv(x)
        return found
    with torch.autocast("cpu", enabled=False):
        exact: Tensor = conv(x.float())
        return exact.to(torch.get_autocast_dtype("cpu"))


class ConvBlock(nn.Module):
    """Convolution, dropout, normalisation, nonlinearity; each but the first may be absent."""

    def __init__(
        self,
        architecture: Architecture,
        channels_in: int,
        channels_out: int,
        kernel: Sequence[int],
        stride: Sequence[int],
        *,
        nonlin: bool = True,
        dropout: bool = True,
        bias: bool | None = None,
    ) -> None:
        super().__init__()
        self.conv = CONV[architecture.ndim](
            channels_in,
            channels_out,
            tuple(kernel),  # type: ignore[arg-type]
            tuple(stride),  # type: ignore[arg-type]
            padding=tuple((k - 1) // 2 for k in kernel),  # type: ignore[arg-type]
            bias=architecture.conv_bias if bias is None else bias,
        )
        has_dropout = dropout and architecture.dropout is not None
        self.dropout = nn.Dropout(architecture.dropout or 0.0) if has_dropout else None
        self.norm = _norm(architecture, channels_out)
        self.nonlin = _nonlinearity(architecture) if nonlin else None
        self.nonlin_first = architecture.nonlin_first

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C_in, ...) to (B, C_out, ...)."""
        x = _convolved(self.conv, x)
        if self.dropout is not None:
            x = self.dropout(x)
        norm, nonlin = self.norm, self.nonlin
        if isinstance(norm, InstanceNorm) and isinstance(nonlin, nn.LeakyReLU) and not self.nonlin_first:
            normalized = norm.with_leaky(x)
            if normalized is not None:
                return normalized(x, norm.weight, norm.bias, norm.eps, nonlin.negative_slope)
        for step in (self.nonlin, self.norm) if self.nonlin_first else (self.norm, self.nonlin):
            if step is not None:
                x = step(x)
        return x

    @property
    def module_names(self) -> list[str]:
        """The attribute behind each index of nnU-Net's ``all_modules``."""
        order = ["conv", "dropout", "nonlin", "norm"] if self.nonlin_first else ["conv", "dropout", "norm", "nonlin"]
        return [name for name in order if getattr(self, name) is not None]


class ConvStack(nn.Module):
    """Several conv blocks; only the first has the stride."""

    def __init__(
        self, architecture: Architecture, count: int, channels_in: int, channels_out: int, kernel: Sequence[int],
        stride: Sequence[int],
    ) -> None:  # fmt: skip
        super().__init__()
        ones = (1,) * architecture.ndim
        self.convs = nn.Sequential(
            *(
                ConvBlock(architecture, channels_out if i else channels_in, channels_out, kernel, ones if i else stride)
                for i in range(count)
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C_in, ...) to (B, C_out, ...)."""
        out: Tensor = self.convs(x)
        return out


class ResidualBlock(nn.Module):
    """Basic or bottleneck residual block with a pooled, projected skip path (ResNet-D)."""

    def __init__(
        self, architecture: Architecture, channels_in: int, channels_out: int, kernel: Sequence[int],
        stride: Sequence[int], bottleneck: int | None,
    ) -> None:  # fmt: skip
        super().__init__()
        ones = (1,) * architecture.ndim
        if bottleneck is None:
            self.conv1 = ConvBlock(architecture, channels_in, channels_out, kernel, stride)
            self.conv2 = ConvBlock(architecture, channels_out, channels_out, kernel, ones, nonlin=False, dropout=False)
            self.nonlin2 = _nonlinearity(architecture)
        else:
            self.conv1 = ConvBlock(architecture, channels_in, bottleneck, ones, ones, dropout=False)
            self.conv2 = ConvBlock(architecture, bottleneck, bottleneck, kernel, stride)
            self.conv3 = ConvBlock(architecture, bottleneck, channels_out, ones, ones, nonlin=False, dropout=False)
            self.nonlin3 = _nonlinearity(architecture)
        self.is_bottleneck = bottleneck is not None
        steps: list[nn.Module] = []
        if tuple(stride) != ones:
            steps.append(POOL[architecture.ndim](tuple(stride), tuple(stride)))  # type: ignore[arg-type]
        if channels_in != channels_out:
            # The projection has no bias even where the convolutions have one.
            steps.append(
                ConvBlock(architecture, channels_in, channels_out, ones, ones, nonlin=False, dropout=False, bias=False)
            )
        self.skip = nn.Sequential(*steps) if steps else None

    @property
    def body(self) -> list[ConvBlock]:
        """The conv blocks of the residual path, in order."""
        return [self.conv1, self.conv2, self.conv3] if self.is_bottleneck else [self.conv1, self.conv2]

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C_in, ...) to (B, C_out, ...)."""
        residual = x if self.skip is None else self.skip(x)
        for block in self.body:
            x = block(x)
        nonlin = self.nonlin3 if self.is_bottleneck else self.nonlin2
        out: Tensor = nonlin(x + residual)
        return out


class ResidualStage(nn.Module):
    """Residual blocks of one resolution."""

    def __init__(self, blocks: Sequence[ResidualBlock]) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C_in, ...) to (B, C_out, ...)."""
        out: Tensor = self.blocks(x)
        return out
