"""Signals that announce the end of a process: a time limit of a queueing system, a computer that shuts down."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

# Slurm sends what sbatch --signal names, and SIGTERM; PBS SIGTERM; LSF SIGUSR2; SGE SIGUSR1 and SIGUSR2 (qsub -notify).
_NAMES = ("SIGTERM", "SIGUSR1", "SIGUSR2")
SIGNALS = tuple(getattr(signal, name) for name in _NAMES if hasattr(signal, name))


class Notice:
    """Which signal has come: ``signal``, 0 where none has."""

    signal = 0


@contextmanager
def noticed() -> Iterator[Notice]:
    """Take signals as a notice, not as the end, for as long as the block lasts; a second SIGTERM ends the process.

    Signals that somebody else handles or ignores are left to them, as are those of threads beside the main one, where
    Python knows none.
    """
    notice, taken = Notice(), []

    def take(number: int, _: FrameType | None) -> None:
        notice.signal = number
        if number == signal.SIGTERM:
            signal.signal(number, signal.SIG_DFL)

    if threading.current_thread() is threading.main_thread():
        taken = [number for number in SIGNALS if signal.getsignal(number) is signal.SIG_DFL]
    for number in taken:
        signal.signal(number, take)
    try:
        yield notice
    finally:
        for number in taken:
            signal.signal(number, signal.SIG_DFL)


def deaf() -> None:
    """Ignore signals that a process gets, too, for which this one works; that one ends this one by SIGTERM.

    Ctrl+C in a shell reaches all of them, and what one has made while it ended is not there to be taken any more.
    """
    for number in (*SIGNALS, signal.SIGINT):  # a process that was forked has the handlers of the one it came from
        signal.signal(number, signal.SIG_DFL if number == signal.SIGTERM else signal.SIG_IGN)
