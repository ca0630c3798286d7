"""What is done many times leaves nothing behind: no memory, threads, files or widgets.

``NAPARI_NNUNET_SOAK`` says how often (100 for the whole soak; fewer in the usual suite).
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import threading
from dataclasses import dataclass

import psutil
import pytest
from docks import add_image, press
from qtpy.QtCore import QCoreApplication, QEvent, QThreadPool
from qtpy.QtWidgets import QApplication

TIMES = int(os.environ.get("NAPARI_NNUNET_SOAK", "12"))
FIRST = min(10, TIMES // 2)  # until then caches fill
MOST_MB = 30.0
DOCKS = ("Segment", "Training cases", "Plan", "Train", "Next", "Ensemble", "Compare", "Models", "Check my computer")


def give_back():
    """Let glibc give the memory back that it keeps for the next who asks, which differs from run to run."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


@dataclass(frozen=True)
class Held:
    """What the process holds.

    ``megabytes`` is what is in use: what the C library keeps free for later is given back before. ``kept`` is with it.
    """

    megabytes: float
    kept: float
    threads: int
    files: int
    widgets: int

    @classmethod
    def now(cls, qtbot):
        """Count, when everything that was let go is gone."""
        qtbot.waitUntil(lambda: QThreadPool.globalInstance().activeThreadCount() == 0)
        for _ in range(3):
            QCoreApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete)
            qtbot.wait(50)
            gc.collect()
        process = psutil.Process()
        kept = process.memory_info().rss / 1e6
        give_back()
        used = process.memory_info().rss / 1e6
        return cls(used, kept, threading.active_count(), process.num_fds(), len(QApplication.allWidgets()))

    def check_against(self, before):
        """Nothing grew but memory, and that hardly."""
        grown = {name: getattr(self, name) - getattr(before, name) for name in ("threads", "files", "widgets")}
        assert all(value <= 0 for value in grown.values()), grown
        assert self.megabytes - before.megabytes < MOST_MB, (before.megabytes, self.megabytes)


@pytest.mark.slow
def test_segmenting_many_times_leaves_nothing(known_arithmetic, viewer, dock, model, qtbot, capsys):
    dock.add_model(model.folder)
    image = add_image(viewer)
    before = None
    for i in range(TIMES):
        qtbot.waitUntil(lambda: "GB of memory" in dock.summary.text())
        press(qtbot, dock)
        viewer.layers.remove(viewer.layers.selection.active)
        viewer.layers.selection.active = image
        if i + 1 == FIRST:
            before = Held.now(qtbot)
    after = Held.now(qtbot)
    with capsys.disabled():
        print(f"\n{TIMES} segmentations: {before} {after}")
    after.check_against(before)


@pytest.mark.slow
@pytest.mark.parametrize("title", DOCKS)
def test_opening_a_dock_many_times_leaves_nothing(viewer, workspace, qtbot, title, monkeypatch, capsys):
    from napari_nnunet.jobs import doctor

    monkeypatch.setattr(doctor, "examine", lambda: "looked at")  # it takes as long as it takes
    before = None
    for i in range(TIMES):
        _, dock = viewer.window.add_plugin_dock_widget("napari-nnunet", title)
        qtbot.waitUntil(lambda dock=dock: not dock.busy)
        qtbot.wait(20)
        viewer.window.remove_dock_widget(dock)
        del dock
        if i + 1 == FIRST:
            before = Held.now(qtbot)
    after = Held.now(qtbot)
    with capsys.disabled():
        print(f"\n{TIMES} openings of {title}: {before} {after}")
    after.check_against(before)
