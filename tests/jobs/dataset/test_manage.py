"""Whole datasets are renamed with their plans and models, removed to the trash and brought back."""

from __future__ import annotations

import json
import os

import pytest

from helpers import TRAINED, Recipe, make_model, make_trainable
from napari_nnunet.errors import DatasetError, NnunetError, SettingsError
from napari_nnunet.events import drain as run
from napari_nnunet.formats import trash
from napari_nnunet.formats.model.folder import load_model
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.jobs.dataset.manage import bring_dataset_back, datasets_in_trash, remove_dataset, rename_dataset
from napari_nnunet.jobs.planning.folds import fold_job
from napari_nnunet.jobs.planning.preprocess import preprocess
from napari_nnunet.schema.requests.planning import FoldsRequest, PreprocessRequest

NEW = TRAINED.partition("_")[0] + "_Other"


@pytest.fixture
def workspace(tmp_path):
    make_trainable(tmp_path, Recipe(spacing=(1.0, 1.0, 1.0)))
    workspace = Workspace.at(tmp_path)
    make_model(workspace.results, Recipe(name=TRAINED))
    return workspace


def test_a_dataset_is_renamed_with_its_plans_and_models_and_nothing_is_stale(workspace):
    run(fold_job(workspace, FoldsRequest(dataset=TRAINED, folds=5)))
    assert run(rename_dataset(workspace, TRAINED, "Other")) == NEW
    assert workspace.dataset_names() == [NEW]
    plans = json.loads((workspace.preprocessed / NEW / "nnUNetPlans.json").read_text(encoding="utf-8"))
    assert plans["dataset_name"] == NEW
    assert len(json.loads((workspace.preprocessed / NEW / "splits_final.json").read_text(encoding="utf-8"))) == 5
    [model] = workspace.models(NEW)
    assert load_model(workspace.model(NEW, model)).plans.dataset_name == NEW
    request = PreprocessRequest(dataset=NEW, configurations=("3d_fullres",))
    run(preprocess(workspace, request))
    assert not run(preprocess(workspace, request)).done
    assert run(rename_dataset(workspace, NEW, TRAINED)) == TRAINED
    assert not run(preprocess(workspace, request.replace(dataset=TRAINED))).done


@pytest.mark.parametrize(
    ("new", "words"),
    [("../x", "cannot be part of a file name"), ("Taken", "already exists"), ("Dataset009_X", "keeps its number")],
)
def test_names_that_cannot_be_are_refused(workspace, new, words):
    (workspace.results / f"{TRAINED.partition('_')[0]}_Taken").mkdir()
    with pytest.raises(NnunetError, match=words):
        run(rename_dataset(workspace, TRAINED, new))
    assert workspace.dataset_names() == [TRAINED]


def test_a_dataset_that_something_works_on_stays(workspace):
    from napari_nnunet.formats.claim import claimed

    with claimed(workspace.raw / TRAINED, "busy"):
        for job in (rename_dataset(workspace, TRAINED, "Other"), remove_dataset(workspace, TRAINED)):
            with pytest.raises(SettingsError, match="busy by process"):
                run(job)
    with claimed(workspace.preprocessed / TRAINED, "busy", part="preprocessing"):
        for job in (rename_dataset(workspace, TRAINED, "Other"), remove_dataset(workspace, TRAINED)):
            with pytest.raises(SettingsError, match="busy by process"):
                run(job)
    fold = next(workspace.results.glob(f"{TRAINED}/*/fold_*"))
    from napari_nnunet.formats.model.fold import FoldFolder

    with FoldFolder(fold).claimed(), pytest.raises(SettingsError, match="being trained"):
        run(remove_dataset(workspace, TRAINED))
    assert workspace.dataset_names() == [TRAINED]


def test_a_rename_that_fails_halfway_leaves_the_old_name(workspace, monkeypatch):
    from napari_nnunet.jobs.dataset import manage

    rename = os.rename

    def refuse(source, target):
        if str(target) == str(workspace.results / NEW):
            raise PermissionError(13, "no")
        rename(source, target)

    monkeypatch.setattr(manage.os, "rename", refuse)
    with pytest.raises(NnunetError, match="No permission"):
        run(rename_dataset(workspace, TRAINED, "Other"))
    assert all((root / TRAINED).is_dir() for root in (workspace.raw, workspace.preprocessed, workspace.results))


def test_a_removed_dataset_comes_back_with_its_plans_and_its_models_stayed(workspace):
    files = sorted(path.relative_to(workspace.preprocessed) for path in workspace.preprocessed.rglob("*.*"))
    run(remove_dataset(workspace, TRAINED))
    assert workspace.dataset_names() == [] and len(workspace.models(TRAINED)) == 1
    [entry] = datasets_in_trash(workspace)
    bring_dataset_back(workspace, entry)
    assert workspace.dataset_names() == [TRAINED] and datasets_in_trash(workspace) == []
    back = sorted(path.relative_to(workspace.preprocessed) for path in workspace.preprocessed.rglob("*.*"))
    assert set(files) <= set(back)


def test_a_dataset_comes_back_with_its_own_plans_and_not_with_those_of_a_later_one_of_its_name(workspace, monkeypatch):
    for second in (1, 5):
        monkeypatch.setattr(trash.time, "strftime", lambda _, second=second: f"2026-01-01 10.00.0{second}")
        for root in (workspace.raw, workspace.preprocessed):
            (root / TRAINED).mkdir(exist_ok=True)
            (root / TRAINED / "which").write_text(str(second))
        run(remove_dataset(workspace, TRAINED))
    bring_dataset_back(workspace, datasets_in_trash(workspace)[1])
    assert [(root / TRAINED / "which").read_text() for root in (workspace.raw, workspace.preprocessed)] == ["1", "1"]


def test_a_dataset_does_not_come_back_over_another(workspace):
    run(remove_dataset(workspace, TRAINED))
    (workspace.raw / TRAINED).mkdir()
    with pytest.raises(DatasetError, match="exists again"):
        bring_dataset_back(workspace, datasets_in_trash(workspace)[0])
