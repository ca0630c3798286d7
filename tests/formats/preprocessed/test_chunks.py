"""Chunks and blocks fit the array, the patch and the caches, whatever their sizes."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_nnunet.formats.preprocessed.chunks import chunks_and_blocks, joined_slices

SIZES = st.integers(1, 700)
SHAPES = st.tuples(st.integers(1, 4), SIZES, SIZES, SIZES)
PATCHES = st.lists(st.integers(1, 320), min_size=2, max_size=3)
BYTES = st.sampled_from([1, 2, 4, 8])


@given(SHAPES, PATCHES, BYTES)
def test_a_block_fits_a_chunk_and_a_chunk_the_array_and_both_their_caches(shape, patch, itemsize):
    chunks, blocks = chunks_and_blocks(shape, patch, itemsize)
    assert chunks[0] == blocks[0] == 1
    assert all(1 <= block <= chunk <= n for block, chunk, n in zip(blocks[1:], chunks[1:], shape[1:], strict=True))
    assert math.prod(blocks) * itemsize <= 131_072
    assert math.prod(chunks) * itemsize <= 6_291_456


@given(SHAPES, PATCHES, BYTES)
def test_a_chunk_is_no_longer_than_a_patch_needs(shape, patch, itemsize):
    chunks, _ = chunks_and_blocks(shape, patch, itemsize)
    for chunk, edge in zip(chunks[-len(patch) :], patch, strict=True):
        assert chunk <= max(1.5 * edge, 2 ** math.ceil(math.log2(edge)))
    if len(patch) == 2:
        assert chunks[1] == 1


@given(SHAPES, PATCHES, BYTES)
def test_only_single_slices_are_joined_as_far_as_the_cache_allows(shape, patch, itemsize):
    chunks, _ = chunks_and_blocks(shape, patch, itemsize)
    joined = joined_slices(shape, patch, chunks, itemsize)
    if len(patch) == 3:
        assert joined == chunks
        return
    assert (joined[0], *joined[2:]) == (chunks[0], *chunks[2:])
    assert 1 <= joined[1] <= shape[1]
    assert math.prod(joined) * itemsize <= 6_291_456
    assert joined[1] == shape[1] or (joined[1] + 1) * math.prod(chunks) * itemsize > 6_291_456


@pytest.mark.parametrize(
    ("shape", "patch", "itemsize", "chunks", "blocks"),
    [
        ((1, 1, 1, 1), (1, 1, 1), 4, (1, 1, 1, 1), (1, 1, 1, 1)),
        ((4, 5, 6, 7), (64, 64, 64), 4, (1, 5, 6, 7), (1, 5, 6, 7)),
        ((1, 100, 512, 512), (512, 512), 4, (1, 1, 512, 512), (1, 1, 256, 128)),
    ],
)
def test_small_arrays_are_one_block_and_slices_stay_slices(shape, patch, itemsize, chunks, blocks):
    assert chunks_and_blocks(shape, patch, itemsize) == (chunks, blocks)
