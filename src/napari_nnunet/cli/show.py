"""Drive a job and show its events: a progress bar with the remaining time, notes, and a JSON-lines file on request."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from napari_nnunet.errors import printable
from napari_nnunet.events import CaseDone, CaseFailed, Event, Job, Note, Progress, Pump, Stage
from napari_nnunet.processes.record import recorded

if TYPE_CHECKING:
    from rich.progress import Progress as Bar
    from rich.progress import TaskID

T = TypeVar("T")


def show(job: Job[T], *, events: Path | None = None, bar: bool = True, verbose: bool = False) -> T:
    """Run a job to its end and return its result; Ctrl-C closes the job and is passed on.

    Parameters
    ----------
    job : Job
        The job.
    events : Path, optional
        Every event is appended to this file as one JSON line, at once.
    bar : bool
        Whether to draw a progress bar (never, where the output is no terminal).
    verbose : bool
        Also print details.
    """
    with ExitStack() as stack:
        pump = stack.enter_context(Pump(job if events is None else recorded(job, events)))
        screen = _Screen(stack, bar=bar and sys.stderr.isatty(), verbose=verbose)
        for event in pump:
            screen.take(event)
    return pump.result


class _Screen:
    """Events as text and a bar on the error stream; results belong to the output stream."""

    def __init__(self, stack: ExitStack, *, bar: bool, verbose: bool) -> None:
        self._verbose = verbose
        self._said: set[str] = set()
        self._bar: Bar | None = None
        self._task: TaskID | None = None
        if bar:
            from rich.console import Console  # only where a bar is drawn
            from rich.progress import (  # likewise
                BarColumn,
                MofNCompleteColumn,
                SpinnerColumn,
                TextColumn,
                TimeElapsedColumn,
                TimeRemainingColumn,
            )
            from rich.progress import Progress as Bar  # under the name that the type has above

            self._bar = stack.enter_context(
                Bar(
                    SpinnerColumn(),
                    TextColumn("{task.description}", markup=False),
                    BarColumn(),
                    MofNCompleteColumn(),
                    TimeElapsedColumn(),
                    TextColumn("left"),
                    TimeRemainingColumn(),
                    console=Console(stderr=True),
                    transient=True,
                )
            )

    def _say(self, text: str) -> None:
        text = printable(text)
        if self._bar is not None:
            # As it is: names of files may hold what rich takes for a style, or for the name of a picture.
            self._bar.console.print(text, markup=False, emoji=False, highlight=False, soft_wrap=True)
        else:
            print(text, file=sys.stderr, flush=True)

    def take(self, event: Event) -> None:
        """Show one event."""
        match event:
            case Stage() if self._bar is not None:
                if self._task is not None:
                    self._bar.remove_task(self._task)
                self._task = self._bar.add_task(printable(event.name), total=event.total)
            case Progress() if self._bar is not None and self._task is not None:
                self._bar.update(self._task, completed=event.done, total=event.total)
            case Note() if event.level == "warning":
                self._say(f"Warning: {event.text}")
            case Note() if self._verbose or (event.level == "info" and event.text not in self._said):
                self._said.add(event.text)  # the same choice for every case is said once
                self._say(event.text)
            case CaseDone():
                how = "already there" if event.skipped else f"{event.seconds:.1f} s"
                self._say(f"[{event.index + 1}/{event.total}] {event.path} ({how})")
            case CaseFailed():
                self._say(f"[{event.index + 1}/{event.total}] {event.case} FAILED: {event.message}")
                if self._verbose and event.report:
                    self._say(event.report)
            case _:
                pass
