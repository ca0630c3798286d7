"""The quality of a segmentation: presets, and the settings that they fill."""

from __future__ import annotations

import shutil

import pytest

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
