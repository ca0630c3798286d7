"""Instance normalisation of a whole batch by torch alone, for networks that learn on a GPU."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def normalized_at_once(x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, slope: float) -> Tensor:
    """Normalise every channel of every sample over space, then apply a leaky ReLU in place.

    It is what torch's instance normalisation does by itself. That returns a view, and whatever changes a view in place
    makes its gradient copy the whole map.

    Parameters
    ----------
    x : Tensor, shape (B, C, [Z,] Y, X)
        In any type.
    weight, bias : Tensor, shape (C,), optional
        Of the normalisation.
    eps : float
        Added to the variance.
    slope : float
        Of the leaky ReLU.

    Returns
    -------
    Tensor
        Of the same shape and type.
    """
    batch, channels = x.shape[:2]
    one = x.reshape(1, batch * channels, *x.shape[2:])
    scale, shift = (None if part is None else part.repeat(batch) for part in (weight, bias))
    y = functional.batch_norm(one, None, None, scale, shift, True, 0.0, eps)
    return functional.leaky_relu_(y, slope).view(x.shape)


def by_formula(x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    """Normalise as the definition is written down, in float32: torch.compile makes loops of it in any layout.

    Parameters
    ----------
    x, weight, bias, eps
        As for :func:`normalized_at_once`.

    Returns
    -------
    Tensor
        Of the shape and type of ``x``.
    """
    exact, ones = x.float(), (1,) * (x.ndim - 2)
    variance, mean = torch.var_mean(exact, dim=tuple(range(2, x.ndim)), correction=0, keepdim=True)
    y = (exact - mean) * torch.rsqrt(variance + eps)
    if weight is not None:
        y = y * weight.view(1, -1, *ones)
    if bias is not None:
        y = y + bias.view(1, -1, *ones)
    return y.to(x.dtype)
