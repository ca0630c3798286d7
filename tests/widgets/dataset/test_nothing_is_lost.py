"""What a person painted is seen, saved and reopened as it was; what was replaced or removed comes back."""

from __future__ import annotations

from unittest.mock import Mock

import numpy as np
import pytest
from casework import layers, listed, press, settled, show
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QMessageBox

from helpers import dataset_json, make_dataset
from napari_nnunet.errors import SettingsError
from napari_nnunet.events import Stage
from napari_nnunet.formats.dataset.raw_dataset import read_info, survey
from napari_nnunet.formats.dataset.raw_writer import drop_case
from napari_nnunet.formats.images.files import read_labels, write_labels
from napari_nnunet.widgets.dataset import dataset_dialog
from napari_nnunet.widgets.files.unsaved import CloseGuard
from napari_nnunet.widgets.frame.layers import SPARSE
from napari_nnunet.widgets.frame.panel import RunState


@pytest.fixture
def asked(monkeypatch):
    """What was asked; the answer is yes."""
    monkeypatch.setattr(QMessageBox, "question", asked := Mock(return_value=QMessageBox.StandardButton.Yes))
    return asked


@pytest.fixture
def raw(cases, home, qtbot):
    raw = make_dataset(home, cases=3)
    show(cases, raw)
    listed(cases, qtbot, 3)
    return raw


def label_of(raw, name="c1"):
    return read_labels(raw / "labelsTr" / f"{name}.nii.gz")


def write(raw, labels, name="c1"):
    write_labels(labels, label_of(raw, name)[1], raw / "labelsTr" / f"{name}.nii.gz")


def open_case(viewer, cases, qtbot, name="c1"):
    before = len(viewer.layers)
    cases.open_case(name)
    qtbot.waitUntil(lambda: len(viewer.layers) == before + 2)
    settled(cases, qtbot)
    return viewer.layers[-1]


def click(qtbot, widget):
    assert widget.isVisible() and widget.isEnabled()
    qtbot.mouseClick(widget, Qt.MouseButton.LeftButton)


def names(cases):
    table = cases.form.table
    return {int(table.item(r, 0).text()): table.item(r, 2).text() for r in range(table.rowCount())}


def test_a_removed_case_is_brought_back_from_the_dock(cases, raw, qtbot, asked):
    before = (raw / "labelsTr" / "c1.nii.gz").read_bytes()
    assert not cases.trash.isVisible()
    cases.drop_case("c1")
    listed(cases, qtbot, 2)
    assert cases.trash.text() == "Trash (1)…"
    click(qtbot, cases.trash)
    dialog = cases.trash.dialog
    assert dialog.table.texts()[1][0] == "c1: images and labels"
    click(qtbot, dialog.back)
    listed(cases, qtbot, 3)
    assert (raw / "labelsTr" / "c1.nii.gz").read_bytes() == before
    assert "Brought back: c1" in dialog.text.text() and not dialog.back.isEnabled()
    click(qtbot, dialog.close_button)
    assert not cases.trash.isVisible()


def test_labels_that_may_not_fit_are_asked_about_before_they_come_back(cases, raw, qtbot, asked):
    drop_case(raw, "c1")
    dataset_json(raw, labels={"background": 0, "other": 1})
    cases.state.written.emit()
    click(qtbot, cases.trash)
    asked.return_value = QMessageBox.StandardButton.No
    click(qtbot, cases.trash.dialog.back)
    assert "The class 'a' had the value 1 then." in asked.call_args.args[2]
    assert not (raw / "labelsTr" / "c1.nii.gz").is_file()
    cases.trash.dialog.accept()


def test_a_picture_of_a_case_follows_labels_that_come_back(cases, raw, qtbot, asked):
    picture = raw / ".thumbnails" / "c1.png"
    before = picture.read_bytes()
    labels, _ = label_of(raw)
    write(raw, np.zeros_like(labels))
    old = label_of(raw)
    cases.state.written.emit()
    qtbot.waitUntil(lambda: picture.read_bytes() != before)
    assert old[0].max() == 0
    listed(cases, qtbot, 3)
    from napari_nnunet.jobs.dataset.cases import correct_reference

    list(correct_reference(raw, "c1", labels))
    cases.state.written.emit()
    qtbot.waitUntil(lambda: picture.read_bytes() == before)
    listed(cases, qtbot, 3)
    click(qtbot, cases.trash)
    click(qtbot, cases.trash.dialog.back)
    qtbot.waitUntil(lambda: picture.read_bytes() != before)
    listed(cases, qtbot, 3)
    cases.trash.dialog.accept()


def test_a_sparse_case_reopens_as_it_was_painted_and_is_saved_as_it_was(viewer, cases, raw, qtbot, asked):
    labels = np.full(label_of(raw)[0].shape, 2)
    labels[3:5, 4:8, 4:8], labels[9:11, 4:8, 4:8] = 1, 0
    dataset_json(raw, labels={"background": 0, "a": 1, "ignore": 2})
    write(raw, labels)
    cases.state.written.emit()
    layer = open_case(viewer, cases, qtbot)
    assert cases.form.sparse_box.value is True
    assert names(cases) == {0: "ignore", 1: "a", 2: "background"}
    assert (layer.data == 0).sum() == (labels == 2).sum()
    np.testing.assert_array_equal(np.asarray(layer.colormap.map(np.array([0]))[0])[3], 0)
    layer.data[4, 5, 5] = 0  # the eraser
    layer.data = layer.data
    press(cases, qtbot)
    labels[4, 5, 5] = 2
    np.testing.assert_array_equal(label_of(raw)[0], labels)


def test_a_case_with_a_few_ignored_voxels_reopens_as_it_is(viewer, cases, raw, qtbot):
    labels, _ = label_of(raw)
    labels = labels.copy()
    labels[0, :3, :3] = 2
    dataset_json(raw, labels={"background": 0, "a": 1, "ignore": 2})
    write(raw, labels)
    cases.state.written.emit()
    layer = open_case(viewer, cases, qtbot)
    assert cases.form.sparse_box.value is False
    np.testing.assert_array_equal(layer.data, labels)
    assert names(cases) == {0: "background", 1: "a", 2: "ignore"}


def test_a_new_layer_of_a_sparse_dataset_is_sparse_until_somebody_says_otherwise(viewer, cases, raw, qtbot):
    dataset_json(raw, labels={"background": 0, "a": 1, "ignore": 2})
    cases.state.written.emit()
    _, painted = layers(viewer, values=(1, 1))
    assert "some background must be painted too" in settled(cases, qtbot)
    cases.form.sparse_box.value = False
    assert "Will add" in settled(cases, qtbot)
    assert painted.metadata[SPARSE] is False


def test_labels_that_somebody_else_changed_meanwhile_are_asked_about(viewer, cases, raw, qtbot, asked):
    layer = open_case(viewer, cases, qtbot)
    layer.data[0, 0, :5] = 1
    layer.data = layer.data
    others = np.ones_like(label_of(raw)[0])
    write(raw, others)
    cases.check()
    assert "<b>Will replace</b> 'c1'" in settled(cases, qtbot)
    asked.return_value = QMessageBox.StandardButton.No
    press(cases, qtbot)
    assert "were changed elsewhere since they were opened" in asked.call_args.args[2]
    np.testing.assert_array_equal(label_of(raw)[0], others)
    asked.return_value = QMessageBox.StandardButton.Yes
    press(cases, qtbot)
    np.testing.assert_array_equal(label_of(raw)[0], layer.data)
    asked.reset_mock()
    press(cases, qtbot)  # now it is the case that was saved here
    asked.assert_not_called()


def test_another_value_for_the_only_class_is_that_class(viewer, cases, raw, qtbot):
    layers(viewer, values=(255, 255))
    settled(cases, qtbot)
    assert names(cases) == {0: "background", 255: "a"}
    assert "255 → 1 a" in settled(cases, qtbot)


def dialog_of(cases, monkeypatch):
    made = []
    real = cases.dataset_dialog
    monkeypatch.setattr(cases, "dataset_dialog", lambda: made.append(real()) or made[-1])
    return made


def test_classes_are_renamed_joined_and_removed_in_the_dock(cases, raw, qtbot, monkeypatch, asked):
    labels, _ = label_of(raw)
    split = labels.copy()
    split[:5][split[:5] == 1] = 2
    write(raw, split)
    dataset_json(raw, labels={"background": 0, "a": 1, "b": 2})
    cases.state.written.emit()
    made = dialog_of(cases, monkeypatch)
    click(qtbot, cases.form.edit)
    dialog = made[-1]
    assert not dialog.panel.button.isEnabled()
    dialog.table.item(1, 1).setText("a")
    assert "2 classes become 'a'." in dialog.about.text()
    click(qtbot, dialog.panel.button)
    qtbot.waitUntil(lambda: not dialog.isVisible())
    assert read_info(raw).labels.labels == {"background": 0, "a": 1}
    np.testing.assert_array_equal(label_of(raw)[0], labels)
    assert cases.trash.text() == "Trash (1)…"
    click(qtbot, cases.trash)
    assert cases.trash.dialog.table.texts()[1][0] == "Labels of all cases"
    click(qtbot, cases.trash.dialog.back)
    np.testing.assert_array_equal(label_of(raw)[0], split)
    listed(cases, qtbot, 3)
    cases.trash.dialog.accept()


def test_a_dataset_is_renamed_removed_and_brought_back_in_the_dock(cases, raw, home, qtbot, monkeypatch, asked):
    made = dialog_of(cases, monkeypatch)
    click(qtbot, cases.form.edit)
    made[-1].name_edit.setText("Nuclei")
    click(qtbot, made[-1].panel.button)
    qtbot.waitUntil(lambda: cases.state.choice.dataset == "Dataset005_Nuclei")
    listed(cases, qtbot, 3)
    assert not raw.exists()
    click(qtbot, cases.form.edit)
    click(qtbot, made[-1].remove)
    qtbot.waitUntil(lambda: cases.form.head.raw is None)
    assert "Dataset005_Nuclei" in asked.call_args.args[2]
    click(qtbot, cases.trash)
    assert cases.trash.dialog.table.texts()[1][0] == "Dataset Dataset005_Nuclei"
    click(qtbot, cases.trash.dialog.back)
    cases.trash.dialog.accept()
    cases.state.choose(dataset="Dataset005_Nuclei")
    listed(cases, qtbot, 3)
    assert len(survey(raw.with_name("Dataset005_Nuclei"))[0].cases) == 3
    assert made[-1].panel.state is RunState.IDLE


def edited(cases, qtbot, monkeypatch, names, new=None):
    """Give classes, and the dataset, other names by the real dialog."""
    dialog = dialog_of(cases, monkeypatch)
    click(qtbot, cases.form.edit)
    for row in range(dialog[0].table.rowCount()):
        item = dialog[0].table.item(row, 1)
        item.setText(names.get(item.text(), item.text()))
    dialog[0].name_edit.setText(new or dialog[0].name_edit.text())
    click(qtbot, dialog[0].panel.button)
    qtbot.waitUntil(lambda: dialog[0].panel.state is RunState.IDLE)
    return dialog[0]


def test_an_open_case_follows_classes_that_exchange_their_names(viewer, cases, raw, qtbot, monkeypatch, asked):
    """Its labels were saved with the classes reversed, unasked."""
    dataset_json(raw, labels={"background": 0, "a": 1, "b": 2})
    cases.state.written.emit()
    before, _ = label_of(raw)
    open_case(viewer, cases, qtbot)
    edited(cases, qtbot, monkeypatch, {"a": "b", "b": "a"})
    qtbot.waitUntil(lambda: names(cases) == {0: "background", 1: "b"})
    assert "Labels: 1 b" in settled(cases, qtbot)
    press(cases, qtbot)
    assert not asked.called
    np.testing.assert_array_equal(label_of(raw)[0], before)


def test_an_open_case_whose_classes_another_program_exchanged_is_asked_about(viewer, cases, raw, qtbot, asked):
    dataset_json(raw, labels={"background": 0, "a": 1, "b": 2})
    cases.state.written.emit()
    open_case(viewer, cases, qtbot)
    dataset_json(raw, labels={"background": 0, "c": 3, "b": 2, "a": 1})
    cases.state.written.emit()
    assert "<b>Will save changes to</b> 'c1'" in settled(cases, qtbot)
    dataset_json(raw, labels={"background": 0, "b": 1, "a": 2})
    cases.state.written.emit()
    assert "<b>Will replace</b> 'c1'" in settled(cases, qtbot)
    asked.return_value = QMessageBox.StandardButton.No
    press(cases, qtbot)
    assert "'c1', or what their values mean, were changed elsewhere since" in asked.call_args.args[2]


def test_an_open_case_is_that_case_when_its_dataset_got_another_name(viewer, cases, raw, qtbot, monkeypatch, asked):
    layer = open_case(viewer, cases, qtbot)
    edited(cases, qtbot, monkeypatch, {"a": "lesion"}, "Fresh")
    qtbot.waitUntil(lambda: cases.state.choice.dataset == "Dataset005_Fresh")
    qtbot.waitUntil(lambda: names(cases) == {0: "background", 1: "lesion"})
    assert "<b>Will save changes to</b> 'c1' in Dataset005_Fresh" in settled(cases, qtbot)
    layer.data[0, 0, :5] = 1
    layer.data = layer.data
    press(cases, qtbot)
    np.testing.assert_array_equal(label_of(raw.with_name("Dataset005_Fresh"))[0], layer.data)
    assert not asked.called


def test_classes_are_not_changed_where_the_new_name_of_the_dataset_is_taken(
    cases, raw, home, qtbot, monkeypatch, asked
):
    """They were, and once more with the next press: names that were exchanged were what they had been."""
    dataset_json(raw, labels={"background": 0, "a": 1, "b": 2})
    cases.state.written.emit()
    (taken := home / "nnUNet_results" / "Dataset005_Taken").mkdir(parents=True)
    dialog = edited(cases, qtbot, monkeypatch, {"a": "b", "b": "a"}, "Taken")
    assert "already exists; choose another name" in dialog.panel.status.text()
    assert read_info(raw).labels.labels == {"background": 0, "a": 1, "b": 2}
    taken.rmdir()
    monkeypatch.setattr(dataset_dialog, "rename_dataset", Mock(side_effect=lambda *_: _refuse()))
    for _ in range(2):
        click(qtbot, dialog.panel.button)
        qtbot.waitUntil(lambda: dialog.panel.state is RunState.IDLE)
        assert "it is trained" in dialog.panel.status.text()
        assert read_info(raw).labels.labels == {"background": 0, "b": 1, "a": 2}
    dialog.reject()


def _refuse():
    yield Stage(name="Renaming")
    raise SettingsError("Dataset005_Test cannot be renamed: it is trained.")


def test_a_window_with_an_opened_case_that_was_corrected_asks_before_it_closes(viewer, cases, home, qtbot, monkeypatch):
    """Only cases that Train opened were asked about."""
    show(cases, make_dataset(home, cases=2))
    listed(cases, qtbot, 2)
    cases.cases.list.itemDoubleClicked.emit(cases.cases.list.item(0))
    qtbot.waitUntil(lambda: "c0 labels" in viewer.layers)
    guard = viewer.window._qt_window.findChild(CloseGuard)
    monkeypatch.setattr(QMessageBox, "question", asked := Mock(return_value=QMessageBox.StandardButton.Cancel))
    assert guard.may_close() and not asked.called
    for value in (1, 0):  # the second time after a correction was saved
        viewer.layers["c0 labels"].data[:3] = value
        assert not guard.may_close()
        said = asked.call_args.args[2]
        assert said.startswith("'c0 labels' was corrected and is not saved.")
        assert "Then press 'Save changes to this case' in Training cases." in said
        press(cases, qtbot)
        asked.reset_mock()
        assert guard.may_close() and not asked.called
        listed(cases, qtbot, 2)
