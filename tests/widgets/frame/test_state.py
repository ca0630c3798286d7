"""All docks of a viewer work on the same workspace, dataset and plans."""

from __future__ import annotations

import json
import shutil
from unittest.mock import Mock

import pytest
from docks import Halting
from qtpy.QtWidgets import QFileDialog, QMessageBox

from helpers import DATASET, TRAINED, Recipe, make_dataset, make_trainable, smooth_image
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.widgets.choosing.members import FOLDS
from napari_nnunet.widgets.dataset import cases_dock
from napari_nnunet.widgets.frame.state import Choice, State, state_of
from napari_nnunet.widgets.frame.tabs import open_dock


@pytest.fixture
def docks(viewer, home, qtbot):
    """Three docks over two datasets, one of which is planned."""
    make_trainable(home, Recipe(spacing=(1.0, 1.0, 1.0)))
    make_dataset(home, cases=2)
    found = [open_dock(viewer, title) for title in ("Training cases", "Plan", "Train")]
    yield found
    cases, plan, train = found
    train.watch.stop()
    qtbot.waitUntil(lambda: not (plan._costing.running or cases.cases._drawing.running))


def test_what_belonged_to_another_dataset_is_forgotten_with_it(tmp_path):
    choice = Choice(Workspace.at(tmp_path), "Dataset001_A", "nnUNetPlans", "2d", tmp_path)
    assert choice.with_changes(dataset="Dataset002_B") == Choice(choice.workspace, "Dataset002_B", model=tmp_path)
    assert choice.with_changes(plans="other").configuration is None
    assert choice.with_changes(dataset="Dataset001_A", configuration="3d_fullres").plans == "nnUNetPlans"
    assert choice.with_changes(workspace=Workspace.at(tmp_path / "b")) == Choice(Workspace.at(tmp_path / "b"))


def test_what_somebody_chose_while_a_job_ran_stays_chosen(tmp_path):
    """The docks jumped to what a job had made, and the next case went into the other dataset."""
    state = State(Workspace.at(tmp_path))
    state.choose(dataset="Dataset001_A")
    before = state.choice
    state.go_on(before, dataset="Dataset001_A", plans="nnUNetPlans")
    assert state.choice.plans == "nnUNetPlans"
    state.go_on(before, dataset="Dataset001_A", plans="other")
    assert state.choice.plans == "nnUNetPlans"
    for change in ({"dataset": "Dataset002_B"}, {"workspace": Workspace.at(tmp_path / "b")}):
        before = state.choice
        state.choose(**change)
        after = state.choice
        state.go_on(before, dataset="Dataset003_C")
        assert state.choice == after


@pytest.mark.parametrize("elsewhere", ["another dataset", "another workspace"])
def test_a_case_that_was_saved_does_not_take_the_docks_back(docks, viewer, tmp_path, qtbot, monkeypatch, elsewhere):
    cases, plan, _ = docks
    cases.state.choose(dataset=DATASET)
    place = {"scale": (1, 0.8, 0.8), "units": ["mm"] * 3}
    image = smooth_image((6, 8, 8))[0]
    viewer.add_image(image, name="new", **place)
    viewer.add_labels((image > image.mean()).astype(int), name="painted", **place)
    qtbot.waitUntil(lambda: "Will add" in cases.summary.text())
    halting = Halting(cases_dock.add_case)
    monkeypatch.setattr(cases_dock, "add_case", halting)
    halting.at = 0
    cases.panel.button.click()
    qtbot.waitUntil(halting.reached.is_set)
    if elsewhere == "another dataset":
        cases.state.choose(dataset=TRAINED)
    else:
        cases.state.open_folder(make_dataset(tmp_path / "elsewhere", cases=1, name=DATASET))
    after = cases.state.choice
    halting.go.set()
    qtbot.waitUntil(lambda: f"Saved new in {DATASET}." in cases.panel.status.text())
    assert cases.state.choice == after and plan.head.dataset == after.dataset
    qtbot.waitUntil(lambda: not cases.cases._drawing.running)


def test_docks_follow_the_dataset_of_each_other(docks, qtbot):
    cases, plan, train = docks
    plan.head.box.setCurrentText(DATASET)
    plan.head.box.activated.emit(plan.head.box.currentIndex())
    assert [dock.head.dataset for dock in (cases.form, plan, train.form)] == [DATASET] * 3
    qtbot.waitUntil(lambda: f"{DATASET} is not planned yet. Plan it in the Plan dock." in train.summary.text())
    train.form.head.box.setCurrentText(TRAINED)
    train.form.head.box.activated.emit(0)
    assert plan.head.dataset == cases.form.head.dataset == TRAINED
    assert plan.plans is not None


def test_lists_follow_files_that_another_dock_wrote(docks, home):
    cases, plan, train = docks
    shutil.copytree(home / "nnUNet_raw" / DATASET, home / "nnUNet_raw" / "Dataset009_New")
    state_of(cases.viewer).written.emit()
    for head in (cases.form.head, plan.head, train.form.head):
        assert head.box.findText("Dataset009_New") >= 0


def test_another_workspace_is_opened_in_all_docks(docks, tmp_path, monkeypatch):
    cases, plan, train = docks
    raw = make_dataset(tmp_path / "elsewhere", cases=2, name="Dataset031_Other")
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_: str(raw))
    plan.head.other.click()
    for head in (cases.form.head, plan.head, train.form.head):
        assert head.place.text().endswith("elsewhere")
        assert head.dataset == "Dataset031_Other"
    assert train.watch.trainings == []


def test_a_dataset_that_is_dropped_is_opened_where_it_lies(viewer, docks, tmp_path):
    cases, plan, _ = docks
    raw = make_dataset(tmp_path / "elsewhere", cases=2, name="Dataset031_Other")
    viewer.open(str(raw), plugin="napari-nnunet")
    assert cases.form.head.raw == plan.head.raw == raw
    assert [layer.name for layer in viewer.layers] == ["c0 MR", "c0 labels"]


def test_a_dataset_outside_of_any_workspace_is_copied_in_if_wanted(viewer, docks, home, qtbot, monkeypatch):
    cases, plan, _ = docks
    raw = make_dataset(home / "x", cases=2)
    loose = home / "from a colleague" / "Livers"
    shutil.copytree(raw, loose)
    monkeypatch.setattr(QMessageBox, "question", ask := Mock(return_value=QMessageBox.StandardButton.Yes))
    viewer.open(str(loose / "dataset.json"), plugin="napari-nnunet")
    assert "Livers lies in no workspace. Copy it into" in ask.call_args.args[2]
    copied = home / "nnUNet_raw" / "Dataset001_Livers"
    qtbot.waitUntil(lambda: plan.head.raw == copied)
    assert cases.panel.status.text() == "Added Dataset001_Livers."
    assert json.loads((copied / "dataset.json").read_text(encoding="utf-8")) == json.loads(
        (loose / "dataset.json").read_text(encoding="utf-8")
    )
    assert len(list((copied / "imagesTr").iterdir())) == 2
    assert not [path for path in (home / "nnUNet_raw").iterdir() if path.name.startswith(".")]


def test_docks_that_offer_models_follow_the_workspace_and_what_is_trained(viewer, home, tmp_path, model, qtbot):
    segment, ensemble, models = (open_dock(viewer, title) for title in ("Segment", "Ensemble", "Models"))
    elsewhere = Workspace.at(tmp_path / "elsewhere")
    state = state_of(viewer)
    state.open_folder(tmp_path / "elsewhere")
    for head in (segment.form.head, ensemble.members.head, models.head):
        assert head.place.text().endswith("elsewhere")
    folder = elsewhere.results / "Dataset031_Other" / model.folder.name
    shutil.copytree(model.folder, folder)
    state.trained.emit()
    assert folder in [value for value in segment.form.model_box.choices if value != "sample"]
    assert str(folder) in [models.list.item(i).data(0x0100) for i in range(models.list.count())]
    ensemble.members.source_box.value = FOLDS
    assert folder in ensemble.members.of_box.choices
    qtbot.waitUntil(lambda: not segment._later.isActive() and not ensemble._later.isActive())
