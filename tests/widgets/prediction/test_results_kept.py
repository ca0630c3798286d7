"""What a person saw, named, measured or painted stays where the same is run again; on a model of a viewer."""

from __future__ import annotations

import dask.array
import numpy as np
import pytest
from desks import FIRST, duplicate

from helpers import make_model, smooth_image
from napari_nnunet.engine.choosing.components import take_out
from napari_nnunet.events import Painted
from napari_nnunet.jobs.prediction.predict import predict_series
from napari_nnunet.volume import digest_of
from napari_nnunet.widgets.frame.layers import FOLLOWED, ORIGIN
from napari_nnunet.widgets.objects.voxels import voxels_of
from napari_nnunet.widgets.prediction.many import open_images
from napari_nnunet.widgets.prediction.request import resolve
from napari_nnunet.widgets.prediction.result import is_untouched, put_features

pytestmark = pytest.mark.usefixtures("known_arithmetic")


def test_the_same_again_takes_the_place_of_its_layers(desk):
    for _ in range(3):
        desk.run(output="Labels and probabilities")
        assert [layer.name for layer in desk.labels()] == ["image – 3d_fullres"]
        assert len(desk.beside()) == 2


def test_a_result_of_other_data_stays(desk):
    first = desk.run()
    desk.image.data = desk.image.data[:, ::-1].copy()
    every = desk.choices()
    assert open_images(every, [desk.image], {}, desk.viewer.layers).done == (None,)  # this image has none yet
    second = desk.run()
    assert desk.labels() == [first, second]
    desk.image.data[:] = desk.image.data[:, :, ::-1].copy()  # the array is the same
    third = desk.run(output="Labels and probabilities")
    shown = desk.beside()
    assert desk.labels() == [first, second, third]
    desk.image.data[2, 3:9, 3:9] += 3
    fourth = desk.run(output="Labels and probabilities")
    assert desk.labels() == [first, second, third, fourth] and desk.beside()[:2] == shown and len(desk.beside()) == 4


def test_a_result_of_a_model_that_was_trained_on_stays(desk, tmp_path):
    first = desk.run(output="Labels and probabilities")
    shown = desk.beside()
    expected = [layer.data.copy() for layer in (first, *shown)]
    make_model(tmp_path / "models", seed=5)
    second = desk.run(output="Labels and probabilities")
    assert desk.labels() == [first, second] and desk.beside()[:2] == shown and len(desk.beside()) == 4
    for layer, values in zip((first, *shown), expected, strict=True):
        np.testing.assert_array_equal(layer.data, values)


def test_weights_that_were_exchanged_while_it_ran_count(desk, tmp_path):
    first = desk.run()
    second = desk.run(meanwhile=lambda _: make_model(tmp_path / "models", seed=5))
    assert desk.labels() == [first, second]


def test_layers_that_are_read_when_needed_are_told_apart_too(desk):
    array = np.asarray(desk.image.data)
    desk.image.data = dask.array.from_array(array, chunks=(4, 18, 16))
    first = desk.run()
    second = desk.run()
    assert desk.labels() == [second] and first not in desk.labels()
    desk.image.data = dask.array.from_array(array[:, ::-1].copy(), chunks=(4, 18, 16))
    third = desk.run()
    assert desk.labels() == [second, third]


def test_time_points_are_results_of_their_own(desk):
    array = np.stack([smooth_image((8, 18, 16), seed=seed)[0] for seed in range(2)])
    desk.image = desk.viewer.add_image(array, name="series", units=["s", "mm", "mm", "mm"])
    whole = desk.run(axes="TZYX")
    one = desk.run(axes="TZYX", times=(1,))
    again = desk.run(axes="TZYX", times=(1,))
    assert desk.labels() == [whole, again] and one is not again
    array[0] += 2  # of this time point there is no other result
    last = desk.run(axes="TZYX", times=(1,))
    assert desk.labels() == [whole, last]
    both = desk.run(axes="TZYX")
    assert desk.labels() == [whole, last, both]


@pytest.mark.parametrize("what", ["renamed", "moved", "features", "case", "followed"])
def test_what_somebody_did_to_a_result_makes_it_their_own(desk, what):
    first = desk.run()
    if what == "renamed":
        first.name = "mine"
    elif what == "moved":
        first.translate = (3, 0, 0)
    elif what == "features":  # as plugins that measure do
        first.features = {"index": [0, 1, 2], "size": [0, 5, 6]}
    elif what == "followed":
        first.metadata[FOLLOWED] = True
    else:
        first.metadata[ORIGIN] = {"folder": "somewhere", "name": "case"}
    second = desk.run()
    third = desk.run()
    assert desk.labels() == [first, third] and second not in desk.viewer.layers
    assert third.name == ("image – 3d_fullres" if what == "renamed" else "image – 3d_fullres [1]")


def test_features_that_a_run_measured_are_no_change(desk):
    first = desk.run()
    put_features(first, {"index": [0, 1], "volume": [np.nan, 5.0]})
    desk.run()
    assert len(desk.labels()) == 1 and first not in desk.labels()
    (second,) = desk.labels()
    second.features = {"index": [0, 1], "mine": [1, 2]}
    put_features(second, {"index": [0, 1], "volume": [np.nan, 5.0]})
    desk.run()
    assert second in desk.labels()


def test_a_name_given_while_it_runs_is_kept(desk):
    first = desk.run(meanwhile=lambda result: setattr(result.labels, "name", "mine"))
    assert first.name == "mine" and first.metadata["nnunet"]["partial"] is False
    second = desk.run()
    assert desk.labels() == [first, second] and second.name == "image – 3d_fullres"


def test_painting_while_it_runs_makes_the_result_somebodys(desk):
    first = desk.run(meanwhile=lambda result: result.labels.data_setitem(FIRST, 2))
    assert desk.view.table.corrected or desk.view.table._before is None
    second = desk.run()
    assert desk.labels() == [first, second]


def test_a_stroke_that_was_undone_is_none_when_a_cancelled_run_goes_on(desk):
    request = resolve(desk.choices())
    result = desk.view.begin(request)
    job = predict_series(request.model, result.targets(), request.settings, halt=result.halt, preview=True)
    next(event for event in job if isinstance(event, Painted))
    job.close()
    assert desk.view.cancelled(0.5).endswith("Press Continue to resume from there.")
    result.labels.data_setitem(FIRST, result.labels.data[FIRST] + 1)
    assert not desk.view.carries_on(resolve(desk.choices()))
    result.labels.undo()
    assert desk.view.carries_on(resolve(desk.choices()))
    assert desk.run() is result.labels and desk.view.table._before is not None
    again = desk.run()
    assert desk.labels() == [again]


def test_a_stroke_that_was_brought_back_while_it_ran_makes_the_result_somebodys(desk):
    request = resolve(desk.choices())
    result = desk.view.begin(request)
    job = predict_series(request.model, result.targets(), request.settings, halt=result.halt, preview=True)
    next(event for event in job if isinstance(event, Painted))
    job.close()
    desk.view.cancelled(0.5)
    first = result.labels
    first.data_setitem(FIRST, first.data[FIRST] + 1)
    first.undo()
    desk.run(meanwhile=lambda result: result.labels.redo())  # Ctrl+Shift+Z
    assert not first.metadata["nnunet"]["partial"]
    again = desk.run()
    assert desk.labels() == [first, again]


def test_a_stroke_that_was_taken_and_brought_back_is_one(desk):
    first = desk.run()
    first.data_setitem(FIRST, first.data[FIRST] + 1)
    known = voxels_of(first)
    assert not is_untouched(first)
    first.undo()
    first.data[:] = 2  # between them, something else was written
    first.redo()
    assert known.digest(first, lately=True) == digest_of(first.data)
    assert not is_untouched(first)
    second = desk.run()
    assert desk.labels() == [first, second]


def test_labels_that_somebody_named_stay_where_only_probabilities_were_asked_for(desk):
    first = desk.run(output="Probabilities", meanwhile=lambda result: setattr(result.labels, "name", "mine"))
    assert desk.labels() == [first] and len(desk.beside()) == 2
    desk.run(output="Probabilities")
    assert desk.labels() == [first] and len(desk.beside()) == 2


def test_other_data_in_the_layer_of_a_run_that_fails_stay(desk):
    result = desk.view.begin(resolve(desk.choices()))
    result.labels.data = np.zeros_like(result.canvas)
    desk.view.failed(RuntimeError("the disk is full"))
    assert desk.labels() == [result.labels]


def test_duplicates_and_renamed_layers_of_probabilities_stay(desk):
    desk.run(output="Labels and probabilities")
    shown = desk.beside()
    copies = [duplicate(desk.viewer, layer) for layer in shown]
    expected = [layer.data for layer in copies]
    shown[1].name = "mine"
    arrays = [layer.data for layer in shown]
    desk.run(output="Labels and probabilities")
    assert [layer.data is array for layer, array in zip(copies, expected, strict=True)] == [True, True]
    assert [layer.data is array for layer, array in zip(shown, arrays, strict=True)] == [False, True]
    assert len(desk.beside()) == 5  # one beside that with another name


def test_painting_while_it_is_postprocessed_makes_the_result_somebodys(desk, qtbot, slow):
    first = desk.run()
    taken = desk.view.after
    small = after_removed(first.data, taken)
    reached, go = slow
    before = first.data.copy()
    taken._targets[-1][0].setChecked(True)
    qtbot.waitUntil(reached.is_set)
    np.testing.assert_array_equal(first.data, before)  # nothing is half done while people paint
    spot = tuple(axis[:1] for axis in small)
    first.data_setitem(spot, 1)
    go.set()
    qtbot.waitUntil(lambda: not taken.busy)
    assert first.data[spot][0] == 1 and not first.data[tuple(axis[1:] for axis in small)].any()
    qtbot.waitUntil(lambda: desk.view.table.corrected)
    second = desk.run()
    assert desk.labels() == [first, second]


def test_what_somebody_erased_while_it_was_taken_out_does_not_come_back(desk, qtbot, slow):
    first = desk.run()
    taken = desk.view.after
    small = after_removed(first.data, taken)
    reached, go = slow
    taken._targets[-1][0].setChecked(True)
    qtbot.waitUntil(reached.is_set)
    spot = tuple(axis[:1] for axis in small)
    first.data_setitem(spot, 0)  # as postprocessing does
    go.set()
    qtbot.waitUntil(lambda: not taken.busy)
    qtbot.waitUntil(lambda: desk.view.table.corrected)
    taken._targets[-1][0].setChecked(False)
    qtbot.waitUntil(lambda: not taken.busy)
    assert first.data[spot][0] == 0 and first.data[tuple(axis[1:] for axis in small)].all()
    second = desk.run()
    assert desk.labels() == [first, second]


def after_removed(labels, taken):
    """Return the voxels that the last box takes out."""
    target = taken._targets[-1][1]
    (removed, *_) = take_out(labels.copy(), [target])
    assert len(removed.where[0]) > 1
    return removed.where


def test_postprocessing_a_layer_with_other_data_changes_nothing(desk):
    first = desk.run()
    first.data = np.ones((2, 3, 4), np.uint8)
    desk.view.after._targets[0][0].setChecked(True)
    assert desk.view.after.hint.text() == "The layer now holds other data; nothing was taken out or put back."
    assert not desk.view.after.busy and (first.data == 1).all()
