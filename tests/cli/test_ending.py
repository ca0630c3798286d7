"""A command of a shell ends at once, after all that is to be done at its end."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

SCRIPT = """
import atexit, sys, threading, time
from napari_nnunet.cli import main

class Kept:
    def __del__(self):
        print("taken apart")

kept = Kept()
sys.argv = ["napari-nnunet", "predict_from_modelfolder", "-i", "nowhere", "-m", "nowhere", "-o", "out"]
status = main()
threading.Thread(target=lambda: (time.sleep(0.3), print("a thread ended"))).start()
atexit.register(print, "done at the end")
sys.stdout.write("not flushed ")
sys.exit(status)
"""


def test_what_is_to_be_done_at_the_end_is_done_and_what_was_imported_is_not_taken_apart():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "nowhere" in done.stderr
    assert done.stdout == "not flushed a thread ended\ndone at the end\n"


QUIET = """
import sys
from napari_nnunet.cli import main

sys.argv = ["napari-nnunet", "recipe", "x"]
from napari_nnunet.cli.rooms import choosing
choosing.recipe = lambda request, shell: print("much " * int(LENGTH))
sys.exit(main())
"""


@pytest.mark.skipif(os.name == "nt", reason="pipes end otherwise there")
@pytest.mark.parametrize("length", [1, 100_000])
def test_output_that_nobody_reads_is_no_fault(tmp_path, length):
    """As of ``napari-nnunet look FILE | true``."""
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-c", QUIET.replace("LENGTH", str(length))],
        stdout=writer, stderr=subprocess.PIPE, text=True, check=False, env={**os.environ, "XDG_STATE_HOME": str(tmp_path)},
    )  # fmt: skip
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")
    assert not list(tmp_path.rglob("report-*"))


def test_a_prediction_of_classes_loads_nothing_that_only_objects_need():
    code = "import sys, napari_nnunet.cli.rooms.prediction; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"scipy.sparse", "scipy.spatial", "skimage.morphology", "skimage.measure"} & set(done.stdout.split())
