"""Trainings stand in line: first come, first served, and who is gone holds up nobody."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import asdict, replace

import pytest

import nasty
from napari_nnunet.errors import ResourceError
from napari_nnunet.formats.atomic import write_json
from napari_nnunet.formats.claim import Runner
from napari_nnunet.processes import queue
from napari_nnunet.processes.queue import ahead_of, queue_folder, ticket, tickets


@pytest.fixture
def results(tmp_path):
    return tmp_path / "Größe 1" / "nnUNet_results"


def stand(results, name, runner, folders=()):
    queue_folder(results).mkdir(parents=True, exist_ok=True)
    path = queue_folder(results) / f"{name}.json"
    write_json(path, {**asdict(runner), "folders": [str(folder) for folder in folders]})
    return path


def gone():
    return replace(Runner.own(), created=1.0)  # the number is taken again, by a process that began later


def test_the_first_that_came_is_served_first(results):
    with ticket(results, [results / "fold_0", results / "fold_1"]) as first, ticket(results, []) as second:
        assert first.folders == (str(results / "fold_0"), str(results / "fold_1"))
        assert [entry.path for entry in tickets(results)] == [first.path, second.path]
        assert (ahead_of(first, results), ahead_of(second, results)) == (0, 1)
        first.path.unlink()
        assert ahead_of(first, results) is None
        assert ahead_of(second, results) == 0


def test_a_ticket_lasts_as_long_as_the_block_however_it_ends(results):
    seen = []
    with suppress(KeyboardInterrupt), ticket(results, []):
        seen = tickets(results)
        raise KeyboardInterrupt
    assert len(seen) == 1
    assert tickets(results) == []
    assert not queue_folder(results).exists()


def test_the_last_in_line_leaves_no_folder_and_what_was_printed_stays(results):
    with ticket(results, []), ticket(results, []):
        pass
    assert not queue_folder(results).exists()
    with ticket(results, []):
        (queue_folder(results) / "fold_0.log").touch()
    assert [path.name for path in queue_folder(results).iterdir()] == ["fold_0.log"]


def test_a_folder_that_goes_away_while_somebody_stands_in_line_is_made_again(results, monkeypatch):
    write, left = queue.write_json, iter([True, True, False])

    def written(path, content):
        if next(left):
            path.parent.rmdir()
        write(path, content)

    monkeypatch.setattr(queue, "write_json", written)
    with ticket(results, []) as own:
        assert [entry.path for entry in tickets(results)] == [own.path]


def test_tickets_keep_their_order_when_the_clock_gets_another_digit(results, monkeypatch):
    monkeypatch.setattr(time, "time_ns", iter([999, 10**18, 10**19]).__next__)
    with ticket(results, []) as a, ticket(results, []) as b, ticket(results, []) as c:
        assert [entry.path for entry in tickets(results)] == [a.path, b.path, c.path]


def test_processes_that_are_gone_leave_the_line_with_their_tickets(results):
    left = stand(results, "00000000000000000001-1", gone())
    with ticket(results, []) as own:
        assert ahead_of(own, results) == 0
    assert not left.exists()


def test_processes_of_other_computers_have_a_line_of_their_own(results):
    theirs = stand(results, "00000000000000000001-1", replace(gone(), host="elsewhere"))
    with ticket(results, []) as own:
        assert ahead_of(own, results) == 0
    assert theirs.exists()


def test_files_that_are_no_tickets_hold_up_nobody_and_stay(results):
    queue_folder(results).mkdir(parents=True)
    whole = {**asdict(Runner.own()), "folders": 3}
    odd = [nasty.write(queue_folder(results) / f"0-{i}.json", c) for i, c in enumerate((*nasty.VALUES, whole))]
    torn = queue_folder(results) / "1.json"
    torn.write_text('{"pid": 1')
    (queue_folder(results) / "2024.log").touch()
    with ticket(results, []) as own:
        assert [entry.path for entry in tickets(results)] == [own.path]
    assert all(path.exists() for path in (*odd, torn))


def test_without_a_line_nobody_stands_in_it(results):
    assert tickets(results) == []


def test_a_file_in_the_way_of_the_line_is_told(results):
    results.parent.mkdir(parents=True)
    results.touch()
    with pytest.raises(ResourceError, match="nnUNet_results"), ticket(results, []):
        pass


def test_files_that_are_no_tickets_are_not_read_and_a_long_line_is_read_to_a_point(results, monkeypatch):
    monkeypatch.setattr(queue, "_MOST", 3)
    for number in range(5):
        stand(results, f"{number:020d}-1", Runner.own())
        stand(results, f"note {number}", Runner.own())
    with ticket(results, []) as own:
        assert [entry.path.stem for entry in tickets(results)] == [f"{n:020d}-1" for n in range(3)]
        assert ahead_of(own, results) == 3
        own.path.unlink()
        assert ahead_of(own, results) is None


def test_a_ticket_behind_what_is_none_was_not_called_off(results, monkeypatch):
    monkeypatch.setattr(queue, "_MOST", 3)
    with ticket(results, []) as own:
        for number in range(5):
            (queue_folder(results) / f"{number:020d}-1.json").write_text("{]")
        assert ahead_of(own, results) == 0
