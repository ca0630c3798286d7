"""Objects of a time series are followed, in a real window."""

from __future__ import annotations

import numpy as np
import pytest
from napari.layers import Tracks
from qtpy.QtCore import Qt

from napari_nnunet.widgets.objects.tracks import FollowTools, Series

pytest.importorskip("laptrack", reason="laptrack is not installed: it comes with napari-nnunet[tracking]")


def test_objects_get_their_numbers_a_tracks_layer_and_curves(viewer, qtbot):
    tools = FollowTools(viewer)
    viewer.window.add_dock_widget(tools, name="Over time")
    data = np.zeros((4, 40, 60), np.uint16)
    for time in range(4):
        data[time, 4 + time : 12 + time, 4:12] = 1 + time % 2
        if time < 3:
            data[time, 24:34, 30:40] = 2 - time % 2
        else:
            data[time, 20:26, 30:40], data[time, 30:36, 30:40] = 5, 6
    layer = viewer.add_labels(data, name="cells", scale=(1, 0.5, 0.5))
    kinds = tuple(dict.fromkeys(np.unique(frame)[1:].tolist(), "cell") for frame in data)
    images = tuple(np.zeros((1, 40, 60), np.float32) for _ in range(4))
    tools.show_series(Series(layer, "TYX", (0, 1, 2, 3), images, kinds, (0.5, 0.5), ("DAPI",)))
    qtbot.mouseClick(tools.follow, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: tools.copy.isEnabled())
    found = layer.data
    assert found[0, 6, 6] == found[1, 7, 6] == found[3, 9, 6]
    assert found[0, 28, 35] == found[2, 28, 35]
    tracks = viewer.layers["cells: tracks"]
    assert isinstance(tracks, Tracks)
    assert set(tracks.graph) == {int(found[3, 22, 35]), int(found[3, 32, 35])}
    assert set(map(tuple, tracks.graph.values())) == {(int(found[2, 28, 35]),)}
    first = tracks.data[(tracks.data[:, 0] == found[0, 6, 6]) & (tracks.data[:, 1] == 0)][0]
    assert first.tolist()[1:] == pytest.approx([0, 7.5, 7.5])
    assert "4 objects over 4 time points, 1 division;" in tools.note.text()
    assert tools._rows[0]["kind"] == "cell" and tools._rows[0]["area"] == pytest.approx(16.0)
    assert tools.plot.isVisible()
    tools.show_series(None)
    assert not tools.isVisible()


def test_kinds_that_change_are_still_known_when_objects_are_followed_once_more(viewer, qtbot):
    """The table has one kind of each object, the last; it was taken for that of every time."""
    tools = FollowTools(viewer)
    viewer.window.add_dock_widget(tools, name="Over time")
    data = np.zeros((3, 40, 60), np.uint16)
    data[:, 10:20, 10:20] = 1
    layer = viewer.add_labels(data, name="cells", scale=(1, 0.5, 0.5))
    kinds = ({1: "nucleus"}, {1: "nucleus"}, {1: "debris"})
    images = tuple(np.zeros((1, 40, 60), np.float32) for _ in range(3))
    tools.show_series(Series(layer, "TYX", (0, 1, 2), images, kinds, (0.5, 0.5), ("DAPI",)))
    tools.rows.widgets["change_kind"].value = True
    qtbot.mouseClick(tools.follow, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: tools.copy.isEnabled())
    assert len(np.unique(layer.data)) == 2  # one object at all times
    assert [row["kind"] for row in tools._rows] == ["nucleus", "nucleus", "debris"]
    tools.rows.widgets["change_kind"].value = False
    qtbot.mouseClick(tools.follow, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: tools.follow.isEnabled())
    assert [row["kind"] for row in tools._rows] == ["nucleus", "nucleus", "debris"]
    assert layer.data[0, 15, 15] == layer.data[1, 15, 15] != layer.data[2, 15, 15]
