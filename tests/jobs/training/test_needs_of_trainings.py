"""What a training needs is done before it, and nothing else."""

from __future__ import annotations

import json
import os
import shutil

import numpy as np
import pytest

from helpers import TRAINED, Recipe, dataset_json, make_trainable, smooth_image, write_nifti
from napari_nnunet.errors import DatasetError
from napari_nnunet.events import Note, drain
from napari_nnunet.formats.images.files import read_labels, write_labels
from napari_nnunet.formats.preprocessed.cases import open_case
from napari_nnunet.formats.preprocessed.journal import Journal
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.jobs.dataset.splits import read_splits
from napari_nnunet.jobs.planning.preprocess import preprocess
from napari_nnunet.jobs.training.prepare import Needs, check_training, look_at_needs, prepare_training
from napari_nnunet.schema.requests.planning import PreprocessRequest
from napari_nnunet.schema.requests.training import TrainRequest
from turned_files import claim_mirrored

pytestmark = pytest.mark.usefixtures("in_one_process")


@pytest.fixture
def workspace(tmp_path):
    make_trainable(tmp_path, Recipe(spacing=(1.0, 1.0, 1.0)))
    return Workspace.at(tmp_path)


@pytest.fixture
def request_(workspace):
    request = TrainRequest(dataset=TRAINED, configuration="3d_fullres", fold=0)
    drain(check_training(workspace, [request]))  # makes the folds
    return request


def add(workspace, name):
    raw = workspace.raw / TRAINED
    image = smooth_image((12, 24, 22), seed=9)[0]
    write_nifti(raw / "imagesTr" / f"{name}_0000.nii.gz", image)
    write_nifti(raw / "labelsTr" / f"{name}.nii.gz", (image > 120).astype(np.uint8))
    dataset_json(raw, numTraining=6)


def test_where_nothing_changed_nothing_is_done(workspace, request_):
    assert drain(look_at_needs(workspace, [request_])) == Needs()
    before = {path: path.stat().st_mtime_ns for path in workspace.preprocessed.rglob("*") if path.is_file()}
    drain(prepare_training(workspace, [request_]))
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_a_case_that_changed_is_preprocessed_again_and_no_other(workspace, request_):
    path = workspace.raw / TRAINED / "labelsTr" / "c1.nii.gz"
    labels, _ = read_labels(path)
    labels[0, 0, 0] = 1 - labels[0, 0, 0]
    write_nifti(path, labels)
    assert drain(look_at_needs(workspace, [request_])) == Needs(cases=("c1",))
    folder = workspace.preprocessed / TRAINED / "nnUNetPlans_3d_fullres"
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    drain(prepare_training(workspace, [request_]))
    after = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert {name.partition(".")[0].removesuffix("_seg") for name in before if before[name] != after[name]} == {"c1"}


def test_what_was_never_preprocessed_is(workspace):
    request = TrainRequest(dataset=TRAINED, configuration="3d_fullres", fold=0)
    import shutil

    folder = workspace.preprocessed / TRAINED / "nnUNetPlans_3d_fullres"
    shutil.rmtree(folder)
    assert len(drain(look_at_needs(workspace, [request])).cases) == 5
    drain(prepare_training(workspace, [request]))
    assert folder.is_dir()


def test_a_case_that_came_after_the_folds_is_named_and_trained_with_on_request(workspace, request_):
    add(workspace, "c9")
    path = workspace.preprocessed / TRAINED / "splits_final.json"
    before = path.read_text(encoding="utf-8")
    needs = drain(look_at_needs(workspace, [request_]))
    assert needs == Needs(cases=("c9",), unused=("c9",))
    assert drain(look_at_needs(workspace, [request_.replace(fold="all")])).unused == ()
    drain(prepare_training(workspace, [request_]))
    assert path.read_text(encoding="utf-8") == before
    drain(prepare_training(workspace, [request_], adopt=("c9",)))
    splits = read_splits(path)
    assert all("c9" in split.train and "c9" not in split.val for split in splits)
    assert [list(split.val) for split in splits] == [entry["val"] for entry in json.loads(before)]
    assert drain(look_at_needs(workspace, [request_])) == Needs()


def test_a_class_that_came_late_reaches_the_plans(workspace, request_):
    labels = {**json.loads((workspace.raw / TRAINED / "dataset.json").read_text(encoding="utf-8"))["labels"], "late": 3}
    dataset_json(workspace.raw / TRAINED, labels=labels)
    drain(prepare_training(workspace, [request_]))
    beside = json.loads((workspace.preprocessed / TRAINED / "dataset.json").read_text(encoding="utf-8"))
    assert beside["labels"] == labels


def test_a_class_that_no_training_case_of_a_fold_has_is_told_before_hours_are_lost(workspace, request_):
    """Its Dice is 0 in the validation case that has it, and the mean a half of what was learnt."""

    def told(request):
        events = []
        drain(prepare_training(workspace, [request]), events.append)
        return [event.text for event in events if isinstance(event, Note) and event.level == "warning"]

    splits = read_splits(workspace.preprocessed / TRAINED / "splits_final.json")
    assert told(request_) == []
    for case in splits[0].train:
        path = workspace.raw / TRAINED / "labelsTr" / f"{case}.nii.gz"
        labels, _ = read_labels(path)
        write_nifti(path, np.where(labels == 2, 0, labels))
    (said,) = told(request_)
    assert said.startswith("None of the 4 training cases of this fold has 'lesion': it cannot be learnt.")
    assert told(request_.replace(fold=1)) == []  # there it is a training case that has it


def test_a_case_that_cannot_be_preprocessed_is_named(workspace, request_):
    (workspace.raw / TRAINED / "labelsTr" / "c1.nii.gz").write_bytes(b"damaged")
    with pytest.raises(DatasetError, match=r"1 of 1 case could not be preprocessed\. c1: "):
        drain(prepare_training(workspace, [request_]))


def test_without_cases_there_is_a_sentence(tmp_path, workspace):
    import shutil

    shutil.rmtree(workspace.raw / TRAINED)
    shutil.rmtree(workspace.preprocessed / TRAINED / "nnUNetPlans_3d_fullres")
    with pytest.raises(DatasetError, match="has no cases, and none are preprocessed for 3d_fullres"):
        drain(look_at_needs(workspace, [TrainRequest(dataset=TRAINED, configuration="3d_fullres", fold=0)]))


def test_what_was_preprocessed_whatever_the_headers_say_stays_so_and_new_cases_follow(workspace, request_):
    raw = workspace.raw / TRAINED
    for path in sorted((raw / "labelsTr").iterdir()):
        claim_mirrored(path)
    how = PreprocessRequest(dataset=TRAINED, configurations=("3d_fullres",), workers=1, ignore_geometry=True)
    assert not drain(preprocess(workspace, how)).failed
    labels, place = read_labels(raw / "labelsTr" / "c1.nii.gz")
    labels[0, 0, 0] = 1 - labels[0, 0, 0]
    write_labels(labels, place, raw / "labelsTr" / "c1.nii.gz")
    add(workspace, "c9")
    claim_mirrored(raw / "labelsTr" / "c9.nii.gz")
    with pytest.raises(DatasetError) as raised:
        drain(check_training(workspace, [request_]))
    assert "-c 3d_fullres --ignore_geometry'; only these are made again" in str(raised.value)
    events = []
    drain(prepare_training(workspace, [request_]), events.append)
    said = [event.text for event in events if isinstance(event, Note)]
    assert "c1, c9: voxels are taken as they lie, whatever the headers say, as before." in said
    data = workspace.preprocessed / TRAINED / "nnUNetPlans_3d_fullres"
    assert Journal.of(data).joined() == dict.fromkeys(["c0", "c1", "c2", "c3", "c4", "c9"], "ignore")
    stored = open_case(data, "c9").labels[:][0]
    np.testing.assert_array_equal(np.maximum(stored, 0), read_labels(raw / "labelsTr" / "c9.nii.gz")[0])


def test_a_new_case_is_not_taken_by_voxels_where_another_one_was_not(workspace, request_):
    data = workspace.preprocessed / TRAINED / "nnUNetPlans_3d_fullres"
    Journal.of(data).note(["c0"], Journal.of(data).read()["c0"] + ":ignore")
    add(workspace, "c9")
    claim_mirrored(workspace.raw / TRAINED / "labelsTr" / "c9.nii.gz")
    with pytest.raises(DatasetError, match=r"c9: .*stored in another orientation than the image"):
        drain(prepare_training(workspace, [request_]))
    assert Journal.of(data).joined()["c0"] == "ignore"


def said_before(workspace, request):
    notes = [event for event in check_training(workspace, [request]) if isinstance(event, Note)]
    return [note for note in notes if "was preprocessed by nnU-Net, or" in note.text]


def test_without_a_journal_it_is_said_what_cannot_be_checked_and_which_cases_look_changed(workspace, request_):
    assert not said_before(workspace, request_)
    data = workspace.preprocessed / TRAINED / "nnUNetPlans_3d_fullres"
    Journal.of(data).path.unlink()
    (note,) = said_before(workspace, request_)
    assert note.level == "info" and "cannot be checked. Preprocess again" in note.text
    label = workspace.raw / TRAINED / "labelsTr" / "c1.nii.gz"
    os.utime(label, (4e9, 4e9))
    add(workspace, "new")
    (note,) = said_before(workspace, request_)
    assert note.level == "warning"
    assert (
        "Files of 1 case are newer than that (c1). Not preprocessed, and not trained with: new (1 case)." in note.text
    )


def test_without_a_raw_dataset_nothing_is_said_of_it(workspace, request_):
    Journal.of(workspace.preprocessed / TRAINED / "nnUNetPlans_3d_fullres").path.unlink()
    shutil.rmtree(workspace.raw / TRAINED)
    assert not said_before(workspace, request_)
