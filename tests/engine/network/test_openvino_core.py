"""What OpenVINO does to a process beside computing: signals are still heard, and nothing is started or told."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

COME_AND_GO = """
import gc, os, signal, threading
from napari_nnunet.engine.network import unet
from napari_nnunet.engine.network.device import backend_candidates
from napari_nnunet.engine.network.openvino_backend import OpenVinoNetwork
from napari_nnunet.schema.plans import Architecture

def made():
    architecture = Architecture(
        name="PlainConvUNet", ndim=2, features=(4, 8), kernel_sizes=((3, 3),) * 2, strides=((1, 1), (2, 2)),
        blocks=(1, 1), decoder_convs=(1,),
    )
    return OpenVinoNetwork(unet.build(architecture, 1, 2), (1, 1, 16, 16), precision="float32", threads=1)

here = [made(), made()]
backend_candidates()
del here[0]
elsewhere = threading.Thread(target=here.clear)
elsewhere.start()
elsewhere.join()
gc.collect()
signal.signal(signal.SIGUSR1, lambda *_: print("heard"))
os.kill(os.getpid(), signal.SIGUSR1)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="Windows has no signals")
def test_networks_that_are_gone_leave_signals_a_place_to_be_handled():
    pytest.importorskip("openvino")
    ended = subprocess.run([sys.executable, "-c", COME_AND_GO], capture_output=True, text=True, check=False)
    assert ended.returncode == 0 and ended.stdout == "heard\n", (ended.returncode, ended.stderr[-500:])


CORES = """
import os
from napari_nnunet.engine.network import openvino_backend
os.cpu_count = lambda: 2
{}
"""


@pytest.mark.parametrize(("threads", "pinned"), [(1, False), (2, True)])
def test_fewer_threads_than_cores_are_not_tied_to_the_first_ones_which_other_workers_would_use_too(threads, pinned):
    pytest.importorskip("openvino")
    made = COME_AND_GO[: COME_AND_GO.index("here =")].replace("threads=1", f"threads={threads}")
    show = "print(made()._compiled.get_property('ENABLE_CPU_PINNING'))"
    code = CORES.format(f"{made}\n{show}")
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.stdout.strip() == str(pinned), (ended.stdout, ended.stderr[-500:])


IMPORTED = """
import multiprocessing.process, socket, threading
multiprocessing.process.BaseProcess.start = lambda self: print("a process")
threading.Thread.start = lambda self: print("a thread")
socket.socket.connect = lambda self, address: print("a call")
"""


@pytest.mark.parametrize("what", ["napari_nnunet.engine.network.openvino_backend", "napari_nnunet.resources.segment"])
def test_importing_it_starts_nothing_and_tells_nobody(what):
    pytest.importorskip("openvino")
    code = f"{IMPORTED}\nimport {what}, openvino"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.returncode == 0 and ended.stdout == "", (ended.stdout, ended.stderr[-500:])
