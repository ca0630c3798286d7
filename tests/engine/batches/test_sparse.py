"""Cases of which more is annotated are drawn more often."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from napari_nnunet.engine.batches.batch import draw_batch
from napari_nnunet.engine.batches.sparse import annotated_share, drawn_as_often
from napari_nnunet.schema.dataset import LabelScheme
from samples import Case, rule

SPARSE = LabelScheme(labels={"background": 0, "a": 1, "b": 2, "ignore": 3})


def case(*slices):
    """A case of which these slices are annotated; all without any."""
    made = Case(0, SPARSE)
    made.labels = Case(0).labels
    if slices:
        others = [z for z in range(made.labels.shape[1]) if z not in slices]
        made.labels[:, others] = SPARSE.ignore_label
    return made


@pytest.mark.parametrize("patch", [(8, 16, 16), (16, 24)])
def test_of_a_whole_case_every_patch_is_annotated(patch):
    assert annotated_share(case(), rule(patch, SPARSE)) == 1.0


def test_of_a_slice_a_patch_tells_one_in_as_many_as_it_is_high():
    assert annotated_share(case(15), rule((8, 16, 16), SPARSE)) == pytest.approx(1 / 8)
    assert annotated_share(case(15, 16), rule((8, 16, 16), SPARSE)) == pytest.approx(2 / 8)


def test_in_two_dimensions_a_slice_is_all_there_is_to_tell():
    assert annotated_share(case(15), rule((16, 24), SPARSE)) == 1.0


def test_a_patch_larger_than_the_case_counts_what_lies_within():
    assert annotated_share(case(), rule((40, 48, 64), SPARSE)) == 1.0
    assert annotated_share(case(15), rule((40, 48, 64), SPARSE)) == pytest.approx(1 / 30, rel=0.35)


def test_the_same_is_said_every_time():
    strokes = case(15)
    strokes.labels[0, 15, ::3] = SPARSE.ignore_label
    assert len({annotated_share(strokes, rule((8, 16, 16), SPARSE)) for _ in range(3)}) == 1


def test_cases_are_drawn_by_the_square_root_of_what_is_annotated():
    times = Counter(drawn_as_often("abcd", (1.0, 0.25, 1 / 16, 0.0)))
    assert times == {"a": 64, "b": 32, "c": 16, "d": 1}


@pytest.mark.parametrize("shares", [(1.0, 1.0, 1.0), (0.04, 0.05, 0.045), (0.0, 0.0, 0.0), ()])
def test_where_all_are_annotated_alike_they_are_drawn_as_ever(shares):
    names = tuple("abc"[: len(shares)])
    assert drawn_as_often(names, shares) == names


def test_batches_follow():
    cases = {"whole": case(), "one": case(15), "two": case(10, 20)}
    how = rule((8, 16, 16), SPARSE, augmented=False)
    names = drawn_as_often(tuple(cases), [annotated_share(own, how) for own in cases.values()])
    drawn = [draw_batch(names, cases.__getitem__, how, seed=0, epoch=0, index=i).cases for i in range(200)]
    counts = Counter(name for some in drawn for name in some)
    wanted = np.sqrt([1.0, 1 / 8, 1 / 8])
    told = np.array([counts[name] for name in cases]) / counts.total()
    assert np.abs(told - wanted / wanted.sum()).max() < 0.05
