"""Blocks of an image are chosen for the memory there is and for the workers that compute them."""

import itertools
import math
import time

import pytest

from napari_nnunet.engine.image.prepare import PrepareRecord
from napari_nnunet.engine.large.blocks import BlockCosts, plan_blocks
from napari_nnunet.engine.prediction.tiles import TileGrid
from napari_nnunet.schema.plans import Resampling

RULE = Resampling(function="resample_data_or_seg_to_shape", order=1)


def planned(shape, workers, allowed=1e12, chunk=(32, 32, 32), patch=(24, 24, 24)):
    box = tuple((0, n) for n in shape)
    record = PrepareRecord((0, 1, 2), shape, box, (1.0, 1.0, 1.0), shape, (1.0, 1.0, 1.0))
    return plan_blocks(record, TileGrid(shape, patch, 0.5), RULE, chunk, BlockCosts(1, 3, 1), allowed, workers)


def count(grid):
    return len(list(grid.blocks()))


def voxels(grid):
    """How many voxels each block has, in the order in which blocks are handed out."""
    return [math.prod(hi - lo for lo, hi in block.box) for block in grid.blocks()]


def test_one_worker_computes_one_block_where_memory_allows():
    assert count(planned((128, 128, 128), 1)) == 1


@pytest.mark.parametrize("workers", [2, 3, 4])
def test_blocks_keep_all_workers_busy_to_the_end(workers):
    grid = planned((128, 160, 192), workers)
    busy = [0] * workers
    for own in voxels(grid):
        busy[busy.index(min(busy))] += own
    assert count(grid) >= workers
    assert sum(busy) / workers > 0.85 * max(busy)


def test_blocks_fit_into_memory_whatever_would_be_faster():
    grids = [planned((128, 160, 192), workers, allowed=1.75e8) for workers in (1, 2)]
    assert all(count(grid) > 2 for grid in grids)


def test_blocks_of_an_image_of_terabytes_are_chosen_in_a_moment():
    began = time.monotonic()
    for workers in (1, 2, 64):
        planned((20_000, 16_000, 16_000), workers, chunk=(128, 128, 128), patch=(128, 128, 128))
    assert time.monotonic() - began < 10


def test_blocks_cover_an_image_once():
    shape = (70, 45, 101)
    grid = planned(shape, 3)
    assert sum(voxels(grid)) == math.prod(shape)
    pairs = itertools.combinations([block.box for block in grid.blocks()], 2)
    assert all(any(a[1] <= b[0] or b[1] <= a[0] for a, b in zip(one, other, strict=True)) for one, other in pairs)
