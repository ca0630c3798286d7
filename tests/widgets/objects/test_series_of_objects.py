"""Objects of a series, whose numbers each time point has for itself until they are followed; on a model of a viewer."""

from __future__ import annotations

import csv
import io
from types import SimpleNamespace

import numpy as np
import pytest
from napari.components import ViewerModel

from napari_nnunet.widgets.objects.repair import RepairTools
from napari_nnunet.widgets.objects.tracks import FollowTools, Series
from napari_nnunet.widgets.prediction.objects import ObjectTable

SHAPE = (3, 40, 60)
LEFT, RIGHT = (slice(4, 12), slice(4, 12)), (slice(24, 34), slice(30, 40))


def series():
    """A cell on the left and a nucleus on the right, whose numbers change at the second time."""
    data = np.zeros(SHAPE, np.uint32)
    for time in range(3):
        data[(time, *LEFT)], data[(time, *RIGHT)] = (2, 1) if time == 1 else (1, 2)
    kinds = tuple({int(frame[6, 6]): "cell", int(frame[28, 35]): "nucleus"} for frame in data)
    return data, kinds


def followed(viewer, layer, kinds, qtbot, *, axes="TYX", channels=1, sized=True):
    pytest.importorskip("laptrack", reason="laptrack is not installed: it comes with napari-nnunet[tracking]")
    tools = FollowTools(viewer)
    qtbot.addWidget(tools)
    images = tuple(np.zeros((channels, *SHAPE[1:]), np.float32) for _ in range(3))
    names = tuple(f"c{i}" for i in range(channels))
    tools.show_series(Series(layer, axes, (0, 1, 2), images, kinds, (1.0, 1.0), names, sized=sized))
    return tools


def follow(tools, qtbot):
    tools.copy.setEnabled(False)
    tools.start()
    qtbot.waitUntil(tools.copy.isEnabled)


def table_of(viewer, layer, kinds, qtbot, *, voxel_mm=(1.0, 1.0)):
    table = ObjectTable(viewer)
    qtbot.addWidget(table)
    frames = [
        SimpleNamespace(index=i if len(kinds) > 1 else None, volume=SimpleNamespace(array=np.zeros((1, *SHAPE[1:]))))
        for i in range(len(kinds))
    ]
    request = SimpleNamespace(
        axes="TYX"[-layer.ndim :],
        frames=frames,
        grid=SimpleNamespace(spacing=(1.0, 1.0)),
        model=SimpleNamespace(dataset=SimpleNamespace(channel_names=("c",))),
        voxel_mm=voxel_mm,
    )
    objects = SimpleNamespace(kinds=dict.fromkeys(("cell", "nucleus"), 1))
    table.show_result(SimpleNamespace(labels=layer, request=request, objects=objects), kinds)
    qtbot.waitUntil(table.copy.isEnabled)
    return table


def rows(table):
    return list(csv.DictReader(io.StringIO(table.csv())))


def test_kinds_go_with_their_objects_when_they_are_followed_again(qtbot):
    viewer, (data, kinds) = ViewerModel(), series()
    layer = viewer.add_labels(data, name="cells")
    tools = followed(viewer, layer, kinds, qtbot)
    own = viewer.add_points([[0, 6, 6]], name="cells: tracks")
    for _ in range(2):
        follow(tools, qtbot)
        assert own in viewer.layers and len(viewer.layers) == 3  # only tracks of before are replaced
        kind = dict(zip(layer.features["index"], layer.features["kind"], strict=True))
        for frame in np.asarray(layer.data):
            assert kind[frame[6, 6]] == "cell" and kind[frame[28, 35]] == "nucleus"


def test_tracks_belong_to_the_layer_that_was_followed_whatever_its_name(qtbot):
    viewer = ViewerModel()
    first, second = (viewer.add_labels(series()[0], name="cells") for _ in range(2))
    second.name = "later"
    follow(followed(viewer, first, series()[1], qtbot), qtbot)
    tracks = viewer.layers["cells: tracks"]
    first.name, second.name = "mine", "cells"
    tools = followed(viewer, second, series()[1], qtbot)
    follow(tools, qtbot)
    assert tracks in viewer.layers and len(viewer.layers) == 4
    second.name = "mine too"
    follow(tools, qtbot)
    assert len(viewer.layers) == 4 and viewer.layers["mine too: tracks"].data.size


def test_what_is_painted_while_objects_are_followed_stays(qtbot):
    viewer, (data, kinds) = ViewerModel(), series()
    layer = viewer.add_labels(data, name="cells")
    tools = followed(viewer, layer, kinds, qtbot)
    tools.start()
    layer.data[2, 15:18, 50:53] = 9
    painted = np.asarray(layer.data).copy()
    qtbot.waitUntil(lambda: "corrected meanwhile" in tools.note.text())
    np.testing.assert_array_equal(layer.data, painted)
    tools.start()
    viewer.layers.remove(layer)
    qtbot.waitUntil(lambda: "was removed meanwhile" in tools.note.text())
    assert not viewer.layers


def test_a_stroke_from_before_does_not_come_back_with_another_objects_number(qtbot):
    viewer, (data, kinds) = ViewerModel(), series()
    layer = viewer.add_labels(data, name="cells")
    tools = followed(viewer, layer, kinds, qtbot)
    layer.data_setitem((np.array([0]), np.array([20]), np.array([50])), 1)
    follow(tools, qtbot)
    after = np.asarray(layer.data).copy()
    layer.undo()
    np.testing.assert_array_equal(layer.data, after)


def test_following_keeps_what_others_wrote(qtbot):
    viewer, (data, kinds) = ViewerModel(), series()
    data[2, 20:23, 20:23] = 7
    mine = {"index": [0, 1, 2, 7, 9], "score": [0.0, 10, 20, 70, 90], "kind": ["", "round", "long", "round", "gone"]}
    layer = viewer.add_labels(data, name="cells", features=mine)
    tools = followed(viewer, layer, (*kinds[:2], {**kinds[2], 7: "cell"}), qtbot)
    follow(tools, qtbot)
    number = int(layer.data[2, 21, 21])
    for again in range(2):
        told = {str(index): own for index, own in layer.features.set_index("index").to_dict("index").items()}
        assert told[str(number)]["score"] == 70 and told[str(number)]["kind (before)"] == "round"
        assert told[str(number)]["kind"] == "cell"  # ours has its name
        assert [told[f"{old} before"]["score"] for old in (1, 2, 9)] == [10, 20, 90]
        assert told["1 before"]["kind (before)"] == "round" and not told["1 before"]["kind"]
        assert ("3 numbers (1, 2 and 9)" in tools.note.text()) is not again
        if not again:
            follow(tools, qtbot)


def test_following_again_takes_rows_of_others_along(qtbot):
    viewer, (data, kinds) = ViewerModel(), series()
    layer = viewer.add_labels(data, name="cells")
    tools = followed(viewer, layer, kinds, qtbot)
    follow(tools, qtbot)
    number = int(layer.data[0, 6, 6])
    table = layer.features.copy()
    table["mine"] = [f"of {n}" for n in table["index"]]
    layer.features = table
    follow(tools, qtbot)
    assert layer.features.set_index("index")["mine"][int(layer.data[0, 6, 6])] == f"of {number}"
    assert list(layer.features.columns) == ["index", "kind", "mine"] and "before" not in tools.note.text()


def test_series_with_channels_or_without_a_voxel_size_are_followed(qtbot):
    viewer, (data, kinds) = ViewerModel(), series()
    layer = viewer.add_labels(data, name="cells")
    tools = followed(viewer, layer, kinds, qtbot, axes="TCYX", channels=2, sized=False)
    follow(tools, qtbot)
    assert viewer.layers["cells: tracks"].data.shape[1] == 4
    assert "voxels." in tools.note.text() and "mm" not in tools.note.text()
    assert tools.plot.getAxis("left").labelText == "area (pixels)"
    assert {row["unit"] for row in tools._rows} == {"voxels"}


def test_the_table_is_of_the_numbers_that_the_layer_has(qtbot):
    viewer, (data, kinds) = ViewerModel(), series()
    layer = viewer.add_labels(data, name="cells")
    table = table_of(viewer, layer, kinds, qtbot)
    follow(table.follow, qtbot)
    number = int(layer.data[0, 6, 6])

    def left():
        return [row["object"] for row in rows(table) if row["y"] == "7.5"]

    qtbot.waitUntil(lambda: table.copy.isEnabled() and left() == [str(number)] * 3)
    assert {row["kind"] for row in rows(table) if row["object"] == str(number)} == {"cell"}


def test_what_is_undone_is_measured_again(qtbot):
    viewer, (data, kinds) = ViewerModel(), series()
    layer = viewer.add_labels(data[0], name="cells")
    table = table_of(viewer, layer, kinds[:1], qtbot, voxel_mm=None)
    table.repair._tool = "out"
    table.repair.click(layer, (28, 35))
    qtbot.waitUntil(lambda: table.copy.isEnabled() and len(rows(table)) == 1)
    assert rows(table)[0]["unit"] == "voxels"
    layer.undo()
    qtbot.waitUntil(lambda: table.copy.isEnabled() and len(rows(table)) == 2)
    assert layer.features["kind"].tolist() == ["", "cell", "nucleus"]


def test_a_part_that_is_split_off_while_objects_are_measured_keeps_its_kind(qtbot):
    viewer, (data, kinds) = ViewerModel(), series()
    layer = viewer.add_labels(data[0], name="cells")
    table = table_of(viewer, layer, kinds[:1], qtbot)
    table._measure()
    table.repair._tool = "cut"
    for place in ((26, 32), (31, 38)):
        table.repair.click(layer, place)
    qtbot.waitUntil(lambda: table.copy.isEnabled() and len(rows(table)) == 3)
    assert sorted(row["kind"] for row in rows(table)) == ["cell", "nucleus", "nucleus"]


@pytest.mark.parametrize("first", [False, True], ids=["not followed", "followed"])
def test_a_part_of_an_object_of_a_series_is_of_its_kind_and_following_again_adds_no_column(qtbot, first):
    viewer, (data, kinds) = ViewerModel(), series()
    layer = viewer.add_labels(data, name="cells")
    table = table_of(viewer, layer, kinds, qtbot)
    if first:
        follow(table.follow, qtbot)
        qtbot.waitUntil(table.copy.isEnabled)
    table.repair._tool = "cut"
    for place in ((0, 26, 32), (0, 31, 38)):
        table.repair.click(layer, place)
    qtbot.waitUntil(lambda: table.copy.isEnabled() and len(rows(table)) == 7)
    at_first = [row["kind"] for row in rows(table) if row["time"] == "0"]
    assert sorted(at_first) == ["cell", "nucleus", "nucleus"]
    for _ in range(2):
        follow(table.follow, qtbot)
        assert list(layer.features.columns) == ["index", "kind"]
        kind = dict(zip(layer.features["index"], layer.features["kind"], strict=True))
        assert sorted(kind[n] for n in np.unique(layer.data[0]) if n) == ["cell", "nucleus", "nucleus"]


def test_a_kind_that_somebody_corrects_in_the_table_is_followed(qtbot):
    viewer, (data, kinds) = ViewerModel(), series()
    layer = viewer.add_labels(data, name="cells")
    tools = followed(viewer, layer, kinds, qtbot)
    follow(tools, qtbot)
    table = layer.features.copy()
    table.loc[table["index"] == layer.data[0, 6, 6], "kind"] = "debris"
    layer.features = table
    follow(tools, qtbot)
    assert layer.features.set_index("index")["kind"][int(layer.data[0, 6, 6])] == "debris"
    assert list(layer.features.columns) == ["index", "kind"]


@pytest.mark.parametrize("named", [True, False])
def test_corrections_are_of_one_time_point_until_the_objects_are_followed(qtbot, named):
    viewer, (data, kinds) = ViewerModel(), series()
    layer = viewer.add_labels(data.copy(), name="cells", axis_labels=("t", "y", "x") if named else None)
    tools = RepairTools(viewer, lambda: layer) if named else table_of(viewer, layer, kinds, qtbot).repair
    qtbot.addWidget(tools)
    tools._tool = "out"
    tools.click(layer, (0, 6, 6))
    assert tools.note.text().startswith("Deleted object 1 at this time point.")
    changed = data.copy()
    changed[(0, *LEFT)] = 0
    np.testing.assert_array_equal(layer.data, changed)
    tools._tool, tools._first = "join", None
    tools.click(layer, (0, 28, 35))
    tools.click(layer, (1, 6, 6))
    assert "Both clicks must lie in the same time point" in tools.note.text()
    tools.click(layer, (1, 28, 35))
    tools.click(layer, (1, 6, 6))
    changed[(1, *LEFT)] = 1
    np.testing.assert_array_equal(layer.data, changed)
    tools._tool, tools._first = "cut", None
    tools.click(layer, (2, 26, 32))
    tools.click(layer, (2, 31, 38))
    assert (np.asarray(layer.data)[:2] == changed[:2]).all() and len(np.unique(layer.data[2])) == 4
