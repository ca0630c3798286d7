"""Jobs on threads of the window."""

from __future__ import annotations

import subprocess
import sys

_SCRIPT = """
import threading
import time
from qtpy.QtWidgets import QApplication
from napari_nnunet.events import Note
from napari_nnunet.widgets.frame.worker import JobWorker

app, began = QApplication([]), threading.Event()

def job():
    try:
        began.set()
        while True:
            time.sleep(0.01)
            yield Note(text="still here")
    finally:
        print("closed", flush=True)

worker = JobWorker(job())
worker.start()
assert began.wait(300)
"""


def test_a_script_that_ends_while_a_job_runs_ends_the_job_first():
    done = subprocess.run([sys.executable, "-c", _SCRIPT], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["closed"]
