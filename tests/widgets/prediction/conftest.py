"""A desk for each test: an image on a model of a viewer; and postprocessing that takes its time."""

from __future__ import annotations

import threading

import pytest
from desks import Desk
from docks import PATIENCE

from napari_nnunet.widgets.prediction import after


@pytest.fixture
def desk(model, qtbot):
    desk = Desk(model, qtbot)
    yield desk
    desk.view.forget()


@pytest.fixture
def slow(monkeypatch):
    """Postprocessing that says when it began, and waits."""
    reached, go, take_out = threading.Event(), threading.Event(), after.take_out

    def waiting(labels, targets):
        reached.set()
        assert go.wait(PATIENCE)
        return take_out(labels, targets)

    monkeypatch.setattr(after, "take_out", waiting)
    yield reached, go
    go.set()
