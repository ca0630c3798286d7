"""Trainings as others see them, from their files: while they run, after they ended, from any process."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from napari_nnunet.events import Ended, EpochDone, Event, Note, Previewed, Progress, Stage, from_json
from napari_nnunet.formats.claim import Runner
from napari_nnunet.formats.model.fold import FoldFolder, find_folds
from napari_nnunet.formats.regular import regular
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.processes.queue import Ticket, tickets
from napari_nnunet.processes.submitted import Submitted, forget_gone, submitted
from napari_nnunet.schema.model_name import label_of

Status = Literal["running", "waiting", "finished", "stopped", "failed", "interrupted"]
_BYTES = 1 << 20  # read at once
_SHORTEST = 10  # bytes of an event
_MOST_COUNTED = 1 << 31  # epochs and steps; no training has more, and not every part of a window can show it
_MOST_CLASSES = 4096  # that an epoch tells the Dice of
_ORDER = {"running": 0, "waiting": 1}
_BETWEEN_QUESTIONS = 30.0  # seconds, to Slurm, which answers everybody
PREPARING = "Preparing the training"


@dataclass(frozen=True, eq=False)
class Training:
    """The training of a fold as it was found at one look.

    Parameters
    ----------
    folder : FoldFolder
        Its files.
    status : Status
        What it is doing; "interrupted" where its process is gone without a word.
    epochs : tuple of EpochDone
        In order; an epoch that was run again counts as it was last.
    frames : mapping of int to str
        Files of the film by number of epochs.
    stage : str
        What it does now.
    progress : Progress, optional
        Within that.
    note : str
        What was said last.
    ended : Ended, optional
        How it ended.
    checkpoints : tuple of Path
        Those that exist, the final one first.
    scored : float, optional
        When the summary of its validation was written, in seconds since 1970; None where there is none.
    host : str
        The other computer that trains it; empty where that is this one, or none.
    job : Submitted, optional
        The job of a scheduler that trains it or will.
    """

    folder: FoldFolder
    status: Status
    epochs: tuple[EpochDone, ...] = ()
    frames: Mapping[int, str] = field(default_factory=dict)
    stage: str = ""
    progress: Progress | None = None
    note: str = ""
    ended: Ended | None = None
    checkpoints: tuple[Path, ...] = ()
    scored: float | None = None
    host: str = ""
    job: Submitted | None = None

    @property
    def last(self) -> EpochDone | None:
        """The last finished epoch."""
        return self.epochs[-1] if self.epochs else None

    @property
    def alive(self) -> bool:
        """Whether a process trains it or will."""
        return self.status in _ORDER

    @property
    def title(self) -> str:
        """Dataset, configuration and fold, for people."""
        model = self.folder.path.parent
        return f"{model.parent.name.partition('_')[2]} {label_of(model.name)} fold {self.folder.fold}"


class _Reader:
    """Reads what the process of a fold writes, from where it stopped reading the last time."""

    def __init__(self, folder: FoldFolder) -> None:
        self.folder = folder
        self._forget()

    def _forget(self) -> None:
        self._position, self._rest = 0, b""
        self._by_number: dict[int, EpochDone] = {}
        self.epochs: tuple[EpochDone, ...] = ()
        self.frames: dict[int, str] = {}
        self.stage, self.note = "", ""
        self.progress: Progress | None = None
        self.ended: Ended | None = None
        self.was_running = False

    def read(self) -> None:
        """Read what came since the last time."""
        try:
            size = self.folder.events.stat().st_size
            if size < self._position:  # begun anew
                self._forget()
            if size == self._position:
                return
            with regular(self.folder.events).open("rb") as file:
                file.seek(self._position)
                while content := file.read(_BYTES):
                    self._position += len(content)
                    *lines, rest = (self._rest + content).split(b"\n")
                    self._rest = rest[:_BYTES]  # a line that is longer is no event
                    self._take(_parsed(lines))
        except OSError:
            return
        self.epochs = tuple(self._by_number[number] for number in sorted(self._by_number))
        self.frames = dict(self.frames)  # those that were handed out do not change

    def _take(self, events: Iterable[Event]) -> None:
        for event in events:
            match event:
                case EpochDone():
                    self._by_number[event.epoch] = event
                case Previewed():  # the folder may have been moved since, and a file from elsewhere is none of it
                    self.frames[event.epoch] = str(self.folder.film / _name(event.path))
                case Note():
                    self.note = event.in_window or event.text
                case Stage():
                    self.stage, self.progress = event.name, None
                    self.ended = None if event.name == PREPARING else self.ended
                case Progress():
                    self.progress = event
                case Ended():  # what fails after the first process fails because of it
                    report = event.report and str(self.folder.path / _name(event.report))
                    self.ended = self.ended or event.model_copy(update={"report": report})
                case _:
                    pass

    def status(self, runner: Runner | None, since: float | None) -> Status:
        """Return what the training is doing.

        Parameters
        ----------
        runner : Runner, optional
            The process that trains it.
        since : float, optional
            When a process began that means to train it, if one does, in seconds since 1970.
        """
        if runner is not None:
            self.was_running = True
            return "running"
        if since is not None and not self._over(since):
            return "waiting"
        if self.ended is not None:
            return self.ended.how
        return "finished" if self.folder.final.is_file() else "interrupted"

    def _over(self, since: float) -> bool:
        """Whether the process is done with this fold: it ended, or its folder was deleted while it was trained."""
        if self.ended is not None:
            return self.ended.time > since
        return self.was_running and not self.folder.path.exists()


def _parsed(lines: Iterable[bytes]) -> list[Event]:
    found = []
    for line in lines:
        if len(line) < _SHORTEST or not line.startswith(b"{"):  # a file may hold many millions
            continue
        try:
            event = from_json(line.decode("utf-8"))
        except ValueError:  # torn by a kill, or of a later version
            continue
        if _is_plausible(event):
            found.append(event)
    return found


def _is_plausible(event: Event) -> bool:
    """Whether its numbers are such as a training counts; who sends a folder of models may send any."""
    match event:
        case EpochDone():
            few = max(len(event.names), len(event.dice)) <= _MOST_CLASSES
            return few and 0 <= event.epoch < _MOST_COUNTED and 0 < event.epochs < _MOST_COUNTED
        case Progress():
            return 0 <= event.done < _MOST_COUNTED and 0 <= event.total < _MOST_COUNTED
        case Previewed():
            return 0 <= event.epoch < _MOST_COUNTED
        case _:
            return True


def _name(path: str) -> str:
    """Return the name of a file, whichever system wrote its path."""
    return path.replace("\\", "/").rpartition("/")[2]


class Follower:
    """Looks at the trainings of a workspace, again and again; it may do so on any thread, but on one at a time.

    Parameters
    ----------
    workspace : Workspace
        Where they lie.

    Attributes
    ----------
    gone : tuple of Submitted
        Jobs that Slurm turned out not to know any more at the last look.
    """

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self.gone: tuple[Submitted, ...] = ()
        self._readers: dict[Path, _Reader] = {}
        self._ask_at = 0.0

    def look(self, starting: Mapping[Path, float] | None = None) -> list[Training]:
        """Return the trainings there are and those that stand in line: running ones first, then the latest.

        Parameters
        ----------
        starting : mapping of Path to float, optional
            Fold folders that a process was started for which may not stand in line yet, and when, in seconds since
            1970.
        """
        there = [f.path for f in find_folds(self.workspace.results) if f.events.is_file() or f.checkpoints]
        waiting = dict(starting or {})
        for ticket in tickets(self.workspace.results):
            waiting |= dict.fromkeys(_still_to_do(ticket), ticket.runner.created)
        self.gone = self._ask()
        jobs = {Path(job.folder): job for job in submitted(self.workspace.results) if job.folder}
        waiting |= {path: job.since for path, job in jobs.items()}
        self._readers = {
            path: self._readers.get(path) or _Reader(FoldFolder(path)) for path in dict.fromkeys([*there, *waiting])
        }
        found = [self._training(reader, waiting.get(path), jobs.get(path)) for path, reader in self._readers.items()]
        return sorted(found, key=lambda training: (_ORDER.get(training.status, 2), -_changed(training)))

    def _ask(self) -> tuple[Submitted, ...]:
        """Ask Slurm about its jobs, now and then."""
        if time.monotonic() < self._ask_at:
            return ()
        self._ask_at = time.monotonic() + _BETWEEN_QUESTIONS
        return forget_gone(self.workspace.results)

    def _training(self, reader: _Reader, since: float | None, job: Submitted | None) -> Training:
        reader.read()
        folder = reader.folder
        try:
            scored: float | None = (folder.validation / "summary.json").stat().st_mtime
        except OSError:
            scored = None
        runner = folder.runner()
        status = reader.status(runner, since)
        return Training(
            folder=folder,
            status=status,
            epochs=reader.epochs,
            frames=reader.frames,
            stage=reader.stage,
            progress=reader.progress,
            note=reader.note,
            ended=reader.ended,
            checkpoints=tuple(folder.checkpoints),
            scored=scored,
            host="" if runner is None or runner.here else runner.host,
            job=job if status in _ORDER else None,
        )


def _changed(training: Training) -> float:
    if training.last is not None:
        return training.last.time
    return max((path.stat().st_mtime for path in training.checkpoints if path.exists()), default=0.0)


def _still_to_do(ticket: Ticket) -> list[Path]:
    """Return the folds that a process has before it: those after the one it trains, or all where it only waits."""
    folders = [Path(name) for name in ticket.folders]
    running = [i for i, path in enumerate(folders) if FoldFolder(path).runner() is not None]
    return folders[running[-1] + 1 :] if running else folders


def call_off(folder: FoldFolder, workspace: Workspace) -> bool:
    """Take back what only waits with this fold, the ticket of a process or a job; returns whether there was any."""
    for entry in tickets(workspace.results):
        if str(folder.path) in entry.folders and not any(
            FoldFolder(Path(name)).runner() is not None for name in entry.folders
        ):
            entry.path.unlink(missing_ok=True)
            return True
    jobs = [job for job in submitted(workspace.results) if job.folder == str(folder.path) and folder.runner() is None]
    for job in jobs:
        job.call_off()
    return bool(jobs)
