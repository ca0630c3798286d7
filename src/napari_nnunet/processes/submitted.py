"""Trainings that were given to a scheduler: a small file for each job, which calls the job off when it is deleted.

The files lie beside the tickets of trainings that wait, so that whoever sees the folder of models sees them, too.
"""

from __future__ import annotations

import getpass
import re
import shutil
import subprocess
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from heapq import nsmallest
from pathlib import Path
from typing import Literal

from napari_nnunet.formats.atomic import make_folder, write_json
from napari_nnunet.formats.claim import Runner
from napari_nnunet.processes.queue import queue_folder
from napari_nnunet.schema.json_text import message

Given = Literal["local", "slurm"]
_RECORD = re.compile(r"\d{20}-\d+\.job")
_MOST = 1000  # records that are read
_PATIENCE = 20.0  # seconds until a scheduler answers
_YOUNG = 60.0  # seconds in which a job has no number yet, or is not listed yet


@dataclass(frozen=True)
class Submitted:
    """A job of a scheduler that waits or runs.

    Parameters
    ----------
    path : Path
        The record; a job whose record was deleted ends when it begins.
    name : str
        For people: configuration and fold.
    folder : str
        Of the fold; empty for a job that trains none.
    system : {"local", "slurm"}
        What runs it.
    number : str
        The scheduler's; empty until it is known.
    log : str
        The file with what it prints.
    since : float
        When it was submitted, or began last, in seconds since 1970.
    by : Runner
        The process that submitted it.
    """

    path: Path
    name: str
    folder: str
    system: Given
    number: str
    log: str
    since: float
    by: Runner

    @property
    def told(self) -> str:
        """What it is called in a sentence."""
        where = "of Slurm" if self.system == "slurm" else f"on {self.by.host}"
        return f"job {self.number} {where}" if self.number else f"a job {where}"

    @property
    def told_waiting(self) -> str:
        """What it is called while it waits: Slurm may have lost it, and not every computer can ask."""
        if self.system == "slurm" and not can_be_asked():
            return f"{self.told}; whether it still knows the job cannot be asked from this computer"
        return self.told

    def write(self) -> None:
        """Write the record."""
        content = {name: value for name, value in asdict(self).items() if name not in ("path", "by")}
        write_json(self.path, {**asdict(self.by), **content})

    def numbered(self, number: str, log: Path) -> Submitted:
        """Note the number of the job, unless it is over already."""
        found = replace(self, number=number, log=str(log))
        if self.path.is_file():
            found.write()
        return found

    def forget(self) -> None:
        """Delete the record."""
        with suppress(OSError):
            self.path.unlink(missing_ok=True)

    def call_off(self) -> None:
        """Take the job back before it begins; one that runs already is left alone by its folder's wishes only."""
        self.forget()
        self._scancel("--state=PENDING")

    def cancel(self) -> bool:
        """Let Slurm end the job, whatever it does; returns whether Slurm could be told so."""
        done = self._scancel()
        if done:
            self.forget()
        return done

    def _scancel(self, *how: str) -> bool:
        if self.system != "slurm" or not self.number or shutil.which("scancel") is None:
            return False
        with suppress(OSError, subprocess.SubprocessError):
            command = ["scancel", *how, self.number]
            return subprocess.run(command, capture_output=True, check=False, timeout=_PATIENCE).returncode == 0
        return False


def record(results: Path, name: str, folder: Path | None, system: Given) -> Submitted:
    """Write the record of a job that is about to be submitted, and return it.

    Parameters
    ----------
    results : Path
        ``nnUNet_results``.
    name, folder, system
        As for :class:`Submitted`.
    """
    by = Runner.own()
    path = make_folder(queue_folder(results)) / f"{time.time_ns():020d}-{by.pid}.job"
    made = Submitted(path, name, "" if folder is None else str(folder), system, "", "", time.time(), by)
    made.write()
    return made


def read_record(path: Path) -> Submitted | None:
    """Return what a record says; None if it is none."""
    content = message(path)
    by, since, system = Runner.parse(content), content.get("since"), content.get("system")
    words = [content.get(name) for name in ("name", "folder", "number", "log")]
    if by is None or not isinstance(since, int | float) or not all(isinstance(word, str) for word in words):
        return None
    if system != "local" and system != "slurm":
        return None
    name, folder, number, log = map(str, words)
    return Submitted(path, name, folder, system, number, log, float(since), by)


def begun(path: Path) -> None:
    """Note that a job begins, or waits, anew."""
    found = read_record(path)
    if found is not None:
        replace(found, since=time.time()).write()


def submitted(results: Path) -> list[Submitted]:
    """Return the jobs there are, first come first; those of a ``train_all`` here that is gone are forgotten."""
    there = (path for path in queue_folder(results).glob("*.job") if _RECORD.fullmatch(path.name))
    found = []
    for path in nsmallest(_MOST, there):
        entry = read_record(path)
        if entry is None:
            continue
        if entry.system == "local" and not entry.by.alive:
            entry.forget()
        else:
            found.append(entry)
    return found


def can_be_asked() -> bool:
    """Whether Slurm can be asked here which jobs it knows."""
    return shutil.which("squeue") is not None


def forget_gone(results: Path) -> tuple[Submitted, ...]:
    """Forget the jobs that Slurm does not know any more: somebody cancelled them, or their machine was lost.

    Only where Slurm can be asked, and only one's own.

    Returns
    -------
    tuple of Submitted
        Those that were forgotten; :func:`gone_text` says so.
    """
    jobs = [entry for entry in submitted(results) if entry.system == "slurm" and time.time() - entry.since > _YOUNG]
    if not jobs or not can_be_asked():
        return ()
    try:
        user = getpass.getuser()
        asked = subprocess.run(
            ["squeue", "--noheader", "--format=%A", f"--user={user}"],
            capture_output=True, text=True, check=True, timeout=_PATIENCE,
        )  # fmt: skip
    except (OSError, KeyError, subprocess.SubprocessError):
        return ()
    return tuple(_forgotten(jobs, user, known=asked.stdout.split()))


def gone_text(entry: Submitted) -> str:
    """Return what to say of a job that was forgotten."""
    number = f"job {entry.number}" if entry.number else "its job"
    return f"{entry.name}: Slurm no longer knows {number}, which was cancelled or lost its machine."


def _forgotten(jobs: Iterable[Submitted], user: str, *, known: Iterable[str]) -> Iterator[Submitted]:
    numbers = set(known)
    for entry in jobs:
        with suppress(OSError, KeyError, NotImplementedError):
            if entry.path.owner() == user and entry.number not in numbers:  # a job that is done took its record along
                entry.forget()
                yield entry
