"""What is answered is done with the training, or left where something runs, that the question was about."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
from qtpy.QtWidgets import QInputDialog

from napari_nnunet.widgets.sharing import models_dock
from napari_nnunet.widgets.sharing.models_dock import ModelsWidget
from napari_nnunet.widgets.training.train_dock import TrainWidget


def training(path, status):
    return SimpleNamespace(folder=SimpleNamespace(path=path), status=status, title=path, last=None)


@pytest.fixture
def dock(monkeypatch):
    """A dock in which another training is chosen while a question is open, and what is done with which."""
    done = []
    dock = SimpleNamespace(chosen=training("asked", "finished"), done=done)

    def answered(*_):
        dock.chosen = training("started meanwhile", "running")
        return 7, True

    monkeypatch.setattr(QInputDialog, "getInt", answered)
    dock.starter = SimpleNamespace(confirmed=lambda *words: answered(*words)[1])
    for name in ("train_longer", "finish_in"):
        setattr(dock, name, lambda number, meant: done.append((number, meant.folder.path)))
    dock.discard = lambda meant: done.append(meant.folder.path)
    return dock


def test_what_is_answered_is_about_the_training_that_was_chosen_when_it_was_asked(dock):
    asked = dock.chosen
    for question in (TrainWidget._ask_discard, TrainWidget.resume, TrainWidget._ask_finish):
        dock.chosen = asked
        question(dock)
    assert dock.done == ["asked", (7, "asked"), (7, "asked")]


def test_it_is_looked_up_as_it_is_by_now():
    now = training("asked", "running")
    dock = SimpleNamespace(chosen=training("other", "finished"), watch=SimpleNamespace(find={"asked": now}.get))
    assert TrainWidget._meant(dock, training("asked", "finished")) is now
    assert TrainWidget._meant(dock, None) is dock.chosen


@pytest.mark.parametrize(
    ("press", "name"), [(ModelsWidget._export, "Export"), (ModelsWidget._carry, "Carry elsewhere")]
)
def test_an_export_is_not_asked_about_while_something_runs_and_that_is_said(monkeypatch, press, name):
    said, asked = [], []
    monkeypatch.setattr(models_dock, "show_info", said.append)
    for dialog in ("ExportDialog", "CarryDialog"):
        monkeypatch.setattr(models_dock, dialog, lambda *_: asked.append(1))
    dock = SimpleNamespace(busy=True, chosen=lambda: "model", head=None)
    dock._free = partial(ModelsWidget._free, dock)
    press(dock)
    assert said == [
        f"'{name}' was not started: another job runs in the Models dock. Press it again when that has ended."
    ]
    assert not asked


@pytest.mark.parametrize(
    ("found", "resumed", "said"),
    [
        ([("2d", False, True)], "2d", ""),
        ([("failed", False, False), ("2d", False, True)], "2d", ""),
        ([("2d", False, True), ("3d", True, True)], None, "3d is under way, with the cases there were when it began."),
        ([("failed", False, False)], None, ""),
        ([], None, ""),
    ],
)
def test_train_on_takes_the_latest_that_can_go_on_and_says_what_is_under_way(found, resumed, said):
    """Nothing happened where the latest had failed at its beginning, or one was running."""
    trainings = [
        SimpleNamespace(
            folder=SimpleNamespace(path=Path("Dataset001_A", "model", name)), title=name, alive=alive, checkpoints=saved
        )
        for name, alive, saved in found
    ]
    texts, done, chosen = [], [], []
    dock = SimpleNamespace(
        _train_on="Dataset001_A",
        watch=SimpleNamespace(trainings=trainings),
        panel=SimpleNamespace(say=texts.append),
        table=SimpleNamespace(choose_when_there=chosen.append, show_trainings=lambda _: None),
        resume=lambda: done.append(chosen[-1].name),
    )
    TrainWidget._continue(dock)
    assert done == ([resumed] if resumed else []) and dock._train_on is None
    assert said in "".join(texts) and bool(said) == bool(texts)
