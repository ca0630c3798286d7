"""What a job leaves for those who look later: its events, how it ended, and why."""

from __future__ import annotations

from pathlib import Path

import pytest

from napari_nnunet.errors import DatasetError, InternalError
from napari_nnunet.events import Ended, Note, Progress, drain, from_json
from napari_nnunet.formats.model.fold import FoldFolder
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.processes.follow import Follower
from napari_nnunet.processes.record import Recorder, recorded


def _job(error=None, *, steps=3):
    for i in range(steps):
        yield Progress(done=i, total=steps)
    if error is not None:
        raise error
    return "done"


def _read(path):
    return [from_json(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_a_recorded_job_leaves_its_events_and_that_it_finished(tmp_path):
    path = tmp_path / "new" / "events.jsonl"
    events = []
    assert drain(recorded(_job(), path), events.append) == "done"
    assert _read(path) == events
    assert events[-1].how == "finished"


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (DatasetError("There is no case."), "There is no case."),
        (KeyError("x"), "Unexpected KeyError: 'x'"),
        (RuntimeError("first line\n  second line"), "Unexpected RuntimeError: first line second line"),
        (MemoryError(), "Not enough main memory. Close other programs."),
        (InternalError("Unexpected KeyError: 'y'", "Traceback of the worker"), "Unexpected KeyError: 'y'"),
    ],
)
def test_whatever_ends_a_recorded_job_is_its_last_event_with_the_traceback_in_a_file_beside(tmp_path, error, sentence):
    path = tmp_path / "events.jsonl"
    with pytest.raises(Exception, match=".*"):
        drain(recorded(_job(error), path))
    last = _read(path)[-1]
    assert (last.kind, last.how, last.text) == ("ended", "failed", sentence)
    report = Path(last.report).read_text(encoding="utf-8")
    assert "in _job" in report
    assert getattr(error, "report", "") in report
    drain(recorded(_job(), path))  # the next run leaves no report of this one
    assert not Path(last.report).exists()


def test_a_job_that_is_closed_is_not_recorded_as_a_failure(tmp_path):
    path = tmp_path / "events.jsonl"
    job = recorded(_job(), path)
    next(job)
    job.close()
    assert [event.kind for event in _read(path)] == ["progress"]


def test_a_log_that_cannot_be_written_is_told_once_and_caught_up_with(tmp_path):
    path = tmp_path / "events.jsonl"
    path.mkdir()
    events, job = [], recorded(_job(steps=6), path)
    for event in job:
        events.append(event)
        if len(events) == 5:
            path.rmdir()
    (note,) = [event for event in events if isinstance(event, Note)]
    assert "is a folder, but a file is expected" in note.text
    assert _read(path) == [event for event in events if event is not note]


def test_a_line_that_a_kill_tore_does_not_spoil_the_next(tmp_path):
    path = tmp_path / "events.jsonl"
    path.write_text('{"kind": "progr')
    Recorder(path).take(Note(text="after"))
    assert path.read_text(encoding="utf-8").splitlines()[0] == '{"kind": "progr'
    assert from_json(path.read_text(encoding="utf-8").splitlines()[1]).text == "after"


def test_of_many_steps_in_a_row_a_file_of_many_hours_keeps_few(tmp_path):
    path = tmp_path / "events.jsonl"
    drain(recorded(_job(steps=50), path, between=60.0))
    assert [event.kind for event in _read(path)] == ["progress", "ended"]


def test_of_several_processes_the_first_that_fails_says_why(tmp_path):
    workspace = Workspace.at(tmp_path)
    folder = FoldFolder(workspace.results / "Dataset001_A" / "nnUNetTrainer__nnUNetPlans__2d" / "fold_0")
    folder.path.mkdir(parents=True)
    for error in (DatasetError("c1 is damaged."), RuntimeError("Connection closed by peer")):
        with pytest.raises(type(error)), Recorder(folder.events).failures():
            raise error
    (training,) = Follower(workspace).look()
    assert training.ended.text == "c1 is damaged."
    assert isinstance(training.ended, Ended)
