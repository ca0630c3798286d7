"""How much main memory is free."""

from __future__ import annotations

import psutil


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
