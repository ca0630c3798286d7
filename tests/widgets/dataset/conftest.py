"""The Training cases dock in a workspace of its own."""

from __future__ import annotations

import pytest

from napari_nnunet.widgets.frame.panel import RunState


@pytest.fixture
def cases(viewer, home, qtbot):
    _, widget = viewer.window.add_plugin_dock_widget("napari-nnunet", "Training cases")
    yield widget
    for panel in (widget.panel, widget.problems.panel):
        panel.cancel()
        qtbot.waitUntil(lambda panel=panel: panel.state is RunState.IDLE)
    qtbot.waitUntil(lambda: not widget.cases._drawing.running)
