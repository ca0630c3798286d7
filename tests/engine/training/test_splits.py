"""Folds keep groups together, whatever their sizes; without groups they are nnU-Net's."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_nnunet.engine.training.splits import group_splits
from napari_nnunet.errors import DatasetError

sizes = st.lists(st.integers(1, 6), min_size=2, max_size=12)


def _groups(counts):
    return {f"p{g}_{i}": f"p{g}" for g, count in enumerate(counts) for i in range(count)}


@given(sizes, st.data())
def test_no_group_trains_and_validates_at_once_and_every_case_validates_once(counts, data):
    groups = _groups(counts)
    splits = group_splits(groups, data.draw(st.integers(2, len(counts))))
    for split in splits:
        assert split.train and split.val
        assert not {groups[name] for name in split.train} & {groups[name] for name in split.val}
        assert sorted(split.train + split.val) == sorted(groups)
    assert sorted(name for split in splits for name in split.val) == sorted(groups)


@given(sizes, st.data())
def test_folds_differ_by_the_largest_group_at_most(counts, data):
    splits = group_splits(_groups(counts), data.draw(st.integers(2, len(counts))))
    held = [len(split.val) for split in splits]
    assert max(held) - min(held) <= max(counts)


def test_as_many_folds_as_groups_leave_one_out_each_in_the_order_of_their_names():
    splits = group_splits(_groups([1, 3, 2]), 3)
    assert [split.val for split in splits] == [("p0_0",), ("p1_0", "p1_1", "p1_2"), ("p2_0", "p2_1")]


def test_more_folds_than_groups_are_refused():
    with pytest.raises(DatasetError, match="6 cases in 2 groups cannot be split into 3 folds"):
        group_splits(_groups([3, 3]), 3)
