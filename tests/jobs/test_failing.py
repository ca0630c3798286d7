"""The law of failing: whatever error a job meets, its reason is a sentence in the record, and it can be run again."""

from __future__ import annotations

import os
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from itertools import count
from pathlib import Path

import pytest

from kinds_of_jobs import contents, leftovers, renewed
from kinds_of_small_jobs import EVERY_KIND, kind_of
from napari_nnunet.errors import DatasetError, for_people
from napari_nnunet.events import drain, from_json
from napari_nnunet.processes.record import recorded

FAILURES = {
    "one of ours": lambda: DatasetError("The folder was taken away. Bring it back."),
    "a RuntimeError": lambda: RuntimeError("wrong shape\nof something"),
    "a MemoryError": lambda: MemoryError("Unable to allocate 20. GiB"),
    "a KeyError": lambda: KeyError("spacing"),
    "a killed worker": lambda: BrokenProcessPool("A process was terminated abruptly"),
}
UNFORESEEN = ("a RuntimeError", "a KeyError")


def _fail_once(monkeypatch, error, at):
    """Let the ``at``-th file that takes its place raise an error: every job ends in such a step."""
    calls, own = count(), {name: getattr(os, name) for name in ("rename", "replace")}

    def failing(name):
        def step(*args, **keywords):
            if next(calls) == at:
                raise error
            return own[name](*args, **keywords)

        return step

    for name in own:
        monkeypatch.setattr(os, name, failing(name))
    return calls


@pytest.mark.parametrize("name", EVERY_KIND)
def test_whatever_a_job_meets_is_a_sentence_in_its_record_and_it_can_be_run_again(tmp_path, name, request):
    kind, ready = kind_of(name, request), tmp_path / "ready"
    ready.mkdir()
    kind.prepare(ready)
    for what, make in FAILURES.items():
        folder, log, error = renewed(ready), tmp_path / what / "events.jsonl", make()
        with pytest.MonkeyPatch.context() as patch:
            calls = _fail_once(patch, error, at=0)
            with suppress(type(error), type(for_people(error))):
                drain(recorded(kind.job(folder), log))
            assert next(calls) > 0, what
        events = [from_json(line) for line in log.read_text(encoding="utf-8").splitlines()]
        told = [(e.message, e.report) for e in events if e.kind == "case_failed"]
        told += [
            (e.text, Path(e.report).read_text(encoding="utf-8"))
            for e in events
            if e.kind == "ended" and e.how == "failed"
        ]
        sentence = for_people(error).message
        assert any(sentence in text for text, _ in told), (what, told)
        assert not any("Traceback" in text for text, _ in told), what
        assert what not in UNFORESEEN or any("Traceback" in report for _, report in told), what
    drain(kind.job(folder))
    again, whole = contents(folder, *kind.results), renewed(ready)
    assert not leftovers(folder)
    drain(kind.job(whole))
    assert again == contents(whole, *kind.results)
