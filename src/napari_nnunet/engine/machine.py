"""How much of this computer is free; knows no torch, so that worker processes start quickly."""

from __future__ import annotations

import os
import threading
import time

import psutil

from napari_nnunet.memory import available_memory

__all__ = ["LAUNCHER", "available_memory", "available_threads", "end_with"]

LAUNCHER = "NAPARI_NNUNET_LAUNCHER"  # variable with the number of the process that several work for
_LOOK = 1.0  # seconds between two looks at the other process


def available_threads() -> int:
    """Return the number of cores this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else (os.cpu_count() or 1)


def end_with(other: int) -> None:
    """Let this process end soon after another one, however that ended.

    A process that is killed cannot end its workers; without this they would wait for it for ever, with all their
    memory.

    Parameters
    ----------
    other : int
        Number of the process, most often of the one that started this one.
    """
    threading.Thread(target=_watch, args=(other,), daemon=True).start()


def _watch(other: int) -> None:
    try:
        process = psutil.Process(other)
        while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
            time.sleep(_LOOK)
    except psutil.AccessDenied:
        return  # it belongs to somebody else, and cannot be watched
    except psutil.NoSuchProcess:
        pass
    os._exit(1)
