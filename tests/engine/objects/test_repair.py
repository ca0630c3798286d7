"""Corrections of numbered objects."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from napari_nnunet.engine.objects.repair import Correction, delete_object, join_objects, number_anew, split_object


def after(objects: np.ndarray, change: Correction) -> np.ndarray:
    """The objects with a change made."""
    changed = objects.copy()
    changed[change.places] = change.numbers
    return changed


@pytest.mark.parametrize("shape", [(), (5,)])
def test_two_discs_that_were_one_are_cut_at_their_neck(shape: tuple[int, ...]) -> None:
    y, x = np.mgrid[:30, :60]
    flat = ((y - 15) ** 2 + (x - 18) ** 2 < 144) | ((y - 15) ** 2 + (x - 40) ** 2 < 144)
    objects = np.broadcast_to(flat * 7, (*shape, 30, 60)).astype(np.uint16)
    middle = (2,) * len(shape)
    change = split_object(objects, (*middle, 15, 18), (*middle, 15, 42), (3.0,) * len(shape) + (1.0, 1.0), 8)
    result = after(objects, change)
    assert change.new == {8: 7}
    np.testing.assert_array_equal(result != 0, objects != 0)
    assert set(np.unique(result[..., :28])) == {0, 7}
    assert set(np.unique(result[..., 31:])) == {0, 8}


def test_what_is_no_cut_is_refused() -> None:
    objects = np.array([[1, 1, 0, 2]])
    for first, second in (((0, 0), (0, 0)), ((0, 0), (0, 3)), ((0, 2), (0, 0))):
        with pytest.raises(ValueError, match="not two voxels of one object"):
            split_object(objects, first, second, (1, 1), 9)


def test_objects_are_joined_and_taken_out() -> None:
    objects = np.array([[1, 1, 0, 2, 3]])
    assert after(objects, join_objects(objects, 3, 1)).tolist() == [[3, 3, 0, 2, 3]]
    assert after(objects, delete_object(objects, 2)).tolist() == [[1, 1, 0, 0, 3]]


@given(arrays(np.int32, (4, 5), elements=st.integers(0, 40)))
@settings(max_examples=40, deadline=None)
def test_new_numbers_have_no_gaps_and_keep_objects_and_their_order(objects: np.ndarray) -> None:
    result = after(objects, number_anew(objects))
    numbers = np.unique(objects[objects != 0])
    assert np.unique(result[result != 0]).tolist() == list(range(1, len(numbers) + 1))
    for new, old in enumerate(numbers, start=1):
        np.testing.assert_array_equal(result == new, objects == old)
