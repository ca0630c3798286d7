"""The U-Nets as ONNX graphs, built straight from their weights, as :mod:`openvino_backend` builds its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from napari_nnunet.engine.network.blocks import ConvBlock, ConvStack, InstanceNorm, ResidualBlock, ResidualStage
from napari_nnunet.engine.network.device import Precision
from napari_nnunet.engine.network.unet import UNet

try:
    import onnxruntime
except ImportError:  # writing needs onnx only
    onnxruntime = None
try:
    from napari_nnunet.engine.network import eight_bit
except ImportError:  # without OpenVINO no model is quantised
    eight_bit = None  # type: ignore[assignment]

_Bounds = tuple[tuple[float, float], ...]
_CONVOLUTIONS = (nn.Conv2d, nn.Conv3d)
OPSET = 17  # read by every onnxruntime since 1.12


class _Graph:
    """Nodes and weights that were added so far; names are their numbers."""

    def __init__(self, networks: Sequence[UNet], patch: Sequence[int], kept: Precision) -> None:
        self.nodes: list[Any] = []
        self.weights: list[Any] = []
        self._half = kept == "float16"
        self._ranges: dict[int, _Bounds] = {}
        if kept == "int8":
            for network in networks:
                self._ranges |= eight_bit.ranges_by_layer(network, (1, network.channels_in, *patch), network.ranges)
        self._named: dict[int, str] = {}  # weights that a network is run with several times are kept once
        self._short: dict[str, str] = {}

    def add(self, kind: str, inputs: Sequence[str], **attributes: Any) -> str:
        """Add a node and return the name of its output."""
        name = f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], name, **attributes))
        return name

    def constant(self, values: Any) -> str:
        """Add weights and return their name; kept as float16 where half the size is wanted, and used as float32."""
        if id(values) in self._named:
            return self._named[id(values)]
        array = np.ascontiguousarray(values.detach().float().cpu().numpy() if isinstance(values, Tensor) else values)
        name = f"weights_{len(self.weights)}"
        kept = array.astype(np.float16) if self._half and array.size > 1 else array.astype(np.float32)
        self.weights.append(numpy_helper.from_array(kept, name))
        found = self.add("Cast", [name], to=TensorProto.FLOAT) if kept.dtype == np.float16 else name
        if isinstance(values, nn.Parameter):  # these live as long as their network
            self._named[id(values)] = found
        return found

    def bounds(self, module: Any) -> _Bounds:
        """Return between which values what a convolution reads lies, part by part; empty where it is not 8-bit."""
        return self._ranges.get(id(module.weight), ())

    def short(self, x: str, bounds: tuple[float, float]) -> str:
        """Round what a layer gives to 256 steps of a range, once for all that read it, and return its name."""
        if x not in self._short:
            low, high = bounds
            step = np.float32((high - low) / 255)
            zero = np.rint(-low / step).clip(0, 255).astype(np.uint8)
            numbers = [self.exact(np.array(value)) for value in (step, zero)]
            self._short[x] = self.add("DequantizeLinear", [self.add("QuantizeLinear", [x, *numbers]), *numbers])
        return self._short[x]

    def short_weights(self, module: Any, axis: int) -> str:
        """Add the weights of a convolution as whole numbers with a factor per output channel; return their name."""
        key = id(module.weight)
        if key not in self._named:
            values, scale = eight_bit.eight_bit_weights(module.weight.detach().float().cpu().numpy(), axis)
            inputs = [self.exact(values), self.exact(scale.ravel())]
            self._named[key] = self.add("DequantizeLinear", inputs, axis=axis)
        return self._named[key]

    def exact(self, values: NDArray[Any]) -> str:
        """Add numbers that are kept as they are and return their name."""
        name = f"numbers_{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(values, name))
        return name


def build_onnx(network: UNet, patch: Sequence[int], *, kept: Precision = "float32") -> Any:
    """Return the graph of a network as an ``onnx.ModelProto`` that its checker accepts.

    Parameters
    ----------
    network : UNet
        Weights in float32.
    patch : sequence of int
        Window the network was trained for; kept in the graph as the extent of its axes, batches may have any size.
    kept : Precision
        How weights are stored. float16: half the size, the arithmetic stays float32. int8: a quarter; what convolutions
        read is rounded to 256 steps of the network's ``ranges``.
    """
    graph = _Graph([network], patch, kept)
    last = _unet(graph, network, "window")
    graph.nodes.append(helper.make_node("Identity", [last], ["logits"], "logits"))
    return _model(graph, "unet", ("window", [network.channels_in, *patch]), ("logits", [network.heads, *patch]))


@dataclass(frozen=True)
class FixedScale:
    """Channels that are normalised by constants: clipped to ``low`` .. ``high``, less ``mean``, divided by ``std``."""

    low: NDArray[np.float32]
    high: NDArray[np.float32]
    mean: NDArray[np.float32]
    std: NDArray[np.float32]


def build_whole(
    networks: Sequence[UNet],
    patch: Sequence[int],
    *,
    scale: FixedScale | None,
    mirrors: Sequence[Sequence[int]],
    regions: bool,
    kept: Precision = "float32",
) -> Any:
    """Return all of a model's work on one window as one graph: "image" in, "probabilities" out.

    Parameters
    ----------
    networks : sequence of UNet
        The folds; the mean of their logits counts.
    patch : sequence of int
        As for :func:`build_onnx`.
    scale : FixedScale, optional
        Normalisation inside the graph, one number per channel.
    mirrors : sequence of sequence of int
        Spatial axes that are flipped, for each copy of the window whose logits are averaged; (): as it is.
    regions : bool
        Whether heads are regions, each with a sigmoid of its own; else a softmax joins them.
    kept : Precision
        As for :func:`build_onnx`.
    """
    graph = _Graph(networks, patch, kept)
    x, channels = "image", networks[0].channels_in
    if scale is not None:
        shape = (1, channels, *[1] * len(patch))
        low, high, mean, std = (
            graph.exact(values.reshape(shape)) for values in (scale.low, scale.high, scale.mean, scale.std)
        )
        x = graph.add("Min", [graph.add("Max", [x, low]), high])
        x = graph.add("Div", [graph.add("Sub", [x, mean]), std])
    found = [
        _flipped(graph, _unet(graph, network, _flipped(graph, x, flips)), flips)
        for network in networks
        for flips in mirrors
    ]
    mean_logits = found[0] if len(found) == 1 else graph.add("Mean", found)
    kind, more = ("Sigmoid", {}) if regions else ("Softmax", {"axis": 1})
    graph.nodes.append(helper.make_node(kind, [mean_logits], ["probabilities"], "probabilities", **more))
    heads = networks[0].heads
    return _model(graph, "nnunet", ("image", [channels, *patch]), ("probabilities", [heads, *patch]))


def _flipped(graph: _Graph, x: str, axes: Sequence[int]) -> str:
    if not axes:
        return x
    ends = [np.iinfo(np.int64).min] * len(axes)
    lists = ([-1] * len(axes), ends, [axis + 2 for axis in axes], [-1] * len(axes))
    return graph.add("Slice", [x, *(graph.exact(np.array(values, np.int64)) for values in lists)])


def _unet(graph: _Graph, network: UNet, x: str) -> str:
    encoder, decoder = network.encoder, network.decoder
    if encoder.stem is not None:
        x = _emit(graph, encoder.stem, x)
    skips = []
    for stage in encoder.stages:
        x = _emit(graph, stage, x)
        skips.append(x)
    for d, (up, stage) in enumerate(zip(decoder.transpconvs, decoder.stages, strict=True)):
        parts = [_convolved(graph, up, x, "ConvTranspose"), skips[-2 - d]]
        first = next(module for module in stage.modules() if isinstance(module, _CONVOLUTIONS))
        if len(bounds := graph.bounds(first)) == len(parts):  # each part has steps of its own
            parts = [graph.short(part, own) for part, own in zip(parts, bounds, strict=True)]
        x = _emit(graph, stage, graph.add("Concat", parts, axis=1))
    return _convolved(graph, decoder.seg_layers[-1], x, "Conv")


def _model(graph: _Graph, name: str, into: tuple[str, list[int]], out: tuple[str, list[int]]) -> Any:
    made = helper.make_graph(
        graph.nodes,
        name,
        [helper.make_tensor_value_info(into[0], TensorProto.FLOAT, ["batch", *into[1]])],
        [helper.make_tensor_value_info(out[0], TensorProto.FLOAT, ["batch", *out[1]])],
        graph.weights,
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="napari-nnunet")
    model.ir_version = 8
    onnx.checker.check_model(model)
    return model


ENDINGS = (".onnx",)


def write(network: UNet, patch: Sequence[int], path: Path, *, kept: Precision) -> None:
    """Write the graph of a network."""
    path.write_bytes(build_onnx(network, patch, kept=kept).SerializeToString())


def opened(path: Path) -> Callable[[Any], Any] | None:
    """Return what maps windows (B, C, ...) to logits by a written graph; None where onnxruntime is not installed."""
    if onnxruntime is None:
        return None
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda window: session.run(None, {"window": window})[0]


def run_once(graph: bytes, name: str, window: Any) -> Any:
    """Return the one output of a graph for an input; None where onnxruntime is not installed."""
    if onnxruntime is None:
        return None
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    return session.run(None, {name: window})[0]


def _emit(graph: _Graph, module: nn.Module, x: str) -> str:
    for kind, emit in _EMITTERS:
        if isinstance(module, kind):
            return emit(graph, module, x)
    raise TypeError(f"no ONNX node for {type(module).__name__}")


def _convolved(graph: _Graph, module: Any, x: str, kind: str) -> str:
    kernel = list(module.kernel_size)
    padding = list(module.padding) if kind == "Conv" else [0] * len(kernel)
    if bounds := graph.bounds(module):
        read = graph.short(x, bounds[0]) if len(bounds) == 1 else x
        inputs = [read, graph.short_weights(module, 0 if kind == "Conv" else 1)]
    else:
        inputs = [x, graph.constant(module.weight)]
    if module.bias is not None:
        inputs.append(graph.constant(module.bias))
    return graph.add(kind, inputs, kernel_shape=kernel, strides=list(module.stride), pads=padding * 2)


def _instance_norm(graph: _Graph, module: InstanceNorm, x: str) -> str:
    weight = np.ones(module.channels) if module.weight is None else module.weight
    bias = np.zeros(module.channels) if module.bias is None else module.bias
    inputs = [x, graph.constant(weight), graph.constant(bias)]
    return graph.add("InstanceNormalization", inputs, epsilon=float(module.eps))


def _batch_norm(graph: _Graph, module: Any, x: str) -> str:
    weight = np.ones(module.num_features) if module.weight is None else module.weight
    bias = np.zeros(module.num_features) if module.bias is None else module.bias
    inputs = [x, *(graph.constant(v) for v in (weight, bias, module.running_mean, module.running_var))]
    return graph.add("BatchNormalization", inputs, epsilon=float(module.eps))


def _block(graph: _Graph, module: ConvBlock, x: str) -> str:
    x = _convolved(graph, module.conv, x, "Conv")
    for name in module.module_names[1:]:
        if name != "dropout":
            x = _emit(graph, getattr(module, name), x)
    return x


def _sequence(graph: _Graph, modules: Any, x: str) -> str:
    for module in modules:
        x = _emit(graph, module, x)
    return x


def _residual(graph: _Graph, module: ResidualBlock, x: str) -> str:
    skip = x if module.skip is None else _sequence(graph, module.skip, x)
    x = _sequence(graph, module.body, x)
    return _emit(graph, module.nonlin3 if module.is_bottleneck else module.nonlin2, graph.add("Add", [x, skip]))


def _pool(graph: _Graph, module: Any, x: str) -> str:
    size = list(module.kernel_size)
    return graph.add("AveragePool", [x], kernel_shape=size, strides=list(module.stride))


_EMITTERS: tuple[tuple[Any, Callable[[_Graph, Any, str], str]], ...] = (
    (ConvBlock, _block),
    (ConvStack, lambda graph, module, x: _sequence(graph, module.convs, x)),
    (ResidualStage, lambda graph, module, x: _sequence(graph, module.blocks, x)),
    (ResidualBlock, _residual),
    (nn.Sequential, _sequence),
    (InstanceNorm, _instance_norm),
    ((nn.BatchNorm2d, nn.BatchNorm3d), _batch_norm),
    ((nn.AvgPool2d, nn.AvgPool3d), _pool),
    (nn.LeakyReLU, lambda graph, module, x: graph.add("LeakyRelu", [x], alpha=float(module.negative_slope))),
    (nn.ReLU, lambda graph, _, x: graph.add("Relu", [x])),
)
