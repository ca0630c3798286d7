"""The Train dock submits trainings to a cluster, lists those of others, and stops them."""

from __future__ import annotations

import stat
from dataclasses import replace

import pytest
from docks import PATIENCE
from layout import check_layout
from qtpy.QtCore import Qt

from helpers import TRAINED, Recipe, make_trainable
from napari_nnunet.cli import main
from napari_nnunet.events import drain
from napari_nnunet.formats.model.fold import FoldFolder
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.jobs.training.prepare import check_training
from napari_nnunet.processes.submitted import record, submitted
from napari_nnunet.schema.requests.training import TrainRequest
from napari_nnunet.widgets.frame.panel import RunState
from napari_nnunet.widgets.frame.preferences import read_preferences
from napari_nnunet.widgets.training.form import CLUSTER, HERE

pytest.importorskip("submitit", reason="submitit is not installed: it comes with napari-nnunet[cluster]")
MODEL = "nnUNetTrainer__nnUNetPlans__3d_fullres"


@pytest.fixture
def train(viewer, home, qtbot, plugin_settings, monkeypatch):
    monkeypatch.setenv("HOME", str(home))  # where jobs print
    make_trainable(home, Recipe(spacing=(1.0, 1.0, 1.0)))
    request = TrainRequest(dataset=TRAINED, configuration="3d_fullres", fold=0)
    drain(check_training(Workspace.at(home), [request]))  # makes the folds
    _, widget = viewer.window.add_plugin_dock_widget("napari-nnunet", "Train")
    viewer.window.resize(1280, 800)
    yield widget
    qtbot.waitUntil(lambda: widget.panel.state is RunState.IDLE)
    for process, _, _ in widget.watch.started:
        process.wait(PATIENCE)
    widget.watch.stop()


@pytest.fixture
def slurm(home, monkeypatch):
    """Programs that answer as Slurm's do; ``known`` holds the numbers of its jobs."""
    folder = home / "bin"
    folder.mkdir()
    programs = {
        "srun": "exit 0",
        "sbatch": f"n=$(ls {folder} | wc -l); cp $1 {folder}/$n.sh; echo $n >> {home}/known; "
        "echo Submitted batch job $n",
        "scancel": f'echo "$@" >> {home}/cancelled',
        "squeue": f"cat {home}/known",
    }
    for name, text in programs.items():
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", str(folder), prepend=":")
    settings = home / "gpu.toml"
    settings.write_text('kind = "slurm"\ncores = 8\nmemory = "32GB"\n')
    return settings


def submit(train, qtbot, cluster):
    train.form.place_box.value = CLUSTER
    train.form.cluster_edit.value = str(cluster)
    qtbot.waitUntil(lambda: "to submit" in train.summary.text())
    qtbot.mouseClick(train.panel.button, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: train.panel.state is RunState.IDLE)


def results(home):
    return Workspace.at(home).results


def test_all_folds_go_to_slurm_are_listed_wherever_they_came_from_and_are_taken_back(train, home, slurm, qtbot, viewer):
    submit(train, qtbot, f"slurm:{slurm}")
    assert train.panel.status.text().startswith("5 trainings submitted; the list below shows how far they are.")
    qtbot.waitUntil(lambda: len(train.watch.trainings) == 5)
    check_layout(viewer, train, qtbot, "train-submitted")
    number = train.chosen.job.number
    assert train.details.line.text() == f"Waiting: job {number} of Slurm."
    qtbot.mouseClick(train.details.buttons["stop"], Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: len(train.watch.trainings) == 4)
    assert (home / "cancelled").read_text(encoding="utf-8") == f"--state=PENDING {number}\n"
    qtbot.waitUntil(lambda: "1 job to submit" in train.summary.text())
    assert read_preferences().cluster == f"slurm:{slurm}"
    folder = FoldFolder.at(results(home) / "Dataset007_Other" / MODEL, 2)  # what somebody else submitted
    record(results(home), "3d_fullres fold 2", folder.path, "slurm")
    qtbot.waitUntil(lambda: any(t.folder.path == folder.path for t in train.watch.trainings))


def test_a_job_that_somebody_cancelled_with_scancel_is_said(train, home, slurm, qtbot):
    folder = FoldFolder.at(results(home) / TRAINED / MODEL, 2)
    entry = record(results(home), "3d_fullres fold 2", folder.path, "slurm")
    qtbot.waitUntil(lambda: len(train.watch.trainings) == 1)
    (home / "known").write_text("77\n")
    replace(entry, number="12", since=entry.since - 3600).write()
    train.watch._follower._ask_at = 0.0  # it asks twice a minute
    qtbot.waitUntil(lambda: train.watch.trainings == [])
    said = "3d_fullres fold 2: Slurm no longer knows job 12, which was cancelled or lost its machine. Submit it again"
    assert said in train.panel.status.text()
    assert submitted(results(home)) == []


def test_the_form_says_what_jobs_are_and_what_they_cannot_be(train, home, slurm, qtbot, tmp_path, viewer):
    def says(text):
        qtbot.waitUntil(lambda: text in train.summary.text())

    form = train.form
    form.folds[3].setChecked(True)
    form.place_box.value = CLUSTER
    assert form.cluster_edit.value == "local:2" and not form.folds["all"].isVisible()
    says("2 at a time on this computer")
    says("5 jobs to submit")
    check_layout(viewer, train, qtbot, "train-cluster")
    assert train.panel.button.text() == "Submit 5 trainings, 2 h each"
    assert form.request().request.folds is None
    form.choose_box.value = True
    says("6 jobs to submit")
    form.cluster_edit.value = "moon"
    says("The cluster 'moon' is not understood. Name local, local:N")
    check_layout(viewer, train, qtbot, "train-cluster-refused")
    slurm.write_text('kind = "pbs"\nmemory = "32GB"\n')
    form.cluster_edit.value = str(slurm)
    says("which knows Slurm, not pbs. Name local, local:N")
    assert "--dry_run" not in train.summary.text()
    form.cluster_edit.value = "local"
    form.weights_edit.value = tmp_path / "w.pth"
    says("Jobs begin with fresh weights.")
    form.weights_edit.value = None
    form.configuration_boxes.boxes["3d_fullres"].setChecked(False)
    says("Tick at least one configuration.")
    form.place_box.value = HERE
    assert form.chosen_folds() == (0, 3)
    qtbot.waitUntil(lambda: train.panel.button.text() == "Train 2 folds of 3d_fullres, 2 h each")


@pytest.mark.slow
def test_two_at_a_time_train_here_while_the_dock_is_closed_and_are_paused_by_another(
    train, home, qtbot, viewer, capsys
):
    form, asked = train.form, train.form.request
    short = {"iterations": 8, "validation_iterations": 2, "workers": 0, "threads": 1, "device": "cpu"}
    form.request = lambda: replace(asked(), request=asked().request.replace(**short))
    form.place_box.value = CLUSTER
    form.length_box.value, form.epochs_box.value = "Epochs", 500
    for fold in (2, 3, 4):
        form.folds[fold].setChecked(False)
    submit(train, qtbot, "local:2")
    process = train.watch.started[0][0]
    viewer.window.remove_dock_widget(train)
    _, again = viewer.window.add_plugin_dock_widget("napari-nnunet", "Train")
    qtbot.waitUntil(lambda: len([t for t in again.watch.trainings if t.last is not None]) == 2)
    check_layout(viewer, again, qtbot, "train-jobs-running")
    assert main(["trainings"]) == 0
    assert capsys.readouterr().out.count(", job ") == 2
    for training in again.watch.trainings:
        again.table.choose_when_there(training.folder.path)
        again.table.show_trainings(again.watch.trainings)
        qtbot.mouseClick(again.details.buttons["stop"], Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: {t.status for t in again.watch.trainings} == {"stopped"})
    process.wait(PATIENCE)
    again.watch.stop()
    assert submitted(results(home)) == []
