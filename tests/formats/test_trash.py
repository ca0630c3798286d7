"""What was replaced or removed lies in the trash, whole, and comes back whole."""

from __future__ import annotations

import os
import time

import pytest

from napari_nnunet.errors import ResourceError
from napari_nnunet.formats import trash
from napari_nnunet.formats.trash import exchange, trash_path, trashed


def test_what_goes_into_the_trash_never_meets_what_is_there(tmp_path, monkeypatch):
    monkeypatch.setattr(time, "strftime", lambda form: "2020-01-01 10.00.00")
    found = []
    for _ in range(3):
        found.append(trash_path(tmp_path / "trash", "fold_0"))
        found[-1].mkdir()
    assert [path.name for path in found] == [
        "fold_0 2020-01-01 10.00.00", "fold_0 2020-01-01 10.00.00 (2)", "fold_0 2020-01-01 10.00.00 (3)",
    ]  # fmt: skip


def put(folder, name, text):
    (path := trash_path(folder, name)).mkdir()
    (path / "what").write_text(text)
    return path


def test_entries_are_listed_with_their_name_and_time_the_latest_first(tmp_path, monkeypatch):
    times = iter(["2026-01-02 10.00.00", "2026-01-02 10.00.00", "2026-03-01 09.30.00"])
    monkeypatch.setattr(time, "strftime", lambda form: next(times))
    for name in ("case 1", "case 1", "b (2)"):
        put(tmp_path, name, "")
    (tmp_path / "something else").mkdir()
    (tmp_path / "a file 2026-03-01 09.30.00").write_text("")
    assert [(e.name, e.time, e.number) for e in trashed(tmp_path)] == [
        ("b (2)", "2026-03-01 09:30", 1), ("case 1", "2026-01-02 10:00", 2), ("case 1", "2026-01-02 10:00", 1),
    ]  # fmt: skip
    assert trashed(tmp_path / "nowhere") == []


def test_a_folder_comes_back_and_what_took_its_place_goes_to_the_trash(tmp_path):
    put(tmp_path / "trash", "fold_0", "old")
    home = tmp_path / "fold_0"
    exchange(trashed(tmp_path / "trash")[0], home)
    assert (home / "what").read_text(encoding="utf-8") == "old" and trashed(tmp_path / "trash") == []
    put(tmp_path / "trash", "fold_0", "older")
    exchange(trashed(tmp_path / "trash")[0], home)
    assert (home / "what").read_text(encoding="utf-8") == "older"
    assert [(e.path / "what").read_text(encoding="utf-8") for e in trashed(tmp_path / "trash")] == ["old"]


def test_an_exchange_that_fails_leaves_everything_as_it_is(tmp_path, monkeypatch):
    old = put(tmp_path / "trash", "fold_0", "old")
    home = tmp_path / "fold_0"
    home.mkdir()
    (home / "what").write_text("new")
    rename = os.rename

    def refuse(source, target):
        if source == old:
            raise PermissionError(13, "no")
        rename(source, target)

    monkeypatch.setattr(trash.os, "rename", refuse)
    with pytest.raises(ResourceError):
        exchange(trashed(tmp_path / "trash")[0], home)
    assert (home / "what").read_text(encoding="utf-8") == "new" and (old / "what").read_text(encoding="utf-8") == "old"
    assert len(trashed(tmp_path / "trash")) == 1
