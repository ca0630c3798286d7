"""A training that is refused leaves nothing, and one that goes on says what was changed meanwhile."""

from __future__ import annotations

import json

import pytest
import torch
from trainings import SHORT, of, run

from helpers import TRAINED
from napari_nnunet.cli.main import main
from napari_nnunet.engine.network.device import choose
from napari_nnunet.errors import DatasetError, ModelError, ResourceError, SettingsError
from napari_nnunet.events import Note
from napari_nnunet.jobs.training import memory
from napari_nnunet.jobs.training.train import require_gpus
from napari_nnunet.schema.dataset import LabelScheme
from napari_nnunet.schema.requests.prediction import PredictSettings
from napari_nnunet.schema.requests.training import TrainSettings
from napari_nnunet.schema.trainers import TrainerRecipe, require_fitting


def left(workspace):
    return [path for path in workspace.results.rglob("*") if path.is_file()] if workspace.results.exists() else []


def test_weights_of_the_wrong_kind_are_refused_before_anything_is_made(new_workspace, tmp_path):
    workspace = new_workspace()
    with pytest.raises(ModelError, match="is a text file, not a checkpoint"):
        run(workspace, pretrained=workspace.preprocessed / TRAINED / "nnUNetPlans.json")
    with pytest.raises(ModelError, match="is a folder; a checkpoint is expected"):
        run(workspace, pretrained=tmp_path)
    torch.save({"network_weights": {"w": torch.ones(1)}}, tmp_path / "other.pth")
    with pytest.raises(ModelError):
        run(workspace, pretrained=tmp_path / "other.pth")
    assert not left(workspace) and not list(workspace.results.rglob("fold_*"))


def test_a_weight_is_of_a_class_that_the_dataset_has(new_workspace):
    workspace = new_workspace()
    with pytest.raises(SettingsError, match="has no class 'tumour'.* Its classes are background, organ, lesion"):
        run(workspace, settings=SHORT.replace(class_weights={"tumour": 5.0}))
    assert not left(workspace)


def test_only_classes_with_an_ignore_label_can_be_scribbles(new_workspace):
    workspace = new_workspace()
    with pytest.raises(SettingsError) as found:
        run(workspace, settings=SHORT.replace(scribbles=True))
    lack = "it has no ignore label, so that every voxel is annotated"
    assert f"The dataset {TRAINED} cannot be trained as scribbles: {lack}." in str(found.value)
    assert "Leave --scribbles out." in str(found.value) and "Switch 'Scribbles' off." in found.value.in_window
    assert not left(workspace)
    labels = {"background": 0, "whole": (1, 2), "core": 2, "ignore": 3}
    with pytest.raises(SettingsError, match="cannot be trained as scribbles: it has regions"):
        require_fitting(TrainerRecipe(scribbles=True), LabelScheme(labels=labels, regions_class_order=(1, 2)), "It")


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
    plans = json.loads(path.read_text(encoding="utf-8"))
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


def test_a_damaged_case_is_named_before_anything_is_made(new_workspace):
    workspace = new_workspace()
    path = sorted(workspace.preprocessed.glob("*/*3d_fullres/*_seg.b2nd"))[0]
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(DatasetError, match=rf"1 of \d+ preprocessed cases.*{path.name} has \d+ of \d+ bytes"):
        run(workspace)
    assert left(workspace) == []


def test_cases_in_no_fold_are_named(new_workspace):
    workspace = new_workspace()
    splits = workspace.preprocessed / TRAINED / "splits_final.json"
    splits.write_text(json.dumps([{"train": ["c0", "c1", "c2"], "val": ["c3"]}]))
    _, events = run(workspace)
    said = [event.text for event in of(Note, events) if "in no fold" in event.text]
    assert said == [
        "1 of 5 cases is in no fold and never used: c4. Add them to splits_final.json, or make new folds "
        "(napari-nnunet folds)."
    ]


def test_processes_beyond_the_gpus_are_refused_once_before_anything_is_written(monkeypatch, capsys, tmp_path):
    words = ["train", "1", "3d_fullres", "0", "--workspace", str(tmp_path)]
    assert main([*words, "-num_gpus", "0"]) == 1
    assert "'processes' (-num_gpus) cannot be 0" in capsys.readouterr().err
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    (tmp_path / "nnUNet_preprocessed" / "Dataset001_A").mkdir(parents=True)
    assert main([*words, "-num_gpus", "2", "-device", "cuda"]) == 1
    said = capsys.readouterr().err
    assert said.count("Error") == 1 and "sees no CUDA GPU" in said
    assert not (tmp_path / "nnUNet_results").exists()
    assert "2 processes share each batch on the cpu" in require_gpus(TrainSettings(), "auto", 2)
    assert require_gpus(TrainSettings(), "CPU", 2) == ""
