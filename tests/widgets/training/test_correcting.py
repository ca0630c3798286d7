"""Labels of a case that are open are saved with the values of the dataset, and nothing else is replaced unasked."""

from __future__ import annotations

import json
from unittest.mock import Mock

import numpy as np
import pytest
from napari.components import ViewerModel
from qtpy.QtWidgets import QMainWindow, QMessageBox, QWidget

from helpers import make_dataset
from napari_nnunet.errors import DatasetError
from napari_nnunet.events import drain
from napari_nnunet.formats.dataset.raw_dataset import read_info
from napari_nnunet.formats.images.files import read_labels
from napari_nnunet.jobs.dataset.cases import NewCase
from napari_nnunet.schema.geometry import Geometry
from napari_nnunet.widgets.dataset.class_table import as_stored, is_sparse, remember_values, set_sparse
from napari_nnunet.widgets.files.origins import case_origin
from napari_nnunet.widgets.files.reader import case_layers
from napari_nnunet.widgets.files.unsaved import CloseGuard
from napari_nnunet.widgets.frame.layers import ORIGIN
from napari_nnunet.widgets.training import correcting
from napari_nnunet.widgets.training.correcting import Correcting
from napari_nnunet.widgets.training.layers import score_layers

SHAPE = (6, 12, 10)
SWAPPED = {0: 0, 1: 2, 2: 1}
SPARSELY = {0: 3, 1: 1, 2: 2, 4: 0}


@pytest.fixture
def raw(tmp_path):
    folder = make_dataset(tmp_path, cases=1, shape=SHAPE)
    path = folder / "dataset.json"
    classes = {"background": 0, "lesion": 1, "organ": 2, "ignore": 3}
    path.write_text(json.dumps({**json.loads(path.read_text()), "labels": classes}))
    return folder


@pytest.fixture
def asked(monkeypatch):
    """What was asked; the answer is no."""
    monkeypatch.setattr(QMessageBox, "question", asked := Mock(return_value=QMessageBox.StandardButton.No))
    return asked


@pytest.fixture
def saving(qtbot, monkeypatch):
    """Saves a layer of a viewer as the reference of its case; returns what failed."""
    monkeypatch.setattr(correcting, "show_info", lambda _: None)
    dock, ended = QWidget(), []
    qtbot.addWidget(dock)

    def save(viewer, layer, *, waits=True):
        ended.clear()
        viewer.layers.selection.active = layer
        Correcting(viewer, dock, ended.append, lambda: ended.append(None)).save()
        if waits:
            qtbot.waitUntil(lambda: bool(ended))
        return list(ended)

    return save


def painted(raw, viewer, mapping):
    """Return labels that were saved as the case c0 with other values than they were painted with."""
    data = np.zeros(SHAPE, np.uint8)
    for value in sorted(set(mapping) - {0}):
        data[value, 2:5, 2:5] = value
    layer = viewer.add_labels(data, name="painted")
    classes = dict(read_info(raw).labels.labels)
    case = NewCase(raw, "c0", [], data, Geometry(spacing=(1.0,) * 3), mapping, classes, ("MR",), ".nii.gz")
    layer.metadata[ORIGIN] = case_origin(raw, "c0", raw / "labelsTr" / "c0.nii.gz")
    remember_values(layer, case)
    return layer


def stored(raw):
    return read_labels(raw / "labelsTr" / "c0.nii.gz")[0]


@pytest.mark.parametrize("mapping", [SWAPPED, SPARSELY, {0: 3, 1: 1, 2: 2, 3: 0}])
def test_painted_values_are_saved_as_those_of_the_dataset(raw, asked, saving, mapping):
    viewer = ViewerModel()
    layer = painted(raw, viewer, mapping)
    layer.data[5, 0, 0] = 1  # a correction
    assert saving(viewer, layer) == [None]
    found = stored(raw)
    for value, becomes in mapping.items():
        assert (found[layer.data == value] == becomes).all()
    assert found[5, 0, 0] == mapping[1]
    assert is_sparse(layer, read_info(raw)) == (mapping[0] == 3)
    assert not asked.called


def test_a_value_that_came_after_others_were_renumbered_is_refused(raw, saving):
    viewer = ViewerModel()
    layer = painted(raw, viewer, {0: 0, 1: 2})
    before = stored(raw)
    layer.data[5, 0, 0] = 2  # lesion, organ, or neither?
    (error,) = saving(viewer, layer)
    assert "'painted' holds 2, to which no class was given when it was saved" in str(error)
    np.testing.assert_array_equal(stored(raw), before)


def test_a_value_that_came_after_none_was_renumbered_is_the_datasets_own(raw):
    layer = painted(raw, ViewerModel(), {0: 0, 1: 1})
    layer.data[5, 0, 0] = 2
    assert as_stored(layer, read_info(raw))[5, 0, 0] == 2


def test_a_layer_of_which_somebody_says_what_0_means_is_saved_as_before(raw):
    layer, info = painted(raw, ViewerModel(), {0: 0, 1: 2}), read_info(raw)
    found = as_stored(layer, info)
    for sparse, zero in ((True, 3), (False, 0)):
        set_sparse(layer, sparse)
        np.testing.assert_array_equal(as_stored(layer, info), np.where(layer.data == 0, zero, found))
    layer.data[0, 0, 0] = 2
    with pytest.raises(DatasetError, match="'painted' holds 2, to which no class was given"):
        as_stored(layer, info)


def test_what_nobody_annotated_is_not_saved_as_background_where_a_dataset_ignores_nothing(raw):
    path = raw / "dataset.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "labels": {"background": 0, "lesion": 1, "organ": 2}}))
    layer = painted(raw, ViewerModel(), {0: 0, 1: 1})
    set_sparse(layer, True)
    with pytest.raises(DatasetError, match=r"Unlabelled voxels of 'painted' are not annotated.* no class 'ignore'"):
        as_stored(layer, read_info(raw))


def test_of_a_case_that_is_open_twice_the_second_is_not_saved_over_the_first_unasked(raw, asked, saving):
    viewer = ViewerModel()
    data, options, _ = case_layers(raw, "c0")[-1]
    first, second = (viewer.add_labels(np.zeros_like(data), **options) for _ in range(2))
    first.data[1], second.data[2] = 1, 2
    assert saving(viewer, first) == [None]
    assert not asked.called
    saving(viewer, second, waits=False)
    assert "were changed elsewhere since they were opened here" in asked.call_args.args[2]
    assert set(np.unique(stored(raw))) == {0, 1}
    assert saving(viewer, first) == [None]  # its own state is what is stored


def test_strokes_are_not_deleted_before_they_are_saved_and_none_go_where_nothing_is_saved(raw, saving):
    viewer = ViewerModel()
    layers = drain(score_layers(raw, "c0", raw / "labelsTr" / "c0.nii.gz"))
    Correcting(viewer, Mock(), Mock(), Mock())._add(layers, None)
    labels = viewer.layers["c0 labels"]
    for layer in (viewer.layers["c0 result"], viewer.layers["c0 differences"]):
        viewer.layers.selection.active = layer
        viewer.dims.ndisplay = 3
        viewer.dims.ndisplay = 2
        layer.mode = "paint"
        assert not layer.editable and layer.mode == "pan_zoom"
    assert not labels.locked
    labels.selected_label = 1
    labels.paint((1, 1, 1), 1)
    labels._commit_staged_history()
    viewer.layers.selection = {labels, viewer.layers["c0 result"]}
    viewer.layers.remove_selected()
    assert labels in viewer.layers and "c0 result" not in viewer.layers
    assert saving(viewer, labels) == [None]
    assert not labels.locked


def test_a_window_with_painted_labels_asks_before_it_closes(raw, asked, qtbot):
    viewer, window = ViewerModel(), QMainWindow()
    qtbot.addWidget(window)
    layers = drain(score_layers(raw, "c0", raw / "labelsTr" / "c0.nii.gz"))
    Correcting(viewer, window, Mock(), Mock())._add(layers, None)
    guard, labels = window.findChild(CloseGuard), viewer.layers["c0 labels"]
    assert guard.may_close() and not asked.called
    labels.selected_label = 1
    labels.paint((1, 1, 1), 1)
    asked.return_value = QMessageBox.StandardButton.Cancel
    assert not window.close()
    assert "'c0 labels' was corrected and is not saved." in asked.call_args.args[2]
    assert "Then select the layer and press 'Save the corrected reference' in Train." in asked.call_args.args[2]
    labels.locked = False  # as when it is saved
    assert guard.may_close()


def test_strokes_that_come_while_labels_are_saved_keep_them_locked(raw, saving, monkeypatch):
    viewer = ViewerModel()
    Correcting(viewer, Mock(), Mock(), Mock())._add(
        drain(score_layers(raw, "c0", raw / "labelsTr" / "c0.nii.gz")), None
    )
    labels = viewer.layers["c0 labels"]
    labels.selected_label = 1

    def stroke(place):
        labels.paint(place, 1)
        labels._commit_staged_history()

    stroke((1, 1, 1))
    monkeypatch.setattr(correcting, "follow", _after(stroke, (4, 4, 4), correcting.follow))
    assert saving(viewer, labels) == [None]
    assert labels.locked


def _after(act, what, function):
    def both(*arguments, **more):
        function(*arguments, **more)
        act(what)

    return both


def test_labels_that_could_not_be_saved_stay_locked(raw, saving, monkeypatch):
    viewer = ViewerModel()
    layer = painted(raw, viewer, SWAPPED)

    def failing(*_):
        yield from ()
        raise DatasetError("The disk is full.")

    monkeypatch.setattr(correcting, "correct_reference", failing)
    (error,) = saving(viewer, layer)
    assert isinstance(error, DatasetError)
    assert layer.locked
