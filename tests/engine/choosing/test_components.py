"""Only the largest part of a label stays: against a plain count of parts, for any label map."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from napari_nnunet.engine.choosing import components
from napari_nnunet.engine.choosing.components import (
    around,
    beyond_largest,
    boxes_of,
    clean,
    cleaned,
    members,
    take_out,
    to_remove,
)
from napari_nnunet.schema.cleaning import Cleaning

SHAPES = st.one_of(st.tuples(*[st.integers(1, 9)] * 2), st.tuples(*[st.integers(1, 6)] * 3))
MAPS = SHAPES.flatmap(lambda shape: arrays(np.uint8, shape, elements=st.sampled_from([0, 0, 0, 1, 2, 5])))


def plainly(labels, values):
    """Return what is beyond the largest parts of each value, part by part."""
    wrong = np.zeros(labels.shape, bool)
    for value in values:
        parts, count = ndimage.label(labels == value, np.ones((3,) * labels.ndim))
        sizes = [int((parts == i).sum()) for i in range(1, count + 1)]
        for i, size in enumerate(sizes, 1):
            if size < max(sizes):
                wrong |= parts == i
    return wrong


def same(found, expected):
    assert (found is None) == (not expected.any())
    if found is not None:
        np.testing.assert_array_equal(found, expected)


@given(MAPS)
def test_each_label_keeps_its_largest_parts(labels):
    before = labels.copy()
    same(beyond_largest(labels), plainly(labels, (1, 2, 5)))
    np.testing.assert_array_equal(labels, before)


@given(MAPS)
def test_only_the_labels_that_count_lose_parts(labels):
    same(beyond_largest(labels, [2, 7]), plainly(labels, (2,)))


@given(MAPS)
def test_labels_taken_together_are_one(labels):
    together = np.isin(labels, (1, 5)).astype(np.uint8)
    same(to_remove(labels, (1, 5)), plainly(together, (1,)))


@given(MAPS)
def test_pieces_of_any_length_give_the_same(labels):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(components, "_PIECE", 7)
        same(beyond_largest(labels), plainly(labels, (1, 2, 5)))
        same(to_remove(labels, (1, 5)), plainly(np.isin(labels, (1, 5)).astype(np.uint8), (1,)))


@given(MAPS, st.lists(st.sampled_from([1, 2, 5, 7, (1, 2), (2, 5)]), max_size=4))
def test_steps_done_together_are_as_steps_done_in_turn(labels, targets):
    expected = labels.copy()
    for target in targets:
        wrong = to_remove(expected, target)
        if wrong is not None:
            expected[wrong] = 0
    np.testing.assert_array_equal(cleaned(labels, targets), expected)
    changed = labels.copy()
    assert clean(changed, Cleaning.of(targets)) == int((changed != labels).sum())


@given(MAPS, st.lists(st.sampled_from([1, 2, 5, (1, 2)]), max_size=3))
def test_what_was_taken_out_can_be_put_back(labels, targets):
    changed = labels.copy()
    done = take_out(changed, targets)
    np.testing.assert_array_equal(changed, cleaned(labels, targets))
    for removed in done:
        removed.put_back(changed)
    np.testing.assert_array_equal(changed, labels)


def test_what_was_painted_since_is_not_painted_over():
    labels = np.array([[1, 1, 0, 1]], np.uint8)
    (removed,) = take_out(labels, [1])
    labels[0, 3] = 2
    removed.put_back(labels)
    assert labels.tolist() == [[1, 1, 0, 2]]


@pytest.mark.parametrize("kind", [bool, np.uint8, np.uint16, np.int16, np.int32, np.int64])
def test_labels_of_any_type_that_nobody_may_write_to(kind):
    labels = np.array([[1, 1, 0, 1]]).astype(kind)
    labels.flags.writeable = False
    np.testing.assert_array_equal(beyond_largest(labels), [[False, False, False, True]])


def test_parts_that_touch_at_a_corner_are_one():
    corner = np.zeros((3, 3, 3), np.uint8)
    corner[0, 0, 0] = corner[1, 1, 1] = corner[2, 2, 2] = 1
    assert beyond_largest(corner) is None
    assert beyond_largest(corner[1]) is None


@given(MAPS)
def test_boxes_are_the_smallest_around_each_label_or_region(labels):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(components, "_SMALL", 0)
        boxes = boxes_of(labels, [1, 2, 7, (1, 5)])
    for target, box in boxes.items():
        where = np.argwhere(np.isin(labels, members(target)))
        if len(where):
            expected = tuple(slice(lo, hi + 1) for lo, hi in zip(where.min(axis=0), where.max(axis=0), strict=True))
            assert box == expected
        else:
            assert labels[box].size == 0


def test_a_margin_ends_at_the_border_and_nothing_has_none():
    assert around([(slice(0, 2), slice(3, 4))], (3, 9), margin=2) == (slice(0, 3), slice(1, 6))
    assert around([], (3, 9), margin=2) == (slice(0, 0), slice(0, 0))
    assert around([(slice(0, 0), slice(0, 0)), (slice(1, 2), slice(5, 6))], (3, 9)) == (slice(1, 2), slice(5, 6))
