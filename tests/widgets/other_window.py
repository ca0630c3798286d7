"""A napari window in a process of its own that does what it is told, a line of Python at a time.

``docks`` are made where they are named first, ``viewer`` is the window. Every answer is a line of JSON: the text of the
value, and of what went wrong.
"""

from __future__ import annotations

import json
import queue
import subprocess
import sys
import threading
from importlib.resources import files
from pathlib import Path


class OtherWindow:
    """That process, as a test sees it: what is told while it works is done when its window comes round to it.

    Parameters
    ----------
    qtbot : QtBot
        Lets the test's own window work while it waits.
    """

    def __init__(self, qtbot):
        self.qtbot = qtbot
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__))], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._answers = queue.Queue()
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def _listen(self):
        for line in self._process.stdout:
            if line.startswith("ANSWER "):
                self._answers.put(json.loads(line.removeprefix("ANSWER ")))

    def __call__(self, told):
        """Let it do something, and return what it says."""
        self._process.stdin.write(json.dumps(told) + "\n")
        self._process.stdin.flush()
        self.qtbot.waitUntil(lambda: not self._answers.empty())
        value, trouble = self._answers.get()
        assert not trouble, trouble
        return value

    def wait(self, told):
        """Wait until it says yes."""
        self.qtbot.waitUntil(lambda: self(told) == "True")

    def close(self):
        """Close it."""
        self._process.stdin.close()
        self._process.wait(60)
        self._listener.join(60)
        self._process.stdout.close()


class _Docks(dict):
    def __init__(self, viewer):
        super().__init__()
        self._viewer = viewer

    def __missing__(self, title):
        from napari_nnunet.widgets.frame.tabs import open_dock

        self[title] = open_dock(self._viewer, title)
        return self[title]


def main():
    import napari
    from npe2 import PluginManager, PluginManifest
    from qtpy.QtCore import QTimer
    from qtpy.QtWidgets import QInputDialog, QMessageBox
    from stick import come_back

    from napari_nnunet.widgets.frame.state import state_of
    from napari_nnunet.widgets.tour import offer_no_more

    manager = PluginManager.instance()
    if "napari-nnunet" not in manager:
        manager.register(PluginManifest.from_file(files("napari_nnunet") / "napari.yaml"))
    offer_no_more()
    QMessageBox.question = lambda *_: QMessageBox.StandardButton.Yes
    QInputDialog.getInt = lambda *_: (2, True)
    viewer = napari.Viewer(show=True)
    known = {"viewer": viewer, "docks": _Docks(viewer), "state": state_of(viewer), "come_back": come_back}
    told = queue.Queue()

    def listen():
        for line in sys.stdin:
            told.put(json.loads(line))
        told.put(None)

    def work():
        while not told.empty():
            line = told.get()
            if line is None:
                timer.stop()
                viewer.close()
                return
            try:
                answer = [str(eval(line, known)), ""]
            except Exception as error:
                answer = ["", f"{type(error).__name__}: {error}"]
            print("ANSWER " + json.dumps(answer), flush=True)

    timer = QTimer()
    timer.timeout.connect(work)
    timer.start(20)
    threading.Thread(target=listen, daemon=True).start()
    napari.run()


if __name__ == "__main__":
    main()
