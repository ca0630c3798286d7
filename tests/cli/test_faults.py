"""A fault of the program is one sentence in a shell; its traceback is kept in a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from napari_nnunet.cli import main
from napari_nnunet.cli.rooms import choosing, training
from napari_nnunet.errors import ResourceError
from napari_nnunet.formats.atomic import make_folder


@pytest.mark.parametrize("error", [KeyError("bogus"), RuntimeError("odd"), AssertionError()])
def test_what_is_unforeseen_is_a_sentence_and_a_report(tmp_path, monkeypatch, capsys, error):
    def fail(request, shell):
        raise error

    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setattr(choosing, "recipe", fail)
    assert main(["recipe", str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert "Traceback" not in said
    assert said.startswith(f"Error: Unexpected {type(error).__name__}")
    report = Path(said.strip().rpartition("the file ")[2].removesuffix("."))
    text = report.read_text(encoding="utf-8")
    assert "Traceback" in text and "recipe" in text and "Python" in text


def test_too_little_memory_is_said_without_a_report(tmp_path, monkeypatch, capsys):
    def fail(request, shell):
        raise MemoryError

    monkeypatch.setattr(choosing, "recipe", fail)
    assert main(["recipe", str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert "Not enough main memory" in said and "fault" not in said


def test_a_file_where_a_folder_is_wanted_is_named(tmp_path):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(ResourceError, match="out is a file or lies below one, but a folder is expected"):
        make_folder(tmp_path / "out")
    with pytest.raises(ResourceError, match="a folder is expected"):
        make_folder(tmp_path / "out" / "below")
    assert (tmp_path / "out").read_text(encoding="utf-8") == "mine"


def test_several_processes_are_started_with_what_was_asked_wherever_it_was_asked(tmp_path, monkeypatch):
    """A program that calls the command line has other words of its own."""
    started = []
    monkeypatch.setattr(training, "relaunch_distributed", lambda count, words: started.append((count, words)) or 0)
    (tmp_path / "nnUNet_raw" / "Dataset007_Balls").mkdir(parents=True)
    words = ["train", "7", "2d", "0", "1", "-num_gpus", "2", "-device", "cpu", "--epochs", "3"]
    assert main([*words, "--workspace", str(tmp_path), "--no_pbar"]) == 0
    ((count, passed),) = started
    assert count == 2
    assert "-num_gpus" not in passed
    assert passed[:5] == ["train", "7", "2d", "0", "1"]
    assert {"--epochs", "3", "-device", "cpu", "--workspace", str(tmp_path), "--no_pbar"} <= set(passed)
