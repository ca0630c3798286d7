"""Objects become cores and borders, and none is lost on the way."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from napari_nnunet.engine.objects.shell import best_width, classes, pieces, thin, tried_widths

MAPS = arrays(np.int32, st.tuples(st.integers(3, 9), st.integers(3, 9)), elements=st.integers(0, 4))


def discs(shape: tuple[int, int], radius: float, gap: float) -> np.ndarray:
    """Numbered discs in rows; with a gap of 0 they touch."""
    step = 2 * radius + 1 + gap
    result = np.zeros(shape, dtype=np.int32)
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    number = 0
    for y in np.arange(radius, shape[0] - radius, step):
        for x in np.arange(radius, shape[1] - radius, step):
            number += 1
            result[(rows - y) ** 2 + (columns - x) ** 2 <= radius**2] = number
    return result


@given(MAPS, st.sampled_from([1.0, 1.5, 2.0]))
@settings(max_examples=80, deadline=None)
def test_every_object_keeps_a_core_within_itself(objects: np.ndarray, width: float) -> None:
    core = thin(objects, width, (1, 1)).core
    assert not core[objects == 0].any()
    assert set(np.unique(objects[core])) == set(np.unique(objects)) - {0}


@given(MAPS)
@settings(max_examples=50, deadline=None)
def test_cores_of_two_objects_touch_only_where_one_had_none_left(objects: np.ndarray) -> None:
    core, coreless = (thinned := thin(objects, 1.0, (1, 1))).core, thinned.coreless
    left = np.where(core & ~np.isin(objects, coreless), objects, 0)
    for one, other in ((left[1:], left[:-1]), (left[:, 1:], left[:, :-1])):
        assert not ((one != other) & (one != 0) & (other != 0)).any()


def test_the_rim_is_as_wide_as_asked_in_physical_units() -> None:
    objects = np.zeros((11, 21), dtype=np.int32)
    objects[2:9, 3:18] = 1
    core = thin(objects, 2.0, (2.0, 1.0)).core
    expected = np.zeros_like(core)
    expected[3:8, 5:16] = True
    np.testing.assert_array_equal(core, expected)


def test_what_the_image_cuts_has_no_rim_at_the_cut() -> None:
    objects = np.zeros((6, 6), dtype=np.int32)
    objects[:4] = 1
    np.testing.assert_array_equal(np.flatnonzero(thin(objects, 1.0, (1, 1)).core.all(axis=1)), [0, 1, 2])


def test_objects_that_touch_along_thick_slices_are_kept_apart() -> None:
    objects = np.ones((4, 9, 9), dtype=np.int32)
    objects[2:] = 2
    core = thin(objects, 1.0, (5.0, 1.0, 1.0)).core
    assert core[0].any() and core[3].any()
    assert not core[1:3].any()


def test_kinds_have_their_own_values_and_other_classes_stay() -> None:
    objects = np.zeros((5, 12), dtype=np.int32)
    objects[:, 1:6], objects[:, 7:12] = 40, 70_001
    others = np.full_like(objects, 9)
    result = classes(objects, thin(objects, 1, (1, 1)).core, {"a": (1, 2), "b": (3, 4)}, {40: "a", 70_001: "b"}, others)
    assert result[2].tolist() == [9, 2, 1, 1, 1, 2, 9, 4, 3, 3, 3, 3]


def test_borders_are_as_wide_as_the_objects_bear() -> None:
    round_ones, scores = best_width([tried_widths(discs((120, 120), 12, 0), (1, 1), 1.0)])
    assert round_ones == 3.0
    assert scores[3.0] > 0.95
    necks = discs((120, 120), 7, 2)  # joined in pairs by a neck, which a wide border would cut
    necks[(necks > 0) & (necks % 2 == 0)] -= 1
    for row in range(7, 113, 17):
        necks[row - 2 : row + 3, 7:24] = necks[row, 7]
    narrow, scores = best_width([tried_widths(necks, (1, 1), 1.0)])
    assert narrow < 3.0
    assert scores[3.0] < scores[narrow] - 0.01


def test_widths_are_multiples_of_the_networks_voxel() -> None:
    objects = discs((120, 120), 12, 0)
    fine, coarse = (best_width([tried_widths(objects, (unit, unit), unit)]) for unit in (0.5, 1.0))
    assert fine[1] == pytest.approx(coarse[1])


def test_objects_in_pieces_and_of_one_voxel_are_counted() -> None:
    objects = np.zeros((6, 9), dtype=np.int32)
    objects[0, 0], objects[5, 5] = 7, 7  # two pieces
    objects[2, 2] = 300  # one voxel
    objects[4, 0:2] = 9
    assert pieces(objects) == (3, 1, 1)
