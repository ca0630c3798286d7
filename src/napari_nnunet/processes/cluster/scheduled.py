"""What a job of a scheduler does: run the command line, and let a training save before its time is up.

This is all that submitit pickles: the name of a class here, and strings.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from napari_nnunet.errors import ResourceError, TrainingError
from napari_nnunet.formats.model.fold import FoldFolder
from napari_nnunet.processes.alone import python
from napari_nnunet.processes.cluster.start import needed
from napari_nnunet.processes.submitted import begun

NOTICE = 120  # seconds before the time limit in which Slurm says that it comes
_SAVING = 90.0  # of these, for a training to save
_LOOK = 0.25  # seconds between two looks at the process
_ENDING = 20.0  # seconds until a process ends that is told to, a training after its step
# Slurm sends its signal to all processes of a job; those of the training are asked by a file, at a step's end.
_DEAF = ("/bin/sh", "-c", 'trap "" USR1 USR2; exec "$@"', "sh")


@dataclass(frozen=True)
class ScheduledJob:
    """A command line that a scheduler runs.

    Parameters
    ----------
    words : tuple of str
        Of the command line, beginning with the verb.
    fold : str
        Folder of the fold that is trained; empty where none is.
    record : str
        The file whose deletion calls the job off.
    variables : tuple of (str, str or None)
        Environment variables that are set, or with None removed.
    """

    words: tuple[str, ...]
    fold: str
    record: str
    variables: tuple[tuple[str, str | None], ...]

    def __call__(self) -> None:
        """Run it to its end.

        Raises
        ------
        ResourceError
            If the folder with the record is not seen here, or the job was cancelled.
        TrainingError
            If it failed, or was stopped before its end: jobs that need it are not to begin.
        """
        record = Path(self.record)
        if not record.is_file():
            raise ResourceError(
                "This job was cancelled before it began."
                if record.parent.is_dir()
                else f"This machine does not see {record.parent}. Jobs need the same files under the same paths as the "
                "machine that submitted them."
            )
        begun(record)
        told: list[float] = []
        signal.signal(signal.SIGTERM, lambda _number, _frame: told.append(time.monotonic()))
        command = [*_DEAF, python(), "-m", "napari_nnunet", *self.words]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, env=self._environment())
        try:
            status = self._wait(process, told)
        except SystemExit:  # it will be run again
            _end(process)
            raise
        except BaseException:
            _end(process)
            record.unlink(missing_ok=True)
            raise
        if not told:  # what is told to end may be run again
            record.unlink(missing_ok=True)
        if status or (self.fold and not FoldFolder(Path(self.fold)).final.is_file()):
            how = "was stopped" if told or not status else f"ended with the status {status}"
            raise TrainingError(f"'napari-nnunet {' '.join(self.words)}' {how}; what it printed is above.")

    def checkpoint(self) -> Any:
        """Let the training save, as submitit asks before the time is up; returns what is run again."""
        until = time.monotonic() + _SAVING
        while self._ask() and time.monotonic() < until:
            time.sleep(_LOOK)
        begun(Path(self.record))
        return needed("submitit.helpers").DelayedSubmission(self)

    def _ask(self) -> bool:
        """Ask the training to save and end; False if none of this job runs."""
        if not self.fold:
            return False
        folder = FoldFolder(Path(self.fold))
        runner = folder.runner()
        if runner is None or not runner.here or runner.pid not in {p.pid for p in _children()}:
            return False
        folder.ask(stop=True)
        return True

    def _wait(self, process: subprocess.Popen[bytes], told: list[float]) -> int:
        """Return the status of the process. It is polled: a signal is handled in between, and looks at it, too.

        A validation hears no wish; it ends when it is late.
        """
        while (status := process.poll()) is None:
            if told and (not self._ask() or time.monotonic() - told[0] > _SAVING):
                process.terminate()
            time.sleep(_LOOK)
        return status

    def _environment(self) -> dict[str, str]:
        found = {"OMP_WAIT_POLICY": "PASSIVE", **os.environ}
        for name, value in self.variables:
            found.pop(name, None)
            if value is not None:
                found[name] = value
        return found


def _children() -> list[psutil.Process]:
    return psutil.Process().children(recursive=True)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process and all it started."""
    family = _children()
    for one in family:
        with suppress(psutil.Error):
            one.terminate()
    for one in psutil.wait_procs(family, timeout=_ENDING)[1]:
        with suppress(psutil.Error):
            one.kill()
    process.poll()
