"""A dataset from elsewhere is copied into a workspace whole, or not at all."""

from __future__ import annotations

import pytest

from helpers import make_dataset
from napari_nnunet.errors import DatasetError, ResourceError
from napari_nnunet.events import Progress, drain
from napari_nnunet.formats.dataset.new_dataset import free_dataset_name, new_dataset, next_dataset_name
from napari_nnunet.formats.dataset.raw_dataset import open_dataset
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.jobs.dataset import cases
from napari_nnunet.jobs.dataset.cases import copy_dataset


@pytest.fixture
def source(tmp_path):
    folder = make_dataset(tmp_path / "elsewhere", cases=2, name="Dataset005_Test")
    (folder / "trash").mkdir()
    (folder / "trash" / "old.nii.gz").write_bytes(b"")
    return folder


@pytest.fixture
def workspace(tmp_path):
    return Workspace.at(tmp_path / "own")


def test_a_name_that_is_free_is_kept(source, workspace):
    target = drain(copy_dataset(source, workspace))
    assert target == workspace.raw / "Dataset005_Test"
    assert [case.name for case in open_dataset(target).cases] == ["c0", "c1"]
    assert not (target / "trash").exists()


def test_a_name_that_is_taken_gets_the_next_number(source, workspace):
    drain(copy_dataset(source, workspace))
    assert drain(copy_dataset(source, workspace)).name == "Dataset001_Test"


def test_a_number_that_another_dataset_has_is_not_given_twice(source, workspace):
    (workspace.raw / "Dataset005_Other").mkdir(parents=True)
    assert drain(copy_dataset(source, workspace)).name == "Dataset001_Test"


@pytest.mark.parametrize("typed", ["Dataset12_Cells", "Dataset012_Cells", " Dataset012 Cells"])
def test_a_new_dataset_keeps_the_number_that_was_typed(workspace, typed):
    assert next_dataset_name(workspace, typed) == "Dataset012_Cells"
    (workspace.results / "Dataset012_Cells").mkdir(parents=True)  # of one that was removed
    with new_dataset(workspace, typed) as (_, target):
        assert target.name == "Dataset012_Cells"
    (workspace.preprocessed / "Dataset012_Nuclei").mkdir(parents=True)
    for make in (lambda: next_dataset_name(workspace, typed), lambda: new_dataset(workspace, typed).__enter__()):
        with pytest.raises(DatasetError, match="The number 12 is taken by .*Dataset012_Nuclei") as caught:
            make()
        assert caught.value.in_window.endswith("Choose another number, or remove it.")


@pytest.mark.parametrize("typed", ["Dataset0012_B", "Dataset12_B"])
def test_zeros_in_front_make_no_other_number(workspace, typed):
    (workspace.raw / "Dataset012_A").mkdir(parents=True)
    for make in (lambda: next_dataset_name(workspace, typed), lambda: new_dataset(workspace, typed).__enter__()):
        with pytest.raises(DatasetError, match="The number 12 is taken by .*Dataset012_A"):
            make()
    assert free_dataset_name(workspace, typed) == "Dataset001_B"


def test_a_file_takes_no_number(workspace):
    workspace.raw.mkdir(parents=True)
    (workspace.raw / "Dataset004_X.zip").touch()
    with new_dataset(workspace, "Dataset004_X") as (_, target):
        assert target.name == "Dataset004_X"
    for number in (1, 2, 3):
        (workspace.raw / f"Dataset00{number}_Y").mkdir()
    assert next_dataset_name(workspace, "Z") == "Dataset005_Z"  # 4 is that folder by now


def test_a_cancelled_copy_leaves_nothing(source, workspace):
    job = copy_dataset(source, workspace)
    while not isinstance(next(job), Progress):
        pass
    job.close()
    assert list(workspace.raw.iterdir()) == []


def test_a_copy_that_fails_leaves_nothing_and_says_why(source, workspace, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cases.shutil, "copyfile", full)
    with pytest.raises(ResourceError, match="No space left"):
        drain(copy_dataset(source, workspace))
    assert list(workspace.raw.iterdir()) == []
