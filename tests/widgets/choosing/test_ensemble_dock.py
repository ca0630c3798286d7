"""The Ensemble dock, and what can be done with its result, in a real window."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from docks import Halting, add_image, open_dock, press, wait_until_idle, wait_until_said
from napari.layers import Labels
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QApplication

from helpers import Recipe, make_model, smooth_image, write_nifti
from napari_nnunet.engine.objects.match import Matching
from napari_nnunet.events import drain
from napari_nnunet.formats.model.folder import load_model
from napari_nnunet.formats.results.postprocessing import write_cleaning
from napari_nnunet.formats.results.probabilities import write_probabilities
from napari_nnunet.jobs.choosing.evaluate_objects import ObjectEvaluation
from napari_nnunet.schema.cleaning import Cleaning
from napari_nnunet.widgets.choosing import ensemble_dock
from napari_nnunet.widgets.choosing.ensemble_jobs import estimate_together
from napari_nnunet.widgets.choosing.members import BEST, FOLDS, LAYERS, MODELS
from napari_nnunet.widgets.choosing.scores import fold_scores
from napari_nnunet.widgets.files.reader import get_reader


def test_models_segment_together_and_show_where_they_disagree(viewer, ensemble, qtbot):
    image = add_image(viewer, scale=(1.2, 0.9, 0.9), translate=(3, 4, 5))
    wait_until_said(qtbot, ensemble)
    assert "3 networks of 2 members" in ensemble.summary.text()
    assert "not calibrated" in ensemble.summary.text()
    press(qtbot, ensemble)
    result = viewer.layers["image – ensemble"]
    assert set(np.unique(result.data)) == {0, 1, 2}
    for name in ("entropy", "disagreement"):
        layer = viewer.layers[f"image – ensemble: {name}"]
        assert layer.data.shape == image.data.shape and 0 < layer.data.max() <= 1
        np.testing.assert_allclose(layer.translate, image.translate)
    recipe = result.metadata["nnunet"]
    assert recipe["partial"] is False and len(recipe["members"]) == 2
    assert ensemble.result.table.table.item(0, 0).text() == "organ"
    # Results are no images: they are not offered as the next thing to segment.
    assert [name for name, _ in ensemble.form.image._image_choices()] == ["image"]


def test_before_the_first_ensemble_its_time_is_called_an_estimate_and_covers_every_member(
    known_arithmetic, viewer, ensemble, qtbot
):
    add_image(viewer)
    wait_until_said(qtbot, ensemble)
    words = "a first estimate, without loading the models"
    assert words in ensemble.summary.text() and "Time unknown" not in ensemble.summary.text()
    together, alone = estimates(ensemble)
    assert together > alone > 0
    press(qtbot, ensemble)
    wait_until_said(qtbot, ensemble)
    qtbot.waitUntil(lambda: words not in ensemble.summary.text())


def estimates(ensemble):
    """Return the seconds of all chosen models together, then of the first alone."""
    order = ensemble.request()
    alone = replace(order, members=order.members[:1])
    return [drain(estimate_together(asked))["seconds"] for asked in (order, alone)]


def test_a_postprocessing_is_a_preview_that_goes_and_comes_back(viewer, ensemble, qtbot):
    add_image(viewer)
    wait_until_said(qtbot, ensemble)
    press(qtbot, ensemble)
    result = viewer.layers["image – ensemble"]
    before, csv = result.data.copy(), ensemble.result.table.csv()
    box = next(box for box, target, _ in ensemble.result.after._targets if target == 1)
    box.setChecked(True)
    qtbot.waitUntil(lambda: not ensemble.result.after.busy)
    removed = before != result.data
    assert removed.any() and (before[removed] == 1).all() and (result.data[removed] == 0).all()
    qtbot.waitUntil(lambda: ensemble.result.table.csv() != csv)  # it is counted on a thread
    painted = tuple(np.argwhere(removed)[0])
    result.data[painted] = 2  # by hand, meanwhile
    box.setChecked(False)
    qtbot.waitUntil(lambda: not ensemble.result.after.busy)
    before[painted] = 2
    np.testing.assert_array_equal(result.data, before)


def test_the_recipe_is_copied_in_three_ways_with_what_is_switched_on(viewer, ensemble, qtbot):
    add_image(viewer)
    wait_until_said(qtbot, ensemble)
    press(qtbot, ensemble)
    ensemble.result.after._targets[1][0].setChecked(True)
    qtbot.waitUntil(lambda: not ensemble.result.after.busy)
    texts = []
    for action in ensemble.result.after.copy.menu().actions():
        action.trigger()
        texts.append(QApplication.clipboard().text())
    command, python, methods = texts
    assert command.startswith("napari-nnunet predict_from_modelfolder") and "apply_postprocessing" in command
    compile(python, "recipe", "exec")
    assert "keep_largest=[1]" in python
    assert "the largest part of organ" in methods and "SHA-256" in methods


def test_weights_count_and_wrong_ones_are_refused(viewer, ensemble, qtbot):
    add_image(viewer)
    wait_until_said(qtbot, ensemble)
    table = ensemble.members.table
    table.item(0, 2).setText("a lot")
    qtbot.waitUntil(lambda: "a lot" in ensemble.summary.text())
    assert not ensemble.panel.button.isEnabled()
    table.item(0, 2).setText("0,0")
    table.item(1, 2).setText("0")
    qtbot.waitUntil(lambda: "not all zero" in ensemble.summary.text() or "Weights" in ensemble.summary.text())
    table.item(1, 2).setText("2")
    wait_until_said(qtbot, ensemble)
    assert ensemble.request().vote.weights == (0.0, 2.0)
    table.item(0, 0).setCheckState(Qt.CheckState.Unchecked)
    qtbot.waitUntil(lambda: "at least two models" in ensemble.summary.text())


def test_folds_of_one_model_disagree(viewer, ensemble, workspace, qtbot):
    add_image(viewer)
    ensemble.members.source_box.value = FOLDS
    ensemble.members.of_box.value = workspace.results / "Dataset001_Tiny" / "nnUNetTrainer__nnUNetPlans__3d_fullres"
    assert [ensemble.members.table.item(r, 0).text() for r in range(2)] == ["fold 0", "fold 1"]
    wait_until_said(qtbot, ensemble)
    press(qtbot, ensemble)
    folds = [member["folds"] for member in viewer.layers["image – ensemble"].metadata["nnunet"]["members"]]
    assert folds == [["0"], ["1"]]


def test_a_fold_without_a_dice_says_why(ensemble, workspace):
    model = workspace.results / "Dataset001_Tiny" / "nnUNetTrainer__nnUNetPlans__3d_fullres"
    labels = json.loads((model / "dataset.json").read_text(encoding="utf-8"))["labels"]
    name, value = next((name, value) for name, value in labels.items() if value)
    for fold, dice in (("fold_0", math.nan), ("fold_1", 0.875)):
        (model / fold / "validation").mkdir(parents=True, exist_ok=True)
        summary = {"foreground_mean": {"Dice": dice}, "mean": {str(value): {"Dice": dice}}, "metric_per_case": []}
        (model / fold / "validation" / "summary.json").write_text(json.dumps(summary))
    ensemble.members.source_box.value = FOLDS
    ensemble.members.of_box.value = model
    ensemble.members.refresh()
    assert [ensemble.members.table.item(r, 1).text() for r in range(2)] == ["–", "0.875"]
    said = f"Fold 0: no mean Dice, as {name} occurs in no validation case."
    assert said in ensemble.members.note.text() and ensemble.members.table.item(0, 1).toolTip() == said
    (model / "fold_0" / "validation" / "summary.json").unlink()
    ensemble.members.refresh()
    assert "Fold 0: not validated yet." in ensemble.members.note.text()


def test_models_of_datasets_with_the_same_classes_segment_together(viewer, ensemble, workspace, qtbot):
    other = workspace.results / "Dataset002_Other"
    name = "nnUNetTrainer__nnUNetPlans__2d"
    shutil.copytree(workspace.results / "Dataset001_Tiny" / name, other / name)
    shutil.move(workspace.results / "Dataset001_Tiny" / "nnUNetTrainer__nnUNetPlans__3d_fullres", other / "renamed")
    make_model(workspace.results, Recipe(name="Dataset003_Else", labels={"background": 0, "cell": 1}))
    add_image(viewer)
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
    wait_until_said(qtbot, ensemble)
    assert not ensemble.calibrate.isVisible()  # they have no validation cases in common
    press(qtbot, ensemble)
    members = viewer.layers["image – ensemble"].metadata["nnunet"]["members"]
    assert {Path(member["folder"]).parent.name for member in members} == {"Dataset001_Tiny", "Dataset002_Other"}


def test_a_model_that_turns_images_gets_their_place_whichever_stands_first(
    viewer, ensemble, workspace, qtbot, tmp_path
):
    image = sitk.GetImageFromArray(smooth_image((10, 28, 26))[0])
    image.SetDirection((-1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0))
    sitk.WriteImage(image, str(tmp_path / "image.nii.gz"))
    data, keywords, _ = get_reader(str(tmp_path / "image.nii.gz"))(str(tmp_path / "image.nii.gz"))[0]
    viewer.add_image(data, **keywords)
    wait_until_said(qtbot, ensemble)
    assert ensemble.request().request.grid.affine is None
    first, second = (member.model.folder for member in ensemble.members.chosen())
    assert ensemble.form.model.folder == first
    content = json.loads((second / "plans.json").read_text(encoding="utf-8"))
    (second / "plans.json").write_text(json.dumps(content | {"image_reader_writer": "NibabelIOWithReorient"}))
    ensemble.members.refresh()
    wait_until_said(qtbot, ensemble)
    assert ensemble.request().request.grid.affine is not None or ensemble.request().request.grid.origin is not None


def test_probability_layers_are_joined(viewer, ensemble, qtbot):
    add_image(viewer)
    ensemble.members.source_box.value = LAYERS
    qtbot.waitUntil(lambda: "at least two results" in ensemble.summary.text())
    ensemble.members.source_box.value = MODELS
    segment = open_dock(viewer, "Segment")
    segment.form.image.output_box.value = "Labels and probabilities"
    for model in segment.form.model_box.choices[:2]:
        segment.form.model_box.value = model
        qtbot.waitUntil(lambda: segment.panel.button.isEnabled())
        segment.run()
        qtbot.waitUntil(lambda: not segment.busy)
    ensemble.members.source_box.value = LAYERS
    wait_until_said(qtbot, ensemble, "Will combine")
    assert not ensemble.form.isVisible()
    press(qtbot, ensemble)
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
    wait_until_said(qtbot, ensemble, "'image – 2d' lacks the probability layers of organ. Untick it, or segment again")


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
    add_image(viewer)
    ensemble.members.source_box.value = BEST
    assert "not been compared yet" in ensemble.members.note.text()
    _write_best(workspace, Cleaning.of([1]))
    ensemble.members._source_chosen()
    assert "Dice 0.850" in ensemble.members.note.text() and "0.900" in ensemble.members.note.text()
    wait_until_said(qtbot, ensemble)
    assert "2 networks of 2 members" in ensemble.summary.text()
    press(qtbot, ensemble)
    result = viewer.layers["image – ensemble"]
    assert result.metadata["nnunet"]["postprocessing"] == [{"labels_or_regions": 1}]
    assert "kept the largest part of organ" in ensemble.result.after.hint.text()
    assert not ensemble.result.after._targets[0][0].isVisible()
    ensemble.run()
    ensemble.members.source_box.value = MODELS  # while it runs
    wait_until_idle(qtbot, ensemble)
    assert "kept the largest part of organ" in ensemble.result.after.hint.text()


def test_the_uncertainty_is_calibrated_from_the_dock(viewer, ensemble, workspace, qtbot):
    add_image(viewer)
    wait_until_said(qtbot, ensemble)
    assert ensemble.calibrate.isVisible()
    qtbot.mouseClick(ensemble.calibrate, Qt.MouseButton.LeftButton)
    wait_until_idle(qtbot, ensemble)
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
        for case in ("a", "b"):  # the latter has no reference
            write_probabilities(p / p.sum(axis=0), folder / f"{case}.npz")
            write_nifti(folder / f"{case}.nii.gz", p.argmax(axis=0).astype(np.uint8))
    qtbot.mouseClick(ensemble.calibrate, Qt.MouseButton.LeftButton)
    wait_until_idle(qtbot, ensemble)
    assert "Calibrated on 1 case:" in ensemble.panel.status.text() and "b failed: " in ensemble.panel.status.text()
    qtbot.waitUntil(lambda: "The uncertainty is calibrated" in ensemble.summary.text())
    assert not ensemble.calibrate.isVisible()
    assert ensemble.request().vote.temperature != 1


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
    wait_until_idle(qtbot, ensemble)
    qtbot.waitUntil(lambda: ensemble.members.best is not None)
    assert [model.configuration for model in ensemble.members.best.models] == ["2d"]
    assert "Compared 2 candidates: 2d, Dice 0." in ensemble.panel.status.text()


def test_a_cancelled_ensemble_keeps_the_rest_of_the_window(viewer, ensemble, qtbot, monkeypatch):
    add_image(viewer)
    wait_until_said(qtbot, ensemble)
    job = Halting(ensemble_dock.segment)
    monkeypatch.setattr(ensemble_dock, "segment", job)
    job.cancel_in(1, ensemble, qtbot, lambda: qtbot.mouseClick(ensemble.panel.button, Qt.MouseButton.LeftButton))
    assert "Cancelled" in ensemble.panel.status.text()
    results = [layer for layer in viewer.layers if isinstance(layer, Labels)]
    assert all("partial" in layer.name and layer.data.any() for layer in results)  # none without anything in it
    qtbot.waitUntil(lambda: ensemble.panel.button.isEnabled())


def test_models_that_do_not_fit_together_are_refused(viewer, workspace, qtbot):
    make_model(workspace.results, Recipe(labels={"background": 0, "x": 1}, configuration="3d_lowres"))
    dock = open_dock(viewer, "Ensemble")
    add_image(viewer)
    qtbot.waitUntil(lambda: "cannot be combined" in dock.summary.text())
    assert not dock.panel.button.isEnabled()


def test_models_of_objects_stand_with_the_objects_they_found(viewer, ensemble, qtbot, tmp_path):
    labels = {"background": 0, "cell core": 1, "cell border": 2}
    model = make_model(tmp_path / "nnUNet_results", Recipe(name="Dataset009_Cells", labels=labels, folds=(0, 1)))
    path = model.folder / "dataset.json"
    scheme = {"kinds": {"cell": [1, 2]}, "width": 1.0, "unit": 1.0}
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), "napari_nnunet_objects": scheme}))
    for fold in (0, 1):  # both have a Dice of cores and borders
        place = model.folder / f"fold_{fold}" / "validation"
        place.mkdir()
        summary = {"foreground_mean": {"Dice": 0.9}, "mean": {"1": {"Dice": 0.9}}, "metric_per_case": []}
        (place / "summary.json").write_text(json.dumps(summary))
    objects = np.zeros((4, 8), np.uint8)
    objects[1:3, 1:3], objects[1:3, 5:7] = 1, 2
    half = ObjectEvaluation({"c": {"": Matching.of(objects, np.where(objects == 1, objects, 0))}})
    (model.folder / "fold_0" / "validation" / "objects.json").write_text(json.dumps(half.content()))
    assert fold_scores(load_model(model.folder)) == {"fold_0": 0.5}
    ensemble.members.source_box.value = FOLDS
    ensemble.members.of_box.choices = [("cells", model.folder)]
    ensemble.members.of_box.value = model.folder
    ensemble.members.refresh()
    assert ensemble.members.table.texts() == [
        ["Member", "AP", "Weight"], ["fold 0", "0.500", "1"], ["fold 1", "–", "1"],
    ]  # fmt: skip
    assert "Fold 1: its objects were not looked for" in ensemble.members.note.text()
