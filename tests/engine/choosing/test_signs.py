"""What probabilities tell of a segmentation beyond the Dice that they expect."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from napari_nnunet.engine.choosing.signs import SIGNS_BYTES, signs_of

SPACING = (1.0, 1.0, 1.0)


def ball(shape=(24, 24, 24), radius=7.0):
    grid = np.indices(shape) - np.array([n // 2 for n in shape]).reshape(-1, *[1] * len(shape))
    return np.sqrt((grid**2).sum(axis=0)) <= radius


def sure(mask, inside=0.99, outside=0.01):
    return np.where(mask, inside, outside).astype(np.float32)


def test_doubt_within_and_beyond_the_outline_is_told_from_doubt_at_the_outline():
    mask = ball()
    plain = signs_of(sure(mask), mask, SPACING)
    vague = sure(mask)
    vague[12, 12, 12:15] = 0.55
    assert signs_of(vague, mask, SPACING)["inside"] > plain["inside"] + 0.1
    assert signs_of(vague, mask, SPACING)["outside"] == pytest.approx(plain["outside"])
    missed = sure(mask)
    missed[1:5, 1:5, 1:5] = 0.45
    assert signs_of(missed, mask, SPACING)["outside"] > plain["outside"] + 0.1
    assert signs_of(missed, mask, SPACING)["border"] == pytest.approx(plain["border"])
    blurred = np.where(ball(radius=9.0) & ~ball(radius=5.0), 0.5, sure(mask)).astype(np.float32)
    assert signs_of(blurred, mask, SPACING)["border"] > 0.9 > plain["border"]


def test_parts_size_and_surface_are_measured():
    mask = ball()
    two = mask.copy()
    two[:2, :2, :2] = True
    signs = signs_of(sure(two), two, (1.5, 1.0, 1.0))
    assert signs["scattered"] == pytest.approx(8 / two.sum())
    assert signs["size"] == pytest.approx(np.log(1.5 * two.sum()))
    ragged = ball() & (np.indices((24, 24, 24)).sum(axis=0) % 2 == 0)
    assert signs_of(sure(mask), mask, SPACING)["surface"] < signs_of(sure(ragged), ragged, SPACING)["surface"]


def test_across_coarse_slices_there_is_no_rim():
    slab = np.zeros((5, 20, 20), bool)
    slab[1:4, 5:15, 5:15] = True
    p = sure(slab)
    p[1, 8, 8] = 0.5  # the first slice of the structure: its inside where slices are thick, its rim where they are thin
    whole = sure(slab)
    assert signs_of(p, slab, (10.0, 1.0, 1.0))["inside"] > signs_of(whole, slab, (10.0, 1.0, 1.0))["inside"] + 0.01
    assert signs_of(p, slab, SPACING)["inside"] == pytest.approx(signs_of(whole, slab, SPACING)["inside"])


@pytest.mark.parametrize("shape", [(9, 9), (1, 9, 9)])
def test_pictures_and_single_voxels_have_finite_signs(shape):
    mask = np.zeros(shape, bool)
    mask[..., 4, 4] = True
    assert all(np.isfinite(value) for value in signs_of(sure(mask, 1.0, 0.0), mask, SPACING[: len(shape)]).values())
    whole = np.ones(shape, bool)
    assert all(np.isfinite(value) for value in signs_of(sure(whole), whole, SPACING[: len(shape)]).values())


@pytest.mark.parametrize("share", [0.5, 0.02])
def test_they_take_no_more_memory_than_is_said_however_ragged_a_class_is(share):
    rng = np.random.default_rng(0)
    mask, p = rng.random((100, 160, 160)) < share, rng.random((100, 160, 160), dtype=np.float32)
    tracemalloc.start()
    signs_of(p, mask, SPACING)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert 0.6 * SIGNS_BYTES < peak / mask.size < SIGNS_BYTES
