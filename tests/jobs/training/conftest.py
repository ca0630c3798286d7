"""Workspaces that are ready for a training."""

from __future__ import annotations

import numpy as np
import pytest
from trainings import NEW, folder_of, run

from helpers import TRAINED, dataset_json, make_trainable
from napari_nnunet.formats.images.files import read_labels, write_labels
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


@pytest.fixture
def trained(new_workspace):
    """A workspace with a trained model, whose dataset then got a class more and other values; and the model's folder."""
    place = new_workspace()
    run(place)
    model = folder_of(place).path.parent
    raw = place.raw / TRAINED
    dataset_json(raw, labels=NEW)
    for path in sorted((raw / "labelsTr").iterdir()):
        labels, geometry = read_labels(path)
        changed = np.choose(labels, [0, 2, 1]).astype(np.uint8)
        changed[0:2, 0:5, 0:5] = 3
        write_labels(changed, geometry, path)
    return place, model
