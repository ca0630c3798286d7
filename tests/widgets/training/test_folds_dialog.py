"""Own folds are shown as a table before they are written, and the Train dock offers as many as there are."""

from __future__ import annotations

import json

import pytest
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QFileDialog

from helpers import Recipe, make_dataset, make_trainable
from napari_nnunet.widgets.frame.panel import RunState


@pytest.fixture
def form(viewer, tmp_path, monkeypatch, qtbot):
    """The Train dock's form, of a dataset with five cases c0 to c4."""
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.setenv(name, str(tmp_path / name))
    make_trainable(tmp_path, Recipe(spacing=(1.0, 1.0, 1.0)))
    _, dock = viewer.window.add_plugin_dock_widget("napari-nnunet", "Train")
    return dock.form


def opened(form, qtbot):
    dialog = form.folds_dialog()
    dialog.open()
    qtbot.waitUntil(lambda: not dialog._looking.running)
    assert dialog.found is not None, dialog.about.text()
    return dialog


def looked(dialog, qtbot):
    qtbot.waitUntil(lambda: not dialog._later.isActive() and not dialog._looking.running)


def make(dialog, qtbot):
    looked(dialog, qtbot)
    assert dialog.panel.button.isEnabled(), dialog.about.text()
    with qtbot.waitSignal(dialog.made):
        qtbot.mouseClick(dialog.panel.button, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: dialog.panel.state is RunState.IDLE)


def test_images_of_one_patient_are_proposed_to_stay_together(form, tmp_path, qtbot):
    raw = make_dataset(tmp_path, cases=6, name="Dataset007_Eyes")
    for i in range(6):
        name = f"p{i // 2}_{('left', 'right')[i % 2]}"
        (raw / "imagesTr" / f"c{i}_0000.nii.gz").rename(raw / "imagesTr" / f"{name}_0000.nii.gz")
        (raw / "labelsTr" / f"c{i}.nii.gz").rename(raw / "labelsTr" / f"{name}.nii.gz")
    form.state.choose(dataset=raw.name)
    form.state.written.emit()
    dialog = opened(form, qtbot)
    looked(dialog, qtbot)
    assert "left|right" in dialog.by.text()
    dialog.one_out.setChecked(True)
    looked(dialog, qtbot)
    assert "<b>6 cases in 3 groups, 3 folds</b>; each validates on 2." in dialog.about.text()
    rows = dialog.table.texts()[1:]
    assert rows == [[f"p{i // 2}_{('left', 'right')[i % 2]}", f"p{i // 2}", str(i // 2)] for i in range(6)]
    path = tmp_path / "nnUNet_preprocessed" / raw.name / "splits_final.json"
    assert not path.exists()
    make(dialog, qtbot)
    assert [sorted(split["val"]) for split in json.loads(path.read_text(encoding="utf-8"))] == [
        [f"p{i}_left", f"p{i}_right"] for i in range(3)
    ]
    assert list(form.folds) == [0, 1, 2, "all"]


def test_a_table_groups_cases_and_another_number_of_folds_is_offered(form, tmp_path, qtbot, monkeypatch):
    table = tmp_path / "slides.csv"
    table.write_text("case,group\nc0,a\nc1,a\nc2,b\nc3,c\nc4,c\n")
    dialog = opened(form, qtbot)
    looked(dialog, qtbot)
    monkeypatch.setattr(QFileDialog, "getOpenFileName", lambda *_: (str(table), ""))
    qtbot.mouseClick(dialog.browse, Qt.MouseButton.LeftButton)
    dialog.count.setValue(9)
    looked(dialog, qtbot)
    assert "5 cases in 3 groups cannot be split into 9 folds" in dialog.about.text()
    assert not dialog.panel.button.isEnabled() and not dialog.table.isVisible()
    dialog.count.setValue(2)
    looked(dialog, qtbot)
    fold_of = {case: fold for case, _, fold in dialog.table.texts()[1:]}
    assert fold_of["c0"] == fold_of["c1"] and fold_of["c3"] == fold_of["c4"]
    make(dialog, qtbot)
    assert "2 folds written." in dialog.panel.status.text() and not dialog.panel.button.isEnabled()
    assert list(form.folds) == [0, 1, "all"]
    again = opened(form, qtbot)
    assert again.which.currentText() == "As stored" and not again.by.isVisible()
    assert {case: fold for case, _, fold in again.table.texts()[1:]} == fold_of


def test_ticks_stay_and_many_folds_scroll(form, qtbot):
    form.folds[1].setChecked(True)
    form.fold_boxes.show_count(40)
    assert form.chosen_folds() == (0, 1) and list(form.folds)[-1] == "all"
    assert form.fold_boxes.height() < form.fold_boxes.widget().sizeHint().height() / 2


def test_a_table_of_groups_that_cannot_be_read_is_named_and_a_pattern_takes_its_place(form, tmp_path, qtbot):
    """Nothing could be chosen."""
    raw = make_dataset(tmp_path, cases=6, name="Dataset007_Eyes")
    (raw / "groups.csv").write_text("case,group\nc0\n")
    form.state.choose(dataset=raw.name)
    form.state.written.emit()
    dialog = form.folds_dialog()
    dialog.open()
    qtbot.waitUntil(lambda: "has no group" in dialog.about.text())
    assert dialog.by.isVisible() and not dialog.panel.button.isEnabled()
    dialog.by.setText("c([0-2])|(c)")
    dialog.count.setValue(4)
    make(dialog, qtbot)
    assert "<b>6 cases in 4 groups, 4 folds</b>" in dialog.about.text()
    dialog.reject()
