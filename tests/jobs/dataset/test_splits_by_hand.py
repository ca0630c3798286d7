"""splits_final.json is written by hand, too: what is not a list of names is refused, and never read as one."""

from __future__ import annotations

import json

import pytest

from helpers import DATASET, make_dataset
from napari_nnunet.engine.training.splits import Split
from napari_nnunet.errors import DatasetError
from napari_nnunet.events import Note, drain
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.jobs.dataset.splits import fold_faults, read_splits, repeat_warning, twice_warning, validated_twice
from napari_nnunet.jobs.dataset.verify import verify
from napari_nnunet.jobs.planning.folds import fold_job
from napari_nnunet.jobs.planning.plan_and_preprocess import plan_and_preprocess
from napari_nnunet.schema.requests.dataset import VerifyRequest
from napari_nnunet.schema.requests.planning import FoldsRequest, PlanAndPreprocessRequest


@pytest.mark.parametrize(
    "content",
    [
        {}, {"train": ["a"], "val": ["b"]}, None, [1], [{}], [{"train": "abc", "val": ["d"]}],
        [{"train": ["a"], "val": "b"}], [{"train": {"a": 1}, "val": ["b"]}], [{"train": [None], "val": ["b"]}],
        [{"train": [["a"]], "val": ["b"]}], [{"train": ["a"], "VAL": ["b"]}],
    ],
    ids=json.dumps,
)  # fmt: skip
def test_what_is_no_list_of_names_is_refused(tmp_path, content):
    """The text "abc" has once been the cases a, b and c, and an object no fold at all, so that all were drawn."""
    path = tmp_path / "splits_final.json"
    path.write_text(json.dumps(content))
    with pytest.raises(DatasetError, match="It must be a list of"):
        read_splits(path)


def test_names_that_are_numbers_are_names(tmp_path):
    path = tmp_path / "splits_final.json"
    path.write_text(json.dumps([{"train": [1, "b"], "val": ["3"], "test": []}]))
    assert read_splits(path) == (Split(("1", "b"), ("3",)),)


BAD = [
    {"train": ["c0", "case_9"], "val": ["c1"]}, {"train": ["c0", "c1"], "val": ["c1", "c2"]},
    {"train": ["c0", "c0"], "val": ["c3"]}, {"train": ["c0", "case_9"], "val": ["c2"]}, {"train": ["c0"], "val": []},
]  # fmt: skip
SAID = (
    "fold 0, 3: the case case_9 is not in the dataset: this fold cannot be trained",
    "fold 1: the case c1 is in training and validation at once: this fold cannot be trained",
    "fold 2: the case c0 is listed more than once; each time counts",
    "fold 4: 1 case for training and 0 for validation; both need some",
    "fold 0, 1: the case c1 is in the validation of each; what is compared over all folds counts each time",
    "fold 1, 3: the case c2 is in the validation of each; what is compared over all folds counts each time",
)


@pytest.mark.usefixtures("in_one_process")
@pytest.mark.parametrize("brought", [True, False])
def test_folds_that_contradict_the_cases_are_said_before_anything_is_computed(tmp_path, brought):
    workspace = Workspace.at(tmp_path)
    raw = make_dataset(tmp_path, spacing=(1.0, 1.0, 1.0))
    (workspace.preprocessed / DATASET).mkdir(parents=True)
    path = (raw if brought else workspace.preprocessed / DATASET) / "splits_final.json"
    path.write_text(json.dumps(BAD))
    told = [problem.text for problem in drain(verify(workspace, VerifyRequest(dataset=DATASET))).problems]
    assert [text for text in told if text.startswith("fold")] == list(SAID)
    asked = PlanAndPreprocessRequest(dataset=DATASET, preprocess=False)
    for job in (plan_and_preprocess(workspace, asked), fold_job(workspace, FoldsRequest(dataset=DATASET))):
        notes: list[Note] = []
        drain(job, notes.append)
        said = "\n".join(note.text for note in notes if isinstance(note, Note))
        assert [said.count(text) for text in SAID] == [1] * len(SAID)


def test_a_case_that_a_fold_lists_twice_is_said_before_it_is_trained():
    (said,) = repeat_warning(Split(("a", "b", "a"), ("c", "c")), 3)
    assert said == "splits_final.json, fold 3: 2 cases (a, c) are listed more than once; each time counts."
    assert not repeat_warning(Split(("a",), ("a",)), 3)


def test_cases_that_several_folds_validate_are_said():
    splits = (Split(("a", "b"), ("c", "d")), Split(("a", "d"), ("b", "c")), Split(("b", "c"), ("a", "d")))
    assert validated_twice(splits) == {(0, 1): ["c"], (0, 2): ["d"]}
    said = "in the validation of each; what is compared over all folds counts each time"
    assert fold_faults(splits, "abcd") == [f"fold 0, 1: the case c is {said}", f"fold 0, 2: the case d is {said}"]
    (warning,) = twice_warning(splits)
    assert warning.startswith(
        "splits_final.json: 2 cases (c, d) are in the validation of several folds; what is compared"
    )
    assert twice_warning(splits[:1]) == ()
    assert fold_faults((Split(("a",), ("b",)), Split(("b",), ("a",))), "ab") == []
