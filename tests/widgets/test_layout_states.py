"""Whatever a dock or dialog shows, running, done, failed, cancelled or asking, nothing is cut at 1280 x 800."""

from __future__ import annotations

from pathlib import Path

import imageio.v3 as iio
import napari_builtins
import numpy as np
import pytest
from docks import MM, Halting, add_image, open_dock, wait_until_idle
from layout import check_layout, in_sight
from npe2 import PluginManifest
from qtpy.QtWidgets import QScrollArea

from helpers import TRAINED, Recipe, make_dataset, make_trainable, smooth_image
from napari_nnunet.events import Ended, Note, Stage, to_json
from napari_nnunet.formats.dataset.raw_writer import drop_case
from napari_nnunet.formats.model.fold import FoldFolder
from napari_nnunet.formats.model.model_trash import trash_model
from napari_nnunet.jobs import doctor
from napari_nnunet.jobs.doctor import ComputerReport
from napari_nnunet.widgets import doctor_dock
from napari_nnunet.widgets.choosing import ensemble_dock
from napari_nnunet.widgets.planning import plan_dock
from napari_nnunet.widgets.prediction import segment_dock
from napari_nnunet.widgets.sharing.export_dialog import ExportDialog

LONG = "a brain with a rather long name of its layer"


@pytest.fixture
def look(viewer, qtbot):
    """Look at a dock or dialog in a small window: ``look(dock, "segment-done")``."""
    viewer.window.resize(1280, 800)
    return lambda dock, name: check_layout(viewer, dock, qtbot, name)


def look_at_a_run(dock, job, look, qtbot, name, *, step=3):
    """Look while a job runs, after it was cancelled, and after it is done."""
    job.at = step
    dock.panel.start()
    qtbot.waitUntil(job.reached.is_set)
    qtbot.wait(200)
    look(dock, f"{name}-running")
    dock.panel.cancel()
    job.go.set()
    wait_until_idle(qtbot, dock)
    stays_in_sight(dock, qtbot)
    look(dock, f"{name}-cancelled")
    job.at = None
    dock.panel.start()
    wait_until_idle(qtbot, dock)
    stays_in_sight(dock, qtbot)
    look(dock, f"{name}-done")


def stays_in_sight(dock, qtbot):
    """Wait until the dock has said what it would do next: what came of the run is still seen."""
    estimator = getattr(dock, "_estimator", None)
    qtbot.waitUntil(lambda: estimator is None or not estimator.is_running)
    qtbot.wait(300)
    if dock.findChild(QScrollArea) is not None:
        qtbot.waitUntil(lambda: in_sight(dock.panel))  # the layout follows what has just changed


def failing(*_, **__):
    yield Stage(name="Reading")
    raise KeyError("a key that nobody expected to be missing in a place as far from here as this")


def test_segment(viewer, dock, model, look, qtbot, monkeypatch):
    dock.add_model(model.folder)
    layer = viewer.add_image(smooth_image((12, 20, 20))[0], name=LONG, units=["um"] * 3)
    qtbot.waitUntil(lambda: "Is the unit right" in dock.summary.text())
    look(dock, "segment-unit")
    layer.units = MM
    qtbot.waitUntil(lambda: "GB of memory" in dock.summary.text())
    look(dock, "segment-ready")
    job = Halting(segment_dock.predict_series)
    monkeypatch.setattr(segment_dock, "predict_series", job)
    look_at_a_run(dock, job, look, qtbot, "segment")
    monkeypatch.setattr(segment_dock, "predict_series", failing)
    dock.run()
    wait_until_idle(qtbot, dock)
    assert dock.panel.details.isVisible()
    look(dock, "segment-failed")


def test_segment_with_channels_apart(viewer, dock, new_model, look, qtbot):
    both = smooth_image((12, 24, 24), channels=2)
    dock.add_model(new_model(name="Dataset002_Two", channels=("T1", "T2 with contrast agent")).folder)
    first = viewer.add_image(both[0], name=LONG, units=MM)
    second = viewer.add_image(both[1][:, ::-1], name=f"{LONG} 2", units=MM, affine=np.diag([1, -1, 1, 1]))
    second.translate = (0, -23, 0)
    boxes = dock.form.image.channel_boxes
    boxes[0].value, boxes[1].value = first, second
    qtbot.waitUntil(lambda: "mirrored along y" in dock.summary.text())
    look(dock, "segment-apart")


def test_segment_with_the_offer_of_a_reader(viewer, npe2pm, look, qtbot):
    builtins = PluginManifest.from_file(Path(napari_builtins.__file__).parent / "builtins.yaml")
    with npe2pm.tmp_plugin(manifest=builtins):
        dock = open_dock(viewer, "Segment")
        qtbot.waitUntil(lambda: dock.offer.isVisible())
        look(dock, "segment-reader")


def test_ensemble(viewer, workspace, look, qtbot, monkeypatch):
    dock = open_dock(viewer, "Ensemble")
    add_image(viewer, name=LONG)
    qtbot.waitUntil(lambda: "members run over it" in dock.summary.text())
    look(dock, "ensemble-ready")
    job = Halting(ensemble_dock.segment)
    monkeypatch.setattr(ensemble_dock, "segment", job)
    look_at_a_run(dock, job, look, qtbot, "ensemble")


def test_compare(viewer, look, qtbot, monkeypatch):
    dock = open_dock(viewer, "Compare")
    one = np.zeros((4, 10, 8), np.uint8)
    one[1:3, 3:7, 2:6] = 1
    names = {"index": [0, 1], "name": ["background", "left ventricular myocardium"]}
    layers = [viewer.add_labels(one, name=f"{LONG} {i}", units=MM, features=names) for i in (1, 2)]
    dock.form.first_box.value, dock.form.second_box.value = layers
    look(dock, "compare-ready")
    layers[1].translate = (0, 2, 0)
    dock.check()
    assert dock.panel.remedy.isVisible()
    look(dock, "compare-apart")
    layers[1].translate = (0, 0, 0)
    layers[1].data = np.roll(one, 1, axis=1)
    dock.check()
    dock.run()
    wait_until_idle(qtbot, dock)
    look(dock, "compare-done")


def test_check_my_computer(viewer, look, qtbot, monkeypatch):
    groups = {
        "Software": [("torch", "2.13.0+cpu"), ("openvino", "not installed")],
        "Arithmetic": [("3-D prediction", "torch, float32, channels-last, 16 threads (1.9 times faster than plain)")],
    }
    report = ComputerReport(groups, ("pip install torch --index-url https://download.pytorch.org/whl/cu130",) * 2)
    monkeypatch.setattr(doctor, "examine", lambda: report)  # what is measured here takes as long as it takes
    job = Halting(doctor_dock._examine)
    monkeypatch.setattr(doctor_dock, "_examine", job)
    dock = open_dock(viewer, "Check my computer")
    wait_until_idle(qtbot, dock)
    look_at_a_run(dock, job, look, qtbot, "computer", step=1)
    assert "pip install torch" in dock.text.toPlainText()
    monkeypatch.setattr(doctor_dock, "_examine", failing)
    dock.check()
    wait_until_idle(qtbot, dock)
    assert dock.panel.details.isVisible()
    look(dock, "computer-failed")


def pictures(home, values):
    """Folders of pictures and masks with some values, and a picture without a mask."""
    folders = [home / name for name in ("pictures", "masks")]
    for folder in folders:
        folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(12):
        picture = np.clip(smooth_image((1, 60, 80), seed=i)[0, 0], 0, 255).astype(np.uint8)
        mask = np.zeros((60, 80), np.uint8)
        for value in values:
            row, column = rng.integers(0, (50, 70))
            mask[row : row + rng.integers(4, 10), column : column + 8] = value
        iio.imwrite(folders[0] / f"a_picture_with_a_name_{i}.png", picture)
        iio.imwrite(folders[1] / f"a_picture_with_a_name_{i}_mask.png", mask)
    iio.imwrite(folders[0] / "another.png", picture)
    return folders


@pytest.mark.parametrize("values", [(255,), (1, 2, 3), tuple(range(1, 30))], ids=["one", "classes", "objects"])
def test_the_import_dialog(viewer, home, look, qtbot, values):
    make_dataset(home, cases=3)
    cases = open_dock(viewer, "Training cases")
    dialog = cases.import_dialog()
    dialog.open()
    name = f"import-{len(values)}"
    look(dialog, f"{name}-empty")
    images, masks = pictures(home, values)
    dialog.target.setCurrentIndex(0)
    dialog.images.setText(str(images))
    dialog.masks.setText(str(masks))
    qtbot.waitUntil(lambda: dialog.plan is not None)
    qtbot.waitUntil(lambda: not dialog._drawing.running)
    look(dialog, f"{name}-filled")
    dialog.masks.setText(str(home / "nowhere"))
    look(dialog, f"{name}-refused")
    dialog.reject()
    qtbot.waitUntil(lambda: not cases.cases._drawing.running)


def test_the_dialogs_of_a_dataset(viewer, home, look, qtbot):
    raw = make_dataset(home, cases=3)
    cases = open_dock(viewer, "Training cases")
    cases.state.choose(dataset=raw.name)
    dialog = cases.dataset_dialog()
    dialog.open()
    look(dialog, "dataset-edit")
    dialog.name_edit.setText("Another")
    dialog.table.item(0, 1).setText("")
    look(dialog, "dataset-edited")
    dialog.reject()
    dialog = cases.json_dialog()
    dialog.open()
    look(dialog, "dataset-json")
    dialog.button.click()
    look(dialog, "dataset-json-refused")
    dialog.reject()
    drop_case(raw, "c1")
    cases.state.written.emit()
    cases.trash.click()
    look(cases.trash.dialog, "trash")
    look(cases, "cases-trash")
    cases.trash.dialog.back.click()
    look(cases.trash.dialog, "trash-empty")
    cases.trash.dialog.accept()
    qtbot.waitUntil(lambda: not cases.cases._drawing.running)


def test_plan(viewer, home, look, qtbot, monkeypatch):
    make_dataset(home, shape=(20, 24, 22))
    dock = open_dock(viewer, "Plan")
    look(dock, "plan-ready")
    job = Halting(plan_dock.plan_and_preprocess)
    monkeypatch.setattr(plan_dock, "plan_and_preprocess", job)
    look_at_a_run(dock, job, look, qtbot, "plan")
    qtbot.waitUntil(lambda: not dock._costing.running)
    path = next((home / "nnUNet_raw").rglob("c2_0000.nii.gz"))
    path.write_bytes(path.read_bytes()[:500])
    dock.preprocessing.panel.button.click()
    wait_until_idle(qtbot, dock.preprocessing)
    assert "1 failed" in dock.preprocessing.panel.status.text()
    look(dock, "plan-preprocessing-failed")


def test_train_with_a_fold_that_failed(viewer, home, look, qtbot):
    make_trainable(home, Recipe(spacing=(1.0, 1.0, 1.0)))
    folder = FoldFolder(home / "nnUNet_results" / TRAINED / "nnUNetTrainer__nnUNetPlans__3d_fullres" / "fold_0")
    folder.path.mkdir(parents=True)
    text = "CUDA ran out of memory: tried to allocate 2.5 GiB. Choose a smaller batch or patch in the Plan dock."
    end = Ended(how="failed", text=text, report="Traceback (most recent call last):")
    folder.events.write_text("".join(to_json(event) + "\n" for event in (Note(text="Preparing."), end)))
    dock = open_dock(viewer, "Train")
    qtbot.waitUntil(dock.details.report.isVisible)
    look(dock, "train-failed")
    dock.watch.stop()


def test_models(viewer, workspace, look, qtbot):
    dock = open_dock(viewer, "Models")
    look(dock, "models")
    siblings = sorted(path.parent for path in workspace.results.rglob("plans.json"))
    dialog = ExportDialog(dock, siblings[0], siblings)
    dialog.open()
    look(dialog, "export")
    dialog.file.setText("/nowhere/at/all/models.zip")
    look(dialog, "export-refused")
    dialog.reject()
    trash_model(siblings[0])
    dock.refresh()
    look(dock, "models-trash")
    dock.trash.click()
    look(dock.trash.dialog, "models-trash-dialog")
    dock.trash.dialog.accept()
