"""Trainings as jobs of a scheduler: which there are, what Slurm is told, what is refused before anything is submitted."""

from __future__ import annotations

import json
import os
import pickletools
import stat
from dataclasses import replace

import pytest

from helpers import TRAINED, make_trainable
from napari_nnunet.cli import main
from napari_nnunet.errors import ModelError, NnunetError, ResourceError, SettingsError
from napari_nnunet.events import Note, Progress, drain
from napari_nnunet.formats.claim import Runner
from napari_nnunet.formats.model.fold import FoldFolder
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.jobs.scheduling import train_all as all_trainings
from napari_nnunet.jobs.scheduling.train_all import train_all
from napari_nnunet.processes.cluster import start
from napari_nnunet.processes.cluster.scheduled import ScheduledJob
from napari_nnunet.processes.cluster.submit import Handle
from napari_nnunet.processes.follow import Follower, call_off
from napari_nnunet.processes.submitted import record, submitted
from napari_nnunet.schema.requests.training import TrainAllRequest

pytest.importorskip("submitit", reason="submitit is not installed: it comes with napari-nnunet[cluster]")
MODEL = "nnUNetTrainer__nnUNetPlans__{}"
FILE = """
kind = "slurm"
cores = 8
memory = "32GB"
gpu = true
walltime = "1-02:30:30"
queue = "gpu"
account = "lab"
directives = ["--constraint=a100", "--exclusive"]
setup = ["module load cuda"]
python = "/shared/my python"
"""


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A dataset with three configurations, of which the last needs the one before; all have the same cases."""
    root = make_trainable(tmp_path_factory.mktemp("train"))
    path = root / "nnUNet_preprocessed" / TRAINED / "nnUNetPlans.json"
    plans = json.loads(path.read_text(encoding="utf-8"))
    whole = plans["configurations"]["3d_fullres"]
    plans["configurations"] = {
        "3d_cascade_fullres": {"inherits_from": "3d_fullres", "previous_stage": "3d_lowres"},
        "3d_fullres": whole,
        "3d_lowres": {**whole, "next_stage": "3d_cascade_fullres"},
    }
    path.write_text(json.dumps(plans))
    return root


@pytest.fixture
def workspace(prepared, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    whole = Workspace.at(prepared)
    found = Workspace(whole.raw, whole.preprocessed, tmp_path / "results")
    for name, value in found.variables().items():
        monkeypatch.setenv(name, value)
    return found


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """Programs that answer as Slurm's do: sbatch keeps the scripts; a script that asks for the queue 'no' is refused."""
    folder = tmp_path / "bin"
    folder.mkdir()
    programs = {
        "srun": "exit 0",
        "sbatch": f'grep -q "partition=no$" $1 && grep -q "fold 1" $1 && echo "invalid partition" >&2 && exit 1\n'
        f"n=$(ls {folder} | wc -l); cp $1 {folder}/$n.sh; echo Submitted batch job $n",
        "scancel": f'echo "$@" >> {tmp_path}/cancelled',
    }
    for name, text in programs.items():
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    (tmp_path / "gpu.toml").write_text(FILE)
    return folder


def ask(workspace, **values):
    notes = []
    found = drain(train_all(workspace, TrainAllRequest.of(dataset=TRAINED, **values)), notes.append)
    return found, [event.text for event in notes if isinstance(event, Note)]


def finish(workspace, configuration, *folds):
    for fold in folds:
        folder = FoldFolder.at(workspace.results / TRAINED / MODEL.format(configuration), fold)
        folder.validation.mkdir(parents=True)
        folder.final.touch()
        (folder.validation / "summary.json").write_text("{}")


def test_there_is_a_job_for_each_fold_and_those_that_others_need_come_first(workspace):
    found, _ = ask(workspace, dry_run=True, choose=True)
    names = [job.name for job in found.jobs]
    assert len(names) == 16 and names[-1] == "choosing"
    needs = {job.name: job.needs for job in found.jobs}
    assert needs["3d_cascade_fullres fold 2"] == tuple(f"3d_lowres fold {fold}" for fold in range(5))
    assert needs["3d_fullres fold 0"] == () and set(needs["choosing"]) == set(names[:-1])
    assert all(names.index(other) < names.index(name) for name in names for other in needs[name])


def test_what_is_trained_is_skipped_and_what_only_lacks_its_validation_is_validated(workspace):
    finish(workspace, "3d_lowres", *range(5))
    finish(workspace, "3d_fullres", 0, 1)
    (workspace.results / TRAINED / MODEL.format("3d_fullres") / "fold_1" / "validation" / "summary.json").unlink()
    found, notes = ask(workspace, dry_run=True, configurations=("3d_fullres", "3d_cascade_fullres"), folds=(0, 1))
    assert "3d_fullres fold 0 is trained and validated already; skipped." in notes
    words = {job.name: (" ".join(job.words), job.needs) for job in found.jobs}
    assert list(words) == ["3d_fullres fold 1", "3d_cascade_fullres fold 0", "3d_cascade_fullres fold 1"]
    assert "--val" in words["3d_fullres fold 1"][0] and "--c" not in words["3d_fullres fold 1"][0].split()
    assert "--c" in words["3d_cascade_fullres fold 0"][0].split() and words["3d_cascade_fullres fold 0"][1] == ()
    done, _ = ask(workspace, configurations=("3d_lowres",))
    assert done.jobs == ()


def test_folds_that_would_begin_at_random_beside_a_continued_model_are_refused_before_any_job(workspace, tmp_path):
    folder = workspace.results / TRAINED / MODEL.format("3d_fullres") / "fold_0"
    FoldFolder(folder).note_origin(model=tmp_path)
    with pytest.raises(ModelError, match=r"fold_0 cannot be resumed: it was ended .* begin with the model"):
        ask(workspace, dry_run=True, configurations=("3d_fullres",), folds=(0,))
    with pytest.raises(
        ModelError, match=r"fold_1 cannot be resumed: it has saved nothing yet, and fold_0 of the same model"
    ):
        ask(workspace, dry_run=True, configurations=("3d_fullres",), folds=(1,))


def test_a_dry_run_prints_commands_for_other_schedulers(workspace, capsys):
    words = ["train_all", TRAINED, "--configurations", "3d_fullres", "--folds", "0", "1", "--choose", "--dry_run"]
    assert main([*words, "--epochs", "7"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[4] == "# 3: choosing, after 1, 2"
    for fold, line in enumerate(lines[1:4:2]):
        assert f"napari-nnunet train {TRAINED} 3d_fullres {fold} --epochs 7 --c --no_pbar" in line
        assert f"nnUNet_results={workspace.results}" in line
    assert not submitted(workspace.results)


def test_slurm_is_told_what_the_settings_say_and_what_waits_for_what(workspace, slurm, tmp_path):
    asked = {"configurations": ("3d_fullres",), "folds": (0, 1), "choose": True, "processes": 2}
    found, notes = ask(workspace, cluster=f"slurm:{tmp_path / 'gpu.toml'}", **asked)
    first, second, third = found.submitted.values()
    (hidden,) = [note for note in notes if "which other machines usually do not see" in note]
    assert str(workspace.preprocessed) in hidden  # all of them in one sentence
    script = (slurm / f"{first}.sh").read_text(encoding="utf-8")
    for line in (
        "--partition=gpu", "--account=lab", "--cpus-per-task=8", "--mem=32000M", "--gres=gpu:2", "--time=1591",
        "--constraint=a100", "--exclusive", "--requeue", "--kill-on-invalid-dep=yes", "--signal=USR2@120",
        "--open-mode=append", "'--job-name=3d_fullres fold 0'",
    ):  # fmt: skip
        assert f"#SBATCH {line}" in script.replace("--job-name='3d_fullres fold 0'", "'--job-name=3d_fullres fold 0'")
    assert "module load cuda" in script and "wckey" not in script
    assert "'/shared/my python' -u -m submitit.core._submit" in script
    assert "dependency" not in script
    assert f"#SBATCH --dependency=afterok:{first}:{second}" in (slurm / f"{third}.sh").read_text(encoding="utf-8")
    folder = tmp_path / ".napari-nnunet-jobs"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    (pickled,) = (folder / first).glob("*_submitted.pkl")
    named = {
        argument for opcode, argument, _ in pickletools.genops(pickled.read_bytes())
        if opcode.name in ("SHORT_BINUNICODE", "BINUNICODE") and "." in argument and "/" not in argument
    }  # fmt: skip
    assert named <= {"submitit.core.utils", "napari_nnunet.processes.cluster.scheduled"}


def test_jobs_that_wait_are_seen_are_not_submitted_twice_and_are_taken_back(workspace, slurm, tmp_path, capsys):
    asked = {"cluster": str(tmp_path / "gpu.toml"), "configurations": ("3d_fullres",)}
    first, _ = ask(workspace, folds=(0,), **asked)
    (number,) = first.submitted.values()
    (training,) = Follower(workspace).look()
    assert training.status == "waiting" and training.folder.fold == 0
    again, notes = ask(workspace, folds=(0,), choose=True, **asked)
    assert f"3d_fullres fold 0 is job {number} of Slurm already; it is not submitted again." in notes
    assert list(again.submitted) == ["choosing"]
    assert f"afterok:{number}\n" in (slurm / f"{again.submitted['choosing']}.sh").read_text(encoding="utf-8")
    with pytest.raises(SettingsError, match=f"needs 3d_fullres fold 0, which is job {number} of Slurm already"):
        ask(workspace, folds=(0,), choose=True, configurations=("3d_fullres",), cluster="local")
    assert main(["trainings", "--stop", "-d", "6", "-f", "0"]) == 0
    assert f"3d_fullres fold 0: waiting, job {number} of Slurm" in capsys.readouterr().out
    assert (tmp_path / "cancelled").read_text(encoding="utf-8") == f"--state=PENDING {number}\n"
    assert Follower(workspace).look() == []


def test_where_slurm_refuses_one_job_none_is_left(workspace, slurm, tmp_path):
    (tmp_path / "no.toml").write_text(FILE.replace('queue = "gpu"', 'queue = "no"'))
    with pytest.raises(ResourceError, match="Slurm refused the job 3d_fullres fold 1: .*invalid partition"):
        ask(workspace, cluster=str(tmp_path / "no.toml"), configurations=("3d_fullres",))
    assert submitted(workspace.results) == []
    assert (tmp_path / "cancelled").read_text(encoding="utf-8").startswith("--state=PENDING ")


def test_a_training_on_another_machine_is_left_alone_is_seen_and_can_be_stopped(workspace, capsys):
    folder = FoldFolder.at(workspace.results / TRAINED / MODEL.format("3d_lowres"), 0)
    with folder.claimed():
        path = folder.path / "running.json"
        path.write_text(
            json.dumps({**json.loads(path.read_text(encoding="utf-8")), "host": "node7", "job": "", "run": 0})
        )
        folder.events.touch()
        (training,) = Follower(workspace).look()
        assert training.status == "running"
        _, notes = ask(workspace, configurations=("3d_lowres",), folds=(0,), dry_run=True)
        assert any("is being trained by process" in note and "on node7" in note and "delete" in note for note in notes)
        with pytest.raises(SettingsError, match="The job 3d_cascade_fullres fold 0 needs it"):
            ask(workspace, configurations=("3d_lowres", "3d_cascade_fullres"), dry_run=True)
        assert main(["trainings", "--stop"]) == 0
        assert "3d_lowres fold 0: running, on node7" in capsys.readouterr().out
        assert folder.wishes().stop
        path.unlink()


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"configurations": ("4d",)}, "4d"),
        ({"folds": (7,)}, "There is no fold 7: the folds of Dataset006_Train are 0 to 4."),
        ({"folds": ("all", 0)}, "'all' stands for every fold here"),
        ({"plans": "other"}, "has no plans named 'other'"),
        ({"configurations": ("3d_cascade_fullres",)}, "all folds of 3d_lowres, of which 0, 1, 2, 3, 4 are not trained"),
        ({"configurations": ("3d_lowres", "3d_cascade_fullres"), "folds": (0, 1)}, "of which 2, 3, 4 are not trained"),
        ({"checkpoints": False}, "cannot be continued after their time limit"),
        ({"cluster": "tcp://node1:8786"}, "trainings take hours and are jobs"),
        ({"cluster": "slurm:nowhere.toml"}, "nowhere.toml does not exist"),
        ({"cluster": "moon"}, "is not understood"),
        ({"cluster": "local:0"}, "asks for no worker"),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused_before_anything_is_submitted(workspace, values, said):
    with pytest.raises(NnunetError) as caught:
        ask(workspace, **values)
    assert said in str(caught.value)
    assert not submitted(workspace.results) and not (workspace.results / TRAINED).exists()


def test_a_dataset_that_is_not_preprocessed_is_refused_with_the_verb_that_does_it(workspace, tmp_path):
    other = replace(workspace, preprocessed=tmp_path / "none")
    with pytest.raises(NnunetError, match="Run 'plan_and_preprocess' first"):
        ask(other)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (FILE + "partition = 'a'\n", "There is no setting 'partition'. Known: kind, workers, cores"),
        (
            FILE.replace("--exclusive", "-C a100"),
            "directives: '-C a100' is not understood. Write options of sbatch out",
        ),
        (FILE.replace('"slurm"', '"pbs"'), "which knows Slurm, not pbs. Let --dry_run print"),
    ],
    ids=["unknown setting", "short option", "another system"],
)
def test_settings_that_no_job_can_have_are_refused(workspace, slurm, tmp_path, text, said):
    (tmp_path / "gpu.toml").write_text(text)
    with pytest.raises(SettingsError) as caught:
        ask(workspace, cluster=str(tmp_path / "gpu.toml"))
    assert said in str(caught.value) and not submitted(workspace.results)


def test_a_machine_without_slurm_and_one_without_submitit_are_told(workspace, tmp_path, monkeypatch):
    (tmp_path / "gpu.toml").write_text(FILE)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ResourceError, match="There is no sbatch and no srun on this machine.*login node"):
        ask(workspace, cluster=str(tmp_path / "gpu.toml"))

    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr(start, "import_module", missing)
    with pytest.raises(ResourceError, match=r"need submitit and more.*pip install \"napari-nnunet\[cluster\]\""):
        ask(workspace)


def test_a_job_that_was_called_off_or_sees_other_files_does_nothing(workspace, tmp_path):
    folder = FoldFolder.at(workspace.results / TRAINED / MODEL.format("3d_fullres"), 0)
    entry = record(workspace.results, "3d_fullres fold 0", folder.path, "slurm")
    assert call_off(folder, workspace) and not call_off(folder, workspace)
    job = ScheduledJob(("train",), str(folder.path), str(entry.path), ())
    with pytest.raises(ResourceError, match="was cancelled before it began"):
        job()
    with pytest.raises(ResourceError, match="This machine does not see"):
        replace(job, record=str(tmp_path / "elsewhere" / "x.job"))()


def test_jobs_of_a_command_that_was_killed_are_forgotten(workspace, tmp_path):
    entry = record(workspace.results, "3d_fullres fold 0", tmp_path / "fold_0", "local")
    assert submitted(workspace.results) == [entry]
    replace(entry, by=replace(Runner.own(), pid=Runner.own().pid, created=1.0)).write()
    assert submitted(workspace.results) == [] and not entry.path.exists()


def test_a_job_that_slurm_no_longer_knows_is_said_and_forgotten(workspace, slurm, tmp_path, capsys):
    asked = {"cluster": str(tmp_path / "gpu.toml"), "configurations": ("3d_fullres",), "folds": (0, 1)}
    found, _ = ask(workspace, **asked)
    lost, kept = found.submitted.values()
    for entry in submitted(workspace.results):  # an hour ago: a young job may not be listed yet
        replace(entry, since=entry.since - 3600).write()
    (slurm / "squeue").write_text(f"#!/bin/sh\necho {kept}\n")  # somebody cancelled the other with scancel
    (slurm / "squeue").chmod(stat.S_IRWXU)
    assert main(["trainings"]) == 0
    said = capsys.readouterr().out
    assert f"3d_fullres fold 0: Slurm no longer knows job {lost}, which was cancelled" in said
    assert f"fold 1: waiting, job {kept} of Slurm\n" in said and "fold 0: waiting" not in said
    again, notes = ask(workspace, **asked)
    assert list(again.submitted) == ["3d_fullres fold 0"] and not any("no longer knows" in note for note in notes)


def test_where_slurm_cannot_be_asked_a_waiting_job_says_so(workspace, slurm, tmp_path, capsys, monkeypatch):
    found, _ = ask(workspace, cluster=str(tmp_path / "gpu.toml"), configurations=("3d_fullres",), folds=(0,))
    monkeypatch.setenv("PATH", str(slurm))  # without squeue
    assert main(["trainings"]) == 0
    (number,) = found.submitted.values()
    expected = f"waiting, job {number} of Slurm; whether it still knows the job cannot be asked from this computer\n"
    assert expected in capsys.readouterr().out


def test_what_waits_for_a_place_on_this_computer_is_listed_and_can_be_taken_back(workspace, monkeypatch, tmp_path):
    over = []

    class Started:  # stands in for submitit: fold 0 is trained when the test says so
        def submit(self, _):
            return Handle("7", tmp_path / "log", over=lambda: bool(over))

    monkeypatch.setattr(all_trainings, "LocalJobs", Started)
    asked = TrainAllRequest.of(dataset=TRAINED, configurations=("3d_fullres",), folds=(0, 1), choose=True)
    job, notes = train_all(workspace, asked), []
    while not any(isinstance(event, Progress) for event in notes):
        notes.append(next(job))
    listed = {training.folder.fold: training for training in Follower(workspace).look()}
    assert [listed[fold].status for fold in (0, 1)] == ["waiting", "waiting"]
    assert listed[0].job.told.startswith("job 7 on ") and listed[1].job.told.startswith("a job on ")
    assert call_off(listed[1].folder, workspace)
    finish(workspace, "3d_fullres", 0)
    over.append(True)
    result = drain(job)
    assert result.finished == ("3d_fullres fold 0",)
    assert result.failed == {"3d_fullres fold 1": "it was cancelled", "choosing": "it needs 3d_fullres fold 1"}
    assert submitted(workspace.results) == []
