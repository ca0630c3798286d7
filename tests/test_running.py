"""How the tests themselves are run."""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path

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
@pytest.mark.parametrize("draws", [True, False])
def test_a_crash_is_survived_once_where_it_is_the_canvas(draws):
    program = """
import os, signal, sys
print("tests/a.py .")
print("tests/b.py .", flush=True)
if "--ignore=tests/a.py" in sys.argv:
    print("again", flush=True)
    sys.exit(3)
os.kill(os.getpid(), signal.SIGSEGV)
"""
    one = all_at_once._Room([sys.executable, "-c", program], draws)
    try:
        if not draws:
            assert one.status() == -signal.SIGSEGV
            return
        assert one.status() == 3
        assert b"run again" in one.output()
        assert one.output().split()[-1] == b"again"
    finally:
        one.end()


def test_every_room_is_run_once_and_what_is_in_none_too():
    first, rest, apart, *named = all_at_once.rooms()
    folders = [word for command, _ in named for word in command[len(all_at_once.WINDOWS) :]]
    assert len(set(folders)) == len(folders) and all(Path(folder).is_dir() for folder in folders)
    assert rest == ([*all_at_once.WINDOWS, *(f"--ignore={folder}" for folder in folders)], True)
    assert all(command[: len(all_at_once.WINDOWS)] == [*all_at_once.WINDOWS] and draws for command, draws in named)
    others = [*all_at_once.OTHERS]
    assert (first, apart) == (([*others, "--ignore=tests/jobs"], False), ([*others, "tests/jobs"], False))
    assert (all_at_once.WINDOWS[-1], others[-1]) == ("gui and not live", "not gui and not live")


MEETS = """
import sys, time
from pathlib import Path
folder, name, *others = sys.argv[1:]
(Path(folder) / name).touch()
end = time.monotonic() + 60
while not all((Path(folder) / other).is_file() for other in others) and time.monotonic() < end:
    time.sleep(0.01)
print(name)
sys.exit(4 * (name == "d") or 5 * (time.monotonic() > end))
"""


def test_whoever_is_free_takes_the_next_room(monkeypatch, capfdbinary, tmp_path):
    # three at once, and the first ends only when the last has begun: somebody else takes that
    waits = {"a": "e", "b": "c", "c": "b", "d": "", "e": ""}
    rooms = [([sys.executable, "-c", MEETS, str(tmp_path), name, *other], False) for name, other in waits.items()]
    monkeypatch.setattr(all_at_once, "rooms", lambda: rooms)
    assert all_at_once.main([]) == 4
    assert sorted(capfdbinary.readouterr().out.split()) == [b"a", b"b", b"c", b"d", b"e"]


def test_a_room_that_cannot_be_begun_is_no_success(monkeypatch, tmp_path):
    rooms = [([sys.executable, "-c", ""], False), ([str(tmp_path / "missing")], False)]
    monkeypatch.setattr(all_at_once, "rooms", lambda: rooms)
    assert all_at_once.main([]) == 1


def test_no_process_is_left_when_the_tests_are_interrupted(monkeypatch):
    begun, program = [], "import time; time.sleep(600)"
    usual = all_at_once._Room._started

    def interrupted(*_, **__):
        while len(begun) < all_at_once.AT_ONCE - 1:
            time.sleep(0.01)
        raise KeyboardInterrupt

    monkeypatch.setattr(all_at_once._Room, "_started", lambda one: begun.append(usual(one)) or begun[-1])
    monkeypatch.setattr(all_at_once, "rooms", lambda: [([sys.executable, "-c", program], True)] * 4)
    monkeypatch.setattr(all_at_once.subprocess, "run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        all_at_once.main([])
    assert [process.poll() is None for process in begun] == [False, False]
