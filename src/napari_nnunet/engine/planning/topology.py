"""How deep a U-Net may go for a patch, and how large its feature maps are: integers only, no network is built.

An axis is halved while its feature map stays at least 4 voxels wide and its voxels are less than twice as large as the
smallest; a kernel spans 3 voxels along it from there on (Isensee et al., Nature Methods 2021).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

MIN_EDGE = 4  # smallest edge of a feature map


@dataclass(frozen=True)
class Topology:
    """Strides and kernels of a U-Net for one patch.

    Parameters
    ----------
    patch : tuple of int
        Padded to a multiple of ``divisor``.
    strides, kernels : tuple of tuple of int
        One entry per stage, full resolution first.
    divisor : tuple of int
        Product of the strides per axis.
    """

    patch: tuple[int, ...]
    strides: tuple[tuple[int, ...], ...]
    kernels: tuple[tuple[int, ...], ...]
    divisor: tuple[int, ...]

    @property
    def stages(self) -> int:
        """Number of resolutions."""
        return len(self.strides)


def topology(spacing: Sequence[float], size: Sequence[float]) -> Topology:
    """Pool as long as edges allow it, coarse axes later, kernels wide only where voxels are about as large.

    Parameters
    ----------
    spacing : sequence of float
        Voxel size per axis.
    size : sequence of float
        Wished patch per axis; may be fractional (a median of an even number of cases).

    Returns
    -------
    Topology
        With the patch padded to what the strides need.
    """
    d = len(spacing)
    now, edge = [float(s) for s in spacing], list(size)
    kernel, pools = [1] * d, [0] * d
    strides, kernels = [(1,) * d], []
    while True:
        pooled = _axes_to_pool(now, edge)
        if not pooled:
            break
        finest = min(now)
        kernel = [3 if k == 3 or s / finest < 2 else 1 for k, s in zip(kernel, now, strict=True)]
        kernels.append(tuple(kernel))
        strides.append(tuple(2 if a in pooled else 1 for a in range(d)))
        for a in pooled:
            pools[a] += 1
            now[a] *= 2
            edge[a] = math.ceil(edge[a] / 2)
    kernels.append((3,) * d)
    divisor = tuple(2**n for n in pools)
    patch = tuple(math.ceil(n / m) * m for n, m in zip(size, divisor, strict=True))
    return Topology(patch, tuple(strides), tuple(kernels), divisor)


def _axes_to_pool(spacing: Sequence[float], edge: Sequence[float]) -> list[int]:
    valid = [a for a in range(len(spacing)) if edge[a] >= 2 * MIN_EDGE]
    if not valid:
        return []
    finest = min(spacing[a] for a in valid)
    valid = [a for a in valid if spacing[a] / finest < 2]
    if len(valid) == 1 and edge[valid[0]] < 3 * MIN_EDGE:
        return []
    return valid


def feature_map_size(
    shape: Topology, features: Sequence[int], blocks: Sequence[int], decoder_convs: int, heads: int, *, residual: bool
) -> int:
    """Return the number of values in all feature maps of one forward pass: nnU-Net's measure of GPU memory.

    Parameters
    ----------
    shape : Topology
        Patch and strides.
    features, blocks : sequence of int
        Channels and convolutions (or residual blocks) per encoder stage.
    decoder_convs : int
        Convolutions per decoder stage.
    heads : int
        Names in the dataset's labels (nnU-Net counts names here, background and ignore included).
    residual : bool
        Whether the encoder is residual.
    """
    voxels, size = [], list(shape.patch)
    for stride in shape.strides:
        size = [n // s for n, s in zip(size, stride, strict=True)]
        voxels.append(math.prod(size))
    total = features[0] * voxels[0] if residual else 0
    for s, (count, width, n) in enumerate(zip(blocks, features, voxels, strict=True)):
        total += (2 if residual else 1) * count * width * n
        before = features[s - 1] if s else features[0]
        if residual and (any(x != 1 for x in shape.strides[s]) or before != width):
            total += width * n
    for level in range(shape.stages - 1):
        total += (decoder_convs + 1) * features[level] * voxels[level]
    return total + (heads * voxels[0] if shape.stages > 1 else 0)
