"""The table of volumes follows what is painted, and says that it was corrected."""

from __future__ import annotations

import numpy as np
import pytest
from docks import add_image, wait_until_idle

from helpers import smooth_image
from napari_nnunet.schema.colours import class_colour
from napari_nnunet.widgets.prediction.result import left_in


@pytest.fixture
def done(viewer, dock, model, qtbot):
    """The dock with a result."""
    dock.add_model(model.folder)
    add_image(viewer)
    qtbot.waitUntil(lambda: "GB of memory" in dock.summary.text() and not dock._later.isActive())
    dock.run()
    wait_until_idle(qtbot, dock)
    qtbot.waitUntil(lambda: dock.result.table._before is not None)
    return dock


def _rows(table):
    return {line.split(",")[1]: line.split(",")[3:] for line in table.csv().splitlines()[1:]}


def test_painting_undoing_and_replacing_are_followed(viewer, done, qtbot):
    table, layer = done.result.table, viewer.layers["image – 3d_fullres"]
    before = table.csv()
    assert before.splitlines()[0].endswith(",corrected")
    assert all(line.endswith(",no") for line in before.splitlines()[1:])
    voxels = int(_rows(table)["1"][0])
    free = tuple(axis[:5] for axis in np.nonzero(layer.data != 1))
    layer.data_setitem(free, 1)
    qtbot.waitUntil(lambda: int(_rows(table)["1"][0]) == voxels + 5)
    assert _rows(table)["1"][2] == "yes"
    assert float(_rows(table)["1"][1]) == pytest.approx(voxels + 5)
    assert table.note.isVisible() and "Corrected by hand" in table.note.text()
    assert "corrected by hand" in done.result.after.texts()["methods paragraph"]
    layer.undo()
    qtbot.waitUntil(lambda: table.csv() == before)
    layer.data = np.full_like(layer.data, 7)  # a class the model does not know
    qtbot.waitUntil(lambda: _rows(table).get("7", ["0"])[0] == str(layer.data.size))
    assert int(_rows(table)["1"][0]) == 0


def test_looking_at_other_slices_corrects_nothing(viewer, done, qtbot):
    before = done.result.table.csv()
    viewer.dims.set_current_step(0, 3)
    qtbot.waitUntil(lambda: not done.result.table._later.isActive())
    qtbot.waitUntil(lambda: not done.result.table._counting.running)
    assert done.result.table.csv() == before


def test_postprocessing_changes_volumes_and_is_no_correction(viewer, done, qtbot):
    box = next(box for box, target, _ in done.result.after._targets if target == 1)
    voxels = int(_rows(done.result.table)["1"][0])
    box.setChecked(True)
    kept = viewer.layers["image – 3d_fullres"]
    qtbot.waitUntil(lambda: int(_rows(done.result.table)["1"][0]) == (kept.data == 1).sum() < voxels)
    qtbot.waitUntil(lambda: not done.result.table._later.isActive())
    assert not done.result.table.corrected


def test_volumes_that_were_counted_before_postprocessing_tell_of_no_correction(viewer, done, qtbot):
    table, layer = done.result.table, viewer.layers["image – 3d_fullres"]
    qtbot.waitUntil(lambda: not table._later.isActive() and not table._counting.running)
    table._count()
    left_in(layer).digest += 1  # as of other voxels
    table.start_anew()
    table._later.stop()  # whether it is counted again is not the question here
    qtbot.wait(500)
    assert not table.corrected


def test_the_same_again_takes_the_place_of_its_layer_unless_somebody_painted_in_it(viewer, done, qtbot):
    names = [layer.name for layer in viewer.layers]
    for _ in range(2):
        done.run()
        wait_until_idle(qtbot, done)
        qtbot.waitUntil(lambda: done.result.table._before is not None)
        assert [layer.name for layer in viewer.layers] == names
    painted = viewer.layers["image – 3d_fullres"]
    painted.data_setitem(tuple(np.array([0]) for _ in range(3)), 2)
    done.run()
    wait_until_idle(qtbot, done)
    assert painted in viewer.layers
    assert len(viewer.layers) == len(names) + 1


def test_a_time_series_has_a_curve_for_every_class(viewer, dock, model, qtbot):
    dock.add_model(model.folder)
    array = smooth_image((12, 30, 28))[0]
    place = {"units": ["s", "mm", "mm", "mm"], "axis_labels": ["t", "z", "y", "x"]}
    viewer.add_image(np.stack([array, array * 0 + 5]), name="series", **place)
    qtbot.waitUntil(lambda: "GB of memory" in dock.summary.text() and not dock._later.isActive())
    dock.run()
    wait_until_idle(qtbot, dock)
    curves, found = dock.result.table.curves, viewer.layers["series – 3d_fullres"].data
    assert curves.isVisible() and curves.getAxis("left").labelText == "volume (mm³)"
    drawn = {item.opts["pen"]: item.getData() for item in curves.listDataItems()}
    for value in (1, 2):
        times, sizes = drawn[class_colour(value)]
        assert times.tolist() == [0, 1]
        assert sizes.tolist() == [int((frame == value).sum()) for frame in found]  # voxels of a cubic millimetre
    table = dock.result.table
    viewer.layers["series – 3d_fullres"].data = found[:1]
    qtbot.waitUntil(lambda: table.note.isVisible())
    assert table.note.text() == "The layer now holds other data; the volumes are those of the segmentation."
    assert table.corrected
