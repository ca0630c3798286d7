"""A training is stopped or killed anywhere and continues to the bit."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import psutil
import pytest
from trainings import MODEL, SHORT, folder_of, of, run, same

from helpers import TRAINED, Recipe
from napari_nnunet.cli import main
from napari_nnunet.engine.network.device import BackendChoice
from napari_nnunet.events import (
    CaseDone,
    EpochDone,
    Note,
    Progress,
    drain,
)
from napari_nnunet.formats.images.files import read_labels, write_labels
from napari_nnunet.formats.model.checkpoint import OWN, read_raw
from napari_nnunet.formats.model.fold import FoldFolder
from napari_nnunet.formats.results.summary import Summary
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.jobs.training import begin as _begin
from napari_nnunet.jobs.training import session as _session
from napari_nnunet.jobs.training import train as _train
from napari_nnunet.jobs.training.prepare import prepare_training
from napari_nnunet.jobs.training.train import train
from napari_nnunet.processes.launch import request_of
from napari_nnunet.schema.requests.training import TrainRequest


def _stop_after(steps, workspace, settings):
    """Resume, and close the job after some steps; returns whether it was not at its end by then."""
    request = TrainRequest.like(
        settings, dataset=TRAINED, configuration="3d_fullres", fold=0, resume=True, validation=False
    )
    job, seen = train(workspace, request), 0
    for event in job:
        seen += isinstance(event, Progress)
        if seen == steps:
            job.close()
            return True
    return False


def test_stopped_anywhere_and_resumed_equals_uninterrupted(workspace, tmp_path):
    whole, _ = run(workspace, validation=False)
    expected = read_raw(whole.folder.final)
    other = Workspace(workspace.raw, workspace.preprocessed, tmp_path / "other")
    # within epochs, at their ends, twice in one
    stops = [_stop_after(steps, other, SHORT) for steps in (2, 3, 5, 1, 30)]
    assert stops == [True, True, True, True, False]
    same(expected, read_raw(folder_of(other).final))


def test_weights_of_classes_are_kept_without_being_named_again(workspace, tmp_path):
    weighted = SHORT.replace(class_weights={"lesion": 7.0})
    plain = read_raw(run(workspace, settings=SHORT.replace(epochs=1), validation=False)[0].folder.final)
    other = Workspace(workspace.raw, workspace.preprocessed, tmp_path / "other")
    run(other, settings=weighted.replace(epochs=1), validation=False)
    first = read_raw(folder_of(other).final)
    assert first["logging"]["train_losses"] != plain["logging"]["train_losses"]
    result, events = run(other, settings=SHORT.replace(epochs=2), resume=True, validation=False)
    whole = Workspace(workspace.raw, workspace.preprocessed, tmp_path / "whole")
    content = read_raw(result.folder.final)
    assert content[OWN]["class_weights"] == {"lesion": 7.0}
    assert not [note for note in of(Note, events) if "class weights" in note.text]
    assert request_of(result.folder, other).settings.class_weights == {"lesion": 7.0}
    run(whole, settings=weighted.replace(epochs=1), validation=False)
    again, _ = run(whole, settings=weighted.replace(epochs=2), resume=True, validation=False)
    same(content, read_raw(again.folder.final))
    _, events = run(
        other, settings=SHORT.replace(epochs=3, class_weights={"organ": 2.0}), resume=True, validation=False
    )
    assert any("were lesion=7 until here, and are organ=2 from here on" in note.text for note in of(Note, events))
    assert read_raw(folder_of(other).final)[OWN]["class_weights"] == {"organ": 2.0}


def test_what_began_as_scribbles_goes_on_as_scribbles(new_workspace, tmp_path, monkeypatch):
    monkeypatch.setattr("napari_nnunet.jobs.training.prepare.has_whole_parts", lambda _: False)  # else nothing differs
    labels = {"background": 0, "organ": 1, "lesion": 2, "ignore": 3}
    place = new_workspace(Recipe(labels=labels))
    losses = {}
    for scribbles in (True, False):
        other = Workspace(place.raw, place.preprocessed, tmp_path / str(scribbles))
        _, events = run(other, settings=SHORT.replace(epochs=1, scribbles=scribbles), validation=False)
        assert any("Trained as scribbles, but" in note.text for note in of(Note, events)) is scribbles
        result, _ = run(other, settings=SHORT.replace(epochs=2), resume=True, validation=False)
        content = read_raw(result.folder.final)
        assert content[OWN]["scribbles"] is scribbles
        assert request_of(result.folder, other).settings.scribbles is scribbles
        losses[scribbles] = content["logging"]["train_losses"]
    assert all(a != b for a, b in zip(*losses.values(), strict=True))


def test_cases_of_which_more_is_annotated_are_drawn_more_often_and_old_trainings_go_on_as_they_began(
    new_workspace, tmp_path
):
    import torch

    labels = {"background": 0, "organ": 1, "lesion": 2, "ignore": 3}
    place = new_workspace(Recipe(labels=labels))
    for path in sorted((place.raw / TRAINED / "labelsTr").iterdir())[1:]:  # one slice of the others
        whole, geometry = read_labels(path)
        sparse = np.full_like(whole, 3)
        sparse[6] = whole[6]
        write_labels(sparse, geometry, path)
    request = TrainRequest.like(SHORT, dataset=TRAINED, configuration="3d_fullres", fold="all")
    drain(prepare_training(place, [request]))
    said = "they are drawn up to"
    first, events = run(place, fold="all", settings=SHORT.replace(epochs=1), validation=False)
    assert any(said in note.text for note in of(Note, events))
    content = torch.load(first.folder.final, weights_only=False)
    assert content[OWN]["favours_annotated"] is True
    places = [Workspace(place.raw, place.preprocessed, tmp_path / how) for how in ("interrupted", "old")]
    settings = SHORT.replace(epochs=2)
    for other in places:
        shutil.copytree(place.results, other.results)
    _, events = run(places[0], fold="all", settings=settings, resume=True, validation=False)
    assert any(said in note.text for note in of(Note, events))
    del content[OWN]["favours_annotated"]
    torch.save(content, folder_of(places[1], "all").final)
    _, events = run(places[1], fold="all", settings=settings, resume=True, validation=False)
    assert not any(said in note.text for note in of(Note, events))
    again, old = (read_raw(folder_of(other, "all").final) for other in places)
    assert not old[OWN]["favours_annotated"]
    assert again["logging"]["train_losses"][0] == old["logging"]["train_losses"][0]
    assert again["logging"]["train_losses"][1] != old["logging"]["train_losses"][1]


@pytest.mark.slow
def test_killed_and_resumed_equals_uninterrupted(workspace, tmp_path):
    arguments = [
        "train", TRAINED, "3d_fullres", "0", "--epochs", "4", "--iterations", "12", "--validation_iterations", "2",
        "-device", "cpu", "--threads", "1", "--workers", "1", "--val_best", "--no_pbar", "--seed", "7",
    ]  # fmt: skip
    results = []
    for name, kills in (("whole", 0), ("killed", 3)):
        place = {"nnUNet_raw": workspace.raw, "nnUNet_preprocessed": workspace.preprocessed}
        results.append(tmp_path / name)
        environment = {**os.environ, **{k: str(v) for k, v in place.items()}, "nnUNet_results": str(results[-1])}
        command = [sys.executable, "-m", "napari_nnunet", *arguments]
        folder = FoldFolder.at(results[-1] / TRAINED / MODEL, 0)
        for kill in range(kills):
            process = subprocess.Popen([*command, *(["--c"] if kill else [])], env=environment)
            before = folder.latest.stat().st_mtime_ns if folder.latest.exists() else 0
            deadline = time.monotonic() + 300
            while time.monotonic() < deadline and process.poll() is None:
                if folder.latest.exists() and folder.latest.stat().st_mtime_ns != before:
                    break
                time.sleep(0.01)
            time.sleep(0.15)
            workers = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
            process.send_signal(signal.SIGKILL)
            process.wait()
            assert psutil.wait_procs(workers, timeout=300)[1] == []  # nobody is left waiting for it
        subprocess.run([*command, *(["--c"] if kills else [])], env=environment, check=True)
        assert folder.runner() is None
    a, b = (read_raw(FoldFolder.at(path / TRAINED / MODEL, 0).final) for path in results)
    same(a, b)
    assert b[OWN]["seed"] == 7


def test_stop_and_finish_are_obeyed_by_a_running_training(workspace):
    long = SHORT.replace(epochs=50)
    job = train(
        workspace,
        TrainRequest.like(long, dataset=TRAINED, configuration="3d_fullres", fold=0, validation=False),
    )
    folder, ends = folder_of(workspace), []
    for event in job:
        if isinstance(event, EpochDone) and event.epoch == 0:
            folder.ask(finish_in=2)
        if isinstance(event, EpochDone):
            ends.append(event)
    assert [e.epochs for e in ends] == [50, 3, 3]
    assert ends[1].rate == pytest.approx(0.01 * (49 / 50) ** 0.9)
    assert ends[2].rate == pytest.approx(ends[1].rate * 0.5**0.9)
    assert folder.final.is_file()
    again = train(
        workspace,
        TrainRequest.like(
            long.replace(epochs=9), dataset=TRAINED, configuration="3d_fullres", fold=0, resume=True, validation=False
        ),
    )
    for event in again:  # a finished training is extended
        if isinstance(event, EpochDone):
            assert event.epoch >= 3
            assert event.epochs == 9
            folder.ask(stop=True)
    assert read_raw(folder.latest)["current_epoch"] == 4


def test_resuming_from_a_window_keeps_what_was_changed_while_it_ran(workspace):
    job = train(
        workspace,
        TrainRequest.like(
            SHORT.replace(epochs=40, seed=4), dataset=TRAINED, configuration="3d_fullres", fold=0, validation=False
        ),
    )
    folder = folder_of(workspace)
    for event in job:
        if isinstance(event, EpochDone) and event.epoch == 0:
            folder.ask(finish_in=5)
        if isinstance(event, EpochDone) and event.epoch == 2:
            folder.ask(stop=True)
    request = request_of(folder, workspace)
    assert (request.dataset, request.configuration, request.plans, request.folds) == (TRAINED, "3d_fullres", "nnUNetPlans", (0,))  # fmt: skip
    words = request.arguments()
    assert "--epochs" not in words
    assert "--c" in words
    assert words[words.index("--seed") + 1] == "4"
    _, events = run(workspace, settings=request.settings, resume=True, validation=False)
    assert of(EpochDone, events)[-1].epochs == 6
    longer = request.lasting(50).arguments()
    assert longer[longer.index("--epochs") + 1] == "50"
    assert request.finishing(3).requests[0].finish_in == 3


def test_cancelled_while_it_validates_and_resumed_it_only_validates(workspace):
    job = train(
        workspace,
        TrainRequest.like(SHORT, dataset=TRAINED, configuration="3d_fullres", fold="all"),
    )
    for event in job:
        if isinstance(event, CaseDone) and event.index == 1:
            job.close()
            break
    folder = folder_of(workspace, "all")
    assert folder.final.is_file()
    assert not (folder.validation / "summary.json").exists()
    result, events = run(workspace, "all", resume=True)
    assert not of(EpochDone, events)
    assert len(Summary.read(result.folder.validation / "summary.json", ending=".nii.gz").worst_first) == 5


def test_stopping_a_fold_stops_those_after_it(prepared, tmp_path, monkeypatch, capsys):
    for name, path in (("nnUNet_raw", prepared), ("nnUNet_preprocessed", prepared), ("nnUNet_results", tmp_path)):
        monkeypatch.setenv(name, str(path / name))
    learn, seen = _session.Session.learn, []

    def stop(self):
        seen.append(self.order.fold)
        self.folder.ask(stop=True)
        return learn(self)

    monkeypatch.setattr(_session.Session, "learn", stop)
    words = ["--epochs", "2", "--iterations", "3", "--workers", "0", "-device", "cpu"]
    assert main(["train", TRAINED, "3d_fullres", "0", "1", *words]) == 0
    assert seen == [0]
    assert "Fold 0 was stopped; --c resumes it. Not started: 1." in capsys.readouterr().out
    (weights,) = tmp_path.rglob("checkpoint_latest.pth")
    assert main(["train", TRAINED, "3d_fullres", "2", "3", *words, "-pretrained_weights", str(weights)]) == 0
    told = "Not started: 3. Start these again as before, without --c, which is refused for what was not begun."
    assert told in capsys.readouterr().out
    assert main(["train", TRAINED, "3d_fullres", "3", *words, "--c"]) == 1
    assert "cannot be resumed" in capsys.readouterr().err


def test_a_training_keeps_the_normalisation_it_began_with(workspace):
    """Results of both ways differ in the last bits; checkpoints of earlier releases do not name theirs."""
    import torch

    first, _ = run(workspace, settings=SHORT.replace(epochs=2), validation=False)
    own = read_raw(first.folder.final)["napari_nnunet"]
    assert (own["norms"], own["biases"]) == ("samples", "rounded")
    for epochs, forgotten, expected in ((3, "biases", ("samples", "apart")), (4, "norms", ("torch", "within"))):
        content = torch.load(first.folder.final, weights_only=False)
        del content["napari_nnunet"][forgotten]
        torch.save(content, first.folder.final)
        run(workspace, settings=SHORT.replace(epochs=epochs), resume=True, validation=False)
        own = read_raw(first.folder.final)["napari_nnunet"]
        assert (own["norms"], own["biases"]) == expected


def test_a_long_training_normalises_by_compiled_loops_and_goes_on_without_where_there_are_none(workspace, monkeypatch):
    from napari_nnunet.engine.network.norms import compiled

    pytest.importorskip("numba", reason="compiled loops are an extra")
    monkeypatch.setattr(_begin, "worth_compiling", lambda *_: True)
    first, _ = run(workspace, settings=SHORT.replace(epochs=2), validation=False)
    assert read_raw(first.folder.final)["napari_nnunet"]["norms"] == "kernels"
    again, notes = run(workspace, settings=SHORT.replace(epochs=3), resume=True, validation=False)
    assert read_raw(again.folder.final)["napari_nnunet"]["norms"] == "kernels"
    assert not [note for note in of(Note, notes) if "numba" in note.text]
    monkeypatch.setattr(compiled, "is_ready", lambda _: False)
    last, notes = run(workspace, settings=SHORT.replace(epochs=4), resume=True, validation=False)
    assert read_raw(last.folder.final)["napari_nnunet"]["norms"] == "samples"
    assert [note for note in of(Note, notes) if "began with loops that numba compiled" in note.text]


def test_a_training_keeps_the_arithmetic_it_began_with_and_repeats_it_to_the_bit(workspace, tmp_path, monkeypatch):
    short = SHORT.replace(epochs=2, precision="bfloat16")
    whole, _ = run(workspace, settings=short, validation=False)
    expected = read_raw(whole.folder.final)
    assert expected[OWN]["precision"] == "bfloat16"
    other = Workspace(workspace.raw, workspace.preprocessed, tmp_path / "other")
    _stop_after(5, other, short)
    # Asked for nothing, a narrow network like this would learn in float32.
    again, _ = run(other, settings=SHORT.replace(epochs=2), resume=True, validation=False)
    same(expected, read_raw(again.folder.final))

    for place, name, answer, lack in (
        (workspace, "has_fast_bfloat16", False, "this processor does not have"),
        (other, "fails_in_bfloat16", True, "fails for such flat patches on this processor"),
    ):
        with monkeypatch.context() as patched:
            patched.setattr(_begin, name, lambda *_, answer=answer: answer)
            elsewhere, events = run(place, settings=SHORT.replace(epochs=3), resume=True, validation=False)
        assert any(f"began in bfloat16, which {lack}" in note.text for note in of(Note, events))
        assert read_raw(elsewhere.folder.final)[OWN]["precision"] == "float32"


def test_trainings_of_earlier_releases_continue_in_float32_whatever_is_faster_here(workspace, monkeypatch):
    import torch

    first, _ = run(workspace, settings=SHORT.replace(epochs=1), validation=False)
    content = torch.load(first.folder.final, weights_only=False)
    del content[OWN]["precision"]
    torch.save(content, first.folder.final)
    faster = BackendChoice("cpu", "torch", "bfloat16", "measured", 1)
    monkeypatch.setattr(_train, "training_choice", lambda *_: faster)
    again, _ = run(workspace, settings=SHORT.replace(epochs=2), resume=True, validation=False)
    assert read_raw(again.folder.final)[OWN]["precision"] == "float32"
    fresh, _ = run(workspace, settings=SHORT.replace(epochs=1), validation=False)
    assert read_raw(fresh.folder.final)[OWN]["precision"] == "bfloat16"
