"""What became of every object."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from napari_nnunet.engine.objects.verdict import FATES, verdicts

MAPS = arrays(np.uint16, (9, 11), elements=st.integers(0, 4))


def test_every_object_has_the_fate_that_was_drawn() -> None:
    reference, prediction = np.zeros((20, 60), np.uint16), np.zeros((20, 60), np.uint16)
    reference[2:10, 2:10] = prediction[2:10, 2:10] = 1  # found
    reference[2:10, 12:20] = 2  # missed
    prediction[2:10, 22:30] = 9  # invented
    reference[2:10, 32:40] = 4
    prediction[2:6, 32:40], prediction[6:10, 32:40] = 5, 6  # split
    reference[12:20, 2:10], reference[12:20, 10:18] = 7, 8
    prediction[12:20, 2:18] = 7  # merged
    matching, painted, found = verdicts(reference, prediction)
    said = [(v.fate, v.references, v.predictions) for v in found]
    assert said == [
        ("split", (4,), (5, 6)),
        ("merged", (7, 8), (7,)),
        ("missed", (2,), ()),
        ("invented", (), (9,)),
        ("found", (1,), (1,)),
    ]
    assert found[-1].iou == 1.0
    assert found[2].place == (5.5, 15.5)
    for (y, x), fate in {(5, 5): "found", (5, 15): "missed", (5, 25): "invented", (5, 35): "split"}.items():
        assert painted[y, x] == FATES[fate]
    assert painted[15, 9] == painted[15, 12] == FATES["merged"]
    assert not painted[0].any()
    assert len(matching.references) == 5


@given(MAPS, MAPS)
@settings(max_examples=60, deadline=None)
def test_every_object_is_in_the_list_and_every_voxel_of_one_has_a_colour(r: np.ndarray, p: np.ndarray) -> None:
    _, painted, found = verdicts(r, p)
    assert {n for v in found for n in v.references} == set(np.unique(r)) - {0}
    assert {n for v in found for n in v.predictions} == set(np.unique(p)) - {0}
    np.testing.assert_array_equal(painted != 0, (r != 0) | (p != 0))
