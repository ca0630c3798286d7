"""Compared layers and cases mean what they say: names of classes, kinds, what nobody annotated; tables are whole."""

from __future__ import annotations

import csv
import io
import json

import numpy as np
import pytest
from docks import wait_until_idle
from napari.components import ViewerModel

from choices import boxes, write_objects_folder
from napari_nnunet.events import drain
from napari_nnunet.jobs.choosing.compare_objects import compare_object_folders
from napari_nnunet.widgets.choosing.compare_dock import CompareWidget

pytestmark = pytest.mark.filterwarnings("ignore:Conversion from CIE-LAB")  # of napari's colours for labels

OBJECTS = {"kinds": {"nucleus": [1, 2], "debris": [3, 4]}, "width": 1.0, "unit": 0.5, "ignore": 255}
TOLD = {
    "channel_names": {"0": "grey"},
    "labels": {"background": 0, "nucleus core": 1, "nucleus border": 2, "debris core": 3, "debris border": 4},
    "numTraining": 1,
    "file_ending": ".nii.gz",
    "napari_nnunet_objects": {**OBJECTS, "values": {1: "nucleus", 2: "debris"}},
}


@pytest.fixture
def dock(qtbot, home):
    dock = CompareWidget(ViewerModel())
    qtbot.addWidget(dock)
    yield dock
    wait_until_idle(qtbot, dock)
    dock.close_down()


def compared(dock, qtbot, *layers):
    """Compare two layers; returns the table as CSV."""
    for name, values, names in layers:
        features = {"index": list(range(len(names) + 1)), "name": ["background", *names]} if names else None
        dock.viewer.add_labels(values, name=name, features=features)
    dock.form.first_box.value, dock.form.second_box.value = dock.viewer.layers[:2]
    dock.check()
    dock.run()
    wait_until_idle(qtbot, dock)
    return list(csv.reader(io.StringIO(dock.csv())))


def maps():
    one = np.zeros((12, 12), np.uint8)
    one[2:6, 2:6], one[7:9, 7:9] = 1, 2
    return one, one.copy()


def test_values_that_two_layers_call_differently_are_compared_with_a_warning(dock, qtbot):
    one, other = maps()
    rows = compared(dock, qtbot, ("A", one, ["liver", "spleen"]), ("B", other, ["spleen", "liver"]))
    said = "'A' says liver = 1, spleen = 2, 'B' says spleen = 1, liver = 2: the values do not mean the same classes"
    assert said in dock.title.text() and "identical" not in dock.title.text()
    assert [row[0] for row in rows[1:]] == ["liver / spleen", "spleen / liver"]
    qtbot.waitUntil(lambda: said in dock.summary.text())
    second = dock.viewer.layers["B"]
    second.features = {"index": [0, 1, 2], "name": ["background", "Liver", "spleen"]}
    qtbot.waitUntil(lambda: "Will compare" in dock.summary.text() and said not in dock.summary.text())
    second.features = {"index": [0, 3], "name": ["background", "liver"]}
    qtbot.waitUntil(lambda: "'A' says liver = 1, 'B' says liver = 3" in dock.summary.text())


def test_layers_of_which_one_has_no_names_are_compared_without_a_warning(dock, qtbot):
    one, other = maps()
    rows = compared(dock, qtbot, ("A", one, []), ("B", other, ['cell, "dark"', "=wall"]))
    assert dock.title.text() == "Both are identical."
    assert rows[1:] == [['cell, "dark"', "1.0000", "16", "16"], ["'=wall", "1.0000", "4", "4"]]


def test_the_table_of_objects_has_all_numbers_of_a_merged_one(dock, qtbot):
    first, second = np.zeros((8, 40), np.uint16), np.zeros((8, 40), np.uint16)
    for n in range(5):
        first[2:6, 2 + 6 * n : 8 + 6 * n] = n + 1
    second[2:6, 2:32] = 1
    dock.form.objects_box.value = True
    compared(dock, qtbot, ("A", first, []), ("B", second, []))
    assert dock.objects.table.texts()[1][:2] == ["merged", "1 + 2 + 3 + …"]
    assert "merged,1 + 2 + 3 + 4 + 5,1,0.00" in dock.objects._csv.splitlines()


def opened(dock, qtbot, tmp_path, prediction_kinds, reference_kinds):
    reference = write_objects_folder(tmp_path / "objectsTr", a=boxes(1, 2, 0))
    write_objects_folder(tmp_path / "kindsTr", a=reference_kinds)
    prediction = write_objects_folder(tmp_path / "p", a=boxes(5, 6, 7))
    write_objects_folder(prediction / "kinds", a=prediction_kinds)
    for folder in (tmp_path, prediction):
        (folder / "dataset.json").write_text(json.dumps(TOLD))
    dock.objects._show_cases(*drain(compare_object_folders(reference, prediction)))
    (row,) = dock.objects.table.texts()[1:]
    dock.objects._open_case(0)
    wait_until_idle(qtbot, dock)
    return dict(zip(["Case", "AP@0.5", "PQ", "found", "missed", "invented", "split", "merged"], row, strict=True))


def test_an_opened_case_agrees_with_its_line_in_kinds_and_in_what_nobody_annotated(dock, qtbot, tmp_path):
    annotated = boxes(1, 2, 0)
    annotated[:, :, 12:] = 255  # there, nobody looked
    row = opened(dock, qtbot, tmp_path, boxes(1, 1, 1), annotated)
    assert [row[fate] for fate in ("found", "missed", "invented")] == ["1", "1", "1"]
    for fate in ("found", "missed", "invented", "split", "merged"):
        assert f"{row[fate]} {fate}" in dock.objects.legend.text()
    first, second, verdicts = dock.viewer.layers
    assert list(first.features["kind"]) == ["nucleus", "debris"]
    assert list(second.features["kind"]) == ["nucleus"] * 3
    assert not verdicts.data[..., 12:].any()
