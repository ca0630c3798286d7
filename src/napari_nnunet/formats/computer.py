"""Whose process numbers mean something here: of this computer, since it was started, and of no container beside."""

from __future__ import annotations

import hashlib
import os
import socket
from functools import lru_cache
from pathlib import Path


@lru_cache(maxsize=1)
def started_as() -> str:
    """Return what this computer calls its last start; empty where it does not say (Windows, macOS)."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""


@lru_cache(maxsize=1)
def processes_seen() -> str:
    """Return what Linux calls the processes that are seen from here: a container has its own; empty elsewhere."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


@lru_cache(maxsize=1)
def mark() -> str:
    """Return six letters for this computer or container, which are the same after it was started again."""
    return hashlib.sha256(f"{socket.gethostname()} {processes_seen()}".encode()).hexdigest()[:6]


def slurm_run() -> tuple[str, int]:
    """Return cluster and number of the Slurm job this process belongs to, and how often that was begun again."""
    number, again = os.environ.get("SLURM_JOB_ID", ""), os.environ.get("SLURM_RESTART_COUNT", "")
    if not number:
        return "", 0
    return f"{os.environ.get('SLURM_CLUSTER_NAME', '')}:{number}", int(again) if again.isdecimal() else 0
