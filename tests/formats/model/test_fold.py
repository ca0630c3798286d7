"""The folder of a fold: what a training is told while it runs, and what an earlier one leaves."""

from __future__ import annotations

import os
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

import nasty
from napari_nnunet.errors import ResourceError, SettingsError
from napari_nnunet.formats.claim import Runner
from napari_nnunet.formats.model import fold as module
from napari_nnunet.formats.model.fold import FoldFolder, Wishes, find_folds
from napari_nnunet.schema.json_text import message


@pytest.fixture
def fold(tmp_path):
    return FoldFolder.at(tmp_path / "Dataset001_Größe 1" / "nnUNetTrainer__nnUNetPlans__2d", 0)


@pytest.mark.parametrize(("name", "fold"), [("fold_0", 0), ("fold_12", 12), ("fold_all", "all"), ("fold_x", "all")])
def test_a_folder_tells_its_fold(name, fold):
    assert FoldFolder(Path(name)).fold == fold


def test_a_wish_is_heard_once(fold):
    assert fold.wishes() == Wishes()
    fold.path.mkdir(parents=True)
    fold.ask(finish_in=3)
    fold.ask(stop=True)
    assert fold.wishes() == Wishes(stop=True, finish_in=3)
    assert fold.wishes() == Wishes()
    assert not list(fold.path.iterdir())


@pytest.mark.parametrize(
    ("content", "stop", "finish_in"),
    [
        ({"stop": True, "finish_in": -1}, True, 0), ({"stop": 1, "finish_in": 5}, False, 5),
        ({"finish_in": True}, False, 0), ({"finish_in": 1_000_000}, False, 1_000_000),
        ({"finish_in": 1_000_001}, False, 0), ({"finish_in": 2.0}, False, 0), ({"colour": "red"}, False, 0),
    ],
)  # fmt: skip
def test_of_a_wish_that_means_nothing_the_rest_is_heard(content, stop, finish_in):
    found = Wishes.parse(content)
    assert (found.stop, found.finish_in) == (stop, finish_in)
    assert bool(found.ignored) == (content != {"finish_in": 1_000_000})


def test_whatever_lies_there_as_a_wish_a_training_goes_on(fold):
    fold.path.mkdir(parents=True)
    for _, content in nasty.all_spoiled({"stop": False, "finish_in": 0}):
        nasty.write(fold.path / "control.json", content)
        assert not fold.wishes().stop or content["stop"] is True
    (fold.path / "control.json").write_bytes(b"\xff{")
    assert fold.wishes() == Wishes(), "somebody may be just writing it"
    os.utime(fold.path / "control.json", (1, 1))
    assert fold.wishes() == Wishes(ignored="control.json: 'unreadable'")


def test_a_wish_that_is_half_written_is_heard_when_it_is_whole(fold):
    fold.path.mkdir(parents=True)
    with (fold.path / "control.json").open("w") as file:
        file.write('{"sto')
        file.flush()
        assert fold.wishes() == Wishes()
        file.write('p": true}')
    assert fold.wishes() == Wishes(stop=True)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names")
@pytest.mark.parametrize(
    "make", [os.mkfifo, Path.mkdir, lambda path: path.symlink_to(path)], ids=["pipe", "folder", "loop"]
)
def test_what_is_no_file_in_the_place_of_a_message_holds_nothing_up(fold, make):
    fold.path.mkdir(parents=True)
    make(fold.path / "running.json")
    assert fold.runner() is None
    os.utime(fold.path / "running.json", (1, 1), follow_symlinks=False)
    make(fold.path / "control.json")
    assert fold.wishes() == Wishes()
    with suppress(ResourceError):  # "... is a folder, but a file is expected"
        fold.ask(stop=True)
    with suppress(SettingsError), fold.claimed():  # "... cannot be removed. Delete it"
        assert fold.runner() == Runner.own()


def test_a_fold_is_trained_by_one_and_hears_nothing_that_was_said_before(fold):
    fold.path.mkdir(parents=True)
    fold.ask(stop=True)
    with fold.claimed():
        assert fold.runner() is not None
        assert fold.wishes() == Wishes()
        with pytest.raises(SettingsError, match=r"Fold 0 of nnUNetTrainer__nnUNetPlans__2d is already being trained"):
            fold.claimed().__enter__()
    assert fold.runner() is None


def test_a_wish_of_somebody_who_saw_the_claim_is_heard(fold, monkeypatch):
    hold = module.hold

    @contextmanager
    def held(path, busy):
        with hold(path, busy):
            assert fold.runner() is not None
            fold.ask(stop=True)  # before the training itself has gone on
            yield

    fold.path.mkdir(parents=True)
    fold.ask(finish_in=3)
    monkeypatch.setattr(module, "hold", held)
    with fold.claimed():
        assert fold.wishes().stop


def test_an_earlier_training_is_put_aside_whole_and_one_without_checkpoint_stays(fold):
    fold.path.mkdir(parents=True)
    fold.events.touch()
    assert fold.put_aside() is None
    places = []
    for i in range(2):
        fold.path.mkdir(exist_ok=True)
        fold.latest.write_text(str(i))
        places.append(fold.put_aside())
    assert len(set(places)) == 2
    assert [(place / "checkpoint_latest.pth").read_text(encoding="utf-8") for place in places] == ["0", "1"]
    assert (places[0] / "events.jsonl").exists()
    assert not fold.path.exists()


def test_checkpoints_come_with_the_final_one_first(fold):
    fold.path.mkdir(parents=True)
    for path in (fold.best, fold.latest, fold.final):
        path.touch()
    assert fold.checkpoints == [fold.final, fold.latest, fold.best]


def test_folds_of_a_workspace_are_found_and_nothing_else(tmp_path):
    for name in ("Dataset002_B/T__P__2d/fold_1", "Dataset002_B/T__P__2d/fold_all", "Dataset001_ä ö/T__P__2d/fold_0",
                 "Dataset002_B/trash/fold_0", "Other/T__P__2d/fold_0", "Dataset002_B/T__P__2d/crossval"):  # fmt: skip
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "Dataset002_B" / "T__P__2d" / "fold_2").touch()
    names = [str(f.path.relative_to(tmp_path).as_posix()) for f in find_folds(tmp_path)]
    assert names == [
        "Dataset001_ä ö/T__P__2d/fold_0", "Dataset002_B/T__P__2d/fold_1", "Dataset002_B/T__P__2d/fold_all"
    ]  # fmt: skip
    assert len(find_folds(tmp_path, "Dataset002_B")) == 2
    assert find_folds(tmp_path / "nowhere") == []


def test_only_objects_are_read_from_json(tmp_path):
    for content in nasty.VALUES:
        found = message(nasty.write(tmp_path / "a.json", content))
        assert found == (content if isinstance(content, dict) else {})
    assert message(tmp_path) == message(tmp_path / "nowhere") == {}
