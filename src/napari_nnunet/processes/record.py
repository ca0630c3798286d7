"""A job's events, appended to a file while it runs: a window or a shell can attach to it at any time."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from napari_nnunet.events import Event, Job, Note, Progress, Pump, to_json

T = TypeVar("T")
_BETWEEN = 2.0  # seconds between two progress events in the file


class Recorder:
    """Appends events to a file; if that fails they are kept back and tried again.

    Parameters
    ----------
    path : Path
        JSON lines.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._kept: list[str] = []
        self._last_progress = 0.0
        self.problem: OSError | None = None

    def take(self, event: Event) -> None:
        """Append an event; of many progress events in a row only a few."""
        if isinstance(event, Progress):
            if event.done < event.total and event.time - self._last_progress < _BETWEEN:
                return
            self._last_progress = event.time
        self._kept.append(to_json(event) + "\n")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a", encoding="utf-8") as file:
                if file.tell() and not _ends_well(self._path):
                    file.write("\n")  # a kill or a full disk tore the last line
                file.writelines(self._kept)
        except OSError as error:
            self.problem = error
            del self._kept[:-1000]
        else:
            self.problem = None
            self._kept.clear()


def _ends_well(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, 2)
        return file.read(1) == b"\n"


def recorded(job: Job[T], path: Path) -> Job[T]:
    """Pass a job's events on and append each to a file; a disk that refuses is a note, not the end."""
    recorder = Recorder(path)
    warned = False
    with Pump(job) as pump:
        for event in pump:
            recorder.take(event)
            yield event
            if recorder.problem is not None and not warned:
                warned = True
                yield Note(
                    level="warning",
                    text=f"{path} cannot be written ({recorder.problem}). The training continues, but progress during "
                    "this time will not appear in the dock.",
                )
    return pump.result
