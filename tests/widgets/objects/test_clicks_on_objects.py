"""Objects are corrected with clicks, in a real window."""

from __future__ import annotations

import numpy as np
import pytest
from qtpy.QtCore import QPoint, Qt

from napari_nnunet.widgets.objects.repair import RepairTools


@pytest.fixture
def tools(viewer, qtbot):
    """The tools in the window."""
    tools = RepairTools(viewer)
    viewer.window.add_dock_widget(tools, name="Correct objects")
    return tools


def blobs(viewer, **kwargs):
    """Two objects, the first of which is two discs with a neck."""
    y, x = np.mgrid[:60, :100]
    objects = np.zeros((60, 100), np.uint8)
    objects[((y - 20) ** 2 + (x - 20) ** 2 < 144) | ((y - 20) ** 2 + (x - 42) ** 2 < 144)] = 2
    objects[40:52, 70:90] = 5
    layer = viewer.add_labels(objects, name="found", scale=(0.5, 0.5), **kwargs)
    viewer.reset_view()
    return layer


def click(viewer, qtbot, place):
    """Click where a voxel is on the screen."""
    canvas = viewer.window._qt_viewer.canvas
    world = np.asarray(viewer.layers[0].data_to_world(place))
    away = (world - np.asarray(viewer.scene.camera.center[-2:])) * viewer.scene.camera.zoom
    size = canvas.native.size()
    spot = QPoint(round(size.width() / 2 + away[1]), round(size.height() / 2 + away[0]))
    qtbot.mouseMove(canvas.native, spot)
    qtbot.mouseClick(canvas.native, Qt.MouseButton.LeftButton, pos=spot)


def press(tools, qtbot, name):
    """Press the button of a tool."""
    qtbot.mouseClick(tools.tools[name], Qt.MouseButton.LeftButton)


def test_an_object_is_split_and_merged_and_deleted_and_all_of_it_is_undone(viewer, tools, qtbot):
    layer = blobs(viewer, features={"index": [0, 2, 5], "kind": ["", "cell", "debris"]})
    before = layer.data.copy()
    parts = []
    tools.divided = lambda new, now: parts.append((new, now))
    press(tools, qtbot, "cut")
    click(viewer, qtbot, (20, 20))
    assert tools.note.text() == "Click in the other part of object 2."
    click(viewer, qtbot, (20, 44))
    assert (layer.data[20, 15], layer.data[20, 45]) == (2, 6)
    assert dict(zip(layer.features["index"], layer.features["kind"], strict=True))[6] == "cell"
    press(tools, qtbot, "join")
    assert not tools.tools["cut"].isChecked()
    click(viewer, qtbot, (20, 44))
    click(viewer, qtbot, (20, 20))
    assert set(np.unique(layer.data)) == {0, 5, 6}
    press(tools, qtbot, "out")
    click(viewer, qtbot, (46, 80))
    assert set(np.unique(layer.data)) == {0, 6}
    assert parts == [({6: 2}, {})]
    for _ in range(3):
        layer.undo()
    np.testing.assert_array_equal(layer.data, before)


def test_clicks_beside_objects_say_so_and_without_a_tool_they_do_nothing(viewer, tools, qtbot):
    layer = blobs(viewer)
    before = layer.data.copy()
    press(tools, qtbot, "out")
    click(viewer, qtbot, (5, 90))
    assert tools.note.text().startswith("There is no object.")
    press(tools, qtbot, "out")
    click(viewer, qtbot, (46, 80))
    np.testing.assert_array_equal(layer.data, before)
    press(tools, qtbot, "cut")
    click(viewer, qtbot, (20, 20))
    click(viewer, qtbot, (46, 80))
    assert tools.note.text().startswith("Click twice within one object")
    np.testing.assert_array_equal(layer.data, before)


def test_numbers_are_closed_up(viewer, tools, qtbot):
    layer = blobs(viewer, features={"index": [0, 2, 5], "kind": ["", "cell", "debris"]})
    qtbot.mouseClick(tools.renumber, Qt.MouseButton.LeftButton)
    assert set(np.unique(layer.data)) == {0, 1, 2}
    assert list(layer.features["kind"]) == ["", "cell", "debris"]
    assert tools.note.text() == "2 objects have the numbers 1 to 2 now. Ctrl+Z does not take that back."


def test_an_object_of_a_series_is_split_in_its_own_time_point(viewer, tools, qtbot):
    flat = np.zeros((12, 30), np.uint8)
    flat[2:10, 2:28] = 3
    layer = viewer.add_labels(np.stack([flat, flat]), name="series", axis_labels=("t", "y", "x"))
    tools.use("cut")
    tools.click(layer, (1.0, 5.0, 4.0))
    tools.click(layer, (1.0, 5.0, 25.0))
    assert set(np.unique(layer.data[0])) == {0, 3}
    assert set(np.unique(layer.data[1])) == {0, 3, 4}
    tools.click(layer, (0.0, 5.0, 4.0))
    tools.click(layer, (1.0, 5.0, 4.0))
    assert "same time point" in tools.note.text()
