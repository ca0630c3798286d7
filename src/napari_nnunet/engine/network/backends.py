"""What runs a network on a batch of windows: a literal table of two."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from napari_nnunet.engine.network.device import BackendChoice
from napari_nnunet.engine.network.torch_backend import TorchNetwork, torch_threads
from napari_nnunet.engine.network.unet import UNet

__all__ = ["CompiledNetwork", "compile_network", "torch_threads"]


class CompiledNetwork(Protocol):
    """A network ready to run.

    Called from one thread at a time with float32 windows (B, C, [Z,] Y, X) on any device; returns float32 logits
    (B, heads, [Z,] Y, X) on the network's device, which the next call may overwrite.
    """

    def __call__(self, batch: Tensor) -> Tensor:
        """Map windows to logits."""
        ...


def compile_network(
    network: UNet, choice: BackendChoice, shape: Sequence[int], *, head: bool = True
) -> CompiledNetwork:
    """Make a network runnable as chosen.

    Parameters
    ----------
    network : UNet
        With its weights.
    choice : BackendChoice
        Device, backend, precision.
    shape : sequence of int
        Shape (B, C, [Z,] Y, X) of every batch.
    head : bool
        Without it, the network returns the inputs of its last layer instead of logits.
    """
    if choice.backend == "openvino":
        from napari_nnunet.engine.network.openvino_backend import OpenVinoNetwork  # an optional dependency

        return OpenVinoNetwork(network, shape, precision=choice.precision, threads=choice.threads, head=head)
    return TorchNetwork(network, device=choice.device, precision=choice.precision, head=head)
