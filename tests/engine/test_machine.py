"""How much of this computer is ours."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

from napari_nnunet.engine import machine

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


@pytest.fixture
def groups(tmp_path, monkeypatch):
    """Write the files in which a container says how much of the processor it gets."""
    files = [tmp_path / name for name in ("cpu.max", "quota", "period")]
    monkeypatch.setattr(machine, "_QUOTA", tuple(files[:2]))
    monkeypatch.setattr(machine, "_PERIOD", files[2])

    def write(**contents):
        for name, text in contents.items():
            (tmp_path / name.replace("_", ".")).write_text(text)

    return write


@pytest.mark.parametrize(
    ("contents", "expected"),
    [
        ({}, CORES),
        ({"cpu_max": "max 100000\n"}, CORES),
        ({"cpu_max": "100000 100000\n"}, 1),
        ({"cpu_max": "50000 100000\n"}, 1),  # half a core
        ({"cpu_max": "9900000 100000\n"}, CORES),
        ({"cpu_max": ""}, CORES),
        ({"cpu_max": "0 0"}, CORES),
        ({"quota": "100000\n", "period": "100000\n"}, 1),
        ({"quota": "-1\n", "period": "100000\n"}, CORES),
        ({"quota": "100000\n"}, CORES),
    ],
)
def test_threads_follow_the_quota_of_a_container(groups, contents, expected):
    groups(**contents)
    assert machine.available_threads() == expected


def test_part_of_a_core_counts_as_one_thread_more(groups, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    groups(cpu_max="250000 100000\n")
    assert machine.available_threads() == 3


KEEPS = """
import resource, sys
from napari_nnunet.engine.machine import keep_memory
import torch
torch.set_num_threads(1)
if sys.argv[1] == "keep":
    assert keep_memory()
size = 40 * 2**20 // 4
for _ in range(5):
    x = torch.ones(size) + 1
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    x = torch.ones(size) + 1
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc alone can be told to keep memory")
def test_a_process_that_keeps_its_memory_does_not_ask_for_pages_again():
    def faults(how):
        command = [sys.executable, "-c", KEEPS, how]
        return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    assert faults("keep") < 0.2 * faults("give back")


AS_DASK = """
import resource, sys
import numpy as np
from napari_nnunet.engine.machine import keep_small_memory
assert keep_small_memory() or sys.argv[1] == "not"
for i in range(20):
    if i == 5:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    x = np.ones(2**20, np.uint8)
    del x
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc alone can be told to keep memory")
def test_what_dask_tells_the_c_library_of_its_workers_is_undone_and_nobody_elses_words_are():
    pytest.importorskip("distributed", reason="distributed is not installed: it comes with napari-nnunet[cluster]")
    from dask import config

    theirs = config.get("distributed.nanny.pre-spawn-environ")
    assert str(theirs["MALLOC_TRIM_THRESHOLD_"]) == machine._DASK_TRIMS

    def faults(trims, how):
        command = [sys.executable, "-c", AS_DASK, how]
        environment = {**os.environ, "MALLOC_TRIM_THRESHOLD_": trims}
        return int(subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout)

    assert faults("65536", "undone") < 0.2 * faults("65537", "not")


ENDS = """
import os, sys, time
from napari_nnunet.engine import machine
machine._LOOK = float(sys.argv[2])
if sys.argv[3] == "looks" and hasattr(os, "pidfd_open"):
    del os.pidfd_open
machine.end_with(int(sys.argv[1]))
print("watches", flush=True)
time.sleep(300)
"""


@pytest.mark.parametrize(
    ("look", "how"),
    [
        pytest.param(
            100, "told", marks=pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="Linux tells at once")
        ),
        (0.1, "looks"),
    ],
)
def test_a_worker_ends_with_the_process_it_works_for(look, how):
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"]) as other:
        command = [sys.executable, "-c", ENDS, str(other.pid), str(look), how]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as worker:
            try:
                assert worker.stdout.readline() == "watches\n"
                assert worker.poll() is None
                other.kill()
                assert worker.wait(60) == 1
            finally:
                worker.kill()
                other.kill()


def test_a_worker_of_a_process_that_is_gone_ends():
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    assert subprocess.run([sys.executable, "-c", ENDS, str(gone.pid), "100", "told"], timeout=60).returncode == 1


def test_where_the_c_library_cannot_keep_memory_nothing_happens(monkeypatch):
    monkeypatch.setattr(machine.ctypes, "CDLL", lambda _: object())
    assert machine.keep_memory() is False
