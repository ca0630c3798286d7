"""Trainings as they are seen from their files."""

from __future__ import annotations

import shutil
import time

import pytest

from napari_nnunet.events import Ended, EpochDone, Note, Progress, Stage, to_json
from napari_nnunet.formats.model.fold import FoldFolder
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.processes import follow
from napari_nnunet.processes.follow import PREPARING, Follower, call_off
from napari_nnunet.processes.queue import ticket


@pytest.fixture
def workspace(tmp_path):
    return Workspace.at(tmp_path)


def fold(workspace, number=0):
    return FoldFolder(workspace.results / "Dataset001_A" / "nnUNetTrainer__nnUNetPlans__2d" / f"fold_{number}")


def epoch(number, dice=0.5):
    return EpochDone(
        epoch=number, epochs=3, train_loss=-0.1, val_loss=-0.1, dice=(dice,), names=("a",), average=dice, rate=0.01,
        seconds=1.0, waiting=0.0, seconds_left=1.0, best=True,
    )  # fmt: skip


def write(folder, *events):
    folder.path.mkdir(parents=True, exist_ok=True)
    with folder.events.open("a") as file:
        file.writelines(to_json(event) + "\n" for event in events)


def only(found):
    assert len(found) == 1
    return found[0]


def test_what_a_training_wrote_is_read_as_it_grows(workspace):
    folder, follower = fold(workspace), Follower(workspace)
    assert follower.look() == []
    write(folder, Stage(name=PREPARING), Note(text="Fold 0."), Stage(name="Epoch 1 of 3"), epoch(0), epoch(1))
    before = only(follower.look())
    assert (before.note, before.stage, before.last.epoch) == ("Fold 0.", "Epoch 1 of 3", 1)
    write(folder, epoch(1, dice=0.7), Progress(done=1, total=2))
    now = only(follower.look())
    assert [e.dice[0] for e in now.epochs] == [0.5, 0.7]  # one that was run again counts as it was last
    assert [e.dice[0] for e in before.epochs] == [0.5, 0.5]  # what was handed out does not change


def test_a_training_that_is_begun_anew_is_read_from_its_beginning(workspace):
    folder, follower = fold(workspace), Follower(workspace)
    write(folder, epoch(0), epoch(1), epoch(2), Ended(how="finished", text="Finished."))
    assert only(follower.look()).status == "finished"
    folder.events.unlink()
    write(folder, Stage(name=PREPARING))
    assert only(follower.look()).epochs == ()
    assert only(follower.look()).status == "interrupted"


def test_a_process_waits_with_its_folds_trains_one_and_is_done_with_it(workspace):
    folders, follower = [fold(workspace, number) for number in (0, 1)], Follower(workspace)

    def states():
        return {training.folder.fold: training.status for training in follower.look()}

    with ticket(workspace.results, [folder.path for folder in folders]):
        assert states() == {0: "waiting", 1: "waiting"}
        with folders[0].claimed():
            write(folders[0], Stage(name=PREPARING), epoch(0))
            assert states() == {0: "running", 1: "waiting"}
            write(folders[0], Ended(how="finished", text="Finished."))
        assert states() == {0: "finished", 1: "waiting"}
        with folders[1].claimed():
            write(folders[1], Stage(name=PREPARING))
            assert states() == {0: "finished", 1: "running"}
    assert states() == {0: "finished", 1: "interrupted"}


def test_a_training_whose_folder_was_deleted_does_not_wait(workspace):
    folder, follower = fold(workspace), Follower(workspace)
    with ticket(workspace.results, [folder.path]), folder.claimed():
        write(folder, epoch(0))
        assert only(follower.look()).status == "running"
        shutil.rmtree(folder.path)
        assert only(follower.look()).status == "interrupted"
    assert follower.look() == []


def test_a_process_that_has_just_started_waits_although_it_has_no_ticket_yet(workspace):
    path = fold(workspace).path
    assert only(Follower(workspace).look({path: time.time()})).status == "waiting"


def test_one_look_lists_folders_and_tickets_once_however_many_trainings_there_are(workspace, monkeypatch):
    calls = []
    for name in ("find_folds", "tickets"):
        own = getattr(follow, name)
        monkeypatch.setattr(follow, name, lambda *a, own=own, name=name: calls.append(name) or own(*a))
    for number in range(5):
        write(fold(workspace, number), epoch(0))
    assert len(Follower(workspace).look()) == 5
    assert sorted(calls) == ["find_folds", "tickets"]


def test_only_a_process_that_waits_can_be_called_off(workspace):
    folder = fold(workspace)
    with ticket(workspace.results, [folder.path]):
        with folder.claimed():
            assert not call_off(folder, workspace)
        assert call_off(folder, workspace)
        assert not call_off(folder, workspace)
