"""What is said of a dataset's classes before any training: which no case has, and which a fold never sees."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest

from helpers import DATASET, dataset_json, make_dataset
from napari_nnunet.engine.training.splits import Split
from napari_nnunet.events import drain
from napari_nnunet.formats.atomic import write_json
from napari_nnunet.formats.dataset.raw_dataset import TrainingCase, open_dataset
from napari_nnunet.formats.images.files import read_labels, write_labels
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.jobs.planning.classes import (
    MEASURED_FROM,
    VALUES_MEASURED,
    class_sentences,
    class_warning,
    measured_values,
)
from napari_nnunet.jobs.planning.freshness import files_digest
from napari_nnunet.jobs.planning.plan import _unchanged, extract_fingerprint
from napari_nnunet.schema.dataset import LabelScheme
from napari_nnunet.schema.json_text import MESSAGE
from napari_nnunet.schema.requests.planning import FingerprintRequest

LABELS = {"background": 0, "a": 1, "b": 2}
SCHEME = LabelScheme(labels=LABELS)
SPLITS = [Split(("c1", "c2", "c3"), ("c0",)), Split(("c0", "c2", "c3"), ("c1",)), Split(("c0", "c1"), ("c2", "c3"))]


def said(**holders):
    return list(class_sentences(SCHEME, {name: [0, *values] for name, values in holders.items()}, SPLITS))


def test_nothing_is_said_where_every_fold_trains_and_validates_every_class():
    assert said(c0=[1, 2], c1=[1, 2], c2=[1], c3=[1, 2]) == []


def test_what_a_fold_never_sees_no_case_has_or_few_have_is_said():
    assert said(c0=[1], c1=[1], c2=[1, 2], c3=[1, 2]) == [
        "The training of fold 2 never sees 'b', which only c2, c3 have. Make other folds with 'Folds…' in the Train dock."
    ]
    assert said(c0=[1, 2], c1=[1], c2=[1], c3=[1]) == [
        "The training of fold 0 never sees 'b', which only c0 has. Add cases that have it."
    ]
    assert said(c0=[1], c1=[1], c2=[1], c3=[1]) == ["No case has 'b', so it cannot be learnt."]
    assert said(c0=[1, 2], c1=[1, 2], c2=[1], c3=[1]) == [
        "Few cases have 'b' (2 of 4): not every fold can validate it."
    ]


@pytest.fixture
def measured(tmp_path):
    raw = make_dataset(tmp_path, shape=(8, 16, 14))
    dataset_json(raw, labels=LABELS)
    labels, geometry = read_labels(raw / "labelsTr" / "c1.nii.gz")
    labels[2:4, 2:4, 2:4] = 2
    write_labels(labels, geometry, raw / "labelsTr" / "c1.nii.gz")
    workspace = Workspace.at(tmp_path)
    drain(extract_fingerprint(workspace, FingerprintRequest(dataset=DATASET, workers=1)))
    return workspace


def warning(workspace, *more):
    return class_warning(workspace, DATASET, SCHEME, [*open_dataset(workspace.raw / DATASET).cases, *more])


def test_the_classes_that_were_measured_are_kept_and_outlive_a_look_at_copied_files(measured):
    text = "The training of fold 2 never sees 'b', which only c1 has. Add cases that have it."
    assert warning(measured) == text
    (measured.raw / DATASET / "labelsTr" / "c0.nii.gz").touch()
    drain(extract_fingerprint(measured, FingerprintRequest(dataset=DATASET, workers=1)))
    assert warning(measured) == text


def test_nothing_is_said_of_cases_that_were_not_measured_or_by_a_file_that_is_none_of_ours(measured):
    first = open_dataset(measured.raw / DATASET).cases[0]
    assert warning(measured, replace(first, name="c4")) == ""
    path = measured.preprocessed / DATASET / VALUES_MEASURED
    good = json.loads(path.read_text())
    for classes in (None, [1], {"c0": 1, "c1": 2, "c2": 3, "c3": 4}):
        path.write_text(json.dumps({**good, "classes": classes}))
        assert warning(measured) == ""
    path.write_text('{"classes": ' + "[" * 600_000)
    assert warning(measured) == ""
    path.write_text(json.dumps({**good, "content": "of another measurement"}))
    assert warning(measured) == ""


def test_nothing_is_said_of_the_classes_of_files_that_changed_since(measured):
    path = measured.raw / DATASET / "labelsTr" / "c0.nii.gz"
    labels, geometry = read_labels(path)
    labels[2:4, 2:4, 2:4] = 2
    write_labels(labels, geometry, path)
    assert warning(measured) == ""
    path.unlink()
    assert class_warning(measured, DATASET, SCHEME, [TrainingCase("c0", (path,), path)]) == ""


@pytest.mark.parametrize("noted_in_one_file", [False, True])  # as an earlier version did
def test_what_was_measured_of_thousands_of_cases_with_a_hundred_classes_is_found_again(tmp_path, noted_in_one_file):
    (tmp_path / "file").touch()
    cases = tuple(TrainingCase(f"case_{i:04}", (tmp_path / "file",), tmp_path / "file") for i in range(3000))
    dataset = SimpleNamespace(cases=cases)
    sources = {"files": files_digest(cases), "sampled": True}
    values = {"classes": {case.name: list(range(105)) for case in cases}}
    write_json(tmp_path / MEASURED_FROM, {**sources, "content": "x", **(values if noted_in_one_file else {})})
    write_json(tmp_path / VALUES_MEASURED, {"content": "x", **values})
    assert (tmp_path / VALUES_MEASURED).stat().st_size > MESSAGE
    assert _unchanged(dataset, tmp_path / MEASURED_FROM, sources)
    assert measured_values(tmp_path, cases) == values["classes"]
