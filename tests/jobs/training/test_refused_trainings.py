"""A training that is refused leaves nothing, and one that goes on says what was changed meanwhile."""

from __future__ import annotations

import json

import pytest
import torch
from trainings import SHORT, of, run

from helpers import TRAINED
from napari_nnunet.engine.network.device import choose
from napari_nnunet.errors import ModelError, ResourceError, SettingsError
from napari_nnunet.events import Note
from napari_nnunet.jobs.training import memory
from napari_nnunet.schema.requests.prediction import PredictSettings


def left(workspace):
    return [path for path in workspace.results.rglob("*") if path.is_file()] if workspace.results.exists() else []


def test_weights_of_the_wrong_kind_are_refused_before_anything_is_made(new_workspace, tmp_path):
    workspace = new_workspace()
    with pytest.raises(ModelError, match="is a text file, not a checkpoint"):
        run(workspace, pretrained=workspace.preprocessed / TRAINED / "nnUNetPlans.json")
    with pytest.raises(ModelError, match="is a folder; a checkpoint is wanted"):
        run(workspace, pretrained=tmp_path)
    torch.save({"network_weights": {"w": torch.ones(1)}}, tmp_path / "other.pth")
    with pytest.raises(ModelError):
        run(workspace, pretrained=tmp_path / "other.pth")
    assert not left(workspace) and not list(workspace.results.rglob("fold_*"))


def test_a_step_that_cannot_fit_is_refused_before_anything_is_made(new_workspace, monkeypatch):
    workspace = new_workspace()
    monkeypatch.setattr(memory, "free_memory", lambda _: 1e6)
    with pytest.raises(ResourceError, match="GB are free"):
        run(workspace)
    assert not left(workspace) and not list(workspace.results.rglob("fold_*"))


def test_a_batch_that_was_changed_is_said_when_a_training_goes_on(new_workspace):
    workspace = new_workspace()
    run(workspace, settings=SHORT.replace(epochs=1), validation=False)
    path = workspace.preprocessed / TRAINED / "nnUNetPlans.json"
    plans = json.loads(path.read_text())
    before = plans["configurations"]["3d_fullres"]["batch_size"]
    plans["configurations"]["3d_fullres"]["batch_size"] = before + 1
    path.write_text(json.dumps(plans))
    _, events = run(workspace, settings=SHORT.replace(epochs=2), resume=True, validation=False)
    assert any(f"the batch was {before}, and is {before + 1} from here on" in note.text for note in of(Note, events))


@pytest.mark.parametrize("device", ["CPU", "Cpu", " cpu"])
def test_a_device_is_known_in_upper_and_lower_case(device):
    assert choose(PredictSettings(device=device)).kind == "cpu"


@pytest.mark.parametrize("device", ["gpu", "cuda:x", "cpu:one", "cuda:-1", "cuda:²"])
def test_a_device_that_none_is_named(device):
    with pytest.raises(SettingsError, match="Unknown device .* Known: auto, cpu, cuda"):
        choose(PredictSettings(device=device))
