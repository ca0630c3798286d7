"""OpenVINO graphs as files, for computers without this program."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import openvino as ov

from napari_nnunet.engine.network.device import Precision, openvino_core
from napari_nnunet.engine.network.eight_bit import build_quantised
from napari_nnunet.engine.network.openvino_backend import build_graph
from napari_nnunet.engine.network.unet import UNet

ENDINGS = (".xml", ".bin")


def write(network: UNet, patch: Sequence[int], path: Path, *, kept: Precision) -> None:
    """Write the graph of a network; weights go into a second file beside it."""
    shape = (1, network.channels_in, *patch)
    graph = build_quantised(network, shape, network.ranges) if kept == "int8" else build_graph(network, shape)
    try:
        ov.save_model(graph, path, compress_to_fp16=kept == "float16")
    except RuntimeError as error:  # all that it says of a disk that is full is that a stream has an error
        if "ios" not in str(error):
            raise
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error


def opened(path: Path) -> Callable[[Any], Any]:
    """Return what maps a window (1, C, ...) to logits by a written graph."""
    compiled = openvino_core().compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda window: compiled(window)[0]
