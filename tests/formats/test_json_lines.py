"""Files that grow by whole lines."""

from __future__ import annotations

import json

import pytest

from napari_nnunet.errors import ResourceError
from napari_nnunet.formats import speed
from napari_nnunet.formats.json_lines import append_lines, read_lines


@pytest.mark.parametrize("before", ["", '{"a": 1}\n', '{"a": 1', "[1]\n", "\n\n", "\xff\n"])
def test_what_is_appended_is_read_back_whatever_stood_there(tmp_path, before):
    path = tmp_path / "x.jsonl"
    path.write_text(before, encoding="latin-1")
    append_lines(path, [json.dumps({"b": "é"}), json.dumps({"c": 3})])
    assert list(read_lines(path))[-2:] == [{"b": "é"}, {"c": 3}]
    assert path.read_bytes().startswith(before.encode("latin-1"))


def test_a_file_that_is_not_there_holds_nothing(tmp_path):
    assert list(read_lines(tmp_path / "x.jsonl")) == []


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(ResourceError, match="is a folder, but a file is expected"):
        append_lines(tmp_path, ["{}"])


def test_speeds_are_remembered_the_last_counts_and_old_ones_go(tmp_path, monkeypatch):
    monkeypatch.setattr(speed, "_path", lambda: tmp_path / "speed.jsonl")
    monkeypatch.setattr(speed, "_KEPT", 10)
    for i in range(45):
        speed.remember(f"network {i}", i + 1)
        speed.remember("often", i + 0.5)
    assert speed.seconds_per_run("often") == 44.5
    assert speed.seconds_per_run("network 44") == 45
    assert speed.seconds_per_run("network 1") is None
    assert len(list(read_lines(tmp_path / "speed.jsonl"))) <= 20


def test_a_notebook_that_cannot_be_written_is_no_reason_to_fail(tmp_path, monkeypatch):
    monkeypatch.setattr(speed, "_path", lambda: tmp_path)
    speed.remember("network", 1.0)
    assert speed.seconds_per_run("network") is None
