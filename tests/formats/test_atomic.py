"""Files and folders appear whole or not at all."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import time

import psutil
import pytest

from napari_nnunet.errors import ResourceError
from napari_nnunet.formats import atomic
from napari_nnunet.formats.atomic import (
    copy_file,
    make_folder,
    partial_name,
    remove_leftovers,
    replace_folder,
    write_error,
    write_json,
    write_text,
    written_beside,
)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("failure", [RuntimeError, KeyboardInterrupt, GeneratorExit, MemoryError])
def test_whatever_ends_a_write_the_old_file_stays_alone(tmp_path, failure):
    path = tmp_path / "ä b.json"
    path.write_text("old")

    def interrupted():
        with written_beside(path) as temporary:
            temporary.write_text("half")
            raise failure

    with pytest.raises(failure):
        interrupted()
    assert names(tmp_path) == ["ä b.json"]
    assert path.read_text(encoding="utf-8") == "old"


def test_while_it_is_written_readers_see_the_old_file(tmp_path):
    path = tmp_path / "a"
    path.write_text("old")
    with written_beside(path, suffix=".nii.gz") as temporary:
        assert temporary.name.startswith(".a.partial-")
        assert temporary.name.endswith(".nii.gz")
        temporary.write_text("new")
        assert path.read_text(encoding="utf-8") == "old"
    assert path.read_text(encoding="utf-8") == "new"


def test_a_writer_that_writes_nothing_is_an_error(tmp_path):
    with pytest.raises(ResourceError, match="produced no file"), written_beside(tmp_path / "a"):
        pass
    assert names(tmp_path) == []


def test_unfinished_files_can_lie_elsewhere(tmp_path):
    staging = make_folder(tmp_path / "staging")
    target = make_folder(tmp_path / "target")
    with written_beside(target / "a", staging=staging, durable=False) as temporary:
        assert temporary.parent == staging
        temporary.write_text("x")
        assert names(target) == []
    assert names(target) == ["a"]
    assert names(staging) == []


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "No space left"),
        (errno.EDQUOT, "No space left"),
        (errno.EFBIG, "No space left"),
        (errno.EACCES, "No permission"),
        (errno.EROFS, "No permission"),
        (errno.EIO, "could not be written"),
        (errno.ENAMETOOLONG, "could not be written"),
    ],
)
def test_every_failure_names_the_file_and_the_cause(tmp_path, number, words):
    error = write_error(tmp_path / "a.json", OSError(number, os.strerror(number)))
    assert words in error.message
    assert str(tmp_path / "a.json") in error.message


def test_of_a_copy_the_source_that_is_gone_is_named_and_not_the_target(tmp_path):
    source, target = tmp_path / "stick" / "a.png", tmp_path / "w" / "b" / "a_0000.png"
    gone = write_error(target, FileNotFoundError(errno.ENOENT, "No such file or directory", str(source)))
    assert gone.message == f"{source} does not exist any more. If its disk was removed, connect it again."
    locked = write_error(target, PermissionError(errno.EACCES, "Permission denied", str(source)))
    assert locked.message == f"{source} could not be read: Permission denied."
    for own in (target, target.with_name(".a.tmp"), target.parent.parent):
        failure = PermissionError(errno.EACCES, "Permission denied", str(own))
        assert write_error(target, failure).message.startswith(f"No permission to write {target}")


def test_a_name_that_the_disk_refuses_is_a_sentence(tmp_path):
    with pytest.raises(ResourceError, match="could not be written"):
        write_text(tmp_path / ("x" * 300), "x")
    with pytest.raises(ResourceError, match="could not be written"):
        make_folder(tmp_path / ("x" * 300))
    (tmp_path / "file").touch()
    with pytest.raises(ResourceError, match="a folder is expected"):
        make_folder(tmp_path / "file" / "below")


def test_folders_are_made_with_their_parents_and_checked(tmp_path, monkeypatch):
    assert make_folder(tmp_path / "a" / "b").is_dir()
    assert make_folder(tmp_path / "a" / "b").is_dir()
    monkeypatch.setattr(atomic.os, "access", lambda path, mode: False)
    with pytest.raises(ResourceError, match="No permission"):
        make_folder(tmp_path / "a")


def test_leftovers_of_processes_that_are_gone_are_removed_and_no_others(tmp_path):
    gone = 2**22 + 7  # beyond the highest number of a process
    own = partial_name("mine")
    for name in (
        f".a.nii.gz.partial-{gone}-abc123.nii.gz",
        own,
        ".b.partial-x-1",
        ".c.partial-²-1",
        "d.partial-1",
        "e",
    ):
        (tmp_path / name).write_text("x")
    folder = tmp_path / f".results.partial-{gone}-abc123"
    (folder / "deep").mkdir(parents=True)
    (tmp_path / f".parent.partial-{os.getppid()}-1").touch()
    remove_leftovers(tmp_path)
    assert names(tmp_path) == sorted([own, ".b.partial-x-1", ".c.partial-²-1", f".parent.partial-{os.getppid()}-1", "d.partial-1", "e"])  # fmt: skip


@pytest.mark.skipif(os.name == "nt", reason="has no processes that ended and still have a number")
def test_a_leftover_of_a_process_that_nobody_asked_how_it_ended_is_removed(tmp_path):
    with subprocess.Popen([sys.executable, "-c", ""], stdout=subprocess.PIPE) as process:
        process.stdout.read()  # until it has ended
        left = tmp_path / f".a.partial-{process.pid}-abc123"
        left.touch()
        while psutil.Process(process.pid).status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.01)
        remove_leftovers(tmp_path)
        assert not left.exists()


def test_who_writes_first_in_a_folder_tidies_it(tmp_path):
    left = tmp_path / f".a.png.partial-{2**22 + 7}-abc123"
    left.touch()
    with written_beside(tmp_path / "b") as temporary:
        temporary.touch()
    assert names(tmp_path) == ["b"]


@pytest.mark.skipif(os.name == "nt", reason="notes no time at which a file got its name")
@pytest.mark.parametrize("number", [os.getpid(), os.getppid()], ids=["its own", "another's"])
def test_a_leftover_whose_process_number_was_given_anew_is_removed(tmp_path, monkeypatch, number):
    mark = partial_name("a").rpartition("-partial")[2].split("-")[-2]
    left = tmp_path / f".a.partial-{number}-{mark}-abc123"
    left.touch()
    remove_leftovers(tmp_path)
    assert left.exists()
    monkeypatch.setattr(atomic.psutil.Process, "create_time", lambda _: left.stat().st_ctime + 4000)
    remove_leftovers(tmp_path)
    assert not left.exists()


def test_json_is_written_as_nnunet_writes_it(tmp_path):
    write_json(tmp_path / "a.json", {"b": [1, float("nan")], "a": "ä"}, sort_keys=True)
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert text.startswith('{\n    "a": ')
    assert "NaN" in text
    assert json.loads(text)["a"] == "ä"


def test_json_that_cannot_be_said_leaves_the_old_file(tmp_path):
    write_json(tmp_path / "a.json", [1])
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", {"a": {1, 2}})
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == [1]
    assert names(tmp_path) == ["a.json"]


def test_copies_are_whole_or_absent(tmp_path):
    (tmp_path / "a").write_bytes(b"content")
    copy_file(tmp_path / "a", tmp_path / "b", durable=True)
    assert (tmp_path / "b").read_bytes() == b"content"
    with pytest.raises(ResourceError, match="could not be written"):
        copy_file(tmp_path / "none", tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == b"content"
    assert names(tmp_path) == ["a", "b"]


def test_a_folder_takes_the_place_of_another_or_leaves_it(tmp_path, monkeypatch):
    new, target = make_folder(tmp_path / "new"), make_folder(tmp_path / "target")
    (new / "n").touch()
    (target / "old").touch()
    rename, calls = os.rename, []

    def fails_once(source, goal):
        calls.append(source)
        if len(calls) == 2:
            raise OSError(errno.EIO, "broken disk")
        rename(source, goal)

    monkeypatch.setattr(atomic.os, "rename", fails_once)
    with pytest.raises(ResourceError, match="target could not be written"):
        replace_folder(new, target)
    assert names(target) == ["old"]
    assert names(new) == ["n"]
    replace_folder(new, target)
    assert names(target) == ["n"]
    assert names(tmp_path) == ["target"]


@pytest.mark.parametrize("name", ["c" * 240 + ".nii.gz", "ü" * 120 + ".nii.gz"])
def test_the_longest_names_can_be_written(tmp_path, name):
    with written_beside(tmp_path / name, suffix=".nii.gz") as temporary:
        temporary.write_bytes(b"whole")
    assert (tmp_path / name).read_bytes() == b"whole"


def test_what_a_killed_process_left_of_a_table_goes_when_it_is_written_again(tmp_path):
    gone = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True, check=True
    )
    left = tmp_path / f".a[1].csv.partial-{gone.stdout.strip()}-abcdef"
    other, running = tmp_path / left.name.replace("a[1]", "b"), tmp_path / f".a[1].csv.partial-{os.getppid()}-abcdef"
    write_json(tmp_path / "missing.json", {})  # whoever writes first in a folder tidies all of it
    for path in (left, other, running):
        path.write_text("")
    write_text(tmp_path / "a[1].csv", "x")
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([other.name, running.name, "a[1].csv", "missing.json"])


@pytest.mark.skipif(os.unlink not in os.supports_dir_fd, reason="this system finds files by their paths only")
def test_a_write_whose_folder_is_moved_meanwhile_leaves_nothing_in_it(tmp_path):
    """A model is put into the trash while a table is written in it."""
    (tmp_path / "model").mkdir()

    def write():
        with written_beside(tmp_path / "model" / "table.csv") as temporary:
            temporary.write_text("1")
            (tmp_path / "model").rename(tmp_path / "trash")

    with pytest.raises(ResourceError, match=r"table\.csv could not be written"):
        write()
    assert names(tmp_path / "trash") == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS])
def test_a_full_disk_during_a_copy_is_no_fault_of_the_source(tmp_path, monkeypatch, number):
    (tmp_path / "stick").mkdir()
    (tmp_path / "w").mkdir()
    (tmp_path / "stick" / "a.png").touch()

    def copy(source, target):
        raise OSError(number, os.strerror(number), os.fspath(source), None, os.fspath(target))  # as shutil does

    monkeypatch.setattr(shutil, "copyfile", copy)
    with pytest.raises(ResourceError, match=f"(No space left while writing|No permission to write) {tmp_path / 'w'}"):
        copy_file(tmp_path / "stick" / "a.png", tmp_path / "w" / "a.png")
    alone = OSError(number, os.strerror(number), str(tmp_path / "stick" / "a.png"))
    assert "could not be read" not in write_error(tmp_path / "w" / "a.png", alone).message


def test_what_could_not_be_renamed_or_staged_is_no_source(tmp_path):
    target = tmp_path / "w" / "a.png"
    for about, other in (
        (tmp_path / "staging" / partial_name("a.png"), None),
        (tmp_path / "elsewhere" / "a.png", str(target)),
    ):
        failed = PermissionError(errno.EACCES, "Permission denied", str(about), None, other)
        assert write_error(target, failed).message.startswith(f"No permission to write {target}")


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_a_folder_that_a_link_leads_to_is_the_one_that_is_written(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    failed = PermissionError(errno.EACCES, "Permission denied", str(tmp_path / "real" / "b.png"))
    assert write_error(tmp_path / "link" / "a.png", failed).message.startswith("No permission to write")
