"""splits_final.json is written by hand, too: what is no list of names is refused, and never read as one."""

from __future__ import annotations

import json

import pytest

from napari_nnunet.engine.training.splits import Split
from napari_nnunet.errors import DatasetError
from napari_nnunet.jobs.dataset.splits import read_splits


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
