"""Chunk and block shapes of preprocessed arrays: nnU-Net's rule, made for reading patches out of compressed volumes."""

from __future__ import annotations

import math
from collections.abc import Sequence

_BLOCK_BYTES = 131_072  # a block should fit into the second-level cache of a core
_CHUNK_BYTES = 6_291_456  # a chunk into its share of the third level
_ROOM = 1.5  # a training patch before rotation is larger than the patch


def chunks_and_blocks(
    shape: Sequence[int], patch: Sequence[int], itemsize: int
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the chunk and block shapes of an array (C, z, y, x) that is read in patches.

    Parameters
    ----------
    shape : sequence of int
        (C, z, y, x).
    patch : sequence of int
        Patch of the configuration, two or three entries.
    itemsize : int
        Bytes per value.

    Returns
    -------
    chunks, blocks : tuple of int
        Four entries each; the channel axis is never joined.
    """
    image = [int(n) for n in shape[1:]]
    wanted = [1] * (3 - len(patch)) + [int(p) for p in patch]
    target = [max(1, min(n, math.floor(_ROOM * p))) for n, p in zip(image, wanted, strict=True)]
    block = _block(image, wanted, target, itemsize)
    chunk = list(block)
    while True:
        grown = [_grown(chunk, block, image, target, axis) for axis in range(3)]
        able = [
            axis
            for axis in range(3)
            if wanted[axis] > 1 and chunk[axis] < target[axis] and math.prod(grown[axis]) * itemsize <= _CHUNK_BYTES
        ]
        if not able:
            return (1, *chunk), (1, *block)
        chunk = grown[min(able, key=lambda axis: (chunk[axis] / target[axis], -image[axis], axis))]


def joined_slices(shape: Sequence[int], patch: Sequence[int], chunks: Sequence[int], itemsize: int) -> tuple[int, ...]:
    """Return chunks that hold several slices where nnU-Net's rule gives one slice each (2-D patches).

    A slice is still found by itself, for blocks are read one by one; but a file of hundreds of chunks is written and
    read slowly, since every chunk updates its index. Other chunks stay as they are.
    """
    if len(patch) == 3:
        return tuple(chunks)
    slices = max(1, min(int(shape[1]), _CHUNK_BYTES // (math.prod(chunks) * itemsize)))
    return (chunks[0], slices, *chunks[2:])


def _block(image: Sequence[int], patch: Sequence[int], target: Sequence[int], itemsize: int) -> list[int]:
    block = [min(2 ** math.ceil(math.log2(p)), n) for p, n in zip(patch, image, strict=True)]
    while math.prod(block) * itemsize > _BLOCK_BYTES:
        axis = max((a for a in range(3) if block[a] > 1), key=lambda a: (block[a] / target[a], a))
        block[axis] = 2 ** math.ceil(math.log2(block[axis]) - 1)
    return block


def _grown(
    chunk: Sequence[int], block: Sequence[int], image: Sequence[int], target: Sequence[int], axis: int
) -> list[int]:
    longer = list(chunk)
    longer[axis] = min(chunk[axis] + block[axis], image[axis], target[axis])
    return longer
