"""What a training has spent: seconds on the clock, or of processors; used by ours and by the peers alike."""

from __future__ import annotations

import os
import time
from contextlib import suppress

import psutil

# As the command line does, for all alike: threads of torch that wait sleep. Where others share the processors they would
# spin, which is processor time that nobody learns from. It counts before torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def processor_seconds() -> float:
    """Return the processor time of this process and all it started, also of those that ended and were waited for."""
    own = psutil.Process()
    total = 0.0
    for process in (own, *own.children(recursive=True)):
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            times = process.cpu_times()
            total += times.user + times.system
            total += getattr(times, "children_user", 0.0) + getattr(times, "children_system", 0.0)
    return total


class Budget:
    """How long a training may last, by one of two clocks.

    Parameters
    ----------
    minutes : float
        Of the clock that is used.
    processors : bool
        Whether processor time of the whole process tree is counted instead of the time on the wall.
    """

    def __init__(self, minutes: float, processors: bool) -> None:
        self.seconds = 60 * minutes
        self.processors = processors
        self._clock = processor_seconds if processors else time.monotonic
        self._begun, self._begun_wall, self._begun_cpu = self._clock(), time.monotonic(), processor_seconds()

    @property
    def spent(self) -> float:
        """Seconds of the clock that counts."""
        return self._clock() - self._begun

    @property
    def left(self) -> float:
        """Seconds that may still be used; not below 0."""
        return max(0.0, self.seconds - self.spent)

    def figures(self) -> dict[str, float]:
        """Return both clocks for the table."""
        return {"train": time.monotonic() - self._begun_wall, "train_cpu": processor_seconds() - self._begun_cpu}
