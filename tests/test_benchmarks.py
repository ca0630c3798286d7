"""Benchmarks: what they start ends with them."""

from __future__ import annotations

import argparse
import importlib
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from helpers import Recipe, make_model

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
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)
    _ends(int(log.read_text(encoding="utf-8")))


def _is_over(number: int) -> bool:
    try:
        return psutil.Process(number).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def _ends(*numbers: int) -> None:
    """Wait until processes that were killed are over, which the system does in its own time."""
    until = time.monotonic() + 120
    while not all(map(_is_over, numbers)):
        assert time.monotonic() < until
        time.sleep(0.05)


@pytest.fixture(scope="module")
def together():
    """Return the module that runs every benchmark."""
    sys.path.insert(0, str(BENCHMARKS))
    try:
        return importlib.import_module("all")
    finally:
        sys.path.remove(str(BENCHMARKS))


@pytest.mark.skipif(sys.platform == "win32", reason="sessions are POSIX's")
def test_busy_loops_end_with_who_started_them_however_that_ended(tmp_path):
    code = (
        f"import os, sys; sys.path.insert(0, {str(BENCHMARKS)!r}); import psutil; from _measure import busy\n"
        "with busy(2):\n"
        "    print(*(child.pid for child in psutil.Process().children()), flush=True)\n"
        "    os.kill(os.getpid(), 9) if sys.argv[1:] else None"
    )
    for how in ([], ["killed"]):
        found = subprocess.run(
            [sys.executable, "-c", code, *how], capture_output=True, text=True, timeout=300, check=False
        )
        loops = [int(word) for word in found.stdout.split()]
        assert len(loops) == 2
        _ends(*loops)


def test_the_section_of_a_computer_is_written_anew_and_those_of_others_stay(together):
    benchmark = together.benchmarks(argparse.Namespace(data="d", workspace="w", peer="p", classes=[], old=None))[
        "train"
    ]
    steps = [{"configuration": "2d", "peer": {"step": 6.0, "memory": 2e9}, "ours": {"step": 2.0, "memory": 1e9}}]
    here = together.section({"train": (benchmark, steps)}, "computer A")
    page = together.placed(together.placed("# Benchmarks", here, "computer A"), here.replace("A", "B"), "computer B")
    steps[0]["ours"]["step"] = 3.0
    page = together.placed(page, together.section({"train": (benchmark, steps)}, "computer A"), "computer A")
    assert "| a training step, 2d | 6.00 s | 3.00 s | 2.0 | 0.50 |" in page
    assert page.count("## computer A") == page.count("## computer B") == 1
    assert page.index("| 3.0 | 0.50 |") > page.index("computer B")  # B's own figures


def test_the_choice_is_held_against_the_fastest(together):
    rows = [
        {
            "task": "2-D",
            "seconds": {"torch float32": 0.4, "openvino bfloat16": 0.1},
            "auto": "torch float32",
            "ratio": 4.0,
        }
    ]
    assert "| 2-D | 0.400 | 0.100 | torch float32 | 4.00 |" in together.choose.table(rows)


def test_deciding_is_held_against_the_network(together):
    row = {"classes": 60, "coarse": 32, "before": 4.0, "now": 2.0, "same": 1.0, "network": 40.0}
    assert together.decide.table([row]).endswith(
        "| 60 | 32 voxels | 4.00 s | 2.00 s | 2.0 | 1.0000000 | 40.0 s | 0.05 |"
    )


def test_estimates_are_not_begun_with_models_that_cannot_be_joined(tmp_path):
    models = [make_model(tmp_path / name, Recipe(channels=(name,))).folder for name in ("CT", "MR")]
    for words, code, said in (
        (["--help"], 0, "usage: "),
        (models, 1, "cannot segment the same image"),
        ([], 2, "MODEL"),
    ):
        command = [sys.executable, BENCHMARKS / "estimates.py", *words]
        done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == code and said in done.stdout + done.stderr
        assert "Traceback" not in done.stderr and "| first" not in done.stdout
