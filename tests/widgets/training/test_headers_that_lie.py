"""What was preprocessed and trained whatever the headers say is looked at, and corrected, voxel by voxel in the Train dock."""

from __future__ import annotations

import numpy as np
import pytest
from qtpy.QtWidgets import QMessageBox

from helpers import TRAINED, Recipe, make_trainable
from napari_nnunet.events import drain
from napari_nnunet.formats.images.files import read_labels
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.jobs.planning.preprocess import preprocess
from napari_nnunet.jobs.training.prepare import look_at_needs, prepare_training
from napari_nnunet.jobs.training.train import train
from napari_nnunet.schema.requests.planning import PreprocessRequest
from napari_nnunet.schema.requests.training import TrainRequest
from napari_nnunet.widgets.frame.panel import RunState
from turned_files import claim_mirrored, shift, spread

FOLD = "nnUNetTrainer__nnUNetPlans__3d_fullres/fold_0"
SHORT = {"epochs": 2, "iterations": 4, "validation_iterations": 1, "workers": 0, "device": "cpu", "threads": 1}


@pytest.fixture(params=[claim_mirrored, shift, spread])
def trained(home, request, in_one_process):
    """A training on labels whose headers lie."""
    make_trainable(home, Recipe(spacing=(1.0, 1.0, 1.0)))
    workspace = Workspace.at(home)
    for path in sorted((workspace.raw / TRAINED / "labelsTr").iterdir()):
        request.param(path)
    how = PreprocessRequest(dataset=TRAINED, configurations=("3d_fullres",), workers=1, ignore_geometry=True)
    assert not drain(preprocess(workspace, how)).failed
    asked = TrainRequest(dataset=TRAINED, configuration="3d_fullres", fold=0, **SHORT)
    assert not drain(train(workspace, asked)).validation.failed
    return workspace, asked


def test_a_validation_case_is_shown_and_corrected_as_it_was_trained(trained, viewer, qtbot, monkeypatch):
    workspace, asked = trained
    _, dock = viewer.window.add_plugin_dock_widget("napari-nnunet", "Train")
    qtbot.waitUntil(lambda: dock.details.scores.rowCount() == 1)
    name = dock.details.scores.scores[0].name
    dock.open_case(0)
    qtbot.waitUntil(lambda: f"{name} differences" in viewer.layers)
    path = workspace.raw / TRAINED / "labelsTr" / f"{name}.nii.gz"
    truth, header = read_labels(path)
    seen, _ = read_labels(workspace.results / TRAINED / FOLD / "validation" / path.name)
    image, drawn, result, wrong = viewer.layers
    np.testing.assert_array_equal(drawn.data, truth)
    np.testing.assert_array_equal(result.data, seen)
    assert ((wrong.data > 0) == (seen != truth)).all()
    for layer in (drawn, result, wrong):
        np.testing.assert_array_equal(layer.affine.affine_matrix, image.affine.affine_matrix)
        np.testing.assert_array_equal(layer.translate, image.translate)
        np.testing.assert_array_equal(layer.scale, image.scale)
    drawn.data = np.where(drawn.data == 2, 1, drawn.data)
    viewer.layers.selection.active = drawn
    monkeypatch.setattr(QMessageBox, "question", lambda *_: pytest.fail("nothing is to be asked"))
    dock.correcting.save()
    qtbot.waitUntil(lambda: (read_labels(path)[0] != truth).any())
    after, own = read_labels(path)
    np.testing.assert_array_equal(after, drawn.data)
    assert own == header
    assert drain(look_at_needs(workspace, [asked])).cases == (name,)
    drain(prepare_training(workspace, [asked]))  # what Resume and 'Train on' do first
    assert not drain(look_at_needs(workspace, [asked])).cases
    qtbot.waitUntil(lambda: dock.panel.state is RunState.IDLE)


def test_the_plan_dock_preprocesses_such_cases_as_before(trained, viewer, qtbot):
    workspace, _ = trained
    base = workspace.preprocessed / TRAINED
    before = {path: path.read_bytes() for path in (base / "nnUNetPlans_3d_fullres").iterdir()}
    _, dock = viewer.window.add_plugin_dock_widget("napari-nnunet", "Plan")
    qtbot.waitUntil(lambda: "3d_fullres" in dock.preprocessing.boxes)
    for configuration, box in dock.preprocessing.boxes.items():
        box.setChecked(configuration == "3d_fullres")
    dock.preprocessing.panel.button.click()
    qtbot.waitUntil(lambda: "were up to date" in dock.preprocessing.panel.status.text(), timeout=60000)
    assert {path: path.read_bytes() for path in before} == before
    dock.run()  # and measures them so, when somebody plans again
    qtbot.waitUntil(lambda: dock.panel.state is RunState.IDLE and bool(dock.panel.status.text()), timeout=60000)
    assert dock.panel.status.text().startswith("Planned: ")
