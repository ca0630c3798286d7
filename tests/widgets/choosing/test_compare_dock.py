"""The Compare dock in a real window."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from docks import PATIENCE, Halting, open_dock, press, wait_until_idle
from napari.utils.notifications import notification_manager

from helpers import smooth_image, write_nifti
from napari_nnunet.widgets.choosing import compare_dock, compare_objects
from napari_nnunet.widgets.frame.worker import on_a_thread


@pytest.fixture
def compare(viewer, qtbot):
    dock = open_dock(viewer, "Compare")
    yield dock
    wait_until_idle(qtbot, dock)


def test_two_layers_are_compared_with_their_differences(viewer, compare, qtbot):
    qtbot.waitUntil(lambda: "Open two Labels layers" in compare.summary.text())
    one = np.zeros((6, 12, 12), dtype=np.uint8)
    one[2:4, 3:9, 3:9] = 1
    two = one.copy()
    two[3, 3:9, 3:9] = 2
    first = viewer.add_labels(one, name="A", features={"index": [0, 1, 2], "name": ["background", "cell", "wall"]})
    assert not compare.panel.button.isEnabled()
    second = viewer.add_labels(two, name="B")
    compare.form.first_box.value, compare.form.second_box.value = first, second
    qtbot.waitUntil(lambda: "Will compare" in compare.summary.text())
    press(qtbot, compare)
    rows = [[compare.table.item(r, c).text() for c in range(4)] for r in range(2)]
    assert rows == [["cell", "0.6667", "72", "36"], ["wall", "0.0000", "0", "36"]]
    layer = viewer.layers["A ≠ B"]
    assert set(np.unique(layer.data)) == {0, 3} and (layer.data == 3).sum() == 36
    assert viewer.dims.current_step[0] == 3  # where they differ most
    assert compare.csv().startswith("Class,Dice")
    compare.form.second_box.value = first
    qtbot.waitUntil(lambda: "two different layers" in compare.summary.text())
    viewer.add_labels(one[:5], name="C")
    compare.form.second_box.value = viewer.layers["C"]
    qtbot.waitUntil(lambda: "do not lie over each other: 6 x 12 x 12 voxels" in compare.summary.text())


def test_two_folders_are_compared_and_a_case_is_opened(viewer, compare, tmp_path, qtbot):
    same, other = smooth_image((4, 10, 10))[0] > 100, smooth_image((4, 10, 10), seed=1)[0] > 100
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        write_nifti(tmp_path / folder / "good.nii.gz", same.astype(np.uint8))
        write_nifti(tmp_path / folder / "bad.nii.gz", (same if folder == "one" else other).astype(np.uint8))
    compare.form.tabs.setCurrentIndex(1)
    compare.form.folders.widgets["first"].value = tmp_path / "one"
    compare.form.folders.widgets["second"].value = tmp_path / "no"
    qtbot.waitUntil(lambda: "does not exist" in compare.summary.text())
    compare.form.folders.widgets["second"].value = tmp_path / "two"
    qtbot.waitUntil(lambda: "Will compare" in compare.summary.text())
    press(qtbot, compare)
    assert compare.table.item(0, 0).text() == "bad"
    assert compare.table.item(1, 1).text() == "1.0000"
    compare._open_case(0)
    compare._open_case(1)  # one after the other
    wait_until_idle(qtbot, compare)
    assert compare.panel.status.text() == "Opened bad."
    assert [layer.name for layer in viewer.layers] == ["bad (first)", "bad (second)", "bad (first) ≠ bad (second)"]
    assert compare.csv().splitlines()[1].startswith("bad,1,")


def test_the_layer_of_differences_is_not_offered(viewer, compare, qtbot):
    for name, value in (("A", 1), ("B", 2)):
        viewer.add_labels(np.full((8, 8), value, np.uint8), name=name)
    qtbot.waitUntil(lambda: "Will compare" in compare.summary.text())
    press(qtbot, compare)
    assert "A ≠ B" in viewer.layers
    viewer.layers.remove("B")
    qtbot.waitUntil(lambda: "Open two Labels layers" in compare.summary.text())
    assert compare.form.second_box.value is None


def test_a_comparison_cancelled_in_any_step_leaves_the_dock_idle_and_runs_again(compare, tmp_path, qtbot, monkeypatch):
    job = Halting(compare_dock.compare_folders)
    monkeypatch.setattr(compare_dock, "compare_folders", job)
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        for case in ("a", "b"):
            write_nifti(tmp_path / folder / f"{case}.nii.gz", np.ones((4, 8, 8), np.uint8))
    compare.form.tabs.setCurrentIndex(1)
    compare.form.folders.widgets["first"].value = tmp_path / "one"
    compare.form.folders.widgets["second"].value = tmp_path / "two"
    compare.check()
    press(qtbot, compare)
    expected, steps = compare.csv(), job.steps
    for step in range(steps):
        compare.result.setVisible(False)
        job.cancel_in(step, compare, qtbot, compare.run)
        finished = step == steps - 1
        assert compare.panel.status.text() == ("" if finished else "Cancelled.")
        assert compare.result.isVisible() is finished
    press(qtbot, compare)
    assert compare.csv() == expected


def two_maps():
    """A reference and a prediction: one found, one missed, two that were merged."""
    reference, prediction = np.zeros((40, 60), np.uint16), np.zeros((40, 60), np.uint16)
    reference[2:12, 2:12] = prediction[2:12, 2:12] = 1
    reference[2:12, 40:50] = 2
    reference[20:30, 2:12], reference[20:30, 12:22] = 3, 4
    prediction[20:30, 2:22] = 2
    return reference, prediction


def test_objects_are_matched_coloured_and_gone_to(viewer, compare, qtbot):
    reference, prediction = two_maps()
    first = viewer.add_labels(reference, name="truth", metadata={"nnunet_kind": "cell"})
    second = viewer.add_labels(prediction, name="found")
    compare.form.first_box.value, compare.form.second_box.value = first, second
    qtbot.waitUntil(lambda: "Will compare" in compare.summary.text())
    assert compare.form.objects_box.value  # the layer says so
    press(qtbot, compare)
    qtbot.waitUntil(lambda: compare.objects.table.rowCount() == 3)
    assert [row[:3] for row in compare.objects.table.texts()[1:]] == [
        ["merged", "3 + 4", "2"],
        ["missed", "2", "–"],
        ["found", "1", "1"],
    ]
    assert compare.objects.title.text().startswith("AP@0.5 0.500, AP@0.75 0.200")
    assert not compare.table.isVisible()
    layer = viewer.layers["truth ≠ found"]
    assert (layer.data[25, 5], layer.data[5, 45], layer.data[5, 5]) == (5, 2, 1)
    compare.objects.table.selectRow(1)
    assert tuple(viewer.scene.camera.center[-2:]) == pytest.approx((6.5, 44.5))
    assert "merged,3 + 4,2" in compare.objects._csv
    legend = compare.objects.legend.text()  # counts as scores do: one of the merged two matches
    assert all(words in legend for words in ("2 found", "2 missed", "0 invented", "among these", "0 split", "1 merged"))
    compare.form.objects_box.value = False
    qtbot.waitUntil(lambda: not compare._later.isActive())
    press(qtbot, compare)
    assert compare.table.isVisible() and not compare.objects.isVisible()


def test_objects_of_different_kinds_are_no_match_in_layers_either(viewer, compare, qtbot):
    reference, prediction = two_maps()
    reference, prediction = (np.where(a < 3, a, 0).astype(a.dtype) for a in (reference, reference))
    kinds = ["", "cell", "debris"], ["", "cell", "cell"]
    for name, data, own in zip(("truth", "found"), (reference, prediction), kinds, strict=True):
        viewer.add_labels(data, name=name, metadata={"nnunet_kind": "cell"}, features={"index": [0, 1, 2], "kind": own})
    compare.form.first_box.value, compare.form.second_box.value = viewer.layers["truth"], viewer.layers["found"]
    qtbot.waitUntil(lambda: "Will compare" in compare.summary.text())
    press(qtbot, compare)
    qtbot.waitUntil(lambda: compare.objects.table.rowCount() == 3)
    assert sorted(row[0] for row in compare.objects.table.texts()[1:]) == ["found", "invented", "missed"]
    viewer.layers["found"].features = {"index": [0, 1], "kind": ["", "cell"]}
    press(qtbot, compare)
    qtbot.waitUntil(lambda: compare.objects.table.rowCount() == 2)
    assert "1 object has no kind (2), so that kinds do not count." in compare.objects.title.text()


def test_folders_of_objects_are_listed_worst_first_and_opened(viewer, compare, tmp_path, qtbot):
    reference, prediction = two_maps()
    for folder, bad in (("one", reference), ("two", prediction)):
        (tmp_path / folder).mkdir()
        write_nifti(tmp_path / folder / "bad.nii.gz", bad[None])
        write_nifti(tmp_path / folder / "good.nii.gz", reference[None])
    compare.form.tabs.setCurrentIndex(1)
    compare.form.objects_box.value = True
    compare.form.folders.widgets["first"].value = tmp_path / "one"
    compare.form.folders.widgets["second"].value = tmp_path / "two"
    qtbot.waitUntil(lambda: "Will compare" in compare.summary.text())
    press(qtbot, compare)
    qtbot.waitUntil(lambda: compare.objects.table.rowCount() == 2)
    assert compare.objects.table.texts()[1] == ["bad", "0.500", "0.500", "2", "2", "0", "0", "1"]
    compare.objects.table.itemDoubleClicked.emit(compare.objects.table.item(0, 0))
    wait_until_idle(qtbot, compare)
    assert [layer.name for layer in viewer.layers] == ["bad (first)", "bad (second)", "bad (first) ≠ bad (second)"]
    for words in ("2 found", "2 missed", "0 invented", "0 split", "1 merged"):  # as in the line of the case
        assert words in compare.objects.legend.text()


@pytest.mark.parametrize("objects", [False, True])
def test_a_case_is_read_on_a_thread_and_can_be_cancelled(viewer, compare, tmp_path, qtbot, monkeypatch, objects):
    module = compare_objects if objects else compare_dock
    reached, go, threads, read = threading.Event(), threading.Event(), [], module.layers_of_files

    def slow(*paths):
        threads.append(threading.get_ident())
        reached.set()
        assert go.wait(PATIENCE)
        return read(*paths)

    for folder, value in (("one", 1), ("two", 2)):
        (tmp_path / folder).mkdir()
        write_nifti(tmp_path / folder / "a.nii.gz", np.full((3, 8, 8), value, np.uint8))
    compare.form.tabs.setCurrentIndex(1)
    compare.form.objects_box.value = objects
    for name, folder in (("first", "one"), ("second", "two")):
        compare.form.folders.widgets[name].value = tmp_path / folder
    qtbot.waitUntil(lambda: "Will compare" in compare.summary.text())
    press(qtbot, compare)
    if not objects:
        assert compare.title.text().startswith("1 case of 'one' and 'two', mean Dice 0.000")
    monkeypatch.setattr(module, "layers_of_files", slow)
    (compare.objects if objects else compare)._open_case(0)
    qtbot.waitUntil(reached.is_set)
    notification_manager.records.clear()
    (compare.objects if objects else compare)._open_case(0)  # once more, while it is read
    assert [record.message for record in notification_manager.records] == [
        "'a' was not opened: the panel is still busy. Wait for it, or press Cancel, and try again."
    ]
    compare.panel.cancel()
    go.set()
    wait_until_idle(qtbot, compare)
    assert threads != [threading.get_ident()] and not viewer.layers
    assert compare.panel.status.text() == "Cancelled."


@pytest.mark.parametrize("objects", [False, True])
def test_what_was_compared_before_is_not_shown_below_what_fails(viewer, compare, qtbot, monkeypatch, objects):
    for name, value in (("A", 1), ("B", 2)):
        viewer.add_labels(np.full((8, 8), value, np.uint8), name=name)
    compare.form.objects_box.value = objects
    qtbot.waitUntil(lambda: "Will compare" in compare.summary.text() and not compare._later.isActive())
    press(qtbot, compare)
    assert compare.result.isVisible()

    def fails(*_, **__):
        raise OSError("the disk is gone")

    monkeypatch.setattr(compare_dock, "compare_arrays", fails)
    monkeypatch.setattr(compare.objects, "job", lambda request: (on_a_thread(fails), None))
    press(qtbot, compare)
    assert "the disk is gone" in compare.panel.status.text() and not compare.result.isVisible()
