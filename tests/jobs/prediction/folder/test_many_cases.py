"""What a folder of many cases costs beside segmenting them grows with their number, not with its square."""

from __future__ import annotations

from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace

import pytest

from napari_nnunet.errors import DatasetError
from napari_nnunet.events import CaseFailed, drain
from napari_nnunet.formats.dataset.case_files import Case
from napari_nnunet.jobs.prediction.folder import loop


@pytest.fixture
def compared(monkeypatch):
    """Count how often cases are compared with each other; each is read and segmented at once, and fails."""
    count = []

    def compare(self, other):
        count.append(self.name)
        return self.name == other.name

    def fail(*_):
        raise DatasetError("It is only an example.")
        yield

    def read(self, function, *args):
        future = Future()
        future.set_result(None)
        return future

    monkeypatch.setattr(Case, "__eq__", compare)
    monkeypatch.setattr(Case, "__hash__", lambda self: hash(self.name))
    monkeypatch.setattr(loop.ThreadPoolExecutor, "submit", read)
    monkeypatch.setattr(loop, "segment_case", fail)
    monkeypatch.setattr(loop, "out_of", lambda case, *_: Path(f"{case.name}.nii.gz"))
    return count


def cases_of(count):
    return [Case(f"c{i}", (Path(f"c{i}_0000.nii.gz"),)) for i in range(count)]


@pytest.mark.parametrize("kept", [{}, dict.fromkeys(range(0, 400, 2), ()), dict.fromkeys(range(400), ())])
def test_cases_are_not_compared_with_all_others(compared, kept):
    cases = cases_of(400)
    tally = loop.Tally(cases, SimpleNamespace(model=None, folder=None), kept, None)
    events = []
    drain(loop.in_turn(tally), events.append)
    assert len(compared) <= len(cases)
    assert [event.case for event in events] == [case.name for case in cases]
    failed = [event.case for event in events if isinstance(event, CaseFailed)]
    assert failed == [case.name for i, case in enumerate(cases) if i not in kept] == list(tally.result.failed)
    assert list(tally.result.skipped) == [cases[i].name for i in kept]
