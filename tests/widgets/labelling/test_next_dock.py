"""The Next dock in a real window: rank, open, correct, take, go on."""

from __future__ import annotations

import json

import numpy as np
import pytest
from docks import open_dock, press, wait_until_idle
from napari.layers import Labels, Shapes

from helpers import smooth_image, write_nifti
from napari_nnunet.formats.dataset.raw_dataset import open_dataset
from napari_nnunet.formats.images.files import read_labels

SHAPE = (10, 24, 22)


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "new"
    folder.mkdir()
    for n in range(2):
        write_nifti(folder / f"u{n}_0000.nii.gz", smooth_image(SHAPE, seed=n)[0])
    return folder


@pytest.fixture
def raw(workspace):
    """The dataset of the models in the workspace, with one case."""
    folder = workspace.raw / "Dataset001_Tiny"
    for part in ("imagesTr", "labelsTr"):
        (folder / part).mkdir(parents=True)
    write_nifti(folder / "imagesTr" / "a_0000.nii.gz", smooth_image(SHAPE)[0])
    write_nifti(folder / "labelsTr" / "a.nii.gz", np.zeros(SHAPE, np.uint8))
    classes = {"background": 0, "organ": 1, "lesion": 2}
    content = {"channel_names": {"0": "MR"}, "labels": classes, "numTraining": 1, "file_ending": ".nii.gz"}
    (folder / "dataset.json").write_text(json.dumps(content))
    return folder


@pytest.fixture
def dock(viewer, raw, known_arithmetic):
    return open_dock(viewer, "Next")


def ranked(dock, qtbot, images, unit="slices"):
    dock.source_box.value = images
    dock.rows.widgets["unit"].value = unit
    dock.rows.widgets["budget"].value = "2"
    qtbot.waitUntil(dock.panel.button.isEnabled)
    press(qtbot, dock)
    qtbot.waitUntil(lambda: dock._open is not None)


def test_it_says_what_is_missing_before_it_ranks(dock, qtbot):
    qtbot.waitUntil(lambda: "nobody labelled yet" in dock.summary.text())
    assert not dock.panel.button.isEnabled()


def test_a_slice_is_opened_with_its_place_marked_corrected_taken_and_the_next_comes(dock, qtbot, images, raw, viewer):
    ranked(dock, qtbot, images)
    first = dock._open
    (frame,) = [layer for layer in viewer.layers if isinstance(layer, Shapes)]
    (labels,) = [layer for layer in viewer.layers if isinstance(layer, Labels)]
    plane = first.place.box[0][0]
    assert {corner[0] for corner in np.round(frame.data[0], 3)} == {plane}
    assert viewer.dims.current_step[0] == plane
    assert "Whether labelling more will pay is not known yet" in dock.standing.text()
    labels.data[plane] = 1
    dock.take_button.click()
    qtbot.waitUntil(lambda: dock._open is not None and dock._open is not first)
    stored, _ = read_labels(next(c.label for c in open_dataset(raw).cases if c.name == first.place.case))
    assert (stored[plane] == 1).all()
    assert (np.delete(stored, plane, axis=0) == 3).all()
    assert "1 to go" in dock.panel.status.text()


def test_strokes_outside_of_the_frame_are_not_lost_with_the_place(dock, qtbot, images, raw, viewer):
    ranked(dock, qtbot, images)
    first = dock._open
    (labels,) = [layer for layer in viewer.layers if isinstance(layer, Labels)]
    plane = first.place.box[0][0]
    other = (plane + 1) % len(labels.data)
    labels.data[plane], labels.data[other] = 1, 2
    dock.take_button.click()
    qtbot.waitUntil(lambda: dock._open is not None and dock._open is not first)
    stored, _ = read_labels(next(c.label for c in open_dataset(raw).cases if c.name == first.place.case))
    assert (stored[plane] == 1).all() and (stored[other] == 3).all()
    assert "What was painted outside of the frame was not taken, and its layer stays." in dock.panel.status.text()
    assert labels in viewer.layers and (labels.data[other] == 2).all()


def test_a_place_can_be_skipped_and_at_the_end_the_model_is_to_be_improved(dock, qtbot, images, raw):
    ranked(dock, qtbot, images, unit="cases")
    first = dock._open
    dock.skip_button.click()
    qtbot.waitUntil(lambda: dock._open is not None and dock._open is not first)
    dock.skip_button.click()
    qtbot.waitUntil(lambda: not dock.left)
    assert "Improve the model" in dock.hint.text()
    assert dock.take_button.text() == "Improve the model…" and dock.take_button.isEnabled()
    assert not dock.table.isVisible()
    assert [case.name for case in open_dataset(raw).cases] == ["a"]


def test_labels_that_were_closed_are_not_taken(dock, qtbot, images, viewer):
    ranked(dock, qtbot, images, unit="cases")
    viewer.layers.remove(next(layer for layer in viewer.layers if isinstance(layer, Labels)))
    dock.take()
    wait_until_idle(qtbot, dock)
    assert "Open a place first" in dock.panel.status.text()
