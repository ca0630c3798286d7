"""Data that somebody exchanged or painted in a result while something was computed; on a model of a viewer."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest
from desks import FIRST, duplicate

from napari_nnunet.events import Painted
from napari_nnunet.jobs.prediction.predict import predict_series
from napari_nnunet.widgets.prediction import after
from napari_nnunet.widgets.prediction.many import open_images
from napari_nnunet.widgets.prediction.request import resolve

pytestmark = pytest.mark.usefixtures("known_arithmetic")
OTHER = "The layer now holds other data; nothing was taken out or put back."


def boxes(desk):
    return [box for box, _, _ in desk.view.after._targets]


def press(desk, qtbot, *, on):
    boxes(desk)[-1].setChecked(on)
    qtbot.waitUntil(lambda: not desk.view.after.busy)


@pytest.mark.parametrize("shape", ["same", "other"])
def test_data_exchanged_while_it_is_postprocessed_are_said_to_be_others(desk, qtbot, slow, shape):
    reached, go = slow
    layer, table = desk.run(), desk.view.table
    boxes(desk)[-1].setChecked(True)
    qtbot.waitUntil(reached.is_set)
    layer.data = np.ones_like(layer.data) if shape == "same" else np.ones((5, 6), np.uint8)
    go.set()
    qtbot.waitUntil(lambda: not desk.view.after.busy)
    assert desk.view.after.hint.text() == OTHER and not boxes(desk)[-1].isChecked()
    qtbot.waitUntil(lambda: table.corrected)
    recipe = desk.view.after.recipe()
    assert recipe["corrected"] and "postprocessing_kept" not in recipe
    assert all(line.endswith(",yes") for line in table.csv().splitlines()[1:])
    if shape == "same":
        assert f",{layer.data.size}," in table.csv().splitlines()[1]


def test_postprocessing_that_fails_leaves_the_boxes_as_they_were(desk, qtbot, monkeypatch):
    def fails(labels, targets):
        raise MemoryError

    desk.run()
    with monkeypatch.context() as patch:
        patch.setattr(after, "take_out", fails)
        press(desk, qtbot, on=True)
    assert desk.view.after.hint.text() and not boxes(desk)[-1].isChecked()
    press(desk, qtbot, on=True)
    assert boxes(desk)[-1].isChecked() and desk.view.after.recipe()["postprocessing_kept"]


def test_what_was_taken_out_of_other_data_is_not_put_back(desk, qtbot):
    layer = desk.run()
    before = layer.data.copy()
    press(desk, qtbot, on=True)
    assert (layer.data != before).any()
    layer.data = np.zeros_like(layer.data)
    press(desk, qtbot, on=False)
    assert not layer.data.any() and desk.view.after.hint.text() == OTHER
    layer.data = before.copy()
    press(desk, qtbot, on=True)  # of these it can be taken out, and put back
    assert (layer.data != before).any()
    press(desk, qtbot, on=False)
    np.testing.assert_array_equal(layer.data, before)


def test_boxes_of_the_next_result_wait_for_the_one_before(desk, qtbot, slow):
    reached, go = slow
    desk.run()
    boxes(desk)[-1].setChecked(True)
    qtbot.waitUntil(reached.is_set)
    desk.image.data = desk.image.data[:, ::-1].copy()
    desk.run()
    assert not any(box.isEnabled() for box in boxes(desk))
    go.set()
    qtbot.waitUntil(lambda: not desk.view.after.busy)
    assert all(box.isEnabled() and not box.isChecked() for box in boxes(desk))


def test_a_run_that_was_painted_in_before_it_was_cancelled_begins_anew_and_says_so(desk):
    request = resolve(desk.choices())
    result = desk.view.begin(request)
    job = predict_series(request.model, result.targets(), request.settings, halt=result.halt, preview=True)
    next(event for event in job if isinstance(event, Painted))
    result.labels.data_setitem(FIRST, result.labels.data[FIRST] + 1)
    job.close()
    assert desk.view.cancelled(0.5) == "Cancelled at 50 %. The part segmented so far is kept."
    assert not desk.view.carries_on(resolve(desk.choices())) and result.halt.sums is None
    again = desk.run()
    assert desk.labels() == [result.labels, again]


def test_probabilities_go_with_their_layers(desk):
    probabilities = []
    desk.run(lambda result: probabilities.append(weakref.ref(result.probabilities)), output="Labels and probabilities")
    for layer in list(desk.viewer.layers):
        if layer is not desk.image:
            desk.viewer.layers.remove(layer)
    del layer
    gc.collect()
    assert probabilities[0]() is None
    desk.view.clear()
    assert desk.view.after.recipe() == {"corrected": False}


def test_a_copy_does_not_stand_for_the_result_of_an_image(desk):
    layer = desk.run()

    def every():
        return open_images(desk.choices(), [desk.image], {}, desk.viewer.layers).done

    duplicate(desk.viewer, layer)
    desk.viewer.add_labels(layer.data.copy(), metadata=layer.metadata)
    assert every() == (layer,)
    desk.viewer.layers.remove(layer)
    assert every() == (None,)  # nobody knows of which voxels they are


@pytest.mark.parametrize("shape", [(8, 18, 15), (18, 16), (2, 8, 18, 16)])
def test_a_layer_with_data_of_another_shape_is_no_result(desk, shape):
    layer = desk.run()
    layer.data = np.zeros(shape, np.uint8)
    assert open_images(desk.choices(), [desk.image], {}, desk.viewer.layers).done == (None,)
