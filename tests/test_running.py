"""How the tests themselves are run."""

from __future__ import annotations

import signal
import sys

import pytest

import all_at_once

PRINTED = """
collected 218 items

tests/test_house.py .                                                    [  0%]
tests/widgets/choosing/test_compare_dock.py ......                       [  3%]
tests/widgets/choosing/test_ensemble_dock.py ........................... [  9%]
....F.                                                                   [ 12%]
tests/widgets/dataset/test_names_of_cases.py ..s................         [ 19%]
.....                                                                    [ 21%]
tests/widgets/dataset/test_cases_dock.py ......Fatal Python error: Segmentation fault

Current thread 0x00007f438dd93040 (most recent call first):
  File "tests/widgets/dataset/test_cases_dock.py", line 158 in test_layers_that_do_not_fit_are_refused
"""


def test_what_failed_or_was_not_at_its_end_when_the_screen_crashed_is_run_again():
    assert all_at_once.finished(PRINTED) == [
        "tests/test_house.py",
        "tests/widgets/choosing/test_compare_dock.py",
        "tests/widgets/dataset/test_names_of_cases.py",
    ]
    assert all_at_once.finished("Segmentation fault") == []


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="Windows has no signals")
def test_a_crash_is_survived_once(monkeypatch):
    program = """
import os, signal, sys
print("tests/a.py .")
print("tests/b.py .", flush=True)
if "--ignore=tests/a.py" in sys.argv:
    print("again", flush=True)
    sys.exit(3)
os.kill(os.getpid(), signal.SIGSEGV)
"""
    monkeypatch.setattr(all_at_once, "WINDOWS", (sys.executable, "-c", program))
    one = all_at_once._Windows(())
    try:
        assert one.status() == 3
        assert b"run again" in one.output()
        assert one.output().split()[-1] == b"again"
    finally:
        one.end()
