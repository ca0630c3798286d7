"""A raw dataset that others change between the look at it and the change: nothing gets another meaning or is lost."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from helpers import DATASET, dataset_json, just_before, make_dataset, smooth_image, write_nifti
from napari_nnunet.errors import DatasetError
from napari_nnunet.events import Note, drain
from napari_nnunet.formats.dataset.case_trash import cases_in_trash
from napari_nnunet.formats.dataset.raw_dataset import read_info
from napari_nnunet.formats.dataset.raw_writer import create_dataset, drop_case
from napari_nnunet.formats.dataset.relabel import change_classes
from napari_nnunet.formats.images.files import read_labels, write_image, write_labels
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.jobs.dataset import cases, import_folders
from napari_nnunet.jobs.dataset.cases import NewCase, add_case, correct_reference
from napari_nnunet.jobs.dataset.import_plan import plan_import
from napari_nnunet.jobs.dataset.manage import rename_dataset
from napari_nnunet.jobs.labelling import annotated
from napari_nnunet.jobs.labelling.annotated import annotated_classes
from napari_nnunet.jobs.objects import cases as object_cases
from napari_nnunet.jobs.objects import draw
from napari_nnunet.jobs.objects.derive import derive_objects
from napari_nnunet.schema.dataset import ANNOTATED
from napari_nnunet.schema.geometry import Geometry
from napari_nnunet.schema.requests.dataset import AnnotatedClassesRequest, DeriveObjectsRequest, ImportFoldersRequest

pytestmark = pytest.mark.usefixtures("in_one_process")

SHAPE = (4, 6, 5)
GRID = Geometry(spacing=(1.0,) * 3, origin=(0.0,) * 3, direction=(1.0, 0, 0, 0, 1, 0, 0, 0, 1))
TWO = {"background": 0, "a": 1, "b": 2}


@pytest.fixture
def folder(tmp_path):
    """A dataset of two classes; case c0 holds both, the others none."""
    folder = make_dataset(tmp_path, shape=SHAPE, spacing=GRID.spacing)
    dataset_json(folder, labels=TWO)
    for name in ("c0", "c1", "c2", "c3"):
        write_nifti(folder / "labelsTr" / f"{name}.nii.gz", labels_of() if name == "c0" else 0 * labels_of())
    return folder


def labels_of():
    labels = np.zeros(SHAPE, np.uint8)
    labels[1, 2], labels[2, 3] = 1, 2
    return labels


def new_case(folder, **changes):
    image = smooth_image(SHAPE)
    case = NewCase(folder, "new", image, labels_of(), GRID, {}, TWO, ("MR",), ".nii.gz", known=True)
    return replace(case, **changes)


def stored(folder, name="c0"):
    return read_labels(folder / "labelsTr" / f"{name}.nii.gz")[0]


def rename(folder):
    return lambda: drain(rename_dataset(Workspace.at(folder.parents[1]), folder.name, "Other"))


def test_a_case_is_not_saved_into_a_new_dataset_where_its_own_was_renamed(folder, monkeypatch):
    just_before(monkeypatch, cases, "changing", rename(folder))
    with pytest.raises(DatasetError, match=f"{DATASET} was renamed or removed meanwhile"):
        drain(add_case(new_case(folder)))
    assert not folder.exists()


CHANGES = {
    "swapped": {"labels": {"background": 0, "b": 1, "a": 2}},
    "another one came": {"labels": {**TWO, "c": 3}},
}


@pytest.mark.parametrize("how", CHANGES)
def test_a_case_does_not_take_back_classes_that_others_changed(folder, monkeypatch, how):
    just_before(monkeypatch, cases, "changing", lambda: dataset_json(folder, **CHANGES[how]))
    with pytest.raises(DatasetError, match="The classes of .* were changed meanwhile"):
        drain(add_case(new_case(folder, classes={**TWO, "mine": 3})))
    assert read_info(folder).raw["labels"] == CHANGES[how]["labels"]
    assert not (folder / "labelsTr" / "new.nii.gz").exists()


def test_a_case_that_another_job_saved_under_this_name_is_not_replaced_unasked(folder, monkeypatch):
    theirs = new_case(folder, labels=0 * labels_of())
    just_before(monkeypatch, cases, "changing", lambda: drain(add_case(theirs)))
    with pytest.raises(DatasetError, match=f"{DATASET} now has a case 'new'"):
        drain(add_case(new_case(folder, fresh=True)))
    assert not stored(folder, "new").any() and cases_in_trash(folder) == []
    drain(add_case(new_case(folder)))
    np.testing.assert_array_equal(stored(folder, "new"), labels_of())


def test_a_correction_keeps_what_others_said_of_other_cases(folder, monkeypatch):
    dataset_json(folder, **{ANNOTATED: {"c0": ["a", "b"], "c1": ["a", "b"]}})
    said = {"c0": ["a", "b"], "c1": ["a"]}
    just_before(monkeypatch, cases, "changing", lambda: dataset_json(folder, **{ANNOTATED: said}))
    drain(correct_reference(folder, "c0", 0 * labels_of()))
    assert read_info(folder).annotated == {"c0": ("a", "b"), "c1": ("a",)}


def test_a_correction_of_labels_that_others_corrected_meanwhile_is_refused(folder, monkeypatch):
    theirs = labels_of()
    theirs[0, 0] = 1
    path = folder / "labelsTr" / "c0.nii.gz"
    just_before(monkeypatch, cases, "changing", lambda: write_labels(theirs, GRID, path))
    with pytest.raises(DatasetError, match="The labels of c0 changed since they were looked at"):
        drain(correct_reference(folder, "c0", 0 * theirs, seen=labels_of()))
    np.testing.assert_array_equal(stored(folder), theirs)
    assert cases_in_trash(folder) == []


def test_which_classes_were_looked_for_is_said_of_the_cases_there_are(folder, monkeypatch):
    just_before(monkeypatch, annotated, "changing", lambda: drop_case(folder, "c3"))
    request = AnnotatedClassesRequest(dataset=DATASET, classes=("a",), cases=("c1", "c3"))
    with pytest.raises(DatasetError, match="No case is called 'c3'"):
        drain(annotated_classes(Workspace.at(folder.parents[1]), request))
    found = drain(annotated_classes(Workspace.at(folder.parents[1]), request.replace(cases=("c1",))))
    assert found == {"c0": ("a", "b"), "c1": ("a",), "c2": ("a", "b")}


@pytest.fixture
def planned(folder, tmp_path):
    """An import of one case, and what it would do."""
    for part, array in (("images", smooth_image(SHAPE)[0]), ("masks", labels_of())):
        (tmp_path / part).mkdir()
        write_nifti(tmp_path / part / "n1.nii.gz", array)
    workspace = Workspace.at(folder.parents[1])
    request = ImportFoldersRequest(images=tmp_path / "images", masks=tmp_path / "masks", dataset=DATASET)
    return workspace, request, drain(plan_import(workspace, request))


def test_an_import_does_not_replace_a_case_that_came_since_it_was_planned(folder, planned):
    there = (folder / "imagesTr" / "n1_0000.nii.gz", folder / "labelsTr" / "n1.nii.gz")
    write_image(smooth_image(SHAPE, seed=9)[0], GRID, there[0])
    write_labels(0 * labels_of(), GRID, there[1])
    before = [path.read_bytes() for path in there]
    with pytest.raises(DatasetError, match="has a case of this name"):
        drain(import_folders.import_planned(*planned))
    assert [path.read_bytes() for path in there] == before


def test_an_import_whose_values_would_mean_other_classes_by_now_is_refused(folder, planned):
    change_classes(folder, {"a": "b", "b": "b"})  # b, which was 2, is 1 now
    with pytest.raises(DatasetError):
        drain(import_folders.import_planned(*planned))
    dataset_json(folder, labels={"background": 0, "b": 1, "a": 2})
    with pytest.raises(DatasetError, match="The classes of .* were changed meanwhile"):
        drain(import_folders.import_planned(*planned))
    assert not (folder / "labelsTr" / "n1.nii.gz").exists()
    dataset_json(folder, labels=TWO)
    drain(import_folders.import_planned(*planned))
    np.testing.assert_array_equal(stored(folder, "n1"), labels_of())


def test_an_import_into_a_dataset_that_was_renamed_leaves_nothing_under_the_old_name(folder, planned):
    rename(folder)()
    with pytest.raises(DatasetError):
        drain(import_folders.import_planned(*planned))
    assert not folder.exists()


@pytest.fixture
def objects(tmp_path):
    """A dataset of three volumes and their objects, derived."""
    workspace = Workspace.at(tmp_path / "objects")
    folder = workspace.raw / "Dataset001_Boxes"
    create_dataset(folder, ["grey"], {"background": 0, "object": 1}, ".nii.gz")
    (folder / "objectsTr").mkdir()
    for case in "abc":
        write_image(smooth_image((6, 12, 12))[0], GRID, folder / "imagesTr" / f"{case}_0000.nii.gz")
        write_labels(boxes(), GRID, folder / "objectsTr" / f"{case}.nii.gz")
    drain(derive_objects(workspace, DeriveObjectsRequest(dataset="1", kinds={1: "box"}, width=1, workers=1)))
    return folder


def boxes():
    objects = np.zeros((6, 12, 12), np.uint16)
    objects[1:5, 2:10, 1:6], objects[1:5, 2:10, 6:11] = 1, 2
    return objects


def test_objects_that_others_draw_again_meanwhile_are_not_drawn_twice(objects, monkeypatch):
    write_labels(boxes() * (boxes() == 1), GRID, objects / "objectsTr" / "a.nii.gz")
    again = draw.changing

    def others():
        monkeypatch.setattr(draw, "changing", again)
        assert drain(draw.draw_again(objects)) == ("a",)

    monkeypatch.setattr(draw, "changing", lambda folder: (others(), again(folder))[1])
    heard = []
    found = drain(draw.keep_drawn(objects), heard.append)
    assert found.stale == () and not [event for event in heard if isinstance(event, Note)]


def test_objects_of_a_case_that_goes_meanwhile_are_not_corrected(objects, monkeypatch):
    just_before(monkeypatch, object_cases, "changing", lambda: drop_case(objects, "a"))
    with pytest.raises(DatasetError, match="has no objects of a case a"):
        drain(object_cases.correct_objects(objects, "a", boxes(), {}))
    assert not list(objects.glob("*Tr/a*"))
    just_before(monkeypatch, object_cases, "changing", rename(objects))
    with pytest.raises(DatasetError, match="was renamed or removed meanwhile"):
        drain(object_cases.add_object_case(new_case(objects, labels=boxes(), kinds={1: "box", 2: "box"})))
    assert not objects.exists()
    assert json.loads((objects.with_name("Dataset001_Other") / "dataset.json").read_text(encoding="utf-8"))
