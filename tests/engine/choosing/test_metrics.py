"""Every metric of every label follows from one table of pairs, and is that of a plain count."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from napari_nnunet.engine.choosing import metrics
from napari_nnunet.engine.choosing.metrics import Joint, measure_labels, summarize

VALUES = st.sampled_from([0, 0, 1, 2, 9, 4000])
PAIRS = st.tuples(st.integers(1, 5), st.integers(1, 5)).flatmap(
    lambda shape: st.tuples(arrays(np.uint16, shape, elements=VALUES), arrays(np.int32, shape, elements=VALUES))
)
LABELS = (1, 2, 7, (1, 9), 4000)


def plainly(reference, prediction, label, ignore=None):
    counted = np.ones(reference.shape, bool) if ignore is None else reference != ignore
    real, found = np.isin(reference, label) & counted, np.isin(prediction, label) & counted
    tp, fp, fn = int((real & found).sum()), int((found & ~real).sum()), int((real & ~found).sum())
    return {"TP": tp, "FP": fp, "FN": fn, "TN": int(counted.sum()) - tp - fp - fn, "n_pred": tp + fp, "n_ref": tp + fn}


@given(PAIRS, st.sampled_from([None, 2, 7]))
def test_counts_are_those_of_the_voxels(pair, ignore):
    for label, found in measure_labels(*pair, LABELS, ignore).items():
        assert plainly(*pair, label, ignore).items() <= found.items()
        union = found["TP"] + found["FP"] + found["FN"]
        if union:
            assert found["IoU"] == pytest.approx(found["TP"] / union)
            assert found["Dice"] == pytest.approx(2 * found["IoU"] / (1 + found["IoU"]))
        else:
            assert math.isnan(found["Dice"])
            assert math.isnan(found["IoU"])


@given(PAIRS)
def test_chunks_and_renumbering_change_nothing(pair):
    whole = Joint.count(*pair).metrics(LABELS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metrics, "_CHUNK", 3)
        patch.setattr(metrics, "_TABLE", 1)
        assert repr(Joint.count(*pair).metrics(LABELS)) == repr(whole)


@given(PAIRS)
def test_a_prediction_without_a_part_is_counted_without_looking_again(pair):
    reference, prediction = pair
    joint, gone = Joint.count(reference, prediction), prediction == 2
    expected = measure_labels(reference, np.where(gone, 0, prediction), LABELS)
    for removed in (joint.recount(reference[gone], prediction[gone]), joint.of(2)):
        assert repr(joint.without(removed).metrics(LABELS)) == repr(expected)


@given(PAIRS)
def test_what_is_present_is_in_one_of_both(pair):
    assert Joint.count(*pair).present == tuple(sorted(set(np.unique(pair)) - {0}))


def test_negative_values_are_values():
    found = measure_labels(np.array([-1, 1, 1]), np.array([1, 1, -1]), [1, -1])
    assert [found[label]["TP"] for label in (1, -1)] == [1, 0]


def test_maps_of_no_voxel_have_no_score():
    found = measure_labels(np.zeros((0, 3), int), np.zeros((0, 3), int), [1])
    assert math.isnan(found[1]["Dice"])
    assert found[1]["TN"] == 0


def test_maps_of_other_shapes_are_refused():
    with pytest.raises(ValueError, match=r"shape \(2, 3\), the prediction \(3, 2\)"):
        measure_labels(np.zeros((2, 3), int), np.zeros((3, 2), int), [1])


def test_means_leave_out_what_is_nowhere_and_keep_a_label_that_is_in_no_case():
    one, none = np.array([0, 1]), np.array([0, 0])
    cases = [measure_labels(one, one, [1, 2]), measure_labels(none, none, [1, 2]), measure_labels(one, none, [1, 2])]
    over, mean = summarize(cases, [1, 2])
    assert mean["1"]["Dice"] == 0.5
    assert mean["1"]["n_ref"] == pytest.approx(2 / 3)
    assert math.isnan(mean["2"]["Dice"])
    assert math.isnan(over["Dice"])
    assert over["TP"] == pytest.approx(1 / 6)
