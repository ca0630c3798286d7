"""What chance decides: how often and how much, and that it can be repeated."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_nnunet.engine.batches import augmentation
from napari_nnunet.engine.batches.patches import choose_corner, corner_range, cut_patch, patch_rule
from napari_nnunet.engine.batches.randomness import Draws, apply, apply_together, draw, sample_generator

N = 4000
RULE = patch_rule((32, 40, 40))


@pytest.fixture(scope="module")
def many():
    return [draw(sample_generator(0, 0, i), RULE, 2) for i in range(N)]


def share(values):
    return np.mean([bool(value) for value in values])


@pytest.mark.parametrize(
    ("name", "probability"),
    [
        ("turn", 0.36), ("noise", 0.1), ("blur", 0.2), ("brightness", 0.15), ("contrast", 0.15),
        ("low_resolution", 0.25), ("gamma_inverted", 0.1), ("gamma", 0.3),
    ],
)  # fmt: skip
def test_how_often(many, name, probability):
    # four standard deviations of a share of N draws
    assert share([getattr(d, name) for d in many]) == pytest.approx(probability, abs=4 * np.sqrt(0.25 / N))


def test_how_much(many):
    turns = [d.turn for d in many if d.turn is not None]
    angles = np.array([t.angles for t in turns if any(t.angles)])
    assert np.abs(angles).max() <= np.radians(30)
    assert np.abs(angles.mean(axis=0)).max() < 0.05
    scales = np.array([t.scale for t in turns if t.scale != 1])
    assert (scales.min() >= 0.7, scales.max() <= 1.4) == (True, True)
    assert scales.mean() == pytest.approx(1.05, abs=0.03)
    factors = np.concatenate([d.brightness for d in many])
    assert np.mean(factors < 1) == pytest.approx(0.5, abs=0.06)
    gammas = np.concatenate([d.gamma for d in many])
    assert (gammas.min() >= 0.7, gammas.max() <= 1.5) == (True, True)
    assert np.mean(gammas < 1) == pytest.approx(0.5, abs=0.05)
    assert share([0 in d.mirror for d in many]) == pytest.approx(0.5, abs=0.04)
    blurred = [bool(channel) for d in many for channel in d.blur]
    assert np.mean(blurred) == pytest.approx(0.5, abs=0.06)
    assert len({d.noise_seed for d in many}) > 0.99 * N


def test_a_sample_depends_on_seed_epoch_and_place_only():
    first = draw(sample_generator(3, 7, 11), RULE, 1)
    assert first == draw(sample_generator(3, 7, 11), RULE, 1)
    others = [draw(sample_generator(*key), RULE, 1) for key in ((4, 7, 11), (3, 8, 11), (3, 7, 12))]
    assert all(first != other for other in others)


@pytest.mark.parametrize("patch", [(16, 24, 24), (6, 32, 32), (24, 20)])
def test_every_sample_has_the_final_size_and_no_outside(patch):
    rule = patch_rule(patch)
    rng = np.random.default_rng(0)
    image = torch.from_numpy(rng.normal(size=(2, *rule.initial)).astype(np.float32))
    labels = torch.from_numpy(rng.integers(-1, 3, (1, *rule.initial)).astype(np.int16))
    for i in range(30):
        moved, turned = apply(draw(sample_generator(0, 0, i), rule, 2), rule, image, labels, masked=(True, False))
        assert tuple(moved.shape) == (2, *patch)
        assert tuple(turned.shape) == (1, *patch)
        assert torch.isfinite(moved).all()
        assert set(turned.unique().tolist()) <= {0, 1, 2}
        assert turned.dtype == torch.int16


@pytest.mark.parametrize("patch", [(16, 24, 24), (6, 32, 32), (24, 20)])
@pytest.mark.parametrize(("orders", "many"), [((1, 1), False), ((1, 1), True), ((0, 0), False)])
def test_samples_that_are_augmented_together_are_what_each_is_by_itself(patch, orders, many):
    rule = patch_rule(patch)
    rng = np.random.default_rng(0)
    images = torch.from_numpy(rng.normal(size=(12, 2, *rule.initial)).astype(np.float32))
    labels = rng.integers(-1, 3, (12, 1, *rule.initial))
    if many:  # values that few samples have, and some that no other has
        labels = (labels * np.arange(1, 13).reshape(12, *[1] * (len(patch) + 1))).clip(-1)
    labels = torch.from_numpy(labels.astype(np.int16))
    draws = [draw(sample_generator(0, 0, i), rule, 2) for i in range(12)]
    options = {"masked": (True, False), "orders": orders}
    moved, turned = apply_together(draws, rule, images, labels, **options)
    for i, own in enumerate(draws):
        image, seg = apply(own, rule, images[i], labels[i], **options)
        assert torch.equal(moved[i], image)
        assert torch.equal(turned[i], seg)


def test_without_luck_a_sample_is_the_middle_of_its_patch():
    rule = patch_rule((16, 24, 24))
    image = torch.arange(float(np.prod(rule.initial))).reshape(1, *rule.initial)
    moved, _ = apply(Draws(), rule, image, torch.zeros_like(image, dtype=torch.int16))
    torch.testing.assert_close(moved, augmentation.crop_centre(image, rule.final, 0.0))


def test_masked_channels_are_zero_outside_after_everything():
    rule = patch_rule((16, 24, 24))
    labels = torch.full((1, *rule.initial), -1, dtype=torch.int16)
    image = torch.ones((2, *rule.initial))
    moved, _ = apply(Draws(brightness=(1.2, 1.2)), rule, image, labels, masked=(True, False))
    assert (moved[0] == 0).all()
    assert (moved[1] == 1.2).all()


def test_forced_patches_hold_their_voxel_and_others_stay_in_range():
    rule = patch_rule((8, 16, 16))
    shape = (20, 40, 30)
    low, high = corner_range(shape, rule.initial, rule.final)
    locations = {1: np.array([[0, 19, 39, 29], [0, 0, 0, 0]]), 2: [], (-1, 0, 1, 2): np.array([[0, 5, 5, 5]])}
    for i in range(200):
        rng = sample_generator(0, 0, i)
        free = choose_corner(rng, shape, rule.initial, rule.final, locations, forced=False)
        assert all(lo <= c <= hi for lo, c, hi in zip(low, free, high, strict=True))
        forced = choose_corner(rng, shape, rule.initial, rule.final, locations, forced=True, annotated=(-1, 0, 1, 2))
        end = [c + n for c, n in zip(forced, rule.initial, strict=True)]
        assert any(
            all(c <= v < e for c, v, e in zip(forced, voxel, end, strict=True)) for voxel in ((19, 39, 29), (0, 0, 0))
        )
        sparse = choose_corner(rng, shape, rule.initial, rule.final, locations, forced=False, annotated=(-1, 0, 1, 2))
        assert sparse == tuple(max(lo, 5 - n // 2) for lo, n in zip(low, rule.initial, strict=True))


def test_what_lies_outside_a_case_is_filled():
    array = np.arange(60, dtype=np.float32).reshape(1, 3, 4, 5)
    patch = cut_patch(array, (-1, 2, 3), (3, 4, 4), fill=-7)
    assert patch.shape == (1, 3, 4, 4)
    np.testing.assert_array_equal(patch[0, 1:, :2, :2], array[0, :2, 2:, 3:])
    assert (patch[0, 0] == -7).all()
    assert (cut_patch(array, (10, 0, 0), (2, 2, 2), fill=0) == 0).all()


@settings(max_examples=60)
@given(
    source=st.one_of(st.tuples(*[st.integers(3, 30)] * 3), st.tuples(*[st.integers(3, 40)] * 2)),
    classes=st.integers(1, 9),
    channels=st.integers(1, 2),
    seed=st.integers(0, 2**31),
)
def test_labels_of_large_samples_are_turned_as_those_of_small_ones(source, classes, channels, seed):
    rng = torch.Generator().manual_seed(seed)
    knots = torch.rand((1, channels, *(max(2, n // 6) for n in source)), generator=rng)
    labels = torch.nn.functional.interpolate(knots, source, mode="nearest").mul(classes + 1).to(torch.int16) - 1
    angles = tuple((torch.rand(3 if len(source) == 3 else 1, generator=rng) * 1.2 - 0.6).tolist())
    how = augmentation.Turn(angles, float(torch.rand(1, generator=rng)) * 0.7 + 0.7)
    patch = [n - 2 for n in source]
    grid = augmentation._grids(torch.zeros(1, 1, *source), patch, [how])
    values = augmentation._values_of(labels)
    assert values == sorted({-1, *labels.unique().tolist()})
    assert torch.equal(augmentation._turn_large(labels, grid), augmentation._turn_all(labels, grid, values))
