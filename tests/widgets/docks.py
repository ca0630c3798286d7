"""What tests of docks do: open one, add an image, wait."""

from __future__ import annotations

import threading

from qtpy.QtCore import Qt

from helpers import smooth_image
from napari_nnunet.widgets.frame.panel import RunState

MM = ["mm"] * 3


def open_dock(viewer, name):
    _, dock = viewer.window.add_plugin_dock_widget("napari-nnunet", name)
    return dock


def add_image(viewer, **kwargs):
    return viewer.add_image(smooth_image((10, 28, 26))[0], **{"units": MM, "name": "image", **kwargs})


def wait_until_idle(qtbot, dock):
    qtbot.waitUntil(lambda: dock.panel.state is RunState.IDLE)


def press(qtbot, dock):
    assert dock.panel.button.isEnabled(), dock.summary.text()
    qtbot.mouseClick(dock.panel.button, Qt.MouseButton.LeftButton)
    wait_until_idle(qtbot, dock)


class Halting:
    """Stands in for a job and halts it inside one of its steps, until it is let go on.

    Parameters
    ----------
    job : callable
        Makes the real job.
    """

    def __init__(self, job):
        self.job, self.at, self.steps = job, None, 0
        self.reached, self.go = threading.Event(), threading.Event()

    def __call__(self, *args, **keywords):
        self.steps = 0
        job = self.job(*args, **keywords)
        try:
            while True:
                if self.steps == self.at:
                    self.reached.set()
                    assert self.go.wait(20)
                self.steps += 1
                try:
                    event = next(job)
                except StopIteration as done:
                    return done.value
                yield event
        finally:
            job.close()

    def cancel_in(self, step, dock, qtbot, start):
        """Start, cancel while the job is inside a step, and wait until the dock is idle."""
        self.at = step
        self.reached.clear()
        self.go.clear()
        start()
        assert self.reached.wait(20)
        dock.panel.cancel()
        self.go.set()
        wait_until_idle(qtbot, dock)
        self.at = None
