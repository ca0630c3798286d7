"""Benchmarks: what they start ends with them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psutil
import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
PARENT = """
import os, subprocess, sys
child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])
print(child.pid, flush=True)
os._exit(0)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="sessions are POSIX's")
def test_what_a_measured_command_leaves_running_is_ended(tmp_path):
    script, log = tmp_path / "parent.py", tmp_path / "log.txt"
    script.write_text(PARENT)
    code = (
        f"import sys; sys.path.insert(0, {str(BENCHMARKS)!r}); from pathlib import Path; from _measure import measure; "
        f"measure([sys.executable, {str(script)!r}], Path({str(log)!r}))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    left = int(log.read_text())
    assert not psutil.pid_exists(left) or psutil.Process(left).status() == psutil.STATUS_ZOMBIE
