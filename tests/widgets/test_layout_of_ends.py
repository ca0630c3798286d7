"""Docks and dialogs after a job was cancelled, failed or refused: nothing is cut at 1280 x 800."""

from __future__ import annotations

import shutil

import dask.array as da
import numpy as np
import pytest
from docks import MM, Halting, open_dock, wait_until_idle, wait_until_said
from qtpy.QtWidgets import QMessageBox

from helpers import Recipe, make_dataset, make_model, make_trainable, smooth_image
from napari_nnunet.events import Painted, Stage, drain
from napari_nnunet.jobs.sharing.export import export_models
from napari_nnunet.schema.requests.sharing import ExportSettings
from napari_nnunet.widgets.dataset import cases_dock, import_dialog, problems
from napari_nnunet.widgets.large import order as large_order
from napari_nnunet.widgets.large.order import ON_DISK
from napari_nnunet.widgets.sharing import models_dock

SHAPE = (10, 24, 22)
LONG = "patient_0031_frame_01_with_contrast"


def failing(*_, **__):
    yield Stage(name="Reading")
    raise KeyError("a key that nobody expected to be missing in a place as far from here as this")


def look_at_ends(shown, owner, begin, module, name, look, qtbot, monkeypatch, *, called):
    """Look at a dock or dialog while a job of it runs, after it was cancelled, and after it failed."""
    job = Halting(getattr(module, name))
    job.at = 1
    monkeypatch.setattr(module, name, job)
    begin()
    qtbot.waitUntil(job.reached.is_set)
    look(shown, f"{called}-running")
    owner.panel.cancel()
    job.go.set()
    wait_until_idle(qtbot, owner)
    look(shown, f"{called}-cancelled")
    monkeypatch.setattr(module, name, failing)
    begin()
    wait_until_idle(qtbot, owner)
    assert owner.panel.details.isVisible()
    look(shown, f"{called}-failed")


def test_training_cases(viewer, home, look, qtbot, monkeypatch):
    raw = make_dataset(home, cases=3, shape=SHAPE)
    dock = open_dock(viewer, "Training cases")
    dock.state.choose(dataset=raw.name)
    viewer.add_image(smooth_image(SHAPE)[0], units=MM, name=LONG)
    labels = viewer.add_labels(np.zeros(SHAPE, np.uint8), name="painted", units=MM)
    labels.data[2:5, 3:9, 3:9] = 1
    labels.data = labels.data
    wait_until_said(qtbot, dock, "Will add")
    look_at_ends(dock, dock, dock.run, cases_dock, "add_case", look, qtbot, monkeypatch, called="cases-add")
    begin = dock.problems.panel.button.click
    look_at_ends(dock, dock.problems, begin, problems, "verify", look, qtbot, monkeypatch, called="cases-check")
    qtbot.waitUntil(lambda: not dock.cases._drawing.running)


def test_an_import(viewer, home, look, qtbot, monkeypatch):
    make_dataset(home, cases=3, shape=SHAPE, name="Dataset005_Source")
    raw = home / "nnUNet_raw" / "Dataset005_Source"
    dock = open_dock(viewer, "Training cases")
    dialog = dock.import_dialog()
    dialog.open()
    for name in ("imagesTr", "labelsTr"):
        (raw / name).rename(home / name)
    shutil.rmtree(raw)
    dialog.images.setText(str(home / "imagesTr"))
    dialog.masks.setText(str(home / "labelsTr"))
    qtbot.waitUntil(lambda: dialog.plan is not None and not dialog._drawing.running)
    qtbot.waitUntil(dialog.panel.button.isEnabled)
    begin = dialog.panel.button.click
    look_at_ends(dialog, dialog, begin, import_dialog, "import_planned", look, qtbot, monkeypatch, called="import")
    dialog.reject()
    qtbot.waitUntil(lambda: not dock.cases._drawing.running)


def test_models(viewer, workspace, look, qtbot, tmp_path, monkeypatch):
    elsewhere = make_model(tmp_path / "theirs", Recipe(name="Dataset009_Sent"))
    drain(export_models([elsewhere], tmp_path / "sent.zip", ExportSettings()))
    monkeypatch.setattr(QMessageBox, "question", lambda *_, **__: QMessageBox.StandardButton.Yes)
    dock = open_dock(viewer, "Models")

    def begin():
        dock.offer(tmp_path / "sent.zip")

    look_at_ends(dock, dock, begin, models_dock, "install_zip", look, qtbot, monkeypatch, called="models-install")
    (tmp_path / "damaged.zip").write_bytes((tmp_path / "sent.zip").read_bytes()[:5000])
    dock.offer(tmp_path / "damaged.zip")
    wait_until_idle(qtbot, dock)
    look(dock, "models-damaged")


def test_folds_that_cannot_be_made(viewer, home, look, qtbot):
    make_trainable(home, Recipe(spacing=(1.0, 1.0, 1.0)))
    train = open_dock(viewer, "Train")
    dialog = train.form.folds_dialog()
    dialog.open()
    qtbot.waitUntil(lambda: not dialog._looking.running)
    dialog.count.setValue(9)
    qtbot.waitUntil(lambda: not dialog._later.isActive() and not dialog._looking.running)
    assert not dialog.panel.button.isEnabled()
    look(dialog, "folds-refused")
    dialog.count.setValue(3)
    qtbot.waitUntil(lambda: not dialog._later.isActive() and not dialog._looking.running)
    look(dialog, "folds-proposed")
    dialog.panel.button.click()
    wait_until_idle(qtbot, dialog)
    look(dialog, "folds-made")
    dialog.reject()
    train.watch.stop()


def test_labels_on_disk(known_arithmetic, viewer, dock, model, look, qtbot, home, monkeypatch):
    pytest.importorskip("zarr", reason="zarr is not installed: it comes with napari-nnunet[large]")
    pytest.importorskip("yaozarrs", reason="yaozarrs is not installed: it comes with napari-nnunet[large]")
    dock.add_model(model.folder)
    dock.form.preset_box.value = "fast"
    viewer.add_image(da.from_array(smooth_image((24, 40, 36))[0], chunks=9), units=MM, name=LONG)
    dock.form.image.output_box.value = ON_DISK
    qtbot.waitUntil(lambda: "Choose where the result goes" in dock.summary.text())
    look(dock, "disk-empty")
    dock.form.image.target.edit.setText(str(home / f"{LONG}.zarr"))
    wait_until_said(qtbot, dock, "GB of memory")
    look(dock, "disk-ready")
    job = Halting(large_order.predict_layer)
    monkeypatch.setattr(large_order, "predict_layer", job)
    job.halt_after(lambda event: isinstance(event, Painted), qtbot, dock.run)
    look(dock, "disk-running")
    dock.panel.cancel()
    job.go.set()
    wait_until_idle(qtbot, dock)
    look(dock, "disk-cancelled")
    dock.run()
    wait_until_idle(qtbot, dock)
    qtbot.wait(300)
    look(dock, "disk-done")
    monkeypatch.setattr(large_order, "predict_layer", failing)
    dock.form.image.target.edit.setText(str(home / "another.zarr"))
    wait_until_said(qtbot, dock, "GB of memory")
    dock.run()
    wait_until_idle(qtbot, dock)
    look(dock, "disk-failed")
