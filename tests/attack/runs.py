"""Command lines and jobs in processes of their own, which begin at once: they are forked from one that imported all."""

from __future__ import annotations

import multiprocessing
import os
import pkgutil
import signal
import sys
import threading
import warnings
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import loky
from works import ACTS

import napari_nnunet.jobs
from napari_nnunet.cli.flags import read
from napari_nnunet.cli.main import build_parser, main
from napari_nnunet.cli.shell import Shell, ShellRequest
from napari_nnunet.cli.verbs import named
from napari_nnunet.errors import InternalError, for_people

LONGEST = 240.0  # seconds for a job of an attack; on a busy computer
_NEEDED = ("torch", "SimpleITK", "nibabel", "blosc2", "scipy.ndimage", "napari_nnunet.cli.main")


@dataclass
class Run:
    """A process that carries out something.

    Parameters
    ----------
    process : multiprocessing.Process
        The process.
    said : Path
        Where what it prints goes.
    """

    process: object
    said: Path
    status: int | None = field(default=None, init=False)

    def wait(self, seconds=LONGEST):
        """Wait for its end; returns its status, None if it still runs then."""
        self.process.join(seconds)
        self.status = self.process.exitcode
        return self.status

    def kill(self):
        """End it and whatever it started, without asking."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        with suppress(ProcessLookupError):
            os.kill(self.process.pid, signal.SIGKILL)  # it is no group of its own in its first moment
        self.process.join()
        self.status = self.process.exitcode

    @property
    def text(self):
        """What it printed."""
        return self.said.read_text(errors="replace") if self.said.is_file() else ""

    @property
    def fault(self):
        """What must never be of a process that was not killed; None if there is nothing of it."""
        if self.status is None:
            return "hang"
        unforeseen = ("Traceback (", "fault of the program", "FAILED: Unexpected ")
        bad = self.status not in (0, 1, 2, 3) or any(words in self.text for words in unforeseen)
        silent = self.status != 0 and "Error: " not in self.text and "failed" not in self.text.lower()
        return f"traceback, status {self.status}: {self.text[-600:]}" if bad or silent else None


def _context():
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as in a shell
    context = multiprocessing.get_context("forkserver")
    jobs = pkgutil.walk_packages(napari_nnunet.jobs.__path__, "napari_nnunet.jobs.")
    context.set_forkserver_preload([*_NEEDED, *(module.name for module in jobs)])
    return context


def start(words, said):
    """Start a command line."""
    return _started(_in_a_shell, words, said)


def start_in_python(lines, said):
    """Start one process that carries out several requests at once, each in a thread; it prints what each came to."""
    return _started(_in_threads, lines, said)


def _started(act, what, said):
    said.unlink(missing_ok=True)
    process = _context().Process(target=act, args=(what, said))
    process.start()
    return Run(process, said)


def _begin(said, *, workers="fork"):
    os.setsid()
    file = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(file, stream)
    warnings.filterwarnings("ignore", message="`fork` start method")
    loky.backend.context.set_start_method(workers, force=True)  # forked ones begin at once, too


def _end(status):
    """End without waiting for idle workers, which end when this process does."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _in_a_shell(words, said):
    _begin(said)
    if words[0] in ACTS:
        ends = [None]
        _act(words, lambda: None, ends, 0)
        _end(ends[0])
    try:
        _end(main(words))
    except SystemExit as end:
        _end(end.code)


def _in_threads(lines, said):
    _begin(said, workers="loky")  # what has threads is not forked
    gate, ends = threading.Barrier(len(lines)), [None] * len(lines)
    threads = [threading.Thread(target=_act, args=(line, gate.wait, ends, i)) for i, line in enumerate(lines)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(f"ended {' '.join(map(str, ends))}", flush=True)
    _end(3 if 70 in ends or None in ends else 0)


def _act(words, gate, ends, number):
    """Carry out one request, and note its end: 0, 1 for what a sentence explains, 70 for a fault of the program."""
    job = _job(words)
    gate()
    try:
        ends[number] = job()
    except Exception as error:
        told = for_people(error)
        ends[number] = 70 if isinstance(told, InternalError) else 1
        print(f"Error: {told.message}", getattr(told, "report", ""), file=sys.stderr, flush=True)


def _act_of_its_own(act, folder):
    act(folder)
    return 0


def _job(words):
    """Return what carries it out: a call that returns 0, or 1 if cases failed, as the status of a command tells it."""
    if words[0] in ACTS:
        return partial(_act_of_its_own, ACTS[words[0]], Path(words[1]))
    verb = named(words[0])
    options = build_parser((verb,)).parse_args(words)
    requests, shell = read(verb.kind, options), Shell(read(ShellRequest, options)[0])

    def act():
        status = 0
        for part in (requests,) if verb.together else requests:
            status |= int(verb.run(part, shell) or 0)
        return status or int(shell.failed > 0 and not verb.together)

    return act
