"""The U-Nets on torch: CUDA with mixed precision, MPS, and the CPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor

from napari_nnunet.engine.network.blocks import InstanceNorm
from napari_nnunet.engine.network.device import Precision
from napari_nnunet.engine.network.unet import UNet

_TYPES: dict[Precision, torch.dtype] = {
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


class TorchNetwork:
    """One network on a torch device.

    On the CPU the layout is channels-last and instance normalisation runs as group normalisation: the same numbers,
    1.1 to 1.5 times faster in float32 and over 5 times with bfloat16 hardware. On CUDA that layout was slower.
    """

    def __init__(self, network: UNet, *, device: str, precision: Precision, head: bool = True) -> None:
        self._device = torch.device(device)
        self._precision = precision
        self._head = head
        self._layout = torch.contiguous_format
        if self._device.type == "cpu":
            self._layout = torch.channels_last if network.architecture.ndim == 2 else torch.channels_last_3d
            for module in network.modules():
                if isinstance(module, InstanceNorm):
                    module.path = "group"
        self._network = network.eval().to(device=self._device)
        self._network = self._network.to(memory_format=self._layout)  # type: ignore[call-overload]

    def __call__(self, batch: Tensor) -> Tensor:
        """Map (B, C, ...) float32 to logits (B, heads, ...) float32 on the device."""
        with torch.inference_mode(), autocast(self._device, self._precision)():
            moved = batch.to(self._device, non_blocking=True).contiguous(memory_format=self._layout)
            out: Tensor = self._network(moved) if self._head else self._network.features(moved)
        return out.float()


def autocast(device: torch.device, precision: Precision) -> Callable[[], AbstractContextManager[Any]]:
    """Return what makes a context in which networks of float32 weights compute in a precision."""
    if precision == "float32":
        return nullcontext
    return partial(torch.autocast, device.type, _TYPES[precision])


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Use ``count`` threads for torch on the CPU inside the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
