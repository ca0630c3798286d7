"""The Train dock, driven in a real window; trainings run in processes of their own."""

from __future__ import annotations

import json
import os
import shutil
import threading
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
from docks import PATIENCE, Halting
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QApplication, QInputDialog, QMessageBox

from helpers import TRAINED, Recipe, make_objects_trainable, make_trainable
from napari_nnunet.engine.objects.verdict import FATES
from napari_nnunet.errors import SettingsError
from napari_nnunet.events import EpochDone, Note, drain
from napari_nnunet.formats.dataset.raw_writer import update_count
from napari_nnunet.formats.images.files import read_labels, write_labels
from napari_nnunet.formats.model.fold import FoldFolder
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.jobs.choosing.evaluate_objects import evaluate_objects
from napari_nnunet.jobs.training.prepare import Needs
from napari_nnunet.jobs.training.train import train as train_job
from napari_nnunet.processes import follow
from napari_nnunet.processes.follow import Training
from napari_nnunet.processes.launch import end_training
from napari_nnunet.processes.record import recorded
from napari_nnunet.schema.requests.choosing import EvaluateObjectsRequest
from napari_nnunet.schema.requests.training import TrainRequest
from napari_nnunet.widgets.frame import dock as frame_dock
from napari_nnunet.widgets.frame.panel import RunState
from napari_nnunet.widgets.training import starting

FOLD = "nnUNetTrainer__nnUNetPlans__3d_fullres/fold_0"


@pytest.fixture
def train(viewer, home, qtbot):
    make_trainable(home, Recipe(spacing=(1.0, 1.0, 1.0)))
    _, widget = viewer.window.add_plugin_dock_widget("napari-nnunet", "Train")
    yield widget
    qtbot.waitUntil(lambda: widget.panel.state is RunState.IDLE)
    for training in widget.watch.trainings:
        runner = training.folder.runner()
        if runner is not None:
            end_training(runner)
    for process, _, _ in widget.watch.started:
        process.terminate()
        process.wait(PATIENCE)
    widget.watch.stop()


def begin(train, qtbot, *, epochs=2, **changes):
    """Press the button, with short epochs."""
    train.form.length_box.value = "Epochs"
    train.form.epochs_box.value = epochs
    request = train.form.request()
    short = {"iterations": 8, "validation_iterations": 2, "workers": 1, "threads": 1, **changes}
    train.form.request = lambda: type(request)(
        **{**request.__dict__, "settings": request.settings.replace(**short), "folds": train.form.chosen_folds()}
    )
    qtbot.waitUntil(train.panel.button.isEnabled)
    qtbot.mouseClick(train.panel.button, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: train.panel.state is RunState.IDLE)


def wait(train, qtbot, status, timeout=300000):
    qtbot.waitUntil(lambda: train.chosen is not None and train.chosen.status == status, timeout=timeout)


def test_without_a_planned_dataset_the_dock_says_what_to_do(viewer, home, qtbot):
    _, train = viewer.window.add_plugin_dock_widget("napari-nnunet", "Train")
    assert "Collect cases in the Training cases dock" in train.summary.text()
    assert not train.panel.button.isEnabled()
    assert train.panel.remedy.accessibleName() == "Open the Training cases dock"
    assert not train.details.isVisible()


def test_the_button_says_what_it_will_do(train, qtbot):
    def says(text):
        qtbot.waitUntil(lambda: train.panel.button.text() == text)

    says("Train fold 0 of 3d_fullres, 2 h")
    train.form.folds[1].setChecked(True)
    train.form.hours_box.value = 0.5
    says("Train 2 folds of 3d_fullres, 30 min each")
    train.form.length_box.value = "Epochs"
    train.form.epochs_box.value = 30
    says("Train 2 folds of 3d_fullres, 30 epochs each")
    for box in train.form.folds.values():
        box.setChecked(False)
    qtbot.waitUntil(lambda: "Tick at least one fold." in train.summary.text())
    assert not train.panel.button.isEnabled()


def test_weights_of_classes_and_those_to_begin_with_are_asked_for_as_in_a_shell(train, tmp_path):
    form = train.form
    form.heads_box.value = True
    assert not form.request().pretrained_heads  # without weights there are no heads to keep
    form.weights_edit.value = tmp_path / "w.pth"
    form.rows.widgets["class_weights"].value = "lesion=5, organ=2"
    words = form.request().arguments()
    assert words[words.index("--class_weights") + 1 :][:2] == ["lesion=5.0", "organ=2.0"]
    assert "--pretrained_heads" in words
    form.rows.widgets["class_weights"].value = "lesion"
    with pytest.raises(SettingsError, match="write it like tumour=5"):
        form.request()


def test_a_training_survives_its_dock_and_shows_what_it_got_wrong(viewer, train, home, qtbot, monkeypatch):
    begin(train, qtbot, epochs=12, iterations=30)
    qtbot.waitUntil(lambda: train.chosen is not None and train.chosen.status in ("running", "finished"))
    qtbot.waitUntil(lambda: train.chosen.last is not None)
    viewer.window.remove_dock_widget("all")
    _, again = viewer.window.add_plugin_dock_widget("napari-nnunet", "Train")
    qtbot.waitUntil(lambda: again.chosen is not None)
    assert again.chosen.status in ("running", "finished")
    wait(again, qtbot, "finished")
    qtbot.waitUntil(lambda: again.details.scores.isVisible())
    view = again.chosen
    assert len(view.epochs) == 12
    assert len(again.details.curves.plots["Loss"].listDataItems()) == 2
    assert [item.name() for item in again.details.curves.plots["Pseudo Dice"].listDataItems()] == [
        "organ",
        "lesion",
        "mean, smoothed",
    ]
    assert "Mean validation Dice" in again.details.note.text()
    assert again.details.scores.horizontalHeaderItem(2).text() == "organ"
    again.show_film()
    assert again.film.labels.data.shape[0] == len(view.frames) == 12
    qtbot.mouseClick(again.details.scores.viewport(), Qt.MouseButton.LeftButton)
    again.open_case(0)
    name = again.details.scores.scores[0].name
    qtbot.waitUntil(lambda: f"{name} differences" in viewer.layers)
    assert again.film.labels not in viewer.layers
    result, truth = viewer.layers[f"{name} result"].data, viewer.layers[f"{name} labels"].data
    wrong = viewer.layers[f"{name} differences"].data
    assert ((wrong > 0) == (result != truth)).all()
    _save_a_corrected_reference(viewer, again, home, qtbot, name, monkeypatch)


def _save_a_corrected_reference(viewer, train, home, qtbot, name, monkeypatch):
    layer = viewer.layers[f"{name} labels"]
    layer.data = np.where(layer.data == 2, 1, layer.data)
    viewer.layers.selection.active = layer
    path = home / "nnUNet_raw" / TRAINED / "labelsTr" / f"{name}.nii.gz"
    before, _ = read_labels(path)
    monkeypatch.setattr(QMessageBox, "question", ask := Mock(return_value=QMessageBox.StandardButton.No))
    os.utime(path, (1, 1))
    train.correcting.save()
    assert "were changed elsewhere since they were opened here" in ask.call_args.args[2]
    assert not train.busy and (read_labels(path)[0] == before).all()
    ask.return_value = QMessageBox.StandardButton.Yes
    train.correcting.save()
    trash = home / "nnUNet_raw" / TRAINED / "trash"
    qtbot.waitUntil(lambda: path.is_file() and (read_labels(path)[0] != before).any())
    kept, _ = read_labels(next(trash.rglob(path.name)))
    assert (kept == before).all()
    assert (read_labels(path)[0] == layer.data).all()
    begin(train, qtbot)
    assert "fold 0 (finished): train from the beginning again?" in ask.call_args.args[2]
    wait(train, qtbot, "finished")
    record = (home / "nnUNet_preprocessed" / TRAINED).glob("*.cases.jsonl")
    assert next(record).read_text(encoding="utf-8").count(f'"{name}"') > 1  # it was preprocessed anew before


@pytest.mark.slow
def test_a_model_is_improved_with_a_new_case_and_compared_with_what_it_was(train, home, qtbot):
    request = train.form.request()
    short = request.settings.replace(time_budget=8.0, iterations=4, validation_iterations=1, workers=1, threads=1)
    train.form.request = lambda: replace(request, settings=short)
    qtbot.waitUntil(train.panel.button.isEnabled)
    qtbot.mouseClick(train.panel.button, Qt.MouseButton.LeftButton)
    wait(train, qtbot, "finished")
    before = train.chosen.folder.path
    raw = home / "nnUNet_raw" / TRAINED
    for path in sorted(raw.rglob("c0*.nii.gz")):
        shutil.copy(path, path.with_name("new_" + path.name))
    update_count(raw)
    qtbot.waitUntil(train.details.buttons["improve"].isEnabled)
    qtbot.mouseClick(train.details.buttons["improve"], Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: train.chosen is not None and train.chosen.folder.path != before)
    wait(train, qtbot, "finished")
    assert train.chosen.folder.path.parent.name == "nnUNetTrainer__nnUNetPlans_continued__3d_fullres"
    assert FoldFolder(before).final.is_file()  # the model that was continued stays
    splits = json.loads((home / "nnUNet_preprocessed" / TRAINED / "splits_final.json").read_text(encoding="utf-8"))
    assert all(any(name.startswith("new_") for name in split["train"]) for split in splits)
    qtbot.waitUntil(train.details.compared.isVisible)
    heads, *rows = train.details.compared.texts()
    assert heads == ["Dice on the same cases", "Before", "After"]
    assert [row[0] for row in rows] == ["organ", "lesion"]


def test_what_is_to_be_preprocessed_is_marked_until_it_is(viewer, home):
    make_trainable(home, Recipe(spacing=(1.0, 1.0, 1.0)))
    data = home / "nnUNet_preprocessed" / TRAINED / "nnUNetPlans_3d_fullres"
    aside = data.rename(home / "aside")
    _, train = viewer.window.add_plugin_dock_widget("napari-nnunet", "Train")
    box = train.form.configuration_box
    assert (box.current_choice, box.value) == ("3d_fullres (to be preprocessed)", "3d_fullres")
    aside.rename(data)
    train.form.look_at_preprocessed()
    assert (box.current_choice, box.value) == ("3d_fullres", "3d_fullres")
    train.watch.stop()


def test_stop_resume_finish_and_discard(train, home, qtbot):
    begin(train, qtbot, epochs=5000)
    wait(train, qtbot, "running")
    qtbot.waitUntil(lambda: train.chosen.last is not None)
    qtbot.mouseClick(train.details.buttons["stop"], Qt.MouseButton.LeftButton)
    wait(train, qtbot, "stopped")
    folder = FoldFolder(home / "nnUNet_results" / TRAINED / FOLD)
    assert folder.latest.is_file()
    done = train.chosen.last.epoch
    qtbot.waitUntil(train.details.buttons["resume"].isEnabled)
    assert not train.details.buttons["stop"].isEnabled()
    assert not train.details.buttons["segment"].font().bold()
    qtbot.waitUntil(lambda: train._asked is None)  # or the next stop would end the process instead of asking it
    assert train.panel.status.text() == ""
    qtbot.mouseClick(train.details.buttons["resume"], Qt.MouseButton.LeftButton)
    wait(train, qtbot, "running")
    qtbot.waitUntil(lambda: train.chosen.last.epoch > done)
    assert [epoch.epoch for epoch in train.chosen.epochs] == list(range(train.chosen.last.epoch + 1))
    train.finish_in(1)
    wait(train, qtbot, "finished")
    assert folder.final.is_file()
    qtbot.waitUntil(lambda: train.details.buttons["resume"].text() == "Train on…")
    assert train.details.buttons["segment"].font().bold()  # what people press next
    qtbot.mouseClick(train.details.buttons["next"], Qt.MouseButton.LeftButton)
    following = next(dock for name, dock in train.viewer.window.dock_widgets.items() if name.startswith("Next"))
    assert following.head.dataset == folder.path.parents[1].name
    train.discard()
    qtbot.waitUntil(lambda: train.table.rowCount() == 0)
    assert not folder.path.exists()
    qtbot.waitUntil(train.trash.isVisible)
    qtbot.mouseClick(train.trash, Qt.MouseButton.LeftButton)
    assert train.trash.dialog.table.texts()[1][0] == f"{TRAINED} / 3d_fullres, fold 0"
    qtbot.mouseClick(train.trash.dialog.back, Qt.MouseButton.LeftButton)
    train.trash.dialog.accept()
    wait(train, qtbot, "finished")
    assert folder.final.is_file()


def test_trainings_queue_and_can_be_called_off(train, qtbot):
    begin(train, qtbot, epochs=5000)
    wait(train, qtbot, "running")
    train.form.folds[0].setChecked(False)
    train.form.folds[3].setChecked(True)
    qtbot.mouseClick(train.panel.button, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: train.panel.state is RunState.IDLE)
    wait(train, qtbot, "waiting")
    assert train.details.buttons["stop"].text() == "Do not start"
    assert train.details.line.text() == "Waiting for its turn."
    # the process must have taken its ticket before it can be called off
    qtbot.waitUntil(lambda: len(list((train.state.workspace.results / ".trainings").glob("*.json"))) == 2)
    train.stop()
    qtbot.waitUntil(lambda: len(train.watch.trainings) == 1)
    assert len(train.watch.started) == 1


def test_a_process_that_does_not_even_wait_yet_can_be_called_off(train, qtbot):
    begin(train, qtbot, epochs=5000)
    qtbot.waitUntil(lambda: train.chosen is not None and train.chosen.status == "waiting")
    process = train.watch.started[0][0]
    train.stop()
    qtbot.waitUntil(lambda: process.poll() is not None)
    qtbot.waitUntil(lambda: train.watch.trainings == [])
    assert "Traceback" not in train.panel.status.text()


def test_the_window_itself_never_looks_for_trainings(train, qtbot, monkeypatch):
    threads = set()
    monkeypatch.setattr(follow, "find_folds", lambda *_: threads.add(threading.current_thread()) or [])
    qtbot.waitUntil(lambda: bool(threads))
    assert threading.main_thread() not in threads


def test_a_process_that_ends_without_having_begun_tells_why(train, qtbot, monkeypatch):
    monkeypatch.setattr("napari_nnunet.jobs.training.prepare.prepare_training", lambda *_, **__: iter(()))
    path = train.state.workspace.raw / TRAINED / "labelsTr" / "c1.nii.gz"
    labels, geometry = read_labels(path)
    write_labels(1 - np.minimum(labels, 1), geometry, path)
    begin(train, qtbot)
    qtbot.waitUntil(lambda: "1 of 5 cases" in train.panel.status.text())
    train.panel.details.click()
    assert "1 of 5 cases" in QApplication.clipboard().text()


def test_a_training_that_failed_offers_its_report(train, home, qtbot):
    def job():
        yield Note(text="Preparing.")
        raise KeyError("spacing")

    folder = home / "nnUNet_results" / TRAINED / FOLD
    folder.mkdir(parents=True)
    with pytest.raises(KeyError):
        drain(recorded(job(), folder / "events.jsonl"))
    train.watch.look()
    qtbot.waitUntil(train.details.report.isVisible)
    assert "Unexpected KeyError: 'spacing'" in train.details.note.text()
    train.details.report.click()
    assert "Traceback" in QApplication.clipboard().text()
    assert "in job" in QApplication.clipboard().text()


def test_finish_soon_suggests_no_more_epochs_than_are_left(train, home, monkeypatch):
    done = EpochDone(epoch=91, epochs=100, train_loss=0, val_loss=0, dice=(), names=(), average=None, rate=0, seconds=1)
    folder = FoldFolder(home / "nnUNet_results" / TRAINED / FOLD)
    monkeypatch.setattr(type(train), "chosen", property(lambda self: Training(folder, "running", epochs=(done,))))
    monkeypatch.setattr(QInputDialog, "getInt", asked := Mock(return_value=(0, False)))
    train._ask_finish()
    assert asked.call_args.args[3] == 8


def test_a_training_on_objects_shows_what_became_of_each(viewer, home, qtbot):
    workspace = make_objects_trainable(home)
    settings = {"epochs": 2, "iterations": 4, "validation_iterations": 1, "workers": 0, "device": "cpu", "threads": 1}
    drain(train_job(workspace, TrainRequest(dataset=TRAINED, configuration="3d_fullres", fold=0, **settings)))
    folder = home / "nnUNet_results" / TRAINED / FOLD / "validation"
    (name,) = json.loads((folder / "objects.json").read_text(encoding="utf-8"))["cases"]
    raw = home / "nnUNet_raw" / TRAINED / "objectsTr" / f"{name}.nii.gz"
    truth, geometry = read_labels(raw)
    found = truth.copy()
    numbers = np.unique(truth)[1:]
    found[truth == numbers[0]] = 0  # missed
    found[0, :3, :3] = 200  # invented
    write_labels(found.astype(np.uint16), geometry, folder / "objects" / f"{name}.nii.gz")
    evaluate = EvaluateObjectsRequest(reference=raw.parent, prediction=folder / "objects", missing_ok=True)
    drain(evaluate_objects(evaluate.replace(summary=folder / "objects.json")))
    _, dock = viewer.window.add_plugin_dock_widget("napari-nnunet", "Train")
    qtbot.waitUntil(lambda: dock.details.scores.rowCount() == 1)
    others = len(numbers) - 1
    row = [name, f"{others / (others + 2):.3f}", f"{others}, 1, 1", "0, 0"]
    heads = ["Case", "AP\n@0.5", "Found,\nmissed,\ninvented", "Split,\nmerged"]
    assert dock.details.scores.texts() == [heads, row]
    assert dock.details.scores.horizontalScrollBar().maximum() == 0  # nothing is out of sight
    assert f"1 validation case, {len(numbers)} objects: average precision" in dock.details.scores_title.text()
    dock.open_case(0)
    qtbot.waitUntil(lambda: f"{name} verdicts" in viewer.layers)
    assert [layer.name for layer in viewer.layers] == [
        f"{name} MR", f"{name} objects", f"{name} found", f"{name} verdicts",
    ]  # fmt: skip
    painted = viewer.layers[f"{name} verdicts"].data
    assert (painted[truth == numbers[0]] == FATES["missed"]).all()
    assert (painted[0, :3, :3] == FATES["invented"]).all()
    assert not viewer.layers[f"{name} objects"].visible


@pytest.mark.parametrize("new", [(), ("c9",)], ids=["nothing to ask", "new cases"])
def test_a_dock_that_is_closed_before_its_training_begins_starts_it_or_says_why_not(
    viewer, train, qtbot, monkeypatch, new
):
    def look(*_):
        yield from ()
        return Needs(unused=new)

    def prepare(*_, **__):
        yield from ()

    halted, said, started = Halting(look), [], []
    halted.at = 0
    monkeypatch.setattr(starting, "look_at_needs", halted)
    monkeypatch.setattr(starting, "prepare_training", prepare)
    monkeypatch.setattr(train.starter._watch, "start", lambda asked: started.append(asked) or Path("fold_0"))
    monkeypatch.setattr(frame_dock, "show_info", said.append)
    train.starter.start(train.form.request())
    assert halted.reached.wait(PATIENCE)
    viewer.window.remove_dock_widget(train)
    halted.go.set()
    qtbot.waitUntil(lambda: not train.busy and "tarted" in said[-1])
    assert bool(started) == (not new)
    assert ("Not started: 1 case in no fold yet" if new else "Started.") in said[-1]


def test_a_training_that_begins_after_another_workspace_was_opened_chooses_nothing_there(train, tmp_path, monkeypatch):
    asked = train.form.request()
    monkeypatch.setattr(train.watch, "start", lambda _: Path("fold_0"))
    before = train.state.choice
    train.state.choose(workspace=Workspace.at(tmp_path / "other"))
    train.starter.start_process(asked, before)
    assert train.state.choice.dataset is None
