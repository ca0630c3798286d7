"""What every dock repeats: parts that scroll, the check of its form, the estimate, run panels, closing."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from napari.utils.notifications import show_info
from qtpy.QtCore import QEvent, Qt, QTimer
from qtpy.QtGui import QKeyEvent
from qtpy.QtWidgets import QWidget

from napari_nnunet.errors import NnunetError
from napari_nnunet.events import Job
from napari_nnunet.widgets.frame.forms import let_shrink, scrolling
from napari_nnunet.widgets.frame.panel import RunPanel, RunState
from napari_nnunet.widgets.frame.parts import Sentence
from napari_nnunet.widgets.frame.ready import NotReadyError, Remedy
from napari_nnunet.widgets.frame.state import state_of
from napari_nnunet.widgets.frame.tabs import keep_together
from napari_nnunet.widgets.frame.words import as_text, failure_text
from napari_nnunet.widgets.frame.worker import JobWorker, follow

if TYPE_CHECKING:
    import napari

R = TypeVar("R")
E = TypeVar("E")
_CHECK_MS = 150  # after the last change of a form


class Dock(QWidget):
    """A dock of parts below each other. Ctrl+Enter runs, Esc cancels.

    When napari takes the dock away, its jobs go on: napari's activity shows and cancels them. The dock lives on unseen
    until they have ended, so that their layers are left in order, and what came of them is said.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
        Injected by napari.
    """

    closed = False
    in_workspace: ClassVar[bool] = False  # whether its jobs write there
    _placed = False
    _closing: ClassVar[set[Dock]] = set()
    _collecting: ClassVar[bool] = False

    def __init__(self, viewer: napari.viewer.Viewer) -> None:
        super().__init__()
        self.viewer = viewer
        keep_together(self)

    def lay_out(self, *parts: QWidget, last: QWidget | None = None) -> None:
        """Fill the dock with its parts; ``last`` stays in sight below them: what is pressed next."""
        scrolling(self, parts, last)
        let_shrink(self)
        state = state_of(self.viewer)
        for panel in self.panels:
            panel.idle.connect(state.look)  # what a job needed may have been changed meanwhile
            if self.in_workspace:
                panel.guard = state.require_workspace

    @contextlib.contextmanager
    def telling(self, panel: RunPanel) -> Iterator[None]:
        """Do something with files at once; what fails is said by a panel, as the failure of a job is."""
        try:
            yield
        except (NnunetError, OSError) as error:
            panel.fail(error)
            state_of(self.viewer).look()

    @property
    def panels(self) -> list[RunPanel]:
        """Everything here that runs a job."""
        return list(self.findChildren(RunPanel))

    @property
    def busy(self) -> bool:
        """Whether a job is running or being cancelled."""
        return any(panel.state is not RunState.IDLE for panel in self.panels)

    def keyPressEvent(self, event: QKeyEvent | None) -> None:
        """Run on Ctrl+Enter, cancel on Esc, wherever in the dock the keys are pressed."""
        if event is None:
            return
        run = event.key() in (Qt.Key.Key_Return, Qt.Key.Key_Enter)
        asked = [panel for panel in self.panels if panel.isVisible()][:1] if run else self.panels
        meant = [panel.run_or_cancel(event) for panel in asked]
        if not any(meant):
            super().keyPressEvent(event)

    def changeEvent(self, event: QEvent | None) -> None:
        """Notice that napari placed the dock or took it away."""
        super().changeEvent(event)
        if event is not None and event.type() == QEvent.Type.ParentChange:
            self.closed = self._placed and self.parent() is None
            self._placed = self._placed or self.parent() is not None
            if self.closed:
                self.close_down()

    def close_down(self) -> None:
        """Keep the jobs that run; subclasses end what else they have on threads."""
        running = [panel for panel in self.panels if panel.state is not RunState.IDLE]
        for panel in running:
            self._closing.add(self)
            panel.idle.connect(self._let_go)
            panel.idle.connect(
                lambda panel=panel: show_info(as_text(f"{panel.text}: {panel.status.text() or 'done.'}"))
            )
        if running:
            show_info(
                f"{running[0].text} continues without its dock; napari's activity list, at the "
                f"bottom, shows it and can cancel it."
            )
        else:
            self._collect_soon()

    def _let_go(self) -> None:
        if not self.busy:
            self._closing.discard(self)
            self._collect_soon()

    @classmethod
    def _collect_soon(cls) -> None:
        """Let go of docks that were closed when napari is done with them.

        A widget and its Python half refer to each other, so it stays until Python looks for such circles. Where there
        are a million objects, as in napari, that is hardly ever: 50 closed docks had taken 50 MB.
        """
        if not Dock._collecting:
            Dock._collecting = True
            QTimer.singleShot(0, cls._collect)

    @staticmethod
    def _collect() -> None:
        Dock._collecting = False
        gc.collect()


class RequestDock(Dock, Generic[R, E]):
    """A dock with one form that becomes a request, which is described, estimated and run.

    Subclasses say what the request is (``request``), what it means (``describe``, ``expect``), what works out the
    time it takes (``estimate``) and what runs it (``begin``). They connect what changes the form to ``check_soon``
    and call ``check`` once when they are complete.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
        Injected by napari.
    text : str
        Of the button.
    stops : str
        What Cancel does, in its tool tip.
    """

    estimating: ClassVar[str] = "Estimating time and memory…"

    def __init__(self, viewer: napari.viewer.Viewer, text: str, *, stops: str) -> None:
        super().__init__(viewer)
        self.summary = Sentence()
        self.panel = RunPanel(text, stops=stops)
        self.panel.start = self.run
        self.panel.idle.connect(self.check_soon)
        self._estimator: JobWorker | None = None
        self._generation = 0
        self._later = QTimer(self)
        self._later.setSingleShot(True)
        self._later.setInterval(_CHECK_MS)
        self._later.timeout.connect(self.check)

    def request(self) -> R:
        """Check the form and work out what Run would do.

        Raises
        ------
        NotReadyError or NnunetError
            With the first thing that is missing or does not fit.
        """
        raise NotImplementedError

    def verb(self, request: R) -> str:
        """Return what the button says for a request."""
        return self.panel.text

    def describe(self, request: R) -> str:
        """Return what Run will do, in a sentence without its full stop (rich text)."""
        raise NotImplementedError

    def estimate(self, request: R) -> Job[E] | None:
        """Return a job that works out what Run will take; None where there is nothing to work out."""
        return None

    def expect(self, request: R, found: E) -> str:
        """Return what Run will do and take (rich text)."""
        raise NotImplementedError

    def begin(self, request: R) -> None:
        """Give the job of a request to the panel."""
        raise NotImplementedError

    def check_soon(self, _: Any = None) -> None:
        """Check the form when it has not changed for a moment."""
        self._later.start()

    def check(self) -> None:
        """Say what Run will do, or why it cannot."""
        if self.closed or self.panel.state is not RunState.IDLE:
            return  # the panel asks for another check when its job has ended
        self._generation += 1
        if self._estimator is not None:
            self._estimator.quit()
        request = self._request_or_refuse()
        if request is None:
            return
        self.panel.rename(self.verb(request))
        self.panel.set_ready(None)
        job = self.estimate(request)
        self.summary.setText(f"{self.describe(request)}." + (f"<br>{self.estimating}" if job else ""))
        if job is not None:
            self._start_estimate(request, job, self._generation)

    def run(self) -> None:
        """Start; what is open and chosen now is what is used."""
        if self.panel.state is RunState.IDLE:
            request = self._request_or_refuse()
            if request is not None:
                self._generation += 1  # an estimate that is under way is too late
                self.begin(request)

    def _request_or_refuse(self) -> R | None:
        try:
            self.panel.guard()
            return self.request()
        except NotReadyError as reason:
            self._refuse(str(reason), reason.remedy)
        except (NnunetError, OSError) as error:
            self._refuse(failure_text(error))
        return None

    def _refuse(self, reason: str, remedy: Remedy | None = None) -> None:
        self.summary.setText(f"<b>Not ready.</b> {reason}")
        self.panel.set_ready(reason, remedy)

    def _start_estimate(self, request: R, job: Job[E], generation: int) -> None:
        """Work out time and memory on a thread: that is where torch is loaded."""

        def current() -> bool:
            return generation == self._generation and self.panel.state is RunState.IDLE

        def returned(found: E) -> None:
            if current():
                self.summary.setText(self.expect(request, found))

        def errored(error: BaseException) -> None:
            reason = error if isinstance(error, NotReadyError) else None
            if current() and reason is not None:
                self._refuse(str(reason), reason.remedy)
            elif current() and isinstance(error, NnunetError):
                self._refuse(error.in_window)
            elif current():
                self.summary.setText(f"{self.describe(request)}.<br>Time and memory are unknown: {failure_text(error)}")

        self._estimator = follow(self, job, returned=returned, errored=errored)

    def close_down(self) -> None:
        """End the estimate too."""
        self._later.stop()
        if self._estimator is not None:
            self._estimator.quit()
        super().close_down()
