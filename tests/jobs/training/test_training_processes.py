"""One training over several processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import psutil
import pytest
import torch
from trainings import MODEL, folder_of

from helpers import TRAINED, Recipe
from napari_nnunet.formats.model.checkpoint import read_raw
from napari_nnunet.formats.model.fold import FoldFolder


@pytest.mark.slow
@pytest.mark.parametrize("batch_dice", [False, True])
def test_two_processes_learn_the_same_as_one(new_workspace, tmp_path, batch_dice):
    labels = {"background": 0, "organ": 1, "lesion": 2, "ignore": 3}
    workspace = new_workspace(Recipe(labels=labels))
    path = workspace.preprocessed / TRAINED / "nnUNetPlans.json"
    plans = json.loads(path.read_text(encoding="utf-8"))
    plans["configurations"]["3d_fullres"].update(batch_size=3, batch_dice=batch_dice)
    path.write_text(json.dumps(plans))
    logs = []
    for processes in (1, 2):
        results = tmp_path / f"results{processes}"
        place = {"nnUNet_raw": workspace.raw, "nnUNet_preprocessed": workspace.preprocessed, "nnUNet_results": results}
        arguments = [
            "train", TRAINED, "3d_fullres", "0", "-num_gpus", str(processes), "-device", "cpu", "--threads", "1",
            "--epochs", "2", "--iterations", "5", "--validation_iterations", "3", "--workers", "0", "--no_pbar",
        ]  # fmt: skip
        environment = {**os.environ, **{key: str(value) for key, value in place.items()}}
        subprocess.run([sys.executable, "-m", "napari_nnunet", *arguments], env=environment, check=True)
        logs.append(read_raw(FoldFolder.at(results / TRAINED / MODEL, 0).final))
    for name in ("train_losses", "val_losses", "mean_fg_dice"):
        assert logs[1]["logging"][name] == pytest.approx(logs[0]["logging"][name], rel=2e-4), name
    for key, tensor in logs[0]["network_weights"].items():
        torch.testing.assert_close(logs[1]["network_weights"][key], tensor, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_a_killed_training_over_two_processes_leaves_none_of_them(workspace):
    place = {
        "nnUNet_raw": workspace.raw,
        "nnUNet_preprocessed": workspace.preprocessed,
        "nnUNet_results": workspace.results,
    }
    arguments = [
        "train", TRAINED, "3d_fullres", "0", "-num_gpus", "2", "-device", "cpu", "--threads", "1", "--epochs", "500",
        "--workers", "1", "--no_pbar",
    ]  # fmt: skip
    environment = {**os.environ, **{key: str(value) for key, value in place.items()}}
    process = subprocess.Popen([sys.executable, "-m", "napari_nnunet", *arguments], env=environment)
    folder = folder_of(workspace)
    deadline = time.monotonic() + 300
    while folder.runner() is None and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.1)
    family = psutil.Process(process.pid).children(recursive=True)
    assert len(family) >= 3  # the one that looks after them, and two that compute
    process.kill()
    process.wait()
    assert psutil.wait_procs(family, timeout=300)[1] == []
