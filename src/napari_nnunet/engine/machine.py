"""How much of this computer is free; knows no torch, so that worker processes start quickly."""

from __future__ import annotations

import ctypes
import math
import os
import platform
import select
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from napari_nnunet.memory import available_memory

__all__ = [
    "LAUNCHER",
    "SHARED_BY",
    "available_memory",
    "available_threads",
    "end_with",
    "give_memory_back",
    "gpus",
    "has_gpu",
    "keep_memory",
    "keep_small_memory",
    "shared_by",
]

LAUNCHER = "NAPARI_NNUNET_LAUNCHER"  # variable with the number of the process that several work for
SHARED_BY = "NAPARI_NNUNET_SHARED_BY"  # variable with the number of workers of a cluster that share this computer
_LOOK = 1.0  # seconds between two looks at the other process


_QUOTA = (Path("/sys/fs/cgroup/cpu.max"), Path("/sys/fs/cgroup/cpu/cpu.cfs_quota_us"))  # of a container
_PERIOD = Path("/sys/fs/cgroup/cpu/cpu.cfs_period_us")
#: What glibc is told (mallopt): map nothing by itself, give nothing back, ask for 64 MB at a time.
_KEEPING = ((-4, 0), (-1, 2**31 - 1), (-2, 64 * 2**20))
#: Map from 32 MB on, give back from 64 MB on: glibc's own limits, once an array of 32 MB was freed.
_USUAL = ((-3, 32 * 2**20), (-1, 64 * 2**20))
_TRIM, _DASK_TRIMS = "MALLOC_TRIM_THRESHOLD_", "65536"  # dask's setting distributed.nanny.pre-spawn-environ


def available_threads() -> int:
    """Return the number of cores that are really ours: those this process may run on, within a container's quota.

    Workers of a cluster that share a computer take an equal part each.
    """
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else (os.cpu_count() or 1)
    quota = _cpu_quota()
    ours = cores if quota is None else max(1, min(cores, math.ceil(quota)))
    return max(1, ours // shared_by())


def shared_by() -> int:
    """Return how many workers of a cluster share the cores and the memory of this computer with this process."""
    text = os.environ.get(SHARED_BY, "")
    return max(1, int(text)) if text.isdecimal() else 1


def _cpu_quota() -> float | None:
    """Return how many cores a container may keep busy (cgroup v2 or v1); None without a limit."""
    try:
        new, old = _QUOTA
        words = new.read_text(encoding="ascii").split() if new.is_file() else [old.read_text(encoding="ascii"), ""]
        quota = float(words[0])  # "max" is no number
        period = float(words[1] or _PERIOD.read_text(encoding="ascii"))
    except (OSError, ValueError, IndexError):
        return None
    return quota / period if quota > 0 and period > 0 else None


def keep_memory() -> bool:
    """Let this process keep the memory that it frees, for the next tensor; returns whether the C library can do that.

    glibc gives the memory of large tensors back at once, and the system fills every page with zeros when it is asked
    for again: a tenth to a fifth of a training step. Only for processes that do nothing but train, and before their
    first tensor: what a process held at its peak, it holds to its end.
    """
    return _told(_KEEPING)


def keep_small_memory() -> bool:
    """Undo what dask tells the C library of its workers; returns whether there was something to undo.

    They are started so that glibc gives back all it can after every array that is freed, and asks the system for each
    one above 128 kB: two fifths of the time of a block went into pages that were filled with zeros. These are the
    limits that glibc comes to by itself; what larger arrays took is given back at once as before.
    """
    return os.environ.get(_TRIM) == _DASK_TRIMS and _told(_USUAL)


def _told(options: Sequence[tuple[int, int]]) -> bool:
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return False  # macOS, Windows, musl
    return all(mallopt(*option) == 1 for option in options)


def give_memory_back() -> None:
    """Give what was freed back to the system; glibc keeps pieces of it, which add up."""
    with suppress(OSError, AttributeError, TypeError):  # macOS, Windows, musl
        ctypes.CDLL(None).malloc_trim(0)


def has_gpu() -> bool:
    """Whether this computer seems to have a GPU that torch can use; torch is not loaded to find out."""
    if os.environ.get("CUDA_VISIBLE_DEVICES", "0") in ("", "-1"):
        return False
    if sys.platform == "darwin":
        return platform.machine() == "arm64"
    if sys.platform == "win32":
        return shutil.which("nvidia-smi") is not None
    return any(Path(device).exists() for device in ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg"))  # CUDA, ROCm, WSL


def gpus() -> tuple[str, ...]:
    """Return the NVIDIA GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them; torch is not loaded."""
    if not has_gpu() or shutil.which("nvidia-smi") is None:
        return ()
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return tuple(name.strip() for name in chosen.split(",") if name.strip())
    listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False).stdout
    return tuple(str(i) for i, _ in enumerate(line for line in listed.splitlines() if line.startswith("GPU ")))


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
        if not _waited_for(other):
            process = psutil.Process(other)
            while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                time.sleep(_LOOK)
    except psutil.AccessDenied:
        return  # it belongs to somebody else, and cannot be watched
    except (ProcessLookupError, psutil.NoSuchProcess):
        pass
    os._exit(1)


def _waited_for(other: int) -> bool:
    """Wait until a process has ended, where the system tells at once: what comes next may write the same files.

    False where it has to be looked at again and again.
    """
    if not hasattr(os, "pidfd_open"):  # since Linux 5.3
        return False
    try:
        handle = os.pidfd_open(other)
    except ProcessLookupError:
        raise
    except OSError:
        return False
    try:
        ended = select.poll()
        ended.register(handle, select.POLLIN)
        ended.poll()
    finally:
        os.close(handle)
    return True
