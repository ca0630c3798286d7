"""Laws of tiling, summing and decoding."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_nnunet.engine.image.prepare import PrepareRecord
from napari_nnunet.engine.image.resample import resample_image
from napari_nnunet.engine.prediction.decode import Assembler
from napari_nnunet.engine.prediction.tiles import Accumulator, TileGrid, importance, peak_planes, starts
from napari_nnunet.schema.dataset import LabelScheme
from napari_nnunet.schema.plans import Resampling

LINEAR = Resampling(function="resample_data_or_seg_to_shape", order=1)
TWO = LabelScheme(labels={"background": 0, "a": 1, "b": 2})


def _weights(patch):
    return torch.from_numpy(importance(patch).astype(np.float32))


@settings(max_examples=60, deadline=None)
@given(
    shape=st.tuples(*[st.integers(1, 30)] * 3),
    patch=st.tuples(st.integers(1, 9), st.integers(4, 12), st.integers(4, 12)),
    step=st.sampled_from([0.25, 0.5, 0.75, 1.0]),
    focus=st.one_of(st.none(), st.integers(0, 30)),
)
def test_overlapping_tiles_keep_a_constant_constant(shape, patch, step, focus):
    grid = TileGrid(shape, patch, step)
    accumulator = Accumulator(grid, 2, _weights(patch))
    covered = np.zeros(shape[0], dtype=int)
    for tile in grid.tiles((focus, None, None)):
        for start, stop, mean in accumulator.add(tile, torch.full((2, *patch), 3.5)):
            covered[start:stop] += 1
            assert mean.shape == (2, stop - start, *shape[1:])
            torch.testing.assert_close(mean, torch.full_like(mean, 3.5))
    assert (covered == 1).all()


@settings(max_examples=100, deadline=None)
@given(size=st.integers(1, 400), tile=st.integers(1, 128), step=st.floats(0.1, 1.0))
def test_tiles_cover_an_axis_without_gaps_and_end_at_its_end(size, tile, step):
    if size < tile:
        with pytest.raises(ValueError, match="smaller than the tile"):
            starts(size, tile, step)
        return
    begins = starts(size, tile, step)
    assert begins[0] == 0
    assert begins[-1] == size - tile
    assert all(b - a <= max(np.ceil(tile * step), 1) for a, b in pairwise(begins))


def test_only_the_planes_between_first_and_last_tile_are_held():
    grid = TileGrid((300, 20, 20), (40, 20, 20), 0.5)
    accumulator = Accumulator(grid, 1, _weights(grid.patch))
    most = 0
    for tile in grid.tiles():
        accumulator.add(tile, torch.zeros((1, *grid.patch)))
        most = max(most, sum(hi - lo for lo, hi in accumulator._sums))
    assert most <= peak_planes(grid, wrapped=False) == 40


def _record(network_shape, image_shape, *, box=None, transpose=(0, 1, 2), spacing=(1.0, 1.0, 1.0)):
    box = box or tuple((0, n) for n in image_shape)
    ratio = [(hi - lo) / n for (lo, hi), n in zip(box, network_shape, strict=True)]
    return PrepareRecord(
        transpose, image_shape, box, spacing, network_shape, tuple(s * r for s, r in zip(spacing, ratio, strict=True))
    )


@settings(max_examples=40, deadline=None)
@given(
    network=st.tuples(st.integers(1, 14), st.integers(2, 9), st.integers(2, 9)),
    image=st.tuples(st.integers(1, 20), st.integers(2, 12), st.integers(2, 12)),
    cuts=st.lists(st.integers(1, 13), max_size=4),
    backwards=st.booleans(),
    thick=st.booleans(),
)
def test_slabs_in_any_order_give_the_labels_of_the_whole(network, image, cuts, backwards, thick):
    spacing = (9.0, 1.0, 1.0) if thick else (1.0, 1.0, 1.0)
    record = _record(network, image, spacing=spacing)
    logits = torch.from_numpy(np.random.default_rng(0).normal(size=(3, *network)).astype(np.float32))
    whole = resample_image(logits, image, record.network_spacing, record.spacing, LINEAR)
    expected = whole.argmax(dim=0).numpy()
    labels = np.full(image, 255, dtype=np.uint8)
    probabilities = np.zeros((3, *image), dtype=np.float32)
    for probability in (None, probabilities):
        labels[:] = 255
        assembler = Assembler(record, TWO, LINEAR, labels, probability)
        edges = sorted({0, network[0], *(c for c in cuts if c < network[0])})
        slabs = list(pairwise(edges))
        for lo, hi in reversed(slabs) if backwards else slabs:
            assembler.push(lo, hi, logits[:, lo:hi])
        margin = np.sort(whole.numpy(), axis=0)
        clear = margin[-1] - margin[-2] > 1e-4
        np.testing.assert_array_equal(labels[clear], expected[clear])
        assert (labels != 255).all()
    np.testing.assert_allclose(probabilities.sum(axis=0), 1, atol=1e-5)


def test_labels_go_back_to_the_crop_box_and_the_own_axis_order():
    transpose = (2, 0, 1)  # network axes are image axes X, Z, Y
    record = _record((4, 3, 5), (6, 5, 7), box=((1, 5), (2, 5), (0, 5)), transpose=transpose)
    labels = np.zeros((5, 7, 6), dtype=np.uint8)
    logits = torch.zeros((3, 4, 3, 5))
    logits[1, 1, 2, 3] = 5
    Assembler(record, TWO, LINEAR, labels).push(0, 4, logits)
    assert np.argwhere(labels).tolist() == [[2 + 2, 0 + 3, 1 + 1]]


def test_outside_the_crop_everything_is_background_with_probability_one():
    record = _record((4, 4, 4), (8, 8, 8), box=((2, 6),) * 3)
    probabilities = np.zeros((3, 8, 8, 8), dtype=np.float32)
    Assembler(record, TWO, LINEAR, np.zeros((8, 8, 8), np.uint8), probabilities).push(0, 4, torch.zeros((3, 4, 4, 4)))
    assert (probabilities[:, 0, 0, 0] == [1, 0, 0]).all()
    np.testing.assert_allclose(probabilities[:, 4, 4, 4], 1 / 3, atol=1e-6)


def test_regions_overwrite_one_another_in_their_class_order():
    scheme = LabelScheme(labels={"background": 0, "whole": (1, 2), "core": (2,)}, regions_class_order=(1, 2))
    labels = np.zeros((1, 2, 2), dtype=np.uint8)
    logits = torch.tensor([[[[1.0, 1.0], [-1.0, -1.0]]], [[[1.0, -1.0], [1.0, -1.0]]]])
    Assembler(_record((1, 2, 2), (1, 2, 2)), scheme, LINEAR, labels).push(0, 1, logits)
    assert labels.tolist() == [[[2, 1], [2, 0]]]
