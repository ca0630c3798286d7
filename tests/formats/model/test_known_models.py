"""The list of models that a user worked with survives whatever happens to its file and to the models."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import nasty
from napari_nnunet.formats.model import known_models as module
from napari_nnunet.formats.model.known_models import forget_model, known_models, remember_model
from napari_nnunet.formats.workspace import Workspace


def model(folder):
    """Make what looks like a model; nothing is read to list it."""
    (folder / "fold_0").mkdir(parents=True)
    for name in ("plans.json", "dataset.json"):
        (folder / name).touch()
    return folder


@pytest.fixture
def workspace(tmp_path):
    return Workspace.at(tmp_path / "workspace")


def test_the_model_used_last_comes_first_and_each_once(workspace, tmp_path):
    theirs = model(workspace.results / "Dataset001_A" / "T__P__2d")
    a, b = (model(tmp_path / "Größe 1" / name) for name in ("a", "b"))
    for folder in (a, b, a):
        remember_model(folder)
    assert known_models(workspace) == [a, b, theirs]
    remember_model(theirs)
    assert known_models(workspace) == [theirs, a, b]


def test_models_that_are_gone_are_not_shown_and_come_back_with_their_disk(workspace, tmp_path):
    a = model(tmp_path / "a")
    remember_model(a)
    shutil.move(a, tmp_path / "elsewhere")
    assert known_models(workspace) == []
    shutil.move(tmp_path / "elsewhere", a)
    assert known_models(workspace) == [a]


def test_a_model_that_is_forgotten_keeps_its_files(workspace, tmp_path):
    a, b = (model(tmp_path / name) for name in "ab")
    forget_model(a)
    for folder in (a, b):
        remember_model(folder)
    forget_model(a)
    assert known_models(workspace) == [b]
    assert (a / "plans.json").exists()


def test_the_list_does_not_grow_for_ever(workspace, tmp_path):
    folders = [model(tmp_path / str(i)) for i in range(module._KEPT + 2)]
    for folder in folders:
        remember_model(folder)
    assert known_models(workspace) == folders[:1:-1]


def test_a_list_that_is_damaged_is_begun_anew(workspace, tmp_path):
    a = model(tmp_path / "a")
    remember_model(a)
    path = module._path()
    for _, content in nasty.all_spoiled({"models": [str(a)]}):
        nasty.write(path, content)
        assert set(known_models(workspace)) <= {a}
    for content in (b"", b"\xff\xfe", b'{"models": ["'):
        path.write_bytes(content)
        assert known_models(workspace) == []
    remember_model(a)
    assert known_models(workspace) == [a]


def test_folders_of_the_user_are_kept_apart_from_what_may_be_deleted(tmp_path):
    assert module._path().is_absolute()
    assert isinstance(module.cache_folder(), Path)
    assert not module._path().is_relative_to(module.cache_folder())
