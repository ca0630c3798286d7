"""Submit many trainings to a scheduler; where there is none, run them here, so many at a time."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from napari_nnunet.engine.machine import SHARED_BY, gpus
from napari_nnunet.errors import NnunetError, SettingsError
from napari_nnunet.events import Job, Note, Progress, Stage
from napari_nnunet.formats.regular import regular
from napari_nnunet.formats.results.inference_information import INFORMATION
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.jobs.scheduling.pieces import JobsLeft, Piece, make_pieces, script
from napari_nnunet.processes.cluster.scheduled import ScheduledJob
from napari_nnunet.processes.cluster.submit import Handle, LocalJobs, SlurmJobs, require_scheduler
from napari_nnunet.processes.cluster.where import Local, Queue, where
from napari_nnunet.processes.submitted import Submitted, forget_gone, gone_text, record
from napari_nnunet.schema.requests.training import TrainAllRequest

_LOOK = 0.25  # seconds between two looks at jobs
_HIDDEN = ("/tmp", "/var/tmp", "/dev/shm")
_TAIL = 2000  # characters of a log in which its last error is looked for


@dataclass(frozen=True)
class TrainAllResult:
    """What became of the jobs.

    Parameters
    ----------
    jobs : tuple of Piece
        All that were not at their end, in an order in which they can run.
    submitted : dict of str to str
        Numbers of the jobs by name.
    finished : tuple of str
        Those that ended well; jobs of Slurm run on when this is returned.
    failed : dict of str to str
        Those that did not, and why.
    script : str
        Where they were only to be shown: commands of a shell.
    """

    jobs: tuple[Piece, ...]
    submitted: dict[str, str] = field(default_factory=dict)
    finished: tuple[str, ...] = ()
    failed: dict[str, str] = field(default_factory=dict)
    script: str = ""


def train_all(workspace: Workspace, request: TrainAllRequest) -> Job[TrainAllResult]:
    """Train configurations and folds of a dataset as jobs of a scheduler.

    Parameters
    ----------
    workspace : Workspace
        Where dataset and models lie; all machines see it under the same paths.
    request : TrainAllRequest
        What is trained, and where.

    Returns
    -------
    TrainAllResult
        With Slurm as soon as all is submitted, else when all has ended.

    Raises
    ------
    SettingsError, ResourceError, DatasetError, PlanError
        Before anything is submitted: what a training refuses, and a scheduler that is not there. Where Slurm refuses
        a job, those that were submitted before are taken back.
    """
    place = where(request.cluster)
    if not request.dry_run:
        require_scheduler(place)
        for gone in forget_gone(workspace.results):
            yield Note(text=gone_text(gone))
    pieces = yield from make_pieces(workspace, request)
    if request.dry_run or not pieces.jobs:
        return TrainAllResult(pieces.jobs, script=script(workspace, pieces.jobs))
    if isinstance(place, Queue):
        return (yield from _submit(workspace, request, place, pieces))
    assert isinstance(place, Local)  # nothing else is left
    return (yield from _Here(workspace, request, place, pieces).run())


def _job(workspace: Workspace, piece: Piece, entry: Submitted, variables: dict[str, str | None]) -> ScheduledJob:
    settled = {**workspace.variables(), **variables}
    folder = "" if piece.folder is None else str(piece.folder.path)
    return ScheduledJob(piece.words, folder, str(entry.path), tuple(settled.items()))


def _submit(workspace: Workspace, request: TrainAllRequest, place: Queue, pieces: JobsLeft) -> Job[TrainAllResult]:
    """Give all jobs to Slurm, or none."""
    hidden = [str(path) for path in (workspace.results, workspace.preprocessed, place.logs) if _is_hidden(path)]
    if hidden:
        lie, which = ("lie", "folders") if len(hidden) > 1 else ("lies", "a folder")
        yield Note(
            level="warning",
            text=f"{', '.join(hidden)} {lie} in {which} for temporary files, which other machines usually do not see. "
            "Jobs there will fail and say so.",
        )
    executor = SlurmJobs(place, request.processes)
    elsewhere = [entry.name for entry in pieces.earlier.values() if entry.system != "slurm" or not entry.number]
    _require_known(pieces, elsewhere)
    numbers = {name: entry.number for name, entry in pieces.earlier.items()}
    made: list[Submitted] = []
    try:
        for piece in pieces.jobs:
            folder = None if piece.folder is None else piece.folder.path
            made.append(record(workspace.results, piece.name, folder, "slurm"))
            job = _job(workspace, piece, made[-1], {})
            handle = executor.submit(job, piece.name, [numbers[name] for name in piece.needs])
            numbers[piece.name] = handle.number
            made[-1] = made[-1].numbered(handle.number, handle.log)
            yield Note(text=f"{piece.name}: job {handle.number} of Slurm; it writes {handle.log}")
    except (NnunetError, GeneratorExit, KeyboardInterrupt):
        for entry in made:
            entry.call_off()
        raise
    return TrainAllResult(pieces.jobs, {piece.name: numbers[piece.name] for piece in pieces.jobs})


def _is_hidden(path: Path) -> bool:
    return any(path.is_relative_to(folder) for folder in (*_HIDDEN, tempfile.gettempdir()))


def _require_known(pieces: JobsLeft, elsewhere: Sequence[str]) -> None:
    """Refuse what would have to wait for jobs that this scheduler does not know."""
    for piece in pieces.jobs:
        for name in piece.needs:
            if name in pieces.earlier and pieces.earlier[name].name in elsewhere:
                raise SettingsError(
                    f"The job {piece.name} needs {name}, which is {pieces.earlier[name].told} already. Wait for that, "
                    "or stop it first.",
                    shell="To stop: napari-nnunet trainings --stop.",
                    window="Select it in the list to stop it.",
                )


class _Here:
    """Runs jobs on this computer, so many at a time, each when those it needs have ended well."""

    def __init__(self, workspace: Workspace, request: TrainAllRequest, place: Local, pieces: JobsLeft) -> None:
        self._workspace, self._request, self._pieces = workspace, request, pieces
        self._places = place.workers
        self._slots = list(range(place.workers))
        self._running: dict[str, tuple[Piece, Handle, int, float]] = {}
        self._left = list(pieces.jobs)
        self._records: dict[str, Submitted] = {}
        self._numbers: dict[str, str] = {}
        self._finished: list[str] = []
        self._failed: dict[str, str] = {}

    def run(self) -> Job[TrainAllResult]:
        """Run all; where this is ended, what runs saves."""
        _require_known(self._pieces, [entry.name for entry in self._pieces.earlier.values()])
        jobs, total = LocalJobs(), len(self._pieces.jobs)
        try:
            for piece in self._left:  # whoever sees the folder sees what waits, and can take it back
                folder = None if piece.folder is None else piece.folder.path
                self._records[piece.name] = record(self._workspace.results, piece.name, folder, "local")
            yield Stage(name="Trainings", total=total)
            while self._left or self._running:
                for name in [name for name, entry in self._running.items() if entry[1].over()]:
                    yield self._ended(name)
                for piece in self._left[:]:
                    yield from self._begin(piece, jobs)
                yield Progress(done=len(self._finished) + len(self._failed), total=total)
                time.sleep(_LOOK)
        finally:
            self._stop()
        return TrainAllResult(self._pieces.jobs, self._numbers, tuple(self._finished), self._failed)

    def _begin(self, piece: Piece, jobs: LocalJobs) -> Job[None]:
        """Start a job, if those it needs have ended well and there is a place."""
        lost = [name for name in piece.needs if name in self._failed]
        entry = self._records[piece.name]
        if lost or not entry.path.is_file():
            self._left.remove(piece)
            entry.forget()
            self._failed[piece.name] = f"it needs {lost[0]}" if lost else "it was cancelled"
            yield Note(level="warning", text=f"{piece.name} is not started: {self._failed[piece.name]}.")
        elif self._slots and all(name in self._finished for name in piece.needs):
            self._left.remove(piece)
            slot = self._slots.pop(0)
            begun = time.time()
            variables = _share(slot, self._places, self._request.processes)
            handle = jobs.submit(_job(self._workspace, piece, entry, variables))
            self._records[piece.name] = entry.numbered(handle.number, handle.log)
            self._numbers[piece.name] = handle.number
            self._running[piece.name] = (piece, handle, slot, begun)
            yield Note(text=f"{piece.name} started; its log is {handle.log}")

    def _ended(self, name: str) -> Note:
        piece, handle, slot, begun = self._running.pop(name)
        self._slots.append(slot)
        self._records[name].forget()
        if _has_ended_well(self._workspace, piece, begun):
            self._finished.append(name)
            return Note(text=f"{name} is finished.")
        self._failed[name] = _why(handle.log)
        return Note(level="warning", text=f"{name} is not finished: {self._failed[name]} ({handle.log})")

    def _stop(self) -> None:
        """Ask what runs to save and end, and wait for it."""
        for entry in self._records.values():
            entry.forget()
        for _, handle, _, _ in self._running.values():
            handle.end()
        while any(not handle.over() for _, handle, _, _ in self._running.values()):
            time.sleep(_LOOK)


def _share(slot: int, places: int, processes: int) -> dict[str, str | None]:
    """Return the variables of a place: its part of the cores, and GPUs of its own; submitit would hide all of them."""
    found, shared = gpus(), {SHARED_BY: str(places)}
    if not found:
        return {**shared, "CUDA_VISIBLE_DEVICES": os.environ.get("CUDA_VISIBLE_DEVICES")}
    own = [found[(slot * processes + i) % len(found)] for i in range(min(processes, len(found)))]
    return {**shared, "CUDA_VISIBLE_DEVICES": ",".join(own)}


def _has_ended_well(workspace: Workspace, piece: Piece, begun: float) -> bool:
    if piece.folder is not None:
        return piece.folder.final.is_file() and not piece.folder.latest.is_file()
    path = workspace.results / workspace.dataset_name(piece.words[1]) / INFORMATION
    return path.is_file() and path.stat().st_mtime >= begun - 1.0  # clocks of disks are coarse


def _why(log: Path) -> str:
    """Return the last error that a job printed."""
    try:
        text = regular(log).read_text(encoding="utf-8", errors="replace")[-_TAIL:]
    except OSError:
        return "it left no message"
    errors = [line for line in text.splitlines() if line.startswith("Error:")]
    if errors:
        return errors[-1].removeprefix("Error:").strip()
    return "it was paused, or its process was ended; submit it again to continue"
