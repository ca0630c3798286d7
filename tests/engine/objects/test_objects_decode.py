"""Objects are found again from probabilities, the same in pieces as at once."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from napari_nnunet.engine.objects.choose import KnownObjects, best_rule
from napari_nnunet.engine.objects.decode import Rule, decode, decode_into
from napari_nnunet.engine.objects.match import THRESHOLDS, Matching
from napari_nnunet.engine.objects.shell import thin


def probabilities(shape: tuple[int, ...], seed: int, smooth: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Smooth random probabilities of core and of inside, of which the second is never lower."""
    rough = np.random.default_rng(seed).standard_normal(shape)
    p = ndimage.gaussian_filter(rough, smooth)
    p /= p.std()
    return (1 / (1 + np.exp(-4 * (p - 0.6)))).astype(np.float32), (1 / (1 + np.exp(-4 * p))).astype(np.float32)


@given(
    st.sampled_from([(23, 17), (11, 9, 8), (1, 30), (40, 3)]),
    st.integers(0, 1000),
    st.integers(1, 9),
    st.sampled_from([1.0, 2.0]),
    st.integers(1, 6),
    st.sampled_from([{}, {"split": 0.1}, {"split": 0.5}, {"neck": 0.2}, {"neck": 0.6}]),
    st.sampled_from([0.0, 0.7]),
)
@settings(max_examples=80, deadline=None)
def test_pieces_give_what_the_whole_gives(
    shape: tuple[int, ...], seed: int, planes: int, width: float, smallest: int, cut: dict[str, float], sure: float
) -> None:
    core, inside = probabilities(shape, seed)
    rule = Rule(width, smallest=smallest, smallest_seed=2, sure=sure, **cut)
    voxel = (3.0, 1.0, 1.0)[-len(shape) :]
    whole = decode(core, inside, rule, voxel)
    pieces = np.empty(shape, dtype=np.uint32)
    count = decode_into(pieces, lambda window: (core[window], inside[window]), rule, voxel, planes=planes)
    np.testing.assert_array_equal(pieces, whole)
    assert count == whole.max()
    assert set(np.unique(whole)) - {0} == set(range(1, count + 1))


@given(arrays(np.float32, (9, 11), elements=st.floats(0, 1, width=32)), st.integers(1, 5))
@settings(max_examples=60, deadline=None)
def test_objects_lie_inside_and_none_is_too_small(inside: np.ndarray, smallest: int) -> None:
    objects = decode(inside * 0.8, inside, Rule(smallest=smallest))
    assert not objects[inside < 0.5].any()
    if smallest == 1:
        assert objects[inside >= 0.5].all()
    assert (np.bincount(objects.ravel())[1:] >= smallest).all()


@pytest.mark.parametrize("shape", [(40, 60), (14, 40, 60)])
def test_touching_objects_are_told_apart(shape: tuple[int, ...]) -> None:
    truth = np.ones(shape, dtype=np.int32)
    truth[..., 20:40], truth[..., 40:] = 2, 3
    truth[..., :4, :] = 0
    core = thin(truth, 2.0, (1.0,) * len(shape)).core
    found = decode(core.astype(np.float32), (truth > 0).astype(np.float32), Rule(2.0))
    assert Matching.of(truth, found).counts(0.95) == (3, 0, 0)


def test_an_object_is_as_large_as_its_classes_say_however_small_its_core_is() -> None:
    core, inside = np.zeros((2, 40, 40), dtype=np.float32)
    core[18:21, 18:21] = 1
    inside[5:35, 5:35] = 1
    found = decode(core, inside, Rule(2.0))
    np.testing.assert_array_equal(found == 1, inside == 1)
    assert found.max() == 1


def test_what_is_inside_without_a_seed_is_an_object_unless_it_belongs_to_one() -> None:
    core = np.zeros((9, 60), dtype=np.float32)
    inside = np.zeros_like(core)
    core[4, 3:6] = 1
    inside[3:6, 2:40] = 1  # far beyond the steps that the seed grows at first
    inside[2:5, 50:53] = 1
    found = decode(core, inside, Rule(1.0))
    assert found.max() == 2
    np.testing.assert_array_equal(found[2:5, 50:53], 2)
    np.testing.assert_array_equal(found[3:6, 2:40], 1)


@pytest.mark.parametrize("planes", [None, 1, 7])
def test_what_lies_between_two_objects_goes_to_the_nearer_one(planes: int | None) -> None:
    core, inside = np.zeros((2, 61, 9), dtype=np.float32)
    core[3:6, 3:6] = core[55:58, 3:6] = 1
    inside[2:59, 2:7] = 1
    found = np.empty(core.shape, dtype=np.uint32)
    assert decode_into(found, lambda window: (core[window], inside[window]), Rule(1.0), planes=planes) == 2
    np.testing.assert_array_equal(found[2:30, 2:7], 1)
    np.testing.assert_array_equal(found[31:59, 2:7], 2)
    assert ((found != 0) == (inside == 1)).all()


def test_seeds_grow_less_often_along_long_edges() -> None:
    core = np.zeros((13, 17, 17), dtype=np.float32)
    core[2, 8, 8] = core[10, 8, 8] = 1
    inside = np.ones_like(core)
    found = decode(core, inside, Rule(1.0), (4.0, 1.0, 1.0))
    assert (found[:6] == 1).all() and (
        found[7:] == 2
    ).all()  # the middle between them, whatever lies how far in a plane
    core[10] = 0
    core[2, 8, 16] = 1  # beside the first
    inside[3:] = 0
    found = decode(core, inside, Rule(1.0), (4.0, 1.0, 1.0))
    assert (found[:3, :, :12] == 1).all() and (found[:3, :, 13:] == 2).all()


def test_thresholds_are_chosen_on_known_pictures() -> None:
    rows, columns = np.ogrid[:60, :60]
    truth = np.zeros((60, 60), dtype=np.int32)
    for n, (y, x) in enumerate([(14, 14), (14, 31), (40, 20), (40, 44)], start=1):
        truth[(rows - y) ** 2 + (columns - x) ** 2 <= 64] = n
    # A timid network: it is never surer of core than 0.45.
    core = 0.45 * ndimage.gaussian_filter(thin(truth, 2.0, (1, 1)).core.astype(np.float32), 0.7)
    inside = 0.9 * ndimage.gaussian_filter((truth > 0).astype(np.float32), 0.7)
    known = KnownObjects(core.astype(np.float32), inside.astype(np.float32), truth, (1, 1))
    rule, reached = best_rule([known], Rule(2.0, inside=0.7))
    assert rule.seed < 0.45
    assert reached > 0.9
    assert Matching.of(truth, decode(known.core, known.inside, rule)).counts(0.5) == (4, 0, 0)


def discs_and(centres: list[tuple[int, int]], radius: int) -> np.ndarray:
    """Discs of one radius in a picture of 90 x 90, numbered."""
    rows, columns = np.ogrid[:90, :90]
    truth = np.zeros((90, 90), dtype=np.int32)
    for n, (y, x) in enumerate(centres, start=1):
        truth[(rows - y) ** 2 + (columns - x) ** 2 <= radius**2] = n
    return truth


def test_objects_that_a_weak_network_invents_are_left_out_by_their_doubt() -> None:
    truth = discs_and([(20, 20), (20, 60), (60, 40)], 9)
    invented = discs_and([(60, 75), (45, 12), (75, 15)], 9) > 0
    inside = (0.95 * (truth > 0) + 0.65 * invented).astype(np.float32)
    rule, reached = best_rule([KnownObjects(inside * 0.9, inside, truth, (1, 1))], Rule(1.0, inside=0.4, seed=0.4))
    assert 0.65 < rule.sure <= 0.95
    assert reached == 1.0
    np.testing.assert_array_equal(decode(inside * 0.9, inside, rule) > 0, truth > 0)


def test_objects_that_a_weak_network_invents_are_left_out_by_their_size() -> None:
    truth = discs_and([(20, 20), (20, 60), (60, 40)], 9)
    invented = discs_and([(60, 75), (45, 12), (75, 15), (80, 80)], 5) > 0
    inside = (0.95 * ((truth > 0) | invented)).astype(np.float32)
    rule, reached = best_rule([KnownObjects(inside, inside, truth, (1, 1))], Rule(1.0))
    assert invented.sum() / 4 < rule.smallest <= np.bincount(truth.ravel())[1:].min()
    assert reached == 1.0
    assert Matching.of(truth, decode(inside, inside, rule)).counts(0.5) == (3, 0, 0)


def test_what_is_chosen_finds_as_much_as_was_said() -> None:
    core, inside = probabilities((80, 90), 3)
    truth = decode(*probabilities((80, 90), 3, smooth=2.5), Rule(1.0))
    rule, reached = best_rule([KnownObjects(core, inside, truth, (1, 1))], Rule(1.0))
    found = Matching.of(truth, decode(core, inside, rule))
    assert reached == pytest.approx(np.mean([found.precision(t) for t in THRESHOLDS]))


def test_a_known_neck_teaches_to_cut() -> None:
    rows, columns = np.ogrid[:70, :60]
    first, second = ((rows - 20) ** 2 + (columns - x) ** 2 <= 90 for x in (20, 37))
    truth = np.where(first & (columns < 29), 1, np.where(second, 2, 0))
    core = (truth > 0).astype(np.float32)  # of a network that never saw a border
    known = KnownObjects(core, (truth > 0).astype(np.float32), truth, (1, 1))
    rule, reached = best_rule([known], Rule(2.0))
    assert rule.split is not None
    assert reached > 0.9


def test_two_hundred_thousand_objects_are_found_and_matched() -> None:
    side = 450
    truth = np.zeros((5 * side, 5 * side), np.uint32)
    core = np.zeros(truth.shape, np.float32)
    numbers = np.arange(1, side**2 + 1, dtype=np.uint32).reshape(side, side)
    for y in range(4):
        for x in range(4):
            truth[y::5, x::5] = numbers
    core[1::5, 1::5] = 1
    found = decode(core, (truth != 0).astype(np.float32), Rule(1.0))
    assert Matching.of(truth, found).counts(0.95) == (side**2, 0, 0)
