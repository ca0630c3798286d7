"""The Ensemble, Compare and Models docks, and what can be done with a result, in a real window."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QApplication, QMessageBox

from helpers import Recipe, make_model, smooth_image, write_nifti
from napari_nnunet import load_model
from napari_nnunet.events import drain
from napari_nnunet.formats.model.known_models import known_models, remember_model
from napari_nnunet.formats.results.postprocessing import write_cleaning
from napari_nnunet.formats.results.probabilities import write_probabilities
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.jobs.sharing.share import export_models
from napari_nnunet.schema.cleaning import Cleaning
from napari_nnunet.widgets.choosing.members import BEST, FOLDS, LAYERS, MODELS
from napari_nnunet.widgets.frame.panel import State
from napari_nnunet.widgets.sharing import models_dock as models_module
from napari_nnunet.widgets.sharing.export_dialog import ExportDialog

MM = ["mm"] * 3


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    """nnU-Net's variables lead here, and a dataset with two models lies in it."""
    workspace = Workspace.at(tmp_path / "w")
    for name in ("raw", "preprocessed", "results"):
        monkeypatch.setenv(f"nnUNet_{name}", str(getattr(workspace, name)))
    make_model(workspace.results, Recipe(folds=(0, 1)))
    make_model(workspace.results, Recipe(configuration="2d", patch=(16, 16)), seed=7)
    return workspace


def _open(viewer, name):
    _, dock = viewer.window.add_plugin_dock_widget("napari-nnunet", name)
    return dock


def _image(viewer, **kwargs):
    return viewer.add_image(smooth_image((10, 28, 26))[0], **{"units": MM, "name": "image", **kwargs})


def _done(qtbot, dock):
    qtbot.waitUntil(lambda: dock.panel.state is State.IDLE, timeout=90000)


@pytest.fixture
def ensemble(viewer, workspace, qtbot):
    dock = _open(viewer, "Ensemble")
    yield dock
    dock.panel.cancel()
    _done(qtbot, dock)


def _ready(qtbot, dock, words="members run over it"):
    qtbot.waitUntil(lambda: words in dock.summary.text() and not dock._later.isActive(), timeout=60000)


def _run(qtbot, dock):
    assert dock.panel.button.isEnabled(), dock.summary.text()
    qtbot.mouseClick(dock.panel.button, Qt.MouseButton.LeftButton)
    _done(qtbot, dock)


def test_models_segment_together_and_show_where_they_disagree(viewer, ensemble, qtbot):
    image = _image(viewer, scale=(1.2, 0.9, 0.9), translate=(3, 4, 5))
    _ready(qtbot, ensemble)
    assert "3 networks of 2 members" in ensemble.summary.text()
    assert "not calibrated" in ensemble.summary.text()
    _run(qtbot, ensemble)
    result = viewer.layers["image – ensemble"]
    assert set(np.unique(result.data)) == {0, 1, 2}
    for name in ("entropy", "disagreement"):
        layer = viewer.layers[f"image – ensemble: {name}"]
        assert layer.data.shape == image.data.shape and 0 < layer.data.max() <= 1
        np.testing.assert_allclose(layer.translate, image.translate)
    recipe = result.metadata["nnunet"]
    assert recipe["partial"] is False and len(recipe["members"]) == 2
    assert ensemble.table.table.item(0, 0).text() == "organ"
    # Results are no images: they are not offered as the next thing to segment.
    assert [name for name, _ in ensemble.form._image_choices()] == ["image"]


def test_a_postprocessing_is_a_preview_that_goes_and_comes_back(viewer, ensemble, qtbot):
    _image(viewer)
    _ready(qtbot, ensemble)
    _run(qtbot, ensemble)
    result = viewer.layers["image – ensemble"]
    before, csv = result.data.copy(), ensemble.table.csv()
    box = next(box for box, target, _ in ensemble.after._targets if target == 1)
    box.setChecked(True)
    qtbot.waitUntil(lambda: not ensemble.after._busy, timeout=10000)
    removed = before != result.data
    assert removed.any() and (before[removed] == 1).all() and (result.data[removed] == 0).all()
    assert ensemble.table.csv() != csv
    painted = tuple(np.argwhere(removed)[0])
    result.data[painted] = 2  # by hand, meanwhile
    box.setChecked(False)
    qtbot.waitUntil(lambda: not ensemble.after._busy, timeout=10000)
    before[painted] = 2
    np.testing.assert_array_equal(result.data, before)


def test_the_recipe_is_copied_in_three_ways_with_what_is_switched_on(viewer, ensemble, qtbot):
    _image(viewer)
    _ready(qtbot, ensemble)
    _run(qtbot, ensemble)
    ensemble.after._targets[1][0].setChecked(True)
    qtbot.waitUntil(lambda: not ensemble.after._busy, timeout=10000)
    texts = []
    for action in ensemble.after.copy.menu().actions():
        action.trigger()
        texts.append(QApplication.clipboard().text())
    command, python, methods = texts
    assert command.startswith("napari-nnunet predict_from_modelfolder") and "apply_postprocessing" in command
    compile(python, "recipe", "exec")
    assert "keep_largest=[1]" in python
    assert "the largest part of organ" in methods and "SHA-256" in methods


def test_weights_count_and_wrong_ones_are_refused(viewer, ensemble, qtbot):
    _image(viewer)
    _ready(qtbot, ensemble)
    table = ensemble.members.table
    table.item(0, 2).setText("a lot")
    qtbot.waitUntil(lambda: "a lot" in ensemble.summary.text(), timeout=5000)
    assert not ensemble.panel.button.isEnabled()
    table.item(0, 2).setText("0,0")
    table.item(1, 2).setText("0")
    qtbot.waitUntil(
        lambda: "not all 0" in ensemble.summary.text() or "Weights" in ensemble.summary.text(), timeout=5000
    )
    table.item(1, 2).setText("2")
    _ready(qtbot, ensemble)
    assert ensemble.order().vote.weights == (0.0, 2.0)
    table.item(0, 0).setCheckState(Qt.CheckState.Unchecked)
    qtbot.waitUntil(lambda: "two members or more" in ensemble.summary.text(), timeout=5000)


def test_folds_of_one_model_disagree(viewer, ensemble, workspace, qtbot):
    _image(viewer)
    ensemble.members.source_box.value = FOLDS
    ensemble.members.of_box.value = workspace.results / "Dataset001_Tiny" / "nnUNetTrainer__nnUNetPlans__3d_fullres"
    assert [ensemble.members.table.item(r, 0).text() for r in range(2)] == ["fold 0", "fold 1"]
    _ready(qtbot, ensemble)
    _run(qtbot, ensemble)
    folds = [member["folds"] for member in viewer.layers["image – ensemble"].metadata["nnunet"]["members"]]
    assert folds == [["0"], ["1"]]


def test_models_of_datasets_with_the_same_classes_segment_together(viewer, ensemble, workspace, qtbot):
    other = workspace.results / "Dataset002_Other"
    name = "nnUNetTrainer__nnUNetPlans__2d"
    shutil.copytree(workspace.results / "Dataset001_Tiny" / name, other / name)
    shutil.move(workspace.results / "Dataset001_Tiny" / "nnUNetTrainer__nnUNetPlans__3d_fullres", other / "renamed")
    make_model(workspace.results, Recipe(name="Dataset003_Else", labels={"background": 0, "cell": 1}))
    _image(viewer)
    ensemble.members.source_box.value = FOLDS
    ensemble.members.source_box.value = MODELS
    box = ensemble.members.of_box
    together = next(paths for paths in box.choices if paths and len({path.parent for path in paths}) > 1)
    box.value = together
    assert box.native.currentText() == "Dataset001_Tiny + Dataset002_Other"
    rows = {ensemble.members.table.item(r, 0).text() for r in range(3)}
    assert rows == {
        "2d (Dataset001_Tiny, nnUNetTrainer, nnUNetPlans)",
        "2d (Dataset002_Other, nnUNetTrainer, nnUNetPlans)",
        "3d_fullres (Dataset002_Other, renamed)",
    }
    _ready(qtbot, ensemble)
    assert not ensemble.calibrate.isVisible()  # they have no validation cases in common
    _run(qtbot, ensemble)
    members = viewer.layers["image – ensemble"].metadata["nnunet"]["members"]
    assert {Path(member["folder"]).parent.name for member in members} == {"Dataset001_Tiny", "Dataset002_Other"}


def test_probability_layers_are_joined(viewer, ensemble, qtbot):
    _image(viewer)
    ensemble.members.source_box.value = LAYERS
    qtbot.waitUntil(lambda: "two results or more" in ensemble.summary.text(), timeout=5000)
    ensemble.members.source_box.value = MODELS
    segment = _open(viewer, "Segment")
    segment.form.output_box.value = "Labels and probabilities"
    for model in segment.form.model_box.choices[:2]:
        segment.form.model_box.value = model
        qtbot.waitUntil(lambda: segment.panel.button.isEnabled(), timeout=20000)
        segment.run()
        qtbot.waitUntil(lambda: segment._running is None, timeout=60000)
    ensemble.members.source_box.value = LAYERS
    _ready(qtbot, ensemble, "Will join")
    assert not ensemble.form.isVisible()
    _run(qtbot, ensemble)
    names = ["image – 2d", "image – 3d_fullres"]
    joined = (
        viewer.layers[" + ".join(names)]
        if " + ".join(names) in viewer.layers
        else viewer.layers[" + ".join(names[::-1])]
    )
    p = sum(np.stack([viewer.layers[f"{n}: p({c})"].data for c in ("organ", "lesion")]) for n in names) / 2
    full = np.concatenate([1 - p.sum(axis=0, keepdims=True), p])
    assert (joined.data == full.argmax(axis=0)).mean() > 0.9999
    viewer.layers.remove(viewer.layers["image – 2d: p(organ)"])
    qtbot.waitUntil(lambda: "lacks the probability layers" in ensemble.summary.text(), timeout=5000)


def _write_best(workspace, cleaning):
    results = workspace.results / "Dataset001_Tiny"
    folder = results / "nnUNetTrainer__nnUNetPlans__2d"
    write_cleaning(results / "postprocessing.pkl", cleaning)
    names = [
        {"trainer": "nnUNetTrainer", "plans_identifier": "nnUNetPlans", "configuration": c}
        for c in ("2d", "3d_fullres")
    ]
    content = {
        "folds": [0],
        "all_results": {folder.name: 0.7, folder.name.replace("2d", "3d_fullres"): 0.8},
        "best_model_or_ensemble": {
            "result_on_crossval_pre_pp": 0.85,
            "result_on_crossval_post_pp": 0.9,
            "postprocessing_file": str(results / "postprocessing.pkl"),
            "some_plans_file": str(folder / "plans.json"),
            "selected_model_or_models": names,
        },
    }
    (results / "inference_information.json").write_text(json.dumps(content))


def test_one_button_carries_out_the_best_of_a_dataset(viewer, ensemble, workspace, qtbot):
    _image(viewer)
    ensemble.members.source_box.value = BEST
    assert "not compared yet" in ensemble.members.note.text()
    _write_best(workspace, Cleaning.of([1]))
    ensemble.members._source_chosen()
    assert "Dice 0.850" in ensemble.members.note.text() and "0.900" in ensemble.members.note.text()
    _ready(qtbot, ensemble)
    assert "2 networks of 2 members" in ensemble.summary.text()
    _run(qtbot, ensemble)
    result = viewer.layers["image – ensemble"]
    assert result.metadata["nnunet"]["postprocessing"] == [{"labels_or_regions": 1}]
    assert "kept the largest part of organ" in ensemble.after.hint.text()
    assert not ensemble.after._targets[0][0].isVisible()


def test_the_uncertainty_is_calibrated_from_the_dock(viewer, ensemble, workspace, qtbot):
    _image(viewer)
    _ready(qtbot, ensemble)
    assert ensemble.calibrate.isVisible()
    qtbot.mouseClick(ensemble.calibrate, Qt.MouseButton.LeftButton)
    _done(qtbot, ensemble)
    assert "no validation" in ensemble.panel.status.text().lower() or "validated" in ensemble.panel.status.text()
    truth = np.random.default_rng(0).integers(0, 3, (6, 12, 12)).astype(np.uint8)
    references = workspace.preprocessed / "Dataset001_Tiny" / "gt_segmentations"
    references.mkdir(parents=True)
    write_nifti(references / "a.nii.gz", truth)
    for seed, name in enumerate(("2d", "3d_fullres")):
        folder = workspace.results / "Dataset001_Tiny" / f"nnUNetTrainer__nnUNetPlans__{name}" / "fold_0" / "validation"
        folder.mkdir()
        noise = np.random.default_rng(seed).random((3, *truth.shape)).astype(np.float32)
        p = (noise + 0.5 * np.eye(3, dtype=np.float32)[truth].transpose(3, 0, 1, 2)) ** 4
        write_probabilities(p / p.sum(axis=0), folder / "a.npz")
        write_nifti(folder / "a.nii.gz", p.argmax(axis=0).astype(np.uint8))
    qtbot.mouseClick(ensemble.calibrate, Qt.MouseButton.LeftButton)
    _done(qtbot, ensemble)
    qtbot.waitUntil(lambda: "The uncertainty is calibrated" in ensemble.summary.text(), timeout=20000)
    assert not ensemble.calibrate.isVisible()
    assert ensemble.order().vote.temperature != 1


def test_models_are_compared_from_the_dock(viewer, ensemble, workspace, qtbot):
    truth = (smooth_image((6, 12, 12))[0] > 110).astype(np.uint8)
    references = workspace.preprocessed / "Dataset001_Tiny" / "gt_segmentations"
    references.mkdir(parents=True)
    write_nifti(references / "a.nii.gz", truth)
    for name, shift in (("2d", 1), ("3d_fullres", 3)):
        folder = workspace.results / "Dataset001_Tiny" / f"nnUNetTrainer__nnUNetPlans__{name}" / "fold_0" / "validation"
        folder.mkdir(parents=True, exist_ok=True)
        labels = np.roll(truth, shift, axis=1)
        labels[0, 0, 0] = 2  # a class that the reference lacks must not leave the mean undefined
        write_nifti(folder / "a.nii.gz", labels)
    ensemble.members.source_box.value = BEST
    assert ensemble.members.compare.isVisible()
    qtbot.mouseClick(ensemble.members.compare, Qt.MouseButton.LeftButton)
    _done(qtbot, ensemble)
    qtbot.waitUntil(lambda: ensemble.members.best is not None, timeout=10000)
    assert [model.configuration for model in ensemble.members.best.models] == ["2d"]
    assert "Compared 2: 2d" in ensemble.panel.status.text()


def test_a_cancelled_ensemble_keeps_the_rest_of_the_window(viewer, ensemble, qtbot):
    _image(viewer)
    _ready(qtbot, ensemble)
    qtbot.mouseClick(ensemble.panel.button, Qt.MouseButton.LeftButton)
    ensemble.panel.cancel()
    _done(qtbot, ensemble)
    assert "Cancelled" in ensemble.panel.status.text()
    assert any("partial" in layer.name for layer in viewer.layers)
    qtbot.waitUntil(lambda: ensemble.panel.button.isEnabled(), timeout=20000)


def test_models_that_do_not_fit_together_are_refused(viewer, workspace, qtbot):
    make_model(workspace.results, Recipe(labels={"background": 0, "x": 1}, configuration="3d_lowres"))
    dock = _open(viewer, "Ensemble")
    _image(viewer)
    qtbot.waitUntil(lambda: "cannot be joined" in dock.summary.text(), timeout=10000)
    assert not dock.panel.button.isEnabled()


# --- comparing --------------------------------------------------------------------------------------------------------


@pytest.fixture
def compare(viewer, qtbot):
    dock = _open(viewer, "Compare")
    yield dock
    _done(qtbot, dock)


def test_two_layers_are_compared_with_their_differences(viewer, compare, qtbot):
    assert "Open two Labels layers" in compare.panel.status.text()
    one = np.zeros((6, 12, 12), dtype=np.uint8)
    one[2:4, 3:9, 3:9] = 1
    two = one.copy()
    two[3, 3:9, 3:9] = 2
    first = viewer.add_labels(one, name="A", features={"index": [0, 1, 2], "name": ["background", "cell", "wall"]})
    assert not compare.panel.button.isEnabled()
    second = viewer.add_labels(two, name="B")
    compare.first_box.value, compare.second_box.value = first, second
    _run(qtbot, compare)
    rows = [[compare.table.item(r, c).text() for c in range(4)] for r in range(2)]
    assert rows == [["cell", "0.6667", "72", "36"], ["wall", "0.0000", "0", "36"]]
    layer = viewer.layers["A ≠ B"]
    assert set(np.unique(layer.data)) == {0, 3} and (layer.data == 3).sum() == 36
    assert viewer.dims.current_step[0] == 3  # where they differ most
    assert compare.csv().startswith("Class,Dice")
    compare.second_box.value = first
    assert "two different layers" in compare.panel.status.text()
    viewer.add_labels(one[:5], name="C")
    compare.second_box.value = viewer.layers["C"]
    assert "must be the same" in compare.panel.status.text()


def test_two_folders_are_compared_and_a_case_is_opened(viewer, compare, tmp_path, qtbot):
    same, other = smooth_image((4, 10, 10))[0] > 100, smooth_image((4, 10, 10), seed=1)[0] > 100
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        write_nifti(tmp_path / folder / "good.nii.gz", same.astype(np.uint8))
        write_nifti(tmp_path / folder / "bad.nii.gz", (same if folder == "one" else other).astype(np.uint8))
    compare.tabs.setCurrentIndex(1)
    compare.first_folder.setText(str(tmp_path / "one"))
    compare.second_folder.setText(str(tmp_path / "no"))
    assert "does not exist" in compare.panel.status.text()
    compare.second_folder.setText(str(tmp_path / "two"))
    _run(qtbot, compare)
    assert compare.table.item(0, 0).text() == "bad"
    assert compare.table.item(1, 1).text() == "1.0000"
    compare._open_case(0)
    assert [layer.name for layer in viewer.layers] == ["bad (first)", "bad (second)", "bad (first) ≠ bad (second)"]
    assert compare.csv().splitlines()[1].startswith("bad,1,")


# --- models -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def dock(viewer, workspace, qtbot):
    dock = _open(viewer, "Models")
    yield dock
    dock.panel.cancel()
    _done(qtbot, dock)


def _answer(monkeypatch, button):
    asked = []
    monkeypatch.setattr(
        models_module.QMessageBox, "question", staticmethod(lambda *words: (asked.append(words[2]), button)[1])
    )
    return asked


def test_a_dropped_zip_is_installed_after_asking(viewer, workspace, tmp_path, qtbot, monkeypatch):
    elsewhere = make_model(tmp_path / "theirs", Recipe(name="Dataset009_Sent"))
    drain(export_models([elsewhere], tmp_path / "sent.zip"))
    asked = _answer(monkeypatch, QMessageBox.StandardButton.No)
    viewer.open(str(tmp_path / "sent.zip"), plugin="napari-nnunet")
    assert "holds 1 model of Dataset009_Sent: 3d_fullres" in asked[0]
    assert not (workspace.results / "Dataset009_Sent").exists()
    _answer(monkeypatch, QMessageBox.StandardButton.Yes)
    viewer.open(str(tmp_path / "sent.zip"), plugin="napari-nnunet")
    dock = _open(viewer, "Models")
    _done(qtbot, dock)
    qtbot.waitUntil(lambda: (workspace.results / "Dataset009_Sent").is_dir(), timeout=20000)
    qtbot.waitUntil(lambda: "Installed 3d_fullres" in dock.panel.status.text(), timeout=20000)
    assert dock.chosen().parent.name == "Dataset009_Sent"
    assert "organ" in dock.card.text()
    dock.use()
    assert _open(viewer, "Segment").form.model.folder == dock.chosen()


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
    dialog.texts["licence"].setText("CC0")
    for box in dialog.boxes:
        box.setChecked(True)
    assert dialog.reason.text() == ""
    monkeypatch.setattr(models_module, "ExportDialog", lambda *_: dialog)
    monkeypatch.setattr(dialog, "exec", lambda: True)
    qtbot.mouseClick(dock.buttons["export"], Qt.MouseButton.LeftButton)
    _done(qtbot, dock)
    qtbot.waitUntil(lambda: "Exported" in dock.panel.status.text(), timeout=10000)
    assert (tmp_path / "x.zip").is_file()


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


def test_a_damaged_model_shows_why(dock, workspace):
    folder = dock.chosen()
    (folder / "plans.json").write_text("{")
    dock.refresh(folder)
    assert "plans.json" in dock.card.text()
    assert load_model(next(path for path in known_models(workspace) if path != folder)).folds()
