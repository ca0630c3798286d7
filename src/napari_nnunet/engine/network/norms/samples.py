"""Instance normalisation with the leaky ReLU behind it, one sample at a time: for networks that learn on a CPU.

torch's group normalisation with one channel per group is slow in the channels-last layout: its backward pass
everywhere, its forward pass on small maps. Batch normalisation of one sample is the same mathematics, and vectorised;
and while the sample is in the cache, the leaky ReLU costs next to nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

_SMALL = 2**18  # numbers of a sample, up to which one thread computes


def normalized(x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, slope: float) -> Tensor:
    """Normalise every channel of every sample over space, then apply a leaky ReLU.

    Parameters
    ----------
    x : Tensor, shape (B, C, [Z,] Y, X)
        float32, bfloat16 or float64, in any layout; statistics of bfloat16 are float32.
    weight, bias : Tensor, shape (C,), optional
        Of the normalisation.
    eps : float
        Added to the variance.
    slope : float
        Of the leaky ReLU; 1 leaves it out.

    Returns
    -------
    Tensor
        Of the same shape, type and layout.
    """
    out: Tensor = _Normalized.apply(x, weight, bias, eps, slope)
    return out


class _Normalized(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, slope: float) -> Tensor:
        y = torch.empty_like(x)
        means, scales = [], []
        with _one_thread(x):
            for n in range(x.shape[0]):
                one, mean, scale = torch.native_batch_norm(x[n : n + 1], weight, bias, None, None, True, 0.0, eps)
                torch.ops.aten.leaky_relu.out(one, slope, out=y[n : n + 1])
                means.append(mean)
                scales.append(scale)
        # The next convolution keeps y anyway.
        ctx.save_for_backward(x, y, weight, torch.stack(means), torch.stack(scales))
        ctx.how = eps, slope, bias is not None
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None, None, None]:
        x, y, weight, means, scales = ctx.saved_tensors
        eps, slope, has_bias = ctx.how
        # A gradient that comes out of a concatenation is a view with strides of its own.
        gradient = torch.empty_like(y).copy_(gradient) if gradient.stride() != y.stride() else gradient
        out = torch.empty_like(x)
        scratch = torch.empty_like(y[:1])
        to_weight = None if weight is None else torch.zeros_like(weight)
        to_bias = torch.zeros_like(weight) if has_bias else None
        wanted = [True, weight is not None, has_bias]
        with _one_thread(x):
            for n in range(x.shape[0]):
                place = slice(n, n + 1)
                torch.ops.aten.leaky_relu_backward.grad_input(
                    gradient[place], y[place], slope, True, grad_input=scratch
                )
                one, of_weight, of_bias = torch.ops.aten.native_batch_norm_backward(
                    scratch, x[place], weight, None, None, means[n], scales[n], True, eps, wanted
                )
                out[place] = one
                if to_weight is not None:
                    to_weight += of_weight
                if to_bias is not None:
                    to_bias += of_bias
        return out, to_weight, to_bias, None, None


@contextmanager
def _one_thread(x: Tensor) -> Iterator[None]:
    """Compute with one thread where the samples of a batch are small.

    torch shares out every operation by itself. Where it takes some ten microseconds, waking the other threads takes
    longer, tens of thousands of times in a step; and threads that spin until they are needed take cores away from other
    programs.
    """
    threads = torch.get_num_threads()
    if threads == 1 or x[0].numel() > _SMALL:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
