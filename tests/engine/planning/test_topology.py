"""How deep a network goes, as laws of any voxel size and patch."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_nnunet.engine.planning.topology import MIN_EDGE, feature_map_size, topology

AXES = st.lists(st.tuples(st.floats(0.05, 12), st.integers(1, 600)), min_size=2, max_size=3)


@given(AXES)
def test_a_patch_is_padded_to_what_the_strides_need_and_no_further(axes):
    spacing, size = zip(*axes, strict=True)
    found = topology(spacing, size)
    assert found.divisor == tuple(math.prod(strides) for strides in zip(*found.strides, strict=True))
    for edge, wished, divisor in zip(found.patch, size, found.divisor, strict=True):
        assert edge % divisor == 0
        assert wished <= edge < wished + divisor


@given(AXES)
def test_the_first_stage_is_the_patch_itself_and_every_other_is_smaller(axes):
    found = topology(*zip(*axes, strict=True))
    assert set(found.strides[0]) == {1}
    assert all(2 in strides and set(strides) <= {1, 2} for strides in found.strides[1:])
    assert len(found.kernels) == found.stages
    assert set(found.kernels[-1]) == {3}


@given(AXES)
def test_an_axis_that_is_halved_keeps_four_voxels_and_others_are_as_they_were(axes):
    found = topology(*zip(*axes, strict=True))
    for edge, divisor, (_, wished) in zip(found.patch, found.divisor, axes, strict=True):
        if divisor == 1:
            assert edge == wished
        else:
            assert edge // divisor >= MIN_EDGE


@given(AXES)
def test_a_kernel_that_spans_an_axis_goes_on_spanning_it(axes):
    found = topology(*zip(*axes, strict=True))
    for before, after in zip(found.kernels, found.kernels[1:], strict=False):
        assert all(a >= b for a, b in zip(after, before, strict=True))


@given(AXES, st.sampled_from([0.01, 1000.0]))
def test_the_unit_of_length_does_not_matter(axes, factor):
    spacing, size = zip(*axes, strict=True)
    assert topology([2.0 ** round(math.log2(s)) for s in spacing], size) == topology(
        [2.0 ** round(math.log2(s)) * 2.0 ** round(math.log2(factor)) for s in spacing], size
    )


@given(AXES, st.randoms(use_true_random=False))
def test_the_order_of_the_axes_does_not_matter(axes, random):
    order = random.sample(range(len(axes)), len(axes))
    found, turned = topology(*zip(*axes, strict=True)), topology(*zip(*[axes[i] for i in order], strict=True))
    assert turned.patch == tuple(found.patch[i] for i in order)
    assert turned.strides == tuple(tuple(stride[i] for i in order) for stride in found.strides)


@pytest.mark.parametrize(
    ("spacing", "size", "stages", "patch"),
    [
        ((1, 1, 1), (1, 1, 1), 1, (1, 1, 1)),  # a single voxel
        ((1, 1), (7, 7), 1, (7, 7)),  # halved, three voxels would be left
        ((1, 1), (8, 8), 2, (8, 8)),
        ((1, 1), (8, 7), 1, (8, 7)),  # one axis alone needs twelve
        ((1, 1), (12, 7), 2, (12, 7)),
        ((5, 1, 1), (20, 160, 160), 6, (20, 160, 160)),
        ((1, 1, 1), (9.5, 63, 58), 5, (10, 64, 64)),  # medians of an even number of cases
    ],
)
def test_depths_at_the_limits(spacing, size, stages, patch):
    found = topology(spacing, size)
    assert (found.stages, found.patch) == (stages, patch)


def test_coarse_axes_are_halved_later_and_get_narrow_kernels_until_then():
    found = topology((4, 1, 1), (32, 128, 128))
    assert found.strides[1:3] == ((1, 2, 2), (1, 2, 2))
    assert found.kernels[:3] == ((1, 3, 3), (1, 3, 3), (3, 3, 3))
    assert found.strides[3] == (2, 2, 2)


def test_feature_maps_are_counted_layer_by_layer():
    shape = topology((1, 1), (8, 8))
    encoder, decoder, heads = 2 * 4 * 64 + 2 * 6 * 16, (2 + 1) * 4 * 64, 3 * 64
    assert feature_map_size(shape, (4, 6), (2, 2), 2, 3, residual=False) == encoder + decoder + heads
    residual = 4 * 64 + 2 * 2 * 4 * 64 + 2 * 2 * 6 * 16 + 6 * 16
    assert feature_map_size(shape, (4, 6), (2, 2), 2, 3, residual=True) == residual + decoder + heads


def test_a_network_of_one_stage_has_no_decoder():
    assert feature_map_size(topology((1, 1), (7, 7)), (4,), (2,), 2, 3, residual=False) == 2 * 4 * 49
