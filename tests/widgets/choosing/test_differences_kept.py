"""What the Compare dock showed is replaced by the same again, unless somebody painted in it, moved or renamed it."""

from __future__ import annotations

import numpy as np
import pytest
from docks import open_dock, press, wait_until_idle

SPOT = (np.array([0]), np.array([0]))


@pytest.fixture
def two(viewer, qtbot):
    """The Compare dock with two layers that differ in one place."""
    one = np.zeros((8, 8), np.uint8)
    one[2:5, 2:5] = 1
    two = one.copy()
    two[4, 2:5] = 0
    layers = [viewer.add_labels(data, name=name) for data, name in ((one, "A"), (two, "B"))]
    dock = open_dock(viewer, "Compare")
    dock.form.first_box.value, dock.form.second_box.value = layers
    yield dock, *layers
    wait_until_idle(qtbot, dock)


def compare(dock, qtbot, *, objects):
    dock.form.objects_box.value = objects
    qtbot.waitUntil(lambda: "Will compare" in dock.summary.text() and not dock._later.isActive())
    press(qtbot, dock)


def found(viewer):
    return [layer for layer in viewer.layers if layer.name not in "AB"]


@pytest.mark.parametrize("objects", [False, True])
def test_differences_that_somebody_painted_in_moved_or_renamed_stay(viewer, two, qtbot, objects):
    dock, first, _ = two
    for _ in range(2):
        compare(dock, qtbot, objects=objects)
    (own,) = found(viewer)
    assert own.name == "A ≠ B"
    own.data_setitem(SPOT, 3)
    painted = own.data.copy()
    compare(dock, qtbot, objects=objects)
    kept, second = found(viewer)
    assert kept is own and second.name == "A ≠ B [1]"
    np.testing.assert_array_equal(own.data, painted)
    second.name = "mine"
    compare(dock, qtbot, objects=objects)
    _, kept, third = found(viewer)
    assert kept is second
    third.translate = (0, 5)
    compare(dock, qtbot, objects=objects)
    *_, kept, fourth = found(viewer)
    assert kept is third
    first.name = "A2"
    compare(dock, qtbot, objects=objects)
    layers = viewer.layers
    assert fourth not in layers and own in layers and second in layers and third in layers
    assert layers[-1].name == "A2 ≠ B"


def test_differences_that_are_gone_are_not_shown_any_more(viewer, two, qtbot):
    dock, first, second = two
    compare(dock, qtbot, objects=False)
    assert len(found(viewer)) == 1
    second.data = first.data.copy()
    compare(dock, qtbot, objects=False)
    assert dock.title.text() == "Both are identical." and found(viewer) == []
