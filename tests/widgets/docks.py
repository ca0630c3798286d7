"""What tests of docks do: open one, add an image, wait."""

from __future__ import annotations

import threading

from qtpy.QtCore import Qt

from helpers import smooth_image
from napari_nnunet.events import Progress
from napari_nnunet.widgets.frame.panel import RunState

MM = ["mm"] * 3
PATIENCE = 300  # seconds for what a busy computer may be slow at


def open_dock(viewer, name):
    _, dock = viewer.window.add_plugin_dock_widget("napari-nnunet", name)
    return dock


def add_image(viewer, **kwargs):
    return viewer.add_image(smooth_image((10, 28, 26))[0], **{"units": MM, "name": "image", **kwargs})


def wait_until_idle(qtbot, dock):
    qtbot.waitUntil(lambda: dock.panel.state is RunState.IDLE)


def wait_until_said(qtbot, dock, words="members run over it"):
    """Wait until the summary holds words, and nothing is about to change them."""
    qtbot.waitUntil(lambda: words in dock.summary.text() and not dock._later.isActive())


def press(qtbot, dock):
    assert dock.panel.button.isEnabled(), dock.summary.text()
    qtbot.mouseClick(dock.panel.button, Qt.MouseButton.LeftButton)
    wait_until_idle(qtbot, dock)


class Halting:
    """Stands in for a job and halts it inside one of its steps, until it is let go on; it cannot end before it is seen.

    Parameters
    ----------
    job : callable
        Makes the real job.
    """

    def __init__(self, job):
        self.job, self.at, self.after, self.steps = job, None, None, 0
        self.reached, self.go = threading.Event(), threading.Event()

    def __call__(self, *args, **keywords):
        self.steps, after, event = 0, self.after, None
        job = self.job(*args, **keywords)
        try:
            while True:
                if self.steps == self.at or (after is not None and event is not None and after(event)):
                    after = None
                    self.reached.set()
                    assert self.go.wait(PATIENCE)
                self.steps += 1
                try:
                    event = next(job)
                except StopIteration as done:
                    return done.value
                yield event
        finally:
            job.close()

    def halt_after(self, wanted, qtbot, start):
        """Start, and halt the job after the first event that is wanted; returns how many steps it had done."""
        self.after = wanted
        self.reached.clear()
        self.go.clear()
        start()
        qtbot.waitUntil(self.reached.is_set)
        self.after = None
        return self.steps

    def halt_past(self, share, dock, qtbot, start):
        """Do so when more than a share is done, and the dock knows it."""
        steps = self.halt_after(
            lambda event: isinstance(event, Progress) and event.done > share * event.total, qtbot, start
        )
        qtbot.waitUntil(lambda: dock.panel.fraction > share)
        return steps

    def cancel_in(self, step, dock, qtbot, start):
        """Start, cancel while the job is inside a step, and wait until the dock is idle."""
        self.at = step
        self.reached.clear()
        self.go.clear()
        start()
        assert self.reached.wait(PATIENCE)
        dock.panel.cancel()
        self.go.set()
        wait_until_idle(qtbot, dock)
        self.at = None
