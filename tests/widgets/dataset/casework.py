"""What tests of the Training cases dock do: open layers, wait, press."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from docks import open_dock
from qtpy.QtCore import Qt

from helpers import smooth_image
from napari_nnunet.widgets.frame.panel import RunState

MM = ["mm"] * 3


def show(cases, raw):
    """Choose a dataset that just came into the workspace."""
    cases.state.choose(dataset=raw.name)
    cases.state.written.emit()


def settled(cases, qtbot):
    qtbot.waitUntil(lambda: not cases._later.isActive())
    return cases.summary.text()


def refused(cases, qtbot, words):
    qtbot.waitUntil(lambda: words in cases.summary.text())
    assert not cases.panel.button.isEnabled()


def press(cases, qtbot):
    settled(cases, qtbot)
    assert cases.panel.button.isEnabled(), cases.summary.text()
    qtbot.mouseClick(cases.panel.button, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: cases.panel.state is RunState.IDLE)


def listed(cases, qtbot, count):
    qtbot.waitUntil(lambda: cases.cases.list.count() == count)
    qtbot.waitUntil(lambda: f"{count} case" in cases.cases.title.text())


def layers(viewer, *, shape=(6, 20, 24), scale=(2, 0.5, 0.5), values=(3, 9), **kwargs):
    image = smooth_image(shape)[0]
    painted = np.zeros(shape, int)
    painted[1:3, 4:9, 4:9], painted[3:5, 12:16, 5:9] = values
    place = {"scale": scale, "units": MM[: len(shape)], **kwargs}
    return viewer.add_image(image, name="brain", **place), viewer.add_labels(painted, name="painted", **place)


def plan_and_train(viewer, cases, qtbot, *, count):
    """Press the next buttons of the docks up to a training of a few short steps, which preprocesses first."""
    qtbot.mouseClick(cases.next, Qt.MouseButton.LeftButton)
    there = viewer.window.dock_widgets
    qtbot.waitUntil(lambda: any(name.startswith("Plan") for name in there))
    plan = open_dock(viewer, "Plan")
    qtbot.waitUntil(lambda: plan.train.isVisible())
    qtbot.mouseClick(plan.train, Qt.MouseButton.LeftButton)
    train = open_dock(viewer, "Train")
    train.form.length_box.value, train.form.epochs_box.value = "Epochs", 1
    asked = train.form.request()
    short = asked.settings.replace(iterations=1, validation_iterations=1, workers=1, threads=1)
    train.form.request = lambda: replace(asked, settings=short)
    qtbot.waitUntil(lambda: f"{count} cases will be preprocessed first" in train.summary.text())
    qtbot.waitUntil(train.panel.button.isEnabled)
    qtbot.mouseClick(train.panel.button, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: train.chosen is not None and train.chosen.status == "finished")
    assert train.chosen.last.epoch == 0 and train.chosen.checkpoints
    train.watch.stop()
