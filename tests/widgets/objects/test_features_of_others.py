"""Columns that another plugin or the user wrote into a layer's table of features stay where objects are measured anew."""

from __future__ import annotations

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Labels

from napari_nnunet.widgets.objects.repair import RepairTools
from napari_nnunet.widgets.prediction.result import put_features


def layer_of(features):
    objects = np.zeros((10, 30), np.uint8)
    for i, number in enumerate((1, 2, 5)):
        objects[2:8, 10 * i : 10 * i + 6] = number
    return Labels(objects, name="found", features=features)


def column(layer, name):
    return dict(zip(layer.features["index"], layer.features[name], strict=True))


def test_what_is_measured_anew_keeps_columns_of_others():
    layer = layer_of({"index": [0, 1, 2, 5]})
    put_features(layer, {"index": [0, 1, 2], "volume": [np.nan, 3.0, 4.0], "gone": ["", "a", "b"]})
    table = layer.features.copy()
    table["intensity"], table["remark"] = [0.5, 1.5, 2.5], ["", "good", "bad"]
    layer.features = table
    put_features(layer, {"index": [0, 1, 2, 3], "volume": [np.nan, 3.0, np.nan, 9.0]})
    assert list(layer.features.columns) == ["index", "volume", "intensity", "remark"]
    assert list(layer.features["index"]) == [0, 1, 2, 3] and layer.features["volume"][3] == 9
    np.testing.assert_array_equal(layer.features["intensity"], [0.5, 1.5, 2.5, np.nan])
    assert column(layer, "remark")[2] == "bad"
    put_features(layer, {"index": [0, 1], "volume": [np.nan, 3.0]})  # the others are gone, and may come back
    assert list(layer.features["index"]) == [0, 1, 2, 3] and column(layer, "remark")[2] == "bad"
    assert np.isnan(column(layer, "volume")[2])


@pytest.mark.parametrize("index", [[0, 1, 2, 5], ["0", "1", "2", "5"], None])
def test_rows_of_others_are_of_the_number_that_their_table_says(index):
    named = {"score": [0, 10, 20, 50]}
    layer = layer_of(named if index is None else {"index": index, **named})
    put_features(layer, {"index": [0, 1, 2, 3, 4, 5], "volume": [0.0, 1, 2, 3, 4, 5]})
    expected = {1: 10, 2: 20, 3: 50} if index is None else {1: 10, 2: 20, 5: 50}
    found = column(layer, "score")
    assert {n: found[n] for n in expected} == expected


def test_numbers_made_anew_take_the_columns_of_others_along(qtbot):
    viewer = ViewerModel()
    layer = viewer.add_layer(layer_of({"index": [0, 1, 2, 5], "mine": ["", "one", "two", "five"]}))
    tools = RepairTools(viewer, lambda: layer)
    qtbot.addWidget(tools)
    tools._number_anew()
    assert column(layer, "mine") == {0: "", 1: "one", 2: "two", 3: "five"}


def test_a_cut_keeps_the_columns_of_others(qtbot):
    viewer = ViewerModel()
    table = {"index": [0, 1, 2, 5], "kind": ["", "cell", "cell", "debris"], "mine": [0, 1, 2, 5]}
    layer = viewer.add_layer(layer_of(table))
    tools = RepairTools(viewer, lambda: layer)
    qtbot.addWidget(tools)
    tools.use("cut")
    tools.click(layer, (4, 20))
    tools.click(layer, (4, 25))
    assert column(layer, "kind")[6] == "debris"
    found = column(layer, "mine")
    assert found[5] == 5 and np.isnan(found[6])


def test_one_object_that_is_numbered_anew_is_no_several(qtbot):
    viewer = ViewerModel()
    layer = viewer.add_layer(Labels(np.where(layer_of({}).data == 5, 5, 0).astype(np.uint8), name="one"))
    tools = RepairTools(viewer, lambda: layer)
    qtbot.addWidget(tools)
    tools._number_anew()
    assert tools.note.text() == "The object has the number 1 now."
