"""Run, cancel, progress, messages: the part every dock shares. It owns the state; the rest follows."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any, TypeVar

from napari.utils import cancelable_progress
from napari.utils.notifications import show_error
from qtpy.QtCore import QEvent, Qt, QTimer, Signal
from qtpy.QtGui import QKeyEvent, QMoveEvent, QResizeEvent
from qtpy.QtWidgets import QDialog, QHBoxLayout, QProgressBar, QPushButton, QScrollArea, QVBoxLayout, QWidget

from napari_nnunet.errors import NnunetError
from napari_nnunet.events import CaseDone, CaseFailed, Event, Job, Note, Progress, Stage
from napari_nnunet.widgets.frame.parts import CopyButton, ElidingButton, FolderButton, Sentence
from napari_nnunet.widgets.frame.ready import NotReadyError, Remedy
from napari_nnunet.widgets.frame.words import as_text, failure_text, noted, plain_time, report_text
from napari_nnunet.widgets.frame.worker import JobWorker, follow

T = TypeVar("T")
_BELOW = 120  # pixels below a panel that are brought into sight with it: where results begin
_SETTLES = 3.0  # seconds after a start or an end, in which what lies above a panel still changes
_ACTIVITY_SECONDS = 0.25  # every update of napari's bar runs the event loop, so they are few
_FAILED = " failed: "  # between a case and why
_WARNINGS = 3  # of a run that are said again at its end


class RunState(Enum):
    """What the panel is doing."""

    IDLE = "idle"
    RUNNING = "running"
    CANCELLING = "cancelling"


class _Activity(cancelable_progress):
    """An entry in napari's activity; its Cancel works although nobody iterates over it."""

    def cancel(self) -> None:
        """Pass on that somebody pressed Cancel there."""
        super().cancel()
        self.cancel_callback()


class RunPanel(QWidget):
    """A button that becomes Cancel, a bar with the remaining time, and a line that says what is going on.

    Emits ``idle`` when a job ended, however it did, after everyone was told.

    Parameters
    ----------
    text : str
        Of the button when idle.
    stops : str
        What Cancel does, in its tool tip.
    """

    idle = Signal()

    def __init__(self, text: str, *, stops: str = "Stop, and keep what is finished.") -> None:
        super().__init__()
        self.state = RunState.IDLE
        self._text = text
        self._stops = stops
        self._reason: str | None = None
        self._remedy: Remedy | None = None
        self._worker: JobWorker | None = None
        self._activity: Any = None
        self._last_activity = 0.0
        self._stage = self._each = self._report = ""
        self._fraction, self._cases = 0.0, (0, 1)
        self._listed = False
        self._warned: list[str] = []
        self.start: Callable[[], None] = lambda: None
        self.guard: Callable[[], None] = lambda: None
        self.button = QPushButton(text)
        self.button.setObjectName("run")
        self.button.setAccessibleName(text)
        self.button.setMinimumHeight(32)
        self.button.clicked.connect(self._clicked)
        self.remedy = ElidingButton()
        self.remedy.setVisible(False)
        self.remedy.clicked.connect(self._mend)
        self.bar = QProgressBar()
        self.bar.setAccessibleName("Progress")
        self.bar.setVisible(False)
        self.status = Sentence()
        self.status.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.status.hide()  # while there is nothing to say
        self.place = FolderButton()
        self.details = CopyButton("Copy report", lambda: self._report)
        self.details.setVisible(False)
        self.details.setToolTip("Copy the error with its traceback, for a bug report.")
        self._in_sight = QTimer(self)
        self._in_sight.setSingleShot(True)
        self._in_sight.timeout.connect(self._come_into_sight)
        self._settled_at = 0.0
        row = QHBoxLayout()
        row.addWidget(self.button, 1)
        row.addWidget(self.details)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.remedy)
        layout.addLayout(row)
        layout.addWidget(self.bar)
        layout.addWidget(self.status)
        layout.addWidget(self.place)

    def set_ready(self, reason: str | None, remedy: Remedy | None = None) -> None:
        """Enable the button, or disable it, say why and offer a remedy; at the latest when the job has ended."""
        self._reason, self._remedy = reason, remedy
        self.remedy.setVisible(self.state is RunState.IDLE and remedy is not None)
        if remedy is not None:
            self.remedy.show_text(remedy.text)
        if self.state is RunState.IDLE:
            self.button.setEnabled(reason is None)
            self.button.setToolTip(as_text(reason or ""))
            self.place.follow(reason or self.status.text())

    def _mend(self) -> None:
        if self._remedy is not None:
            self._remedy.act()

    def rename(self, text: str) -> None:
        """Give the idle button another text."""
        self._text = text
        if self.state is RunState.IDLE:
            self.button.setText(text)
            self.button.setAccessibleName(text)

    def say(self, text: str) -> None:
        """Show one line of status; where it names a file, its folder can be opened."""
        self.status.setText(text)
        self.status.setVisible(bool(text))
        self.place.follow(text if self.state is RunState.IDLE else "")

    def add(self, text: str, notes: Sequence[str]) -> None:
        """Say what a dialog did, with its notes; at the end of the job where one runs here."""
        tell = self.say if self.state is RunState.IDLE else self._remember
        tell(" ".join((text, *notes)))

    def run(
        self,
        job: Job[T],
        *,
        done: Callable[[T], str | None] | None = None,
        cancelled: Callable[[float], str | None] | None = None,
        failed: Callable[[BaseException], object] | None = None,
        happened: Callable[[Event], object] | None = None,
        each: str = "Time point",
        listed: bool = False,
    ) -> None:
        """Start a job on a thread.

        Parameters
        ----------
        job : Job
            Not begun.
        done : callable, optional
            Given the result; what it returns is said. A job that was asked to stop but came to its end is done too.
        cancelled : callable, optional
            Given the share of the work that was done; what it returns is said, "Cancelled." without it.
        failed : callable, optional
            Given the error, after the sentence about it is shown.
        happened : callable, optional
            Given every event.
        each : str
            What the cases of the job are.
        listed : bool
            Whether a table below says which failed, so that it is not said here once more.
        """
        try:
            self.guard()
        except NotReadyError as reason:
            self.say(str(reason))
            return
        self._each, self._listed = each, listed
        self._set_state(RunState.RUNNING)
        self._report, self._warned = "", []
        self._fraction, self._cases = 0.0, (0, 1)
        self._activity = _Activity(total=100, desc=self._text, cancel_callback=self.cancel)

        def on_event(event: Event) -> None:
            self._on_event(event)
            if happened is not None:
                happened(event)

        def on_result(result: T) -> None:
            self._end("")
            try:
                self._say_if(self._with_warnings(None if done is None else done(result)))
            except (NnunetError, OSError) as error:  # of files that are gone by now
                self.fail(error)
            self.idle.emit()

        def on_cancel() -> None:
            self._end("Cancelled.")
            self._say_if(None if cancelled is None else cancelled(self._fraction))
            self.idle.emit()

        def on_error(error: BaseException) -> None:
            self._end("")
            self.fail(error)
            if failed is not None:
                failed(error)
            self.idle.emit()

        self._worker = follow(self, job, happened=on_event, returned=on_result, cancelled=on_cancel, errored=on_error)

    def fail(self, error: BaseException) -> None:
        """Say what failed, here and in napari's notifications; the report can be copied."""
        self.tell_failure(failure_text(error), report_text(error))

    def tell_failure(self, text: str, report: str) -> None:
        """Say what failed elsewhere, and offer its report."""
        self._report = report
        self.details.setVisible(self.state is RunState.IDLE and bool(report))
        self.say(text)
        show_error(as_text(text))

    def cancel(self) -> None:
        """Ask the job to stop at its next event."""
        if self._worker is not None and self.state is RunState.RUNNING:
            self._set_state(RunState.CANCELLING)
            self._worker.quit()

    @property
    def notes(self) -> list[str]:
        """The warnings of the last run: the first are said, the others counted."""
        return noted(self._warned, _WARNINGS, "were shown meanwhile")

    @property
    def text(self) -> str:
        """What the button says when nothing runs."""
        return self._text

    @property
    def fraction(self) -> float:
        """Share of the work that is done, 0 to 1."""
        return self._fraction

    def run_or_cancel(self, event: QKeyEvent) -> bool:
        """Run on Ctrl+Enter, cancel on Esc; returns whether the key meant that."""
        if event.key() in (Qt.Key.Key_Return, Qt.Key.Key_Enter):
            if not event.modifiers() & Qt.KeyboardModifier.ControlModifier:
                return False
            if self.state is RunState.IDLE and self.button.isEnabled():
                self.button.click()
            return True
        if event.key() == Qt.Key.Key_Escape and self.state is not RunState.IDLE:
            self.cancel()
            return True
        return False

    def moveEvent(self, event: QMoveEvent | None) -> None:
        """Stay in sight: the estimate, which is worked out again after a run, pushes the panel down."""
        super().moveEvent(event)
        self._stay_in_sight()

    def resizeEvent(self, event: QResizeEvent | None) -> None:
        """Stay in sight with a sentence that became longer."""
        super().resizeEvent(event)
        self._stay_in_sight()

    def _stay_in_sight(self) -> None:
        if time.monotonic() < self._settled_at:
            self._in_sight.start(0)

    def _come_into_sight(self) -> None:
        """Scroll to the progress, or to the end and what came of it, where they are out of sight."""
        part = self.parentWidget()
        while part is not None and not isinstance(part, QScrollArea):
            part = part.parentWidget()
        if part is not None and self.isVisible():
            part.ensureWidgetVisible(self, 0, _BELOW)

    def _say_if(self, text: str | None) -> None:
        if text is not None:
            self.say(text)

    def _clicked(self) -> None:
        if self.state is RunState.IDLE:
            self.start()
        else:
            self.cancel()

    def _set_state(self, state: RunState) -> None:
        self.state = state
        text = {RunState.IDLE: self._text, RunState.RUNNING: "Cancel", RunState.CANCELLING: "Cancelling…"}[state]
        self.button.setText(text)
        self.button.setAccessibleName(text)
        self.button.setEnabled(state is not RunState.CANCELLING)
        if state is not RunState.CANCELLING:
            self._settled_at = time.monotonic() + _SETTLES
            self._in_sight.start(0)  # when what is shown or hidden now is laid out
        self.bar.setVisible(state is not RunState.IDLE)
        self.details.setVisible(state is RunState.IDLE and bool(self._report))
        if state is RunState.RUNNING:
            self.remedy.setVisible(False)
            self.button.setToolTip(self._stops)
            self.bar.setRange(0, 0)
            self.say("Starting…")

    def _end(self, text: str) -> None:
        self._worker = None
        if self._activity is not None:
            self._activity.close()
            self._activity = None
        self._set_state(RunState.IDLE)
        self.set_ready(self._reason, self._remedy)
        self.say(text)

    def _on_event(self, event: Event) -> None:
        match event:
            case Stage():
                self._stage = event.name
                self.say(self._line())
            case Progress():
                self._on_progress(event)
            case Note() if event.level != "detail":
                text = event.in_window or event.text
                if event.level == "warning":
                    self._remember(text)
                self.say(("Note: " if event.level == "warning" else "") + text)
            case CaseDone():
                self._case_over(event)
            case CaseFailed():
                self._case_over(event)
                text = f"{event.case}{_FAILED}{event.in_window or event.message}"
                if not self._listed:
                    self._remember(text)
                self.say(text)
            case _:
                pass

    def _remember(self, text: str) -> None:
        """Keep what is said once more at the end, when the progress has taken it from sight."""
        if text not in self._warned:
            self._warned.append(text)

    def _with_warnings(self, text: str | None) -> str | None:
        """Return what is said at the end with the warnings, which the progress took from sight."""
        self._warned = [one for one in self._warned if not text or one.rpartition(_FAILED)[2] not in text]
        return " ".join([*([text] if text else []), *self.notes]) if self._warned else text

    def _case_over(self, event: CaseDone | CaseFailed) -> None:
        self._cases = (event.index + 1, event.total)
        self._fraction = self._cases[0] / max(event.total, 1)

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
            self._activity.set_description(as_text(f"{self._text}: {self._stage}"))

    def _line(self, seconds_left: float | None = None) -> str:
        done, count = self._cases
        frame = f"{self._each} {min(done + 1, count)} of {count}: " if count > 1 else ""
        left = f" – {plain_time(seconds_left)} left" if seconds_left is not None else "…"
        return f"{frame}{self._stage}{left}"


class RunDialog(QDialog):
    """A dialog with a panel, at least as high as what it says. Ctrl+Enter runs, Esc cancels what runs, or closes."""

    panel: RunPanel

    def keyPressEvent(self, event: QKeyEvent | None) -> None:
        """Run and cancel; Enter after a word that was typed presses no button."""
        if event is None or self.panel.run_or_cancel(event):
            return
        if event.key() not in (Qt.Key.Key_Return, Qt.Key.Key_Enter):
            super().keyPressEvent(event)

    def event(self, event: QEvent | None) -> bool:
        """Grow when a sentence became longer."""
        resizes = event is not None and event.type() == QEvent.Type.LayoutRequest
        handled = bool(super().event(event))
        if resizes and (layout := self.layout()) is not None:  # after the event that deletes it nothing may be asked
            needed = layout.totalHeightForWidth(self.width())
            if needed > self.height():
                self.resize(self.width(), needed)
        return handled

    def reject(self) -> None:
        """Close, but not while files are written."""
        if self.panel.state is RunState.IDLE:
            super().reject()
        else:
            self.panel.cancel()
