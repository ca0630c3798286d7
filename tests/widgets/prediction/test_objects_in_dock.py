"""A model of numbered objects gives objects in the window, counted and measured."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from docks import add_image, wait_until_idle

from helpers import Recipe, make_model
from napari_nnunet import load_model
from napari_nnunet.widgets.prediction.words import about_model


@pytest.fixture
def folder(tmp_path):
    """A tiny model with random weights that has learnt cores and borders."""
    model = make_model(tmp_path, Recipe(labels={"background": 0, "cell core": 1, "cell border": 2}))
    path = model.folder / "dataset.json"
    objects = {"kinds": {"cell": [1, 2]}, "width": 1.5, "unit": 1.0}
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), "napari_nnunet_objects": objects}))
    return model.folder


def test_segmenting_gives_numbered_objects_with_their_figures(viewer, dock, folder, qtbot):
    dock.add_model(folder)
    add_image(viewer)
    qtbot.waitUntil(lambda: "GB of memory" in dock.summary.text() and not dock._later.isActive())
    assert "Finds each cell by its own number.<br>" in about_model(load_model(folder))
    dock.run()
    wait_until_idle(qtbot, dock)
    layer = viewer.layers["image – 3d_fullres"]
    table = dock.result.objects
    qtbot.waitUntil(lambda: table.copy.isEnabled())
    count = int(layer.data.max())
    assert count > 1 and layer.data.dtype == np.uint32
    assert set(np.unique(layer.data)) == set(range(count + 1))
    assert [table.table.item(0, c).text() for c in range(2)] == ["cell", f"{count:,}"]
    rows = list(csv.DictReader(table.csv().splitlines()))
    assert len(rows) == count
    assert sum(int(row["voxels"]) for row in rows) == np.count_nonzero(layer.data)
    assert list(layer.features["index"]) == list(range(count + 1))
    assert layer.features["kind"][1] == "cell" and layer.features["volume"][1] > 0
    assert not dock.result.table.isVisible()
    assert not dock.result.after.keep.isVisible()  # the largest part of a class means nothing here
    assert dock.result.collect.isVisible()  # corrected objects become a training case
    assert layer.metadata["nnunet_kind"] == "cell"
    _go_to_the_last(viewer, layer, count, qtbot)


def test_cores_and_borders_that_come_as_classes_are_said_before_and_after(viewer, dock, folder, qtbot):
    path = folder / "dataset.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    del content["napari_nnunet_objects"]
    path.write_text(json.dumps(content))
    words = "lacks 'napari_nnunet_objects', which says that they are: classes are returned, and no objects."
    assert words in about_model(load_model(folder))
    dock.add_model(folder)
    add_image(viewer)
    qtbot.waitUntil(lambda: "GB of memory" in dock.summary.text() and not dock._later.isActive())
    dock.run()
    wait_until_idle(qtbot, dock)
    assert viewer.layers["image – 3d_fullres"].data.max() == 2
    assert any(words in note for note in dock.panel.notes)


def _go_to_the_last(viewer, layer, count, qtbot):
    """Selecting a row of napari's table, which selects the label, shows the object."""
    viewer.dims.set_point(0, 0)
    viewer.scene.camera.center = (1000, 1000)
    viewer.scene.camera.zoom = 30
    qtbot.waitUntil(lambda: np.ptp(layer.corner_pixels[:, -2:], axis=0).max() == 0)  # it is drawn
    layer.selected_label = count
    place = np.argwhere(layer.data == count)
    assert viewer.dims.current_step[0] == round(place[:, 0].mean())
    np.testing.assert_allclose(viewer.scene.camera.center[-2:], place[:, 1:].mean(axis=0), atol=0.51)


def test_the_row_of_an_object_is_its_number_also_where_others_are_gone(viewer, dock, folder, qtbot):
    dock.add_model(folder)
    add_image(viewer)
    qtbot.waitUntil(lambda: "GB of memory" in dock.summary.text() and not dock._later.isActive())
    dock.run()
    wait_until_idle(qtbot, dock)
    layer, table = viewer.layers["image – 3d_fullres"], dock.result.objects
    qtbot.waitUntil(lambda: table.copy.isEnabled())
    count = int(layer.data.max())
    place = np.nonzero(layer.data == 1)
    layer.data_setitem(place, 0)
    layer.events.paint(value=[])
    qtbot.waitUntil(lambda: not table.copy.isEnabled())
    qtbot.waitUntil(lambda: table.copy.isEnabled())
    assert list(layer.features["index"]) == list(range(count + 1))
    assert np.isnan(layer.features["volume"][1]) and layer.features["volume"][2] > 0
    assert len(list(csv.DictReader(table.csv().splitlines()))) == count - 1


def test_the_same_again_takes_the_place_of_its_layer(viewer, dock, folder, qtbot):
    dock.add_model(folder)
    add_image(viewer)
    qtbot.waitUntil(lambda: "GB of memory" in dock.summary.text() and not dock._later.isActive())
    for _ in range(2):
        dock.run()
        wait_until_idle(qtbot, dock)
    assert len(viewer.layers) == 2
