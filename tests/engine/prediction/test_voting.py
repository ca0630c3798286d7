"""Joining members, cleaning label maps, counting agreement: laws, and figures worked out another way."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from napari_nnunet.engine.choosing.calibration import fit_temperature
from napari_nnunet.engine.choosing.components import beyond_largest, clean, cleaned, to_remove
from napari_nnunet.engine.choosing.metrics import Joint, measure_labels
from napari_nnunet.engine.prediction.vote import Vote, VoteSettings
from napari_nnunet.schema.cleaning import Cleaning, Step
from napari_nnunet.schema.dataset import LabelScheme

LABELS = LabelScheme(labels={"background": 0, "a": 1, "b": 2})
REGIONS = LabelScheme(labels={"background": 0, "whole": (1, 2), "core": (2,)}, regions_class_order=(1, 2))
SHAPE = (5, 6, 7)


def _members(count, heads, *, seed=0):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(count, heads, *SHAPE)).astype(np.float32) * 2
    exp = np.exp(logits)
    return exp / exp.sum(axis=1, keepdims=True)


def _vote(scheme, members, step=2, **options):
    vote = Vote(scheme, SHAPE, len(members), VoteSettings(**options))
    means = np.zeros(members.shape[1:], dtype=np.float32)
    for c in range(scheme.heads):
        for lo in range(0, SHAPE[0], step):
            means[c, lo : lo + step] = vote.add(c, lo, [member[c, lo : lo + step] for member in members])
    return vote.finish(), means, vote


@pytest.mark.parametrize("step", [1, 2, 5])
def test_the_mean_of_the_probabilities_decides_however_it_is_cut(step):
    members = _members(3, 3)
    labels, means, _ = _vote(LABELS, members, step)
    np.testing.assert_allclose(means, members.mean(axis=0), atol=1e-6)
    np.testing.assert_array_equal(labels, means.argmax(axis=0))


def test_regions_are_painted_over_one_another():
    members = np.random.default_rng(1).random((2, 2, *SHAPE)).astype(np.float32)
    labels, means, _ = _vote(REGIONS, members)
    expected = np.zeros(SHAPE)
    expected[means[0] > 0.5] = 1
    expected[means[1] > 0.5] = 2
    np.testing.assert_array_equal(labels, expected)


def test_the_majority_decides_and_the_first_member_breaks_ties():
    members = _members(3, 3, seed=2)
    votes = members.argmax(axis=1)
    labels, _, _ = _vote(LABELS, members, method="hard")
    counts = np.stack([(votes == v).sum(axis=0) for v in range(3)])
    clear = counts.max(axis=0) > 1
    np.testing.assert_array_equal(labels[clear], counts.argmax(axis=0)[clear])
    assert (~clear).any()
    np.testing.assert_array_equal(labels[~clear], votes[0][~clear])


def test_a_weight_of_zero_leaves_a_member_out_and_equal_weights_change_nothing():
    members = _members(2, 3, seed=3)
    for method in ("soft", "hard"):
        alone, _, _ = _vote(LABELS, members[:1], method=method)
        weighted, _, _ = _vote(LABELS, members, method=method, weights=(2.0, 0.0))
        np.testing.assert_array_equal(weighted, alone)
        equal, _, _ = _vote(LABELS, members, method=method, weights=(3.0, 3.0))
        np.testing.assert_array_equal(equal, _vote(LABELS, members, method=method)[0])


@pytest.mark.parametrize("scheme", [LABELS, REGIONS], ids=["labels", "regions"])
def test_members_that_agree_do_not_disagree(scheme):
    one = _members(1, scheme.heads, seed=4)
    _, _, vote = _vote(scheme, np.concatenate([one, one]), uncertainty=True)
    entropy, disagreement = vote.uncertainty()
    assert disagreement.max() < 1e-5
    assert entropy.min() >= 0 and entropy.max() <= 1 and entropy.mean() > 0.1


def test_entropy_is_the_shannon_entropy_and_sure_members_that_contradict_disagree_fully():
    members = _members(2, 3, seed=5)
    _, means, vote = _vote(LABELS, members, uncertainty=True)
    entropy, disagreement = vote.uncertainty()
    own = -(means * np.log(means)).sum(axis=0)
    np.testing.assert_allclose(entropy, own / math.log(3), atol=1e-5)
    theirs = -(members * np.log(members)).sum(axis=1).mean(axis=0)
    np.testing.assert_allclose(disagreement, (own - theirs) / math.log(2), atol=1e-5)
    sure = np.zeros((2, 3, *SHAPE), dtype=np.float32)
    sure[0, 1], sure[1, 2] = 1, 1
    _, _, vote = _vote(LABELS, sure, uncertainty=True)
    np.testing.assert_allclose(vote.uncertainty()[1], 1, atol=1e-5)


def test_a_temperature_above_one_makes_less_sure_and_leaves_labels_alone():
    members = _members(2, 3, seed=6)
    plain, _, cold = _vote(LABELS, members, uncertainty=True)
    same, means, warm = _vote(LABELS, members, uncertainty=True, temperature=2.0)
    np.testing.assert_array_equal(plain, same)
    powered = means**0.5
    q = powered / powered.sum(axis=0)
    np.testing.assert_allclose(warm.uncertainty()[0], -(q * np.log(q)).sum(axis=0) / math.log(3), atol=1e-5)
    assert (warm.uncertainty()[0] >= cold.uncertainty()[0] - 1e-6).all()


def test_uncertainty_must_be_asked_for():
    with pytest.raises(ValueError, match="not asked for"):
        _vote(LABELS, _members(1, 3))[2].uncertainty()


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("shape", [(9, 10, 11), (40, 41)])
def test_the_largest_part_is_found_as_scipy_finds_it(shape, seed):
    mask = np.random.default_rng(seed).random(shape) > 0.85
    parts, _ = ndimage.label(mask, np.ones((3,) * len(shape)))
    sizes = np.bincount(parts.ravel())[1:]
    keep = np.isin(parts, 1 + np.flatnonzero(sizes == sizes.max()))
    wrong = beyond_largest(mask)
    np.testing.assert_array_equal(wrong, mask & ~keep)


def test_of_equally_large_parts_all_stay_and_one_part_is_left_alone():
    labels = np.zeros((1, 3, 9), dtype=np.uint8)
    labels[0, 1, 1:3] = 1
    labels[0, 1, 6:8] = 1
    assert clean(labels, Cleaning.of([1])) == 0
    labels[0, 1, 8] = 1
    assert clean(labels, Cleaning.of([1])) == 2
    assert beyond_largest(labels[0] == 1) is None
    assert beyond_largest(np.zeros((2, 2), dtype=bool)) is None


@pytest.mark.parametrize("shape", [(12, 13, 14), (40, 41)])
def test_all_labels_in_one_pass_are_what_each_alone_gives(shape, monkeypatch):
    monkeypatch.setattr("napari_nnunet.engine.choosing.components._PIECE", 100)  # several pieces
    rng = np.random.default_rng(11)
    labels = np.where(rng.random(shape) > 0.6, rng.integers(0, 6, shape), 0).astype(np.uint8)
    each = {value: to_remove(labels, value) for value in range(1, 6)}
    np.testing.assert_array_equal(beyond_largest(labels), np.any(list(each.values()), axis=0))
    np.testing.assert_array_equal(beyond_largest(labels, [2, 5]), each[2] | each[5])
    assert beyond_largest(labels, [9]) is None
    expected = labels.copy()
    for wrong in each.values():
        expected[wrong] = 0
    np.testing.assert_array_equal(cleaned(labels, [3, 1, 5, 2, 4]), expected)
    steps = [Step(target=3), Step(target=1, background=2), Step(target=[1, 2]), Step(target=2), Step(target=4)]
    expected, result = labels.copy(), labels.copy()
    for step in steps:  # one by one
        clean(expected, Cleaning(steps=(step,)))
    clean(result, Cleaning(steps=tuple(steps)))
    np.testing.assert_array_equal(result, expected)


def test_a_union_is_taken_together_and_a_copy_is_returned():
    labels = np.array([[1, 2, 0, 2, 0]], dtype=np.uint8)[None]
    np.testing.assert_array_equal(cleaned(labels, [[1, 2]]), [[[1, 2, 0, 0, 0]]])
    np.testing.assert_array_equal(cleaned(labels, [2]), labels)  # a tie
    assert labels[0, 0, 3] == 2


def _four_passes(reference, prediction, label, ignore):
    valid = reference != ignore if ignore is not None else np.ones(reference.shape, bool)
    r, p = (np.isin(a, label) & valid for a in (reference, prediction))
    return [int((r & p).sum()), int((~r & p & valid).sum()), int((r & ~p).sum()), int((~r & ~p & valid).sum())]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_the_joint_table_counts_what_four_passes_count(data):
    seed = data.draw(st.integers(0, 2**32 - 1))
    high = data.draw(st.sampled_from([3, 7, 3000]))
    rng = np.random.default_rng(seed)
    reference, prediction = rng.integers(0, high, (2, 3, 4, 5), dtype=np.int32)
    ignore = data.draw(st.sampled_from([None, int(reference[0, 0, 0])]))
    labels = [int(prediction[0, 0, 1]), (int(reference[1, 1, 1]), int(prediction[2, 2, 2])), high + 5]
    for label, found in measure_labels(reference, prediction, labels, ignore).items():
        assert [found[k] for k in ("TP", "FP", "FN", "TN")] == _four_passes(reference, prediction, label, ignore)


def test_removed_voxels_are_counted_without_counting_the_rest_again():
    rng = np.random.default_rng(8)
    reference, prediction = rng.integers(0, 3, (2, 4, 5, 6))
    wrong = rng.random(prediction.shape) > 0.7
    after = prediction.copy()
    after[wrong] = 0
    joint = Joint.count(reference, prediction)
    changed = joint.without(joint.recount(reference[wrong], prediction[wrong]))
    np.testing.assert_array_equal(changed.table, Joint.count(reference, after).table)


def test_the_temperature_of_probabilities_that_were_sharpened_is_found_again():
    rng = np.random.default_rng(9)
    honest = rng.dirichlet((0.7, 0.7, 0.7), size=40_000)
    truth = np.array([rng.choice(3, p=p) for p in honest[:8000]])
    sharp = honest[:8000] ** 2.5
    sharp /= sharp.sum(axis=1, keepdims=True)
    found = fit_temperature(sharp, truth)
    assert found.temperature == pytest.approx(2.5, rel=0.08)
    assert found.error_after < 0.3 * found.error_before
    assert found.loss_after < found.loss_before
    assert fit_temperature(honest[:8000], truth).temperature == pytest.approx(1, rel=0.08)
    with pytest.raises(ValueError, match="no voxel"):
        fit_temperature(sharp[:0], truth[:0])
