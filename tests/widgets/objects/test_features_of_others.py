"""Columns that another plugin or the user wrote into a layer's table of features stay where objects are measured anew."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import pandas as pd
import pytest
from napari.components import ViewerModel
from napari.layers import Labels, Layer

from napari_nnunet.widgets.objects.repair import RepairTools
from napari_nnunet.widgets.prediction.result import put_features


def layer_of(features):
    objects = np.zeros((10, 30), np.uint8)
    for i, number in enumerate((1, 2, 5)):
        objects[2:8, 10 * i : 10 * i + 6] = number
    return Labels(objects, name="found", features=features)


def duplicate(layer):
    """Return a layer as napari duplicates it."""
    data, options, kind = layer.as_layer_data_tuple()
    return Layer.create(np.array(data), deepcopy(options), kind)


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


def test_a_column_of_others_is_not_taken_over_by_one_of_ours_with_its_name():
    layer = layer_of({"index": [0, 1, 2, 5], "volume": [0.0, 1, 2, 5], "remark": ["", "a", "b", "c"]})
    for volume in (7.0, 8.0):
        put_features(layer, {"index": [0, 1, 2, 5], "volume": [0.0, volume, 2, 5]})
        assert list(layer.features.columns) == ["index", "volume", "volume (before)", "remark"]
        assert layer.features["volume (before)"].tolist() == [0, 1, 2, 5] and layer.features["volume"][1] == volume
    same = layer_of({"index": [0, 1, 2, 5], "volume": [np.nan, 1, 2, 5]})
    put_features(same, {"index": [0, 1, 2, 5], "volume": [np.nan, 1.0, 2.0, 5.0]})
    assert list(same.features.columns) == ["index", "volume"]


def measured():
    layer = layer_of({"index": [0, 1, 2, 5]})
    put_features(layer, {"index": [0, 1, 2, 5], "kind": ["", "cell", "cell", "debris"], "volume": [np.nan, 3, 4, 5]})
    return layer


def test_what_was_measured_of_a_layer_is_nobodys_in_a_duplicate(qtbot):
    viewer = ViewerModel()
    copy = viewer.add_layer(duplicate(measured()))
    tools = RepairTools(viewer, lambda: copy)
    qtbot.addWidget(tools)
    tools.use("cut")
    for place in ((4, 20), (4, 25)):
        tools.click(copy, place)
    assert column(copy, "kind") == {0: "", 1: "cell", 2: "cell", 5: "debris", 6: "debris"}
    assert "volume" not in copy.features  # 5 is not so large any more


def test_a_column_of_ours_that_somebody_changed_is_theirs():
    layer = measured()
    table = layer.features.copy()
    table.loc[table["index"] == 2, "volume"] = 40  # by hand
    layer.features = table
    for _ in range(2):
        put_features(layer, {"index": [0, 1, 2, 5], "volume": [np.nan, 3, 4, 5]})
        assert column(layer, "volume (before)")[2] == 40 and column(layer, "volume")[2] == 4
    other = measured()  # another plugin's figures have the names of ours
    other.features = {"index": [0, 1, 2, 5], "volume": [0.0, 36, 36, 36]}
    put_features(other, {"index": [0, 1, 2, 5], "volume": [np.nan, 3, 4, 5]})
    assert column(other, "volume (before)")[1] == 36


def test_rows_that_somebody_adds_orders_or_converts_make_no_column_theirs():
    layer = measured()
    table = layer.features.iloc[::-1].astype({"index": float, "volume": "float32"})
    table.loc[len(table)] = [9, "", np.nan]
    table["mine"] = range(len(table))
    layer.features = table.reset_index(drop=True)
    put_features(layer, {"index": [0, 1, 2, 5], "volume": [np.nan, 6, 8, 10]})
    assert list(layer.features.columns) == ["index", "volume", "mine"]
    assert column(layer, "mine")[9] == 4 and column(layer, "mine")[5] == 0


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


def test_numbering_that_took_a_table_along_is_not_taken_back(qtbot):
    viewer = ViewerModel()
    table = {"index": [0, 1, 2, 5], "kind": ["", "cell", "cell", "debris"], "mine": [0, 1, 2, 5]}
    told, bare = viewer.add_layer(layer_of(table)), viewer.add_layer(layer_of({}))
    for layer, says in ((told, True), (bare, False)):
        layer.data_setitem((np.array([0]), np.array([0])), 2)
        before = layer.data.copy()
        tools = RepairTools(viewer, lambda layer=layer: layer)
        qtbot.addWidget(tools)
        tools._number_anew()
        assert ("Ctrl+Z does not take that back." in tools.note.text()) is says
        numbered = layer.data.copy()
        for _ in range(2):
            layer.undo()
        np.testing.assert_array_equal(layer.data == 2, numbered == 2 if says else layer_of({}).data == 2)
        assert layer.data.max() == (3 if says else 5) and before.max() == 5
    assert column(told, "kind")[3] == "debris" and column(told, "mine")[3] == 5


def test_a_row_with_a_fraction_is_of_no_object_and_stays():
    layer = layer_of({"index": [0.0, 1.5, 2.0, "x", None], "mine": [0.0, 15, 20, 7, 8]})
    for _ in range(2):
        put_features(layer, {"index": [0, 1, 2], "volume": [np.nan, 3.0, 4.0]})
        assert layer.features["index"].tolist()[:4] == [0, 1, 2, 1.5]
        assert layer.features["mine"][[0, 2, 3, 4, 5]].tolist() == [0, 20, 15, 7, 8]
        assert np.isnan(layer.features["mine"][1])
        assert layer.features["volume"].tolist()[1:3] == [3, 4] and layer.features["volume"][3:].isna().all()


def test_several_rows_of_an_object_all_stay(qtbot):
    layer = layer_of({"index": [1, 1, 2, 2, 5], "time": [0, 1, 0, 1, 0], "mine": [10.0, 11, 20, 21, 50]})
    for _ in range(2):
        put_features(layer, {"index": [0, 1, 2, 5], "volume": [np.nan, 3.0, 4.0, 5.0]})
        assert layer.features["index"].tolist() == [0, 1, 1, 2, 2, 5]
        assert layer.features["mine"].tolist()[1:] == [10, 11, 20, 21, 50]
        assert layer.features["volume"].tolist()[1:] == [3, 3, 4, 4, 5]
    tools = RepairTools(ViewerModel(), lambda: layer)
    qtbot.addWidget(tools)
    tools._number_anew()
    assert layer.features["index"].tolist() == [0, 1, 1, 2, 2, 3] and layer.features["mine"].tolist()[-1] == 50


@pytest.mark.parametrize(
    "cells",
    [
        pd.array([None, 1, 2, 5], dtype="Int64"),
        pd.array([None, "a", "b", "c"], dtype="string"),
        [np.arange(3), np.arange(2), np.array([2.0]), np.array([])],
        [[1, 2], (3,), None, pd.NA],
    ],
    ids=["Int64", "string", "arrays", "mixed"],
)
def test_any_cells_of_others_are_compared_and_kept(cells):
    table = pd.DataFrame({"index": [0, 1, 2, 5], "volume": pd.Series(cells)})
    layer = layer_of(table)
    for _ in range(2):
        put_features(layer, {"index": [0, 1, 2, 5], "volume": [0.0, 7, 2, 5]})
        assert list(layer.features.columns) == ["index", "volume", "volume (before)"]
        kept, was = layer.features["volume (before)"], table["volume"]
        assert kept.isna().tolist() == was.isna().tolist()
        assert all(map(np.array_equal, kept.dropna(), was.dropna()))
