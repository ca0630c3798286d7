"""However a run of the Segment dock ends, the window is in order, the dock tells the truth and can run again."""

from __future__ import annotations

import numpy as np
import pytest
from docks import MM, PATIENCE, Halting, add_image, wait_until_idle
from napari.layers import Labels
from napari.utils.progress import progress

from helpers import smooth_image
from napari_nnunet.widgets.prediction import segment_dock

pytestmark = pytest.mark.usefixtures("known_arithmetic")


def _ready(dock, qtbot):
    qtbot.waitUntil(lambda: "GB of memory" in dock.summary.text() and not dock._later.isActive())


@pytest.fixture
def ready(viewer, dock, model, qtbot):
    """The dock with a model and an image."""
    dock.add_model(model.folder)
    add_image(viewer)
    _ready(dock, qtbot)
    return dock


def _labels(viewer):
    return [layer for layer in viewer.layers if isinstance(layer, Labels)]


def test_a_run_cancelled_in_any_step_leaves_the_dock_idle_and_runs_again(viewer, ready, qtbot, monkeypatch):
    job = Halting(segment_dock.predict_series)
    monkeypatch.setattr(segment_dock, "predict_series", job)
    ready.run()
    wait_until_idle(qtbot, ready)
    steps, expected = job.steps, _labels(viewer)[0].data.copy()
    assert steps > 4
    for step in (0, 1, steps // 2, steps - 2, steps - 1):
        for layer in _labels(viewer):
            viewer.layers.remove(layer)
        job.cancel_in(step, ready, qtbot, ready.run)
        assert not list(progress._all_instances)
        said, layers = ready.panel.status.text(), _labels(viewer)
        if step == steps - 1:  # nothing was left to cancel
            assert said.startswith("Done in")
            assert layers[0].metadata["nnunet"]["partial"] is False
            np.testing.assert_array_equal(layers[0].data, expected)
        else:
            assert said.startswith("Cancelled")
            assert all("(partial" in layer.name and layer.data.any() for layer in layers)
            assert ("kept." in said and "no layer" not in said) == bool(layers)
    for layer in _labels(viewer):
        viewer.layers.remove(layer)
    ready.run()
    wait_until_idle(qtbot, ready)
    np.testing.assert_array_equal(_labels(viewer)[0].data, expected)


def test_cancel_before_the_first_tile_leaves_no_empty_layer(viewer, ready, qtbot, monkeypatch):
    job = Halting(segment_dock.predict_series)
    monkeypatch.setattr(segment_dock, "predict_series", job)
    job.cancel_in(0, ready, qtbot, ready.run)
    assert ready.panel.status.text() == "Cancelled before anything was finished."
    assert not _labels(viewer)


def test_after_the_layer_was_deleted_nothing_is_said_to_be_kept(viewer, ready, qtbot, monkeypatch):
    job = Halting(segment_dock.predict_series)
    job.at = 1
    monkeypatch.setattr(segment_dock, "predict_series", job)
    ready.run()
    qtbot.waitUntil(job.reached.is_set)
    viewer.layers.remove(_labels(viewer)[0])
    job.go.set()
    wait_until_idle(qtbot, ready)
    assert ready.panel.status.text() == "Cancelled. The result's layer had been removed; nothing is kept."
    assert not _labels(viewer)


def test_a_result_whose_data_was_replaced_meanwhile_gets_a_layer_of_its_own(viewer, ready, qtbot, monkeypatch):
    job = Halting(segment_dock.predict_series)
    job.at = 1
    monkeypatch.setattr(segment_dock, "predict_series", job)
    ready.run()
    assert job.reached.wait(PATIENCE)
    taken = _labels(viewer)[0]
    taken.data = np.zeros(taken.data.shape, np.uint8)
    job.go.set()
    wait_until_idle(qtbot, ready)
    result = _labels(viewer)[-1]
    assert result is not taken
    assert result.data.any()
    assert not taken.data.any()


def test_what_was_said_stays_when_a_layer_comes(viewer, ready, qtbot):
    ready.run()
    wait_until_idle(qtbot, ready)
    viewer.add_image(np.zeros((4, 4)), name="another")
    qtbot.wait(300)
    assert ready.panel.status.text().startswith("Done in")


def test_a_dock_closed_while_it_runs_finishes_its_layer(viewer, dock, model, qtbot, monkeypatch):
    job = Halting(segment_dock.predict_series)
    monkeypatch.setattr(segment_dock, "predict_series", job)
    dock.add_model(model.folder)
    viewer.add_image(smooth_image((40, 40, 40))[0], units=MM, name="image")
    _ready(dock, qtbot)
    job.halt_past(0.1, dock, qtbot, dock.run)
    viewer.window.remove_dock_widget(dock)
    job.go.set()
    qtbot.waitUntil(lambda: not dock.busy)
    assert not list(progress._all_instances)
    (layer,) = _labels(viewer)
    assert layer.metadata["nnunet"]["partial"] is False
    assert dock.result.running is None


def test_in_three_dimensions_a_run_needs_no_mouse_over_the_canvas(viewer, ready, qtbot):
    viewer.dims.ndisplay = 3
    viewer.mouse_over_canvas = True  # as of a pointer that has not moved since
    ready.run()
    wait_until_idle(qtbot, ready)
    assert ready.panel.status.text().startswith("Done in")
    assert _labels(viewer)[0].data.any() and viewer.mouse_over_canvas


def test_every_input_has_a_name_and_tab_leaves_the_tables(ready):
    from qtpy.QtWidgets import QAbstractSpinBox, QComboBox, QLineEdit, QTableView

    inputs = [part for kind in (QComboBox, QAbstractSpinBox, QLineEdit) for part in ready.findChildren(kind)]
    own = [part for part in inputs if not part.objectName().startswith("qt_")]
    assert [type(part).__name__ for part in own if not part.accessibleName()] == []
    assert [table.accessibleName() for table in ready.findChildren(QTableView) if table.tabKeyNavigation()] == []


@pytest.fixture
def large(viewer, dock, model, qtbot, monkeypatch):
    """The dock with an image of many tiles."""
    monkeypatch.setattr(segment_dock, "predict_series", Halting(segment_dock.predict_series))
    dock.add_model(model.folder)
    viewer.add_image(smooth_image((20, 36, 36))[0], units=MM, name="image")
    _ready(dock, qtbot)
    return dock


def _run_and_cancel(dock, qtbot, share=0.4):
    job = segment_dock.predict_series
    job.halt_past(share, dock, qtbot, dock.run)
    dock.panel.cancel()
    job.go.set()
    wait_until_idle(qtbot, dock)


def _said(panel, monkeypatch):
    """Return what the panel says from now on, and how much is done then; nothing between start and listening is lost."""
    heard, say = [], panel.say

    def listening(text):
        heard.append((text, panel.fraction))
        say(text)

    monkeypatch.setattr(panel, "say", listening)
    return heard


def test_continue_goes_on_in_the_same_layer_where_it_was_cancelled(viewer, large, qtbot, monkeypatch):
    large.run()
    wait_until_idle(qtbot, large)
    expected = _labels(viewer)[0].data.copy()
    viewer.layers.remove(_labels(viewer)[0])
    _run_and_cancel(large, qtbot)
    assert "Press Continue to resume from there." in large.panel.status.text()
    (partial,) = _labels(viewer)
    qtbot.waitUntil(lambda: large.panel.button.text() == "Continue")
    said = _said(large.panel, monkeypatch)
    large.run()
    wait_until_idle(qtbot, large)
    assert min(share for _, share in said if share) > 0.3  # the first tiles are not computed again
    assert _labels(viewer) == [partial]
    assert partial.name == "image – 3d_fullres"
    assert partial.metadata["nnunet"]["partial"] is False
    np.testing.assert_array_equal(partial.data, expected)
    qtbot.waitUntil(lambda: large.panel.button.text() == "Segment")


def test_what_changed_meanwhile_begins_anew(viewer, large, qtbot):
    for what, kept in (("painted", True), ("other data", True), ("removed", False)):
        _run_and_cancel(large, qtbot)
        partial = next(layer for layer in reversed(_labels(viewer)) if "(partial" in layer.name)
        if what == "painted":
            partial.data[0, :3, :3] = 2
            partial.refresh()
        elif what == "other data":
            viewer.layers["image"].data = viewer.layers["image"].data[:, ::-1].copy()
        else:
            viewer.layers.remove(partial)
        large.check()
        assert large.panel.button.text() == "Segment"
        large.run()
        wait_until_idle(qtbot, large)
        result = viewer.layers.selection.active
        assert result is not partial
        assert result.metadata["nnunet"]["partial"] is False
        assert (partial in viewer.layers) == kept


def test_an_image_edited_in_place_is_segmented_anew(viewer, large, qtbot, monkeypatch):
    image = viewer.layers["image"]
    _run_and_cancel(large, qtbot)
    qtbot.waitUntil(lambda: large.panel.button.text() == "Continue")
    image.data[:] = image.data[:, ::-1].copy()  # as brushes and filters do it: the array is the same
    image.refresh()
    said = _said(large.panel, monkeypatch)
    large.run()
    wait_until_idle(qtbot, large)
    assert "The image was edited meanwhile, so all of it is segmented again." in [text for text, _ in said]
    (result,) = _labels(viewer)
    viewer.layers.remove(result)
    large.check()
    large.run()
    wait_until_idle(qtbot, large)
    np.testing.assert_array_equal(result.data, _labels(viewer)[0].data)


def test_labels_stay_where_probabilities_are_asked_for_after_them(viewer, ready, qtbot):
    ready.form.image.output_box.value = "Labels and probabilities"
    _run(ready, qtbot)
    before = list(viewer.layers)
    ready.form.image.output_box.value = "Probabilities"
    _run(ready, qtbot)
    assert list(viewer.layers) == before and len(_labels(viewer)) == 1


def test_duplicates_and_moved_results_stay_where_the_same_is_run_again(viewer, ready, qtbot):
    _run(ready, qtbot)
    (first,) = _labels(viewer)
    copy = Labels(first.data.copy(), **{**first.as_layer_data_tuple()[1], "name": "mine"})
    viewer.add_layer(copy)
    _run(ready, qtbot)
    assert copy in viewer.layers and first not in viewer.layers and len(_labels(viewer)) == 2
    second = next(layer for layer in _labels(viewer) if layer is not copy)
    second.translate = (5, 0, 0)
    _run(ready, qtbot)
    assert copy in viewer.layers and second in viewer.layers and len(_labels(viewer)) == 3


def _run(dock, qtbot):
    _ready(dock, qtbot)
    dock.run()
    wait_until_idle(qtbot, dock)
    assert dock.panel.status.text().startswith("Done in")
