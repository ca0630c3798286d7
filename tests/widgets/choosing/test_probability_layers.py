"""Probability layers in the Ensemble dock: which belong together."""

from __future__ import annotations

import numpy as np
from docks import add_image, open_dock, press, wait_until_idle

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
    assert all(group.complete for group in groups)
    assert len([layer for layer in viewer.layers if PROBABILITY in layer.metadata]) == 4
    segment.close()
    ensemble.members.source_box.value = LAYERS
    qtbot.waitUntil(lambda: "Will combine" in ensemble.summary.text())
    press(qtbot, ensemble)
    assert "Combined 2 results" in ensemble.panel.status.text()


def test_layers_that_name_no_run_belong_together_by_their_result(viewer):
    shown = viewer.add_image(np.zeros((4, 4)), name="a")
    scheme = {"labels": {"background": 0, "organ": 1}}
    shown.metadata[PROBABILITY] = {"result": "image – 2d", "head": 1, "scheme": scheme}
    assert [(group.name, group.complete) for group in layer_groups(viewer)] == [("image – 2d", True)]
