"""What this computer and the job of a cluster are called: the same every time, empty or 0 where nothing says it."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from napari_nnunet.formats import computer


@pytest.fixture(autouse=True)
def _asked_anew():
    """What was remembered is asked again, before and after a test."""
    kept = computer.started_as, computer.processes_seen, computer.mark
    for name in kept:
        name.cache_clear()
    yield
    for name in kept:
        name.cache_clear()


def test_another_process_of_this_computer_says_the_same():
    code = (
        "from napari_nnunet.formats import computer as c; print(c.started_as(), c.processes_seen(), c.mark(), sep='|')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().split("|") == [computer.started_as(), computer.processes_seen(), computer.mark()]


def test_a_mark_is_fit_for_the_name_of_a_file_and_differs_by_computer_and_container(monkeypatch):
    def mark(host, seen):
        monkeypatch.setattr(socket, "gethostname", lambda: host)
        monkeypatch.setattr(computer, "processes_seen", lambda: seen)
        computer.mark.cache_clear()
        return computer.mark()

    marks = [mark(host, seen) for host in ("größe/1", "two words", "") for seen in ("pid:[1]", "pid:[2]", "")]
    assert len(set(marks)) == len(marks)
    assert all(re.fullmatch("[0-9a-f]{6}", found) for found in marks)
    assert mark("größe/1", "pid:[1]") == marks[0]


@pytest.mark.parametrize(
    "error", [FileNotFoundError(2, "gone"), PermissionError(13, "no"), UnicodeDecodeError("ascii", b"\xff", 0, 1, "x")]
)
def test_where_a_computer_does_not_say_it_its_starts_have_no_name(monkeypatch, error):
    def unreadable(*_, **__):
        raise error

    monkeypatch.setattr(Path, "read_text", unreadable)
    monkeypatch.setattr(os, "readlink", unreadable if isinstance(error, OSError) else os.readlink)
    assert computer.started_as() == ""
    assert computer.processes_seen() == "" or not isinstance(error, OSError)


@pytest.mark.parametrize(
    ("said", "job"),
    [
        ({}, ("", 0)),
        ({"SLURM_JOB_ID": ""}, ("", 0)),
        ({"SLURM_RESTART_COUNT": "3"}, ("", 0)),  # without a job there is nothing that was begun again
        ({"SLURM_JOB_ID": "17"}, (":17", 0)),
        ({"SLURM_JOB_ID": "17", "SLURM_CLUSTER_NAME": "big"}, ("big:17", 0)),
        ({"SLURM_JOB_ID": "17", "SLURM_CLUSTER_NAME": "big", "SLURM_RESTART_COUNT": "2"}, ("big:17", 2)),
        ({"SLURM_JOB_ID": "17", "SLURM_RESTART_COUNT": ""}, (":17", 0)),
        ({"SLURM_JOB_ID": "17", "SLURM_RESTART_COUNT": "-1"}, (":17", 0)),
        ({"SLURM_JOB_ID": "17", "SLURM_RESTART_COUNT": "²"}, (":17", 0)),
    ],
)
def test_a_job_of_slurm_is_known_by_cluster_number_and_run(monkeypatch, said, job):
    for name in ("SLURM_JOB_ID", "SLURM_CLUSTER_NAME", "SLURM_RESTART_COUNT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in said.items():
        monkeypatch.setenv(name, value)
    assert computer.slurm_run() == job
