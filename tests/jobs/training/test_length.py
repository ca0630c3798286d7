"""How long a training lasts: early stop and time budgets, with the learning rate that follows."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest
from trainings import SHORT, of, run

from helpers import TRAINED
from napari_nnunet.engine.training.optimizers import poly_rate
from napari_nnunet.events import (
    EpochDone,
    Note,
    drain,
)
from napari_nnunet.jobs.training import session as _session
from napari_nnunet.jobs.training.train import train
from napari_nnunet.schema.requests.training import TrainRequest


def test_early_stop_lets_the_rate_go_to_zero(workspace, monkeypatch):
    monkeypatch.setattr("napari_nnunet.jobs.training.train.pseudo_dice", lambda matches: [0.5, 0.5])
    _, events = run(workspace, settings=SHORT.replace(epochs=60, early_stop=4), validation=False)
    ends = of(EpochDone, events)
    assert len(ends) == 6  # one is the best, four are not better, one to finish
    assert ends[-1].epochs == 6
    assert any("No improvement for" in note.text for note in of(Note, events))


def falls_to_the_end(ends):
    """Whether every epoch had the learning rate of its place in the length known then, the last one the smallest."""
    rates = [e.rate for e in ends]
    assert rates == pytest.approx([poly_rate(e.epoch, e.epochs) for e in ends])
    return rates[-1] == min(rates) == pytest.approx(poly_rate(len(ends) - 1, len(ends)))


def test_a_time_budget_is_kept(workspace):
    settings = SHORT.replace(epochs=None, iterations=None, validation_iterations=None, time_budget=6.0)
    begun = time.monotonic()
    result, events = run(workspace, settings=settings, validation=False)
    assert 3.0 < time.monotonic() - begun < 60.0
    ends = of(EpochDone, events)
    assert result.epochs == len(ends) >= 2
    assert falls_to_the_end(ends)


@pytest.mark.parametrize(("pace", "shorter"), [(0.25, False), (8.0, True)], ids=["faster", "slower"])
def test_a_time_budget_is_kept_where_the_pace_changes(workspace, monkeypatch, pace, shorter):
    """The computer turns out to be faster, or slower, after five epochs: the length follows, and the rate with it."""
    clock = SimpleNamespace(now=0.0, tick=0.05, time=time.time)

    def monotonic():
        clock.now += clock.tick
        return clock.now

    clock.monotonic = monotonic
    monkeypatch.setattr(_session, "time", clock)
    monkeypatch.setattr("napari_nnunet.jobs.training.train.time", clock)
    events = []

    def see(event):
        events.append(event)
        if isinstance(event, EpochDone) and event.epoch == 4:
            clock.tick *= pace

    settings = SHORT.replace(epochs=None, iterations=None, validation_iterations=None, time_budget=20.0)
    result = drain(
        train(
            workspace,
            TrainRequest.like(settings, dataset=TRAINED, configuration="3d_fullres", fold=0, validation=False),
        ),
        see,
    )
    ends = of(EpochDone, events)
    assert result.epochs == len(ends)
    assert falls_to_the_end(ends)
    planned = ends[0].epochs
    assert len(ends) < planned if shorter else len(ends) > planned
    last = ends[-1].seconds
    assert sum(e.seconds for e in ends) == pytest.approx(20.0, abs=2 * last)
