"""Whether somebody painted in a layer is found out on a job's thread; the window reads no voxels for it."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from desks import FIRST

from napari_nnunet.errors import ImageError
from napari_nnunet.events import Painted, drain
from napari_nnunet.jobs.prediction.predict import predict_series
from napari_nnunet.widgets.objects import voxels
from napari_nnunet.widgets.prediction import result as result_module
from napari_nnunet.widgets.prediction.request import resolve

pytestmark = pytest.mark.usefixtures("known_arithmetic")


@pytest.fixture
def read(monkeypatch):
    """Shapes of what the window read to tell whether it changed."""
    shapes, digest_of = [], voxels.digest_of

    def noting(array):
        if threading.current_thread() is threading.main_thread():
            shapes.append(array.shape)
        return digest_of(array)

    for module in (voxels, result_module):
        monkeypatch.setattr(module, "digest_of", noting)
    return shapes


def on_thread(job):
    """Run a job as docks do."""
    found = []
    thread = threading.Thread(target=lambda: found.append(drain(job)))
    thread.start()
    thread.join()
    return found[0]


def run(desk, output="Labels and probabilities"):
    request = resolve(desk.choices(output=output))
    result = desk.view.begin(request)
    job = predict_series(request.model, result.targets(), request.settings, halt=result.halt)
    desk.view.done(on_thread(result.noted(job)), recommended=None)
    return result.labels


def halted(desk):
    """Cancel a run after its first tile."""
    request = resolve(desk.choices())
    result = desk.view.begin(request)
    job = result.noted(
        predict_series(request.model, result.targets(), request.settings, halt=result.halt, preview=True)
    )

    def some():
        next(event for event in job if isinstance(event, Painted))
        job.close()
        yield from ()

    on_thread(some())
    desk.view.cancelled(0.5)
    return result


@pytest.mark.parametrize("output", ["Labels and probabilities", "Probabilities"])
def test_the_same_again_reads_no_voxels_in_the_window(desk, read, output):
    for _ in range(3):
        run(desk, output)
    assert len(desk.labels()) == (0 if output == "Probabilities" else 1) and len(desk.beside()) == 2
    assert read == []


def test_a_stroke_made_after_the_thread_had_looked_is_noticed(desk, read):
    first = run(desk, "Labels")
    request = resolve(desk.choices())
    again = desk.view.begin(request)
    predictions = on_thread(
        again.noted(predict_series(request.model, again.targets(), request.settings, halt=again.halt))
    )
    first.data_setitem(FIRST, first.data[FIRST] + 1)
    desk.view.done(predictions, recommended=None)
    assert desk.labels() == [first, again.labels] and read


def test_whether_a_cancelled_run_is_carried_on_with_costs_nothing_while_nobody_paints(desk, read):
    result = halted(desk)
    for _ in range(5):  # the dock asks whenever the form or the view changes
        assert desk.view.carries_on(resolve(desk.choices()))
    assert read == []
    result.labels.data_setitem(FIRST, result.labels.data[FIRST] + 1)
    for _ in range(5):
        assert not desk.view.carries_on(resolve(desk.choices()))
    assert len(read) == 1
    result.labels.undo()
    assert desk.view.carries_on(resolve(desk.choices()))


def test_what_a_script_wrote_and_drew_is_noticed_before_a_run_is_carried_on_with(desk):
    result = halted(desk)
    result.labels.data[FIRST] += 1
    result.labels.refresh()
    assert not desk.view.carries_on(resolve(desk.choices()))


def test_a_cancelled_run_that_a_script_changed_is_not_carried_on_with(desk):
    result = halted(desk)
    result.labels.data[FIRST] += 1  # napari says nothing
    theirs = result.labels.data.copy()
    request = resolve(desk.choices())
    again = desk.view.begin(request)
    assert again is result
    with pytest.raises(ImageError, match="were changed since it was cancelled, so nothing was added to it") as told:
        drain(again.noted(predict_series(request.model, again.targets(), request.settings, halt=again.halt)))
    desk.view.failed(told.value)
    np.testing.assert_array_equal(result.labels.data, theirs)
    new = run(desk, "Labels")
    assert desk.labels() == [result.labels, new]
    np.testing.assert_array_equal(result.labels.data, theirs)
