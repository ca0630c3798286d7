"""Which block comes next: the nearest to what is seen, wherever somebody looks meanwhile."""

import itertools
import time

from napari_nnunet.jobs.large.view import View, in_view

BOXES = [(0, ((z, z + 10), (0, 10), (0, 10))) for z in range(0, 100, 10)]


def test_blocks_come_as_they_are_given_where_nobody_looks():
    assert list(in_view(BOXES, None)) == list(range(10))
    assert list(in_view(BOXES, View())) == list(range(10))
    assert list(in_view([], View())) == []


def test_what_is_seen_comes_first_then_what_lies_nearest():
    view = View(((45.0, 46.0), (0.0, 10.0), (0.0, 10.0)))
    assert list(in_view(BOXES, view)) == [4, 5, 3, 6, 2, 7, 1, 8, 0, 9]


def test_whoever_moves_on_sees_what_is_there_next_and_every_block_comes_once():
    view, found = View(((0.0, 1.0), (0.0, 10.0), (0.0, 10.0))), []
    for number in in_view(BOXES, view):
        found.append(number)
        if number == 1:
            view.box = ((95.0, 96.0), (0.0, 10.0), (0.0, 10.0))
        if number == 8:
            view.box = None
    assert found == [0, 1, 9, 8, 2, 3, 4, 5, 6, 7]


def test_the_time_point_that_is_seen_comes_before_all_others():
    places = [(point, box) for point in range(3) for _, box in BOXES]
    order = list(in_view(places, View(((0.0, 1.0), (0.0, 10.0), (0.0, 10.0)), time=1)))
    assert order[:10] == list(range(10, 20)) and sorted(order) == list(range(30))


def test_the_order_of_a_hundred_thousand_blocks_costs_less_than_a_block():
    edges = itertools.product(range(50), range(50), range(40))
    places = [(0, tuple((64 * i, 64 * i + 64) for i in corner)) for corner in edges]
    view, began = View(((1600.0, 1664.0), (0.0, 900.0), (0.0, 900.0))), time.perf_counter()
    assert len(set(in_view(places, view))) == 100_000
    assert time.perf_counter() - began < 5  # a minute and more where each step looks at all that are left
