"""Run the tests with a window and those without at the same time; with arguments, only what they select, one by one.

python tests/all_at_once.py [PYTEST ARGUMENT ...]

A window's tests wait for the screen half of the time, so two processes need little longer than one of them. A test that
hangs ends its process after a quarter of an hour, with the stack of every thread.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

SCREEN = (sys.executable, str(Path(__file__).with_name("with_screen.py")))
PYTEST = (sys.executable, "-m", "pytest", "--timeout=900", "--timeout-method=thread", "-m")


def main(arguments: list[str]) -> int:
    """Return the first exit status that is not 0."""
    if arguments:
        return subprocess.run([*SCREEN, *PYTEST, "not live", *arguments], check=False).returncode
    with tempfile.TemporaryFile() as output:
        window = subprocess.Popen(
            [*SCREEN, *PYTEST, "gui and not live"],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            others = subprocess.run([*PYTEST, "not gui and not live"], check=False).returncode
            shown = window.wait()
        finally:
            _end(window)
        output.seek(0)
        sys.stdout.flush()
        sys.stdout.buffer.write(output.read())
        sys.stdout.flush()
    return others or shown


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
