"""What is done many times leaves nothing behind: no memory, threads, files or widgets.

``NAPARI_NNUNET_SOAK`` says how often (100 for the whole soak; fewer in the usual suite).
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import threading
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

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


def open_files():
    """Return where each open file leads, as the system names it: a path, 'socket:[17]', 'anon_inode:[eventpoll]'."""
    listed = Path("/proc/self/fd")
    if not listed.is_dir():  # other systems say how many there are, and no more
        return Counter({"a file": psutil.Process().num_fds()})
    names = []
    for link in listed.iterdir():
        with contextlib.suppress(OSError):  # the listing itself is open while it is read
            names.append(str(link.readlink()))
    return Counter(names)


def widget_names():
    """Return the class of each widget there is, with its own name and its window's class."""
    return Counter(
        f"{type(w).__name__} {w.objectName()!r} of {type(w.window()).__name__}" for w in QApplication.allWidgets()
    )


@dataclass(frozen=True)
class Held:
    """What the process holds, by name, so that a failure says what is new.

    ``megabytes`` is what is in use: what the C library keeps free for later is given back before. ``kept`` is with it.
    """

    megabytes: float
    kept: float
    threads: Counter[str]
    files: Counter[str]
    widgets: Counter[str]

    @classmethod
    def now(cls, qtbot):
        """Count, when everything that was let go is gone."""
        qtbot.waitUntil(lambda: QThreadPool.globalInstance().activeThreadCount() == 0)
        for _ in range(3):
            QCoreApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete)
            qtbot.wait(50)
            gc.collect()
        QThreadPool.globalInstance().waitForDone()  # each of its threads waits half a minute, with an eventfd of its own
        process = psutil.Process()
        kept = process.memory_info().rss / 1e6
        give_back()
        used = process.memory_info().rss / 1e6
        threads = Counter(thread.name for thread in threading.enumerate())
        return cls(used, kept, threads, open_files(), widget_names())

    def __str__(self):
        counts = ", ".join(f"{getattr(self, kind).total()} {kind}" for kind in ("threads", "files", "widgets"))
        return f"{self.megabytes:.0f} MB ({self.kept:.0f} with what the C library keeps), {counts}"

    def grown(self, before):
        """Return in words what there is more of, with what is new and what has gone."""
        return [
            f"{now.total() - then.total()} {kind} more: new {dict(now - then)}, gone {dict(then - now)}"
            for kind in ("threads", "files", "widgets")
            if (now := getattr(self, kind)).total() > (then := getattr(before, kind)).total()
        ]

    def check_against(self, before):
        """Nothing grew but memory, and that hardly."""
        grown = self.grown(before)
        assert not grown, "\n".join(grown)
        assert self.megabytes - before.megabytes < MOST_MB, (before.megabytes, self.megabytes)


def test_what_grew_is_named():
    before = Held(0, 0, Counter(["MainThread"]), Counter(["/a.nii"]), Counter())
    after = Held(0, 0, Counter(["MainThread"]), Counter(["/b.nii", "/b.nii"]), Counter())
    assert after.grown(before) == ["1 files more: new {'/b.nii': 2}, gone {'/a.nii': 1}"]
    with pytest.raises(AssertionError, match=r"/b\.nii"):
        after.check_against(before)


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
        print(f"\n{TIMES} segmentations: {before}; {after}")
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
        print(f"\n{TIMES} openings of {title}: {before}; {after}")
    after.check_against(before)
