"""Labels on disk are corrected in a region that is painted in, and saved into every level."""

from __future__ import annotations

import threading
from unittest.mock import Mock

import numpy as np
import pytest
from docks import press, wait_until_said
from napari.layers import Labels
from qtpy.QtCore import QEvent
from qtpy.QtGui import QCloseEvent
from qtpy.QtWidgets import QApplication, QMessageBox

from formats_large import ome_zarr
from helpers import make_model, smooth_image
from napari_nnunet import predict_image
from napari_nnunet.errors import SettingsError
from napari_nnunet.events import Stage
from napari_nnunet.formats.large import pyramid
from napari_nnunet.formats.large.corrections import PENDING, finish_correction
from napari_nnunet.widgets.files.label_image_layer import RESULT
from napari_nnunet.widgets.files.unsaved import CloseGuard
from napari_nnunet.widgets.frame.layers import activate
from napari_nnunet.widgets.large import correct

zarr = pytest.importorskip("zarr", reason="zarr is not installed: it comes with napari-nnunet[large]")
pytest.importorskip("yaozarrs", reason="yaozarrs is not installed: it comes with napari-nnunet[large]")
SHAPE = (40, 40, 36)
HOW = {"mirroring": False, "chunk": (8, 16, 16), "device": "cpu", "spacing": (1.2, 1.0, 1.0)}


@pytest.fixture
def result(tmp_path, monkeypatch):
    monkeypatch.setattr(pyramid, "_COARSEST", 10)
    predict_image(make_model(tmp_path), smooth_image(SHAPE)[0], tmp_path / "labels.zarr", **HOW)
    return tmp_path / "labels.zarr"


@pytest.fixture
def opened(viewer, dock, result):
    """The dock's row, and the layer of a result that was opened from its folder."""
    viewer.open(str(result), plugin="napari-nnunet")
    viewer.dims.set_point(0, 20 * 1.2)
    return dock.correct, viewer.layers[-1]


def region_of(viewer, qtbot, row):
    row.open.click()
    qtbot.waitUntil(lambda: not row.busy and any("corrections" in layer.name for layer in viewer.layers))
    return next(layer for layer in viewer.layers if "corrections" in layer.name)


def levels_of(path):
    group = zarr.open_group(str(path), mode="r")
    return [group[key][:] for key in sorted(group.array_keys())]


def test_what_is_painted_in_the_region_in_view_goes_into_every_level(viewer, opened, qtbot, result):
    row, layer = opened
    region = region_of(viewer, qtbot, row)
    assert region.data.shape == (33, 40, 36) and region.editable and not region.multiscale
    np.testing.assert_allclose(region.data_to_world((0, 0, 0)), layer.data_to_world((4, 0, 0)))
    assert list(region.features["name"]) == ["background", "organ", "lesion"]
    before = levels_of(result)[0]
    region.data[10:15, 3:20, 5:31] = 2
    row.save.click()
    qtbot.waitUntil(lambda: "Corrected" in row.said.text())
    expected = before.copy()
    expected[14:19, 3:20, 5:31] = 2
    levels = levels_of(result)
    for level in levels:
        steps = tuple(round(a / b) for a, b in zip(SHAPE, level.shape, strict=True))
        assert np.array_equal(level, expected[tuple(slice(None, None, step) for step in steps)])
    assert f"{int((before != expected).sum())} voxels in {result}" in row.said.text().replace("\u200b", "")
    assert not region.locked
    row.save.click()
    qtbot.waitUntil(lambda: "Nothing was changed" in row.said.text())


def test_a_value_that_is_no_class_is_not_saved(viewer, opened, qtbot, result):
    row, _ = opened
    region, before = region_of(viewer, qtbot, row), levels_of(result)[0]
    region.data[0, 0, 0] = 9
    row.save.click()
    assert "holds the value 9, which is not a class here (1 = organ, 2 = lesion). Repaint it" in row.said.text()
    assert np.array_equal(levels_of(result)[0], before)


def test_more_than_can_be_painted_in_is_refused_with_what_to_do(viewer, opened, monkeypatch):
    row, _ = opened
    monkeypatch.setattr("napari_nnunet.widgets.large.correct.MOST_VOXELS", 1000)
    row.open.click()
    assert "more than can be painted in at once (1,000). Zoom in" in row.said.text()


def test_a_corrected_result_is_never_overwritten_without_a_word(viewer, opened, dock, qtbot, result, tmp_path):
    row, _ = opened
    region = region_of(viewer, qtbot, row)
    region.data[0] = 1
    row.save.click()
    qtbot.waitUntil(lambda: "Corrected" in row.said.text())
    for more in ({}, {"carry_on": True, "step": 1.0}):
        with pytest.raises(SettingsError, match=r"voxels of it were corrected by hand\."):
            predict_image(make_model(tmp_path), smooth_image(SHAPE)[0], result, **HOW, **more)
    dock.add_model(make_model(tmp_path).folder)
    viewer.add_image(smooth_image(SHAPE)[0], units=["mm"] * 3, scale=(1.2, 1, 1), name="image")
    dock.form.image.output_box.value = "Labels on disk"
    dock.form.image.target.edit.setText(str(result))
    wait_until_said(qtbot, dock, "of it were corrected by hand. To look at it, drop it on napari")


def test_without_labels_on_disk_nothing_is_offered(viewer, dock):
    viewer.add_labels(np.zeros((4, 4, 4), np.uint8))
    assert not dock.correct.isVisibleTo(dock)
    assert isinstance(viewer.layers[0], Labels)


def test_a_result_with_a_correction_that_cannot_be_finished_opens_and_says_so(viewer, result, monkeypatch):
    said = []
    monkeypatch.setattr("napari_nnunet.widgets.files.label_image_layer.show_warning", said.append)
    (result / PENDING).write_bytes(b"{}\n")
    (layer,) = viewer.open(str(result), plugin="napari-nnunet")
    assert layer.metadata[RESULT] == str(result)
    assert "A correction of labels.zarr is not saved to the end. " in said[0] and "is damaged" in said[0]


def test_a_result_of_one_level_is_corrected_and_cannot_be_painted_in_itself(viewer, dock, qtbot, tmp_path):
    result = tmp_path / "small.zarr"
    predict_image(make_model(tmp_path), smooth_image(SHAPE)[0], result, **HOW)
    (layer,) = viewer.open(str(result), plugin="napari-nnunet")
    assert not layer.multiscale and not layer.editable and dock.correct.isVisibleTo(dock)
    viewer.dims.set_point(0, 20 * 1.2)
    region, before = region_of(viewer, qtbot, dock.correct), levels_of(result)
    assert len(before) == 1 and region.editable
    region.data[10:15, 3:20, 5:31] = 2
    dock.correct.save.click()
    qtbot.waitUntil(lambda: "Corrected" in dock.correct.said.text())
    before[0][14:19, 3:20, 5:31] = 2
    assert np.array_equal(levels_of(result)[0], before[0])


def test_a_mask_of_another_program_opens_as_labels(viewer, tmp_path):
    path = ome_zarr(tmp_path / "mask.zarr", [np.eye(16, dtype=bool)[None].repeat(4, 0)])
    group = zarr.open_group(str(path), mode="r+")
    group.attrs["ome"] = {**group.attrs["ome"], "image-label": {"version": "0.5"}}
    (layer,) = viewer.open(str(path), plugin="napari-nnunet")
    assert isinstance(layer, Labels) and np.asarray(layer.data).sum() == 64 and not layer.editable


@pytest.fixture
def asked(monkeypatch):
    """What a closing window asks; the answer is the first that was put into the list."""
    questions, answers = [], []

    def question(_, title, text, buttons, default):
        questions.append(text)
        assert default == QMessageBox.StandardButton.Cancel
        return answers.pop(0)

    monkeypatch.setattr(QMessageBox, "question", question)
    return questions, answers


def test_a_window_with_corrections_that_are_not_saved_asks_before_it_closes(viewer, opened, qtbot, result, asked):
    row, _ = opened
    questions, answers = asked
    region = region_of(viewer, qtbot, row)
    guard = row.window().findChild(CloseGuard)
    assert guard.may_close() and not questions  # nothing was painted yet
    region.paint((10, 5, 6), 2)
    assert region.locked  # so that the key that deletes layers leaves it
    answers.append(QMessageBox.StandardButton.Cancel)
    event = QCloseEvent()
    QApplication.sendEvent(row.window(), event)
    assert not event.isAccepted() and row.window().isVisible() and region in viewer.layers
    assert questions == [f"'{region.name}' was corrected and is not saved. Save before napari closes?"]
    before = levels_of(result)[0]
    answers.append(QMessageBox.StandardButton.Discard)
    assert guard.may_close() and np.array_equal(levels_of(result)[0], before)
    answers.append(QMessageBox.StandardButton.Save)
    assert guard.may_close() and not answers
    assert np.array_equal(levels_of(result)[0][4:37], region.data) and not np.array_equal(region.data, before[4:37])
    assert guard.may_close() and len(questions) == 3  # it is saved now


def test_a_window_stays_open_where_its_corrections_cannot_be_saved(viewer, opened, qtbot, result, asked, monkeypatch):
    row, _ = opened
    warned = []
    monkeypatch.setattr(QMessageBox, "warning", lambda _, title, text: warned.append(text))
    region, before = region_of(viewer, qtbot, row), levels_of(result)[0]
    region.data[0, 0, 0] = 9
    asked[1].append(QMessageBox.StandardButton.Save)
    assert not row.window().findChild(CloseGuard).may_close()
    assert "holds the value 9, which is not a class here" in warned[0] and region.name in warned[0]
    assert np.array_equal(levels_of(result)[0], before)


@pytest.fixture
def own(viewer, dock, qtbot, tmp_path, monkeypatch):
    """A region of a result that the dock made, and what its table should say."""
    monkeypatch.setattr(pyramid, "_COARSEST", 10)
    dock.add_model(make_model(tmp_path).folder)
    viewer.add_image(smooth_image(SHAPE)[0], units=["mm"] * 3, scale=(1.2, 1, 1), name="image")
    dock.form.image.output_box.value = "Labels on disk"
    dock.form.image.target.edit.setText(str(tmp_path / "own.zarr"))
    wait_until_said(qtbot, dock, "GB of memory")
    press(qtbot, dock)
    assert "Corrected by hand" not in dock.result.many.note.text()
    viewer.dims.set_point(0, 20 * 1.2)

    def in_step():
        labels = levels_of(tmp_path / "own.zarr")[0]
        (line,) = dock.result.many.lines
        assert line.found[1].mm3 == pytest.approx(1.2 * line.found[1].voxels)
        return [found.voxels for found in line.found] == [int((labels == value).sum()) for value in (1, 2)]

    return region_of(viewer, qtbot, dock.correct), in_step


def test_the_table_of_a_result_follows_its_corrections(dock, own, qtbot):
    region, in_step = own
    region.data[5:25, 3:30, 5:31] = 2
    dock.correct.save.click()
    qtbot.waitUntil(lambda: "The table has the volumes as they are now" in dock.correct.said.text())
    assert in_step() and "Corrected by hand" in dock.result.many.note.text()


def test_the_table_follows_what_is_saved_as_the_window_closes(dock, own, asked):
    region, in_step = own
    region.paint((10, 5, 6), 2)
    region.data[5:25, 3:30, 5:31] = 2
    asked[1].append(QMessageBox.StandardButton.Save)
    assert dock.correct.window().findChild(CloseGuard).may_close()  # and napari's own question keeps it open
    assert in_step() and not region.locked
    assert "Corrected by hand" in dock.result.many.note.text() and "Corrected" in dock.correct.said.text()


@pytest.mark.parametrize("how", ["saved again", "opened again", "finished elsewhere"])
def test_the_table_follows_a_correction_that_was_kept_and_finished_later(viewer, dock, own, qtbot, monkeypatch, how):
    region, in_step = own
    row, path = dock.correct, dock._counted[0].target
    region.data[5:25, 3:30, 5:31] = 2
    with monkeypatch.context() as patch:
        patch.setattr("napari_nnunet.formats.large.corrections._write_finest", Mock(side_effect=OSError(28, "full")))
        row.save.click()
        qtbot.waitUntil(lambda: "The correction is kept" in row.said.text())
    assert region.locked and (path / PENDING).exists()
    if how == "saved again":
        row.save.click()
        qtbot.waitUntil(lambda: "The table has the volumes as they are now" in row.said.text())
    elif how == "opened again":
        activate(viewer, next(layer for layer in viewer.layers if RESULT in layer.metadata))
        row.open.click()
        qtbot.waitUntil(lambda: not row.busy)
    else:
        assert finish_correction(path)
        viewer.open(str(path), plugin="napari-nnunet")
    assert in_step() and "Corrected by hand" in dock.result.many.note.text()


def test_a_table_that_cannot_follow_a_correction_says_so(dock, own, qtbot, monkeypatch):
    region, _ = own
    monkeypatch.setattr("napari_nnunet.widgets.prediction.segment_dock.gained_by_hand", lambda _: None)
    region.data[5:25, 3:30, 5:31] = 2
    dock.correct.save.click()
    qtbot.waitUntil(lambda: "Corrected" in dock.correct.said.text())
    assert "The table has" not in dock.correct.said.text()
    assert "may have been corrected by hand since; the volumes are those before" in dock.result.many.note.text()


def test_a_window_that_closes_while_corrections_are_saved_says_that(viewer, opened, qtbot, asked, monkeypatch):
    row, _ = opened
    warned, gate = [], threading.Event()
    monkeypatch.setattr(QMessageBox, "warning", lambda _, title, text: warned.append(text))
    region = region_of(viewer, qtbot, row)
    region.data[10:15, 3:20, 5:31] = 2
    whole = correct.save_region

    def held(*args):
        yield Stage(name="waiting")
        assert gate.wait(60)
        return (yield from whole(*args))

    monkeypatch.setattr(correct, "save_region", held)
    row.save.click()
    asked[1].append(QMessageBox.StandardButton.Save)
    guard = row.window().findChild(CloseGuard)
    assert not guard.may_close()
    assert "are being saved now. Close the window when that is done." in warned[0]
    gate.set()
    qtbot.waitUntil(lambda: "Corrected" in row.said.text())
    assert guard.may_close() and len(warned) == 1


def test_quitting_in_another_window_asks_about_this_one_and_a_cancel_is_forgotten(
    viewer, opened, qtbot, asked, make_napari_viewer
):
    row, _ = opened
    questions, answers = asked
    region = region_of(viewer, qtbot, row)
    region.data[10:15, 3:20, 5:31] = 2
    other = make_napari_viewer(show=True)
    QApplication.sendEvent(row.window(), QEvent(QEvent.Type.WindowDeactivate))  # as when somebody turns to the other
    for window in (other.window._qt_window, row.window()):
        answers.append(QMessageBox.StandardButton.Cancel)
        assert not window.close(quit_app=True, confirm_need=False)
        assert region in viewer.layers and other.window._qt_window.isVisible() and row.window().isVisible()
        assert questions.pop().startswith(f"'{region.name}' was corrected and is not saved.")
        assert window._quit_app is False  # else closing one window would quit later
    assert other.window._qt_window.findChild(CloseGuard).may_close() and not questions


def test_a_region_that_is_unsaved_again_by_undo_is_locked_again(viewer, opened, qtbot, result):
    row, _ = opened
    region = region_of(viewer, qtbot, row)
    region.paint((10, 5, 6), 2)
    row.save.click()
    qtbot.waitUntil(lambda: "Corrected" in row.said.text())
    assert not region.locked
    region.undo()
    assert region.locked
    row.save.click()
    qtbot.waitUntil(lambda: not row.busy)
    assert not region.locked and np.array_equal(levels_of(result)[0][4:37], region.data)
    region.redo()
    assert region.locked


def test_of_two_regions_the_one_that_could_be_saved_is_in_the_table(viewer, dock, own, qtbot, asked, monkeypatch):
    region, in_step = own
    warned = []
    monkeypatch.setattr(QMessageBox, "warning", lambda _, title, text: warned.append(text))
    activate(viewer, next(layer for layer in viewer.layers if RESULT in layer.metadata))
    dock.correct.open.click()
    qtbot.waitUntil(lambda: not dock.correct.busy)
    (second,) = [layer for layer in viewer.layers if "corrections" in layer.name and layer is not region]
    region.data[5:25, 3:30, 5:31] = 2
    second.data[0, 0, 0] = 9
    asked[1].append(QMessageBox.StandardButton.Save)
    assert not dock.correct.window().findChild(CloseGuard).may_close()
    assert len(warned) == 1 and "holds the value 9" in warned[0] and in_step()
