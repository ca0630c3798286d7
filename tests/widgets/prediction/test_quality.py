"""The quality of a segmentation: presets, and the settings that they fill."""

from __future__ import annotations

import json
import shutil

import pytest
from docks import wait_until_idle
from qtpy.QtCore import Qt

from helpers import smooth_image
from napari_nnunet.engine.prediction.quality import MEAN, Judged
from napari_nnunet.widgets.prediction.words import told_quality

pytestmark = pytest.mark.gui


def test_presets_fill_the_settings_and_changes_make_them_custom(dock, new_model, qtbot):
    model = new_model(folds=(0, 1, 2))
    dock.add_model(model.folder)
    form = dock.form
    form.preset_box.value = "fast"
    assert (form.folds_box.value, form.mirroring_box.value, form.step_box.value) == (["0"], False, 0.75)
    form.preset_box.value = "full"
    assert form.folds_box.value == ["0", "1", "2"]
    form.step_box.value = 0.6
    assert form.preset_box.value == "Custom"
    assert form.settings().step == 0.6


def test_another_checkpoint_keeps_the_preset(dock, new_model):
    model = new_model(folds=(0, 1, 2))
    for fold in model.folder.glob("fold_*"):
        shutil.copy(fold / "checkpoint_final.pth", fold / "checkpoint_best.pth")
    dock.add_model(model.folder)
    form = dock.form
    form.preset_box.value = "fast"
    form.checkpoint_box.value = "checkpoint_best.pth"
    assert (form.preset_box.value, form.settings().folds, form.settings().step) == ("fast", (0,), 0.75)
    assert form.settings().checkpoint == "checkpoint_best.pth"


def test_the_8_bit_preset_is_there_where_it_is_usable(dock, new_model):
    dock.add_model(new_model(folds=(0, 1)).folder)
    form = dock.form
    form.label_presets({"fast": "1 s"})
    assert "fast_8bit" not in form.preset_box.choices
    form.label_presets({"fast": "1 s", "fast_8bit": "0.5 s"})
    form.preset_box.value = "fast_8bit"
    assert (form.folds_box.value, form.settings().precision) == (["0"], "int8")
    form.step_box.value = 0.6
    assert (form.preset_box.value, form.settings().precision) == ("Custom", "auto")
    form.preset_box.value = "fast_8bit"
    form.label_presets({"fast": "1 s"})
    assert form.preset_box.value == "Custom"


def test_of_several_time_points_the_one_to_be_looked_at_first_is_told():
    def judged(mean, *missing):
        return Judged(dice={MEAN: (mean, 0.0, 1.0), "organ": (mean, 0.0, 1.0)}, missing=missing)

    assert told_quality([judged(0.7)]).startswith("Predicted Dice: organ 0.70")
    told = told_quality([judged(0.9), judged(0.4), judged(0.8)])
    assert told.startswith("Probably the worst of 3 time points is 1. Predicted Dice: organ 0.40")
    told = told_quality([judged(0.9), judged(0.4), judged(0.8, "tumour, which 9 of 9 known cases have")])
    assert told.startswith("Probably the worst of 3 time points is 2.") and "Nothing was found of tumour" in told


def test_without_validation_cases_the_predicted_dice_is_refused_with_what_to_do(viewer, dock, new_model, qtbot):
    dock.add_model(new_model().folder)
    viewer.add_image(smooth_image((12, 30, 28))[0], name="image", units=["mm"] * 3)
    dock.form.rows.widgets["quality"].value = True
    qtbot.waitUntil(dock.panel.button.isEnabled)
    qtbot.mouseClick(dock.panel.button, Qt.MouseButton.LeftButton)
    wait_until_idle(qtbot, dock)
    said = dock.panel.status.text()
    assert "learnt from at least 5 validation cases" in said and "in the Train dock" in said
    assert "Something went wrong" not in said


def test_a_fold_that_is_trained_while_the_dock_is_open_is_one_of_all(dock, new_model, qtbot):
    """Full went on with the folds there were when the model was chosen."""
    model = new_model(folds=(0, 1, 2))
    for fold in (1, 2):
        shutil.move(model.folder / f"fold_{fold}", model.folder.parent / f"fold_{fold}")
    dock.add_model(model.folder)
    form = dock.form
    assert form.settings().folds == (0,)
    shutil.move(model.folder.parent / "fold_1", model.folder)
    form.head.state.trained.emit()
    assert (form.preset_box.value, form.settings().folds) == ("full", (0, 1))
    form.folds_box.value = ["1"]
    shutil.move(model.folder.parent / "fold_2", model.folder)
    form.head.state.trained.emit()
    assert (form.preset_box.value, form.settings().folds) == ("Custom", (1,))
    assert form.folds_box.choices == ("0", "1", "2")
    shutil.rmtree(model.folder / "fold_1")
    form.head.state.trained.emit()
    assert form.settings().folds == (0, 2)


def test_one_fold_of_several_is_not_called_full(dock, new_model):
    """'Segment with it now' chose one fold, and the quality said that all are used."""
    model = new_model(folds=(0, 1))
    dock.use(model.folder, checkpoint="checkpoint_final.pth", folds=(1,))
    assert (dock.form.preset_box.value, dock.form.settings().folds) == ("Custom", (1,))
    dock.form.preset_box.value = "full"
    assert dock.form.settings().folds == (0, 1)
    dock.use(new_model(name="Dataset901_Single").folder, checkpoint="checkpoint_final.pth", folds=(0,))
    assert dock.form.preset_box.value == "full"


def test_a_model_that_another_replaces_in_its_folder_is_read_again(dock, new_model):
    folder = new_model().folder
    dock.add_model(folder)
    assert "lesion" in dock.form.about.text()
    content = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
    content["labels"] = {"background": 0, "organ": 1, "cyst": 2}
    (folder / "dataset.json").write_text(json.dumps(content), encoding="utf-8")
    dock.form.head.state.trained.emit()
    assert "cyst" in dock.form.about.text() and "cyst" in dock.form.model.dataset.labels.labels
