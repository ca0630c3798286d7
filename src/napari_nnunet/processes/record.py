"""A job's events, appended to a file while it runs: a window or a shell can attach to it at any time."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from napari_nnunet.errors import ResourceError, for_people
from napari_nnunet.events import Ended, Event, Job, Note, Progress, Pump, to_json
from napari_nnunet.formats.atomic import make_folder, write_text
from napari_nnunet.formats.json_lines import append_lines

T = TypeVar("T")
_KEPT = 1000  # events, while the file cannot be written
PROGRESS_EVERY = 2.0  # seconds between two progress events, in a file of many hours


class Recorder:
    """Appends events to a file; if that fails they are kept back and tried again.

    Parameters
    ----------
    path : Path
        JSON lines.
    between : float
        Seconds between two progress events in a row; all of them are kept where it is 0.
    """

    def __init__(self, path: Path, between: float = 0.0) -> None:
        self._path = path
        self._between = between
        self._kept: list[str] = []
        self._last_progress = 0.0
        self.problem: ResourceError | None = None

    def take(self, event: Event) -> None:
        """Append an event."""
        if isinstance(event, Progress):
            if event.done < event.total and event.time - self._last_progress < self._between:
                return
            self._last_progress = event.time
        self._kept.append(to_json(event))
        try:
            append_lines(self._path, self._kept)
        except ResourceError as error:
            self.problem = error
            del self._kept[:-_KEPT]
        else:
            self._kept.clear()

    @contextmanager
    def failures(self) -> Iterator[None]:
        """Append why the block failed, whatever the error, and keep its traceback in a file beside."""
        report = self._path.with_suffix(".report.txt")
        with suppress(OSError):
            report.unlink(missing_ok=True)
        try:
            yield
        except Exception as error:
            with suppress(ResourceError):  # of several processes the first one knows why; the others miss it
                if not report.exists():
                    make_folder(report.parent)  # nothing may have happened yet that was written there
                    write_text(report, "".join(traceback.format_exception(error)))
            kept = str(report) if report.exists() else ""
            self.take(Ended(how="failed", text=for_people(error).in_window, report=kept))
            raise


def _finished(_: object) -> Ended:
    return Ended(how="finished", text="Finished.")


def recorded(job: Job[T], path: Path, *, ending: Callable[[T], Ended] = _finished, between: float = 0.0) -> Job[T]:
    """Pass a job's events on and append each to a file, how it ended too; a disk that refuses is a note, not the end.

    Parameters
    ----------
    job : Job
        Any.
    path : Path
        JSON lines; a failure's traceback goes to a file beside it, with the ending ``.report.txt``.
    ending : callable
        Puts a result into words.
    between : float
        As for :class:`Recorder`.
    """
    recorder = Recorder(path, between)
    warned = False
    with recorder.failures(), Pump(job) as pump:
        for event in pump:
            recorder.take(event)
            yield event
            if recorder.problem is not None and not warned:
                warned = True
                yield Note.about(
                    "The work continues, but its progress is not recorded as long as its file cannot be written.",
                    recorder.problem,
                )
        last = ending(pump.result)
        recorder.take(last)
        yield last
    return pump.result
