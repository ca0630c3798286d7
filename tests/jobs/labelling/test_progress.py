"""How far the labelling of a dataset is: counted from its labels and its best model."""

from __future__ import annotations

import json

import numpy as np
import pytest

from helpers import make_dataset, write_nifti
from napari_nnunet.events import drain
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.jobs.labelling import progress
from napari_nnunet.jobs.labelling.progress import Standing, look_at_standing, standing

SHAPE = (6, 12, 10)


@pytest.fixture
def workspace(tmp_path):
    return Workspace.at(tmp_path)


@pytest.fixture
def sparse(workspace):
    """Two cases, of one of which only a tenth is annotated."""
    folder = make_dataset(workspace.raw.parent, cases=2, shape=SHAPE)
    content = json.loads((folder / "dataset.json").read_text())
    content["labels"]["ignore"] = 2
    (folder / "dataset.json").write_text(json.dumps(content))
    labels = np.full(SHAPE, 2, np.uint8)
    labels.flat[: labels.size // 10] = 1
    write_nifti(folder / "labelsTr" / "c0.nii.gz", labels, (1.0, 0.8, 0.8))
    write_nifti(folder / "labelsTr" / "c1.nii.gz", np.full(SHAPE, 2, np.uint8), (1.0, 0.8, 0.8))
    return folder


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (1.0, "2 cases, 100 % of their voxels annotated."),
        (0.9999, "2 cases, more than 99 % of their voxels annotated."),
        (0.137, "2 cases, 14 % of their voxels annotated."),
        (0.0163, "2 cases, 1.6 % of their voxels annotated."),
        (0.00021, "2 cases, 0.021 % of their voxels annotated."),
        (0.0, "2 cases, 0 % of their voxels annotated."),
    ],
)
def test_a_small_share_is_not_rounded_to_nothing_nor_a_large_one_to_all(share, text):
    assert Standing(2, share, None, 0).text == text


def test_one_case_is_said_in_the_singular_and_where_it_was_measured():
    found = Standing(1, 0.5, 0.7123, 1, "Dataset001_A 2d", 1, partly=True)
    assert found.labelled == "1 case, 50 % of its voxels annotated"
    assert found.learnt == "Dice 0.712 on 1 validation case (only where annotated then)"
    assert found.text == f"{found.labelled}, {found.learnt}."
    assert Standing(7, 1.0, 0.7123, 5).learnt == "Dice 0.712 on 5 validation cases"


def test_what_is_annotated_is_counted_and_only_read_again_where_it_changed(workspace, sparse, monkeypatch):
    reads, read = [], progress.amount_of
    monkeypatch.setattr(progress, "amount_of", lambda file, *more: reads.append(file.name) or read(file, *more))
    known = {}
    assert drain(look_at_standing(workspace, sparse.name, known)).annotated == pytest.approx(0.05)
    assert sorted(reads) == ["c0.nii.gz", "c1.nii.gz"]
    drain(look_at_standing(workspace, sparse.name, known))
    assert len(reads) == 2
    write_nifti(sparse / "labelsTr" / "c1.nii.gz", np.ones(SHAPE, np.uint8), (1.0, 0.8, 0.8))
    assert drain(look_at_standing(workspace, sparse.name, known)).annotated == pytest.approx(0.55)
    assert reads[2:] == ["c1.nii.gz"]


def test_without_a_model_nothing_is_said_of_one(workspace, sparse):
    found = standing(workspace, sparse.name)
    assert (found.cases, found.model, found.known, found.dice) == (2, "", None, None)
    assert found.learnt == ""
