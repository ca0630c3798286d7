"""What tests of the Training cases dock do: open layers, wait, press."""

from __future__ import annotations

import numpy as np
from qtpy.QtCore import Qt

from helpers import smooth_image
from napari_nnunet.widgets.frame.panel import RunState

MM = ["mm"] * 3


def show(cases, raw):
    """Choose a dataset that just came into the workspace."""
    cases.state.choose(dataset=raw.name)
    cases.state.written.emit()


def settled(cases, qtbot):
    qtbot.waitUntil(lambda: not cases._later.isActive(), timeout=5000)
    return cases.summary.text()


def refused(cases, qtbot, words):
    qtbot.waitUntil(lambda: words in cases.summary.text(), timeout=5000)
    assert not cases.panel.button.isEnabled()


def press(cases, qtbot):
    settled(cases, qtbot)
    assert cases.panel.button.isEnabled(), cases.summary.text()
    qtbot.mouseClick(cases.panel.button, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: cases.panel.state is RunState.IDLE, timeout=30000)


def listed(cases, qtbot, count):
    qtbot.waitUntil(lambda: cases.cases.list.count() == count, timeout=20000)
    qtbot.waitUntil(lambda: f"{count} case" in cases.cases.title.text(), timeout=20000)


def layers(viewer, *, shape=(6, 20, 24), scale=(2, 0.5, 0.5), values=(3, 9), **kwargs):
    image = smooth_image(shape)[0]
    painted = np.zeros(shape, int)
    painted[1:3, 4:9, 4:9], painted[3:5, 12:16, 5:9] = values
    place = {"scale": scale, "units": MM[: len(shape)], **kwargs}
    return viewer.add_image(image, name="brain", **place), viewer.add_labels(painted, name="painted", **place)
