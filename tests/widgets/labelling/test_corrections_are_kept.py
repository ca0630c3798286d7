"""Whatever is chosen or opened meanwhile, a correction is saved in its dataset, and not lost without a question."""

from __future__ import annotations

import threading
from unittest.mock import Mock

import numpy as np
import pytest
from docks import wait_until_idle
from napari.components import ViewerModel
from qtpy.QtWidgets import QMainWindow, QMessageBox

from helpers import make_dataset, smooth_image, write_nifti
from napari_nnunet.engine.labelling.queries import Spot
from napari_nnunet.errors import ImageError
from napari_nnunet.events import Stage
from napari_nnunet.formats.dataset.case_files import Case
from napari_nnunet.formats.dataset.raw_dataset import open_dataset
from napari_nnunet.formats.images.files import read_labels
from napari_nnunet.jobs.labelling.suggestion import Standing, Suggestion, Suggestions
from napari_nnunet.schema.requests.labelling import SuggestRequest
from napari_nnunet.widgets.files.unsaved import CloseGuard
from napari_nnunet.widgets.files.writer import write_labels_layer
from napari_nnunet.widgets.frame.state import state_of
from napari_nnunet.widgets.labelling import next_dock

SHAPE = (6, 14, 12)
OURS, OTHER = "Dataset001_Ours", "Dataset002_Other"


class Gate:
    """Lets a job of the dock begin, and holds it until it may go on."""

    def __init__(self, job):
        self.job, self.open = job, threading.Event()

    def __call__(self, *args):
        yield Stage(name="waiting")
        assert self.open.wait(60)
        return (yield from self.job(*args))


@pytest.fixture
def asked(monkeypatch):
    """What was asked; the answer is no."""
    monkeypatch.setattr(next_dock, "show_info", lambda _: None)
    monkeypatch.setattr(QMessageBox, "question", asked := Mock(return_value=QMessageBox.StandardButton.No))
    return asked


@pytest.fixture
def found(home):
    """Two suggested images for one of two datasets."""
    raws = [make_dataset(home, cases=1, shape=SHAPE, name=name) for name in (OURS, OTHER)]
    places = []
    for n in range(2):
        image, proposal = home / f"u{n}_0000.nii.gz", home / f"u{n}.nii.gz"
        write_nifti(image, smooth_image(SHAPE, seed=n)[0])
        write_nifti(proposal, np.zeros(SHAPE, np.uint8))
        spot = Spot(f"u{n}", 0, tuple((0, size) for size in SHAPE), 1008, 0.5, {1: (32, 0.5)}, 2, (2, 3, 3))
        places.append(Suggestion(spot, Case(f"u{n}", (image,)), proposal, 1.0))
    scheme = open_dataset(raws[0]).info.labels
    return Suggestions(tuple(places), 2, scheme, "m", None, Standing(1, 1.0, None, 0), home / "x.csv")


@pytest.fixture
def dock(found, home, qtbot, monkeypatch, asked):
    viewer, window = ViewerModel(), QMainWindow()
    state_of(viewer).choose(dataset=OURS)
    dock = next_dock.NextWidget(viewer)
    qtbot.addWidget(window)
    window.setCentralWidget(dock)

    def suggest(*_):
        yield Stage(name="ranking")
        return found

    monkeypatch.setattr(next_dock, "suggest", suggest)
    yield dock
    dock.close_down()


def rank(dock, home):
    dock.begin(SuggestRequest.of(dataset=OURS, source=home, proposals=home / "p"))


@pytest.fixture
def opened(dock, home, found, qtbot):
    """The dock with the first place open."""
    rank(dock, home)
    qtbot.waitUntil(lambda: dock._open is found.chosen[0])
    wait_until_idle(qtbot, dock)
    return dock


def paint(dock):
    layer = dock._labels()
    layer.data[1, 2:5, 2:5] = 1
    return layer


def test_places_of_a_dataset_that_is_not_chosen_any_more_are_not_opened_in_another(dock, home, qtbot, monkeypatch):
    gate = Gate(next_dock.suggest)
    monkeypatch.setattr(next_dock, "suggest", gate)
    rank(dock, home)
    dock.state.choose(dataset=OTHER)
    gate.open.set()
    wait_until_idle(qtbot, dock)
    assert dock.found is None and dock._open is None and not dock.viewer.layers
    assert f"These were suggested for {OURS}" in dock.panel.status.text()


def test_a_correction_is_given_up_only_after_a_question(opened, home, found, asked, qtbot):
    layer = paint(opened)
    for loses in (lambda: opened.open_place(1), opened.skip, lambda: rank(opened, home)):
        asked.reset_mock()
        loses()
        assert "'u0 proposal' was corrected and is not saved" in asked.call_args.args[2]
        assert opened._open is found.chosen[0] and layer in opened.viewer.layers and not opened.busy
    asked.return_value = QMessageBox.StandardButton.Yes
    opened.open_place(1)
    qtbot.waitUntil(lambda: opened._open is found.chosen[1])
    assert layer not in opened.viewer.layers
    asked.reset_mock()
    opened.open_place(0)
    qtbot.waitUntil(lambda: opened._open is found.chosen[0])
    assert not asked.called


def test_a_window_with_a_correction_asks_before_it_closes(opened, asked):
    guard = opened.window().findChild(CloseGuard)
    assert guard.may_close() and not asked.called
    layer = paint(opened)
    asked.return_value = QMessageBox.StandardButton.Cancel
    assert not opened.window().close() and layer in opened.viewer.layers
    said = asked.call_args.args[2]
    assert said.startswith("'u0 proposal' was corrected and is not saved. Close napari and lose that?")
    assert f"Then press {opened.take_button.text()} in Next." in said
    asked.return_value = QMessageBox.StandardButton.Discard
    assert guard.may_close()


@pytest.mark.parametrize("held", [True, False])
def test_a_correction_that_was_saved_to_a_file_is_not_called_unsaved(opened, asked, home, held):
    layer, guard = paint(opened), opened.window().findChild(CloseGuard)
    if not held:
        opened._placed = True
        opened.setParent(None)
    layer.data[5, 0, 0] = 1
    data, attributes, _ = layer.as_layer_data_tuple()
    write_labels_layer(str(home / "mine.nii.gz"), data, attributes)
    assert guard.may_close() and opened._may_go() and not asked.called
    (home / "mine.nii.gz").unlink()
    asked.return_value = QMessageBox.StandardButton.Cancel
    assert not guard.may_close()


@pytest.mark.parametrize("how", ["another dataset", "the dock is closed", "closed, then painted"])
def test_a_correction_that_no_dock_holds_any_more_is_asked_about_too(opened, asked, how):
    window = opened.window()
    layer = opened._labels() if how == "closed, then painted" else paint(opened)
    if how == "another dataset":
        opened.state.choose(dataset=OTHER)
    else:
        opened._placed = True
        opened.setParent(None)
        assert opened.closed
    if how == "closed, then painted":
        assert window.findChild(CloseGuard).may_close() and not asked.called
        paint(opened)
    asked.return_value = QMessageBox.StandardButton.Cancel
    assert not window.findChild(CloseGuard).may_close() and layer in opened.viewer.layers
    said = asked.call_args.args[2]
    assert said.count("'u0 proposal' was corrected and is not saved") == 1
    assert "Save Selected Layers" in said and "press Take" not in said
    opened.viewer.layers.remove(layer)
    asked.reset_mock()
    assert window.findChild(CloseGuard).may_close() and not asked.called


def test_a_second_dock_does_not_replace_what_the_first_holds(opened, found, home, qtbot, asked):
    window = opened.window()
    first = paint(opened)
    second = next_dock.NextWidget(opened.viewer)
    second.setParent(window)
    second._opened(found.chosen[1], [(np.zeros(SHAPE, np.uint8), {"name": "u1 proposal"}, "labels")])
    asked.return_value = QMessageBox.StandardButton.Cancel
    assert not window.findChild(CloseGuard).may_close()
    assert f"'{first.name}' was corrected" in asked.call_args.args[2]
    second.close_down()


def test_labels_that_somebody_else_saved_since_a_place_was_suggested_are_asked_about(opened, home, asked, qtbot):
    saved = home / "nnUNet_raw" / OURS / "labelsTr" / "u0.nii.gz"
    write_nifti(saved, np.ones(SHAPE, np.uint8))
    write_nifti(saved.parents[1] / "imagesTr" / "u0_0000.nii.gz", smooth_image(SHAPE, seed=0)[0])
    paint(opened)
    opened.take()
    assert "The labels of 'u0' were changed elsewhere since it was suggested." in asked.call_args.args[2]
    assert not opened.busy and read_labels(saved)[0].all()
    asked.return_value = QMessageBox.StandardButton.Yes
    opened.take()
    wait_until_idle(qtbot, opened)
    assert read_labels(saved)[0].sum() == 9


def test_what_is_painted_after_a_correction_was_given_up_is_asked_about_again(opened, asked):
    layer = paint(opened)
    asked.return_value = QMessageBox.StandardButton.Yes
    assert opened._may_go() and opened._corrected() is None
    layer.data[3, 5:9, 5:9] = 1  # before the next place is open
    assert opened._corrected() is layer
    opened._remove_layers()
    assert layer in opened.viewer.layers


def test_a_correction_stays_where_another_dataset_is_chosen(opened):
    layer = paint(opened)
    opened.state.choose(dataset=OTHER)
    assert list(opened.viewer.layers) == [layer]
    assert opened._open is None


def test_a_place_that_is_opened_while_another_is_saved_stays_open(opened, found, qtbot, monkeypatch, asked):
    gate = Gate(next_dock.take_correction)
    monkeypatch.setattr(next_dock, "take_correction", gate)
    opened.take()
    opened.open_place(1)
    qtbot.waitUntil(lambda: opened._open is found.chosen[1])
    layer = paint(opened)
    gate.open.set()
    wait_until_idle(qtbot, opened)
    assert opened._open is found.chosen[1] and layer in opened.viewer.layers
    assert [place.place.case for place in opened.left] == ["u1"]
    raw = opened.head.raw
    assert [case.name for case in open_dataset(raw).cases] == ["c0", "u0"]


def test_what_is_painted_while_a_place_is_saved_stays(opened, found, qtbot, monkeypatch):
    gate = Gate(next_dock.take_correction)
    monkeypatch.setattr(next_dock, "take_correction", gate)
    opened.take()
    layer = paint(opened)
    gate.open.set()
    qtbot.waitUntil(lambda: opened._open is found.chosen[1])
    assert layer in opened.viewer.layers


def test_the_hint_says_what_is_open_or_being_opened(opened, found, qtbot, monkeypatch):
    asks = "Correct 'u0 proposal', then press"
    assert asks in opened.hint.text()

    def failing(*_):
        yield Stage(name="opening")
        raise ImageError("The disk is gone.")

    whole, gate = next_dock.place_layers, Gate(next_dock.place_layers)
    monkeypatch.setattr(next_dock, "place_layers", failing)
    opened.open_place(1)
    assert opened.hint.text() == "Opening u1…"
    qtbot.waitUntil(lambda: "The disk is gone" in opened.panel.status.text())
    assert asks in opened.hint.text()  # that one is open as before
    monkeypatch.setattr(next_dock, "place_layers", gate)
    opened.open_place(1)
    monkeypatch.setattr(next_dock, "place_layers", whole)
    opened.open_place(0)  # overtakes it
    gate.open.set()
    qtbot.waitUntil(lambda: asks in opened.hint.text())
    qtbot.wait(200)
    assert opened._open is found.chosen[0] and asks in opened.hint.text()
    opened.open_place(1)
    opened.state.choose(dataset=OTHER)
    assert opened.hint.text() == ""
    qtbot.wait(200)
    assert opened.hint.text() == "" and opened._open is None
