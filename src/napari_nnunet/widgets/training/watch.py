"""The trainings of a workspace, looked at every second on a thread; the window only shows what was found."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

from qtpy.QtCore import QObject, QTimer, Signal

from napari_nnunet.processes.follow import Follower, Training
from napari_nnunet.processes.launch import DetachedTraining
from napari_nnunet.processes.submitted import Submitted, gone_text
from napari_nnunet.widgets.frame.state import State
from napari_nnunet.widgets.frame.words import failure_text, report_text
from napari_nnunet.widgets.frame.worker import Latest, on_a_thread
from napari_nnunet.widgets.training.words import fold_folders, log_tail, log_text

_LOOK_MS = 1000


class Watch(QObject):
    """Follows trainings and the processes that were started here.

    Emits ``seen`` after every look, ``died`` with what a process said that ended with an error and its report, ``gone``
    with a sentence about a job that Slurm does not know any more, and ``over`` when a training ended.

    Parameters
    ----------
    state : State
        Whose workspace is watched.
    parent : QObject
        The dock.
    """

    seen = Signal()
    died = Signal(str, str)
    gone = Signal(str)
    over = Signal()

    def __init__(self, state: State, parent: QObject) -> None:
        super().__init__(parent)
        self.state = state
        self.trainings: list[Training] = []
        self.started: list[tuple[subprocess.Popen[bytes], Path, dict[Path, float]]] = []
        self._follower = Follower(state.workspace)
        self._looking = Latest(self)
        self._trouble = ""
        self._timer = QTimer(self)
        self._timer.setInterval(_LOOK_MS)
        self._timer.timeout.connect(self.look)
        self._timer.start()
        state.changed.connect(self._follow)
        self.look()

    def find(self, path: Path | None) -> Training | None:
        """Return the training of a fold, None where there is none."""
        return next((training for training in self.trainings if training.folder.path == path), None)

    def start(self, request: DetachedTraining) -> Path:
        """Start the process of a request; returns the folder of its first fold."""
        process, log = request.start()
        folders = dict.fromkeys(fold_folders(request), time.time())
        self.started.append((process, log, folders))
        self.look()
        return next(iter(folders))

    def follow(self, process: subprocess.Popen[bytes], log: Path) -> None:
        """Tell what a process says that ends with an error; its jobs are listed by themselves."""
        self.started.append((process, log, {}))

    def withdraw(self, path: Path) -> None:
        """End a process that was started here for a fold, if it trains none yet: it may not look at the queue now."""
        running = {training.folder.path for training in self.trainings if training.status == "running"}
        for entry in list(self.started):
            process, _, folders = entry
            if path in folders and not running & set(folders):
                self.started.remove(entry)
                process.terminate()

    def look(self) -> None:
        """Look, unless the last look is still under way."""
        for entry in list(self.started):
            process, log, _ = entry
            if process.poll() is not None:
                self.started.remove(entry)
                if process.returncode != 0:
                    self.died.emit(log_tail(log), log_text(log))
        if not self._looking.running:
            starting = {path: begun for _, _, folders in self.started for path, begun in folders.items()}
            follower = self._follower
            job = on_a_thread(lambda: (follower.look(starting), follower.gone))
            self._looking.start(job, returned=self._found, errored=self._not_seen)

    def stop(self) -> None:
        """Look no more."""
        self._timer.stop()
        self._looking.stop()

    def _found(self, found: tuple[list[Training], tuple[Submitted, ...]]) -> None:
        trainings, gone = found
        self._trouble = ""
        alive = {training.folder.path for training in self.trainings if training.status == "running"}
        self.trainings = trainings
        self.seen.emit()
        if alive - {training.folder.path for training in trainings if training.status == "running"}:
            self.over.emit()
        for job in gone:
            self.gone.emit(gone_text(job))

    def _not_seen(self, error: BaseException) -> None:
        before, self._trouble = self._trouble, failure_text(error)
        if self._trouble != before:  # every second
            self.died.emit(self._trouble, report_text(error))

    def _follow(self) -> None:
        if self.state.workspace != self._follower.workspace:
            self._looking.stop()
            self._follower, self.trainings = Follower(self.state.workspace), []
            self.seen.emit()
            self.look()
