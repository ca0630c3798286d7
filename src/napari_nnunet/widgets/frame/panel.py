"""Run, cancel, progress, messages: the part every dock shares. It owns the state; the rest follows."""

from __future__ import annotations

import contextlib
import time
import traceback
from collections.abc import Callable
from enum import Enum
from typing import Any

from napari.utils import progress as activity
from napari.utils.notifications import show_error
from qtpy.QtCore import Qt, QTimer, Signal
from qtpy.QtWidgets import QApplication, QHBoxLayout, QLabel, QProgressBar, QPushButton, QVBoxLayout, QWidget

from napari_nnunet.errors import NnunetError
from napari_nnunet.events import CaseDone, CaseFailed, Event, Job, Note, Progress, Stage
from napari_nnunet.widgets.frame.words import plain_time
from napari_nnunet.widgets.frame.worker import JobWorker

_ACTIVITY_SECONDS = 0.25  # every update of napari's bar runs the event loop, so they are few


class State(Enum):
    """What the panel is doing."""

    IDLE = "idle"
    RUNNING = "running"
    CANCELLING = "cancelling"


class RunPanel(QWidget):
    """A button that becomes Cancel, a bar with the remaining time, and a line that says what is going on.

    Parameters
    ----------
    text : str
        Of the button when idle.
    stops : str
        What Cancel does, in its tool tip.
    """

    happened = Signal(object)
    finished = Signal(object)
    cancelled = Signal(float)
    failed = Signal(object)

    def __init__(self, text: str, *, stops: str = "Stop, and keep what is finished.") -> None:
        super().__init__()
        self.state = State.IDLE
        self._text = text
        self._stops = stops
        self._worker: JobWorker | None = None
        self._activity: Any = None
        self._last_activity = 0.0
        self._stage = ""
        self._fraction = 0.0
        self._cases: tuple[int, int] = (0, 1)
        self._report = ""
        self.start: Callable[[], None] = lambda: None
        self.button = QPushButton(text)
        self.button.setObjectName("run")
        self.button.setAccessibleName(text)
        self.button.setMinimumHeight(32)
        self.button.clicked.connect(self._clicked)
        self.bar = QProgressBar()
        self.bar.setTextVisible(True)
        self.bar.setVisible(False)
        self.status = QLabel()
        self.status.setWordWrap(True)
        self.status.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.details = QPushButton("Copy report")
        self.details.setVisible(False)
        self.details.setToolTip("Copy the error with its traceback, for a bug report.")
        self.details.clicked.connect(self._copy_report)
        row = QHBoxLayout()
        row.addWidget(self.button, 1)
        row.addWidget(self.details)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(row)
        layout.addWidget(self.bar)
        layout.addWidget(self.status)

    def set_ready(self, reason: str | None) -> None:
        """Enable the button, or disable it and say why."""
        if self.state is not State.IDLE:
            return
        self.button.setEnabled(reason is None)
        self.button.setToolTip(reason or "")

    def rename(self, text: str) -> None:
        """Give the idle button another text."""
        self._text = text
        if self.state is State.IDLE:
            self.button.setText(text)
            self.button.setAccessibleName(text)

    def say(self, text: str) -> None:
        """Show one line of status."""
        self.status.setText(text)

    def run(self, make_job: Callable[[], Job[Any]]) -> None:
        """Start a job on a thread; ``make_job`` is called there."""
        self._set_state(State.RUNNING)
        self._report = ""
        self._fraction = 0.0
        self._cases = (0, 1)
        self._activity = activity(total=100, desc=self._text)
        worker = JobWorker(make_job)
        worker.yielded.connect(self._on_event)
        worker.returned.connect(self._on_returned)
        worker.errored.connect(self._on_errored)
        worker.aborted.connect(self._on_aborted)
        self._worker = worker
        worker.start()

    def cancel(self) -> None:
        """Ask the job to stop at its next event."""
        if self._worker is not None and self.state is State.RUNNING:
            self._set_state(State.CANCELLING)
            self._worker.quit()

    @property
    def fraction(self) -> float:
        """Share of the work that is done, 0 to 1."""
        return self._fraction

    def _clicked(self) -> None:
        if self.state is State.IDLE:
            self.start()
        else:
            self.cancel()

    def _set_state(self, state: State) -> None:
        self.state = state
        self.button.setText({State.IDLE: self._text, State.RUNNING: "Cancel", State.CANCELLING: "Cancelling…"}[state])
        self.button.setEnabled(state is not State.CANCELLING)
        self.bar.setVisible(state is not State.IDLE)
        self.details.setVisible(state is State.IDLE and bool(self._report))
        if state is State.RUNNING:
            self.button.setToolTip(self._stops)
            self.bar.setRange(0, 0)
            self.say("Starting…")

    def _on_event(self, event: Event) -> None:
        match event:
            case Stage():
                self._stage = event.name
                self.say(self._line())
            case Progress():
                self._on_progress(event)
            case Note() if event.level != "detail":
                self.say(("Note: " if event.level == "warning" else "") + event.text)
            case CaseDone():
                self._cases = (event.index + 1, event.total)
            case CaseFailed():
                self.say(f"{event.case} failed: {event.message}")
            case _:
                pass
        self.happened.emit(event)

    def _on_progress(self, event: Progress) -> None:
        done, count = self._cases
        self._fraction = (done + event.done / max(event.total, 1)) / max(count, 1)
        self.bar.setRange(0, 1000)
        self.bar.setValue(round(1000 * self._fraction))
        self.say(self._line(event.seconds_left))
        now = time.monotonic()
        if self._activity is not None and now - self._last_activity > _ACTIVITY_SECONDS:
            self._last_activity = now
            self._activity.n = round(100 * self._fraction)
            self._activity.refresh()
            self._activity.set_description(f"{self._text}: {self._stage}")

    def _line(self, seconds_left: float | None = None) -> str:
        done, count = self._cases
        frame = f"Time point {done + 1} of {count}: " if count > 1 else ""
        left = f" – {plain_time(seconds_left)} left" if seconds_left is not None else "…"
        return f"{frame}{self._stage}{left}"

    def _end(self) -> None:
        self._worker = None
        if self._activity is not None:
            self._activity.close()
            self._activity = None
        self._set_state(State.IDLE)

    def _on_returned(self, result: Any) -> None:
        if self.state is State.CANCELLING:
            return  # the job ended by itself while the cancel was under way: `aborted` does not come any more
        self._end()
        self.finished.emit(result)

    def _on_aborted(self) -> None:
        fraction = self._fraction
        self._end()
        self.cancelled.emit(fraction)

    def _on_errored(self, error: Exception) -> None:
        known = isinstance(error, NnunetError)
        self._report = "".join(traceback.format_exception(error))
        self._end()
        text = str(error) if known else f"Something went wrong inside the plugin: {error or type(error).__name__}"
        self.say(text)
        show_error(text)
        self.failed.emit(error)

    def _copy_report(self) -> None:
        clipboard = QApplication.clipboard()
        if clipboard is not None:
            clipboard.setText(self._report)
            self.details.setText("Copied")
            QTimer.singleShot(1500, self._restore_details)

    def _restore_details(self) -> None:
        with contextlib.suppress(RuntimeError):  # the dock may be gone by now
            self.details.setText("Copy report")
