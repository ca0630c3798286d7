"""Programs that make a cluster of this computer."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil

from napari_nnunet.errors import ImageError


class Cluster:
    """A scheduler at a port, and its workers."""

    def __init__(self, folder, workers=2):
        self.folder = folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.address = f"tcp://127.0.0.1:{self.port}"
        self.processes = []
        self.start(workers)

    def start(self, workers=2):
        self._run("dask_scheduler", "--host", "127.0.0.1", "--port", str(self.port), "--no-dashboard")
        first = len(self.processes)
        for _ in range(workers):
            self.add_worker()
        until(self._answers)
        logs = [self.folder / f"{number}.log" for number in range(first, len(self.processes))]
        until(lambda: all("Registered to" in log.read_text(errors="replace") for log in logs))

    def _answers(self):
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def add_worker(self, *more, **environment):
        common = ("--nthreads", "1", "--memory-limit", "0", "--no-dashboard", "--local-directory", str(self.folder))
        return self._run("dask_worker", self.address, *common, *more, **environment)

    def _run(self, program, *words, **environment):
        command = [sys.executable, "-m", f"distributed.cli.{program}", *words]
        paths = os.pathsep.join([os.environ.get("PYTHONPATH", ""), str(Path(__file__).parent)])  # they call us
        env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": paths, **environment}
        with (self.folder / f"{len(self.processes)}.log").open("wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=env)
        self.processes.append(process)
        return process

    def kill_one(self, nanny):
        """End the process that works, as the system does where memory runs out; its nanny starts another."""
        child = psutil.Process(nanny.pid).children()[-1]
        os.kill(child.pid, signal.SIGKILL)
        return child.pid

    def stop(self):
        family = [p for process in self.processes if process.poll() is None for p in _family(process.pid)]
        for process in reversed(family):
            process.kill()
        for process in self.processes:
            process.wait()
        self.processes.clear()


def _family(pid):
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]


def until(condition, seconds=180.0):
    """Wait until something is so; fails loudly where it never is."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)
    return found


def forty_two(fails=False):
    """What a worker is asked to do."""
    if fails:
        raise ImageError("This is wrong.", shell="Do that.")
    return 42


def note_worker(folder):
    """Leave the number of the process that works."""
    (folder / str(os.getpid())).touch()


def work_slowly(folder, name):
    """Say which process works, and how often it was tried; take a second, at the first try until somebody kills it.

    It is not killed where there is no file ``held-NAME``.
    """
    with (folder / f"times-{name}").open("a") as file:
        file.write("x")
    first = (folder / f"times-{name}").read_text() == "x"
    (folder / f"begun-{name}").write_text(str(os.getpid()))
    time.sleep(600.0 if first and (folder / f"held-{name}").exists() else 1.0)
    return name.upper()
