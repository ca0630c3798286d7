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
from napari_nnunet.jobs.labelling.progress import Standing
from napari_nnunet.widgets.labelling.progress_panel import model_line

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
    assert "Whether labelling more will pay is not known yet" in dock.progress.learning.text()
    labels.data[plane] = 1
    dock.take_button.click()
    qtbot.waitUntil(lambda: dock._open is not None and dock._open is not first)
    stored, _ = read_labels(next(c.label for c in open_dataset(raw).cases if c.name == first.place.case))
    assert (stored[plane] == 1).all()
    assert (np.delete(stored, plane, axis=0) == 3).all()
    assert "1 to go" in dock.panel.status.text()


def test_progress_is_seen_before_anything_is_suggested_and_counts_what_was_taken(dock, qtbot, images):
    qtbot.waitUntil(lambda: dock.progress.labelled.text() != "")
    assert dock.progress.isVisible()
    assert dock.progress.labelled.text() == "<b>Labelled</b>: 1 case, 100 % of its voxels annotated."
    assert dock.progress.model.text().startswith("<b>Model</b>: Dataset001_Tiny")
    assert "which validated no case" in dock.progress.model.text()
    assert not dock.progress.next.isVisible()
    ranked(dock, qtbot, images, unit="cases")
    first = dock._open
    assert dock.progress.next.text() == f"<b>Next</b>: {first.place.case}; 1 more after it."
    dock.take_button.click()
    qtbot.waitUntil(lambda: dock._open is not None and dock._open is not first)
    qtbot.waitUntil(lambda: dock.progress.labelled.text().startswith("<b>Labelled</b>: 2 cases"))
    assert dock.progress.next.text() == f"<b>Next</b>: {dock._open.place.case}, the last one."
    dock.take_button.click()
    qtbot.waitUntil(lambda: dock.over)
    assert dock.progress.next.text() == "<b>Next</b>: improve the model, then ask again."


def test_cases_that_came_after_the_model_are_a_reason_to_improve_it():
    assert model_line(Standing(7, 1.0, 0.81234, 5, "Dataset001_A 2d", 5)) == (
        "Dice 0.812 on 5 validation cases. 2 cases came after it: improve it."
    )
    assert model_line(Standing(5, 1.0, 0.81234, 5, "Dataset001_A 2d", 5)) == "Dice 0.812 on 5 validation cases."
    assert model_line(Standing(2, 0.1, None, 0)) == "none was trained yet."


def test_a_whole_image_fills_the_screen_and_a_slice_shows_its_most_doubtful_voxel(dock, qtbot, images, viewer):
    ranked(dock, qtbot, images, unit="cases")
    centre = tuple(viewer.scene.camera.center)
    viewer.reset_view()
    assert tuple(viewer.scene.camera.center) == pytest.approx(centre)


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
