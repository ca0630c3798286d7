"""Laws of resampling: borders decided alone equal the dense rule, slabs equal the whole."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_nnunet.engine.image import resample
from napari_nnunet.engine.image.axis_operators import matrix_rows, nearest_index
from napari_nnunet.engine.image.resample import resample_image, resample_labels
from napari_nnunet.schema.plans import Resampling

SEG = Resampling(function="resample_data_or_seg_to_shape", is_seg=True, order=1)
TORCH = Resampling(function="resample_torch_fornnunet", is_seg=True, order=1)
DATA = Resampling(function="resample_data_or_seg_to_shape", order=3)

sizes = st.tuples(*[st.integers(1, 9)] * 3)


def dense(labels, target, *, half=False):
    """Interpolate an indicator of every label everywhere, the largest wins, ties to the nearest voxel's label."""
    matrices = [
        matrix_rows(n, t, 1, (0, t), (0, n)) if n != t else np.eye(n) for n, t in zip(labels.shape, target, strict=True)
    ]
    nearest = labels
    for axis, (n, t) in enumerate(zip(labels.shape, target, strict=True)):
        nearest = np.take(nearest, nearest_index(n, t), axis=axis)
    best, winner, at_nearest = np.full(target, -1.0), np.zeros(target, int), np.zeros(target)
    for value in np.unique(labels):
        score = np.einsum("ai,bj,ck,ijk->abc", *matrices, (labels == value).astype(float))
        score = np.float16(1000 * score).astype(float) if half else np.round(score, 12)
        winner[score > best] = value
        best = np.maximum(best, score)
        at_nearest[nearest == value] = score[nearest == value]
    return winner if half else np.where(at_nearest == best, nearest, winner)


@settings(max_examples=150, deadline=None)
@given(sizes, sizes, st.integers(1, 4), st.integers(0, 1000), st.booleans())
def test_labels_decided_where_they_meet_equal_the_dense_rule(shape, target, classes, seed, torch_rule):
    labels = np.random.default_rng(seed).integers(-1, classes, shape).astype(np.int16)
    found = resample_labels(labels, target, (1, 1, 1), (1, 1, 1), TORCH if torch_rule else SEG)
    np.testing.assert_array_equal(found, dense(labels, target, half=torch_rule))
    assert found.dtype == np.int16


@settings(max_examples=60, deadline=None)
@given(sizes, sizes, st.sampled_from([(1, 1, 1), (5, 1, 1), (1, 1, 5)]), st.integers(0, 1000))
def test_slabs_equal_the_whole(shape, target, spacing, seed):
    image = np.random.default_rng(seed).normal(size=(2, *shape)).astype(np.float32)
    whole = resample_image(image, target, spacing, (1, 1, 1), DATA)
    before = resample._SLAB_VOXELS
    try:
        resample._SLAB_VOXELS = 1
        slabs = resample_image(image, target, spacing, (1, 1, 1), DATA)
    finally:
        resample._SLAB_VOXELS = before
    np.testing.assert_allclose(slabs, whole, atol=1e-6)


@pytest.mark.parametrize("spacing", [(1, 1, 1), (5, 1, 1), (1, 5, 1)])
def test_numpy_and_torch_give_the_same(spacing):
    import torch

    image = np.random.default_rng(0).normal(size=(1, 9, 14, 11)).astype(np.float32)
    mine = resample_image(image, (12, 10, 17), spacing, (1, 1, 1), DATA)
    tensor = resample_image(torch.from_numpy(image), (12, 10, 17), spacing, (1, 1, 1), DATA)
    np.testing.assert_allclose(tensor.numpy(), mine, atol=1e-6)


def test_the_input_is_left_alone():
    labels = np.random.default_rng(0).integers(0, 3, (6, 7, 8)).astype(np.int16)
    before = labels.copy()
    resample_labels(labels, (6, 7, 9), (1, 1, 1), (1, 1, 1), SEG)
    np.testing.assert_array_equal(labels, before)
