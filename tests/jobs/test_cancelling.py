"""The law of cancelling: a job closed at any of its events leaves usable files, and run again it ends as if it had not
been.

Of each kind of event of each stage, the first, one in the middle and the last are tried, before the first event, and
after the job's end. Every other time it is not the job that is closed but who listens that fails, as a pipe does whose
reader is gone.
"""

from __future__ import annotations

import re
from contextlib import suppress
from typing import Any

import pytest

from kinds_of_jobs import contents, leftovers, renewed
from kinds_of_small_jobs import EVERY_KIND, kind_of
from napari_nnunet.events import Job, Stage, drain


class ReaderGoneError(Exception):
    """Whoever listened to a job is not there any more."""


def _keys(events):
    """Return what tells the kinds of events apart: their class, and the stage they belong to, whichever fold or epoch."""
    stage, found = "", []
    for event in events:
        stage = re.sub(r"\d+", "N", event.name) if isinstance(event, Stage) else stage
        found.append((type(event).__name__, stage))
    return found


def _stops(events) -> list[int]:
    """Return after how many events the job is cancelled."""
    keys = _keys(events)
    found = {0, len(events)}
    for key in dict.fromkeys(keys):
        places = [i + 1 for i, own in enumerate(keys) if own == key]
        found |= {places[0], places[len(places) // 2], places[-1]}
    return sorted(found)


def _run_until(job: Job[Any], count: int, *, closed: bool) -> None:
    """Take some events of a job, then close it or fail; it may come to its end before."""
    seen = 0

    def listen(event) -> None:
        nonlocal seen
        seen += 1
        if seen == count and not closed:
            raise ReaderGoneError

    if closed:
        for _, _event in zip(range(count), job, strict=False):
            pass
        job.close()
    else:
        with suppress(ReaderGoneError):
            drain(job, listen)


@pytest.mark.parametrize("name", EVERY_KIND)
def test_a_job_cancelled_anywhere_leaves_usable_files_and_ends_the_same_when_run_again(tmp_path, name, request):
    kind, ready, events = kind_of(name, request), tmp_path / "ready", []
    ready.mkdir()
    kind.prepare(ready)
    folder = renewed(ready)
    drain(kind.job(folder), events.append)
    expected = contents(folder, *kind.results)
    assert expected
    assert not leftovers(folder)
    for i, count in enumerate(_stops(events)):
        what = f"after {count} of {len(events)} events, {events[count - 1] if count else 'before the first'}"
        folder = renewed(ready)
        _run_until(kind.job(folder), count, closed=not count or i % 2 == 0)
        drain(kind.job(folder))
        assert contents(folder, *kind.results) == expected, what
        assert not leftovers(folder), what
