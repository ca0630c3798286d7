"""Worker processes: memory decides how many run, a dead one loses no case."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import closing
from itertools import pairwise
from pathlib import Path

import psutil
import pytest

from napari_nnunet.errors import DatasetError, InternalError, ResourceError
from napari_nnunet.events import CaseFailed, Note, drain
from napari_nnunet.processes.pool import Task, each_case, results_of, run_cases


def square(x):
    return x * x


def refuse(x):
    if x == 1:
        raise DatasetError("one is not wanted")
    if x == 2:
        raise KeyError("bug")
    return x


def hoard(x):
    return bytearray(1 << 62)


def die(place, x, times):
    """End like a process that the system kills for its memory, the first ``times`` times."""
    mark = Path(place) / f"{x}-{os.getpid()}-{time.monotonic_ns()}"
    mark.touch()
    if x == 1 and len(list(Path(place).glob("1-*"))) <= times:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.1)
    return x


def overlap(place, x):
    begun = time.monotonic()
    time.sleep(0.25)
    (Path(place) / str(x)).write_text(f"{begun} {time.monotonic()}")
    return x


def tasks(count, *before, bytes=0.0):
    return [Task(str(i), (*before, i), lambda: bytes) for i in range(count)]


def test_every_case_has_its_result():
    outcomes = drain(run_cases(square, tasks(9), workers=2))
    assert {name: outcome.result for name, outcome in outcomes.items()} == {str(i): i * i for i in range(9)}


def test_an_error_is_a_sentence_and_a_bug_keeps_its_trace():
    outcomes = drain(run_cases(refuse, tasks(4), workers=2))
    assert isinstance(outcomes["1"].error, DatasetError)
    assert outcomes["1"].error.message == "one is not wanted"
    assert isinstance(outcomes["2"].error, InternalError)
    assert outcomes["2"].error.message == "Unexpected KeyError: 'bug'"
    assert "in refuse" in outcomes["2"].error.report
    assert (outcomes["0"].result, outcomes["3"].result) == (0, 3)
    with pytest.raises(DatasetError) as caught:
        results_of(outcomes, "squared")
    assert caught.value.message == (
        "2 of 4 cases could not be squared:\n  1: one is not wanted\n  2: Unexpected KeyError: 'bug'"
    )


@pytest.mark.parametrize("run", [run_cases, each_case])
def test_memory_that_a_worker_misses_stays_a_lack_of_memory(run):
    outcomes = drain(run(hoard, tasks(2), workers=1))
    with pytest.raises(ResourceError, match=r"2 of 2 cases could not be held:\n  0: Not enough main memory"):
        results_of(outcomes, "held")


def test_a_fault_of_the_program_is_one_event_with_its_traceback_beside():
    failed = [e for e in each_case(refuse, tasks(3)) if isinstance(e, CaseFailed)]
    assert [(e.case, e.message) for e in failed] == [("1", "one is not wanted"), ("2", "Unexpected KeyError: 'bug'")]
    assert failed[0].report == ""
    assert "in refuse" in failed[1].report


@pytest.mark.parametrize(("times", "failed"), [(1, []), (2, ["1"])])
def test_a_killed_worker_is_noticed_and_its_case_tried_alone(tmp_path, times, failed):
    begun = time.monotonic()
    list_of = [Task(str(i), (str(tmp_path), i, times), lambda: 1e9) for i in range(6)]
    heard = []
    outcomes = {}
    job = run_cases(die, list_of, workers=2, finished=lambda outcome: outcomes.setdefault(outcome.name, outcome))
    heard.extend(job)
    assert time.monotonic() - begun < 300
    assert sorted(name for name, outcome in outcomes.items() if outcome.error) == failed
    assert sorted(outcomes) == [str(i) for i in range(6)]
    failures = [event for event in heard if isinstance(event, CaseFailed)]
    assert [event.case for event in failures] == failed
    if failed:
        assert "probably out of memory. It was expected to need 1.2 GB" in failures[0].message


def test_cases_run_side_by_side_only_where_memory_suffices(tmp_path):
    drain(run_cases(overlap, tasks(4, str(tmp_path), bytes=2e9), workers=2, memory_gb=3))
    spans = sorted(tuple(map(float, (tmp_path / str(i)).read_text(encoding="utf-8").split())) for i in range(4))
    assert all(end <= begin for (_, end), (begin, _) in pairwise(spans))


def test_a_case_that_is_larger_than_the_budget_runs_alone_and_is_announced():
    events = list(run_cases(square, tasks(1, bytes=5e9), memory_gb=1))
    (note,) = [event for event in events if isinstance(event, Note)]
    assert note.text.startswith("0 needs about 5.2 GB of memory, more than the 1.0 GB available; it runs alone")


def test_closing_ends_the_workers_at_once(tmp_path):
    begun = time.monotonic()
    with closing(run_cases(time.sleep, [Task("long", (600,), lambda: 0.0)], workers=1)) as job:
        next(job)
        next(job)
    assert time.monotonic() - begun < 300


_KILLED = """
import os, sys, time
from napari_nnunet.processes.pool import Task, run_cases
for event in run_cases(time.sleep, [Task(str(i), (600,), lambda: 0.0) for i in range(2)], workers=2):
    print("running", flush=True)
"""


def test_workers_do_not_outlive_a_process_that_is_killed():
    process = subprocess.Popen([sys.executable, "-c", _KILLED], stdout=subprocess.PIPE)
    assert process.stdout.readline()
    workers = psutil.Process(process.pid).children(recursive=True)
    assert len(workers) >= 2
    process.kill()
    process.wait()
    process.stdout.close()
    assert psutil.wait_procs(workers, timeout=300)[1] == []


def test_a_negative_number_of_workers_is_refused():
    with pytest.raises(ResourceError, match="-1 workers were asked for"):
        drain(run_cases(square, tasks(1), workers=-1))
