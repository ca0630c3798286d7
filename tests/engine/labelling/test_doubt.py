"""Labels that a sure network contradicts are doubted, those of a hard case are not."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from napari_nnunet.engine.choosing.metrics import Joint
from napari_nnunet.engine.labelling.doubt import doubt_of, parts_of
from napari_nnunet.schema.dataset import LabelScheme

PLAIN = LabelScheme(labels={"background": 0, "head": 1, "tail": 2})
IGNORING = LabelScheme(labels={"background": 0, "head": 1, "tail": 2, "ignore": 3})
NESTED = LabelScheme(labels={"background": 0, "whole": (1, 2), "core": 2}, regions_class_order=(1, 2))


def anatomy():
    labels = np.zeros((10, 20, 18), dtype=np.uint8)
    labels[2:8, 3:10, 4:14] = 1
    labels[2:8, 10:17, 4:14] = 2
    return labels


def softmax(labels, sure, classes=3):
    p = np.full((classes, *labels.shape), (1 - sure) / (classes - 1), dtype=np.float32)
    np.put_along_axis(p, labels[None].astype(np.intp), np.float32(sure), axis=0)
    return p


def test_a_network_that_agrees_doubts_nothing():
    labels = anatomy()
    found = doubt_of(labels, labels, softmax(labels, 0.99), PLAIN)
    assert found.parts == ()
    assert [c.dice for c in found.classes.values()] == [1.0, 1.0]
    assert all(-0.1 < c.gap < 0.01 for c in found.classes.values())


def test_a_deleted_class_is_doubted_by_as_much_as_the_network_expects():
    seen, labels = anatomy(), anatomy()
    labels[labels == 2] = 0
    found = doubt_of(labels, seen, softmax(seen, 0.99), PLAIN)
    gone = found.classes[2]
    assert (gone.labelled, gone.seen, gone.dice) == (0, 420, 0)
    assert gone.gap == gone.expected > 0.9
    (part,) = found.parts
    assert (part.label, part.seen, part.voxels) == (0, 2, 420)
    assert part.certainty == pytest.approx(0.995, abs=1e-3)
    assert seen[part.place] == 2


def test_a_network_that_is_unsure_expects_little_and_names_no_place():
    seen, labels = anatomy(), anatomy()
    labels[labels == 2] = 0
    found = doubt_of(labels, seen, softmax(seen, 0.5), PLAIN)
    assert found.parts == ()
    assert found.classes[2].gap < 0.5


def test_what_is_drawn_and_surely_not_seen_is_doubted():
    seen, labels = anatomy(), anatomy()
    seen[seen == 2] = 0
    unseen = doubt_of(labels, seen, softmax(seen, 0.99), PLAIN).classes[2]
    assert unseen.seen == 0
    assert unseen.gap == pytest.approx(0.995, abs=1e-3)


def test_without_probabilities_every_difference_counts_and_nothing_is_expected():
    seen, labels = anatomy(), anatomy()
    labels[2:8, 10:17, 4:6] = 0
    found = doubt_of(labels, seen, None, PLAIN)
    assert math.isnan(found.classes[2].expected)
    assert [part.voxels for part in found.parts] == [84]


def test_what_is_not_annotated_does_not_count():
    seen, labels = anatomy(), anatomy()
    labels[labels == 2] = 3
    found = doubt_of(labels, seen, softmax(seen, 0.99), IGNORING)
    assert found.parts == ()
    assert math.isnan(found.classes[2].dice)
    assert found.classes[1].dice == 1


def test_regions_are_doubted_by_their_own_probabilities():
    seen, labels = anatomy(), anatomy()
    labels[labels == 2] = 1
    whole, core = (seen > 0).astype(np.float32) * 0.98 + 0.01, (seen == 2).astype(np.float32) * 0.98 + 0.01
    found = doubt_of(labels, seen, [whole, core], NESTED)
    assert found.classes[(1, 2)].dice == 1
    assert found.classes[2].gap > 0.9
    assert [(part.label, part.seen) for part in found.parts] == [(1, 2)]


def test_the_middle_of_a_part_lies_in_it():
    ring = np.zeros((1, 21, 21), dtype=np.uint8)
    ring[0, 2:19, 2:19] = 1
    ring[0, 5:16, 5:16] = 0
    (part,) = parts_of(np.zeros_like(ring), ring, np.ones(ring.shape, np.float32), np.ones(ring.shape, bool))
    assert ring[part.place] == 1


maps = hnp.arrays(np.uint8, st.tuples(*[st.integers(1, 6)] * 3), elements=st.integers(0, 2))


@settings(max_examples=50, deadline=None)
@given(maps, st.randoms(use_true_random=False))
def test_dice_is_that_of_the_evaluation_and_the_parts_are_disjoint(seen, random):
    rng = np.random.default_rng(random.randrange(2**32))
    labels = rng.integers(0, 3, seen.shape).astype(np.uint8)
    found = doubt_of(labels, seen, softmax(seen, 0.99), PLAIN)
    for target, metrics in Joint.count(labels, seen).metrics((1, 2)).items():
        assert found.classes[target].dice == pytest.approx(metrics["Dice"], nan_ok=True)
    assert sum(part.voxels for part in found.parts) <= np.count_nonzero(labels != seen)
    assert all(seen[part.place] == part.seen and labels[part.place] == part.label for part in found.parts)
