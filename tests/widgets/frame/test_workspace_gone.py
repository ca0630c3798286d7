"""A workspace on a disk that is pulled out: every dock says so, does not write where it was, and finds it again."""

from __future__ import annotations

from importlib import import_module

import pytest
from qtpy.QtWidgets import QLabel
from stick import GONE, REPLACED, UNREADABLE, Stick, come_back, end, nobody_answers, press_everything, settle

from helpers import TRAINED, Recipe, make_model, make_trainable
from napari_nnunet.events import Stage
from napari_nnunet.widgets.choosing.members import BEST, FOLDS
from napari_nnunet.widgets.frame.head import Head
from napari_nnunet.widgets.frame.panel import RunState
from napari_nnunet.widgets.frame.state import state_of
from napari_nnunet.widgets.frame.tabs import open_dock

WITH_WORKSPACE = ("Training cases", "Plan", "Train", "Next", "Segment", "Ensemble", "Models")
WRITING = WITH_WORKSPACE[:4]
SAID = "The workspace cannot be reached any more. If its disk was removed, connect it and look again"


@pytest.fixture
def stick(tmp_path, monkeypatch):
    """A workspace with a dataset that was planned and models, which can be pulled out."""
    folder = tmp_path / "stick"
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.setenv(name, str(folder / name))
    make_trainable(folder, Recipe(spacing=(1.0, 1.0, 1.0)))
    make_model(folder / "nnUNet_results", Recipe(folds=(0, 1), name=TRAINED))
    nobody_answers(monkeypatch)
    return Stick(folder, monkeypatch)


@pytest.fixture
def opened(viewer, stick, qtbot):
    """Opens docks, and ends what they do in the end."""
    docks = []

    def open_one(title):
        docks.append(open_dock(viewer, title))
        state_of(docks[-1].viewer).choose(dataset=TRAINED)
        settle(docks[-1], qtbot)
        return docks[-1]

    yield open_one
    if stick.out:
        stick.plug()
    end(docks, qtbot)


def lists(dock):
    """What a dock has found in the workspace."""
    if hasattr(dock, "members"):
        dock.members.source_box.value = FOLDS
        return [str(choice) for choice in dock.members.of_box.choices]
    if hasattr(dock, "list"):
        return [dock.list.item(i).text() for i in range(dock.list.count())]
    head = dock.findChild(Head)
    if head.box.parent() is None or not hasattr(dock, "state"):
        return [str(choice) for choice in dock.form.model_box.choices]
    return [head.box.itemText(i) for i in range(head.box.count())]


def said(dock):
    return " ".join(label.text() for label in dock.findChildren(QLabel) if label.isVisibleTo(dock))


@pytest.mark.parametrize("how", [GONE, UNREADABLE])
@pytest.mark.parametrize("title", WITH_WORKSPACE)
def test_a_workspace_that_is_gone_is_said_and_found_again(opened, stick, qtbot, title, how):
    stick.how = how
    dock = opened(title)
    head = dock.findChild(Head)
    before = lists(dock)
    assert any(TRAINED in text for text in before) and not head.again.isVisibleTo(dock)
    stick.pull()
    come_back(dock)
    qtbot.waitUntil(lambda: SAID in head.lost.text() and head.again.isVisibleTo(dock))
    settle(dock, qtbot)
    assert not any(TRAINED in text for text in lists(dock))
    if title in WRITING:
        assert not dock.panel.button.isEnabled()
        assert "The workspace cannot be reached." in dock.summary.text()
    head.again.click()
    settle(dock, qtbot)
    assert SAID in head.lost.text()
    stick.plug()
    head.again.click()
    qtbot.waitUntil(lambda: not head.again.isVisibleTo(dock))
    settle(dock, qtbot)
    assert sorted(lists(dock)) == sorted(before)


@pytest.mark.parametrize("how", [GONE, REPLACED, UNREADABLE])
@pytest.mark.parametrize("title", WITH_WORKSPACE)
def test_whatever_is_pressed_while_the_workspace_is_gone_is_answered_and_writes_nothing_there(
    opened, stick, qtbot, title, how
):
    stick.how = how
    dock = opened(title)
    stick.pull()
    assert press_everything(dock, qtbot)
    settle(dock, qtbot)
    come_back(dock)
    settle(dock, qtbot)
    press_everything(dock, qtbot)
    settle(dock, qtbot)
    assert SAID in dock.findChild(Head).lost.text()
    assert "Something went wrong" not in said(dock)
    assert all(panel.state is RunState.IDLE for panel in dock.panels)
    assert how != GONE or not stick.folder.exists()


def pulling(job, stick, *, at_once):
    """Return a job during which the stick is pulled out."""

    def run(*args, **keywords):
        steps = job(*args, **keywords)
        yield Stage(name="Working") if at_once else next(steps)
        stick.pull()
        return (yield from steps)

    return run


JOBS = {
    "measuring and planning": ("Plan", "planning.plan_dock.plan_and_preprocess", lambda dock: dock.panel),
    "preprocessing": ("Plan", "planning.preprocessing.preprocess", lambda dock: dock.preprocessing.panel),
    "checking": ("Training cases", "dataset.problems.verify", lambda dock: dock.problems.panel),
    "getting ready to train": ("Train", "training.starting.look_at_needs", lambda dock: dock.panel),
    "choosing the best": ("Ensemble", "choosing.ensemble_dock.best_of", lambda dock: dock.panel),
}


@pytest.mark.usefixtures("in_one_process")
@pytest.mark.parametrize("name", JOBS)
def test_a_job_during_which_the_disk_is_pulled_out_ends_in_a_sentence_and_runs_again(
    opened, stick, qtbot, monkeypatch, name
):
    title, job, panel_of = JOBS[name]
    stick.how = REPLACED
    dock = opened(title)
    panel = panel_of(dock)
    button = panel.button
    if title == "Ensemble":
        dock.members.source_box.value = BEST
        button = dock.members.compare
    (stick.folder / "nnUNet_preprocessed" / TRAINED / "nnUNetPlans_3d_fullres.cases.jsonl").unlink()
    place, _, function = f"napari_nnunet.widgets.{job}".rpartition(".")
    module = import_module(place)
    with monkeypatch.context() as patched:
        whole = getattr(module, function)
        patched.setattr(module, function, pulling(whole, stick, at_once=title in ("Train", "Ensemble")))
        qtbot.waitUntil(button.isEnabled)
        button.click()
        qtbot.waitUntil(lambda: stick.out and panel.state is RunState.IDLE)
    text = panel.status.text()
    assert (text or name == "checking") and "Something went wrong" not in text, text  # its report is not shown any more
    qtbot.waitUntil(lambda: SAID in dock.findChild(Head).lost.text())
    stick.plug()
    dock.findChild(Head).again.click()
    settle(dock, qtbot)
    qtbot.waitUntil(button.isEnabled)
    assert lists(dock)
