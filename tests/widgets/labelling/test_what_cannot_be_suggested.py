"""What the Next dock cannot suggest from: a sentence that says why, and a button that leads on."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from docks import open_dock, wait_until_idle
from qtpy.QtWidgets import QFileDialog

from helpers import Recipe, make_dataset, make_model, make_trainable, smooth_image, write_nifti
from napari_nnunet.formats.workspace import Workspace

SHAPE = (10, 24, 22)


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "new"
    folder.mkdir()
    return folder


@pytest.fixture
def dock(viewer, home, known_arithmetic):
    """The dock in a workspace with a model and its dataset of one case."""
    make_model(home / "nnUNet_results", Recipe())
    raw = make_dataset(home, cases=1, shape=SHAPE, name="Dataset001_Tiny")
    content = json.loads((raw / "dataset.json").read_text(encoding="utf-8"))
    classes = {"background": 0, "organ": 1, "lesion": 2}
    (raw / "dataset.json").write_text(json.dumps({**content, "labels": classes}))
    return open_dock(viewer, "Next")


def refused(dock, qtbot, words, button):
    qtbot.waitUntil(lambda: words in dock.summary.text())
    assert not dock.panel.button.isEnabled()
    qtbot.waitUntil(dock.panel.remedy.isVisible)
    assert dock.panel.remedy.accessibleName() == button
    assert "Something went wrong" not in dock.summary.text()


def image(folder, name, array, **options):
    write_nifti(folder / f"{name}.nii.gz", array, **options)


def two_channels(folder):
    for channel in (0, 1):
        image(folder, f"a_000{channel}", smooth_image(SHAPE)[0])


def a_slice(folder):
    image(folder, "a", smooth_image((1, 24, 22))[0, 0])


def of_metres(folder):
    image(folder, "a", smooth_image(SHAPE)[0], spacing=(1000.0, 1000.0, 1000.0))


def damaged(folder):
    (folder / "a.nii.gz").write_bytes(b"no image")


def labelled(folder):
    image(folder, "c0_0000", smooth_image(SHAPE)[0])


def text_only(folder):
    (folder / "notes.txt").write_text("nothing")


UNFIT = {
    "no images": (lambda folder: None, "has no files ending in .nii.gz"),
    "no images but other files": (text_only, "it has .txt"),
    "two channels for a model of one": (two_channels, "has 2 channels, the model was trained on 1 (MR)"),
    "slices for a model of volumes": (a_slice, "is a single slice, and the model was trained on volumes"),
    "voxels of another unit": (of_metres, "Is the unit right"),
    "a damaged file": (damaged, "a.nii.gz"),
    "images that are all training cases": (labelled, "The image is a training case of Dataset001_Tiny already"),
}


@pytest.mark.parametrize("what", UNFIT)
def test_a_folder_that_does_not_fit_is_refused_before_the_press(dock, images, qtbot, monkeypatch, what):
    write, words = UNFIT[what]
    write(images)
    dock.source_box.value = images
    refused(dock, qtbot, words, "Choose a folder…")
    better = images.parent / "better"
    better.mkdir()
    image(better, "a_0000", smooth_image(SHAPE)[0])
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_, **__: str(better))
    dock.panel.remedy.click()
    qtbot.waitUntil(lambda: "1 image to look at, with the model Dataset001_Tiny" in dock.summary.text())
    assert dock.panel.button.isEnabled() and not dock.panel.remedy.isVisible()


def test_a_folder_that_vanished_is_missed_before_and_after_the_press(dock, images, qtbot):
    image(images, "a_0000", smooth_image(SHAPE)[0])
    dock.source_box.value = images
    qtbot.waitUntil(lambda: "1 image to look at" in dock.summary.text())
    shutil.rmtree(images)
    dock.panel.button.click()
    refused(dock, qtbot, f"The folder {images} is not there", "Choose a folder…")


def test_images_that_vanish_after_the_press_are_told_with_a_way_on(dock, images, qtbot):
    image(images, "a_0000", smooth_image(SHAPE)[0])
    dock.source_box.value = images
    qtbot.waitUntil(lambda: "1 image to look at" in dock.summary.text())
    dock.panel.button.click()
    shutil.rmtree(images)
    wait_until_idle(qtbot, dock)
    assert "Something went wrong" not in dock.panel.status.text()
    refused(dock, qtbot, f"The folder {images} is not there", "Choose a folder…")


def test_intensities_of_another_modality_are_told_before_the_press(dock, images, home, qtbot):
    image(images, "a_0000", smooth_image(SHAPE)[0] * np.float32(1e5))
    dock.source_box.value = images
    qtbot.waitUntil(lambda: "The intensities of MR" in dock.summary.text())
    assert dock.panel.button.isEnabled()


def test_training_cases_among_the_images_are_counted(dock, images, qtbot):
    labelled(images)
    image(images, "a_0000", smooth_image(SHAPE)[0])
    dock.source_box.value = images
    words = "1 image left out: training cases already"
    qtbot.waitUntil(lambda: words in dock.summary.text())
    assert "1 image to look at" in dock.summary.text()


@pytest.mark.parametrize("planned", [False, True], ids=["not planned", "planned"])
def test_without_a_model_the_dock_leads_to_one(viewer, home, images, qtbot, planned):
    if planned:
        make_trainable(home, Recipe(spacing=(1.0, 1.0, 1.0)))
    else:
        make_dataset(home, cases=1)
    image(images, "a_0000", smooth_image(SHAPE)[0])
    dock = open_dock(viewer, "Next")
    dock.source_box.value = images
    title = "Train" if planned else "Plan"
    refused(dock, qtbot, "has no trained model yet", f"Open the {title} dock")
    assert "plan_and_preprocess" not in dock.summary.text()
    dock.panel.remedy.click()
    opened = [name for name in viewer.window.dock_widgets if name.startswith(title)]
    qtbot.waitUntil(lambda: bool(opened))
    other = viewer.window.dock_widgets[opened[0]]
    if planned:
        other.watch.stop()
    else:
        qtbot.waitUntil(lambda: not other._costing.running)


def test_without_a_dataset_the_dock_leads_to_one(viewer, home, qtbot):
    dock = open_dock(viewer, "Next")
    refused(dock, qtbot, "This workspace has no dataset yet", "Open the Training cases dock")
    assert not list(Workspace.at(home).raw_datasets())
