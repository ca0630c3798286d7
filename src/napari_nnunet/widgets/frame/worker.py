"""A job on a napari thread worker.

napari's own ``create_worker`` swallows RuntimeError (an out-of-memory error would leave Run disabled for ever) and
closes a cancelled generator at garbage collection, in the window's thread. This worker does neither.
"""

from __future__ import annotations

import atexit
from collections.abc import Callable
from typing import Any
from weakref import WeakSet

from napari.qt.threading import GeneratorWorkerSignals, WorkerBase
from qtpy.QtCore import QObject, QThreadPool

from napari_nnunet.events import Job, Pump

_made: WeakSet[JobWorker] = WeakSet()


class JobWorker(WorkerBase):
    """Runs a job on a thread: events as ``yielded``, the result as ``returned``, failures as ``errored``.

    ``quit()`` cancels at the job's next event; the job is closed at once, in the worker's thread.

    Parameters
    ----------
    start : callable
        Makes the job. It is called in the thread, so that heavy imports do not hold up the window.
    """

    def __init__(self, start: Callable[[], Job[Any]]) -> None:
        super().__init__(SignalsClass=GeneratorWorkerSignals)
        self._start = start
        _made.add(self)

    def work(self) -> Any:
        """Drive the job; called by the thread pool."""
        with Pump(self._start()) as pump:
            events = iter(pump)
            while not self.abort_requested:
                try:
                    event = next(events, None)
                except RuntimeError as error:
                    # superqt takes a RuntimeError for a deleted signal and stays silent.
                    raise JobError(str(error) or type(error).__name__) from error
                if event is None:
                    return pump.result
                self.yielded.emit(event)
        self.aborted.emit()
        return None


@atexit.register
def _end_all() -> None:
    """End the jobs before Python goes: napari does so with its window, a script that just ends does not.

    A thread that still ran then would call what is gone, and the process be aborted.
    """
    for worker in list(_made):
        worker.quit()
    pool = QThreadPool.globalInstance()
    if pool is not None:
        pool.waitForDone()


class Listener(QObject):
    """Passes on what a worker says for as long as its owner lives.

    Qt ends the connections of a widget's own methods when the widget goes; those of plain functions would call into a
    dock that was closed meanwhile.

    Parameters
    ----------
    owner : QObject
        The widget.
    worker : JobWorker
        Not started yet.
    yielded, returned, errored : callable, optional
        Told of events, the result (None after a cancel) and failures.
    """

    def __init__(
        self,
        owner: QObject,
        worker: JobWorker,
        *,
        yielded: Callable[[Any], object] | None = None,
        returned: Callable[[Any], object] | None = None,
        errored: Callable[[Any], object] | None = None,
    ) -> None:
        super().__init__(owner)
        self._functions = yielded, returned, errored
        for signal, slot, wanted in (
            (worker.yielded, self._on_yielded, yielded),
            (worker.returned, self._on_returned, returned),
            (worker.errored, self._on_errored, errored),
        ):
            if wanted is not None:
                signal.connect(slot)
        worker.finished.connect(self.deleteLater)

    def _on_yielded(self, event: Any) -> None:
        if self._functions[0] is not None:
            self._functions[0](event)

    def _on_returned(self, result: Any) -> None:
        if self._functions[1] is not None:
            self._functions[1](result)

    def _on_errored(self, error: Any) -> None:
        if self._functions[2] is not None:
            self._functions[2](error)


class JobError(Exception):
    """A failure inside a job that was a RuntimeError."""
