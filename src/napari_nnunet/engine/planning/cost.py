"""What a training step costs on this computer: measured on a part of a patch, scaled to the whole."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from napari_nnunet.engine.network.device import Precision
from napari_nnunet.engine.network.layout import best_layout, choose_norms, laid_out, lay_out
from napari_nnunet.engine.network.torch_backend import autocast, torch_threads
from napari_nnunet.engine.network.unet import build, multiply_adds
from napari_nnunet.schema.architecture import Architecture

STEPS_PER_EPOCH = 250
VALIDATION_STEPS = 50
EPOCHS = 1000
_TIME_BUDGET = 2e10  # multiply-adds of the measured forward pass; a second or two on a slow processor
_SAMPLES = 3  # steps that are timed; the fastest counts, for others were held up by other programs
_BUSY = 1.2  # times the time that one thread computed that passed meanwhile: other programs had its core
_HELD_UP = 2.0  # times what one thread takes: several threads lose so much only by waiting for cores
_COPIES = 4  # of every weight: value, gradient, momentum, and a temporary one
_FORWARD = 1 / 3  # share of the forward pass in a training step


@dataclass(frozen=True)
class StepCost:
    """Measured time and memory of one training step.

    Parameters
    ----------
    seconds : float
        Of a step with the whole batch.
    bytes : float
        Activations, weights, gradients and momentum.
    device : str
        "cpu" or "cuda".
    share : float
        Part of the batch's voxels that was really run.
    busy : bool
        Whether other programs had the cores: the time is at most that of one thread then, on a core of its own.
    """

    seconds: float
    bytes: float
    device: str
    share: float
    busy: bool = False

    @property
    def hours_per_fold(self) -> float:
        """Of nnU-Net's 1000 epochs, validation steps included; without the final validation."""
        return self.seconds * (STEPS_PER_EPOCH + _FORWARD * VALIDATION_STEPS) * EPOCHS / 3600


class Trial:
    """A network of random weights that learns, laid out and normalised as in training.

    Parameters
    ----------
    architecture, channels, heads
        The network.
    patch : sequence of int
        Size of its one image.
    device : str
        Where it learns.
    precision : Precision
        Arithmetic of the network; the weights are float32.
    """

    def __init__(
        self,
        architecture: Architecture,
        channels: int,
        heads: int,
        patch: Sequence[int],
        *,
        device: str,
        precision: Precision,
    ) -> None:
        self.network = build(architecture, channels, heads).to(device)
        self.network.deep_supervision = True
        layout = best_layout(self.network, torch.device(device).type)
        lay_out(self.network, layout)
        if torch.device(device).type == "cpu":
            choose_norms(self.network, layout, "samples")
        self.image = laid_out(torch.randn(1, channels, *patch, device=device), layout)
        self._autocast = autocast(self.image.device, precision)

    def step(self) -> float:
        """Go forward and backward; returns the seconds it took."""
        began = time.perf_counter()
        self.network.zero_grad()
        with self._autocast():
            outputs = self.network(self.image)
        sum(output.float().square().mean() for output in outputs).backward()
        if self.image.is_cuda:
            torch.cuda.synchronize()
        return time.perf_counter() - began

    def step_alone(self) -> tuple[float, float]:
        """Go forward and backward with one thread; returns the seconds that it computed, and those that passed."""
        # Windows counts a thread's time in ticks of 16 ms, whatever resolution it claims.
        clock = time.perf_counter if sys.platform == "win32" else time.thread_time
        with torch_threads(1):
            began = clock()
            passed = self.step()
            return clock() - began, passed


def measure_step(
    architecture: Architecture,
    channels: int,
    heads: int,
    patch: Sequence[int],
    batch: int,
    *,
    device: str,
    precision: Precision = "float32",
) -> StepCost:
    """Run a forward and a backward pass and say what a whole step would take.

    Beside other programs, threads that wait for each other can take a hundred times their time (here, of two cores,
    98 days for what takes one). Where they were held up, the time of one thread counts if that is less.

    Parameters
    ----------
    architecture : Architecture
        The network; it is built with random weights.
    channels, heads : int
        Inputs and outputs.
    patch : sequence of int
        Of the configuration.
    batch : int
        Of the configuration.
    device : str
        Where to run.
    precision : Precision
        Arithmetic of the network.
    """
    part = _part(architecture, channels, heads, patch)
    trial = Trial(architecture, channels, heads, part, device=device, precision=precision)
    trial.step()  # the first one allocates and chooses algorithms
    held = 0

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        nonlocal held
        held += tensor.numel() * tensor.element_size()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        trial.step()
    seconds = min(trial.step() for _ in range(_SAMPLES))
    alone, passed = trial.step_alone() if device == "cpu" else (seconds, seconds)
    busy = passed > _BUSY * alone or seconds > _HELD_UP * alone
    seconds = min(seconds, alone) if busy else seconds
    work = multiply_adds(architecture, channels, heads, patch) / multiply_adds(architecture, channels, heads, part)
    voxels = math.prod(patch) / math.prod(part)
    weights = sum(p.numel() * p.element_size() for p in trial.network.parameters())
    held_then = held * voxels * batch + _COPIES * weights
    return StepCost(seconds * work * batch, held_then, device, 1 / (voxels * batch), busy)


def step_bytes(
    architecture: Architecture, channels: int, heads: int, patch: Sequence[int], batch: int, *, itemsize: int = 4
) -> float:
    """Return about how much memory a training step takes, without running one.

    Every convolution keeps its input and every normalisation its own for the way back; weights have a gradient and a
    momentum next to them.

    Parameters
    ----------
    architecture : Architecture
        The network.
    channels, heads : int
        Inputs and outputs.
    patch : sequence of int
        Of the configuration.
    batch : int
        Patches per step.
    itemsize : int
        Bytes per value of the feature maps.
    """
    sizes = [list(patch)]
    for stride in architecture.strides[1:]:
        sizes.append([n // s for n, s in zip(sizes[-1], stride, strict=True)])
    voxels = [math.prod(size) for size in sizes]
    kept = float(channels * voxels[0])
    per_block = 4 if architecture.name == "ResidualEncoderUNet" else 2
    for s, features in enumerate(architecture.features):
        kept += per_block * architecture.blocks[s] * features * voxels[s]
    for d in range(architecture.stages - 1):
        s = architecture.stages - 2 - d
        kept += (2 + 2 * architecture.decoder_convs[d]) * architecture.features[s] * voxels[s]
        kept += 4 * heads * voxels[s]
    weights = _weights(architecture, channels, heads)
    return batch * kept * itemsize + _COPIES * 4 * weights


def _weights(architecture: Architecture, channels: int, heads: int) -> int:
    """Return the number of weights; the network is built without memory for them."""
    with torch.device("meta"):
        return sum(p.numel() for p in build(architecture, channels, heads).parameters())


def _part(architecture: Architecture, channels: int, heads: int, patch: Sequence[int]) -> tuple[int, ...]:
    """Return a patch whose longest edges are halved until it is quick to run; two voxels remain at the bottom."""
    part = list(patch)
    while multiply_adds(architecture, channels, heads, part) > _TIME_BUDGET:
        able = [a for a in range(len(part)) if part[a] % (2 * architecture.divisor[a]) == 0 and part[a] > 8]
        able = [a for a in able if part[a] // 2 >= 2 * architecture.divisor[a]]
        if not able:
            break
        longest = max(able, key=lambda a: part[a])
        part[longest] //= 2
    return tuple(part)
