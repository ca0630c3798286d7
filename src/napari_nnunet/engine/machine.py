"""How much of this computer is free; knows no torch, so that worker processes start quickly."""

from __future__ import annotations

import os
import threading
import time

import psutil

LAUNCHER = "NAPARI_NNUNET_LAUNCHER"  # variable with the number of the process that several work for
_LOOK = 1.0  # seconds between two looks at the other process


def available_threads() -> int:
    """Return the number of cores this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else (os.cpu_count() or 1)


def available_memory() -> int:
    """Return the free main memory in bytes, within the limit of a container if there is one."""
    free = int(psutil.virtual_memory().available)
    limit = _container_limit()
    return free if limit is None else min(free, max(limit - int(psutil.Process().memory_info().rss), 0))


def _container_limit() -> int | None:
    try:
        with open("/sys/fs/cgroup/memory.max", encoding="ascii") as file:
            text = file.read().strip()
        return None if text == "max" else int(text)
    except (OSError, ValueError):
        return None


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
