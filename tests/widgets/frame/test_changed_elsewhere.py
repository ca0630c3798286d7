"""Another program, or another window, changes what a dock shows: it is noticed, said, and nothing is mixed."""

from __future__ import annotations

import json
import shutil
from operator import attrgetter

import pytest
from stick import come_back, end, nobody_answers, settle

from helpers import TRAINED, Recipe, make_model, make_trainable
from napari_nnunet.formats.claim import claimed
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.widgets.choosing.members import FOLDS
from napari_nnunet.widgets.frame.panel import RunState
from napari_nnunet.widgets.frame.state import state_of
from napari_nnunet.widgets.frame.tabs import open_dock


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A workspace with a dataset that was planned and a model."""
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.setenv(name, str(tmp_path / name))
    make_trainable(tmp_path, Recipe(spacing=(1.0, 1.0, 1.0)))
    make_model(tmp_path / "nnUNet_results", Recipe(folds=(0, 1), name=TRAINED))
    nobody_answers(monkeypatch)
    return Workspace.at(tmp_path)


@pytest.fixture
def opened(viewer, place, qtbot):
    """Opens docks, and ends what they do in the end."""
    docks = []

    def open_one(title, window=viewer):
        docks.append(open_dock(window, title))
        state_of(docks[-1].viewer).choose(dataset=TRAINED)
        settle(docks[-1], qtbot)
        return docks[-1]

    yield open_one
    end(docks, qtbot)


def add_case(place, name="c9"):
    raw = place.raw / TRAINED
    shutil.copy(raw / "imagesTr" / "c0_0000.nii.gz", raw / "imagesTr" / f"{name}_0000.nii.gz")
    shutil.copy(raw / "labelsTr" / "c0.nii.gz", raw / "labelsTr" / f"{name}.nii.gz")


def add_plans(place):
    content = json.loads((place.preprocessed / TRAINED / "nnUNetPlans.json").read_text(encoding="utf-8"))
    (place.preprocessed / TRAINED / "other.json").write_text(json.dumps({**content, "plans_name": "other"}))


def add_model(place):
    make_model(place.results, Recipe(name="Dataset077_Others"))


def add_dataset(place):
    shutil.copytree(place.raw / TRAINED, place.raw / "Dataset078_New")


def plans(box):
    return " ".join(box.itemText(i) for i in range(box.count()))


def models(dock):
    return [str(value) for value in dock.form.model_box.choices]


def members(dock):
    dock.members.source_box.value = FOLDS
    return [str(value) for value in dock.members.of_box.choices]


NOTICED = {
    "a case": ("Training cases", add_case, lambda dock: dock.cases.title.text(), "6 cases"),
    "a case, by its number": ("Plan", add_case, lambda dock: dock.about.text(), "6 cases"),
    "other plans": ("Plan", add_plans, lambda dock: plans(dock.plans_box), "other"),
    "plans to train with": ("Train", add_plans, lambda dock: plans(dock.form.plans_box), "other"),
    "a model to segment with": ("Segment", add_model, lambda dock: "".join(models(dock)), "Dataset077_Others"),
    "a model to join": ("Ensemble", add_model, lambda dock: "".join(members(dock)), "Dataset077_Others"),
    "a dataset to label for": ("Next", add_dataset, lambda dock: plans(dock.head.box), "Dataset078_New"),
    "a model": ("Models", add_model, lambda dock: dock.list.item(dock.list.count() - 1).text(), "Dataset077_Others"),
}


@pytest.mark.parametrize("what", NOTICED)
def test_what_another_program_added_is_there_when_somebody_comes_back(opened, place, qtbot, what):
    title, change, shown, words = NOTICED[what]
    dock = opened(title)
    assert words not in shown(dock)
    change(place)
    come_back(dock)
    qtbot.waitUntil(lambda: words in shown(dock))


def test_nothing_is_listed_anew_where_nothing_changed(opened, place, qtbot):
    dock = opened("Training cases")
    told = []
    dock.state.written.connect(lambda: told.append(True))
    for _ in range(3):
        come_back(dock)
        settle(dock, qtbot)
    assert told == []


def remove_dataset(place):
    for folder in (place.raw, place.preprocessed, place.results):
        shutil.rmtree(folder / TRAINED)
        folder.mkdir(exist_ok=True)


def spoil_plans(place):
    (place.preprocessed / TRAINED / "nnUNetPlans.json").write_text('{"configurations": ')


def spoil_dataset(place):
    (place.raw / TRAINED / "dataset.json").write_text("{")


def spoil_model(place):
    for path in place.results.glob(f"{TRAINED}/*/fold_*/checkpoint_final.pth"):
        path.write_bytes(b"no model")


def compare_best(dock):
    dock._compare_models(dock.members.head.workspace.results / TRAINED)


REFUSED = {
    "planning a dataset that was removed": ("Plan", remove_dataset, lambda dock: dock.run(), "panel"),
    "planning with a dataset.json that is half written": ("Plan", spoil_dataset, lambda dock: dock.run(), "panel"),
    "preprocessing by plans that are half written": (
        "Plan", spoil_plans, lambda dock: dock.preprocessing.run(), "preprocessing.panel",
    ),
    "checking a dataset that was removed": (
        "Training cases", remove_dataset, lambda dock: dock.problems.check(), "problems.panel",
    ),
    "opening a case that was removed": ("Training cases", remove_dataset, lambda dock: dock.open_case("c0"), "panel"),
    "removing a case that was removed": ("Training cases", remove_dataset, lambda dock: dock.drop_case("c0"), "panel"),
    "training a dataset that was removed": ("Train", remove_dataset, lambda dock: dock.run(), "panel"),
    "training by plans that are half written": ("Train", spoil_plans, lambda dock: dock.run(), "panel"),
    "choosing the best of models that were removed": ("Ensemble", remove_dataset, compare_best, "panel"),
    "suggesting for a dataset that was removed": ("Next", remove_dataset, lambda dock: dock.run(), "panel"),
    "exporting a model that was removed": ("Models", remove_dataset, lambda dock: dock._quantize(), "panel"),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_what_another_program_removed_or_spoiled_is_said(opened, place, qtbot, what):
    title, change, act, panel = REFUSED[what]
    dock = opened(title)
    panel = attrgetter(panel)(dock)
    change(place)
    panel.say("")
    act(dock)
    qtbot.waitUntil(lambda: panel.state is RunState.IDLE)

    def said():
        return panel.status.text() + (dock.summary.text() if hasattr(dock, "summary") else "")

    qtbot.waitUntil(lambda: bool(panel.status.text()) or "Not ready" in said())
    assert "Something went wrong" not in said()
    settle(dock, qtbot)
    come_back(dock)
    settle(dock, qtbot)


def test_two_windows_see_what_the_other_did(opened, place, qtbot, make_napari_viewer):
    one, other = opened("Training cases"), opened("Training cases", make_napari_viewer())
    one.drop_case("c0")
    qtbot.waitUntil(lambda: "4 cases" in one.cases.title.text())
    come_back(other)
    qtbot.waitUntil(lambda: "4 cases" in other.cases.title.text())
    other.drop_case("c0")
    assert "c0" in other.panel.status.text() and "trash" not in other.panel.status.text()


def test_what_another_window_is_doing_is_waited_for(opened, place, qtbot):
    plan = opened("Plan")
    panel = plan.preprocessing.panel
    with claimed(place.preprocessed / TRAINED, f"{TRAINED} is already being preprocessed", part="preprocessing"):
        panel.start()
        qtbot.waitUntil(lambda: panel.state is RunState.IDLE)
        assert f"{TRAINED} is already being preprocessed" in panel.status.text()
        assert panel.button.isEnabled()
    cases = opened("Training cases")
    with claimed(place.raw / TRAINED, f"{TRAINED} is already being changed"):
        cases.drop_case("c1")
        assert f"{TRAINED} is already being changed" in cases.panel.status.text()
    panel.start()
    qtbot.waitUntil(lambda: panel.state is RunState.IDLE)
    assert "Ready to train" in panel.status.text()
