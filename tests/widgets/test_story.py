"""From open layers to a model that segments them, without leaving the window."""

from __future__ import annotations

import numpy as np
import pytest
from napari.layers import Labels
from qtpy.QtCore import Qt, QThreadPool
from stick import settle

from napari_nnunet.engine.synthetic import SPACING_UM, make_volume
from napari_nnunet.widgets.frame.panel import RunState

PLACE = {"scale": SPACING_UM, "units": ["um"] * 3, "axis_labels": ["z", "y", "x"]}


def click(panel, qtbot):
    qtbot.waitUntil(panel.button.isEnabled)
    qtbot.mouseClick(panel.button, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: panel.state is RunState.IDLE)


@pytest.mark.slow
def test_cases_plan_train_segment(viewer, qtbot, tmp_path, monkeypatch):
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.setenv(name, str(tmp_path / name))
    _, cases = viewer.window.add_plugin_dock_widget("napari-nnunet", "Training cases")
    for i in range(5):
        image, labels = make_volume(i, shape=(16, 48, 48))
        viewer.layers.clear()
        viewer.add_image(image, name=f"embryo_{i}", **PLACE)
        viewer.add_labels(np.asarray(labels), name="painted", **PLACE)
        settle(cases, qtbot)
        cases.form.case_edit.value = f"embryo_{i}"
        if i == 0:
            cases.form.name_edit.value = "Nuclei"
            cases.form.rows[0][1].value = "fluorescence"
        for row, name in ((1, "nucleus"), (2, "shell")):
            cases.form.table.item(row, 2).setText(name)
        settle(cases, qtbot)
        click(cases.panel, qtbot)
    viewer.window.remove_dock_widget("all")
    _, plan = viewer.window.add_plugin_dock_widget("napari-nnunet", "Plan")
    plan.preset_box.value, plan.rows.widgets["gpu_memory_gb"].value = "SmallPlanner", "0.03"
    click(plan.panel, qtbot)
    plan.preprocessing.boxes["2d"].setChecked(False)
    click(plan.preprocessing.panel, qtbot)
    assert "Ready to train" in plan.preprocessing.panel.status.text()
    qtbot.waitUntil(lambda: not plan._costing.running)
    viewer.window.remove_dock_widget("all")
    _, train = viewer.window.add_plugin_dock_widget("napari-nnunet", "Train")
    assert train.form.configuration_box.value == "3d_fullres"
    train.form.hours_box.value = 0.01
    click(train.panel, qtbot)
    qtbot.waitUntil(lambda: train.chosen is not None and train.chosen.status == "finished")
    last = train.chosen.last
    assert last.train_loss < train.chosen.epochs[0].train_loss
    unseen, _ = make_volume(99, shape=(16, 48, 48))
    viewer.layers.clear()
    viewer.add_image(unseen, name="unseen", **PLACE)
    train.segment_now()
    qtbot.waitUntil(lambda: any(isinstance(layer, Labels) for layer in viewer.layers))
    result = next(layer for layer in viewer.layers if isinstance(layer, Labels))
    qtbot.waitUntil(lambda: result.metadata["nnunet"].get("partial") is False)
    assert result.data.shape == unseen.shape
    assert result.metadata["nnunet"]["checkpoint"] == "checkpoint_final.pth"
    assert set(result.features["name"]) >= {"nucleus", "shell"}
    qtbot.waitUntil(lambda: QThreadPool.globalInstance().activeThreadCount() == 0)
