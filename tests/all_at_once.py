"""Run the tests with a window and those without at the same time; with arguments, only what they select, one by one.

python tests/all_at_once.py [PYTEST ARGUMENT ...]

Three processes run side by side on two cores, for tests with a window wait for the screen half of the time. The tests are
cut into rooms, and whoever is free takes the next of them; what is printed for the first is seen at once, for the others at
the end. A test that hangs ends its process after a quarter of an hour, with the stack of every thread.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from threading import Thread

SCREEN = (sys.executable, str(Path(__file__).with_name("with_screen.py")))
PYTEST = (sys.executable, "-m", "pytest", "--timeout=900", "--timeout-method=thread", "--durations=15", "-m")
WINDOWS = (*SCREEN, *PYTEST, "gui and not live")
OTHERS = (*PYTEST, "not gui and not live")
AT_ONCE = 3
APART = "tests/jobs"  # of the tests without windows the slower half; the rest is the first room
ROOMS = (  # of tests/widgets, by the time they take; what is in none of them comes before
    ("training",),
    ("frame",),
    ("prediction",),
    ("dataset",),
    ("files",),
    ("choosing", "sharing"),
    ("labelling", "objects", "planning"),
)
CRASHED = (-signal.SIGSEGV, 128 + signal.SIGSEGV)  # as seen through a shell
MODULE, MORE = re.compile(r"(tests/\S+\.py) ([.FEsxX]+)"), re.compile(r"([.FEsxX]+)(?:\s+\[\s*\d+%\])?")


def main(arguments: list[str]) -> int:
    """Return the first exit status that is not 0."""
    if arguments:
        return subprocess.run([*SCREEN, *PYTEST, "not live", *arguments], check=False).returncode
    (first, _), *others = rooms()
    waiting, begun = deque(others), list[_Room]()
    besides = [Thread(target=_take, args=(waiting, begun)) for _ in range(AT_ONCE - 1)]
    try:
        for one in besides:
            one.start()
        seen = subprocess.run(first, check=False).returncode
        _take(waiting, begun)
        for one in besides:
            one.join()
        for one in begun:
            sys.stdout.flush()
            sys.stdout.buffer.write(one.output())
            sys.stdout.flush()
        lost = len(begun) < len(others)  # a room that could not be begun
        return next((status for status in (seen, *(one.status() for one in begun), int(lost)) if status), 0)
    finally:
        waiting.clear()
        while any(one.is_alive() for one in besides):
            for one in list(begun):
                one.end()
            besides[-1].join(0.1)
        for one in begun:
            one.end()


def rooms() -> list[tuple[list[str], bool]]:
    """Return the command of each room, and whether it draws in windows: no test is in two, and none is left out."""
    named = [[f"tests/widgets/{room}" for room in together] for together in ROOMS]
    return [
        ([*OTHERS, f"--ignore={APART}"], False),
        ([*WINDOWS, *(f"--ignore={folder}" for together in named for folder in together)], True),
        ([*OTHERS, APART], False),
        *(([*WINDOWS, *together], True) for together in named),
    ]


def _take(waiting: deque[tuple[list[str], bool]], begun: list[_Room]) -> None:
    """Run what waits, one room after another."""
    while waiting:
        try:
            room = waiting.popleft()
        except IndexError:  # another process was faster
            return
        try:
            one = _Room(*room)
        except OSError as error:
            print(f"Not begun: {' '.join(room[0])}: {error}", file=sys.stderr)
            return
        begun.append(one)
        one.status()


class _Room:
    """A process that runs the tests of a room, beside others.

    The canvas draws in a library of the system. Where that ends the process (a layer that is drawn while another one
    goes: napari's issues 7351 and 8471), the modules that were not at their end are run again, once.
    """

    def __init__(self, command: Sequence[str], draws: bool) -> None:
        self._command, self._draws = command, draws
        self._written = tempfile.TemporaryFile()  # noqa: SIM115 - closed by end
        try:
            self._process = self._started()
        except OSError:
            self._written.close()
            raise
        self._waiting = Thread(target=self._wait)
        self._waiting.start()

    def status(self) -> int:
        """Wait for the end, and return the exit status."""
        self._waiting.join()
        return self._process.returncode

    def output(self) -> bytes:
        """Return what was printed."""
        self._written.seek(0)
        return self._written.read()

    def end(self) -> None:
        """End what still runs."""
        _end(self._process)
        self._waiting.join()
        self._written.close()

    def _started(self, *without: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [*self._command, *without],
            stdin=subprocess.DEVNULL,
            stdout=self._written,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def _wait(self) -> None:
        if self._process.wait() not in CRASHED or not self._draws:
            return
        done = finished(self.output().decode(errors="replace"))
        self._written.seek(0, os.SEEK_END)
        self._written.write(b"\nThe process crashed; what it had not finished is run again.\n")
        self._written.flush()
        self._process = self._started(*(f"--ignore={module}" for module in done))
        self._process.wait()


def finished(printed: str) -> list[str]:
    """Return the modules of tests that a process which crashed had ended well, by what pytest printed."""
    marks: dict[str, str] = {}
    for line in printed.splitlines():
        if begun := MODULE.match(line):
            marks[begun[1]] = marks.get(begun[1], "") + begun[2]
        elif marks and (more := MORE.fullmatch(line)):
            marks[next(reversed(marks))] += more[1]
    return [module for module in list(marks)[:-1] if not set(marks[module]) & set("FE")]


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process that still runs, and the screen and tests that it started."""
    if process.poll() is not None:
        return
    if hasattr(os, "killpg"):
        os.killpg(process.pid, signal.SIGTERM)
    else:
        process.terminate()
    process.wait()


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
