"""The U-Nets as OpenVINO graphs, built straight from their weights (no trace of the network is needed).

A trace at full size takes minutes; walking the modules and emitting one node per layer takes a moment, and compiling
the standard six-stage network 0.3 s (docs/architecture.md). Compiled networks are therefore kept in memory only.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from napari_nnunet.engine.network.blocks import ConvBlock, ConvStack, InstanceNorm, ResidualBlock, ResidualStage
from napari_nnunet.engine.network.device import Precision, has_fast_bfloat16, openvino_core
from napari_nnunet.engine.network.unet import UNet
from napari_nnunet.engine.openvino_runtime import ops, ov

_HINTS: dict[Precision, str] = {"float32": "f32", "float16": "f16", "bfloat16": "bf16"}


class OpenVinoNetwork:
    """One network compiled for a fixed batch of windows.

    Parameters
    ----------
    network : UNet
        Weights in float32.
    shape : sequence of int
        Input (B, C, [Z,] Y, X).
    precision : {"float32", "bfloat16", "float16", "int8"}
        Arithmetic inside; input and output stay float32.
    threads : int
        0 means all cores.
    head : bool
        Whether the last layer is part of it; without, the result are its inputs.
    """

    def __init__(
        self, network: UNet, shape: Sequence[int], *, precision: Precision, threads: int, head: bool = True
    ) -> None:
        if precision == "int8":
            from napari_nnunet.engine.network.eight_bit import build_quantised  # which builds upon this module

            graph = build_quantised(network, shape, network.ranges, head=head)
        else:
            graph = build_graph(network, shape, head=head)
        config: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": _HINTS[_beside(precision)],
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": "1",
        }
        if threads:
            config["INFERENCE_NUM_THREADS"] = str(threads)
        if threads and threads < (os.cpu_count() or 1):
            config["ENABLE_CPU_PINNING"] = "NO"  # every process would take the first cores, and two workers the same
        self._compiled = openvino_core().compile_model(graph, "CPU", config)
        self._request = self._compiled.create_infer_request()

    def __call__(self, batch: Tensor) -> Tensor:
        """Map (B, C, ...) float32 to logits (B, heads, ...) float32; the result is overwritten by the next call."""
        self._request.infer([ov.Tensor(batch.contiguous().numpy(), shared_memory=True)], share_inputs=True)
        return torch.from_numpy(self._request.get_output_tensor(0).data)


def _beside(precision: Precision) -> Precision:
    """Return the arithmetic of what is not 8-bit: normalisations and sums."""
    if precision != "int8":
        return precision
    return "bfloat16" if has_fast_bfloat16() else "float32"


def build_graph(network: UNet, shape: Sequence[int], *, head: bool = True) -> ov.Model:
    """Return the graph of a network for inputs of one shape, with or without its last layer."""
    parameter = ops.parameter(list(shape), dtype=np.float32, name="window")
    x: Any = parameter
    encoder, decoder = network.encoder, network.decoder
    if encoder.stem is not None:
        x = _emit(encoder.stem, x)
    skips = []
    for stage in encoder.stages:
        x = _emit(stage, x)
        skips.append(x)
    for d, (up, stage) in enumerate(zip(decoder.transpconvs, decoder.stages, strict=True)):
        x = _emit(stage, ops.concat([_transposed(up, x), skips[-2 - d]], axis=1))
    if head:
        x = _conv(decoder.seg_layers[-1], x)
    return ov.Model([ops.result(x)], [parameter], "unet")


def _emit(module: nn.Module, x: Any) -> Any:
    for kind, emit in _EMITTERS:
        if isinstance(module, kind):
            return emit(module, x)
    raise TypeError(f"no OpenVINO node for {type(module).__name__}")


def _array(tensor: Tensor | None) -> Any:
    return None if tensor is None else tensor.detach().float().cpu().numpy()


def _per_channel(values: Any, ndim: int) -> Any:
    return ops.constant(np.ascontiguousarray(values.reshape((1, -1) + (1,) * ndim)))


def _conv(module: Any, x: Any) -> Any:
    ndim = len(module.kernel_size)
    padding = list(module.padding)
    node = ops.convolution(
        x, ops.constant(_array(module.weight)), list(module.stride), padding, padding, [1] * ndim, "EXPLICIT"
    )
    return node if module.bias is None else ops.add(node, _per_channel(_array(module.bias), ndim))


def _transposed(module: Any, x: Any) -> Any:
    ndim = len(module.kernel_size)
    none = [0] * ndim
    node = ops.convolution_backprop_data(
        x, ops.constant(_array(module.weight)), list(module.stride), None, none, none, [1] * ndim, "EXPLICIT"
    )
    return node if module.bias is None else ops.add(node, _per_channel(_array(module.bias), ndim))


def _instance_norm(module: InstanceNorm, x: Any) -> Any:
    ndim = len(x.get_output_shape(0)) - 2
    axes = ops.constant(np.arange(2, 2 + ndim, dtype=np.int64))
    node = ops.mvn(x, axes, True, module.eps, "INSIDE_SQRT")
    if module.weight is None or module.bias is None:
        return node
    scaled = ops.multiply(node, _per_channel(_array(module.weight), ndim))
    return ops.add(scaled, _per_channel(_array(module.bias), ndim))


def _batch_norm(module: Any, x: Any) -> Any:
    ndim = len(x.get_output_shape(0)) - 2
    scale = 1 / np.sqrt(_array(module.running_var) + module.eps)
    shift = -_array(module.running_mean) * scale
    if module.weight is not None:
        scale, shift = scale * _array(module.weight), shift * _array(module.weight) + _array(module.bias)
    return ops.add(ops.multiply(x, _per_channel(scale, ndim)), _per_channel(shift, ndim))


def _block(module: ConvBlock, x: Any) -> Any:
    x = _conv(module.conv, x)
    for name in module.module_names[1:]:
        if name != "dropout":
            x = _emit(getattr(module, name), x)
    return x


def _sequence(modules: Any, x: Any) -> Any:
    for module in modules:
        x = _emit(module, x)
    return x


def _residual(module: ResidualBlock, x: Any) -> Any:
    skip = x if module.skip is None else _sequence(module.skip, x)
    x = _sequence(module.body, x)
    return _emit(module.nonlin3 if module.is_bottleneck else module.nonlin2, ops.add(x, skip))


def _pool(module: Any, x: Any) -> Any:
    kernel = list(module.kernel_size)
    none = [0] * len(kernel)
    return ops.avg_pool(x, list(module.stride), none, none, kernel, True, "floor", "explicit")


def _leaky(module: nn.LeakyReLU, x: Any) -> Any:
    return ops.prelu(x, ops.constant(np.array([module.negative_slope], dtype=np.float32)))


_EMITTERS: tuple[tuple[Any, Callable[[Any, Any], Any]], ...] = (
    (ConvBlock, _block),
    (ConvStack, lambda module, x: _sequence(module.convs, x)),
    (ResidualStage, lambda module, x: _sequence(module.blocks, x)),
    (ResidualBlock, _residual),
    (nn.Sequential, _sequence),
    (InstanceNorm, _instance_norm),
    ((nn.BatchNorm2d, nn.BatchNorm3d), _batch_norm),
    ((nn.AvgPool2d, nn.AvgPool3d), _pool),
    (nn.LeakyReLU, _leaky),
    (nn.ReLU, lambda _, x: ops.relu(x)),
)
