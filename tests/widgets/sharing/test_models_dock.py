"""The Models dock in a real window."""

from __future__ import annotations

import hashlib
import json
import shutil
import zipfile

import pytest
from docks import Halting, open_dock, wait_until_idle
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QMessageBox

from helpers import Recipe, make_model
from napari_nnunet import load_model
from napari_nnunet.events import drain
from napari_nnunet.formats.model.known_models import known_models, remember_model
from napari_nnunet.jobs.sharing.export import export_models
from napari_nnunet.schema.requests.sharing import ExportSettings
from napari_nnunet.widgets.sharing import models_dock as models_module
from napari_nnunet.widgets.sharing.export_dialog import CarryDialog, ExportDialog


@pytest.fixture
def dock(viewer, workspace, qtbot):
    dock = open_dock(viewer, "Models")
    yield dock
    dock.panel.cancel()
    wait_until_idle(qtbot, dock)


def _answer(monkeypatch, button):
    asked = []
    monkeypatch.setattr(
        models_module.QMessageBox, "question", staticmethod(lambda *words: (asked.append(words[2]), button)[1])
    )
    return asked


def test_a_dropped_zip_is_installed_after_asking(viewer, workspace, tmp_path, qtbot, monkeypatch):
    elsewhere = make_model(tmp_path / "theirs", Recipe(name="Dataset009_Sent"))
    drain(export_models([elsewhere], tmp_path / "sent.zip", ExportSettings()))
    asked = _answer(monkeypatch, QMessageBox.StandardButton.No)
    viewer.open(str(tmp_path / "sent.zip"), plugin="napari-nnunet")
    assert "holds 1 model of Dataset009_Sent: 3d_fullres" in asked[0]
    assert not (workspace.results / "Dataset009_Sent").exists()
    _answer(monkeypatch, QMessageBox.StandardButton.Yes)
    viewer.open(str(tmp_path / "sent.zip"), plugin="napari-nnunet")
    dock = open_dock(viewer, "Models")
    wait_until_idle(qtbot, dock)
    qtbot.waitUntil(lambda: (workspace.results / "Dataset009_Sent").is_dir())
    qtbot.waitUntil(lambda: "Installed 3d_fullres" in dock.panel.status.text())
    assert dock.chosen().parent.name == "Dataset009_Sent"
    assert "organ" in dock.card.text()
    dock.use()
    assert open_dock(viewer, "Segment").form.model.folder == dock.chosen()


def test_a_bad_zip_says_what_is_wrong(dock, tmp_path):
    (tmp_path / "x.zip").write_bytes(b"PK nothing")
    dock.offer(tmp_path / "x.zip")
    assert "not a complete zip" in dock.panel.status.text()


def test_models_are_exported_with_their_card(dock, workspace, tmp_path, qtbot, monkeypatch):
    folder = dock.chosen()
    dialog = ExportDialog(dock, folder, [path for path in known_models(workspace) if path.parent == folder.parent])
    assert len(dialog.boxes) == 2
    dialog.file.setText(str(tmp_path / "none" / "x.zip"))
    assert "does not exist" in dialog.reason.text()
    dialog.file.setText(str(tmp_path / "x.zip"))
    dialog.rows.widgets["licence"].value = "CC0"
    for box in dialog.boxes:
        box.setChecked(True)
    assert dialog.reason.text() == ""
    monkeypatch.setattr(models_module, "ExportDialog", lambda *_: dialog)
    monkeypatch.setattr(dialog, "exec", lambda: True)
    qtbot.mouseClick(dock.buttons["export"], Qt.MouseButton.LeftButton)
    wait_until_idle(qtbot, dock)
    qtbot.waitUntil(lambda: "Exported" in dock.panel.status.text())
    assert (tmp_path / "x.zip").is_file()


def test_a_model_is_carried_elsewhere_in_the_format_that_was_chosen(dock, tmp_path, qtbot, monkeypatch):
    dialog = CarryDialog(dock, dock.chosen())
    assert list(dialog.rows.widgets["format"].choices) == ["onnx", "openvino", "bioimageio"]
    dialog.file.setText(str(tmp_path / "x.zip"))
    dialog.rows.widgets["mirrored"].value = True
    assert "Switch mirroring inside off, or choose bioimageio" in dialog.reason.text()
    assert not dialog.ok.button(dialog.ok.StandardButton.Save).isEnabled()
    dialog.rows.widgets["format"].value = "bioimageio"
    assert dialog.reason.text() == ""
    monkeypatch.setattr(models_module, "CarryDialog", lambda *_: dialog)
    monkeypatch.setattr(dialog, "exec", lambda: True)
    qtbot.mouseClick(dock.buttons["carry"], Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: "Exported" in dock.panel.status.text())
    wait_until_idle(qtbot, dock)
    with zipfile.ZipFile(tmp_path / "x.zip") as archive:
        assert "rdf.yaml" in archive.namelist()


def test_a_model_is_removed_to_the_trash_or_forgotten(dock, workspace, tmp_path, qtbot, monkeypatch):
    outside = make_model(tmp_path / "outside", Recipe(name="Dataset010_Out"))
    remember_model(outside.folder)
    dock.refresh(outside.folder)
    asked = _answer(monkeypatch, QMessageBox.StandardButton.Yes)
    qtbot.mouseClick(dock.buttons["remove"], Qt.MouseButton.LeftButton)
    assert "Its files stay" in asked[0] and outside.folder.is_dir()
    assert outside.folder not in known_models(workspace)
    inside = dock.chosen()
    qtbot.mouseClick(dock.buttons["remove"], Qt.MouseButton.LeftButton)
    assert not inside.exists() and list(workspace.results.glob(f"trash/*/{inside.name}*"))
    assert dock.list.count() == 1
    qtbot.mouseClick(dock.trash, Qt.MouseButton.LeftButton)
    assert inside.parent.name in dock.trash.dialog.table.texts()[1][0]
    qtbot.mouseClick(dock.trash.dialog.back, Qt.MouseButton.LeftButton)
    dock.trash.dialog.accept()
    assert inside.is_dir() and dock.list.count() == 2 and not dock.trash.isVisible()


def test_a_damaged_model_shows_why(dock, workspace):
    folder = dock.chosen()
    (folder / "plans.json").write_text("{")
    dock.refresh(folder)
    assert "plans.json" in dock.card.text()
    assert load_model(next(path for path in known_models(workspace) if path != folder)).folds()


def test_an_installation_cancelled_in_any_step_leaves_all_or_nothing(dock, workspace, tmp_path, qtbot, monkeypatch):
    elsewhere = make_model(tmp_path / "theirs", Recipe(name="Dataset009_Sent"))
    drain(export_models([elsewhere], tmp_path / "sent.zip", ExportSettings()))
    _answer(monkeypatch, QMessageBox.StandardButton.Yes)
    job = Halting(models_module.install_zip)
    monkeypatch.setattr(models_module, "install_zip", job)
    there = workspace.results / "Dataset009_Sent"

    def install():
        dock.offer(tmp_path / "sent.zip")

    install()
    wait_until_idle(qtbot, dock)
    steps = job.steps
    for step in range(steps):
        shutil.rmtree(there)
        job.cancel_in(step, dock, qtbot, install)
        if step == steps - 1:
            assert dock.panel.status.text() == "Installed 3d_fullres."
        else:
            assert dock.panel.status.text() == "Cancelled. Nothing was installed."
            assert not list(workspace.results.glob("Dataset009*/*__*"))
            there.mkdir(exist_ok=True)
    shutil.rmtree(there)
    install()
    wait_until_idle(qtbot, dock)
    assert load_model(next(there.glob("*__*"))).folds() == (0,)


def test_a_model_of_a_catalogue_is_fetched_after_its_card_was_read(dock, workspace, tmp_path, qtbot, monkeypatch):
    elsewhere = make_model(tmp_path / "theirs", Recipe(name="Dataset011_Listed"))
    drain(export_models([elsewhere], tmp_path / "listed.zip", ExportSettings()))
    content = (tmp_path / "listed.zip").read_bytes()
    entry = {"name": "listed", "segments": ["organ"], "modality": "<b>MR</b>", "licence": "CC0", "url": "listed.zip"}
    entry |= {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    (tmp_path / "models.json").write_text(json.dumps({"format_version": 1, "models": [entry]}))
    dialog = dock.catalogue_dialog()
    dialog.open()
    assert not dialog.panel.button.isEnabled()
    qtbot.mouseClick(dialog.look, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: "Set it in napari's preferences" in dialog.panel.status.text())
    dialog.address.setText(str(tmp_path / "models.json"))
    qtbot.mouseClick(dialog.look, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: "Finds organ in <b>MR</b>\nLicence: CC0" in dialog.card.text())
    qtbot.waitUntil(dialog.panel.button.isEnabled)
    qtbot.mouseClick(dialog.panel.button, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: "Installed" in dialog.panel.status.text())
    assert dock.chosen().parent.name == "Dataset011_Listed"
    dialog.close()
