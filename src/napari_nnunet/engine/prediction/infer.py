"""Logits of windows: the mean over mirrored copies and folds is taken of logits, before anything else."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Sequence
from itertools import combinations

import torch
from torch import Tensor
from torch.nn import functional

from napari_nnunet.engine.network.backends import CompiledNetwork, compile_network
from napari_nnunet.engine.network.device import BackendChoice, free_memory
from napari_nnunet.engine.network.unet import UNet
from napari_nnunet.engine.prediction.tiles import Tile, TileGrid

_BATCH_VOXELS = 0.75e6  # batches beyond this were not faster on a CPU
_GPU_VOXELS = 8.4e6  # four windows of 128^3: an H200 took 13.4 ms for one, 8.8 ms each for four, 8.2 ms each for eight
_GPU_BYTES = 16  # that a batch takes there for a voxel and a feature of the first stage
_GPU_SHARE = 0.25  # of the free memory
_MAX_BATCH = {"cpu": 16, "cuda": 64, "mps": 16}


def mirror_sets(axes: Sequence[int] | None) -> list[tuple[int, ...]]:
    """Return every set of axes to flip, beginning with none; ``axes`` None or empty means no mirroring."""
    chosen = tuple(axes or ())
    return [subset for size in range(len(chosen) + 1) for subset in combinations(chosen, size)]


def batch_size(patch: Sequence[int], choice: BackendChoice, copies: int, width: int = 32) -> int:
    """Return how many windows (mirrored copies count) go through the network at once.

    Big 3-D windows fill a processor one at a time; small and two-dimensional ones are faster together, and so are all
    on a GPU with the memory for them. ``width`` is the number of features of the network's first stage.
    """
    most = _BATCH_VOXELS
    if choice.kind == "cuda":
        most = min(_GPU_VOXELS, _GPU_SHARE * free_memory(choice) / (_GPU_BYTES * width))
    windows = max(1, min(int(most // math.prod(patch)), _MAX_BATCH[choice.kind]))
    return windows - windows % copies if windows > copies else windows


def softmax(logits: Tensor) -> Tensor:
    """Return probabilities of classes (N, C, ...)."""
    return torch.softmax(logits.float(), dim=1)


def sigmoid(logits: Tensor) -> Tensor:
    """Return probabilities of regions (N, C, ...)."""
    return torch.sigmoid(logits.float())


class Ensemble:
    """The networks of all folds, compiled for one batch shape.

    The last layer of a U-Net is linear and looks at single voxels, so it commutes with everything that follows: with
    sums over mirrors, windows and folds and with interpolation. Where there are more classes than inputs of that layer,
    its inputs ("features") are summed up instead of logits, and it is applied last: memory and time then hardly depend
    on the number of classes.

    Parameters
    ----------
    networks : sequence of UNet
        One per fold.
    choice : BackendChoice
        Where and how.
    patch : sequence of int
        Window of the network: two or three axes.
    mirror_axes : sequence of int or None
        Axes that may be flipped.
    turn : callable, optional
        What turns logits (N, C, ...) into probabilities, where those are averaged: nnU-Net v1's way.
    """

    def __init__(
        self,
        networks: Sequence[UNet],
        choice: BackendChoice,
        patch: Sequence[int],
        mirror_axes: Sequence[int] | None,
        turn: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.choice = choice
        self.turn = turn
        self.patch = tuple(patch)
        self.mirrors = mirror_sets(mirror_axes)
        self.heads = networks[0].heads
        self.width = networks[0].architecture.features[0]
        self.as_features = turn is None and self.width * len(networks) < self.heads
        self.batch = batch_size(patch, choice, len(self.mirrors), self.width)
        self._networks = list(networks)
        self._compiled: list[CompiledNetwork] = []

    @property
    def networks(self) -> tuple[UNet, ...]:
        """The networks, one per fold."""
        return tuple(self._networks)

    @property
    def folds(self) -> int:
        """Number of networks."""
        return len(self._networks)

    @property
    def bytes(self) -> int:
        """Memory that the weights take, those of the compiled networks included."""
        return 2 * sum(tensor.nbytes for network in self._networks for tensor in network.parameters())

    @property
    def channels(self) -> int:
        """Channels of what :meth:`logits` returns: heads, or the features of all folds."""
        return self.width * self.folds if self.as_features else self.heads

    def head(self) -> tuple[Tensor, Tensor] | None:
        """Return weights (heads, channels) and biases that turn mean features into mean logits; None for logits."""
        if not self.as_features:
            return None
        layers = [network.head for network in self._networks]
        weights = torch.cat([weight.float().cpu() for weight, _ in layers], dim=1) / self.folds
        return weights, torch.stack([bias.float().cpu() for _, bias in layers]).mean(dim=0)

    @property
    def windows_per_round(self) -> int:
        """How many windows are best handed over together."""
        return max(1, self.batch // len(self.mirrors))

    def forwards(self, windows: int) -> int:
        """Return how many network runs this many windows take."""
        return math.ceil(windows * len(self.mirrors) / self.batch) * self.folds

    def compile(self) -> None:
        """Build the networks for the chosen backend, once."""
        if not self._compiled:
            shape = (self.batch, self._networks[0].channels_in, *self.patch)
            head = not self.as_features
            self._compiled = [compile_network(network, self.choice, shape, head=head) for network in self._networks]

    def rebuilt(self, choice: BackendChoice) -> Ensemble:
        """Return the same ensemble for another choice of device or precision."""
        axes = sorted({axis for subset in self.mirrors for axis in subset})
        return Ensemble(self._networks, choice, self.patch, axes, self.turn)

    def logits(self, windows: Tensor) -> Generator[None, None, Tensor]:
        """Compute mean logits (or features, see the class) of windows (T, C, *patch).

        Yields
        ------
        None
            After every network run: a moment to cancel.

        Returns
        -------
        Tensor, shape (T, channels, *patch)
            The next call may overwrite it.
        """
        self.compile()
        jobs = [(t, mirror) for t in range(len(windows)) for mirror in self.mirrors]
        total: Tensor | None = None
        for f, network in enumerate(self._compiled):
            part_of = slice(f * self.width, (f + 1) * self.width) if self.as_features else slice(None)
            for begin in range(0, len(jobs), self.batch):
                part = jobs[begin : begin + self.batch]
                out = network(self._stack(windows, part))
                if self.turn is not None:
                    out = self.turn(out)
                if len(jobs) == 1 and self.folds == 1:
                    yield None
                    return out[:1]  # nothing to sum up
                if total is None:
                    total = out.new_zeros((len(windows), self.channels, *out.shape[2:]))
                for i, (t, mirror) in enumerate(part):
                    total[t, part_of] += _flip(out[i], mirror)
                yield None
        if total is None:
            raise ValueError("an ensemble needs at least one network and one window")
        total /= len(self.mirrors) * (1 if self.as_features else self.folds)
        return total

    def _stack(self, windows: Tensor, part: Sequence[tuple[int, tuple[int, ...]]]) -> Tensor:
        batch = torch.stack([_flip(windows[t], mirror) for t, mirror in part])
        if len(part) < self.batch and self.choice.backend == "openvino":
            # The graph is compiled for a full batch.
            batch = torch.cat((batch, batch.new_zeros((self.batch - len(part), *batch.shape[1:]))))
        return batch


def _flip(x: Tensor, axes: tuple[int, ...]) -> Tensor:
    """Flip spatial axes of (C, ...)."""
    return torch.flip(x, [axis + 1 for axis in axes]) if axes else x


def pad(data: Tensor, grid: TileGrid) -> Tensor:
    """Return data (C, z, y, x) padded with 0 to at least one window."""
    if not any(sum(pair) for pair in grid.padding):
        return data
    flat = [n for pair in reversed(grid.padding) for n in pair]
    return functional.pad(data, flat)


def cut_windows(data: Tensor, tiles: Sequence[Tile], *, slicewise: bool) -> Tensor:
    """Return the windows (T, C, *patch) of padded data; a slice-wise network gets no z axis."""
    windows = torch.stack([data[(slice(None), *tile.slices())] for tile in tiles])
    return windows[:, :, 0] if slicewise else windows
