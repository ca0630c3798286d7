"""The Training cases dock, driven in a real window."""

from __future__ import annotations

import json

import imageio.v3 as iio
import numpy as np
import pytest
import SimpleITK as sitk
from casework import MM, layers, listed, press, refused, settled, show
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QInputDialog, QMessageBox

from helpers import dataset_json, make_dataset, smooth_image
from napari_nnunet.formats.dataset.raw_dataset import open_dataset
from napari_nnunet.formats.images.files import read_labels, read_volume
from napari_nnunet.widgets.frame.panel import RunState


def name_classes(cases, *names):
    for row, name in enumerate(names, start=1):
        cases.form.table.item(row, 2).setText(name)


def test_what_is_missing_is_said_one_after_the_other(viewer, cases, qtbot):
    refused(cases, qtbot, "Open an image first")
    refused(cases, qtbot, "press 'From folders…'.")
    viewer.add_image(smooth_image((6, 20, 24))[0], name="brain")
    refused(cases, qtbot, "Add a Labels layer and paint the classes in it")
    painted = viewer.add_labels(np.zeros((6, 20, 24), int), name="painted")
    refused(cases, qtbot, "Give the new dataset a name")
    cases.form.name_edit.value = "Brains"
    refused(cases, qtbot, "'brain' has no voxel size: it is in pixels")
    cases.form.spacing_edit.value = "1 1"
    refused(cases, qtbot, "The voxel size '1 1' cannot be read: type 3 positive numbers")
    cases.form.spacing_edit.value = "2 1 1"
    refused(cases, qtbot, "The labels hold no class yet. Paint at least one")
    painted.data[2, 3:8, 3:8] = 4
    painted.refresh()
    painted.events.paint(value=[])
    qtbot.waitUntil(lambda: "Will add" in cases.summary.text())
    cases.form.table.item(1, 2).setText("")
    refused(cases, qtbot, "Give the value 4 of the labels the name of a class")
    cases.form.case_edit.value = "a/b"
    refused(cases, qtbot, "cannot name a case")


def test_layers_become_the_first_case_of_a_new_dataset(viewer, cases, home, qtbot):
    angle = np.deg2rad(20)
    affine = np.eye(4)
    affine[1:3, 1:3] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    image, _ = layers(viewer, affine=affine, translate=(5, 6, 7))
    cases.form.name_edit.value = "Brains"
    cases.form.rows[0][1].value = "T1"
    settled(cases, qtbot)
    name_classes(cases, "tumour", "cyst")
    text = settled(cases, qtbot)
    assert "<b>Will add</b> 'brain' in Dataset001_Brains (new): 1 channel of 6 × 20 × 24 voxels" in text
    assert "Labels: 3 → 1 tumour, 9 → 2 cyst." in text
    press(cases, qtbot)
    assert cases.panel.status.text() == "Saved brain in Dataset001_Brains."
    dataset = open_dataset(home / "nnUNet_raw" / "Dataset001_Brains")
    assert dataset.info.labels.labels == {"background": 0, "tumour": 1, "cyst": 2}
    assert dataset.info.channel_names == ("T1",)
    assert dataset.info.num_training == 1
    volume = read_volume(dataset.cases[0].images)
    np.testing.assert_allclose(volume.array[0], image.data, rtol=1e-6)
    assert volume.geometry.spacing == pytest.approx((2, 0.5, 0.5))
    picture = sitk.ReadImage(str(dataset.cases[0].images[0]))
    for voxel in ((0, 0, 0), (5, 19, 23), (2, 7, 11)):
        world = picture.TransformContinuousIndexToPhysicalPoint([float(v) for v in reversed(voxel)])
        np.testing.assert_allclose(world[::-1], image.data_to_world(voxel), atol=1e-3)
    labels, _ = read_labels(dataset.cases[0].label)
    assert labels[1, 5, 5] == 1
    assert labels[3, 13, 6] == 2
    listed(cases, qtbot, 1)


def test_a_case_is_opened_corrected_saved_back_and_removed(viewer, cases, home, qtbot, monkeypatch):
    raw = make_dataset(home, cases=3)
    show(cases, raw)
    listed(cases, qtbot, 3)
    assert not cases.cases.list.item(0).icon().isNull()
    cases.cases.list.itemDoubleClicked.emit(cases.cases.list.item(1))
    qtbot.waitUntil(lambda: len(viewer.layers) == 2)
    assert [layer.name for layer in viewer.layers] == ["c1 MR", "c1 labels"]
    assert list(viewer.layers["c1 labels"].features["name"]) == ["background", "a"]
    assert "<b>Will save changes to</b> 'c1'" in settled(cases, qtbot)
    assert cases.panel.button.text() == "Save changes to this case"
    viewer.layers["c1 labels"].data[:3] = 1
    press(cases, qtbot)
    labels, geometry = read_labels(raw / "labelsTr" / "c1.nii.gz")
    assert (labels[:3] == 1).all()
    assert geometry.spacing == pytest.approx((1.0, 0.8, 0.8))
    listed(cases, qtbot, 3)
    monkeypatch.setattr(QMessageBox, "question", lambda *_: QMessageBox.StandardButton.Yes)
    cases.cases.list.setCurrentRow(2)
    qtbot.mouseClick(cases.cases.drop, Qt.MouseButton.LeftButton)
    listed(cases, qtbot, 2)
    assert open_dataset(raw).info.num_training == 2
    trash = sorted(path.name for path in (raw / "trash").rglob("*.nii.gz"))
    assert trash == ["c1.nii.gz", "c2.nii.gz", "c2_0000.nii.gz"]  # the labels that were corrected, the removed case


def test_sparse_painting_makes_an_ignore_label(viewer, cases, home, qtbot):
    layers(viewer, values=(1, 2))
    cases.form.name_edit.value = "Sparse"
    cases.form.sparse_box.value = True
    name_classes(cases, "cell", "other")
    refused(cases, qtbot, "some background must be painted too")
    cases.form.sparse_box.value = False
    qtbot.waitUntil(lambda: cases.summary.text().endswith("Unlabelled voxels count as background."))
    name_classes(cases, "cell", "background")
    qtbot.waitUntil(lambda: "If nobody looked at them, tick 'Unlabelled voxels are not" in cases.summary.text())
    cases.form.sparse_box.value = True
    qtbot.waitUntil(lambda: "Unlabelled voxels are left out in training." in cases.summary.text())
    press(cases, qtbot)
    raw = home / "nnUNet_raw" / "Dataset001_Sparse"
    assert open_dataset(raw).info.labels.labels == {"background": 0, "cell": 1, "ignore": 2}
    labels, _ = read_labels(raw / "labelsTr" / "brain.nii.gz")
    assert (labels[0] == 2).all()
    assert (labels[1, 5, 5], labels[3, 13, 6]) == (1, 0)
    cases.form.case_edit.value = "another"
    cases.form.sparse_box.value = False
    settled(cases, qtbot)
    name_classes(cases, "cell", "third")
    refused(cases, qtbot, "The class 'third' is new, but this dataset has an ignore label")


@pytest.mark.parametrize("count", [6, 300])
def test_numbered_objects_become_one_class_by_one_button(viewer, cases, home, qtbot, monkeypatch, count):
    _, painted = layers(viewer)
    cases.form.name_edit.value = "Grains"
    settled(cases, qtbot)
    assert not cases.form.one_class.isVisible()
    painted.data[:] = 0
    painted.data[1, :18].flat[:count] = range(1, count + 1)
    painted.events.paint(value=[])
    qtbot.waitUntil(cases.form.one_class.isVisible)
    if count > 256:
        refused(cases, qtbot, "The labels have 301 values, more than there can be classes")
    monkeypatch.setattr(QInputDialog, "getItem", lambda *_: ("grain", True))
    qtbot.mouseClick(cases.form.one_class, Qt.MouseButton.LeftButton)
    painted.data[4, 5, 5] = count + 1
    painted.events.paint(value=[])
    qtbot.waitUntil(lambda: f"1 + 2 + 3 + … ({count + 1} values) → 1 grain." in settled(cases, qtbot))
    assert not cases.form.one_class.isVisible()
    press(cases, qtbot)
    raw = home / "nnUNet_raw" / "Dataset001_Grains"
    assert open_dataset(raw).info.labels.labels == {"background": 0, "grain": 1}
    labels, _ = read_labels(raw / "labelsTr" / "brain.nii.gz")
    assert np.bincount(labels.ravel()).tolist() == [6 * 20 * 24 - count - 1, count + 1]


def test_layers_that_do_not_fit_are_refused(viewer, cases, home, qtbot):
    show(cases, make_dataset(home, cases=2))
    image, painted = layers(viewer)
    settled(cases, qtbot)
    image.scale = (2, 0.6, 0.6)
    refused(cases, qtbot, "'brain' and 'painted' differ in their voxel size")
    viewer.layers.remove(image)
    viewer.add_image(smooth_image((6, 20, 20))[0], name="smaller", scale=painted.scale, units=MM)
    refused(cases, qtbot, "'smaller' has 6 × 20 × 20 voxels, 'painted' has 6 × 20 × 24")


def test_two_channels_and_one_slice(viewer, cases, home, qtbot):
    layers(viewer)
    viewer.add_image(smooth_image((6, 20, 24), seed=3)[0], name="second", scale=(2, 0.5, 0.5), units=MM)
    cases.form.name_edit.value = "Slices"
    qtbot.mouseClick(cases.form.more, Qt.MouseButton.LeftButton)
    cases.form.rows[0][0].value = viewer.layers["brain"]
    cases.form.rows[1][0].value = viewer.layers["second"]
    cases.form.rows[0][1].value = "image_2"
    refused(cases, qtbot, "must have different names")
    cases.form.rows[0][1].value = "DAPI"
    cases.form.extent_box.value = "Current slice"
    viewer.dims.set_current_step(0, 4)
    cases.form._labels_chosen()
    settled(cases, qtbot)
    assert "2 channels of 20 × 24 voxels" in cases.summary.text()
    press(cases, qtbot)
    dataset = open_dataset(home / "nnUNet_raw" / "Dataset001_Slices")
    volume = read_volume(dataset.cases[0].images)
    np.testing.assert_allclose(volume.array[1], smooth_image((6, 20, 24), seed=3)[0][4], rtol=1e-6)
    assert volume.geometry.spacing == pytest.approx((0.5, 0.5))


def test_colour_pictures_stay_pictures(viewer, cases, home, qtbot):
    colours = np.random.default_rng(0).integers(0, 255, (20, 24, 3), dtype=np.uint8)
    viewer.add_image(colours, rgb=True, name="tissue")
    painted = np.zeros((20, 24), int)
    painted[3:9, 3:9] = 1
    viewer.add_labels(painted, name="painted")
    cases.form.name_edit.value = "Tissue"
    settled(cases, qtbot)
    press(cases, qtbot)
    dataset = open_dataset(home / "nnUNet_raw" / "Dataset001_Tissue")
    assert (dataset.info.file_ending, dataset.info.channel_names) == (".png", ("R", "G", "B"))
    np.testing.assert_array_equal(read_volume(dataset.cases[0].images).array, np.moveaxis(colours, -1, 0))


def test_a_voxel_size_is_asked_for_with_the_number_of_cases_that_get_it(cases, home, monkeypatch):
    """Three were named, whatever their number was."""
    asked = []
    monkeypatch.setattr(QInputDialog, "getText", lambda *words: asked.append(words[2]) or ("", False))
    assert cases.problems._spacing_remedy(home, [f"c{i}" for i in range(5)]) is None
    assert asked == ["Voxel size of c0, c1, c2 and 2 more in mm (z y x, or y x for pictures):"]


def test_problems_are_listed_and_mended(viewer, cases, home, qtbot, monkeypatch):
    raw = make_dataset(home, cases=5)
    dataset_json(raw, numTraining=9)
    image = raw / "imagesTr" / "c4_0000.nii.gz"
    image.write_bytes(image.read_bytes()[:600])
    show(cases, raw)
    monkeypatch.setattr(QMessageBox, "question", lambda *_: QMessageBox.StandardButton.Yes)

    def check():
        cases.problems.title.setText("")
        cases.problems.panel.button.click()
        qtbot.waitUntil(lambda: bool(cases.problems.title.text()))

    def mend(row):
        cases.problems.tree.setCurrentItem(cases.problems.tree.topLevelItem(row))
        text = cases.problems.button.text()
        cases.problems.title.setText("")
        cases.problems.button.click()
        qtbot.waitUntil(lambda: bool(cases.problems.title.text()))
        return text

    check()
    assert cases.problems.title.text() == "<b>2 errors, 0 warnings</b> in 5 cases"
    assert mend(1) == "Remove case"
    assert "1 warning</b> in 4 cases" in cases.problems.title.text()
    assert json.loads((raw / "dataset.json").read_text(encoding="utf-8"))["numTraining"] == 4
    dataset_json(raw, numTraining=9)
    check()
    assert mend(0) == "Count again"
    assert cases.problems.title.text() == "<b>0 errors, 1 warning</b> in 4 cases"


def test_the_tab_key_goes_from_the_dataset_to_its_layers(viewer, cases, qtbot):
    layers(viewer)
    settled(cases, qtbot)
    part, names = cases.form.from_folders, []
    while len(names) < 3:
        part = part.nextInFocusChain()
        if part.isVisible() and part.focusPolicy() & Qt.FocusPolicy.TabFocus and part.accessibleName():
            names.append(part.accessibleName())
    assert names == ["Layer of channel 1", "Name of channel 1", "Add channel"]
    cases.form.table.setFocus()
    qtbot.keyClick(cases.form.table, Qt.Key.Key_Tab)
    assert not cases.form.table.hasFocus()


def test_values_have_the_colours_of_the_canvas(viewer, cases, qtbot):
    _, labels = layers(viewer)
    settled(cases, qtbot)
    for row, value in ((1, 3), (2, 9)):
        shown = cases.form.table.item(row, 0).data(Qt.ItemDataRole.DecorationRole)
        np.testing.assert_allclose(shown.getRgbF()[:3], labels.get_color(value)[:3], atol=0.01)


def test_values_of_large_layers_are_counted_on_a_thread(viewer, cases, home, qtbot, monkeypatch):
    from napari_nnunet.widgets.dataset import class_table

    monkeypatch.setattr(class_table, "_QUICK_VOXELS", 10)
    layers(viewer)
    cases.form.name_edit.value = "Large"
    qtbot.waitUntil(lambda: cases.form.table.rowCount() == 3)
    assert [cases.form.table.item(r, 1).text() for r in range(3)] == ["2,798", "50", "32"]
    name_classes(cases, "tumour", "cyst")
    press(cases, qtbot)
    assert (home / "nnUNet_raw" / "Dataset001_Large" / "labelsTr" / "brain.nii.gz").is_file()


def test_a_case_that_cannot_be_opened_says_why(viewer, cases, home, qtbot):
    raw = make_dataset(home, cases=2)
    image = raw / "imagesTr" / "c1_0000.nii.gz"
    image.write_bytes(image.read_bytes()[:500])
    show(cases, raw)
    listed(cases, qtbot, 2)
    cases.open_case("c1")
    qtbot.waitUntil(lambda: "truncated" in cases.panel.status.text())
    assert not viewer.layers


def test_a_dataset_dropped_on_napari_opens_its_first_case(viewer, home):
    raw = make_dataset(home, cases=2)
    viewer.open(str(raw / "dataset.json"), plugin="napari-nnunet")
    assert [layer.name for layer in viewer.layers] == ["c0 MR", "c0 labels"]
    viewer.layers.clear()
    viewer.open(str(raw), plugin="napari-nnunet")
    assert len(viewer.layers) == 2


def test_layers_are_saved_as_a_case_by_the_writer(viewer, home):
    raw = make_dataset(home, cases=2)
    viewer.open(str(raw), plugin="napari-nnunet")
    viewer.layers["c0 labels"].data[:2] = 1
    files = viewer.layers.save(str(raw / "new_one.nunet").replace(".nunet", ".nnunet"), plugin="napari-nnunet")
    assert len(files) == 2
    dataset = open_dataset(raw)
    assert [case.name for case in dataset.cases] == ["c0", "c1", "new_one"]
    assert dataset.info.num_training == 3
    assert (read_labels(dataset.cases[2].label)[0][:2] == 1).all()


def test_a_folder_without_dataset_json_is_described(viewer, cases, home, qtbot):
    raw = make_dataset(home, cases=2)
    (raw / "dataset.json").unlink()
    show(cases, raw)
    assert cases.form.describe.isVisibleTo(cases.form)
    dialog = cases.json_dialog()
    assert dialog.ending.text() == ".nii.gz"
    dialog.write()
    assert dialog.about.text() == "Name the channels and at least one class."
    dialog.channels.setText("T1")
    dialog.labels.setText("a")
    dialog.write()
    assert dialog.about.text() == "'a' is not understood; write classes like liver=1."
    dialog.labels.setText("nano particle=1, carbon film=2")
    dialog.write()
    content = json.loads((raw / "dataset.json").read_text(encoding="utf-8"))
    assert content == {
        "channel_names": {"0": "T1"}, "labels": {"background": 0, "nano particle": 1, "carbon film": 2}, "numTraining": 2,
        "file_ending": ".nii.gz",
    }  # fmt: skip
    listed(cases, qtbot, 2)
    assert not cases.form.describe.isVisibleTo(cases.form)


@pytest.mark.real
def test_electron_microscopy_from_pictures_to_plan(real_data, viewer, cases, home, qtbot):
    source = real_data / "data" / "Dataset012_ISBI2012EM"
    for i, case in enumerate(open_dataset(source).cases[:3]):
        viewer.layers.clear()
        viewer.add_image(iio.imread(case.images[0]), name=case.name)
        labels, _ = read_labels(case.label)
        viewer.add_labels(labels, name="membrane")
        cases.form.name_edit.value = "EM"
        cases.form.case_edit.value = case.name
        settled(cases, qtbot)
        name_classes(cases, "membrane")
        press(cases, qtbot)
        listed(cases, qtbot, i + 1)
    dataset = open_dataset(home / "nnUNet_raw" / "Dataset001_EM")
    assert dataset.info.file_ending == ".png"
    first = open_dataset(source).cases[0]
    np.testing.assert_array_equal(read_labels(dataset.cases[0].label)[0], read_labels(first.label)[0])
    _, plan = viewer.window.add_plugin_dock_widget("napari-nnunet", "Plan")
    qtbot.waitUntil(plan.panel.button.isEnabled)
    plan.panel.button.click()
    qtbot.waitUntil(lambda: plan.panel.state is RunState.IDLE)
    assert plan.sentence.text().startswith("3 cases, 1 class, 2D, patch 512 × 512")
    qtbot.waitUntil(plan.preprocessing.panel.button.isEnabled)
    plan.preprocessing.panel.button.click()
    qtbot.waitUntil(lambda: plan.preprocessing.panel.state is RunState.IDLE)
    assert plan.preprocessing.panel.status.text() == "3 cases preprocessed. Ready to train."
    worker = plan._costing._worker
    plan._costing.stop()
    qtbot.waitUntil(lambda: worker is None or not worker.is_running)


def test_a_dock_that_is_closed_while_threads_work_is_not_called_again(viewer, home, qtbot):
    raw = make_dataset(home, cases=6, shape=(30, 60, 60))
    for _ in range(3):
        _, widget = viewer.window.add_plugin_dock_widget("napari-nnunet", "Training cases")
        with qtbot.captureExceptions() as trouble:
            widget.state.choose(dataset=None)
            show(widget, raw)
            worker = widget.cases._drawing._worker
            widget.open_case("c1")
            viewer.window.remove_dock_widget(widget.parent())
            widget.deleteLater()
            del widget
            qtbot.waitUntil(lambda worker=worker: not worker.is_running)
            qtbot.wait(300)
        assert not trouble
