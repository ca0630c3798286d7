"""A napari viewer with the plugin, and waiting without sleeping."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.gui


def pytest_collection_modifyitems(items):
    for item in items:
        if "widgets" in str(item.path):
            item.add_marker(pytest.mark.gui)


@pytest.fixture
def viewer(make_napari_viewer, npe2pm):
    """A real viewer that knows this plugin and no other."""
    with npe2pm.tmp_plugin(package="napari_nnunet"):
        yield make_napari_viewer(show=True)


@pytest.fixture
def dock(viewer, qtbot):
    """The Segment dock in the viewer."""
    from napari_nnunet.widgets.prediction.segment_dock import SegmentWidget

    _, widget = viewer.window.add_plugin_dock_widget("napari-nnunet", "Segment")
    assert isinstance(widget, SegmentWidget)
    yield widget
    widget.panel.cancel()
    qtbot.waitUntil(lambda: widget._running is None, timeout=20000)
    if widget._estimator is not None and widget._estimator.is_running:
        qtbot.waitUntil(lambda: not widget._estimator.is_running, timeout=20000)
