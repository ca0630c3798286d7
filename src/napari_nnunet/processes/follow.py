"""A training as others see it, from its files: while it runs, after it ended, from any process."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from napari_nnunet.events import (
    CaseDone,
    CheckpointSaved,
    Ended,
    EpochDone,
    Event,
    Note,
    Previewed,
    Progress,
    Stage,
    from_json,
)
from napari_nnunet.formats.model.fold import FoldFolder, find_folds
from napari_nnunet.formats.workspace import Workspace
from napari_nnunet.processes.queue import tickets
from napari_nnunet.schema.model_name import label_of

Status = Literal["running", "waiting", "finished", "stopped", "failed", "interrupted"]
_BYTES = 1 << 20  # read at once
PREPARING = "Preparing the training"


@dataclass(eq=False)
class TrainingView:
    """What is known of the training of a fold.

    Parameters
    ----------
    folder : FoldFolder
        Its files.
    epochs : dict of int to EpochDone
        By number; an epoch that was run again counts as it was last.
    frames : dict of int to str
        Files of the film by number of epochs.
    stage : str
        What it does now.
    progress : Progress, optional
        Within that.
    notes : list of str
        What was said, the last last.
    saved : CheckpointSaved, optional
        The last checkpoint.
    cases : list of str
        Validation cases that are finished.
    ended : Ended, optional
        How it ended.
    """

    folder: FoldFolder
    epochs: dict[int, EpochDone] = field(default_factory=dict)
    frames: dict[int, str] = field(default_factory=dict)
    stage: str = ""
    progress: Progress | None = None
    notes: list[str] = field(default_factory=list)
    saved: CheckpointSaved | None = None
    cases: list[str] = field(default_factory=list)
    ended: Ended | None = None
    _position: int = 0
    _rest: bytes = b""

    def poll(self) -> bool:
        """Read what came since the last time; returns whether there was anything.

        At most a megabyte is read, so that a window stays alive: call again while it returns True.
        """
        try:
            size = self.folder.events.stat().st_size
            if size < self._position:  # begun anew
                self._forget()
            if size == self._position:
                return False
            with self.folder.events.open("rb") as file:
                file.seek(self._position)
                content = file.read(_BYTES)
        except OSError:
            return False
        self._position += len(content)
        *lines, self._rest = (self._rest + content).split(b"\n")
        self.take(_parsed(lines))
        return bool(content)

    def _forget(self) -> None:
        fresh = TrainingView(self.folder)
        self.__dict__.update(fresh.__dict__)

    def take(self, events: Iterable[Event]) -> None:
        """Learn from events."""
        for event in events:
            match event:
                case EpochDone():
                    self.epochs[event.epoch] = event
                case Previewed():
                    self.frames[event.epoch] = event.path
                case CaseDone():
                    self.cases.append(event.case)
                case Note():
                    self.notes.append(event.text)
                case _:
                    self._take_state(event)

    def _take_state(self, event: Event) -> None:
        match event:
            case Stage():
                self.stage, self.progress = event.name, None
                if event.name == PREPARING:
                    self.ended, self.cases = None, []
            case Progress():
                self.progress = event
            case CheckpointSaved():
                self.saved = event
            case Ended():
                self.ended = self.ended or event  # what fails after the first process fails because of it
            case _:
                pass

    @property
    def last(self) -> EpochDone | None:
        """The last finished epoch."""
        return self.epochs[max(self.epochs)] if self.epochs else None

    @property
    def status(self) -> Status:
        """What it is doing; "interrupted" where its process is gone without a word."""
        if self.folder.runner() is not None:
            return "running"
        if self.ended is not None:
            return self.ended.how
        if self.folder.final.is_file():
            return "finished"
        return "interrupted"

    @property
    def title(self) -> str:
        """Dataset, configuration and fold, for people."""
        model = self.folder.path.parent
        return f"{model.parent.name.partition('_')[2]} {label_of(model.name)} fold {self.folder.fold}"


def _parsed(lines: Iterable[bytes]) -> list[Event]:
    found = []
    for line in lines:
        try:
            found.append(from_json(line.decode("utf-8")))
        except (ValidationError, ValueError):  # torn by a kill, or of a later version
            continue
    return found


def find_trainings(workspace: Workspace) -> list[FoldFolder]:
    """Return the folds that were trained here or are, the newest first."""
    found = [folder for folder in find_folds(workspace.results) if folder.events.is_file() or folder.checkpoints]
    return sorted(found, key=_changed, reverse=True)


def _changed(folder: FoldFolder) -> float:
    path = folder.events if folder.events.is_file() else folder.path
    return path.stat().st_mtime


def waiting_folds(workspace: Workspace) -> list[FoldFolder]:
    """Return the folds that wait in the queue, and are not running."""
    found = [FoldFolder(Path(name)) for entry in tickets(workspace.results) for name in entry.folders]
    return [folder for folder in found if folder.runner() is None and not _done_since(folder, workspace)]


def _done_since(folder: FoldFolder, workspace: Workspace) -> bool:
    """Whether a fold of a process that still runs is finished already."""
    for entry in tickets(workspace.results):
        names = list(entry.folders)
        if str(folder.path) in names:
            later = names[names.index(str(folder.path)) + 1 :]
            return any(FoldFolder(Path(name)).runner() is not None for name in later)
    return False


def call_off(folder: FoldFolder, workspace: Workspace) -> bool:
    """Remove the ticket of a process that only waits with this fold; returns whether there was one."""
    for entry in tickets(workspace.results):
        if str(folder.path) in entry.folders and not any(
            FoldFolder(Path(name)).runner() is not None for name in entry.folders
        ):
            entry.path.unlink(missing_ok=True)
            return True
    return False
