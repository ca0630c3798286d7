"""A case's name belongs to its image: nothing is replaced by another image without a question."""

from __future__ import annotations

import shutil
from unittest.mock import Mock

import numpy as np
import pytest
from casework import MM, layers, listed, press, settled, show
from napari.layers import Image
from qtpy.QtWidgets import QMessageBox

from helpers import dataset_json, make_dataset, smooth_image
from napari_nnunet.events import drain
from napari_nnunet.formats.images.files import read_volume
from napari_nnunet.widgets.files.origins import channels_with
from napari_nnunet.widgets.training.correcting import Correcting
from napari_nnunet.widgets.training.layers import score_layers

SHAPE = (20, 24, 22)
PLACE = {"scale": (1.0, 0.8, 0.8), "units": MM}


@pytest.fixture
def asked(monkeypatch):
    """What was asked; the answer is no."""
    monkeypatch.setattr(QMessageBox, "question", asked := Mock(return_value=QMessageBox.StandardButton.No))
    return asked


@pytest.fixture
def opened(viewer, cases, home, qtbot):
    """The case c1 of a dataset, open in the dock."""
    raw = make_dataset(home, cases=3)
    show(cases, raw)
    listed(cases, qtbot, 3)
    cases.open_case("c1")
    qtbot.waitUntil(lambda: len(viewer.layers) == 2)
    return raw


def another_image(viewer):
    image = viewer.add_image(smooth_image(SHAPE, seed=50)[0], name="fresh", **PLACE)
    painted = viewer.add_labels((image.data > 150).astype(int), name="painted", **PLACE)
    return image, painted


def test_another_image_gets_a_name_of_its_own(viewer, cases, opened, qtbot, asked):
    before = (opened / "imagesTr" / "c1_0000.nii.gz").read_bytes()
    viewer.layers.clear()
    another_image(viewer)
    assert "<b>Will add</b> 'fresh'" in settled(cases, qtbot)
    press(cases, qtbot)
    assert (opened / "imagesTr" / "c1_0000.nii.gz").read_bytes() == before
    assert (opened / "imagesTr" / "fresh_0000.nii.gz").is_file()
    asked.assert_not_called()


def test_an_existing_name_for_another_image_is_asked_about(viewer, cases, opened, qtbot, asked):
    before = (opened / "imagesTr" / "c1_0000.nii.gz").read_bytes()
    viewer.layers.clear()
    image, _ = another_image(viewer)
    settled(cases, qtbot)
    cases.form.case_edit.value = "c1"
    assert "<b>Will replace</b> 'c1'" in settled(cases, qtbot)
    press(cases, qtbot)
    assert "has a case 'c1' already, of another image" in asked.call_args.args[2]
    assert (opened / "imagesTr" / "c1_0000.nii.gz").read_bytes() == before
    asked.return_value = QMessageBox.StandardButton.Yes
    press(cases, qtbot)
    np.testing.assert_allclose(read_volume([opened / "imagesTr" / "c1_0000.nii.gz"]).array[0], image.data, rtol=1e-6)
    kept = next((opened / "trash").rglob("c1_0000.nii.gz"))
    assert kept.read_bytes() == before


def test_an_image_that_is_opened_beside_a_case_takes_its_place_in_the_form(viewer, cases, opened, qtbot):
    settled(cases, qtbot)
    image, painted = another_image(viewer)
    assert "<b>Will add</b> 'fresh'" in settled(cases, qtbot)
    assert (cases.form.image, cases.form.labels) == (image, painted)
    viewer.layers.selection.active = viewer.layers["c1 labels"]
    assert "<b>Will save changes to</b> 'c1'" in settled(cases, qtbot)
    assert cases.form.image is viewer.layers["c1 MR"]


def test_labels_of_one_case_are_not_saved_with_the_image_of_another(viewer, cases, opened, qtbot):
    image = viewer.add_image(smooth_image(SHAPE, seed=50)[0], name="fresh", **PLACE)
    assert cases.form.image is image
    assert "'c1 labels' holds the labels of the case 'c1', and 'fresh' is another image" in settled(cases, qtbot)
    assert not cases.panel.button.isEnabled()


def test_after_saving_the_dock_speaks_of_the_case_that_is_there(viewer, cases, home, qtbot, asked):
    _, painted = layers(viewer)
    cases.form.name_edit.value = "Brains"
    settled(cases, qtbot)
    press(cases, qtbot)
    assert "<b>Will save changes to</b> 'brain'" in settled(cases, qtbot)
    painted.data[0, :2, :2] = 3
    painted.events.paint(value=[])
    assert "<b>Will save changes to</b> 'brain'" in settled(cases, qtbot)
    press(cases, qtbot)
    asked.assert_not_called()
    assert len(list((home / "nnUNet_raw" / "Dataset001_Brains" / "labelsTr").iterdir())) == 1


def test_a_result_that_was_corrected_is_chosen_as_a_training_case(viewer, cases, opened, qtbot):
    viewer.layers.clear()
    image, result = another_image(viewer)
    other = viewer.add_image(smooth_image(SHAPE, seed=51)[0], name="other", **PLACE)
    viewer.layers.selection.active = other
    cases.use([image], result)
    assert "<b>Will add</b> 'fresh'" in settled(cases, qtbot)
    assert (cases.form.image, cases.form.labels) == (image, result)


def test_a_result_of_several_channels_is_chosen_with_all_of_them_and_no_others(viewer, cases, home, qtbot):
    """The second channel stayed whatever it had been: that of another patient, where it has the same size."""
    raw, names = make_dataset(home, cases=2), ("T1", "T2")
    for path in (raw / "imagesTr").iterdir():
        shutil.copy(path, path.with_name(path.name.replace("_0000", "_0001")))
    dataset_json(raw, channel_names={"0": "T1", "1": "T2"})
    found = [
        viewer.add_image(smooth_image(SHAPE, seed=i)[0], name=name, **PLACE)
        for i, name in enumerate(("A T1", "A T2", "B T1", "B T2"))
    ]
    result = viewer.add_labels((found[2].data > found[2].data.mean()).astype(int), name="result", **PLACE)
    for dataset in (raw.name, None):
        cases.state.choose(dataset=dataset)
        cases.state.written.emit()
        cases.use(found[2:], result, names)
        assert cases.form.images == tuple(found[2:])
        assert tuple(edit.value for _, edit in cases.form.rows) == names
    cases.form.name_edit.value = "Brains"
    assert "Channels: 'B T1', 'B T2'" in settled(cases, qtbot)
    viewer.add_image(found[0].data, name="C_T1", **PLACE)
    assert "Channels: 'B T1', 'B T2'" in settled(cases, qtbot)
    viewer.add_image(found[0].data, name="C_T2", **PLACE)  # now all of its channels are open
    assert "Channels: 'C_T1', 'C_T2'" in settled(cases, qtbot)
    cases.state.choose(dataset=raw.name)
    cases.use(found[:1], result)
    assert cases.form.images == (found[0], None)
    assert "but 1 are chosen. Choose a layer for each" in settled(cases, qtbot)
    listed(cases, qtbot, 2)


def test_layers_that_are_channels_of_one_image_are_known_by_their_names():
    names = ("A_T1", "B_T1", "B T2", "C_0000", "C_0001", "T2")
    a, b, b2, c, c2, other = layers = [Image(np.zeros((4, 4)), name=name) for name in names]
    wanted = ["T1", "T2"]
    assert channels_with(b, layers, wanted) == channels_with(b2, layers, wanted) == (b, b2)
    assert channels_with(c2, layers, wanted) == (c, c2)
    assert channels_with(a, layers, wanted) == channels_with(other, layers, wanted) == ()
    assert channels_with(a, layers, ["T1"]) == (a,) and channels_with(a, [b], ["T1"]) == ()
    colours = Image(np.zeros((4, 4, 3), np.uint8), rgb=True)
    assert channels_with(colours, [colours], ["R", "G", "B"]) == (colours,)


def test_names_of_classes_stay_with_their_dataset(viewer, cases, opened, qtbot):
    another_image(viewer)
    settled(cases, qtbot)
    cases.form.table.item(1, 2).setText("organ")
    cases.state.choose(dataset=None)
    settled(cases, qtbot)
    assert cases.form.table.item(1, 2).text() == "class_1"


def test_of_a_validation_case_the_labels_are_the_case_and_not_what_a_model_found(cases, viewer, home, qtbot):
    raw = make_dataset(home, cases=2, shape=(6, 20, 22))
    cases.state.choose(dataset=raw.name)
    layers = drain(score_layers(raw, "c0", raw / "labelsTr" / "c0.nii.gz"))
    Correcting(viewer, Mock(), Mock(), Mock())._add(layers, None)
    assert viewer.layers.selection.active is viewer.layers["c0 labels"]
    qtbot.waitUntil(lambda: "<b>Will save changes to</b> 'c0'" in cases.summary.text())
    assert cases.form.labels is viewer.layers["c0 labels"]
