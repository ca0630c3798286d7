"""Objects keep their number through time."""

from __future__ import annotations

import numpy as np
import pytest

from napari_nnunet.engine.objects.track import track, usual_distance

pytest.importorskip("laptrack", reason="laptrack is not installed: it comes with napari-nnunet[tracking]")


def places(*frames: list[tuple[float, float]]) -> list[np.ndarray]:
    """Centres of time points."""
    return [np.array(frame, dtype=float).reshape(-1, 2) for frame in frames]


def test_objects_that_move_keep_their_numbers_whatever_order_they_are_found_in() -> None:
    found = track(places([(0, 0), (10, 10)], [(10, 11), (0, 1)], [(0, 2), (10, 12)]), 3, 0, halves=None)
    assert [n.tolist() for n in found.numbers] == [[1, 2], [2, 1], [1, 2]]
    assert found.parents == {}


def test_an_object_that_is_missing_for_a_while_is_the_same_afterwards() -> None:
    frames = places([(0, 0), (20, 20)], [(20, 20)], [(0, 1), (20, 20)])
    assert track(frames, 3, 1, halves=None).numbers[2].tolist() == [1, 2]
    assert track(frames, 3, 0, halves=None).numbers[2].tolist() == [3, 2]


def test_an_object_that_divides_has_two_children() -> None:
    frames = places([(0, 0), (30, 30)], [(0, 1), (30, 30)], [(0, -1), (0, 3), (30, 30)], [(0, -2), (0, 4), (30, 31)])
    found = track(frames, 4, 0, halves=4.0)
    assert [n.tolist() for n in found.numbers] == [[1, 2], [1, 2], [3, 4, 2], [3, 4, 2]]
    assert found.parents == {3: 1, 4: 1}
    assert track(frames, 4, 0, halves=None).parents == {}


def test_times_without_objects_and_one_time_alone_have_no_links() -> None:
    assert [n.tolist() for n in track(places([(0, 0)], [], []), 3, 2, halves=3.0).numbers] == [[1], [], []]
    assert [n.tolist() for n in track(places([(0, 0), (1, 1)]), 3, 2, halves=3.0).numbers] == [[1, 2]]


def test_the_distance_follows_the_data_and_the_size_of_the_objects() -> None:
    frames, sizes = places([(0, 0), (50, 50)], [(0, 4), (50, 54)]), [np.array([8.0, 8.0])] * 2
    assert usual_distance(frames, sizes) == pytest.approx(6.0)
    assert usual_distance(places([(0, 0)], [(0, 90)]), sizes) == pytest.approx(16.0)
    assert usual_distance(places([(0, 0)], [(0, 0)]), sizes) == pytest.approx(4.0)
    assert usual_distance(places([(0, 0)]), sizes) > 0


def test_another_object_that_comes_where_one_goes_is_not_taken_for_it() -> None:
    """Beyond the distance only halves may be, and a half is never alone."""
    frames = places([(0, 0), (50, 0)], [(0, 0), (50, 2)], [(0, 12), (50, 4)], [(0, 12), (50, 6)])
    found = track(frames, 8, 0, halves=14.0)
    assert [n.tolist() for n in found.numbers] == [[1, 2], [1, 2], [3, 2], [3, 2]]
    assert found.parents == {}


@pytest.mark.parametrize("away", [3, 6, 8, 11, 13])
def test_halves_are_found_up_to_their_own_distance(away: int) -> None:
    frames = places(
        [(0, 0), (90, 90)], [(0, 0), (90, 90)], [(0, -away), (0, away), (90, 90)], [(0, -away), (0, away), (90, 90)]
    )
    found = track(frames, 7, 0, halves=14.0)
    assert found.parents == {3: 1, 4: 1}
    assert [n.tolist() for n in found.numbers] == [[1, 2], [1, 2], [3, 4, 2], [3, 4, 2]]


def test_two_new_objects_on_one_side_of_one_that_goes_are_no_halves() -> None:
    frames = places([(0, 0), (90, 90)], [(0, 0), (90, 90)], [(0, 11), (3, 13), (90, 90)])
    assert track(frames, 7, 0, halves=14.0).parents == {}
