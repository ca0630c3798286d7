"""The Python door works from anywhere: scripts without a guard, threads, daemonic workers, programs with Python inside."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
import textwrap

import pytest

from helpers import DATASET, TRAINED, make_dataset, make_trainable
from napari_nnunet.errors import ResourceError
from napari_nnunet.events import Note
from napari_nnunet.processes import alone
from napari_nnunet.processes.alone import python, script_left_alone, why_alone
from napari_nnunet.processes.pool import Task, run_cases

_CALLS = """
print("began", flush=True)
from napari_nnunet import plan_and_preprocess, train
from napari_nnunet.events import Note

def say(event):
    if isinstance(event, Note):
        print(event.text, flush=True)

def plan():
    cases = plan_and_preprocess("{dataset}", workspace="{plan}", configurations=("3d_fullres",), on_event=say).cases
    print("planned", len(cases.done), cases.failed, flush=True)

def learn():
    lengths = dict(epochs=1, iterations=2, validation_iterations=1, workers=2, device="cpu", validation=False)
    result = train("{trained}", "3d_fullres", 0, workspace="{train}", on_event=say, **lengths)
    print("trained", result.finished, flush=True)
"""
_GUARDLESS = """
import multiprocessing
multiprocessing.set_start_method("spawn")
plan()
learn()
"""
_THREAD = """
import threading
threads = [threading.Thread(target=job) for job in (plan, learn)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
"""
_DAEMON = """
import multiprocessing
def both():
    plan()
    learn()
worker = multiprocessing.get_context("fork").Process(target=both, daemon=True)
worker.start()
worker.join()
"""
_EMBEDDED = """
import sys
sys.executable = "/opt/viewer/viewer"
plan()
learn()
"""


@pytest.fixture
def folders(tmp_path):
    plan, train = tmp_path / "plan", tmp_path / "train"
    make_dataset(plan, spacing=(1.0, 1.0, 1.0))
    make_trainable(train)
    return {"plan": plan, "train": train, "dataset": DATASET, "trained": TRAINED}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "note"),
    [
        (_GUARDLESS, ""),
        (_THREAD, ""),
        (_DAEMON, "is a daemonic process, such as a worker of a task queue, and may start no others"),
        (_EMBEDDED, "/opt/viewer/viewer is a program with Python inside, and starts no Python processes"),
    ],
    ids=["without a guard, spawned", "in threads", "in a daemonic process", "in a program with Python inside"],
)
def test_a_script_plans_and_trains(folders, tmp_path, script, note):
    path = tmp_path / "script.py"
    path.write_text(textwrap.dedent(_CALLS.format(**folders)) + script)
    done = subprocess.run([sys.executable, str(path)], capture_output=True, text=True, timeout=300, check=False)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert done.stdout.count("began") == 1, said
    assert "planned 4 {}" in said, said
    assert "trained True" in said, said
    assert note in said, said
    assert ("Batches are made in this process" in said) == bool(note), said


def test_this_process_may_start_others():
    assert why_alone() is None
    assert python() == sys.executable


def test_cases_are_worked_on_here_where_no_process_can_be_started(monkeypatch):
    monkeypatch.setattr(sys, "executable", "")
    tasks = [Task(name, (name,), lambda: 0.0) for name in ("7", "no number")]
    stream, notes = run_cases(int, tasks), []
    while True:
        try:
            event = next(stream)
        except StopIteration as end:
            outcomes = end.value
            break
        notes += [event.text] if isinstance(event, Note) else []
    assert notes == [
        "Cases are worked on in this process, one after the other: this program is a program with Python inside, and "
        "starts no Python processes."
    ]
    assert outcomes["7"].result == 7
    assert "no number" in str(outcomes["no number"].error.report)


def test_a_program_with_python_inside_starts_the_interpreter_of_its_packages(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "executable", "/opt/viewer/viewer")
    found = python()
    assert subprocess.run([found, "-c", "import numpy"], check=False).returncode == 0
    for name in ("prefix", "exec_prefix", "base_prefix"):
        monkeypatch.setattr(sys, name, str(tmp_path))
    monkeypatch.setattr(alone.sysconfig, "get_path", lambda _: str(tmp_path))
    with pytest.raises(ResourceError, match="/opt/viewer/viewer has Python inside, and no Python program in"):
        python()


def test_the_script_is_itself_again_afterwards():
    main = sys.modules["__main__"]
    before = {name: vars(main).get(name) for name in ("__spec__", "__file__")}
    with script_left_alone():
        assert not multiprocessing.spawn.get_preparation_data("x").keys() & {
            "init_main_from_path",
            "init_main_from_name",
        }
    assert {name: vars(main).get(name) for name in before} == before
