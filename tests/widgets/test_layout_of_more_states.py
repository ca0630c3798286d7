"""Docks while they rank, compare folders, segment many images or find objects: nothing is cut at 1280 x 800."""

from __future__ import annotations

import json

import numpy as np
import pytest
from docks import MM, Halting, add_image, open_dock, wait_until_idle

from helpers import Recipe, make_dataset, make_model, smooth_image, write_nifti
from napari_nnunet.formats.results.probabilities import write_probabilities
from napari_nnunet.widgets.choosing import compare_dock, ensemble_dock
from napari_nnunet.widgets.choosing.members import LAYERS, MODELS
from napari_nnunet.widgets.labelling import next_dock
from napari_nnunet.widgets.planning import plan_dock
from napari_nnunet.widgets.prediction.many_view import FOLDER, OPEN

SHAPE = (10, 24, 22)
LONG = "patient_0031_frame_01_with_contrast"


def failing(*_, **__):
    yield from ()
    raise KeyError("a key that nobody expected to be missing in a place as far from here as this")


def look_at_a_run(dock, job, look, qtbot, name):
    """Look while a job runs, after it was cancelled, and after it is done."""
    job.at = 1
    dock.panel.start()
    qtbot.waitUntil(job.reached.is_set)
    look(dock, f"{name}-running")
    dock.panel.cancel()
    job.go.set()
    wait_until_idle(qtbot, dock)
    look(dock, f"{name}-cancelled")
    job.at = None
    dock.panel.start()
    wait_until_idle(qtbot, dock)
    qtbot.wait(300)
    look(dock, f"{name}-done")


def test_what_to_label_next(known_arithmetic, viewer, home, look, qtbot, monkeypatch):
    make_model(home / "nnUNet_results", Recipe())
    raw = make_dataset(home, cases=1, shape=SHAPE, name="Dataset001_Tiny")
    content = json.loads((raw / "dataset.json").read_text(encoding="utf-8"))
    labels = {"background": 0, "organ": 1, "lesion": 2}
    (raw / "dataset.json").write_text(json.dumps({**content, "labels": labels}))
    (home / "new").mkdir()
    for i in range(2):
        write_nifti(home / "new" / f"{LONG}_{i}_0000.nii.gz", smooth_image(SHAPE, seed=i)[0] * (1 if i else 1e5))
    dock = open_dock(viewer, "Next")
    dock.source_box.value = home / "nowhere"
    qtbot.waitUntil(dock.panel.remedy.isVisible)
    look(dock, "next-refused")
    dock.source_box.value = home / "new"
    dock.rows.widgets["unit"].value, dock.rows.widgets["budget"].value = "slices", "2"
    qtbot.waitUntil(lambda: "2 images to look at" in dock.summary.text())
    look(dock, "next-ready")
    job = Halting(next_dock.suggest)
    monkeypatch.setattr(next_dock, "suggest", job)
    look_at_a_run(dock, job, look, qtbot, "next")
    qtbot.waitUntil(lambda: dock._open is not None)
    look(dock, "next-open")
    while dock.left:
        dock.skip()
        qtbot.waitUntil(lambda: dock._open is not None or not dock.left)
    look(dock, "next-over")
    monkeypatch.setattr(next_dock, "suggest", failing)
    dock.run()
    wait_until_idle(qtbot, dock)
    look(dock, "next-failed")


def test_comparing_folders(viewer, home, look, qtbot, monkeypatch):
    for folder, limit in (("one", 120), ("two", 110)):
        (home / folder).mkdir()
        for i in range(2):
            image = smooth_image(SHAPE, seed=i)[0]
            write_nifti(home / folder / f"{LONG}_{i}.nii.gz", (image > limit).astype(np.uint8))
    dock = open_dock(viewer, "Compare")
    dock.form.tabs.setCurrentIndex(1)
    look(dock, "compare-folders-empty")
    for field, folder in (("first", "one"), ("second", "two")):
        dock.form.folders.widgets[field].value = home / folder
    qtbot.waitUntil(lambda: "Will compare" in dock.summary.text())
    job = Halting(compare_dock.compare_folders)
    monkeypatch.setattr(compare_dock, "compare_folders", job)
    look_at_a_run(dock, job, look, qtbot, "compare-folders")
    monkeypatch.setattr(compare_dock, "compare_folders", failing)
    dock.run()
    wait_until_idle(qtbot, dock)
    look(dock, "compare-folders-failed")


def test_comparing_objects(viewer, look, qtbot):
    first, second = np.zeros((40, 60), np.uint16), np.zeros((40, 60), np.uint16)
    first[2:12, 2:12] = second[2:12, 2:12] = 1
    first[2:12, 40:50], first[20:30, 2:12] = 2, 3
    dock = open_dock(viewer, "Compare")
    layers = [viewer.add_labels(array, name=f"{LONG} {i}") for i, array in enumerate((first, second))]
    dock.form.first_box.value, dock.form.second_box.value = layers
    dock.form.objects_box.value = True
    qtbot.waitUntil(lambda: "Will compare" in dock.summary.text())
    dock.run()
    wait_until_idle(qtbot, dock)
    look(dock, "compare-objects")


@pytest.mark.parametrize("scope", [OPEN, FOLDER], ids=["open", "folder"])
def test_segmenting_many_images(known_arithmetic, viewer, dock, model, home, look, qtbot, scope):
    dock.add_model(model.folder)
    (home / "in").mkdir()
    for i in range(3):
        viewer.add_image(smooth_image(SHAPE, seed=i)[0], units=MM, name=f"{LONG} {i}")
        write_nifti(home / "in" / f"{LONG}_{i}_0000.nii.gz", smooth_image(SHAPE, seed=i)[0])
    (home / "in" / "damaged_0000.nii.gz").write_bytes(b"no image")
    viewer.add_image(np.zeros((8, 8, 8)), name="without a voxel size")
    dock.form.image.scope.box.value = scope
    if scope == FOLDER:
        look(dock, "many-folder-empty")
        dock.form.image.scope.images.setText(str(home / "in"))
    name = "many-folder" if scope == FOLDER else "many-open"
    qtbot.waitUntil(lambda: "GB of memory" in dock.summary.text() and not dock._later.isActive())
    look(dock, f"{name}-ready")
    dock.run()
    wait_until_idle(qtbot, dock)
    qtbot.wait(300)
    look(dock, f"{name}-done")


def test_objects_that_were_found(known_arithmetic, viewer, dock, home, look, qtbot):
    model = make_model(home, Recipe(labels={"background": 0, "cell core": 1, "cell border": 2}))
    path = model.folder / "dataset.json"
    objects = {"kinds": {"cell": [1, 2]}, "width": 1.5, "unit": 1.0}
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), "napari_nnunet_objects": objects}))
    dock.add_model(model.folder)
    add_image(viewer)
    qtbot.waitUntil(lambda: "GB of memory" in dock.summary.text() and not dock._later.isActive())
    dock.run()
    wait_until_idle(qtbot, dock)
    qtbot.waitUntil(lambda: dock.result.objects.copy.isEnabled())
    look(dock, "objects-found")


def test_folds_and_labels_that_look_wrong(viewer, home, look, qtbot):
    raw = make_dataset(home, cases=8, shape=SHAPE, spacing=(1.0, 1.0, 1.0), name="Dataset001_Tiny")
    model = make_model(home / "nnUNet_results", Recipe(labels={"background": 0, "a": 1}))
    validation = model.folder / "fold_0" / "validation"
    validation.mkdir()
    for i in range(8):
        seen = np.zeros(SHAPE, np.uint8)
        seen[1:5, 2:6, 2:7] = 1
        write_nifti(raw / "labelsTr" / f"c{i}.nii.gz", seen)
        seen[1:5, 8:12, 4:9] = i == 3  # what nobody drew
        write_nifti(validation / f"c{i}.nii.gz", seen)
        p = np.where(seen, 0.99, 0.01).astype(np.float32)
        write_probabilities(np.stack([1 - p, p]), validation / f"c{i}.npz")
    train = open_dock(viewer, "Train")
    dialog = train.form.folds_dialog()
    dialog.open()
    qtbot.waitUntil(lambda: not dialog._looking.running)
    look(dialog, "folds")
    dialog.reject()
    qtbot.waitUntil(lambda: train.chosen is not None)
    train.suspects.panel.button.click()
    wait_until_idle(qtbot, train.suspects)
    assert train.suspects.suspects
    look(train, "train-suspects")
    train.watch.stop()


def test_a_failed_plan_and_a_failed_ensemble(viewer, workspace, look, qtbot, monkeypatch):
    make_dataset(workspace.raw.parent, name="Dataset001_Tiny", cases=3)
    plan = open_dock(viewer, "Plan")
    monkeypatch.setattr(plan_dock, "plan_and_preprocess", failing)
    plan.run()
    wait_until_idle(qtbot, plan)
    look(plan, "plan-failed")
    ensemble = open_dock(viewer, "Ensemble")
    add_image(viewer)
    ensemble.members.source_box.value = LAYERS
    look(ensemble, "ensemble-layers")
    ensemble.members.source_box.value = MODELS
    qtbot.waitUntil(ensemble.panel.button.isEnabled)
    monkeypatch.setattr(ensemble_dock, "segment", failing)
    ensemble.run()
    wait_until_idle(qtbot, ensemble)
    look(ensemble, "ensemble-failed")
