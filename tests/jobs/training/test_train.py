"""A training learns, leaves the files it promises, and is not mixed up with others."""

from __future__ import annotations

import json
import math
import os
import threading
from contextlib import closing
from functools import partial
from threading import current_thread

import numpy as np
import pytest
from trainings import MODEL, SHORT, folder_of, of, run, same

from helpers import TRAINED
from napari_nnunet.cli import main
from napari_nnunet.engine.batches.batch import Batch, Drawn
from napari_nnunet.errors import ModelError, SettingsError
from napari_nnunet.events import (
    Ended,
    EpochDone,
    Note,
    Previewed,
    Progress,
    drain,
    from_json,
)
from napari_nnunet.formats.images.files import read_labels, read_volume
from napari_nnunet.formats.model.checkpoint import read_raw
from napari_nnunet.formats.model.fold import FoldFolder, Wishes
from napari_nnunet.formats.model.folder import load_model
from napari_nnunet.formats.results.summary import Summary
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.jobs.planning.cost import training_costs
from napari_nnunet.jobs.prediction.predict import predict
from napari_nnunet.jobs.training import begin as begin_module
from napari_nnunet.jobs.training.train import train, validate
from napari_nnunet.processes import tracking
from napari_nnunet.schema.requests.training import TrainRequest


@pytest.mark.usefixtures("pictures")
def test_a_training_leaves_a_model_its_logs_and_its_validation(workspace):
    result, events = run(workspace)
    folder = folder_of(workspace)
    assert result.finished
    assert result.epochs == 3
    epochs = of(EpochDone, events)
    assert [e.epoch for e in epochs] == [0, 1, 2]
    assert epochs[-1].train_loss < epochs[0].train_loss
    assert epochs[0].names == ("organ", "lesion")
    assert [e.rate for e in epochs] == pytest.approx([0.01, 0.01 * (2 / 3) ** 0.9, 0.01 * (1 / 3) ** 0.9])
    assert folder.final.is_file()
    assert not folder.latest.exists()
    assert of(Ended, events)[-1].how == "finished"
    content = read_raw(folder.final)
    assert [len(values) for values in content["logging"].values()] == [3] * 8
    assert content["inference_allowed_mirroring_axes"] == (0, 1, 2)
    stored = [from_json(line) for line in folder.events.read_text(encoding="utf-8").splitlines()]
    assert [e.epoch for e in of(EpochDone, stored)] == [0, 1, 2]
    assert len(of(Previewed, stored)) == 3
    assert np.load(folder.film / "epoch_00003.npy").shape == np.load(folder.film / "image.npy").shape
    text = next(folder.path.glob("training_log_*.txt")).read_text(encoding="utf-8")
    assert text.count("train_loss") == 3
    assert (folder.path / "progress.png").stat().st_size > 5000
    assert json.loads((folder.path / "debug.json").read_text(encoding="utf-8"))["validation_cases"]
    for name in ("plans.json", "dataset.json"):
        assert (folder.path.parent / name).is_file()
    assert folder.runner() is None


def test_the_validation_is_what_the_model_predicts(workspace):
    run(workspace)
    folder = folder_of(workspace)
    model = load_model(folder.path.parent)
    scores = Summary.read(folder.validation / "summary.json", ending=".nii.gz").worst_first
    for score in scores:
        mine, _ = read_labels(score.prediction)
        volume = read_volume([workspace.raw / TRAINED / "imagesTr" / f"{score.name}_0000.nii.gz"])
        again = drain(predict(model, volume)).labels
        assert (mine == again).mean() > 0.999
        truth, _ = read_labels(score.reference)
        for label, dice in score.dice.items():
            a, b = truth == int(label), mine == int(label)
            assert dice == pytest.approx(2 * (a & b).sum() / (a.sum() + b.sum()), nan_ok=True)
    means = [score.mean for score in scores if not math.isnan(score.mean)]
    assert means == sorted(means)


def test_the_same_seed_repeats_a_training_and_another_does_not(workspace, tmp_path):
    states = []
    for seed, workers in ((0, 0), (0, 2), (1, 0)):
        other = Workspace(workspace.raw, workspace.preprocessed, tmp_path / f"{seed}{workers}")
        run(other, settings=SHORT.replace(seed=seed, workers=workers, epochs=1), validation=False)
        states.append(read_raw(folder_of(other).final))
    same(states[0], states[1])
    assert states[0]["logging"]["train_losses"] != states[2]["logging"]["train_losses"]


def test_a_new_training_puts_the_earlier_one_aside(workspace):
    first, _ = run(workspace, validation=False)
    before = first.folder.final.read_bytes()
    second, events = run(workspace, settings=SHORT.replace(seed=3), validation=False)
    kept = list((second.folder.path.parent / "trash").glob("fold_0 */checkpoint_final.pth"))
    assert [path.read_bytes() for path in kept] == [before]
    assert any("was moved to" in note.text for note in of(Note, events))
    assert load_model(second.folder.path.parent).folds() == (0,)


def test_the_running_training_is_known_and_not_started_twice(workspace):
    job = train(
        workspace,
        TrainRequest.like(SHORT, dataset=TRAINED, configuration="3d_fullres", fold=0),
    )
    for event in job:
        if isinstance(event, Progress):
            break
    folder = folder_of(workspace)
    assert folder.runner().pid == os.getpid()
    entry = json.loads((folder.path / "running.json").read_text(encoding="utf-8"))
    (folder.path / "running.json").write_text(json.dumps({**entry, "pid": os.getppid(), "created": 1.0}))
    assert folder.runner() is None  # another process has got that number since
    parent = __import__("psutil").Process(os.getppid())
    (folder.path / "running.json").write_text(json.dumps({**entry, "pid": parent.pid, "created": parent.create_time()}))
    with pytest.raises(SettingsError, match="already being trained"):
        drain(
            train(
                workspace,
                TrainRequest.like(SHORT, dataset=TRAINED, configuration="3d_fullres", fold=0),
            )
        )
    job.close()


def test_without_checkpoints_only_logs_and_validation_are_left(workspace):
    result, _ = run(workspace, settings=SHORT.replace(checkpoints=False))
    assert not result.folder.checkpoints
    assert (result.folder.validation / "summary.json").is_file()


@pytest.mark.parametrize("ending", ["NoDA", "BN", "Adam", "NoDeepSupervision", "Topk10LossLS01", "_onlyMirror01"])
def test_trainer_variants_are_written_down_as_nnunet_names_them(workspace, ending):
    settings = SHORT.replace(trainer=f"nnUNetTrainer{ending}", epochs=1)
    result, _ = run(workspace, settings=settings)
    content = read_raw(result.folder.final)
    assert content["trainer_name"] == f"nnUNetTrainer{ending}"
    axes = {"NoDA": None, "_onlyMirror01": (0, 1)}
    assert content["inference_allowed_mirroring_axes"] == axes.get(ending, (0, 1, 2))
    assert ("encoder.stages.0.0.convs.0.norm.running_mean" in content["network_weights"]) == (ending == "BN")


def test_validation_can_be_done_again_with_the_best(workspace):
    run(workspace, validation=False)
    result = drain(
        validate(
            workspace,
            TrainRequest.like(SHORT, dataset=TRAINED, configuration="3d_fullres", fold=0, validate_best=True),
        )
    )
    assert result.validation.dice is not None
    with pytest.raises(ModelError, match=r"no checkpoint_final.pth"):
        drain(
            validate(
                workspace,
                TrainRequest.like(SHORT, dataset=TRAINED, configuration="3d_fullres", fold=1),
            )
        )


def test_a_fold_is_not_validated_by_two_at_once_nor_while_it_is_trained(workspace):
    run(workspace, validation=False)
    again = TrainRequest.like(SHORT, dataset=TRAINED, configuration="3d_fullres", fold=0, validate_best=True)
    first = validate(workspace, again)
    with closing(first):
        while folder_of(workspace).runner() is None:
            next(first)
        for job in (validate(workspace, again), train(workspace, again)):
            with pytest.raises(SettingsError, match="Fold 0 of .* is already being validated by process"):
                drain(job)
    drain(validate(workspace, again))


def test_probabilities_are_kept_where_asked_for(workspace):
    result, _ = run(workspace, settings=SHORT.replace(probabilities=True, epochs=1))
    labels, _ = read_labels(next(result.folder.validation.glob("*.nii.gz")))
    with np.load(next(result.folder.validation.glob("*.npz"))) as archive:
        probabilities = archive["probabilities"]
    assert (probabilities.argmax(0) == labels).mean() > 0.999
    assert len(list(result.folder.validation.glob("*.pkl"))) == len(list(result.folder.validation.glob("*.npz")))


def test_augmenting_on_the_device_is_the_same_training_on_a_cpu(workspace, tmp_path):
    states = []
    for where in ("workers", "device"):
        other = Workspace(workspace.raw, workspace.preprocessed, tmp_path / where)
        run(other, settings=SHORT.replace(augment_on=where, epochs=1, workers=1), validation=False)
        states.append(read_raw(folder_of(other).final))
    assert states[0]["logging"]["train_losses"] == pytest.approx(states[1]["logging"]["train_losses"], rel=1e-4)


@pytest.mark.parametrize("where", ["workers", "device"])
def test_batches_that_are_brought_to_a_gpu_ahead_are_the_same_training(workspace, tmp_path, monkeypatch, where):
    settings, states, threads = SHORT.replace(augment_on=where, epochs=1, workers=1), [], set()
    for name in ("plain", "ahead"):
        other = Workspace(workspace.raw, workspace.preprocessed, tmp_path / name)
        if name == "ahead":  # as on a GPU, but for the memory that is pinned and the stream
            for kind in (Batch, Drawn):
                monkeypatch.setattr(kind, "pin_memory", lambda self: threads.add(current_thread().name) or self)
            pinned = partial(lambda real, *a, **named: real(*a, **{**named, "pinned": True}), begin_module.BatchLoader)
            monkeypatch.setattr(begin_module, "BatchLoader", pinned)
        run(other, settings=settings, validation=False)
        states.append(read_raw(folder_of(other).final))
    same(*states)
    assert threads and all(name.startswith("batches") for name in threads)
    assert not any(thread.name.startswith("batches") for thread in threading.enumerate())


def test_the_python_door_trains_too(prepared, tmp_path, monkeypatch):
    import napari_nnunet

    for name, path in (("nnUNet_raw", prepared), ("nnUNet_preprocessed", prepared), ("nnUNet_results", tmp_path)):
        monkeypatch.setenv(name, str(path / name))
    seen = []
    result = napari_nnunet.train("6", "3d_fullres", 1, settings=SHORT, epochs=1, on_event=seen.append)
    assert result.validation.per_class.keys() == {"1", "2"}
    assert len(of(EpochDone, seen)) == 1


def test_figures_of_a_training_go_to_a_tracker_also_when_it_is_resumed(workspace, monkeypatch):
    runs = []

    class Tracker:
        def __init__(self, about):
            runs.append((about, []))

        def scalars(self, step, values):
            runs[-1][1].append((step, sorted(values)[-1]))

        def close(self, how):
            runs[-1][1].append(how)

    monkeypatch.setattr(tracking, "_TRACKERS", {"mlflow": Tracker})
    monkeypatch.setattr(tracking, "find_spec", lambda _: True)
    settings = SHORT.replace(track=("mlflow",))
    run(workspace, settings=settings.replace(epochs=1), validation=False)
    run(workspace, settings=settings.replace(epochs=2), resume=True)
    assert [about.folder for about, _ in runs] == [folder_of(workspace).path] * 2
    assert runs[0][0].settings["epochs"] == "1" and runs[0][0].settings["fold"] == "0"
    assert [entry[0] for _, seen in runs for entry in seen[:-1]] == [0, 1, 1]
    assert runs[1][1][-2:] == [(1, "validation/dice"), "finished"]


def test_the_command_line_trains_validates_and_talks_to_a_running_training(prepared, tmp_path, monkeypatch, capsys):
    for name, path in (("nnUNet_raw", prepared), ("nnUNet_preprocessed", prepared), ("nnUNet_results", tmp_path)):
        monkeypatch.setenv(name, str(path / name))
    words = ["train", TRAINED, "3d_fullres", "0"]
    short = ["--epochs", "1", "--iterations", "3", "--validation_iterations", "1", "--workers", "0", "-device", "cpu"]
    assert main([*words, *short, "--val_best"]) == 0
    assert "Mean validation Dice" in capsys.readouterr().out
    assert main([*words, "--val", "-device", "cpu"]) == 0
    assert main([*words, "--stop"]) == 1
    assert "not being trained now" in capsys.readouterr().err
    folder = FoldFolder.at(tmp_path / "nnUNet_results" / TRAINED / MODEL, 0)
    with folder.claimed():
        assert main([*words, "--finish-in", "5"]) == 0
        assert folder.wishes() == Wishes(finish_in=5)
    for wrong, said in (
        (["--c", "--val"], "cannot be combined"),
        (["--time-budget", "soon"], "not a duration"),
        (["--epochs", "0"], "'epochs' (--epochs) cannot be 0"),
        (["--seed", "-1"], "'seed' (--seed) cannot be -1"),
    ):
        assert main([*words, *wrong]) == 1
        assert said in capsys.readouterr().err


def test_how_long_its_steps_took_is_what_the_next_plan_says(workspace):
    run(workspace, settings=SHORT.replace(threads=0))
    found = load_model(folder_of(workspace).path.parent)
    costs = drain(
        training_costs(workspace.preprocessed / TRAINED, found.plans, found.dataset, ["3d_fullres"], device="cpu")
    )
    assert costs["3d_fullres"].real and costs["3d_fullres"].hours_per_fold > 0
