"""Workspaces that are ready for a training."""

from __future__ import annotations

import pytest

from helpers import make_trainable
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.jobs.training import logbook


@pytest.fixture
def pictures():
    """Let trainings draw their curves, which takes longer than these trainings themselves."""


@pytest.fixture(autouse=True)
def _only_some_draw(request, monkeypatch):
    if "pictures" not in request.fixturenames:
        monkeypatch.setattr(logbook, "draw_progress", lambda *_: None)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return make_trainable(tmp_path_factory.mktemp("train"))


@pytest.fixture
def workspace(prepared, tmp_path):
    """The prepared dataset with results of its own."""
    whole = Workspace.at(prepared)
    return Workspace(whole.raw, whole.preprocessed, tmp_path / "results")


@pytest.fixture
def new_workspace(tmp_path):
    def make(recipe=None, **options):
        return Workspace.at(make_trainable(tmp_path / "own", recipe, **options))

    return make
