"""What a worker on another machine does: says what it is, and calls what it is sent, one task at a time."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from napari_nnunet.engine.machine import SHARED_BY, keep_small_memory
from napari_nnunet.processes.pool import guarded
from napari_nnunet.version import __version__

GPU = "GPU"  # dask's name of the resource
_PATIENCE = 5.0  # seconds until a new file is seen on a shared disk
_SAMPLES, _SAMPLE = 16, 1 << 16  # files of a folder, or parts of a file, and bytes of each, that are compared
_DEEPEST = 8  # folders within folders
_OF_MODEL = ("plans.json", "dataset.json", "fold_*/checkpoint_final.pth", "fold_*/checkpoint_best.pth")
_one_at_a_time = threading.Lock()


@dataclass(frozen=True)
class Expected:
    """What a worker must have.

    Parameters
    ----------
    versions : tuple of (str, str)
        Of this program, of torch and of Python where the work was begun.
    reads : tuple of Path
        Files and folders it must see.
    writes : Path, optional
        A folder it must write in.
    mark : str
        Name of a file that was just made in that folder: another disk of the same name does not have it.
    alike : tuple of str
        What :func:`sampled` says of each path that it must see; none are compared where there are none.
    """

    versions: tuple[tuple[str, str], ...]
    reads: tuple[Path, ...]
    writes: Path | None
    mark: str
    alike: tuple[str, ...] = ()


@dataclass(frozen=True)
class Facts:
    """A worker: why it cannot help (empty if it can), its computer, its tasks at a time, whether it has a GPU."""

    unfit: str
    host: str
    threads: int
    gpu: bool


@dataclass(frozen=True)
class Unfit:
    """What a task comes back with from a worker that cannot do it."""

    worker: str
    why: str


def versions() -> tuple[tuple[str, str], ...]:
    """Return the versions that decide a result, by name; builds of torch for CPUs and GPUs count as one."""
    try:
        torch = version("torch").partition("+")[0]
    except PackageNotFoundError:
        torch = "none"
    return ("napari-nnunet", __version__), ("torch", torch), ("Python", f"{sys.version_info[0]}.{sys.version_info[1]}")


def facts(expected: Expected, dask_worker: Any = None) -> Facts:
    """Return what this worker is; dask hands itself in."""
    state = dask_worker.state
    return Facts(why_unfit(expected), socket.gethostname(), state.nthreads, state.total_resources.get(GPU, 0) > 0)


@lru_cache(maxsize=8)
def why_unfit(expected: Expected) -> str:
    """Return in words why this worker cannot do the work, empty if it can."""
    for (name, wanted), (_, own) in zip(expected.versions, versions(), strict=True):
        if own != wanted:
            return f"has {name} {own}, not {wanted}"
    if unread := _unread(expected):
        return unread
    if expected.writes is None:
        return ""
    until = time.monotonic() + _PATIENCE
    while not (expected.writes / expected.mark).is_file():
        if time.monotonic() > until:
            return f"does not see {expected.writes} as it is here"
        os.listdir(expected.writes.parent)  # lets a shared disk look again
        time.sleep(0.2)
    return "" if os.access(expected.writes, os.W_OK) else f"may not write in {expected.writes}"


def _unread(expected: Expected) -> str:
    """Return in words what this worker does not read as it is read where the work was begun, empty if it reads all."""
    for path in expected.reads:
        if not path.exists():
            return f"does not see {path}"
    until = time.monotonic() + _PATIENCE
    for path, known in zip(expected.reads, expected.alike, strict=False):
        while known and sampled(path) != known:
            if time.monotonic() > until:
                return f"reads something else in {path}"
            time.sleep(0.2)
    return ""


def sampled(path: Path) -> str:
    """Return a hash of samples of a file or folder, alike on all machines that see the same one; "" where none is.

    Of a model, that is what a prediction takes from it: its other files may be written at any time.
    """
    digest = hashlib.blake2b(digest_size=16)
    try:
        model = [file for pattern in _OF_MODEL for file in sorted(path.glob(pattern))] if path.is_dir() else []
        for file in model or list(_some_files(path, _SAMPLES, _DEEPEST)):
            size = file.stat().st_size
            digest.update(f"{file.relative_to(path)} {size} ".encode())
            with file.open("rb") as stream:
                for part in range(_SAMPLES):
                    stream.seek(max(0, size - _SAMPLE) * part // (_SAMPLES - 1))
                    digest.update(stream.read(_SAMPLE))
    except OSError:
        return ""
    return digest.hexdigest()


def _some_files(path: Path, most: int, deepest: int) -> Iterator[Path]:
    """Give some files of a folder and those within, the same wherever it is seen; not those of results in it."""
    if not path.is_dir():
        yield path
        return
    inside = sorted(name for name in os.listdir(path) if not name.startswith(".") and name != "labels")
    count = min(len(inside), most) if deepest else 0
    for number in range(count):
        yield from _some_files(path / inside[number * len(inside) // count], max(1, most // count), deepest - 1)


def packed(function: Callable[..., Any], arguments: tuple[Any, ...]) -> bytes:
    """Return a call as bytes, with absolute paths; dask would look for work of its own within the arguments."""
    stream = io.BytesIO()
    _Packer(stream).dump((function, arguments))
    return stream.getvalue()


class _Packer(pickle.Pickler):
    """A worker stands in another folder, so paths are sent as absolute ones."""

    def reducer_override(self, obj: Any) -> Any:
        return (Path, (str(obj.absolute()),)) if isinstance(obj, Path) else NotImplemented


def call(expected: Expected, shared_by: int, work: bytes) -> Any:
    """Carry out a call on a worker; whatever threads it has, one task runs at a time.

    Parameters
    ----------
    expected : Expected
        Workers that came later were not asked before.
    shared_by : int
        Workers that share this computer's cores and memory.
    work : bytes
        From :func:`packed`. It comes from the scheduler this worker obeys anyway, not from a file.
    """
    why = why_unfit(expected)
    if why:
        why_unfit.cache_clear()  # what is put right is noticed
        return Unfit(import_module("distributed").get_worker().address, why)
    with _one_at_a_time:
        keep_small_memory()
        os.environ[SHARED_BY] = str(shared_by)
        function, arguments = pickle.loads(work)
        return guarded(function, arguments)
