"""Places of unlabelled images are measured and chosen as each strategy says."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_nnunet.engine.labelling.queries import (
    Spot,
    boxes_in,
    choose_places,
    drawing_axis,
    entropy_of,
    places_of,
)
from napari_nnunet.schema.dataset import LabelScheme

PLAIN = LabelScheme(labels={"background": 0, "a": 1, "b": 2})
REGIONS = LabelScheme(labels={"background": 0, "whole": (1, 2), "core": 2}, regions_class_order=(1, 2))


def place(case="c", number=0, entropy=0.5, classes=None, spread=0):
    return Spot(case, number, ((0, 4), (0, 4)), 16, entropy, classes or {}, 0, (0, 0), spread)


def chosen(places, strategy, budget, *, turn=1, seed=0):
    return choose_places(places, strategy, budget, turn=turn, rng=np.random.default_rng(seed))


@pytest.mark.parametrize(
    ("scheme", "sure", "unsure"), [(PLAIN, (0, 1, 0), (1 / 3,) * 3), (REGIONS, (1, 0), (0.5, 0.5))]
)
def test_entropy_goes_from_nothing_to_one(scheme, sure, unsure):
    for values, expected in ((sure, 0), (unsure, 1)):
        heads = (np.full((2, 3), value, np.float32) for value in values)
        np.testing.assert_allclose(entropy_of(heads, scheme), expected, atol=1e-4)


@given(st.tuples(*[st.integers(1, 40)] * 3), st.tuples(*[st.integers(1, 20)] * 3))
def test_boxes_fill_an_image_and_do_not_overlap(shape, size):
    counts = np.zeros(shape, int)
    for box in boxes_in(shape, "boxes", size, 0):
        counts[tuple(slice(*span) for span in box)] += 1
    assert (counts == 1).all()


def test_slices_lie_across_the_coarsest_axis():
    assert drawing_axis((1.0, 1.0, 5.0)) == 2
    boxes = boxes_in((4, 5, 6), "slices", (), 2)
    assert len(boxes) == 6
    assert boxes[3] == ((0, 4), (0, 5), (3, 4))
    assert boxes_in((5, 6), "slices", (), 0) == [((0, 5), (0, 6))]


def test_a_place_says_what_is_seen_what_it_costs_and_where_doubt_is_greatest():
    seen = np.zeros((4, 6, 6), np.uint8)
    seen[1:3, :3, :3] = 1
    entropy = np.full(seen.shape, 0.1, np.float32)
    entropy[2, 1, 2] = 0.9
    boxes = boxes_in(seen.shape, "cases", (), 0)
    (found,) = places_of("c", entropy, seen, PLAIN, boxes, unit="cases", axis=0)
    assert found.foreground == 18
    assert found.outlines == 2
    assert found.voxels == seen.size
    assert found.middle == (2, 1, 2)


def test_what_is_annotated_costs_nothing_and_is_not_asked_for_again():
    seen = np.zeros((4, 6, 6), np.uint8)
    annotated = np.zeros(seen.shape, bool)
    annotated[1] = True
    annotated[2, :2] = True
    boxes = boxes_in(seen.shape, "slices", (), 0)
    entropy = np.zeros(seen.shape, np.float32)
    found = places_of("c", entropy, seen, PLAIN, boxes, unit="slices", axis=0, annotated=annotated)
    assert [(p.number, p.voxels) for p in found] == [(0, 36), (2, 24), (3, 36)]


def test_entropy_takes_the_least_sure_first_but_no_neighbouring_slices():
    places = [place(number=n, entropy=0.9 - 0.1 * n, spread=1) for n in range(4)]
    assert [p.number for p in chosen(places, "entropy", 4)] == [0, 2]


def test_random_goes_mostly_where_foreground_is_seen_and_sometimes_elsewhere():
    places = [place(case=str(n), classes={1: (10, 0.1)} if n < 5 else {}) for n in range(100)]
    first = [chosen(places, "random", 1, seed=seed)[0].foreground > 0 for seed in range(200)]
    assert 0.55 < np.mean(first) < 0.8


def test_stratified_asks_for_each_class_and_becomes_sharp():
    places = [place(case=f"a{n}", entropy=0.6, classes={1: (10, 0.5 + 0.04 * n)}) for n in range(10)]
    places += [place(case=f"b{n}", entropy=0.1, classes={2: (3, 0.1 + 0.04 * n)}) for n in range(10)]
    late = chosen(places, "stratified", 3, turn=12)
    assert {p.case for p in late[:2]} == {"a9", "b9"}
    early = {chosen(places, "stratified", 1, turn=1, seed=seed)[0].case for seed in range(20)}
    assert len(early) > 5


@pytest.mark.parametrize("strategy", ["random", "entropy", "stratified"])
def test_no_more_is_chosen_than_there_is_and_nothing_twice(strategy):
    places = [place(case=str(n), classes={1: (n, 0.3)} if n else {}) for n in range(5)]
    found = chosen(places, strategy, 9)
    assert sorted(p.case for p in found) == list("01234")
