"""Processes of their own: what they are started with, and which of them may be ended."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, replace

import psutil
import pytest

from napari_nnunet.formats.atomic import write_json
from napari_nnunet.formats.claim import Runner
from napari_nnunet.formats.model.fold import FoldFolder
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.processes import launch
from napari_nnunet.processes.launch import DetachedTraining, end_training, request_of
from napari_nnunet.processes.queue import queue_folder, tickets
from napari_nnunet.schema.requests.training import TrainSettings

OTHER = {
    "trainer": "nnUNetTrainerDA5", "epochs": 7, "iterations": 5, "validation_iterations": 3, "time_budget": 5400.0,
    "early_stop": 9, "foreground_jitter": 0.25, "seed": 12, "device": "cpu", "precision": "bfloat16", "compile": True,
    "threads": 3, "workers": 0, "augment_on": "device", "tensorboard": True, "track": ("mlflow", "wandb"), "checkpoints": False,
    "probabilities": True, "class_weights": {"lesion": 2.5, "left part": 4.0}, "scribbles": True,
}  # fmt: skip


@pytest.fixture
def sleeper():
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", "napari-nnunet", "train"])
    for _ in range(500):  # just begun, it has no words yet
        if psutil.Process(process.pid).cmdline():
            break
        time.sleep(0.01)
    yield process
    process.kill()
    process.wait()


def runner_of(process):
    found = psutil.Process(process.pid)
    return replace(Runner.own(), pid=found.pid, created=found.create_time(), command=tuple(found.cmdline()))


def training(workspace, settings):
    return DetachedTraining(workspace, "Dataset001_A", "3d_fullres", "nnUNetPlans", (0, "all"), settings)


def test_every_setting_has_another_value_here():
    assert OTHER.keys() == TrainSettings.model_fields.keys()
    for name, value in OTHER.items():
        assert getattr(TrainSettings(), name) != value, name


@pytest.mark.parametrize("names", [[name] for name in OTHER] + [list(OTHER)], ids=lambda names: names[0])
def test_the_words_of_a_detached_training_are_read_as_its_settings(tmp_path, names):
    from napari_nnunet.cli import build_parser
    from napari_nnunet.cli.flags import read
    from napari_nnunet.cli.verbs import named
    from napari_nnunet.schema.requests.training import TrainCommand

    settings = TrainSettings(**{name: OTHER[name] for name in names})
    words = training(Workspace.at(tmp_path), settings).arguments()
    requests = read(TrainCommand, build_parser([named("train")]).parse_args(words))
    assert [request.fold for request in requests] == [0, "all"]
    assert [request.settings for request in requests] == [settings, settings]


def test_a_training_is_resumed_with_all_the_settings_it_was_begun_with(tmp_path):
    settings = TrainSettings(**OTHER)
    folder = FoldFolder(tmp_path / "Dataset001_A" / "nnUNetTrainerDA5__nnUNetPlans__3d_fullres" / "fold_0")
    folder.path.mkdir(parents=True)
    write_json(folder.path / "debug.json", {"settings": settings.model_dump(mode="json")})
    write_json(folder.path / "tracking.json", dict.fromkeys(settings.track, "a run"))
    resumed = request_of(folder, Workspace.at(tmp_path))
    assert resumed.settings == settings
    assert resumed.resume


def test_a_training_of_somebody_else_is_resumed_within_this_computer(tmp_path):
    settings = TrainSettings(workers=100_000, threads=100_000, track=("tensorboard", "wandb"), epochs=3)
    folder = FoldFolder(tmp_path / "Dataset001_A" / "nnUNetTrainer__nnUNetPlans__3d_fullres" / "fold_0")
    folder.path.mkdir(parents=True)
    write_json(folder.path / "debug.json", {"settings": settings.model_dump(mode="json")})
    resumed = request_of(folder, Workspace.at(tmp_path)).settings
    assert (resumed.workers, resumed.threads, resumed.track, resumed.epochs) == (None, 0, ("tensorboard",), 3)


def test_a_detached_process_has_the_folders_in_its_environment_and_this_one_does_not(tmp_path, monkeypatch):
    seen = {}

    def start(arguments, *, env, **_):
        seen.update(env)
        assert os.environ == before
        return sleeping

    sleeping = subprocess.Popen([sys.executable, "-c", "pass"])
    before = dict(os.environ)
    monkeypatch.setattr(launch.subprocess, "Popen", start)
    training(Workspace.at(tmp_path), TrainSettings()).start()
    sleeping.wait()
    assert seen["nnUNet_results"] == str(tmp_path / "nnUNet_results")
    assert seen["PATH"] == os.environ["PATH"]
    assert dict(os.environ) == before


def test_a_training_that_does_not_answer_is_ended(sleeper):
    assert end_training(runner_of(sleeper))
    assert not psutil.pid_exists(sleeper.pid)


@pytest.mark.parametrize(
    "change",
    [{"created": 1.0}, {"command": ("python", "-m", "napari_nnunet")}, {"command": ()}, {"host": "elsewhere"}],
    ids=lambda change: next(iter(change)),
)
def test_a_process_that_is_not_beyond_doubt_the_training_is_left_alone(sleeper, change):
    assert not end_training(replace(runner_of(sleeper), **change))
    assert sleeper.poll() is None


@pytest.mark.parametrize("words", [(), ("napari-nnunet", "predict"), ("train", "napari_nnunet")], ids=str)
def test_a_notebook_or_window_that_trains_is_not_ended(words):
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", *words])
    try:
        assert not end_training(runner_of(process))
        assert process.poll() is None
    finally:
        process.kill()
        process.wait()


ODD = [
    {"pid": -1}, {"pid": 0}, {"pid": True}, {"pid": "7"}, {"pid": 10**30}, {"pid": 2.0}, {"host": None}, {"host": 3},
    {"created": "now"}, {"created": float("nan")}, {"created": float("inf")}, {"created": None}, {"command": "python"},
]  # fmt: skip


@pytest.mark.parametrize("odd", ODD, ids=str)
def test_a_file_that_names_no_process_is_no_training(tmp_path, odd):
    folder = FoldFolder(tmp_path / "fold_0")
    with folder.claimed():
        assert folder.runner() == Runner.own()
        entry = json.loads((folder.path / "running.json").read_text(encoding="utf-8"))
        (folder.path / "running.json").write_text(json.dumps({**entry, **odd}))
        assert folder.runner() is None
    queue = queue_folder(tmp_path)
    queue.mkdir()
    (queue / "00000000000000000001-7.json").write_text(json.dumps({**asdict(Runner.own()), "folders": ["a"], **odd}))
    (queue / "00000000000000000002-7.json").write_text(json.dumps({**asdict(Runner.own()), "folders": 5}))
    (queue / "00000000000000000003-7.json").write_text(json.dumps({**asdict(Runner.own()), "folders": ["b"]}))
    assert [ticket.folders for ticket in tickets(tmp_path)] == [("b",)]


@pytest.mark.parametrize(
    ("job", "run", "alive"),
    [(":7", 0, False), (":7", 1, True), (":8", 0, True), ("", 0, True)],
    ids=["an earlier run", "this run", "another job", "no job"],
)
def test_a_job_that_runs_again_elsewhere_takes_over_from_its_earlier_run(tmp_path, monkeypatch, job, run, alive):
    folder = FoldFolder(tmp_path / "fold_0")
    folder.path.mkdir()
    lost = replace(Runner.own(), host="elsewhere", job=job, run=run)
    (folder.path / "running.json").write_text(json.dumps(asdict(lost)))
    assert folder.runner() == lost  # who belongs to no job knows nothing of it
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert (folder.runner() is not None) == alive
    if not alive:
        with folder.claimed():
            assert folder.runner() == replace(Runner.own(), job=":7", run=1)
