"""What tests of docks do: open one, add an image, wait."""

from __future__ import annotations

from qtpy.QtCore import Qt

from helpers import smooth_image
from napari_nnunet.widgets.frame.panel import State

MM = ["mm"] * 3


def open_dock(viewer, name):
    _, dock = viewer.window.add_plugin_dock_widget("napari-nnunet", name)
    return dock


def add_image(viewer, **kwargs):
    return viewer.add_image(smooth_image((10, 28, 26))[0], **{"units": MM, "name": "image", **kwargs})


def wait_until_idle(qtbot, dock):
    qtbot.waitUntil(lambda: dock.panel.state is State.IDLE, timeout=90000)


def press(qtbot, dock):
    assert dock.panel.button.isEnabled(), dock.summary.text()
    qtbot.mouseClick(dock.panel.button, Qt.MouseButton.LeftButton)
    wait_until_idle(qtbot, dock)
