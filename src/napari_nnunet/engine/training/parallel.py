"""One training over several processes, as torchrun starts them: each computes a part of every batch."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, distributed

from napari_nnunet.engine.machine import LAUNCHER, end_with
from napari_nnunet.errors import SettingsError


class _Total(torch.autograd.Function):
    """Sum over all processes. Each computes the same loss from it, so a gradient goes back as it is."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        """Return the sum of all processes' values."""
        out = value.detach().clone()
        distributed.all_reduce(out)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        """Return the gradient for this process's value."""
        return gradients[0]


@dataclass(frozen=True)
class Group:
    """The processes of a training; a single one if nothing else is said.

    Parameters
    ----------
    rank, size : int
        Which of how many.
    """

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process writes files and events for all."""
        return self.rank == 0

    @property
    def alone(self) -> bool:
        """Whether there is no other."""
        return self.size == 1

    def total(self, value: Tensor) -> Tensor:
        """Return the sum over all processes; gradients flow."""
        found: Tensor = _Total.apply(value.float())
        return found

    def sums(self, values: Sequence[int]) -> tuple[int, ...]:
        """Return sums of counts over all processes."""
        if self.alone:
            return tuple(values)
        tensor = torch.tensor(list(values), dtype=torch.int64, device=_device())
        distributed.all_reduce(tensor)
        return tuple(int(v) for v in tensor.tolist())

    def agree(self, value: float) -> float:
        """Return the first process's value everywhere."""
        if self.alone:
            return value
        tensor = torch.tensor([value], dtype=torch.float64, device=_device())
        distributed.broadcast(tensor, 0)
        return float(tensor.item())

    def places(self, batch: int) -> range | None:
        """Return which samples of a batch this process makes: as evenly as possible, the first get one more.

        Raises
        ------
        SettingsError
            If there are more processes than samples.
        """
        if self.alone:
            return None
        if batch < self.size:
            raise SettingsError(
                f"The batch has {batch} samples, too few for {self.size} processes.",
                shell=f"Use at most {batch} (-num_gpus), or plan with a larger batch.",
            )
        share, more = divmod(batch, self.size)
        start = self.rank * share + min(self.rank, more)
        return range(start, start + share + (1 if self.rank < more else 0))


def _device() -> str:
    return "cuda" if distributed.get_backend() == "nccl" else "cpu"


def is_launched(environment: Mapping[str, str] | None = None) -> bool:
    """Whether torchrun started this process as one of several."""
    values = os.environ if environment is None else environment
    return int(values.get("WORLD_SIZE", "1")) > 1 and "RANK" in values


def own_device(device: str) -> str:
    """Return the GPU of this process, where torchrun started several and none was named."""
    if is_launched() and device.strip().lower() in ("auto", "cuda") and torch.cuda.is_available():
        return f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
    return device


@contextmanager
def joined_processes(device: str) -> Iterator[Group]:
    """Join the processes that torchrun started; a group of one where it did not.

    Parameters
    ----------
    device : str
        Where they compute: decides how they talk.
    """
    if not is_launched():
        yield Group()
        return
    for other in (os.getppid(), os.environ.get(LAUNCHER)):
        if other is not None:
            end_with(int(other))
    if device.startswith("cuda"):
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if device.startswith("cuda") else "gloo")
    try:
        yield Group(distributed.get_rank(), distributed.get_world_size())
    finally:
        distributed.destroy_process_group()
