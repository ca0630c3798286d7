"""Objects are matched one to one, and counted as the literature defines it."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.optimize import linear_sum_assignment

from napari_nnunet.engine.objects.match import Matching, annotated_part

MAPS = arrays(np.int32, (6, 7), elements=st.integers(0, 5))


def dense_iou(reference: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    """Intersection over union of all pairs, one after the other."""
    rows, columns = ([n for n in np.unique(objects) if n] for objects in (reference, prediction))
    iou = np.zeros((len(rows), len(columns)))
    for i, r in enumerate(rows):
        for j, p in enumerate(columns):
            iou[i, j] = ((reference == r) & (prediction == p)).sum() / ((reference == r) | (prediction == p)).sum()
    return iou


@given(MAPS, MAPS, st.sampled_from([0.5, 0.55, 0.75, 0.95]))
@settings(max_examples=100, deadline=None)
def test_as_many_pairs_match_as_an_optimal_assignment_finds(r: np.ndarray, p: np.ndarray, threshold: float) -> None:
    iou = dense_iou(r, p)
    rows, columns = linear_sum_assignment((iou < threshold).astype(float))
    best = int((iou[rows, columns] >= threshold).sum())
    found, invented, missed = Matching.of(r, p).counts(threshold)
    assert (found, found + missed, found + invented) == (best, *iou.shape)


@given(MAPS, MAPS)
@settings(max_examples=50, deadline=None)
def test_numbers_do_not_count(r: np.ndarray, p: np.ndarray) -> None:
    renamed = np.where(p > 0, (7 - p) * 50_000_000, 0)
    one, other = Matching.of(r, p), Matching.of(r, renamed)
    assert one.counts() == other.counts()
    assert one.seg == pytest.approx(other.seg, nan_ok=True)
    assert one.panoptic_quality == pytest.approx(other.panoptic_quality, nan_ok=True)


@given(MAPS)
@settings(max_examples=30, deadline=None)
def test_a_picture_agrees_with_itself(r: np.ndarray) -> None:
    found = Matching.of(r, r)
    expected = pytest.approx(1.0 if r.any() else math.nan, nan_ok=True)
    for value in (found.precision(0.95), found.f1(), found.panoptic_quality, found.seg):
        assert value == expected
    assert not len(found.split) and not len(found.merged)


def test_scores_of_a_small_example_are_those_of_their_definitions() -> None:
    reference = np.zeros((4, 20), dtype=int)
    prediction = np.zeros_like(reference)
    reference[0, :10], prediction[0, :8] = 1, 1  # IoU 0.8
    reference[1, :10], prediction[1, :5], prediction[1, 5:10] = 2, 2, 3  # split in half
    reference[2, :4], reference[2, 4:8], prediction[2, :8] = 3, 4, 4  # merged
    prediction[3, :3] = 5  # invented
    found = Matching.of(reference, prediction)
    # The half of object 2 and one of objects 3 and 4 have an IoU of exactly 0.5.
    assert found.counts(0.5) == (3, 2, 1)
    assert found.counts(0.55) == (1, 4, 3)
    assert found.precision(0.55) == pytest.approx(1 / 8)
    assert found.f1(0.5) == pytest.approx(6 / 9)
    assert found.panoptic_quality == pytest.approx((0.8 + 0.5 + 0.5) / (3 + 0.5 * 3))
    assert found.seg == pytest.approx((0.8 + 0.5 + 0.5) / 4)  # half of object 2 is not more than half of it
    assert found.reference_numbers[found.split].tolist() == [2]
    assert found.prediction_numbers[found.merged].tolist() == [4]


def test_pictures_are_counted_together() -> None:
    a = np.array([[1, 1, 0, 2]])
    b = np.array([[3, 3, 0, 0]])
    assert (Matching.of(a, a) + Matching.of(a, b) + Matching.none()).counts() == (3, 0, 1)


def test_shapes_and_thresholds_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(1, 2\).*\(2, 1\)"):
        Matching.of(np.zeros((1, 2), int), np.zeros((2, 1), int))
    with pytest.raises(ValueError, match=r"0\.5 on, not 0\.3"):
        Matching.none().pairs(0.3)


def test_an_object_that_reaches_into_what_nobody_annotated_agrees_with_itself() -> None:
    drawn = np.zeros((8, 12), int)
    drawn[2:6, 1:6], drawn[2:6, 8:11] = 1, 2
    ignored = np.zeros(drawn.shape, bool)
    ignored[:, 4:8] = True
    again = annotated_part(drawn, ignored, drawn)
    np.testing.assert_array_equal(again, drawn)
    more = drawn.copy()
    more[3:5, 6:8] = 7  # in what nobody annotated
    np.testing.assert_array_equal(annotated_part(more, ignored, drawn), drawn)
