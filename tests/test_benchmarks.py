"""The page of benchmarks: a section per computer, and nothing left running."""

from __future__ import annotations

import sys
import time
import xml.etree.ElementTree as ET
from importlib import import_module
from pathlib import Path

import psutil
import pytest


@pytest.fixture
def scripts(monkeypatch):
    """Import from the folder of the benchmarks."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    monkeypatch.delitem(sys.modules, "all", raising=False)
    return import_module


def test_measuring_again_changes_the_own_section_only(scripts):
    every = scripts("all")
    benchmark = every.Benchmark("Training", "train.py", (), list)

    def section(seconds, name):
        return every.section({"train": (benchmark, [every.Row("a step", 3.0, seconds, 0.5)])}, name)

    page = every.placed("# Benchmarks\n\nBy hand.\n", section(2.0, "A (avx2)"), "A (avx2)")
    page = every.placed(page, section(1.0, "B (amx)"), "B (amx)")
    again = every.placed(page, section(1.5, "A (avx2)"), "A (avx2)")
    assert again.startswith("# Benchmarks\n\nBy hand.\n")
    assert "| a step | 3.00 s | 1.50 s | 2.0 | 0.50 |" in again
    assert "| a step | 3.00 s | 1.00 s | 3.0 | 0.50 |" in again
    assert "2.00 s" not in again
    assert again.count("## A (avx2)") == 1


def test_the_picture_has_a_bar_for_every_comparison(scripts):
    every = scripts("all")
    rows = [every.Row("one <class>", 4.0, 1.0), every.Row("two", 1.0, 2.0), every.Row("not run", None, 1.0)]
    drawn = ET.fromstring(every.picture(rows, "A & B"))
    widths = [
        int(bar.get("width")) for bar in drawn.iter("{http://www.w3.org/2000/svg}rect") if bar.get("width") != "100%"
    ]
    assert len(widths) == 2
    assert widths[0] == pytest.approx(8 * widths[1], abs=8)


def test_processes_that_outlive_what_is_measured_are_ended(scripts, tmp_path):
    code = (
        "import subprocess, sys, time, os\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], start_new_session=True)\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(3)\n"
        "os._exit(0)\n"
    )
    log = tmp_path / "log"
    scripts("_measure").measure([sys.executable, "-c", code], log, pause=0.1)
    child = int(log.read_text())
    deadline = time.monotonic() + 10
    while psutil.pid_exists(child) and psutil.Process(child).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.05)
