"""Labels that look wrong in the Train dock: listed, opened at their place, put right or left; and going on."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from docks import PATIENCE, Halting, wait_until_idle
from qtpy.QtWidgets import QLabel, QWidget

from helpers import Recipe, make_dataset, make_model, write_nifti
from napari_nnunet.errors import DatasetError
from napari_nnunet.events import Stage
from napari_nnunet.formats.images.files import read_labels
from napari_nnunet.formats.model.fold import FoldFolder
from napari_nnunet.formats.results.probabilities import write_probabilities
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.jobs.labelling.label_errors import find_label_errors
from napari_nnunet.processes.launch import improving
from napari_nnunet.widgets.frame.state import State
from napari_nnunet.widgets.training.correcting import Correcting
from napari_nnunet.widgets.training.suspects import SuspectList

SHAPE = (6, 14, 12)
DATASET = "Dataset001_Tiny"


class Chosen:
    """A training as the dock has it chosen."""

    def __init__(self, folder):
        self.folder = FoldFolder(folder)


@pytest.fixture
def place(tmp_path):
    """A workspace with eight validated cases of a model, of which one has a part that nobody drew."""
    raw = make_dataset(tmp_path, cases=8, shape=SHAPE, spacing=(1.0, 1.0, 1.0), name=DATASET)
    model = make_model(tmp_path / "nnUNet_results", Recipe(labels={"background": 0, "a": 1}, name=DATASET))
    validation = model.folder / "fold_0" / "validation"
    validation.mkdir()
    for n in range(8):
        seen = np.zeros(SHAPE, np.uint8)
        seen[1:5, 2:6, 2:7] = 1
        drawn = seen.copy()
        if n == 3:
            seen[1:5, 8:12, 4:9] = 1
        p = np.where(seen, 0.99, 0.01).astype(np.float32)
        write_nifti(raw / "labelsTr" / f"c{n}.nii.gz", drawn)
        write_nifti(validation / f"c{n}.nii.gz", seen)
        write_probabilities(np.stack([1 - p, p]), validation / f"c{n}.npz")
    return Workspace.at(tmp_path), raw, model.folder / "fold_0"


@pytest.fixture
def suspects(place, qtbot):
    workspace, _, fold = place
    widget = SuspectList(State(workspace), lambda: Chosen(fold))
    qtbot.addWidget(widget)
    widget.panel.button.click()
    wait_until_idle(qtbot, widget)
    return widget


def test_a_place_is_listed_with_what_is_drawn_and_seen(suspects):
    (case, finding, voxels, _), copies = suspects.table.texts()[1:]
    assert (case, voxels) == ("c3", "80")
    assert finding.startswith("background, seen as a (nothing is drawn after y = 5")
    assert "1 place in 1 case" in suspects.about.text()
    assert copies[:2] == ["c0, c1, c2 and 5 more", "the same labels for different images: they cannot all be right"]
    assert "1 group of copies" in suspects.about.text()


def test_a_line_about_copies_is_opened_and_never_replaced(suspects, qtbot):
    suspects.table.setCurrentCell(1, 0)
    assert suspects.edit.isEnabled() and not suspects.take.isEnabled() and not suspects.keep.isEnabled()
    with qtbot.waitSignal(suspects.opened) as told:
        suspects.edit.click()
    assert told.args[0].case.name == "c0"


def test_the_prediction_is_taken_there(suspects, place, qtbot):
    with qtbot.waitSignal(suspects.written):
        suspects.take.click()
    labels, _ = read_labels(place[1] / "labelsTr" / "c3.nii.gz")
    assert labels[2, 10, 6] == 1
    assert _wrong(suspects) == []
    assert not suspects.take.isEnabled()


def test_what_was_found_in_one_dataset_is_never_written_into_another(suspects, place, qtbot):
    """Whatever is chosen by then; where the other one cannot be looked at, the list stays, and says whose it is."""
    workspace, raw, _ = place
    other = make_dataset(workspace.raw.parent, cases=4, shape=SHAPE, spacing=(1.0, 1.0, 1.0), name="Dataset002_Other")
    before = (other / "labelsTr" / "c3.nii.gz").read_bytes()
    found, *_ = before_list = suspects.suspects
    suspects._chosen = lambda: Chosen(workspace.results / other.name / "nnUNetTrainer__nnUNetPlans__2d" / "fold_0")
    suspects.panel.button.click()
    wait_until_idle(qtbot, suspects)
    assert (
        suspects.suspects == before_list
        and found.case.name == "c3"
        and "1 place in 1 case of Dataset001_Tiny, compared with 3d_fullres" in suspects.about.text()
    )
    with qtbot.waitSignal(suspects.written):
        suspects.take.click()
    assert (other / "labelsTr" / "c3.nii.gz").read_bytes() == before
    assert read_labels(raw / "labelsTr" / "c3.nii.gz")[0][2, 10, 6] == 1


def test_a_look_that_is_cancelled_or_fails_leaves_the_list_before(suspects, qtbot, monkeypatch):
    found = suspects.suspects
    job = Halting(find_label_errors)
    monkeypatch.setattr("napari_nnunet.widgets.training.suspects.find_label_errors", job)
    job.at = 1
    suspects.panel.button.click()
    assert job.reached.wait(PATIENCE)
    assert suspects.suspects == found and not suspects.take.isEnabled() and suspects.edit.isEnabled()
    suspects.panel.cancel()
    job.go.set()
    wait_until_idle(qtbot, suspects)
    assert suspects.suspects == found and suspects.take.isEnabled() and suspects.table.rowCount() == 2

    def failing(*_):
        yield Stage(name="looking")
        raise DatasetError("The disk is gone.")

    monkeypatch.setattr("napari_nnunet.widgets.training.suspects.find_label_errors", failing)
    suspects.panel.button.click()
    wait_until_idle(qtbot, suspects)
    assert "The disk is gone" in suspects.panel.status.text()
    assert suspects.suspects == found and suspects.take.isEnabled()


def _wrong(suspects):
    """Return what looks wrong in the list, without copies."""
    return [one for one in suspects.suspects if one.copies is None and not one.accepted]


def test_a_label_that_is_right_is_kept_and_not_listed_again(suspects, place, qtbot):
    suspects.keep.click()
    wait_until_idle(qtbot, suspects)
    assert _wrong(suspects) == [] and "Compared with 3d_fullres, no label of Dataset001_Tiny" in suspects.about.text()
    assert read_labels(place[1] / "labelsTr" / "c3.nii.gz")[0].sum() == 80
    assert 'c3,"background, seen as a"' in (place[1] / "accepted_labels.csv").read_text(encoding="utf-8")
    suspects.panel.button.click()
    wait_until_idle(qtbot, suspects)
    assert _wrong(suspects) == []


def test_what_was_found_right_is_shown_when_asked_and_doubted_again(suspects, place, qtbot):
    assert not suspects.show_accepted.isVisibleTo(suspects)
    suspects.keep.click()
    wait_until_idle(qtbot, suspects)
    assert suspects.show_accepted.isVisibleTo(suspects)
    suspects.show_accepted.setChecked(True)
    last = suspects.table.rowCount() - 1
    assert suspects.table.texts()[1:][last][1].startswith("accepted: background, seen as a")
    suspects.table.setCurrentCell(last, 0)
    assert suspects.doubt.isEnabled() and not suspects.keep.isEnabled() and not suspects.take.isEnabled()
    suspects.doubt.click()
    wait_until_idle(qtbot, suspects)
    assert [one.case.name for one in _wrong(suspects)] == ["c3"]
    assert not (place[1] / "accepted_labels.csv").exists()


def nothing_chosen(workspace, raw, fold):
    return None


def not_validated(workspace, raw, fold):
    shutil.rmtree(fold / "validation")
    return Chosen(fold)


def other_classes(workspace, raw, fold):
    content = json.loads((raw / "dataset.json").read_text(encoding="utf-8"))
    (raw / "dataset.json").write_text(json.dumps({**content, "labels": {"background": 0, "a": 1, "b": 2}}))
    return Chosen(fold)


def accepted_by_hand(workspace, raw, fold):
    (raw / "accepted_labels.csv").write_text("case,why\nc3,I say so\n")
    return Chosen(fold)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (nothing_chosen, "Choose a training first."),
        (not_validated, "was validated on cases that it did not see"),
        (other_classes, "was trained with the classes background = 0, a = 1"),
        (accepted_by_hand, "accepted_labels.csv has no column drawn"),
    ],
)
def test_what_cannot_be_looked_at_is_said(place, qtbot, spoil, said):
    workspace, raw, fold = place
    chosen = spoil(workspace, raw, fold)
    widget = SuspectList(State(workspace), lambda: chosen)
    qtbot.addWidget(widget)
    widget.panel.button.click()
    wait_until_idle(qtbot, widget)
    assert said in widget.panel.status.text() and "Something went wrong" not in widget.panel.status.text()
    assert widget.found is None and not widget.table.isVisibleTo(widget)


def test_of_a_single_validated_case_it_says_that_little_can_be_told(place, qtbot):
    workspace, _, fold = place
    for path in (fold / "validation").iterdir():
        if not path.name.startswith("c3"):
            path.unlink()
    widget = SuspectList(State(workspace), lambda: Chosen(fold))
    qtbot.addWidget(widget)
    widget.panel.button.click()
    wait_until_idle(qtbot, widget)
    told = " ".join(label.text() for label in widget.findChildren(QLabel))
    assert "Only 1 validated case: what is usual cannot be known from so few" in told


def test_a_place_is_opened_with_its_labels_selected(suspects, place, viewer, qtbot):
    failed = []
    dock = QWidget()
    qtbot.addWidget(dock)
    opened = Correcting(viewer, dock, failed.append, lambda: None)
    suspect = suspects.suspects[0]
    opened.open(place[1], suspect.case.name, suspect.case.prediction, suspect.part.place)
    qtbot.waitUntil(lambda: len(viewer.layers) == 4 or bool(failed))
    assert not failed
    assert viewer.layers.selection.active.name == "c3 labels"
    assert viewer.dims.current_step[0] == suspect.part.place[0]


def test_improving_goes_on_under_other_plans_from_the_model(place):
    workspace, _, fold = place
    request = improving(FoldFolder(fold), workspace)
    assert request.plans == "nnUNetPlans_continued"
    assert request.continue_from == fold.parent
    assert "--continue_from" in request.arguments()
    assert not request.resume
