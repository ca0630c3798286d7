"""The Plan dock, driven in a real window."""

from __future__ import annotations

import json

import pytest
from qtpy.QtCore import Qt

from helpers import DATASET, dataset_json, make_dataset, make_trainable
from napari_nnunet.errors import ResourceError
from napari_nnunet.events import Progress, Stage
from napari_nnunet.formats.images.files import read_labels, write_labels
from napari_nnunet.formats.preprocessed.cases import case_names
from napari_nnunet.jobs.planning.cost import TrainingCost
from napari_nnunet.widgets.frame.panel import RunState
from napari_nnunet.widgets.planning import plan_dock
from napari_nnunet.widgets.planning.views import NetworkDrawing


@pytest.fixture
def plan(viewer, home, qtbot, monkeypatch):
    """The Plan dock on a computer with a GPU."""
    for module in ("plan_dock", "views"):
        monkeypatch.setattr(f"napari_nnunet.widgets.planning.{module}.has_gpu", lambda: True)
    make_dataset(home, shape=(20, 24, 22))
    _, widget = viewer.window.add_plugin_dock_widget("napari-nnunet", "Plan")
    yield widget
    for panel in (widget.panel, widget.preprocessing.panel):
        panel.cancel()
        qtbot.waitUntil(lambda panel=panel: panel.state is RunState.IDLE)
    qtbot.waitUntil(lambda: not widget._costing.running)


def run(plan, qtbot):
    qtbot.waitUntil(plan.panel.button.isEnabled)
    qtbot.mouseClick(plan.panel.button, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: plan.panel.state is RunState.IDLE)


def cell(plan, row, configuration):
    rows = [plan.views.table.verticalHeaderItem(i).text() for i in range(plan.views.table.rowCount())]
    columns = [plan.views.table.horizontalHeaderItem(i).text() for i in range(plan.views.table.columnCount())]
    return plan.views.table.item(rows.index(row), columns.index(configuration)).text()


def test_without_a_dataset_the_dock_says_what_to_do(viewer, home, qtbot):
    _, plan = viewer.window.add_plugin_dock_widget("napari-nnunet", "Plan")
    assert "Collect cases in the Training cases dock" in plan.summary.text()
    assert not plan.panel.button.isEnabled()
    assert plan.panel.remedy.accessibleName() == "Open the Training cases dock"
    assert not plan.views.isVisible()


def test_without_a_gpu_the_dock_begins_with_what_makes_sense_there(viewer, home, qtbot, monkeypatch):
    for module in ("plan_dock", "views"):
        monkeypatch.setattr(f"napari_nnunet.widgets.planning.{module}.has_gpu", lambda: False)
    make_dataset(home, shape=(20, 24, 22))
    _, plan = viewer.window.add_plugin_dock_widget("napari-nnunet", "Plan")
    assert plan.preset_box.value == "SmallPlanner"
    assert "No GPU was found: Small, 2d, 2 h is a sensible start here." in plan.summary.text()


def _measure_again_and_long_times(plan, qtbot):
    before = dict(plan.costs)
    qtbot.mouseClick(plan.again, Qt.MouseButton.LeftButton)
    assert cell(plan, "Time per fold", "3d_fullres") == "measuring…" and not plan.again.isEnabled()
    qtbot.waitUntil(lambda: not plan._costing.running)
    assert plan.again.isEnabled() and plan.costs != before  # a clock never says the same twice
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("napari_nnunet.widgets.planning.views.has_gpu", lambda: False)
        plan._show_costs({"2d": TrainingCost(800, 1, 1, "cpu", real=True)})
        assert "about 33 days per fold here. That is nnU-Net's whole training; Small, 2d, 2 h" in plan.sentence.text()
        row = [plan.views.table.verticalHeaderItem(r).text() for r in range(12)].index("Time per fold")
        tips = [plan.views.table.item(row, c).toolTip() for c in range(plan.views.table.columnCount())]
        assert any("33 days, as the last training here took" in tip for tip in tips)
        plan._show_costs({"2d": TrainingCost(8, 1, 1, "cpu", busy=True)})
        assert "about 8.0 h per fold here (measured on one core: the computer is busy)" in plan.sentence.text()
        tips = [plan.views.table.item(row, c).toolTip() for c in range(plan.views.table.columnCount())]
        assert any("on one core, for other programs keep this computer busy; press Measure again" in t for t in tips)
    plan._show_costs(before)


def _from_scratch_is_asked_for_once(plan, qtbot):
    """Stopped in the middle, the next press goes on; of other plans it was not asked."""
    own = plan.preprocessing
    clean, panel, happened = own.clean, own.panel, own._happened

    def stop(event):
        happened(event)
        if isinstance(event, Progress) and event.done:
            panel.cancel()

    own._happened = stop
    clean.setChecked(True)
    qtbot.mouseClick(panel.button, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: panel.state is RunState.IDLE)
    del own._happened
    assert not clean.isChecked()
    qtbot.mouseClick(panel.button, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: panel.state is RunState.IDLE)
    assert panel.status.text().endswith("Ready to train.")
    clean.setChecked(True)
    own.show_plans(own.base, own.plans)
    assert clean.isChecked()
    own.show_plans(own.base.with_name("Dataset999_Other"), own.plans)
    assert not clean.isChecked()
    plan._show_plans()
    own.show_plans(plan.head.preprocessed, plan.plans)


def _everything_from_scratch(plan, base, qtbot):
    panel, clean = plan.preprocessing.panel, plan.preprocessing.clean
    for asked, said in ((False, "0 cases preprocessed, 4 were up to date."), (True, "4 cases preprocessed.")):
        clean.setChecked(asked)
        qtbot.waitUntil(panel.button.isEnabled)
        qtbot.mouseClick(panel.button, Qt.MouseButton.LeftButton)
        qtbot.waitUntil(lambda: panel.state is RunState.IDLE)
        assert panel.status.text().startswith(said)
        assert not clean.isChecked()  # the next press does what is needed, as before
    _from_scratch_is_asked_for_once(plan, qtbot)
    measured = base / "dataset_fingerprint.json"
    for asked in (False, True):
        before = measured.stat().st_mtime_ns
        plan.clean_box.value = asked
        run(plan, qtbot)
        assert (measured.stat().st_mtime_ns > before) is asked
        assert not plan.clean_box.value
    qtbot.waitUntil(lambda: not plan._costing.running)


def test_from_raw_data_to_preprocessed_data(plan, home, qtbot):
    qtbot.waitUntil(lambda: plan.about.text() == "4 cases. Channels: MR.<br>Classes: a.")
    qtbot.waitUntil(lambda: "measure and plan</b> 4 cases of" in plan.summary.text())
    run(plan, qtbot)
    assert plan.sentence.text().startswith("4 cases, 1 class, 3D, patch ")
    qtbot.waitUntil(lambda: not plan._costing.running)
    assert "per fold here" in plan.sentence.text()  # and whether the computer was busy
    _measure_again_and_long_times(plan, qtbot)
    assert cell(plan, "Time per fold", "2d").endswith((" h", "days"))
    assert cell(plan, "Memory", "3d_fullres").endswith("(cpu)")
    assert cell(plan, "Voxel size", "3d_fullres") == "1 × 0.8 × 0.8 mm"
    assert len(plan.views.plots.plots) == 3
    plan.preprocessing.boxes["2d"].setChecked(False)
    qtbot.waitUntil(plan.preprocessing.panel.button.isEnabled)
    qtbot.mouseClick(plan.preprocessing.panel.button, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: plan.preprocessing.panel.state is RunState.IDLE)
    assert plan.preprocessing.panel.status.text() == "4 cases preprocessed. Ready to train."
    base = home / "nnUNet_preprocessed" / DATASET
    assert case_names(base / "nnUNetPlans_3d_fullres") == ["c0", "c1", "c2", "c3"]
    assert not (base / "nnUNetPlans_2d").exists()
    _everything_from_scratch(plan, base, qtbot)
    plan.preprocessing.boxes["2d"].setChecked(True)
    plan.preprocessing.boxes["3d_fullres"].setChecked(False)
    plan.preprocessing.boxes["2d"].setChecked(False)
    plan.preprocessing.run()
    assert plan.preprocessing.panel.status.text() == "Tick at least one configuration."


def test_presets_and_wishes_reach_the_plans(plan, home, qtbot):
    plan.preset_box.value = "nnUNetPlannerResEncM"
    plan.rows.widgets["target_spacing"].value = "2 one 1"
    qtbot.waitUntil(lambda: "The voxel size '2 one 1' cannot be read" in plan.summary.text())
    assert not plan.panel.button.isEnabled()
    plan.rows.widgets["target_spacing"].value = "2 1.6 1.6"
    plan.rows.widgets["plans_name"].value = "coarse"
    qtbot.waitUntil(plan.panel.button.isEnabled)
    run(plan, qtbot)
    content = json.loads((home / "nnUNet_preprocessed" / DATASET / "coarse.json").read_text(encoding="utf-8"))
    assert content["experiment_planner_used"] == "nnUNetPlannerResEncM"
    assert content["configurations"]["3d_fullres"]["spacing"] == [2.0, 1.6, 1.6]
    assert cell(plan, "Network", "3d_fullres") == "residual U-Net"


def test_a_configuration_is_changed_with_its_consequences_shown(plan, home, qtbot):
    run(plan, qtbot)
    change = plan.change
    assert change.consequences.text() == (
        "Nothing changes: patch, batch and spacing are those of the configuration it starts from."
    )
    assert not change.button.isEnabled()
    change.patch_edit.value = "8 16 16"
    change.batch_box.value = 3
    assert "times the memory and time per step of 3d_fullres" in change.consequences.text()
    change.spacing_edit.value = "1 0.8"
    assert "The voxel size '1 0.8' cannot be read: type 3 positive numbers" in change.consequences.text()
    change.spacing_edit.value = "1.0 0.8 bad"
    assert "cannot be read" in change.consequences.text()
    change.spacing_edit.value = "2 1.6 1.6"
    assert "The data must be preprocessed at 2 × 1.6 × 1.6 mm" in change.consequences.text()
    change.name_edit.value = "3d_small"
    plan.changing.expand(animate=False)
    change.button.click()
    assert cell(plan, "Patch", "3d_small") == "8 × 16 × 16"
    assert cell(plan, "Batch", "3d_small") == "3"
    assert cell(plan, "Based on", "3d_small") == "3d_fullres"
    assert "3d_small" in plan.preprocessing.boxes
    path = home / "nnUNet_preprocessed" / DATASET / "nnUNetPlans.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    assert content["configurations"]["3d_small"]["inherits_from"] == "3d_fullres"
    content["configurations"]["3d_small"]["batch_size"] = 7  # somebody else's, which must not be taken back
    path.write_text(json.dumps(content))
    change.batch_box.value, change.name_edit.value = 5, "3d_smaller"
    change.button.click()
    assert "nnUNetPlans.json was changed meanwhile" in plan.panel.status.text()
    assert json.loads(path.read_text(encoding="utf-8")) == content


def test_the_drawing_shows_the_stages(plan, qtbot):
    run(plan, qtbot)
    drawing: NetworkDrawing = plan.views.drawing
    configuration = plan.plans.configuration("3d_fullres")
    assert drawing.sizes()[0] == configuration.patch_size
    assert len(drawing.sizes()) == configuration.architecture.stages
    plan.views.setCurrentIndex(1)
    drawing.resize(400, 300)
    picture = drawing.grab().toImage()
    colours = {picture.pixelColor(x, 20).name() for x in range(0, 400, 3)}
    assert len(colours) >= 3  # boxes and text on the background
    plan.views.network_box.setCurrentText("2d")
    assert drawing.sizes()[0] == plan.plans.configuration("2d").patch_size


def test_a_tab_is_as_high_as_what_it_shows_and_says_why_there_is_nothing_to_see(plan, home, qtbot):
    run(plan, qtbot)
    qtbot.waitUntil(lambda: not plan._costing.running)
    for tab, shown in ((2, plan.views.plots), (0, plan.views.table)):
        plan.views.setCurrentIndex(tab)
        qtbot.waitUntil(lambda shown=shown: plan.views.height() - shown.height() < 80)
    (home / "nnUNet_preprocessed" / DATASET / "dataset_fingerprint.json").unlink()
    plan.views.show_plans(plan.plans, plan.info, plan.head.preprocessed)
    assert not plan.views.plots.plots
    assert "What was measured of the data cannot be shown." in plan.views.plots.reason.text()


def test_a_broken_case_is_named_in_the_dock(plan, home, qtbot):
    run(plan, qtbot)
    path = home / "nnUNet_raw" / DATASET / "imagesTr" / "c2_0000.nii.gz"
    path.write_bytes(path.read_bytes()[:500])
    plan.preprocessing.panel.button.click()
    qtbot.waitUntil(lambda: plan.preprocessing.panel.state is RunState.IDLE)
    assert "3 cases preprocessed, 1 failed – c2: " in plan.preprocessing.panel.status.text()
    assert "truncated" in plan.preprocessing.panel.status.text()


def test_costs_that_cannot_be_measured_are_said(viewer, home, qtbot, monkeypatch):
    def fails(*_, **__):
        yield Stage(name="Measuring")
        raise ResourceError("The disk is full.")

    monkeypatch.setattr(plan_dock, "training_costs", fails)
    make_trainable(home)
    _, plan = viewer.window.add_plugin_dock_widget("napari-nnunet", "Plan")
    qtbot.waitUntil(lambda: bool(plan.panel.status.text()), timeout=60_000)
    assert plan.panel.status.text() == "What training costs could not be measured: The disk is full."
    assert plan.again.isEnabled() and plan.costs == {}


def test_classes_that_hours_of_training_would_not_teach_are_named_before(plan, home, qtbot):
    raw = home / "nnUNet_raw" / DATASET
    dataset_json(raw, labels={"background": 0, "a": 1, "rare": 2, "absent": 3})
    labels, geometry = read_labels(raw / "labelsTr" / "c2.nii.gz")
    labels[2:4, 2:4, 2:4] = 2
    write_labels(labels, geometry, raw / "labelsTr" / "c2.nii.gz")
    assert not plan.classes.isVisible()  # nothing was measured yet
    run(plan, qtbot)
    said = (
        "The training of fold 3 never sees 'rare', which only c2 has. Add cases that have it. No case has 'absent', so "
        "it cannot be learnt."
    )
    qtbot.waitUntil(lambda: plan.classes.isVisible() and plan.classes.text() == said)
    dataset_json(raw, labels={"background": 0, "a": 1, "rare": 2})
    write_labels(labels, geometry, raw / "labelsTr" / "c1.nii.gz")
    run(plan, qtbot)
    qtbot.waitUntil(lambda: plan.classes.text().startswith("Few cases have 'rare' (2 of 4): not every fold can"))
