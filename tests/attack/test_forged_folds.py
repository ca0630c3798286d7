"""Folders of trainings come from other people, too: what they tell of processes, pictures and reports is not believed."""

from __future__ import annotations

import json
import zipfile

import pytest

from helpers import Recipe, make_model
from napari_nnunet.events import Ended, EpochDone, Previewed, Progress, drain, to_json
from napari_nnunet.formats.model.fold import FoldFolder
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.jobs.sharing.export import export_models
from napari_nnunet.jobs.sharing.install import install_zip
from napari_nnunet.processes.follow import Follower
from napari_nnunet.schema.requests.sharing import ExportSettings, InstallRequest

_EPOCH = {"epoch": 3, "epochs": 10, "train_loss": 0.5, "val_loss": 0.5, "dice": (0.5,), "names": ("a",), "average": 0.5,
          "rate": 0.01, "seconds": 2.0}  # fmt: skip


def followed(root, *events):
    """Return what is seen of a training whose file has these events."""
    fold = Workspace.at(root).results / "Dataset001_Tiny" / "nnUNetTrainer__nnUNetPlans__2d" / "fold_0"
    fold.mkdir(parents=True)
    lines = [event if isinstance(event, str) else to_json(event) for event in events]
    (fold / "events.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (training,) = Follower(Workspace.at(root)).look()
    return fold, training


@pytest.mark.parametrize(
    "path", ["/etc/passwd", "../../secret.npy", "C:\\Users\\me\\secret.npy", "/moved/film/secret.npy"]
)
def test_pictures_and_reports_of_a_training_lie_in_its_folder(tmp_path, path):
    fold, training = followed(tmp_path, Previewed(path=path, epoch=1), Ended(how="failed", text="no", report=path))
    name = "passwd" if "etc" in path else "secret.npy"
    assert training.frames == {1: str(fold / "film" / name)}
    assert training.ended.report == str(fold / name)


@pytest.mark.parametrize("wrong", [
    {"epoch": -1}, {"epoch": 10**17}, {"epochs": 0}, {"epochs": -3}, {"epochs": 10**17}, {"names": ["a"] * 50_000},
    {"dice": [None] * 50_000},
])  # fmt: skip
def test_epochs_that_no_training_has_are_passed_over(tmp_path, wrong):
    forged = json.dumps({**json.loads(to_json(EpochDone(**_EPOCH))), **wrong})
    _, training = followed(tmp_path, EpochDone(**_EPOCH), forged)
    assert [epoch.epoch for epoch in training.epochs] == [3]
    assert training.epochs[0].epochs == 10 and training.epochs[0].names == ("a",)


@pytest.mark.parametrize("wrong", [{"done": -1}, {"done": 10**17}, {"total": 10**17}, {"total": -5}])
def test_steps_that_no_stage_has_are_passed_over(tmp_path, wrong):
    forged = json.dumps({**json.loads(to_json(Progress(done=2, total=4))), **wrong})
    _, training = followed(tmp_path, Progress(done=1, total=4), forged)
    assert (training.progress.done, training.progress.total) == (1, 4)


def test_a_zip_brings_no_word_of_processes(tmp_path):
    model = make_model(tmp_path / "mine", Recipe())
    drain(export_models([model], tmp_path / "m.zip", ExportSettings(light=True)))
    with zipfile.ZipFile(tmp_path / "m.zip", "a") as archive:
        fold = next(name for name in archive.namelist() if name.endswith(".pth")).rpartition("/")[0]
        claim = {"pid": 1, "host": "elsewhere", "created": 1.0, "command": []}
        archive.writestr(f"{fold}/running.json", json.dumps(claim))
        archive.writestr(f"{fold}/control.json", json.dumps({"stop": True}))
    there = Workspace.at(tmp_path / "there")
    (installed,) = drain(install_zip(there, InstallRequest(source=tmp_path / "m.zip"))).folders
    assert FoldFolder(installed / "fold_0").runner() is None
    assert not list(there.results.rglob("running.json")) + list(there.results.rglob("control.json"))
