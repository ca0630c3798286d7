"""Batches that nobody wants any more."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest

from napari_nnunet.jobs.training.loader import BatchLoader


@pytest.mark.parametrize(("error", "heard"), [(ConnectionResetError, 0), (EOFError, 0), (ZeroDivisionError, 1)])
def test_a_batch_on_its_way_when_its_maker_ends_is_no_fault(monkeypatch, error, heard):
    met = []
    monkeypatch.setattr(threading, "excepthook", met.append)
    ending = threading.Event()

    def hand_on():
        ending.wait(60)
        raise error

    thread = threading.Thread(target=hand_on)
    thread.start()

    def finish():
        ending.set()
        thread.join()

    loader = BatchLoader(None, 1, pinned=False)
    loader._augmenter = SimpleNamespace(pin_memory_thread=thread, _finish=finish)
    loader.close()
    assert len(met) == heard
    assert threading.excepthook == met.append
