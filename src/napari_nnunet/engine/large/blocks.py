"""How an image is cut into blocks: aligned to the chunks of the result, as large as memory allows."""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from napari_nnunet.engine.image.prepare import Box3, PrepareRecord
from napari_nnunet.engine.large.boxes import Shape3
from napari_nnunet.engine.large.parts import PIECE_VOXELS
from napari_nnunet.engine.prediction.sampling import sampling_parts
from napari_nnunet.engine.prediction.tiles import GridPart, TileGrid, peak_planes
from napari_nnunet.errors import ResourceError
from napari_nnunet.schema.plans import Resampling

_CHUNK = (128, 1 << 21)  # voxels: edge of a chunk of a volume, and how many a chunk of a thin image has at most
_THIN = 32  # voxels; thinner images have wider chunks
_MOST_VOXELS = 1 << 28  # of a block: what is lost at a kill, at most
_EDGES = 12  # lengths of a block that are tried per axis
_FOLLOWED = 256  # blocks that are handed out one by one to see when the last is ready; of more, a bound is enough
_LATE = 0.1  # of a block, that the last worker is late
DECODED_VOXELS = 4e6  # values that are interpolated together on the way back


def chunk_shape(shape: Sequence[int]) -> Shape3:
    """Return the chunks in which the labels of an image (z, y, x) are stored: cubes, or squares of a thin image."""
    edge, most = _CHUNK
    thinnest = min(shape)
    if thinnest < _THIN:
        edge = max(edge, 1 << (math.isqrt(most // thinnest).bit_length() - 1))
    z, y, x = (min(n, edge) for n in shape)
    return z, y, x


@dataclass(frozen=True)
class Block:
    """A part of an image that is segmented by itself.

    Parameters
    ----------
    place : tuple of int
        Its number along each axis (z, y, x).
    box : tuple of (int, int)
        Half-open box in voxels, in the image's own order.
    inner : tuple of (int, int) or None
        What of it lies within the nonzero box, in transposed order and counted from that box's corner; None if nothing
        does, so that it is background.
    """

    place: Shape3
    box: Box3
    inner: Box3 | None


@dataclass(frozen=True)
class BlockGrid:
    """An image cut into blocks.

    Parameters
    ----------
    record : PrepareRecord
        Grids of the whole image.
    block : tuple of int
        Voxels of a block (z, y, x) in the image's own order; blocks at the ends are smaller.
    """

    record: PrepareRecord
    block: Shape3

    @property
    def shape(self) -> Shape3:
        """Voxels of the image in its own order."""
        z, y, x = (self.record.shape[self.record.transpose_forward.index(axis)] for axis in range(3))
        return z, y, x

    def blocks(self) -> Iterator[Block]:
        """Give all blocks, row by row."""
        counts = [math.ceil(n / size) for n, size in zip(self.shape, self.block, strict=True)]
        for z, y, x in itertools.product(*map(range, counts)):
            yield self.at((z, y, x))

    def at(self, place: Shape3) -> Block:
        """Return the block with a number along each axis."""
        z, y, x = ((i * size, min((i + 1) * size, n)) for i, size, n in zip(place, self.block, self.shape, strict=True))
        return Block(place, (z, y, x), within(self.record, (z, y, x)))


def within(record: PrepareRecord, box: Box3) -> Box3 | None:
    """Return what of a box in the image's own order lies in the nonzero box, as :class:`Block` has it."""
    inner = []
    for axis, (first, last) in zip(record.transpose_forward, record.box, strict=True):
        lo, hi = max(box[axis][0], first), min(box[axis][1], last)
        if lo >= hi:
            return None
        inner.append((lo - first, hi - first))
    return inner[0], inner[1], inner[2]


@dataclass(frozen=True)
class BlockCosts:
    """What the memory of a block depends on besides its size.

    Parameters
    ----------
    channels : int
        Of the image.
    summed : int
        Channels of the sums: classes, or features where there are fewer.
    label_bytes : int
        Per voxel of the result.
    """

    channels: int
    summed: int
    label_bytes: int

    def block_bytes(self, part: GridPart, voxels: int) -> float:
        """Return the memory of a block, given its windows and its voxels in the image."""
        depth, height, width = part.padded_shape
        planes = peak_planes(part, wrapped=False)
        prepared = 4.0 * self.channels * depth * height * width
        # The segment that is complete is divided while the next one is begun.
        sums = 4.0 * (self.summed + 1) * planes * height * width
        edges = 4.0 * self.summed * 2 * height * width
        return prepared + sums + edges + self.label_bytes * voxels + self.pieces_bytes

    @property
    def pieces_bytes(self) -> float:
        """Memory of what is resampled at a time, on the way to the network's grid and back."""
        return 4.0 * (4 * PIECE_VOXELS * max(self.channels, 2) / 2 + 6 * DECODED_VOXELS)


def plan_blocks(
    record: PrepareRecord,
    grid: TileGrid,
    rule: Resampling,
    chunk: Shape3,
    costs: BlockCosts,
    allowed: float,
    workers: int = 1,
) -> BlockGrid:
    """Return the blocks that fit into memory and are computed the soonest: by one worker, the fewest windows twice.

    Parameters
    ----------
    record : PrepareRecord
        Grids of the whole image.
    grid : TileGrid
        All windows.
    rule : Resampling
        ``resample_probabilities`` of the plans.
    chunk : tuple of int
        Chunks of the result (z, y, x), of which blocks are multiples.
    costs : BlockCosts
        What else memory depends on.
    allowed : float
        Bytes that a block may take.
    workers : int
        How many compute blocks side by side.

    Raises
    ------
    ResourceError
        If not even a block of one chunk fits.
    """
    own = BlockGrid(record, chunk).shape
    known = [
        {edge: _along(record, grid, rule, axis, edge) for edge in _edges(own[axis], chunk[axis])} for axis in range(3)
    ]
    best: tuple[float, int, int, Shape3] | None = None
    least, most = math.inf, max(_MOST_VOXELS, math.prod(chunk))
    for z, y, x in itertools.product(*known):
        edges = [known[axis][edge] for axis, edge in enumerate((z, y, x))]
        needed = costs.block_bytes(_largest([edges[axis] for axis in record.transpose_forward], grid), z * y * x)
        least = min(least, needed)
        if needed <= allowed and z * y * x <= most:
            windows = math.prod(edge.windows for edge in edges)
            if best is not None and windows / workers > best[0]:
                continue  # not even if all of them were busy to the end
            candidate = (_time([edge.each for edge in edges], workers), windows, -z * y * x, (z, y, x))
            best = candidate if best is None else min(best, candidate)
    if best is None:
        raise ResourceError(
            f"The smallest block of this image takes {least / 1e9:.1f} GB beside the network, but only "
            f"{max(allowed, 0) / 1e9:.1f} GB are left for it. Allow more memory, or close other programs."
        )
    return BlockGrid(record, best[3])


def _time(each: Sequence[tuple[int, ...]], workers: int) -> float:
    """Return how long workers take, in windows, that take one block after the other; windows along each axis given."""
    total, largest = math.prod(map(sum, each)), math.prod(map(max, each))
    if workers == 1:
        return total
    late = _LATE * largest  # no worker is as fast as the other
    if math.prod(map(len, each)) > _FOLLOWED:
        return (total + (workers - 1) * largest) / workers + late
    busy = [0] * workers
    for z, y, x in itertools.product(*each):
        heapq.heapreplace(busy, busy[0] + z * y * x)
    return max(busy) + late


def _edges(size: int, chunk: int) -> list[int]:
    """Return lengths of a block that are tried: multiples of a chunk that cut an axis evenly."""
    chunks = math.ceil(size / chunk)
    counts = {math.ceil(chunks / parts) for parts in range(1, chunks + 1)}
    most = sorted(counts)
    step = max(1, math.ceil(len(most) / _EDGES))
    return [count * chunk for count in sorted({*most[::step], most[0], most[-1]})]


@dataclass(frozen=True)
class _Edge:
    """Blocks of one length along an axis: windows of each, and network planes of the largest, with windows."""

    each: tuple[int, ...]
    needed: int
    covered: int

    @property
    def windows(self) -> int:
        """Of all blocks together."""
        return sum(self.each)


def _along(record: PrepareRecord, grid: TileGrid, rule: Resampling, own: int, size: int) -> _Edge:
    """Return what blocks of a length along one of the image's axes take; it does not depend on the other axes."""
    axis = record.transpose_forward.index(own)
    first, last = record.box[axis]
    needed = covered = 0
    each = []
    for lo in range(first - first % size, last, size):
        box = [(0, 1), (0, 1), (0, 1)]
        box[axis] = (max(lo, first) - first, min(lo + size, last) - first)
        part = grid.part(sampling_parts(record, rule, (box[0], box[1], box[2]))[1])
        each.append(len(part.begins[axis]))
        needed, covered = max(needed, part.shape[axis]), max(covered, part.padded_shape[axis])
    return _Edge(tuple(each), needed, covered)


def _largest(edges: Sequence[_Edge], grid: TileGrid) -> GridPart:
    """Return windows as far as those of the largest block, given its edges in transposed order."""
    z, y, x = (edge.needed for edge in edges)
    around = tuple((edge.covered - edge.needed, 0) for edge in edges)
    return GridPart((z, y, x), grid.patch, grid.step, (0, 0, 0), ([0], [0], [0]), around)
