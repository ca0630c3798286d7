"""Whether this process may start others, and how: scripts without a guard, task queues, programs with Python inside."""

from __future__ import annotations

import multiprocessing
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path
from threading import Lock
from typing import Any

from napari_nnunet.errors import ResourceError

_INTERPRETERS = ("python", "pypy")
_MAIN = Lock()


def why_alone() -> str | None:
    """Return why this process cannot start worker processes, in words; None if it can."""
    process: BaseProcess = multiprocessing.current_process()
    if getattr(process, "daemon", False):
        return f"{process.name} is a daemonic process, such as a worker of a task queue, and may start no others"
    if not _is_python(sys.executable):
        return f"{sys.executable or 'this program'} is a program with Python inside, and starts no Python processes"
    return None


def python() -> str:
    """Return the interpreter to start; where a program has Python inside, the one that belongs to its packages.

    Raises
    ------
    ResourceError
        If there is none.
    """
    if _is_python(sys.executable):
        return sys.executable
    folders = [sysconfig.get_path("scripts"), sys.prefix, sys.exec_prefix, f"{sys.base_prefix}/bin", sys.base_prefix]
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    names = (f"python{version}", "python3", "python", "python.exe")
    found = [path for folder in folders for name in names if (path := Path(folder) / name).is_file()]
    if not found:
        raise ResourceError(
            f"{sys.executable or 'This program'} has Python inside, and no Python program in {sys.prefix} could work "
            "beside it. Install napari-nnunet in a Python environment, and start it from there."
        )
    return str(found[0])


def _is_python(program: str | None) -> bool:
    return bool(program) and Path(str(program)).name.lower().startswith(_INTERPRETERS)


@contextmanager
def script_left_alone() -> Iterator[None]:
    """Start processes that do not run the caller's script again.

    Processes that are spawned import the main script first. One that does its work without ``if __name__ ==
    "__main__"`` would begin anew in each of them; what runs in our workers lies in modules, so nothing is missed.
    """
    main = sys.modules.get("__main__")
    with _MAIN:
        kept: dict[str, Any] = {}
        for name in ("__spec__", "__file__"):
            if main is not None and name in vars(main):
                kept[name] = vars(main).pop(name)
        if main is not None:
            vars(main)["__spec__"] = None
        try:
            yield
        finally:
            if main is not None:
                vars(main).pop("__spec__", None)
                vars(main).update(kept)
