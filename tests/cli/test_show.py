"""What a shell sees of a job: every word as it is, each choice once, and results on a stream of their own."""

from __future__ import annotations

import io
import sys

import pytest

from napari_nnunet.cli import main
from napari_nnunet.cli.show import show
from napari_nnunet.errors import ImageError
from napari_nnunet.events import CaseDone, CaseFailed, Note, Progress, Stage

ODD = "/data/[red]Fälle[/b] :smile: 1/a.nii.gz"


def job(*events, result=None, ends=None):
    try:
        yield from events
    except GeneratorExit:
        if ends is not None:
            ends.append("closed")
        raise
    return result


def terminal(monkeypatch):
    """Put a screen of 110 columns in the place of the error stream; the bar fits into a line, what is said does not."""
    screen = io.StringIO()
    screen.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "110")
    return screen


def test_the_result_is_returned_and_nothing_is_printed_among_results(capsys):
    assert show(job(Note(text="one"), result=7)) == 7
    out, err = capsys.readouterr()
    assert (out, err) == ("", "one\n")


def test_the_same_note_is_said_once_a_warning_every_time(capsys):
    show(job(*[Note(text="choice"), Note(level="warning", text="odd")] * 2))
    assert capsys.readouterr().err.splitlines() == ["choice", "Warning: odd", "Warning: odd"]


@pytest.mark.parametrize("verbose", [False, True])
def test_details_and_reports_are_shown_on_request(capsys, verbose):
    failed = CaseFailed(case="b", index=1, total=2, message="It is empty.", report="Traceback: x")
    show(job(Note(level="detail", text="fine print"), failed), verbose=verbose)
    err = capsys.readouterr().err
    assert "[2/2] b FAILED: It is empty." in err
    assert ("fine print" in err) == ("Traceback: x" in err) == verbose


def test_cases_say_how_long_they_took_or_that_they_were_there(capsys):
    done = [CaseDone(case="a", index=i, total=2, path=ODD, seconds=1.26, skipped=bool(i)) for i in range(2)]
    show(job(*done))
    assert capsys.readouterr().err.splitlines() == [f"[1/2] {ODD} (1.3 s)", f"[2/2] {ODD} (already there)"]


def test_beside_a_bar_names_are_shown_as_they_are_in_one_line(monkeypatch):
    events = [
        Stage(name=f"Drawing {ODD}", total=2), Progress(done=1, total=2), Stage(name="Next", total=None),
        Note(text=f"In {ODD}."), CaseFailed(case=ODD, index=0, total=1, message=f"{ODD} cannot be read." + 9 * " Sure."),
    ]  # fmt: skip
    screen = terminal(monkeypatch)
    show(job(*events))
    shown = screen.getvalue()
    assert f"Drawing {ODD}" in shown
    assert f"In {ODD}.\n" in shown
    assert f"[1/1] {ODD} FAILED: {ODD} cannot be read.{9 * ' Sure.'}\n" in shown


def test_an_error_is_passed_on_after_what_was_said(capsys):
    def fails():
        yield Note(text="before")
        raise ImageError("It is empty.")

    with pytest.raises(ImageError, match="It is empty"):
        show(fails())
    assert capsys.readouterr().err == "before\n"


@pytest.mark.parametrize("recorded", [False, True])
def test_ctrl_c_closes_the_job_and_is_passed_on(tmp_path, monkeypatch, recorded):
    from napari_nnunet.cli import show as module

    def interrupted(self, event):
        raise KeyboardInterrupt

    ends = []
    monkeypatch.setattr(module._Screen, "take", interrupted)
    with pytest.raises(KeyboardInterrupt):
        show(job(Note(text="one"), Note(text="two"), ends=ends), events=tmp_path / "e.jsonl" if recorded else None)
    assert ends == ["closed"]


def test_events_are_also_written_to_a_file(tmp_path, capsys):
    show(job(Note(text="Größe [b]")), events=tmp_path / "e.jsonl")
    assert "Größe [b]" in (tmp_path / "e.jsonl").read_text("utf-8")
    assert capsys.readouterr().err == "Größe [b]\n"


def test_a_terminal_does_not_obey_what_names_hold(capsys, monkeypatch):
    """A class may be called what clears a screen, or names its window."""

    def job():
        yield Note(text="The class \x1b]0;evil\x07\x9b2J is new.\nIt is kept.")

    show(job(), bar=False)
    assert capsys.readouterr().err == "The class \\x1b]0;evil\\x07\\x9b2J is new.\nIt is kept.\n"
    monkeypatch.setattr(sys.modules[main.__module__], "_carry_out", lambda *_, **__: print("Dice of \x1b[2Jorgan\t0.5"))
    assert not main(["doctor"])
    assert capsys.readouterr().out == "Dice of \\x1b[2Jorgan\t0.5\n"


def test_a_name_that_the_encoding_of_a_shell_lacks_is_written_by_numbers(tmp_path, monkeypatch):
    (tmp_path / "M\u00fcller.nii").write_bytes(b"no image")
    screen = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", screen)
    assert main(["look", str(tmp_path)]) in (0, 1)
    screen.flush()
    assert b"M\\xfcller" in screen.buffer.getvalue()
