"""However a job of the Ensemble dock ends, the dock becomes idle, the layers tell the truth and the job runs again.

Layers stay between the runs: a run that is begun anew takes the place of the last one.
"""

from __future__ import annotations

import numpy as np
import pytest
from docks import MM, Halting, wait_until_idle, wait_until_said
from napari.layers import Image, Labels
from napari.utils.progress import progress

from helpers import Recipe, make_model, smooth_image
from napari_nnunet.widgets.choosing import ensemble_dock
from napari_nnunet.widgets.frame.panel import RunState

pytestmark = pytest.mark.usefixtures("known_arithmetic")
DOUBTS = ["image – ensemble: disagreement", "image – ensemble: entropy"]


@pytest.fixture
def ensemble(viewer, ensemble):
    """The dock with two models and a very small image."""
    viewer.add_image(smooth_image((8, 18, 16))[0], units=MM, name="image")
    return ensemble


def _results(viewer):
    return [layer for layer in viewer.layers if isinstance(layer, Labels)]


def _doubts(viewer):
    return [layer for layer in viewer.layers if isinstance(layer, Image) and layer.name != "image"]


def _run(qtbot, dock):
    """Run at once: nothing is waited for that goes on after the last run."""
    dock.check()
    dock.run()
    assert dock.panel.state is RunState.RUNNING
    wait_until_idle(qtbot, dock)
    assert dock.panel.status.text().startswith("Done in")


def _ends(viewer, dock, qtbot, job, look):
    """Cancel a job in some of its steps, the last of which is its end, and after it; each time it runs again."""
    steps = job.steps
    assert steps > 4
    for step in (0, 1, steps // 2, steps - 2, steps - 1):
        dock.check()
        job.cancel_in(step, dock, qtbot, dock.run)
        assert dock.panel.state is RunState.IDLE and not list(progress._all_instances)
        look(step, over=step == steps - 1)
        if step < steps - 1:
            _run(qtbot, dock)
            look(None, over=True)
    dock.panel.cancel()
    assert dock.panel.state is RunState.IDLE
    look(None, over=True)
    _run(qtbot, dock)
    look(None, over=True)


def test_models_cancelled_in_any_step_leave_the_dock_idle_and_run_again(viewer, ensemble, qtbot, monkeypatch):
    wait_until_said(qtbot, ensemble)
    job = Halting(ensemble_dock.segment)
    monkeypatch.setattr(ensemble_dock, "segment", job)
    _run(qtbot, ensemble)
    (first,) = _results(viewer)
    expected = first.data.copy()
    assert expected.any() and sorted(layer.name for layer in _doubts(viewer)) == DOUBTS

    def look(step, *, over):
        said = ensemble.panel.status.text()
        whole = [layer for layer in _results(viewer) if not layer.metadata["nnunet"]["partial"]]
        partial = [layer for layer in _results(viewer) if layer not in whole]
        assert len(whole) == 1 and sorted(layer.name for layer in _doubts(viewer)) == DOUBTS, step
        np.testing.assert_array_equal(whole[0].data, expected)
        assert "partial" not in whole[0].name
        if over:
            assert said.startswith("Done in") and not partial, step
        else:
            assert said.startswith("Cancelled"), step
            assert all("(partial" in layer.name and layer.data.any() for layer in partial), step
            assert ("kept" in said and "no layer" not in said) == bool(partial), (step, said)

    _ends(viewer, ensemble, qtbot, job, look)


def test_the_uncertainty_of_the_same_request_is_shown_in_its_layers_unless_somebody_changed_them(
    viewer, ensemble, qtbot
):
    wait_until_said(qtbot, ensemble)
    _run(qtbot, ensemble)
    first, shown = _results(viewer), _doubts(viewer)
    expected = [layer.data.copy() for layer in shown]
    shown[1].contrast_limits = (0, 0.5)
    _run(qtbot, ensemble)
    assert _doubts(viewer) == shown and tuple(shown[1].contrast_limits) == (0, 0.5)
    assert len(_results(viewer)) == 1 and _results(viewer) != first
    shown[0].data[2, 3, 4] = 7  # by a plugin, in place
    shown[1].translate = (1, 0, 0)
    _results(viewer)[0].data[0, :3, :3] = 2
    painted = _results(viewer)[0]
    _run(qtbot, ensemble)
    assert len(_doubts(viewer)) == 4 and len(_results(viewer)) == 2 and painted in viewer.layers
    assert shown[0].data[2, 3, 4] == 7 and tuple(shown[1].translate) == (1, 0, 0)
    for layer, values in zip(_doubts(viewer)[2:], expected, strict=True):
        np.testing.assert_array_equal(layer.data, values)
    _run(qtbot, ensemble)
    assert len(_doubts(viewer)) == 4 and len(_results(viewer)) == 2 and painted in viewer.layers


def test_a_painted_result_that_was_postprocessed_since_is_no_untouched_one(viewer, ensemble, qtbot):
    wait_until_said(qtbot, ensemble)
    _run(qtbot, ensemble)
    (painted,) = _results(viewer)
    painted.data_setitem((np.array([0, 0]), np.array([0, 1]), np.array([0, 0])), 2)
    qtbot.waitUntil(lambda: ensemble.result.table.corrected)
    ensemble.result.after._targets[0][0].setChecked(True)
    qtbot.waitUntil(lambda: not ensemble.result.after.busy)
    counting = ensemble.result.table
    qtbot.waitUntil(lambda: not counting._later.isActive() and not counting._counting.running)
    assert ensemble.result.table.corrected
    _run(qtbot, ensemble)
    assert painted in viewer.layers and len(_results(viewer)) == 2


def test_a_postprocessed_result_is_replaced_at_once(viewer, ensemble, qtbot):
    wait_until_said(qtbot, ensemble)
    _run(qtbot, ensemble)
    (first,) = _results(viewer)
    before = first.data.copy()
    ensemble.result.after._targets[0][0].setChecked(True)
    qtbot.waitUntil(lambda: not ensemble.result.after.busy)
    assert (first.data != before).any() or not ensemble.result.after._removed
    _run(qtbot, ensemble)
    (result,) = _results(viewer)
    assert result is not first
    np.testing.assert_array_equal(result.data, before)


def test_a_result_of_before_a_member_was_trained_on_stays_with_its_uncertainty(viewer, ensemble, workspace, qtbot):
    wait_until_said(qtbot, ensemble)
    _run(qtbot, ensemble)
    (first,), shown = _results(viewer), _doubts(viewer)
    expected = [layer.data.copy() for layer in (first, *shown)]
    flat = Recipe(configuration="2d", patch=(16, 16), spacing=(1.0, 1.0))
    make_model(workspace.results, flat, seed=11)  # the second member
    _run(qtbot, ensemble)
    assert first in viewer.layers and len(_results(viewer)) == 2
    assert _doubts(viewer)[:2] == shown and len(_doubts(viewer)) == 4
    for layer, values in zip((first, *shown), expected, strict=True):
        np.testing.assert_array_equal(layer.data, values)
