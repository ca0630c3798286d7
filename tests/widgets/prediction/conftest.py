"""A desk for each test: an image on a model of a viewer."""

from __future__ import annotations

import pytest
from desks import Desk


@pytest.fixture
def desk(model, qtbot):
    desk = Desk(model, qtbot)
    yield desk
    desk.view.forget()
