"""Trainings wait for each other: first come, first served, per workspace and computer."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from heapq import nsmallest
from pathlib import Path

from napari_nnunet.errors import ResourceError
from napari_nnunet.formats.atomic import make_folder, write_json
from napari_nnunet.formats.claim import Runner
from napari_nnunet.schema.json_text import message

_FOLDER = ".trainings"
_TICKET = re.compile(r"\d{20}-\d+\.json")
_TRIES = 5
_MOST = 1000  # tickets that are read; nobody stands in line behind more


@dataclass(frozen=True)
class Ticket:
    """A process that trains folds one after the other, or waits to.

    Parameters
    ----------
    path : Path
        The ticket's file; deleting it calls the process off while it waits.
    folders : tuple of str
        Fold folders in their order.
    runner : Runner
        The process.
    """

    path: Path
    folders: tuple[str, ...]
    runner: Runner


def queue_folder(results: Path) -> Path:
    """Return the folder of tickets and of what the processes print."""
    return results / _FOLDER


@contextmanager
def ticket(results: Path, folders: Sequence[Path]) -> Iterator[Ticket]:
    """Stand in line for as long as the block lasts.

    Parameters
    ----------
    results : Path
        ``nnUNet_results``.
    folders : sequence of Path
        What this process will train.
    """
    runner = Runner.own()
    names = tuple(str(folder) for folder in folders)
    path = _written(results, {**asdict(runner), "folders": list(names)})
    try:
        yield Ticket(path, names, runner)
    finally:
        with suppress(OSError):
            path.unlink(missing_ok=True)
            path.parent.rmdir()  # where nobody else stands in line, and nothing was printed


def _written(results: Path, content: dict[str, object]) -> Path:
    """Write a ticket; its folder goes away with whoever was the last in line, which may be just now."""
    for left in reversed(range(_TRIES)):
        path = make_folder(queue_folder(results)) / f"{time.time_ns():020d}-{os.getpid()}.json"
        try:
            write_json(path, content)
        except (OSError, ResourceError):
            if not left or path.parent.is_dir():
                raise
        else:
            break
    return path


def tickets(results: Path) -> list[Ticket]:
    """Return the queue on this computer, first come first; tickets of processes that are gone are removed."""
    found = []
    there = (path for path in queue_folder(results).glob("*.json") if _TICKET.fullmatch(path.name))
    for path in nsmallest(_MOST, there):
        content = message(path)
        runner, folders = Runner.parse(content), content.get("folders")
        if runner is None or not isinstance(folders, list) or not runner.here:
            continue
        if runner.alive:
            found.append(Ticket(path, tuple(map(str, folders)), runner))
        else:
            with suppress(OSError):
                path.unlink(missing_ok=True)
    return found


def ahead_of(own: Ticket, results: Path) -> int | None:
    """Return how many tickets come before this one; None if it was cancelled."""
    line = [entry.path for entry in tickets(results)]
    if own.path in line:
        return line.index(own.path)
    return len(line) if own.path.exists() else None  # behind more than are read, or behind what is no ticket
