"""The Ensemble dock, for the tests of this room."""

from __future__ import annotations

import pytest
from docks import open_dock, wait_until_idle


@pytest.fixture
def ensemble(viewer, workspace, qtbot):
    """The dock with two models, in a viewer without layers."""
    dock = open_dock(viewer, "Ensemble")
    yield dock
    dock.panel.cancel()
    wait_until_idle(qtbot, dock)
