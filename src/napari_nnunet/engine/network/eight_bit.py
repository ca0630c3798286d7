"""The U-Nets in 8-bit arithmetic: between which values each layer's inputs lie is measured once, and kept as numbers.

Weights become 8-bit channel by channel, by their own largest value; what flows between layers needs ranges, which NNCF
finds on windows of training images. Only the ranges are stored: the graph is built from the checkpoint as always.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Mapping, Sequence
from contextlib import redirect_stdout
from io import StringIO
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_nnunet.engine.network.openvino_backend import build_graph
from napari_nnunet.engine.network.unet import UNet
from napari_nnunet.engine.openvino_runtime import ops, ov
from napari_nnunet.errors import ModelError, ResourceError

Ranges = Mapping[str, tuple[float, float]]
_LEVELS = 256
_MOST = 127  # of weights: a symmetric range has no -128
_OUTPUTS = {"Convolution": 0, "ConvolutionBackpropData": 1}  # the axis of their weights that has a scale per channel


def find_ranges(network: UNet, windows: Sequence[NDArray[np.float32]]) -> dict[str, tuple[float, float]]:
    """Return between which values the inputs of the convolutions of a network lie.

    Parameters
    ----------
    network : UNet
        With its weights.
    windows : sequence of ndarray of float32, shape (1, C, [Z,] Y, X)
        Parts of prepared training images.

    Raises
    ------
    ResourceError
        If NNCF is not installed.
    """
    # NNCF and OpenVINO's tools report their use to a server unless they take this for a test of their own; nothing that
    # is done here is anybody else's business. Read when nncf is imported.
    os.environ.setdefault("NNCF_CI", "1")
    try:
        import nncf  # an optional part of the installation
    except ImportError as error:
        raise ResourceError(
            "Quantising needs NNCF, which is not installed: pip install 'napari-nnunet[int8]'."
        ) from error
    nncf.set_log_level(logging.ERROR)
    with redirect_stdout(StringIO()):  # it draws bars of its own
        found = nncf.quantize(
            _named(build_graph(network, windows[0].shape)),
            nncf.Dataset(list(windows)),
            subset_size=len(windows),
            preset=nncf.QuantizationPreset.MIXED,
            # Normalisation takes nearly all biases away again.
            advanced_parameters=nncf.AdvancedQuantizationParameters(disable_bias_correction=True),
        )
    ranges = {}
    for node in found.get_ordered_ops():
        if node.get_type_name() != "FakeQuantize":
            continue
        source = node.input_value(0).get_node()
        readers = {reader.get_node().get_type_name() for reader in node.output(0).get_target_inputs()}
        if not readers & {*_OUTPUTS, "Concat"}:
            continue  # leaky ReLUs gain nothing, and what goes into them is best exact
        low, high = (node.input_value(i).get_node() for i in (1, 2))
        if source.get_type_name() != "Constant" and low.get_output_size() and low.get_type_name() == "Constant":
            ranges[source.get_friendly_name()] = (float(np.min(low.data)), float(np.max(high.data)))
    return ranges


def build_quantised(network: UNet, shape: Sequence[int], ranges: Ranges, *, head: bool = True) -> ov.Model:
    """Return the graph of a network with 8-bit convolutions.

    Parameters
    ----------
    network, shape, head
        See :func:`napari_nnunet.engine.network.openvino_backend.build_graph`.
    ranges : mapping of str to (float, float)
        From :func:`find_ranges`, of a network of the same architecture.

    Raises
    ------
    ModelError
        If the ranges belong to another architecture.
    """
    model = _named(build_graph(network, shape, head=head))
    nodes = _known(model, ranges)
    quantised = set()
    for name, (low, high) in ranges.items():
        output = nodes[name].output(0)
        readers = [reader for reader in output.get_target_inputs() if reader.get_node().get_type_name() != "Result"]
        bounds = [ops.constant(np.float32(value)) for value in (low, high, low, high)]
        short = ops.fake_quantize(output, *bounds, _LEVELS)
        quantised.add(short.get_friendly_name())
        for reader in readers:
            reader.replace_source_output(short.output(0))
    for node in nodes.values():
        if node.get_type_name() in _OUTPUTS and _is_short(node.input_value(0).get_node(), quantised):
            _shorten_weights(node)
    model.validate_nodes_and_infer_types()
    return model


def ranges_by_layer(network: UNet, shape: Sequence[int], ranges: Ranges) -> dict[int, tuple[tuple[float, float], ...]]:
    """Return for every convolution that is to be 8-bit the ranges of what it reads: one, or one per joined part.

    Parameters
    ----------
    network, shape, ranges
        As for :func:`build_quantised`.

    Returns
    -------
    dict of int to tuple of (float, float)
        By ``id`` of the convolution's weights.

    Raises
    ------
    ModelError
        If the ranges belong to another architecture.
    """
    weights = [p for p in network.parameters() if p.ndim > 2]
    nodes = _known(_named(build_graph(network, shape)), ranges)
    found = {}
    for node in nodes.values():
        if node.get_type_name() not in _OUTPUTS or not _is_short(node.input_value(0).get_node(), ranges):
            continue
        source = node.input_value(0).get_node()
        parts = [part.get_node() for part in source.input_values()] if source.get_type_name() == "Concat" else [source]
        values = node.input_value(1).get_node().data
        own = next(p for p in weights if p.shape == values.shape and np.array_equal(p.detach().float().numpy(), values))
        found[id(own)] = tuple(ranges[part.get_friendly_name()] for part in parts)
    return found


def _known(model: ov.Model, ranges: Ranges) -> dict[str, Any]:
    nodes = {node.get_friendly_name(): node for node in model.get_ordered_ops()}
    strange = sorted(set(ranges) - set(nodes))
    if strange:
        raise ModelError(f"The 8-bit ranges belong to another network: it has no layer {strange[0]!r}.")
    return nodes


def _is_short(node: Any, quantised: Collection[str]) -> bool:
    """Whether what a convolution reads is 8-bit, joined from several parts or not."""
    if node.get_type_name() == "Concat":
        return all(_is_short(source.get_node(), quantised) for source in node.input_values())
    return node.get_friendly_name() in quantised


def _shorten_weights(node: Any) -> None:
    values, scale = eight_bit_weights(node.input_value(1).get_node().data, _OUTPUTS[node.get_type_name()])
    kept = ops.multiply(ops.convert(ops.constant(values), np.float32), ops.constant(scale))
    node.input(1).replace_source_output(kept.output(0))


def eight_bit_weights(weights: NDArray[Any], axis: int) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Return weights as whole numbers of -127 to 127, and what each channel is multiplied by, for broadcasting.

    Parameters
    ----------
    weights : ndarray of float
        Of a convolution.
    axis : int
        That of its outputs.
    """
    others = tuple(a for a in range(weights.ndim) if a != axis)
    largest = np.maximum(np.abs(weights).max(axis=others, keepdims=True), np.finfo(np.float32).tiny * _MOST)
    scale = (largest / _MOST).astype(np.float32)
    return np.rint(weights / scale).clip(-_MOST, _MOST).astype(np.int8), scale


def _named(model: ov.Model) -> ov.Model:
    """Name layers by their kind and order, which are the same whenever the graph is built, with its head or without."""
    counts: dict[str, int] = {}
    for node in model.get_ordered_ops():
        kind = node.get_type_name()
        if kind not in ("Constant", "Result"):
            counts[kind] = counts.get(kind, 0) + 1
            node.set_friendly_name(f"{kind} {counts[kind]}")
    return model
