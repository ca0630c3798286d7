"""Run a command with a screen: the one there is, or a virtual one (Xvfb) with software OpenGL.

python tests/with_screen.py COMMAND ...
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys


def main(command: list[str]) -> int:
    """Return the command's exit status."""
    if sys.platform.startswith("linux") and not os.environ.get("DISPLAY"):
        if shutil.which("xvfb-run") is None:
            print(
                "These tests need a screen, and there is none. On Debian or Ubuntu: apt-get install xvfb libegl1 libgl1 "
                "libxcb-cursor0 libxkbcommon-x11-0 (the whole list is in .ci/run).",
                file=sys.stderr,
            )
            return 2
        command = ["xvfb-run", "-a", "-s", "-screen 0 1600x1200x24", *command]
    return subprocess.run(command, check=False).returncode


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
