"""Loops that normalise and apply a leaky ReLU in two passes over memory, compiled by numba where that is installed.

torch has no operation that does both in channels-last layout and bfloat16 without copies between. Samples lie as rows
of C neighbouring channels. A sample is cut into parts of a fixed size, whose sums are added in a fixed order: results
do not depend on how many threads share the parts.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic, overload, register_jitable

_TOGETHER = 1024  # numbers of an inner loop, which is vectorised: as many rows as fit
_FOLDED = 256  # inner loops, after which float32 sums are added to float64 ones
# Not "nnan" and "ninf": a loss that is not finite must be seen.
_HOW: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": {"contract", "nsz", "arcp", "reassoc"}}


def _bits_of_float(typing: Any, number: Any) -> Any:
    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], ir.IntType(32))

    return types.uint32(types.float32), code


def _float_of_bits(typing: Any, bits: Any) -> Any:
    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], ir.FloatType())

    return types.float32(types.uint32), code


_bits, _float = intrinsic(_bits_of_float), intrinsic(_float_of_bits)


def _number(stored: Any) -> Any:
    """Return the float32 of what is stored: itself, or the upper half of its bits (bfloat16 as uint16)."""
    return stored if isinstance(stored, np.float32) else (np.uint32(stored) << np.uint32(16)).view(np.float32)


def _compiled_number(stored: Any) -> Any:
    if isinstance(stored, types.Float):

        def number(stored: Any) -> Any:
            return stored
    else:

        def number(stored: Any) -> Any:
            return _float(np.uint32(stored) << np.uint32(16))

    return number


def _put(out: Any, i: Any, number: Any) -> None:
    """Store a float32, rounded to the nearest bfloat16, ties to even, where these are stored."""
    if out.dtype == np.float32:
        out[i] = number
    else:
        bits = np.float32(number).view(np.uint32)
        out[i] = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)


def _compiled_put(out: Any, i: Any, number: Any) -> Any:
    if isinstance(out.dtype, types.Float):

        def put(out: Any, i: Any, number: Any) -> None:
            out[i] = number
    else:

        def put(out: Any, i: Any, number: Any) -> None:
            bits = _bits(number)
            rounded = bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
            out[i] = np.uint16(rounded >> np.uint32(16))

    return put


overload(_number)(_compiled_number)
overload(_put)(_compiled_put)


def _fold(short: Any, total: Any, channels: Any) -> None:
    for j in range(short.size):
        total[j % channels] += short[j]
        short[j] = 0


def _tiled(values: Any, size: Any) -> Any:
    out = np.empty(size, np.float32)
    for j in range(size):
        out[j] = values[j % values.size]
    return out


def _statistics(x: Any, pivots: Any, totals: Any) -> None:
    """Add up x - pivot and its square over the rows of a part (flat); ``totals`` is (2, C)."""
    channels = pivots.size
    size = max(1, _TOGETHER // channels) * channels
    pivot = _tiled(pivots, size)
    ones, squares = np.zeros(size, np.float32), np.zeros(size, np.float32)
    loops, i = 0, 0
    while i < x.size:
        row = x[i : i + size]
        for j in range(row.size):
            d = _number(row[j]) - pivot[j]
            ones[j] += d
            squares[j] += d * d
        i, loops = i + size, loops + 1
        if loops == _FOLDED:
            _fold(ones, totals[0], channels)
            _fold(squares, totals[1], channels)
            loops = 0
    _fold(ones, totals[0], channels)
    _fold(squares, totals[1], channels)


def _change(x: Any, y: Any, centres: Any, scales: Any, shifts: Any, slope: Any) -> None:
    size = max(1, _TOGETHER // centres.size) * centres.size
    centre, scale, shift = _tiled(centres, size), _tiled(scales, size), _tiled(shifts, size)
    slope = np.float32(slope)
    for i in range(0, x.size, size):
        row, out = x[i : i + size], y[i : i + size]
        for j in range(row.size):
            v = (_number(row[j]) - centre[j]) * scale[j] + shift[j]
            _put(out, j, max(v, v * slope))


def _gradient_sums(g: Any, x: Any, centres: Any, scales: Any, shifts: Any, slope: Any, totals: Any) -> None:
    """Add up h and h (x - centre), where h is the gradient before the leaky ReLU; ``totals`` is (2, C)."""
    channels = centres.size
    size = max(1, _TOGETHER // channels) * channels
    centre, scale, shift = _tiled(centres, size), _tiled(scales, size), _tiled(shifts, size)
    plain, weighted = np.zeros(size, np.float32), np.zeros(size, np.float32)
    slope, one, zero = np.float32(slope), np.float32(1), np.float32(0)
    loops, i = 0, 0
    while i < x.size:
        row, towards = x[i : i + size], g[i : i + size]
        for j in range(row.size):
            d = _number(row[j]) - centre[j]
            h = _number(towards[j]) * (one if d * scale[j] + shift[j] > zero else slope)
            plain[j] += h
            weighted[j] += h * d
        i, loops = i + size, loops + 1
        if loops == _FOLDED:
            _fold(plain, totals[0], channels)
            _fold(weighted, totals[1], channels)
            loops = 0
    _fold(plain, totals[0], channels)
    _fold(weighted, totals[1], channels)


def _change_gradient(
    g: Any, x: Any, out: Any, centres: Any, scales: Any, shifts: Any, slope: Any, falls: Any, offsets: Any
) -> None:
    size = max(1, _TOGETHER // centres.size) * centres.size
    centre, scale, shift = _tiled(centres, size), _tiled(scales, size), _tiled(shifts, size)
    fall, offset = _tiled(falls, size), _tiled(offsets, size)
    slope, one, zero = np.float32(slope), np.float32(1), np.float32(0)
    for i in range(0, x.size, size):
        row, towards, changed = x[i : i + size], g[i : i + size], out[i : i + size]
        for j in range(row.size):
            d = _number(row[j]) - centre[j]
            h = _number(towards[j]) * (one if d * scale[j] + shift[j] > zero else slope)
            _put(changed, j, h * scale[j] + d * fall[j] + offset[j])


def _added(sums: Any) -> Any:
    """Add the sums of all parts (parts, 2, C) in their order."""
    total = np.zeros((2, sums.shape[2]), np.float64)
    for p in range(sums.shape[0]):
        for k in range(2):
            for c in range(sums.shape[2]):
                total[k, c] += sums[p, k, c]
    return total


def _first_row(x: Any, channels: Any) -> Any:
    out = np.empty(channels, np.float32)
    for c in range(channels):
        out[c] = _number(x[c])
    return out


def _settle(total: Any, pivots: Any, rows: Any, eps: Any, mean: Any, scale: Any) -> None:
    """Turn sums about a pivot into means and reciprocal deviations."""
    for c in range(pivots.size):
        off = total[0, c] / rows
        mean[c] = pivots[c] + off
        scale[c] = 1 / np.sqrt(max(0.0, total[1, c] / rows - off * off) + eps)


def _line(weight: Any, bias: Any, mean: Any, scale: Any) -> Any:
    """Return centres, scales and shifts of x -> (x - centre) * scale + shift, exact though means are float64."""
    centres, steep, shifts = np.empty_like(weight), np.empty_like(weight), np.empty_like(weight)
    for c in range(weight.size):
        centres[c] = mean[c]
        steep[c] = weight[c] * scale[c]
        shifts[c] = bias[c] - (mean[c] - centres[c]) * weight[c] * scale[c]
    return centres, steep, shifts


def _forward(
    x: Any, y: Any, weight: Any, bias: Any, eps: Any, slope: Any, means: Any, scales: Any, sums: Any, size: Any,
    what: Any, first: Any, last: Any,
) -> None:  # fmt: skip
    """Do some parts of a forward pass; ``what`` is 1 for their sums, 2 for their results, 3 for both.

    ``x`` and ``y`` are (N, rows * C), ``weight`` and ``bias`` (C,). ``sums`` (N, parts, 2, C) is 0 at first; ``means``
    and ``scales`` (N, C) are filled. A part has ``size`` numbers, the last one of a sample fewer.
    """
    channels, parts = weight.size, sums.shape[1]
    for task in range(first, last):
        n, part = task // parts, task % parts
        lo, hi = part * size, min(x.shape[1], (part + 1) * size)
        pivots = _first_row(x[n], channels)
        if what & 1:
            _statistics(x[n, lo:hi], pivots, sums[n, part])
        if what & 2:
            mean, scale = np.empty(channels, np.float64), np.empty(channels, np.float64)
            _settle(_added(sums[n]), pivots, x.shape[1] // channels, eps, mean, scale)
            if part == 0:
                for c in range(channels):  # a slice would bring checks that take seconds to compile
                    means[n, c], scales[n, c] = mean[c], scale[c]
            centres, steep, shifts = _line(weight, bias, mean, scale)
            _change(x[n, lo:hi], y[n, lo:hi], centres, steep, shifts, slope)


def _backward(
    g: Any, x: Any, out: Any, weight: Any, bias: Any, slope: Any, means: Any, scales: Any, sums: Any, to_weight: Any,
    to_bias: Any, size: Any, what: Any, first: Any, last: Any,
) -> None:  # fmt: skip
    """Do some parts of a backward pass, as :func:`_forward`; ``to_weight`` and ``to_bias`` (N, C) are filled."""
    channels, parts = weight.size, sums.shape[1]
    rows = x.shape[1] // channels
    for task in range(first, last):
        n, part = task // parts, task % parts
        lo, hi = part * size, min(x.shape[1], (part + 1) * size)
        centres, steep, shifts = _line(weight, bias, means[n], scales[n])
        if what & 1:
            _gradient_sums(g[n, lo:hi], x[n, lo:hi], centres, steep, shifts, slope, sums[n, part])
        if what & 2:
            total = _added(sums[n])
            falls, offsets = np.empty_like(weight), np.empty_like(weight)
            for c in range(channels):
                lost, scale = means[n, c] - centres[c], scales[n, c]
                of_weight = scale * (total[1, c] - lost * total[0, c])
                fall = -weight[c] * scale * scale * of_weight / rows
                falls[c] = fall
                offsets[c] = -weight[c] * scale * total[0, c] / rows - fall * lost
                if part == 0:
                    to_weight[n, c], to_bias[n, c] = of_weight, total[0, c]
            _change_gradient(g[n, lo:hi], x[n, lo:hi], out[n, lo:hi], centres, steep, shifts, slope, falls, offsets)


for _part in (
    _fold, _tiled, _statistics, _change, _gradient_sums, _change_gradient, _added, _first_row, _settle, _line,
):  # fmt: skip
    register_jitable(**_HOW)(_part)
forward, backward = njit(**_HOW)(_forward), njit(**_HOW)(_backward)
