"""A fault of the program is one sentence in a shell; its traceback is kept in a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from napari_nnunet.cli import main
from napari_nnunet.cli.rooms import choosing


@pytest.mark.parametrize("error", [KeyError("bogus"), RuntimeError("odd"), RecursionError("deep"), AssertionError()])
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
