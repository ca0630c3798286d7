"""All open images again: which results are kept, and what stays in memory of those that are over."""

from __future__ import annotations

import csv
import gc
import threading
import weakref
from types import SimpleNamespace

import dask.array
import numpy as np
import pytest
from docks import MM, PATIENCE, press, wait_until_idle
from napari.layers import Image, Labels
from napari.layers._layer_actions import _duplicate_layer

from helpers import smooth_image
from napari_nnunet import volume
from napari_nnunet.jobs.prediction import result
from napari_nnunet.widgets.prediction import show
from napari_nnunet.widgets.prediction.many import OpenImages, describe_many
from napari_nnunet.widgets.prediction.many_view import OPEN

pytestmark = pytest.mark.usefixtures("known_arithmetic")


class Elsewhere:
    """An array that is not in memory, as files that another program may write."""

    def __init__(self, array):
        self._array, self.shape, self.dtype, self.ndim = array, array.shape, array.dtype, array.ndim

    def __getitem__(self, key):
        return self._array[key].copy()


@pytest.fixture
def arrays():
    return [smooth_image((8, 18, 16), seed=seed)[0] for seed in range(3)]


@pytest.fixture
def three(viewer, dock, model, arrays):
    """The dock with three images that are open; the last one is read when it is needed."""
    dock.add_model(model.folder)
    dock.form.mirroring_box.value = False
    dock.form.image.scope.box.value = OPEN
    lazy = dask.array.from_array(Elsewhere(arrays[2]), chunks=(4, 18, 16))
    for i, array in enumerate((*arrays[:2], lazy)):
        viewer.add_image(array, units=MM, name=f"image {i}")
    return dock


def run(dock, qtbot):
    qtbot.waitUntil(lambda: "GB of memory" in dock.summary.text() and not dock._later.isActive())
    press(qtbot, dock)
    wait_until_idle(qtbot, dock)
    rows = csv.DictReader(dock.result.many.copy._copied_text().splitlines())
    return {row["image"]: row["state"] for row in rows}


def labels(viewer, name):
    return [layer for layer in viewer.layers if isinstance(layer, Labels) and layer.name.startswith(name)]


@pytest.mark.parametrize("which", [0, 2])
def test_an_image_that_was_edited_in_place_is_segmented_again(viewer, three, arrays, qtbot, which):
    assert set(run(three, qtbot).values()) == {"done"}
    (first,) = labels(viewer, f"image {which}")
    before = first.data.copy()
    viewer.add_image(smooth_image((8, 18, 16), seed=9)[0], units=MM, name="new")
    arrays[which][2, 3:12, 3:12] += 500  # the array is the same, and napari says nothing
    states = run(three, qtbot)
    assert states == {f"image {i}": "done" if i == which else "kept" for i in range(3)} | {"new": "done"}
    assert three.panel.status.text() == "2 images segmented, 2 kept."
    old, again = labels(viewer, f"image {which}")
    assert old is first and again.metadata["nnunet"]["partial"] is False
    np.testing.assert_array_equal(old.data, before)
    assert len(labels(viewer, "")) == 5
    viewer.add_image(smooth_image((8, 18, 16), seed=10)[0], units=MM, name="newer")
    assert list(run(three, qtbot).values()).count("kept") == 4  # the newer one counts
    assert len(labels(viewer, "")) == 6


def test_a_result_that_was_corrected_is_kept_beside_that_of_the_edited_image(viewer, three, arrays, qtbot):
    run(three, qtbot)
    (first,) = labels(viewer, "image 1")
    first.data_setitem((np.array([0]),) * 3, 2)
    corrected = first.data.copy()
    viewer.add_image(smooth_image((8, 18, 16), seed=9)[0], units=MM, name="new")
    assert run(three, qtbot)["image 1"] == "kept"
    arrays[1] += 3
    viewer.add_image(smooth_image((8, 18, 16), seed=10)[0], units=MM, name="newer")
    assert run(three, qtbot)["image 1"] == "done"
    np.testing.assert_array_equal(first.data, corrected)
    assert len(labels(viewer, "image 1")) == 2


def test_one_of_many_is_said_in_the_singular():
    def order(kept, left_out):
        source = SimpleNamespace(source=SimpleNamespace(name="a"))
        done = (Labels(np.zeros((2, 2), int)),) * kept + (None,) * 3
        return OpenImages((source,) * len(done), done, (("b", "No. Reason."),) * left_out)

    assert ". 1 of 4 has its result already" in describe_many(order(1, 0))
    assert ". 2 of 5 have their result already" in describe_many(order(2, 0))
    assert describe_many(order(0, 5)).endswith("1 more is left out")
    assert describe_many(order(0, 6)).endswith("2 more are left out")


def test_a_copy_of_the_result_of_an_edited_image_does_not_stand_for_it(viewer, three, arrays, qtbot):
    run(three, qtbot)
    (first,) = labels(viewer, "image 0")
    viewer.layers.selection = {first}
    _duplicate_layer(viewer.layers)
    copy = viewer.layers["image 0 – 3d_fullres copy"]
    viewer.layers.remove(first)
    arrays[0][2, 3:12, 3:12] += 500
    states = run(three, qtbot)
    assert states == {"image 0": "done", "image 1": "kept", "image 2": "kept"}
    again = [layer for layer in labels(viewer, "image 0") if layer is not copy]
    assert len(again) == 1 and copy in viewer.layers


@pytest.mark.parametrize("removed", [True, False])
def test_a_kept_result_that_was_taken_away_meanwhile_is_not_said_to_be_kept(
    viewer, three, arrays, qtbot, monkeypatch, removed
):
    run(three, qtbot)
    (kept,) = labels(viewer, "image 1")
    viewer.add_image(smooth_image((8, 18, 16), seed=9)[0], units=MM, name="new")
    over = show.ResultView.image_over

    def taken_away(view, event):
        if event.case == "image 1":
            viewer.layers.remove(kept) if removed else setattr(kept, "data", np.ones((3, 4, 5), np.uint8))
        over(view, event)

    with monkeypatch.context() as patch:
        patch.setattr(show.ResultView, "image_over", taken_away)
        assert run(three, qtbot) == {"image 0": "kept", "image 1": "lost", "image 2": "kept", "new": "done"}
    assert three.panel.status.text() == "1 image segmented, 2 kept, 1 taken away meanwhile."
    how = "was removed" if removed else "was given other data"
    assert three.result.many.note.text() == (
        f"image 1: Its result {how} while this ran, so nothing is kept. Run it again to segment this image."
    )
    assert "image 1" not in three.result.many.recipes
    assert run(three, qtbot)["image 1"] == "done"


def test_kept_images_are_read_in_steps_between_which_it_can_be_cancelled(viewer, three, qtbot, monkeypatch):
    run(three, qtbot)
    viewer.add_image(smooth_image((8, 18, 16), seed=9)[0], units=MM, name="new")
    monkeypatch.setattr(volume, "_AT_ONCE", 1)
    reached, go, threads = threading.Event(), threading.Event(), set()
    digests_of = result.digests_of

    def halting(array):
        threads.add(threading.get_ident())
        for i, digest in enumerate(digests_of(array)):
            if i == 1:
                reached.set()
                assert go.wait(PATIENCE)
            assert i < 3, "it was cancelled"
            yield digest

    monkeypatch.setattr(result, "digests_of", halting)
    qtbot.waitUntil(lambda: "GB of memory" in three.summary.text() and not three._later.isActive())
    three.run()
    qtbot.waitUntil(reached.is_set)
    three.panel.cancel()  # the window's thread is free
    go.set()
    wait_until_idle(qtbot, three)
    assert three.panel.status.text() == "Cancelled. 0 images segmented; press Continue for the others."
    assert threading.get_ident() not in threads
    assert len(labels(viewer, "")) == 3


def test_what_a_person_removes_of_images_that_are_over_is_let_go_of(viewer, three, qtbot, monkeypatch):
    made, alive = [], []
    known = show.ResultLayers

    def noting(*args, **keywords):
        result = known(*args, **keywords)
        made.append(weakref.ref(result.probabilities))
        return result

    def over(view, event, image_over=show.ResultView.image_over):
        image_over(view, event)
        for layer in [one for one in viewer.layers if isinstance(one, Image) and ": p(" in one.name]:
            viewer.layers.remove(layer)
        gc.collect()
        alive.append([one() is not None for one in made])

    monkeypatch.setattr(show, "ResultLayers", noting)
    monkeypatch.setattr(show.ResultView, "image_over", over)
    three.form.image.output_box.value = "Labels and probabilities"
    run(three, qtbot)
    assert [states[:1] for states in alive[1:]] == [[False]] * 2  # the first is gone while the others run
    gc.collect()
    assert [one() for one in made] == [None] * 3
