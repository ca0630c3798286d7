"""One job at a time: the next takes the place of the one before."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from qtpy.QtCore import QObject

from napari_nnunet.events import Event, Job
from napari_nnunet.widgets.frame.worker import JobWorker, follow

T = TypeVar("T")


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
