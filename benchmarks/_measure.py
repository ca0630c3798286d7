"""Run a command and watch its process tree: wall time, peak of the sum, peak of any one worker. And keep cores busy."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

try:
    import resource
except ImportError:  # on Windows
    resource = None  # type: ignore[assignment]

PAUSE = 0.5  # seconds between two looks at the memory; proportional set sizes cost time to measure

#: It ends soon after whoever started it, also where that was killed.
LOOP = """
import os, sys
while os.getppid() == int(sys.argv[1]):
    for _ in range(10**6):
        pass
"""


@dataclass(frozen=True)
class Measured:
    """Wall seconds; bytes: largest sum of proportional set sizes, largest high-water mark of one child process.

    ``cpu`` is processor seconds of the command and of those of its children that it waited for (0 on Windows).
    """

    seconds: float
    tree: float
    worker: float
    cpu: float = 0.0


def measure(
    command: list[str],
    log: Path,
    *,
    environment: dict[str, str] | None = None,
    tree: bool = True,
    pause: float = PAUSE,
) -> Measured:
    """Run a command to its end; ``tree=False`` leaves out the proportional sizes."""
    began, spent, peak, worker = time.monotonic(), _spent(), 0, 0
    seen: set[psutil.Process] = set()
    with log.open("w", encoding="utf-8") as out:
        process = psutil.Popen(
            command,
            stdout=out,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(environment or {})},
            start_new_session=True,
        )
        try:
            while process.poll() is None:
                members = _members(process)
                seen.update(members[1:])
                if tree:
                    peak = max(peak, sum(_pss(member) for member in members))
                worker = max([worker, *(_high_water(member.pid) for member in members[1:])])
                with suppress(psutil.TimeoutExpired):  # the end is noticed at once
                    process.wait(pause if tree else 0.1)
        finally:
            # nnunetv2's loading processes outlive a training that is cut short, also those that started between two looks.
            if hasattr(os, "killpg"):
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
            for member in [process, *seen]:
                with suppress(psutil.Error):
                    member.kill()
    if process.returncode:
        raise SystemExit(f"{' '.join(command[:3])} failed:\n{log.read_text(encoding='utf-8')[-3000:]}")
    return Measured(time.monotonic() - began, float(peak), float(worker), _spent() - spent)


@contextmanager
def busy(loops: int) -> Iterator[None]:
    """Let other programs compute meanwhile: loops that never wait, as many as are asked for."""
    with ExitStack() as stack:
        for _ in range(loops):
            loop = stack.enter_context(subprocess.Popen([sys.executable, "-c", LOOP, str(os.getpid())]))
            stack.callback(loop.kill)
        yield


def _spent() -> float:
    """Return processor seconds of all children that have ended."""
    if resource is None:
        return 0.0
    found = resource.getrusage(resource.RUSAGE_CHILDREN)
    return found.ru_utime + found.ru_stime


def _members(process: psutil.Process) -> list[psutil.Process]:
    try:
        return [process, *process.children(recursive=True)]
    except psutil.Error:
        return []


def _pss(member: psutil.Process) -> int:
    try:
        return int(member.memory_full_info().pss)
    except psutil.Error:
        return 0


def _high_water(pid: int) -> int:
    """Return the most memory a process ever held, as the kernel remembers it (Linux)."""
    try:
        for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0
