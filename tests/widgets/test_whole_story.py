"""From two folders of real pictures to a model that is trusted, by pressing what a person would press.

``NAPARI_NNUNET_SCREENS`` names a folder for pictures of every step in both themes, ``NAPARI_NNUNET_STORY_HOURS`` makes
the training as long as a person's first one (0.033 is two minutes), ``NAPARI_NNUNET_STORIES`` names the stories that
are told (particles heart hippocampus), and not only the first.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, field

import imageio.v3 as iio
import numpy as np
import pytest
from hand import Hand
from napari.layers import Image, Labels
from qtpy.QtCore import QThreadPool

from napari_nnunet.widgets.choosing.members import BEST
from napari_nnunet.widgets.dataset.import_dialog import ImportDialog
from napari_nnunet.widgets.frame.tabs import open_dock

HOURS = float(os.environ.get("NAPARI_NNUNET_STORY_HOURS", "0.01"))
TOLD = os.environ.get("NAPARI_NNUNET_STORIES", "hippocampus").split()


@dataclass(frozen=True)
class Story:
    """Where images and masks lie, how many are taken, and what a person has to say about them."""

    images: str
    masks: str
    ending: str
    suffix: str = ""
    count: int = 6
    skip: int = 1
    says: dict[int, str] = field(default_factory=dict)


STORIES = {
    "particles": Story("particles/images", "particles/labels", ".png"),
    "heart": Story("heart/images", "heart/scribbles", ".nii.gz", skip=2, says={4: "ignore"}),
    "hippocampus": Story(
        "Dataset004_Hippocampus/imagesTr", "Dataset004_Hippocampus/labelsTr", ".nii.gz", suffix="_0000"
    ),
}


def told(name):
    return pytest.param(name, marks=pytest.mark.skipif(name not in TOLD, reason="NAPARI_NNUNET_STORIES leaves it out"))


@pytest.fixture(params=map(told, STORIES))
def story(request, real_data, tmp_path, monkeypatch):
    """Two folders with a few images and their masks, and an image that no model saw."""
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.setenv(name, str(tmp_path / name))
    story = STORIES[request.param]
    masks = sorted((real_data / "data" / story.masks).glob(f"*{story.ending}"))[:: story.skip][: story.count + 1]
    for name in ("images", "masks"):
        (tmp_path / request.param / name).mkdir(parents=True)
    for i, mask in enumerate(masks):
        name = mask.name.removesuffix(story.ending)
        image = real_data / "data" / story.images / f"{name}{story.suffix}{story.ending}"
        last = i == story.count
        shutil.copy(
            image, tmp_path / (f"unseen{story.ending}" if last else f"{request.param}/images/{name}{story.ending}")
        )
        if not last:
            shutil.copy(mask, tmp_path / request.param / "masks" / mask.name)
    return story


def status(train):
    return None if train.chosen is None else train.chosen.status


@pytest.mark.slow
@pytest.mark.real
def test_from_two_folders_to_a_model_that_is_trusted(viewer, story, tmp_path, qtbot, request):
    viewer.window.resize(1280, 800)
    hand = Hand(viewer, qtbot)
    folder = tmp_path / request.node.callspec.params["story"]

    # --- two folders become a dataset ---
    cases = hand.menu("Training cases")
    hand.look(cases, "nothing-yet")
    hand.press(cases.form.from_folders)
    dialog = cases.findChild(ImportDialog)
    hand.fill(dialog.images, folder / "images")
    hand.fill(dialog.masks, folder / "masks")
    qtbot.waitUntil(lambda: dialog.plan is not None and not dialog._drawing.running)
    hand.look(dialog, "import")
    for value, meaning in story.says.items():
        row = next(r for r in range(dialog.values.rowCount()) if dialog.values.item(r, 0).text() == str(value))
        if dialog.values.item(row, 4).text() != meaning:
            hand.fill(dialog.values.item(row, 4), meaning)
    hand.look(dialog, "import-answered")
    hand.press(dialog.panel.button)
    qtbot.waitUntil(lambda: cases.form.head.dataset is not None)
    qtbot.waitUntil(lambda: not cases.cases._drawing.running)
    hand.look(cases, "imported")

    # --- it is checked, planned and trained; the training is paused and resumed ---
    hand.press(cases.next)
    qtbot.waitUntil(lambda: any(name.startswith("Plan") for name in viewer.window.dock_widgets))
    plan = open_dock(viewer, "Plan")
    qtbot.waitUntil(lambda: plan.train.isVisible() and not plan._costing.running)
    hand.look(plan, "planned")
    hand.press(plan.train)
    train = open_dock(viewer, "Train")
    qtbot.waitUntil(lambda: "will be preprocessed first" in train.summary.text())
    hand.look(train, "train")
    hand.fill(train.form.hours_box, HOURS)
    hand.press(train.panel.button)
    qtbot.waitUntil(lambda: status(train) in ("running", "finished") and bool(train.chosen.epochs))
    hand.look(train, "training")
    if train.details.buttons["stop"].isEnabled():  # else it was over before somebody looked
        hand.press(train.details.buttons["stop"])
    qtbot.waitUntil(lambda: status(train) in ("stopped", "finished"))
    hand.look(train, "paused")
    if status(train) == "stopped":
        hand.press(train.details.buttons["resume"])
    qtbot.waitUntil(lambda: status(train) == "finished", timeout=600000)
    qtbot.waitUntil(train.details.scores.isVisible)
    hand.look(train, "trained")

    # --- it segments a picture it never saw ---
    hand.actions.append("open an image")
    unseen = tmp_path / f"unseen{story.ending}"
    if story.ending == ".png":  # napari's own readers are not there in tests
        viewer.add_image(iio.imread(unseen), name="unseen")
    else:
        viewer.open(unseen, plugin="napari-nnunet")
    hand.press(train.details.buttons["segment"])
    result = finished_result(viewer, qtbot)
    segment = open_dock(viewer, "Segment")
    hand.wait(segment.panel)
    hand.look(segment, "segmented")
    assert len(hand.actions) <= 15, hand.actions

    # --- the result is corrected, becomes a case, and the training continues with it ---
    hand.actions.clear()
    hand.actions.append("paint")
    result.brush_size = 12
    result.paint([n // 2 for n in result.data.shape], max(1, int(result.data.max())))
    hand.press(segment.result.collect)
    qtbot.waitUntil(lambda: "<b>Will add</b> 'unseen'" in cases.summary.text())
    hand.look(cases, "corrected")
    hand.press(cases.panel.button)
    hand.wait(cases.panel)
    hand.look(cases, "added")
    epochs = train.chosen.last.epoch
    hand.answer("longer", 1)
    hand.press(cases.next)
    qtbot.waitUntil(lambda: len(hand.asked) == 1)
    hand.answer("new-cases")
    qtbot.waitUntil(lambda: len(hand.asked) == 2)
    qtbot.waitUntil(lambda: status(train) == "finished" and train.chosen.last.epoch > epochs)
    assert any("came after the folds were made" in text for text in hand.asked)
    assert len(hand.actions) <= 6, hand.actions
    hand.look(train, "trained-on")

    # --- the best is chosen, and what it finds is compared with what was corrected ---
    ensemble = hand.menu("Ensemble")
    hand.fill(ensemble.members.source_box, BEST)
    hand.look(ensemble, "not-compared")
    hand.press(ensemble.members.compare)
    hand.wait(ensemble.panel)
    qtbot.waitUntil(lambda: ensemble.members.best is not None)
    image = next(layer for layer in viewer.layers if isinstance(layer, Image))
    ensemble.form.image.channel_boxes[0].value = image
    qtbot.waitUntil(ensemble.panel.button.isEnabled)
    hand.look(ensemble, "best")
    before = len(viewer.layers)
    hand.press(ensemble.panel.button)
    hand.wait(ensemble.panel)
    assert len(viewer.layers) > before
    hand.look(ensemble, "together")
    compare = hand.menu("Compare")
    other = next(layer for layer in viewer.layers if isinstance(layer, Labels) and layer is not result)
    hand.fill(compare.form.first_box, result)
    hand.fill(compare.form.second_box, other)
    hand.look(compare, "compare")
    hand.press(compare.panel.button)
    hand.wait(compare.panel)
    hand.look(compare, "compared")
    assert np.shape(result.data) == np.shape(other.data)
    train.watch.stop()
    qtbot.waitUntil(lambda: QThreadPool.globalInstance().activeThreadCount() == 0)


def finished_result(viewer, qtbot):
    """Wait for the labels that a run leaves."""
    qtbot.waitUntil(lambda: any(isinstance(layer, Labels) for layer in viewer.layers))
    result = next(layer for layer in viewer.layers if isinstance(layer, Labels))
    qtbot.waitUntil(lambda: result.metadata["nnunet"].get("partial") is False)
    return result
