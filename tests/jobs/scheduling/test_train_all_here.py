"""Trainings as jobs of this computer, killed and told their time limit, end with the bits of undisturbed ones."""

from __future__ import annotations

import os
import signal

import psutil
import pytest

from helpers import TRAINED, make_trainable
from napari_nnunet.events import Note, drain
from napari_nnunet.formats.model.checkpoint import read_raw
from napari_nnunet.formats.model.fold import FoldFolder
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.jobs.scheduling.train_all import train_all
from napari_nnunet.jobs.training.train import train
from napari_nnunet.processes.submitted import submitted
from napari_nnunet.schema.requests.training import TrainAllRequest, TrainRequest, TrainSettings

pytest.importorskip("submitit", reason="submitit is not installed: it comes with napari-nnunet[cluster]")
SHORT = TrainSettings(epochs=40, iterations=10, validation_iterations=2, workers=0, device="cpu", threads=1, seed=5)


def _folder(results, fold):
    return FoldFolder.at(results / TRAINED / "nnUNetTrainer__nnUNetPlans__3d_fullres", fold)


@pytest.mark.slow
def test_what_is_killed_or_told_its_time_limit_continues_to_the_bit(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    whole = Workspace.at(make_trainable(tmp_path / "work"))
    disturbed = Workspace(whole.raw, whole.preprocessed, tmp_path / "results")
    asked = TrainAllRequest.like(SHORT, dataset=TRAINED, folds=(0, 1), choose=True, cluster="local:2")
    done, seen = set(), []

    def disturb(event):
        seen.append(event)
        for fold, how in ((0, _kill), (1, _tell)):
            folder = _folder(disturbed.results, fold)
            runner = folder.runner()
            if fold not in done and runner is not None and _has_learnt(folder):
                done.add(fold)
                how(psutil.Process(runner.pid))

    first = drain(train_all(disturbed, asked), disturb)
    assert done == {0, 1}
    assert first.finished == ("3d_fullres fold 1",)  # saved, and was run again by submitit
    assert '"stopped"' in _folder(disturbed.results, 1).events.read_text(encoding="utf-8")
    assert set(first.failed) == {"3d_fullres fold 0", "choosing"}
    assert "choosing is not started: it needs 3d_fullres fold 0." in [e.text for e in seen if isinstance(e, Note)]
    assert submitted(disturbed.results) == []
    second = drain(train_all(disturbed, asked))
    assert second.finished == ("3d_fullres fold 0", "choosing") and not second.failed
    assert (disturbed.results / TRAINED / "inference_information.json").is_file()
    for fold in (0, 1):
        request = TrainRequest.like(SHORT, dataset=TRAINED, configuration="3d_fullres", fold=fold, validation=False)
        expected = read_raw(drain(train(whole, request)).folder.final)
        found = read_raw(_folder(disturbed.results, fold).final)
        assert str(found["logging"]["train_losses"]) == str(expected["logging"]["train_losses"])
        for key, tensor in expected["network_weights"].items():
            assert found["network_weights"][key].equal(tensor), key


@pytest.mark.slow
def test_who_ends_the_command_lets_what_runs_save(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    workspace = Workspace.at(make_trainable(tmp_path / "work"))
    asked = TrainAllRequest.like(SHORT.replace(epochs=500), dataset=TRAINED, folds=(0, 1))
    job, folder = train_all(workspace, asked), _folder(workspace.results, 0)
    for _ in job:
        if _has_learnt(folder):
            break
    job.close()
    assert folder.runner() is None and '"stopped"' in folder.events.read_text(encoding="utf-8")
    assert not _folder(workspace.results, 1).path.exists()  # one at a time
    assert submitted(workspace.results) == []


def _has_learnt(folder):
    """Whether a first epoch is over and kept, and the last is not."""
    return folder.best.is_file() and not folder.final.is_file()


def _kill(training):
    os.kill(training.pid, signal.SIGKILL)


def _tell(training):
    """Send what Slurm and submitit send before a time limit, to the process of the job."""
    os.kill(training.ppid(), signal.SIGUSR2)
