"""A job on a napari thread worker.

napari's own ``create_worker`` swallows RuntimeError (an out-of-memory error would leave Run disabled for ever), says
nothing of a job that ends while it is being cancelled, and closes a cancelled generator at garbage collection, in the
window's thread. This worker does none of it: whatever happens, it says exactly once how its job ended.
"""

from __future__ import annotations

import atexit
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any, TypeAlias, TypeVar
from weakref import WeakSet

from napari.qt.threading import WorkerBase, WorkerBaseSignals
from qtpy.QtCore import QObject, QThreadPool, Signal

from napari_nnunet.events import Event, Job, Pump

T = TypeVar("T")
_made: WeakSet[JobWorker] = WeakSet()


@dataclass(frozen=True)
class Returned:
    """The job came to its end, whether or not a cancel was asked for meanwhile."""

    result: Any


@dataclass(frozen=True)
class Cancelled:
    """The job was closed before its end."""


@dataclass(frozen=True)
class Failed:
    """The job raised."""

    error: BaseException


End: TypeAlias = Returned | Cancelled | Failed


class _Signals(WorkerBaseSignals):
    happened = Signal(object)
    ended = Signal(object)


class JobWorker(WorkerBase):
    """Runs a job on a thread: events as ``happened``, then once how it ended as ``ended``.

    ``quit()`` cancels at the job's next event; the job is closed at once, in the worker's thread. A job that has no
    event left returns its result nevertheless.

    Parameters
    ----------
    job : Job
        Not begun; its first step is taken in the thread, so that heavy imports do not hold up the window.
    """

    def __init__(self, job: Job[Any]) -> None:
        super().__init__(SignalsClass=_Signals)
        self._job = job
        _made.add(self)

    def work(self) -> None:
        """Drive the job; called by the thread pool."""
        self.ended.emit(self._drive())

    def _drive(self) -> End:
        try:
            with Pump(self._job) as pump:
                events = iter(pump)
                while not self.abort_requested:
                    event = next(events, None)
                    if event is None:
                        return Returned(pump.result)
                    self.happened.emit(event)
        except BaseException as error:  # a thread that ends without a word leaves its dock waiting for ever
            return Failed(error)
        return Cancelled()


def follow(
    owner: QObject,
    job: Job[T],
    *,
    happened: Callable[[Event], object] | None = None,
    returned: Callable[[T], object] | None = None,
    errored: Callable[[BaseException], object],
    cancelled: Callable[[], object] | None = None,
) -> JobWorker:
    """Start a job on a thread and tell its owner what comes of it, for as long as the owner lives.

    Parameters
    ----------
    owner : QObject
        The widget. When it goes, so do the connections: nobody calls into a dock that was closed.
    job : Job
        Not begun.
    happened, returned, errored, cancelled : callable
        Called in the window's thread. A failure must be said somewhere, so ``errored`` is not optional.
    """
    worker = JobWorker(job)
    listener = _Listener(owner, happened, returned, errored, cancelled)
    worker.happened.connect(listener.on_event)
    worker.ended.connect(listener.on_end)
    worker.start()
    return worker


class _Listener(QObject):
    """Passes on what a worker says for as long as its owner lives.

    Qt ends the connections of an object's own methods when the object goes; those of plain functions would call into a
    dock that was closed meanwhile.
    """

    def __init__(
        self,
        owner: QObject,
        happened: Callable[[Event], object] | None,
        returned: Callable[[Any], object] | None,
        errored: Callable[[BaseException], object],
        cancelled: Callable[[], object] | None,
    ) -> None:
        super().__init__(owner)
        self._happened, self._returned, self._errored, self._cancelled = happened, returned, errored, cancelled

    def on_event(self, event: Event) -> None:
        if self._happened is not None:
            self._happened(event)

    def on_end(self, end: End) -> None:
        self.deleteLater()
        match end:
            case Failed(error):
                self._errored(error)
            case Returned(result) if self._returned is not None:
                self._returned(result)
            case Cancelled() if self._cancelled is not None:
                self._cancelled()
            case _:
                pass


class Latest:
    """Follows the latest job of a widget; one that still runs is cancelled, and nothing more is heard of it.

    Parameters
    ----------
    owner : QObject
        The widget.
    """

    def __init__(self, owner: QObject) -> None:
        self._owner = owner
        self._number = 0
        self._worker: JobWorker | None = None

    @property
    def running(self) -> bool:
        """Whether the latest job has not ended."""
        return self._worker is not None

    def stop(self) -> None:
        """Cancel what runs."""
        self._number += 1
        if self._worker is not None:
            self._worker.quit()
            self._worker = None

    def start(
        self,
        job: Job[T],
        *,
        returned: Callable[[T], object],
        errored: Callable[[BaseException], object],
        happened: Callable[[Event], object] | None = None,
    ) -> None:
        """Run a job on a thread; the functions are called in the window's thread."""
        self.stop()
        number = self._number

        def if_latest(function: Callable[[Any], object] | None, *, ends: bool) -> Callable[[Any], None]:
            def call(argument: Any) -> None:
                if number != self._number:
                    return
                if ends:
                    self._worker = None
                if function is not None:
                    function(argument)

            return call

        self._worker = follow(
            self._owner,
            job,
            happened=if_latest(happened, ends=False),
            returned=if_latest(returned, ends=True),
            errored=if_latest(errored, ends=True),
        )


def on_a_thread(function: Callable[[], T]) -> Job[T]:
    """Return a job that calls a function and has nothing to tell meanwhile."""
    yield from ()
    return function()


def lazy(reference: str) -> Callable[..., Job[Any]]:
    """Return a stand-in for a job; its module (and torch with it) is imported at the job's first step.

    Type checkers see the job itself, with its parameters and its result, where the stand-in takes the place of an
    import::

        if TYPE_CHECKING:
            from napari_nnunet.jobs.prediction.predict import predict_series
        else:
            predict_series = lazy("napari_nnunet.jobs.prediction.predict:predict_series")

    Parameters
    ----------
    reference : str
        "module:name".
    """
    module, _, name = reference.partition(":")

    def job(*args: Any, **keywords: Any) -> Job[Any]:
        return (yield from getattr(import_module(module), name)(*args, **keywords))

    job.__name__ = job.__qualname__ = name
    return job


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
