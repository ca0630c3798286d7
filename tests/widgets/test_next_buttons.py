"""Each dock ends with the button that is pressed next: the way from two folders to a model in use is short."""

from __future__ import annotations

import numpy as np
import pytest
from hand import Hand
from napari.layers import Labels
from qtpy.QtCore import QThreadPool
from qtpy.QtWidgets import QInputDialog, QMessageBox

from helpers import write_nifti
from napari_nnunet.engine.synthetic import make_volume
from napari_nnunet.formats.images.files import read_labels
from napari_nnunet.widgets.dataset.import_dialog import ImportDialog
from napari_nnunet.widgets.frame.tabs import open_dock

SHAPE, SPACING = (16, 48, 48), (2.0, 0.5, 0.5)


@pytest.fixture
def hand(viewer, qtbot):
    return Hand(viewer, qtbot)


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """A folder of images and one of masks."""
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.setenv(name, str(tmp_path / name))
    images, masks = tmp_path / "embryos", tmp_path / "masks"
    for folder in (images, masks):
        folder.mkdir()
    for i in range(5):
        image, labels = make_volume(i, shape=SHAPE)
        write_nifti(images / f"embryo_{i}.nii.gz", image.astype(np.float32), SPACING)
        write_nifti(masks / f"embryo_{i}.nii.gz", np.asarray(labels).astype(np.uint8), SPACING)
    return images, masks


@pytest.mark.slow
def test_from_two_folders_to_a_model_in_use_and_from_a_correction_to_a_better_one(
    viewer, hand, folders, qtbot, tmp_path, monkeypatch
):
    cases = hand.menu("Training cases")
    hand.press(cases.form.from_folders)
    dialog = cases.findChild(ImportDialog)
    hand.fill(dialog.images, folders[0])
    hand.fill(dialog.masks, folders[1])
    if not dialog.name.text():
        hand.fill(dialog.name, "Embryos")
    hand.press(dialog.panel.button)
    qtbot.waitUntil(lambda: cases.form.head.dataset is not None)
    hand.press(cases.next)
    there = viewer.window.dock_widgets
    qtbot.waitUntil(lambda: any(name.startswith("Plan") for name in there))
    plan = open_dock(viewer, "Plan")
    qtbot.waitUntil(lambda: plan.train.isVisible())
    hand.press(plan.train)
    train = open_dock(viewer, "Train")
    assert train.form.configuration_box.value == "2d"  # there is no GPU
    hand.fill(train.form.hours_box, 0.01)
    qtbot.waitUntil(lambda: "5 cases will be preprocessed first" in train.summary.text())
    hand.press(train.panel.button)
    qtbot.waitUntil(lambda: train.chosen is not None and train.chosen.status == "finished")
    unseen, _ = make_volume(99, shape=SHAPE)
    hand.actions.append("open an image")
    viewer.add_image(unseen, name="unseen", scale=SPACING, units=["mm"] * 3)
    hand.press(train.details.buttons["segment"])
    qtbot.waitUntil(lambda: any(isinstance(layer, Labels) for layer in viewer.layers))
    result = next(layer for layer in viewer.layers if isinstance(layer, Labels))
    qtbot.waitUntil(lambda: result.metadata["nnunet"].get("partial") is False)
    assert len(hand.actions) <= 15, hand.actions

    # --- a case is corrected, and the training continues with it ---
    hand.actions.clear()
    open_dock(viewer, "Train")
    name = train.details.scores.scores[0].name
    label = tmp_path / "nnUNet_raw" / cases.form.head.dataset / "labelsTr" / f"{name}.nii.gz"
    before = read_labels(label)[0]
    count = len(viewer.layers)
    hand.actions.append("double click the worst case")
    train.details.scores.opened.emit(0)
    qtbot.waitUntil(lambda: len(viewer.layers) > count + 1)
    reference = viewer.layers[f"{name} labels"]
    hand.actions.append("paint")
    viewer.layers.selection.active = reference
    reference.data[8:10, 5:9, 5:9] = 2 - (before[8, 5, 5] == 2)
    hand.press(train.details.correct)
    qtbot.waitUntil(lambda: not np.array_equal(read_labels(label)[0], before))
    monkeypatch.setattr(QInputDialog, "getInt", lambda *_: (1, True))
    epochs = train.chosen.last.epoch
    hand.press(train.details.buttons["resume"])
    hand.actions.append("epochs")
    qtbot.waitUntil(lambda: train.chosen.status == "finished" and train.chosen.last.epoch > epochs)
    assert len(hand.actions) <= 6, hand.actions

    # --- a result is corrected, becomes a training case, and the training continues with it ---
    hand.actions.clear()
    asked = []
    monkeypatch.setattr(QMessageBox, "question", lambda *a: asked.append(a[2]) or QMessageBox.StandardButton.Yes)
    segment = open_dock(viewer, "Segment")
    hand.actions.append("paint")
    result.data[8:10, 20:24, 20:24] = 2
    hand.press(segment.result.collect)
    qtbot.waitUntil(lambda: "<b>Will add</b> 'unseen'" in cases.summary.text())
    hand.press(cases.panel.button)
    hand.wait(cases.panel)
    assert (label.parent / "unseen.nii.gz").is_file()
    epochs = train.chosen.last.epoch
    hand.press(cases.next)
    hand.actions += ["epochs", "yes"]
    qtbot.waitUntil(lambda: train.chosen.status == "finished" and train.chosen.last.epoch > epochs)
    assert any("came after the folds were made" in text for text in asked)
    assert len(hand.actions) <= 6, hand.actions
    train.watch.stop()
    qtbot.waitUntil(lambda: QThreadPool.globalInstance().activeThreadCount() == 0)
