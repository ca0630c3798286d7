"""Instance normalisation with the leaky ReLU behind it by compiled loops, where numba is installed.

Each pass reads what memory holds twice; torch, sample by sample, reads and writes it several times, and what it spends
around each call counts where samples are small.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from importlib import import_module
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.function import once_differentiable

from napari_nnunet.engine.network.norms import samples

_FORMATS = {4: torch.channels_last, 5: torch.channels_last_3d}
_WHOLE = 2**19  # numbers of a sample, up to which it is one part: both passes find it in the cache
_PART = 2**18  # of a larger sample
_ALONE = 2**17  # numbers of a batch, up to which waking other threads takes longer


def normalized_by_loops(x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, slope: float) -> Tensor:
    """Normalise every channel of every sample over space, then apply a leaky ReLU.

    Parameters, result and mathematics are those of :func:`samples.normalized`, which does what the loops cannot:
    other types and layouts, and slopes that are not between 0 and 1.
    """
    fits = x.is_contiguous(memory_format=_FORMATS[x.ndim]) and 0 <= slope <= 1 and x.device.type == "cpu"
    if not (fits and x.numel() and is_ready(x.dtype)):
        return samples.normalized(x, weight, bias, eps, slope)
    out: Tensor = _Normalized.apply(x, weight, bias, eps, slope)
    return out


@lru_cache
def is_ready(kind: torch.dtype) -> bool:
    """Whether the loops can be used for a type: they are compiled, which takes seconds, and tried."""
    if kind not in (torch.float32, torch.bfloat16):
        return False
    try:
        with torch.enable_grad(), torch.autocast("cpu", enabled=False):
            return _agrees(kind)
    except Exception:
        # Not installed, or of another time than Python, numpy or the processor: nothing needs it.
        return False


def _agrees(kind: torch.dtype) -> bool:
    _kernels()
    image = torch.linspace(-3, 5, 2 * 3 * 5 * 4).view(2, 3, 5, 4).sin().to(kind)
    image = image.contiguous(memory_format=torch.channels_last)
    weight, bias = torch.tensor([1.0, 0.5, 2.0]), torch.tensor([0.0, 0.5, -0.5])
    found = []
    for function in (samples.normalized, _Normalized.apply):
        x, w, b = (part.detach().clone().requires_grad_() for part in (image, weight, bias))
        out: Tensor = function(x, w, b, 1e-5, 0.01)
        found.append([out.detach(), *torch.autograd.grad(out.square().sum(), (x, w, b))])
    return all(torch.allclose(a.float(), b.float(), atol=0.05, rtol=0.05) for a, b in zip(*found, strict=True))


@lru_cache
def _kernels() -> Any:
    return import_module("napari_nnunet.engine.network.norms.kernels")


class _Normalized(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, slope: float) -> Tensor:
        y = torch.empty_like(x)
        factors, terms = _of_channels(weight, x, 1.0), _of_channels(bias, x, 0.0)
        means, scales = np.empty(x.shape[:2]), np.empty(x.shape[:2])
        work = partial(_kernels().forward, _rows(x), _rows(y), factors, terms, eps, slope, means, scales)
        _in_parts(work, x)
        ctx.save_for_backward(x)
        ctx.how = factors, terms, slope, means, scales
        ctx.has = weight is not None, bias is not None
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None, None, None]:
        (x,) = ctx.saved_tensors
        factors, terms, slope, means, scales = ctx.how
        # A gradient that comes out of a concatenation is a view with strides of its own.
        same = gradient.is_contiguous(memory_format=_FORMATS[x.ndim]) and gradient.dtype == x.dtype
        gradient = gradient if same else torch.empty_like(x).copy_(gradient)
        out = torch.empty_like(x)
        to_weight, to_bias = np.empty(x.shape[:2]), np.empty(x.shape[:2])

        def work(sums: NDArray[np.float64], *where: int) -> None:
            _kernels().backward(
                _rows(gradient), _rows(x), _rows(out), factors, terms, slope, means, scales, sums, to_weight, to_bias,
                *where,
            )  # fmt: skip

        _in_parts(work, x)
        sums = [torch.from_numpy(part.sum(0)).float() for part in (to_weight, to_bias)]
        of_weight, of_bias = (part if has else None for part, has in zip(sums, ctx.has, strict=True))
        return out, of_weight, of_bias, None, None


def _of_channels(parameter: Tensor | None, x: Tensor, default: float) -> NDArray[np.float32]:
    if parameter is None:
        return np.full(x.shape[1], default, np.float32)
    return parameter.detach().float().numpy().copy()  # the optimizer changes it in place


def _rows(x: Tensor) -> NDArray[Any]:
    """Return the memory of a channels-last tensor as (N, rows * C); bfloat16 as uint16."""
    lines = x.detach().permute(0, *range(2, x.ndim), 1).view(len(x), -1)
    return lines.numpy() if x.dtype == torch.float32 else lines.view(torch.int16).numpy().view(np.uint16)


def _in_parts(work: Callable[..., None], x: Tensor) -> None:
    """Call ``work(sums, size, what, first, last)`` for all parts of a batch, shared by torch's number of threads."""
    numbers, channels = x[0].numel(), x.shape[1]
    size = numbers if numbers <= _WHOLE else max(1, _PART // channels) * channels
    parts = -(-numbers // size)
    sums = np.zeros((len(x), parts, 2, channels))
    tasks = parts * len(x)
    threads = min(torch.get_num_threads(), tasks) if x.numel() > _ALONE else 1
    for what in (3,) if parts == 1 else (1, 2):
        edges = [tasks * i // threads for i in range(threads + 1)]
        rest = [_pool().submit(work, sums, size, what, *edges[i : i + 2]) for i in range(1, threads)]
        work(sums, size, what, *edges[:2])
        for part in rest:
            part.result()


@lru_cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(thread_name_prefix="norms")
