"""Training: it learns, it stops and goes on to the bit, and it says what is wrong before it works."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
import torch

from helpers import TRAINED, Recipe, make_trainable
from napari_nnunet.cli import main
from napari_nnunet.engine.batches.patches import patch_rule
from napari_nnunet.engine.training.optimizers import poly_rate
from napari_nnunet.errors import DatasetError, ModelError, PlanError, ResourceError, SettingsError, TrainingError
from napari_nnunet.events import (
    CaseDone,
    CheckpointSaved,
    EpochDone,
    Note,
    Previewed,
    Progress,
    TrainingEnded,
    drain,
    from_json,
)
from napari_nnunet.formats.images.files import read_labels, read_volume
from napari_nnunet.formats.model.checkpoint import OWN, read_raw
from napari_nnunet.formats.model.fold import FoldFolder
from napari_nnunet.formats.model.folder import load_model
from napari_nnunet.formats.preprocessed.cases import case_files
from napari_nnunet.formats.results.summary import read_scores
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.jobs.prediction.predict import predict
from napari_nnunet.jobs.training import session as _session
from napari_nnunet.jobs.training.train import train, validate
from napari_nnunet.processes.launch import request_of
from napari_nnunet.schema.requests.training import TrainSettings

SHORT = TrainSettings(epochs=3, iterations=4, validation_iterations=2, workers=0, device="cpu", threads=1)
MODEL = "nnUNetTrainer__nnUNetPlans__3d_fullres"


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return make_trainable(tmp_path_factory.mktemp("train"))


@pytest.fixture
def workspace(prepared, tmp_path):
    """The prepared dataset with results of its own."""
    whole = Workspace.at(prepared)
    return Workspace(whole.raw, whole.preprocessed, tmp_path / "results")


@pytest.fixture
def new_workspace(tmp_path):
    def make(recipe=None, **options):
        return Workspace.at(make_trainable(tmp_path / "own", recipe, **options))

    return make


def run(workspace, fold=0, *, settings=SHORT, configuration="3d_fullres", **options):
    events = []
    result = drain(train(workspace, TRAINED, configuration, fold, settings=settings, **options), events.append)
    return result, events


def folder_of(workspace, fold=0, model=MODEL):
    return FoldFolder.at(workspace.results / TRAINED / model, fold)


def of(kind, events):
    return [event for event in events if isinstance(event, kind)]


def same(a, b):
    """Whether two trained states are equal to the bit: weights, momentum, log."""
    for key, tensor in a["network_weights"].items():
        assert torch.equal(tensor, b["network_weights"][key]), key
    first, second = a["optimizer_state"]["state"], b["optimizer_state"]["state"]
    assert first.keys() == second.keys()
    for key in first:
        assert torch.equal(first[key]["momentum_buffer"], second[key]["momentum_buffer"])
    for name in ("train_losses", "val_losses", "lrs", "ema_fg_dice", "dice_per_class_or_region"):
        assert str(a["logging"][name]) == str(b["logging"][name])
    assert a["_best_ema"] == b["_best_ema"]
    assert a["current_epoch"] == b["current_epoch"]


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
    assert of(TrainingEnded, events)[-1].how == "finished"
    content = read_raw(folder.final)
    assert [len(values) for values in content["logging"].values()] == [3] * 8
    assert content["inference_allowed_mirroring_axes"] == (0, 1, 2)
    stored = [from_json(line) for line in folder.events.read_text().splitlines()]
    assert [e.epoch for e in of(EpochDone, stored)] == [0, 1, 2]
    assert len(of(Previewed, stored)) == 3
    assert np.load(folder.film / "epoch_00003.npy").shape == np.load(folder.film / "image.npy").shape
    text = next(folder.path.glob("training_log_*.txt")).read_text()
    assert text.count("train_loss") == 3
    assert (folder.path / "progress.png").stat().st_size > 5000
    assert json.loads((folder.path / "debug.json").read_text())["validation_cases"]
    for name in ("plans.json", "dataset.json"):
        assert (folder.path.parent / name).is_file()
    assert folder.runner() is None


def test_the_validation_is_what_the_model_predicts(workspace):
    run(workspace)
    folder = folder_of(workspace)
    model = load_model(folder.path.parent)
    scores = read_scores(folder.validation / "summary.json", ending=".nii.gz")
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


def test_stopped_anywhere_and_resumed_equals_uninterrupted(workspace, tmp_path):
    whole, _ = run(workspace, validation=False)
    expected = read_raw(whole.folder.final)
    other = Workspace(workspace.raw, workspace.preprocessed, tmp_path / "other")
    stops = 0
    for steps in (2, 3, 5, 1, 30):  # within epochs, at their ends, twice in one
        job = train(other, TRAINED, "3d_fullres", 0, settings=SHORT, resume=True, validation=False)
        seen = 0
        for event in job:
            seen += isinstance(event, Progress)
            if seen == steps:
                job.close()
                stops += 1
                break
    assert stops == 4
    same(expected, read_raw(folder_of(other).final))


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
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline and process.poll() is None:
                if folder.latest.exists() and folder.latest.stat().st_mtime_ns != before:
                    break
                time.sleep(0.01)
            time.sleep(0.15)
            workers = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
            process.send_signal(signal.SIGKILL)
            process.wait()
            assert psutil.wait_procs(workers, timeout=30)[1] == []  # nobody is left waiting for it
        subprocess.run([*command, *(["--c"] if kills else [])], env=environment, check=True)
        assert folder.runner() is None
    a, b = (read_raw(FoldFolder.at(path / TRAINED / MODEL, 0).final) for path in results)
    same(a, b)
    assert b[OWN]["seed"] == 7


def test_the_same_seed_repeats_a_training_and_another_does_not(workspace, tmp_path):
    states = []
    for seed, workers in ((0, 0), (0, 2), (1, 0)):
        other = Workspace(workspace.raw, workspace.preprocessed, tmp_path / f"{seed}{workers}")
        run(other, settings=SHORT.replace(seed=seed, workers=workers, epochs=1), validation=False)
        states.append(read_raw(folder_of(other).final))
    same(states[0], states[1])
    assert states[0]["logging"]["train_losses"] != states[2]["logging"]["train_losses"]


def test_stop_and_finish_are_obeyed_by_a_running_training(workspace):
    long = SHORT.replace(epochs=50)
    job = train(workspace, TRAINED, "3d_fullres", 0, settings=long, validation=False)
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
    again = train(workspace, TRAINED, "3d_fullres", 0, settings=long.replace(epochs=9), resume=True, validation=False)
    for event in again:  # a finished training is extended
        if isinstance(event, EpochDone):
            assert event.epoch >= 3
            assert event.epochs == 9
            folder.ask(stop=True)
    assert read_raw(folder.latest)["current_epoch"] == 4


def test_resuming_from_a_window_keeps_what_was_changed_while_it_ran(workspace):
    job = train(workspace, TRAINED, "3d_fullres", 0, settings=SHORT.replace(epochs=40, seed=4), validation=False)
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
    assert words[-1] == "--c"
    assert words[words.index("--seed") + 1] == "4"
    _, events = run(workspace, settings=request.settings, resume=True, validation=False)
    assert of(EpochDone, events)[-1].epochs == 6
    longer = request.lasting(50).arguments()
    assert longer[longer.index("--epochs") + 1] == "50"
    assert request.finishing(3).arguments()[-2:] == ["--finish_in", "3"]


def test_a_new_training_puts_the_earlier_one_aside(workspace):
    first, _ = run(workspace, validation=False)
    before = first.folder.final.read_bytes()
    second, events = run(workspace, settings=SHORT.replace(seed=3), validation=False)
    kept = list((second.folder.path.parent / "trash").glob("fold_0 */checkpoint_final.pth"))
    assert [path.read_bytes() for path in kept] == [before]
    assert any("was moved to" in note.text for note in of(Note, events))
    assert load_model(second.folder.path.parent).folds() == (0,)


def test_cancelled_while_it_validates_and_resumed_it_only_validates(workspace):
    job = train(workspace, TRAINED, "3d_fullres", "all", settings=SHORT)
    for event in job:
        if isinstance(event, CaseDone) and event.index == 1:
            job.close()
            break
    folder = folder_of(workspace, "all")
    assert folder.final.is_file()
    assert not (folder.validation / "summary.json").exists()
    result, events = run(workspace, "all", resume=True)
    assert not of(EpochDone, events)
    assert len(read_scores(result.folder.validation / "summary.json", ending=".nii.gz")) == 5


def test_the_running_training_is_known_and_not_started_twice(workspace):
    job = train(workspace, TRAINED, "3d_fullres", 0, settings=SHORT)
    for event in job:
        if isinstance(event, Progress):
            break
    folder = folder_of(workspace)
    assert folder.runner().pid == os.getpid()
    entry = json.loads((folder.path / "running.json").read_text())
    (folder.path / "running.json").write_text(json.dumps({**entry, "pid": os.getppid(), "created": 1.0}))
    assert folder.runner() is None  # another process has got that number since
    parent = __import__("psutil").Process(os.getppid())
    (folder.path / "running.json").write_text(json.dumps({**entry, "pid": parent.pid, "created": parent.create_time()}))
    with pytest.raises(SettingsError, match="being trained already"):
        drain(train(workspace, TRAINED, "3d_fullres", 0, settings=SHORT))
    job.close()


def test_early_stop_lets_the_rate_go_to_zero(workspace, monkeypatch):
    monkeypatch.setattr("napari_nnunet.jobs.training.train.pseudo_dice", lambda matches: [0.5, 0.5])
    _, events = run(workspace, settings=SHORT.replace(epochs=60, early_stop=4), validation=False)
    ends = of(EpochDone, events)
    assert len(ends) == 6  # one is the best, four are not better, one to finish
    assert ends[-1].epochs == 6
    assert any("No better pseudo Dice" in note.text for note in of(Note, events))


def falls_to_the_end(ends):
    """Whether every epoch had the learning rate of its place in the length known then, the last one the smallest."""
    rates = [e.rate for e in ends]
    assert rates == pytest.approx([poly_rate(e.epoch, e.epochs) for e in ends])
    return rates[-1] == min(rates) == pytest.approx(poly_rate(len(ends) - 1, len(ends)))


def test_a_time_budget_is_kept(workspace):
    settings = SHORT.replace(epochs=None, iterations=None, validation_iterations=None, time_budget=6.0)
    begun = time.monotonic()
    result, events = run(workspace, settings=settings, validation=False)
    assert 3.0 < time.monotonic() - begun < 60.0
    ends = of(EpochDone, events)
    assert result.epochs == len(ends) >= 2
    assert falls_to_the_end(ends)


@pytest.mark.parametrize(("pace", "shorter"), [(0.25, False), (8.0, True)], ids=["faster", "slower"])
def test_a_time_budget_is_kept_where_the_pace_changes(workspace, monkeypatch, pace, shorter):
    """The computer turns out to be faster, or slower, after five epochs: the length follows, and the rate with it."""
    clock = SimpleNamespace(now=0.0, tick=0.05, time=time.time)

    def monotonic():
        clock.now += clock.tick
        return clock.now

    clock.monotonic = monotonic
    monkeypatch.setattr(_session, "time", clock)
    monkeypatch.setattr("napari_nnunet.jobs.training.train.time", clock)
    events = []

    def see(event):
        events.append(event)
        if isinstance(event, EpochDone) and event.epoch == 4:
            clock.tick *= pace

    settings = SHORT.replace(epochs=None, iterations=None, validation_iterations=None, time_budget=20.0)
    result = drain(train(workspace, TRAINED, "3d_fullres", 0, settings=settings, validation=False), see)
    ends = of(EpochDone, events)
    assert result.epochs == len(ends)
    assert falls_to_the_end(ends)
    planned = ends[0].epochs
    assert len(ends) < planned if shorter else len(ends) > planned
    last = ends[-1].seconds
    assert sum(e.seconds for e in ends) == pytest.approx(20.0, abs=2 * last)


def test_fold_all_and_few_cases(new_workspace):
    workspace = new_workspace(cases=3)
    result, _ = run(workspace, "all")
    assert len(list(result.folder.validation.glob("*.nii.gz"))) == 3
    assert not (workspace.preprocessed / TRAINED / "splits_final.json").exists()
    run(workspace, 2, validation=False)
    assert len(json.loads((workspace.preprocessed / TRAINED / "splits_final.json").read_text())) == 3


@pytest.mark.parametrize(
    ("recipe", "dataset", "names"),
    [
        (Recipe(patch=(16, 16), spacing=(1.0, 1.0), configuration="2d"), {}, ("organ", "lesion")),
        (
            Recipe(labels={"background": 0, "whole": [1, 2], "core": [2], "ignore": 3}),
            {"regions_class_order": [1, 2]},
            ("whole", "core"),
        ),
        (Recipe(labels={"background": 0, "organ": 1, "ignore": 2}), {}, ("organ",)),
        (Recipe(norm="BatchNorm", use_mask=True), {}, ("organ", "lesion")),
    ],
)
def test_other_kinds_of_datasets_learn_too(new_workspace, recipe, dataset, names):
    workspace = new_workspace(recipe, **dataset)
    settings = SHORT.replace(epochs=6)
    result, events = run(workspace, configuration=recipe.configuration, settings=settings)
    ends = of(EpochDone, events)
    assert ends[0].names == names
    assert ends[-1].train_loss < ends[0].train_loss
    assert set(result.validation.per_class) == {str(r) for r in _labels(recipe)}


def _labels(recipe):
    values = [v for k, v in recipe.labels.items() if k not in ("background", "ignore")]
    return [tuple(v) if isinstance(v, list) else v for v in values]


def test_residual_networks_and_thick_slices_learn(new_workspace):
    workspace = new_workspace(Recipe(patch=(4, 16, 16)))
    path = workspace.preprocessed / TRAINED / "nnUNetPlans.json"
    plans = json.loads(path.read_text())
    architecture = plans["configurations"]["3d_fullres"]["architecture"]
    architecture["network_class_name"] = architecture["network_class_name"].replace("PlainConv", "ResidualEncoder")
    own = architecture["arch_kwargs"]
    own["n_blocks_per_stage"] = [1, 1, 2]
    del own["n_conv_per_stage"]
    own["strides"] = [[1, 1, 1], [1, 2, 2], [1, 2, 2]]
    path.write_text(json.dumps(plans))
    result, events = run(workspace, settings=SHORT.replace(epochs=5))
    assert of(EpochDone, events)[-1].train_loss < of(EpochDone, events)[0].train_loss
    assert result.validation.dice is not None
    assert patch_rule((4, 16, 16)).dummy_2d


def test_without_checkpoints_only_logs_and_validation_are_left(workspace):
    result, _ = run(workspace, settings=SHORT.replace(checkpoints=False))
    assert not result.folder.checkpoints
    assert (result.folder.validation / "summary.json").is_file()


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
    assert "Fold 0 was stopped; --c goes on. Not begun: 1." in capsys.readouterr().out


@pytest.mark.parametrize("ending", ["NoDA", "BN", "Adam", "NoDeepSupervision", "Topk10LossLS01", "_onlyMirror01"])
def test_trainer_variants_are_written_down_as_nnunet_names_them(workspace, ending):
    settings = SHORT.replace(trainer=f"nnUNetTrainer{ending}", epochs=1)
    result, _ = run(workspace, settings=settings)
    content = read_raw(result.folder.final)
    assert content["trainer_name"] == f"nnUNetTrainer{ending}"
    axes = {"NoDA": None, "_onlyMirror01": (0, 1)}
    assert content["inference_allowed_mirroring_axes"] == axes.get(ending, (0, 1, 2))
    assert ("encoder.stages.0.0.convs.0.norm.running_mean" in content["network_weights"]) == (ending == "BN")


def test_pretrained_weights_begin_all_but_the_heads(workspace, tmp_path):
    first, _ = run(workspace, validation=False)
    other = Workspace(workspace.raw, workspace.preprocessed, tmp_path / "other")
    job = train(other, TRAINED, "3d_fullres", 0, settings=SHORT.replace(seed=5), pretrained=first.folder.final)
    assert any("weights of" in event.text for event in job if isinstance(event, Note))
    wrong = tmp_path / "w.pth"
    content = read_raw(first.folder.final)
    content["network_weights"] = {k: v for k, v in content["network_weights"].items() if "stages.0" not in k}
    torch.save(content, wrong)
    with pytest.raises(ModelError, match="cannot be a start"):
        run(other, 1, pretrained=wrong)


def test_validation_can_be_done_again_with_the_best(workspace):
    run(workspace, validation=False)
    result = drain(validate(workspace, TRAINED, "3d_fullres", 0, settings=SHORT, checkpoint="checkpoint_best.pth"))
    assert result.validation.dice is not None
    with pytest.raises(ModelError, match=r"no checkpoint_final.pth"):
        drain(validate(workspace, TRAINED, "3d_fullres", 1, settings=SHORT))


def test_probabilities_are_kept_where_asked_for(workspace):
    result, _ = run(workspace, settings=SHORT.replace(probabilities=True, epochs=1))
    labels, _ = read_labels(next(result.folder.validation.glob("*.nii.gz")))
    with np.load(next(result.folder.validation.glob("*.npz"))) as archive:
        probabilities = archive["probabilities"]
    assert (probabilities.argmax(0) == labels).mean() > 0.999
    assert len(list(result.folder.validation.glob("*.pkl"))) == len(list(result.folder.validation.glob("*.npz")))


def test_a_cascade_trains_on_what_its_first_stage_segmented(new_workspace):
    recipe = Recipe(configuration="3d_lowres")
    workspace = new_workspace(recipe)
    base = workspace.preprocessed / TRAINED
    plans = json.loads((base / "nnUNetPlans.json").read_text())
    low = plans["configurations"]["3d_lowres"]
    low["next_stage"] = "3d_cascade_fullres"
    cascade = {**low, "spacing": [0.7, 0.8, 0.9], "data_identifier": "nnUNetPlans_3d_fullres"}
    cascade.pop("next_stage")
    plans["configurations"]["3d_cascade_fullres"] = {**cascade, "previous_stage": "3d_lowres"}
    (base / "nnUNetPlans.json").write_text(json.dumps(plans))
    from helpers import preprocess_here
    from napari_nnunet.formats.dataset.raw_dataset import open_dataset
    from napari_nnunet.formats.preprocessed.cases import open_case, read_next_stage

    preprocess_here(workspace, open_dataset(workspace.raw / TRAINED))
    with pytest.raises(DatasetError, match="Train the folds of 3d_lowres"):
        run(workspace, configuration="3d_cascade_fullres")
    for fold in range(5):
        run(workspace, fold, configuration="3d_lowres", settings=SHORT.replace(epochs=8 if fold == 0 else 1))
    handed = workspace.results / TRAINED / MODEL.replace("fullres", "lowres") / "predicted_next_stage"
    for i in range(5):
        shape = open_case(base / "nnUNetPlans_3d_fullres", f"c{i}").labels.shape[1:]
        found = read_next_stage(handed / "3d_cascade_fullres", f"c{i}")
        assert found.shape == shape
        assert found.dtype == np.uint8
    result, events = run(workspace, configuration="3d_cascade_fullres")
    assert of(EpochDone, events)[-1].train_loss < of(EpochDone, events)[0].train_loss
    assert result.validation.dice is not None
    weights = read_raw(result.folder.final)["network_weights"]
    assert weights["encoder.stages.0.0.convs.0.conv.weight"].shape[1] == 3


def test_augmenting_on_the_device_is_the_same_training_on_a_cpu(workspace, tmp_path):
    states = []
    for where in ("workers", "device"):
        other = Workspace(workspace.raw, workspace.preprocessed, tmp_path / where)
        run(other, settings=SHORT.replace(augment_on=where, epochs=1, workers=1), validation=False)
        states.append(read_raw(folder_of(other).final))
    assert states[0]["logging"]["train_losses"] == pytest.approx(states[1]["logging"]["train_losses"], rel=1e-4)


def test_tensorboard_is_written_where_it_is_installed_and_refused_elsewhere(workspace):
    settings = SHORT.replace(tensorboard=True, epochs=1)
    if importlib.util.find_spec("tensorboard") is None:
        with pytest.raises(SettingsError, match="pip install tensorboard"):
            run(workspace, settings=settings)
    else:
        result, _ = run(workspace, settings=settings, validation=False)
        assert list((result.folder.path / "tensorboard").iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("batch_dice", [False, True])
def test_two_processes_learn_the_same_as_one(new_workspace, tmp_path, batch_dice):
    labels = {"background": 0, "organ": 1, "lesion": 2, "ignore": 3}
    workspace = new_workspace(Recipe(labels=labels))
    path = workspace.preprocessed / TRAINED / "nnUNetPlans.json"
    plans = json.loads(path.read_text())
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
    deadline = time.monotonic() + 120
    while folder.runner() is None and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.1)
    family = psutil.Process(process.pid).children(recursive=True)
    assert len(family) >= 3  # the one that looks after them, and two that compute
    process.kill()
    process.wait()
    assert psutil.wait_procs(family, timeout=60)[1] == []


def test_the_python_door_trains_too(prepared, tmp_path, monkeypatch):
    import napari_nnunet

    for name, path in (("nnUNet_raw", prepared), ("nnUNet_preprocessed", prepared), ("nnUNet_results", tmp_path)):
        monkeypatch.setenv(name, str(path / name))
    seen = []
    result = napari_nnunet.train("6", "3d_fullres", 1, settings=SHORT, epochs=1, on_event=seen.append)
    assert result.validation.per_class.keys() == {"1", "2"}
    assert len(of(EpochDone, seen)) == 1


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
        assert folder.wishes() == {"finish_in": 5}
    for wrong, said in (
        (["--c", "--val"], "exclude each other"),
        (["--time-budget", "soon"], "no duration"),
        (["--epochs", "0"], "'epochs' cannot be 0"),
        (["--seed", "-1"], "'seed' cannot be -1"),
    ):
        assert main([*words, *wrong]) == 1
        assert said in capsys.readouterr().err


# --- bad input ---


def test_what_is_not_there_is_said_before_work_starts(workspace, tmp_path):
    empty = Workspace.at(tmp_path / "empty")
    with pytest.raises(DatasetError, match="plan_and_preprocess"):
        run(empty)
    with pytest.raises(PlanError, match="nnUNetPlans"):
        run(workspace, plans_name="Other")
    with pytest.raises(PlanError, match="3d_lowres"):
        run(workspace, configuration="3d_lowres")
    with pytest.raises(SettingsError, match="no trainer"):
        run(workspace, settings=SHORT.replace(trainer="nnUNetTrainerX"))
    with pytest.raises(SettingsError, match="Adan"):
        run(workspace, settings=SHORT.replace(trainer="nnUNetTrainerAdan"))
    with pytest.raises(DatasetError, match="no fold -1"):
        run(workspace, -1)
    with pytest.raises(SettingsError, match="resumed"):
        run(workspace, resume=True, pretrained=tmp_path / "x.pth")
    with pytest.raises(SettingsError, match="begun"):
        run(workspace, finish_in=3)
    with pytest.raises(SettingsError, match="float16"):
        run(workspace, settings=SHORT.replace(precision="float16"))
    if not torch.cuda.is_available():
        with pytest.raises(ResourceError, match="no CUDA GPU"):
            run(workspace, settings=SHORT.replace(device="cuda"))
    assert not list(workspace.results.glob("**/*.pth"))


def test_not_preprocessed_and_stale(new_workspace):
    workspace = new_workspace()
    base = workspace.preprocessed / TRAINED
    label = workspace.raw / TRAINED / "labelsTr" / "c1.nii.gz"
    os.utime(label, (1e9, 1e9))
    with pytest.raises(DatasetError, match=r"1 of 5 cases.*c1.*preprocess"):
        run(workspace)
    (base / "nnUNetPlans_3d_fullres").rename(base / "gone")
    with pytest.raises(DatasetError, match="not preprocessed"):
        run(workspace)


def test_a_fold_beyond_the_list_is_a_random_split_with_a_warning(workspace):
    _, events = run(workspace, 7, validation=False)
    assert any("80 to 20" in note.text for note in of(Note, events))


def test_splits_that_do_not_fit(new_workspace):
    workspace = new_workspace()
    path = workspace.preprocessed / TRAINED / "splits_final.json"
    path.write_text('[{"train": ["c0"], "val": ["nobody"]}]')
    with pytest.raises(DatasetError, match="nobody"):
        run(workspace)
    path.write_text("[")
    with pytest.raises(DatasetError, match="cannot be read"):
        run(workspace)


def test_a_damaged_case_is_named(new_workspace):
    workspace = new_workspace()
    folder = workspace.preprocessed / TRAINED / "nnUNetPlans_3d_fullres"
    image = case_files(folder, "c2")[0]
    image.write_bytes(image.read_bytes()[: image.stat().st_size // 2])
    with pytest.raises(DatasetError, match="c2"):
        run(workspace, "all", settings=SHORT.replace(workers=2, iterations=20))


def test_values_that_are_not_numbers_stop_it_and_name_the_case(new_workspace):
    from napari_nnunet.formats.preprocessed.cases import open_case, write_case

    workspace = new_workspace()
    folder = workspace.preprocessed / TRAINED / "nnUNetPlans_3d_fullres"
    stored = open_case(folder, "c3")
    data = np.asarray(stored.data[:])
    data[:] = np.nan
    write_case(
        folder, "c3", data, np.asarray(stored.labels[:]), stored.read_properties(), patch=(8, 16, 16), staging=folder
    )
    with pytest.raises(TrainingError, match=r"nan in epoch .*c3.*not finite"):
        run(workspace, "all", settings=SHORT.replace(iterations=30))
    text = folder_of(workspace, "all").events.read_text()
    assert of(TrainingEnded, [from_json(line) for line in text.splitlines()])[-1].how == "failed"


def test_a_network_that_diverges_keeps_the_last_good_state(workspace, monkeypatch):
    settings = SHORT.replace(epochs=30)
    job = train(workspace, TRAINED, "3d_fullres", 0, settings=settings)
    session = []
    begin = _session.Session.learn

    def learn(self):
        session.append(self)
        if self.epoch == 2:
            with torch.no_grad():
                next(iter(self.learner.network.parameters())).fill_(math.nan)
        return begin(self)

    monkeypatch.setattr(_session.Session, "learn", learn)
    with pytest.raises(TrainingError, match="diverged") as error:
        drain(job)
    folder = folder_of(workspace)
    newest = max(folder.checkpoints, key=lambda path: path.stat().st_mtime)
    assert str(newest) in str(error.value)
    for tensor in read_raw(newest)["network_weights"].values():
        assert torch.isfinite(tensor).all()


def test_a_full_disk_at_a_checkpoint_is_told_and_tried_again(workspace, monkeypatch):
    write, calls = _session.write_checkpoint, []

    def refuse(path, *args, **kwargs):
        calls.append(path.name)
        if len(calls) <= 3 or calls.count("checkpoint_final.pth") in (1, 2):
            raise ResourceError("No space left while writing it.")
        write(path, *args, **kwargs)

    monkeypatch.setattr(_session, "write_checkpoint", refuse)
    monkeypatch.setattr(_session, "_RETRY_EVERY", 0.01)
    result, events = run(workspace, validation=False)
    assert result.finished
    assert sum("training goes on" in note.text for note in of(Note, events)) >= 2
    assert sum("trying again" in note.text for note in of(Note, events)) == 2
    assert of(CheckpointSaved, events)[-1].path.endswith("checkpoint_final.pth")


def test_an_event_file_that_cannot_be_written_does_not_end_it(workspace, monkeypatch):
    folder = folder_of(workspace)
    folder.path.mkdir(parents=True)
    job = train(workspace, TRAINED, "3d_fullres", 0, settings=SHORT, resume=True, validation=False)
    folder.events.mkdir()
    events = []
    result = drain(job, events.append)
    assert result.finished
    assert sum("cannot be written" in note.text for note in of(Note, events)) == 1


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # batchgenerators' own thread
def test_a_worker_that_the_system_ends_is_told_at_once(workspace, monkeypatch):
    from napari_nnunet.jobs.training import loader as _loader

    monkeypatch.setattr(_loader, "open_case", lambda folder, name: os.kill(os.getpid(), signal.SIGKILL))
    with pytest.raises(ResourceError, match=r"ended a process.*c\d"):
        run(workspace, settings=SHORT.replace(workers=1))


def test_a_step_too_large_for_memory_says_what_would_fit(workspace, monkeypatch):
    from napari_nnunet.jobs.training import memory as _memory

    needed = [float(f) for f in (_memory_need(workspace, n) for n in (1, 2))]
    monkeypatch.setattr(_memory, "available_memory", lambda: int((needed[0] + needed[1]) / 2))
    with pytest.raises(ResourceError, match="A batch of 1 would fit"):
        run(workspace)
    monkeypatch.setattr(_memory, "available_memory", lambda: 1000)
    with pytest.raises(ResourceError, match="Not even one patch"):
        run(workspace)


def _memory_need(workspace, batch):
    from napari_nnunet.engine.planning.cost import step_bytes
    from napari_nnunet.formats.preprocessed.plans import read_plans

    configuration = read_plans(workspace.preprocessed / TRAINED, "nnUNetPlans").configuration("3d_fullres")
    return step_bytes(configuration.architecture, 1, 3, configuration.patch_size, batch)
