"""Probability layers in the Ensemble dock: which belong together."""

from __future__ import annotations

import numpy as np
from docks import add_image, open_dock, press, wait_until_idle, wait_until_said
from napari.layers import Labels
from napari.layers._layer_actions import _duplicate_layer

from helpers import Recipe, make_model
from napari_nnunet.widgets.choosing.layer_groups import layer_groups
from napari_nnunet.widgets.choosing.members import LAYERS
from napari_nnunet.widgets.prediction.result import PROBABILITY

FLAT = {"configuration": "2d", "patch": (16, 16), "spacing": (1.0, 1.0)}


def test_results_of_two_models_with_one_configuration_are_two_members(viewer, workspace, qtbot):
    make_model(workspace.results, Recipe(name="Dataset002_Other", **FLAT), seed=3)
    add_image(viewer)
    ensemble, segment = open_dock(viewer, "Ensemble"), open_dock(viewer, "Segment")
    segment.form.image.output_box.value = "Labels and probabilities"
    flat = [path for path in segment.form.model_box.choices if str(path).endswith("__2d")]
    for model in (*flat, flat[0]):  # the third run takes the place of the first
        segment.form.model_box.value = model
        qtbot.waitUntil(lambda: segment.panel.button.isEnabled())
        segment.run()
        wait_until_idle(qtbot, segment)
    groups = layer_groups(viewer)
    assert sorted(group.name for group in groups) == [
        "image – 2d (Dataset001_Tiny / 2d)",
        "image – 2d (Dataset002_Other / 2d)",
    ]
    assert not any(group.missing for group in groups)
    assert len([layer for layer in viewer.layers if PROBABILITY in layer.metadata]) == 4
    segment.close()
    ensemble.members.source_box.value = LAYERS
    qtbot.waitUntil(lambda: "Will combine" in ensemble.summary.text())
    press(qtbot, ensemble)
    assert "Combined 2 results" in ensemble.panel.status.text()


def test_duplicates_of_probability_layers_are_no_members(viewer, workspace, qtbot):
    add_image(viewer)
    segment = open_dock(viewer, "Segment")
    segment.form.image.output_box.value = "Labels and probabilities"
    _segment(qtbot, segment)
    shown = [layer for layer in viewer.layers if PROBABILITY in layer.metadata]
    viewer.layers.selection = set(shown)
    _duplicate_layer(viewer.layers)
    assert len([layer for layer in viewer.layers if PROBABILITY in layer.metadata]) == 2 * len(shown)
    (group,) = layer_groups(viewer)
    assert list(group.layers.values()) == shown
    _segment(qtbot, segment)  # the duplicates are of the run before
    (group,) = layer_groups(viewer)
    assert list(group.layers.values()) == shown and not group.missing
    for layer in shown:
        viewer.layers.remove(layer)
    (group,) = layer_groups(viewer)
    assert not group.missing  # they stand in for what was removed
    segment.close()


def _segment(qtbot, dock):
    qtbot.waitUntil(lambda: dock.panel.button.isEnabled() and not dock._later.isActive())
    press(qtbot, dock)


def test_duplicates_of_two_runs_of_one_request_are_one_member(viewer):
    scheme = {"labels": {"background": 0, "organ": 1}}
    for run, request in (("a", "x"), ("b", "x"), ("c", "y")):
        about = {"result": "image – 2d", "run": run, "request": request, "head": 1, "scheme": scheme}
        for _ in range(2):
            viewer.add_image(np.zeros((4, 4)), name="image – 2d: p(organ)", metadata={PROBABILITY: dict(about)})
    assert [group.name for group in layer_groups(viewer)] == ["image – 2d", "image – 2d (2)"]


def test_layers_that_name_no_run_belong_together_by_their_result(viewer):
    shown = viewer.add_image(np.zeros((4, 4)), name="a")
    scheme = {"labels": {"background": 0, "organ": 1}}
    shown.metadata[PROBABILITY] = {"result": "image – 2d", "head": 1, "scheme": scheme}
    assert [(group.name, not group.missing) for group in layer_groups(viewer)] == [("image – 2d", True)]


def _shown(viewer, result, values):
    """Add probabilities of one class, as a run leaves them."""
    about = {"result": result, "head": 1, "scheme": {"labels": {"background": 0, "organ": 1}}}
    return viewer.add_image(np.float32(values), name=f"{result}: p(organ)", metadata={PROBABILITY: about})


def _labels(viewer):
    return [layer for layer in viewer.layers if isinstance(layer, Labels)]


def test_what_is_combined_again_is_shown_in_its_layers_unless_they_were_changed(viewer, ensemble, qtbot):
    one, _ = _shown(viewer, "a", [[0.9, 0.1, 0.1]]), _shown(viewer, "b", [[0.8, 0.3, 0.1]])
    ensemble.members.source_box.value = LAYERS
    wait_until_said(qtbot, ensemble, "Will combine")
    press(qtbot, ensemble)
    (first,) = _labels(viewer)
    doubts = [viewer.layers[f"a + b: {name}"] for name in ("entropy", "disagreement")]
    viewer.layers["b: p(organ)"].contrast_limits = (0, 0.9)
    press(qtbot, ensemble)
    assert _labels(viewer) == [first] and first.data.tolist() == [[1, 0, 0]] and len(viewer.layers) == 5
    one.data = np.float32([[0.9, 0.9, 0.1]])  # another result
    press(qtbot, ensemble)
    kept, first = _labels(viewer)
    assert kept.data.tolist() == [[1, 0, 0]] and first.data.tolist() == [[1, 1, 0]]
    assert len(viewer.layers) == 8 and doubts[1].data[0, 1] < viewer.layers["a + b [1]: disagreement"].data[0, 1]
    first.data_setitem((np.array([0]), np.array([2])), 1)
    press(qtbot, ensemble)
    _, _, second = _labels(viewer)
    assert first.data.tolist() == [[1, 1, 1]] and second.data.tolist() == [[1, 1, 0]]
    second.name = "mine"
    press(qtbot, ensemble)
    *_, third = _labels(viewer)
    third.translate = (0, 5)
    press(qtbot, ensemble)
    ensemble.rows.widgets["method"].value = "hard"
    press(qtbot, ensemble)
    assert len(_labels(viewer)) == 6
    press(qtbot, ensemble)
    assert len(_labels(viewer)) == 6
