"""Run the tests with a window and those without at the same time; with arguments, only what they select, one by one.

python tests/all_at_once.py [PYTEST ARGUMENT ...]

A window's tests wait for the screen half of the time, so three processes, two of them with windows, need little longer
than one of them. A test that hangs ends its process after a quarter of an hour, with the stack of every thread.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

SCREEN = (sys.executable, str(Path(__file__).with_name("with_screen.py")))
PYTEST = (sys.executable, "-m", "pytest", "--timeout=900", "--timeout-method=thread", "-m")
WINDOWS = (*SCREEN, *PYTEST, "gui and not live")
HALF = tuple(f"tests/widgets/{room}" for room in ("files", "frame", "prediction", "training"))  # of the time they take


def main(arguments: list[str]) -> int:
    """Return the first exit status that is not 0."""
    if arguments:
        return subprocess.run([*SCREEN, *PYTEST, "not live", *arguments], check=False).returncode
    rest = [f"--ignore={folder}" for folder in HALF]
    with tempfile.TemporaryFile() as one, tempfile.TemporaryFile() as two, ExitStack() as stack:
        windows = [
            subprocess.Popen(
                [*WINDOWS, *half],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            for half, output in ((HALF, one), (rest, two))
        ]
        for process in windows:
            stack.callback(_end, process)
        others = subprocess.run([*PYTEST, "not gui and not live"], check=False).returncode
        shown = [process.wait() for process in windows]
        for output in (one, two):
            output.seek(0)
            sys.stdout.flush()
            sys.stdout.buffer.write(output.read())
            sys.stdout.flush()
    return next((status for status in (others, *shown) if status), 0)


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
