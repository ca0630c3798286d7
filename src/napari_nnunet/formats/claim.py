"""Who writes into a folder now: a small file that exactly one process can make, and that others respect while it runs.

A process that was killed leaves its claim behind; the next one takes it over. Processes of other computers cannot be
looked at, so their claims hold until somebody deletes the file. Nor can those of a container beside, but who has a
claim locks its file, which shows in all containers of a computer.
"""

from __future__ import annotations

import glob
import hashlib
import json
import math
import os
import secrets
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import psutil

try:
    import fcntl
except ImportError:  # on Windows, which has no containers that share a computer's kernel
    fcntl = None  # type: ignore[assignment]

from napari_nnunet.errors import SettingsError
from napari_nnunet.formats.atomic import is_at, made, make_folder, opened_folder, write_error
from napari_nnunet.formats.computer import processes_seen, slurm_run, started_as
from napari_nnunet.formats.regular import regular
from napari_nnunet.schema.json_text import message

_LARGEST_PID = 1 << 31
_LONGEST_COMMAND = 10_000  # characters that are kept; thousands of names of files may have been typed
_CLOCK_TOLERANCE = 2.0  # seconds between what two programs say about the start of a process
_WRITTEN_AFTER = 3.0  # seconds; a claim that is still empty then was left by a process killed while it wrote
_PAUSE = 0.05  # seconds between two looks at a claim that another process writes or removes just now
_TRIES = 200
_LOOKS = 10  # at a claim that is made just now
_LONGEST = 150  # bytes of a name within the name of its claim
_MOVED = "~moved"  # after the name of a folder that is moved; no claim of a part is called so
_DEEPEST = 4  # folders between a claim and what is moved as a whole: dataset, model, fold, and one to spare


@dataclass(frozen=True)
class Runner:
    """A process that trains a fold, or writes a folder.

    Parameters
    ----------
    pid : int
        Its number.
    host : str
        Its computer.
    created : float
        When it began, so that another process with the same number is not taken for it.
    command : tuple of str
        What it was started with, by its checksum where that is long or no text; empty if it is not known.
    boot, seen : str
        What Linux calls the start of its computer, and the processes that it sees; empty where that is not known.
    job : str
        Cluster and number of the Slurm job it belongs to; empty where it is none.
    run : int
        Which run of that job: one that was preempted or lost its machine runs again, on another machine perhaps.
    """

    pid: int
    host: str
    created: float
    command: tuple[str, ...] = ()
    boot: str = ""
    seen: str = ""
    job: str = ""
    run: int = 0

    @classmethod
    def own(cls) -> Runner:
        """Return this process."""
        process = psutil.Process()
        own = cls(process.pid, socket.gethostname(), process.create_time(), _command(process))
        job, run = slurm_run()
        return replace(own, boot=started_as(), seen=processes_seen(), job=job, run=run)

    @classmethod
    def parse(cls, content: Mapping[str, Any]) -> Runner | None:
        """Return the process that a file names, None if what it holds names none."""
        pid, host, created = (content.get(name) for name in ("pid", "host", "created"))
        command = content.get("command", [])
        boot, seen = (str(content.get(name, "")) for name in ("boot", "seen"))
        if type(pid) is not int or not 0 < pid < _LARGEST_PID or not isinstance(host, str):
            return None
        if not isinstance(created, int | float) or not math.isfinite(created) or not isinstance(command, list):
            return None
        job, run = content.get("job"), content.get("run")
        slurm = (job, run) if isinstance(job, str) and type(run) is int else ("", 0)
        return cls(pid, host, float(created), tuple(map(str, command)), boot, seen, *slurm)

    @property
    def here(self) -> bool:
        """Whether it is a process of this computer that can be seen from here."""
        if self.host != socket.gethostname() or self.beside:
            return False
        # What began after this computer was started, and not in this start of it, is on another one of the same name.
        return self.boot in ("", started_as()) or self.created < psutil.boot_time()

    @property
    def beside(self) -> bool:
        """Whether it is on this computer, but in a container whose processes cannot be seen from here."""
        return self.boot != "" and self.boot == started_as() and self.seen != processes_seen()

    @property
    def alive(self) -> bool:
        """Whether it still runs; True for processes that cannot be seen from here, of which nothing can be known.

        Nothing but this: where this process belongs to a later run of the same Slurm job, the earlier one is over.
        """
        if not self.here:
            job, run = slurm_run()
            return not (job and job == self.job and self.run < run)
        return self._process() is not None

    def _process(self) -> psutil.Process | None:
        with suppress(psutil.Error):
            process = psutil.Process(self.pid)
            if (
                process.status() != psutil.STATUS_ZOMBIE
                and abs(process.create_time() - self.created) < _CLOCK_TOLERANCE
            ):
                return process
        return None

    def process(self) -> psutil.Process | None:
        """Return the process if it is beyond doubt this one: it began then, and with this command."""
        process = self._process() if self.here else None
        with suppress(psutil.Error):
            if process is not None and self.command and _command(process) == self.command:
                return process
        return None


def _command(process: psutil.Process) -> tuple[str, ...]:
    """Return what a process was started with, as its claim can hold it."""
    words = tuple(process.cmdline())
    stored = os.fsencode("\0".join(words))
    if len(stored) > _LONGEST_COMMAND or any("\ud800" <= letter <= "\udfff" for word in words for letter in word):
        return (hashlib.sha256(stored).hexdigest(),)
    return words


@contextmanager
def claimed(folder: Path, doing: str, *, part: str = "", patience: float = 0) -> Iterator[None]:
    """Claim a folder, or a part of it, for as long as the block lasts.

    Parameters
    ----------
    folder : Path
        Made if it is not there, with those above; what of them is empty afterwards is removed.
    doing : str
        What is done, as the beginning of the sentence that others get: "Dataset004 is already being preprocessed".
    part : str
        What is claimed in the folder, where others may write the rest: the name of a file or folder, which need not
        exist and may be replaced.
    patience : float
        How many seconds to wait for another job that has it; for what takes no time.

    Raises
    ------
    SettingsError
        If another job, of this process or another one, has it, or a folder it lies in is being moved, or was just then.
    ResourceError
        If the folder cannot be written.
    """
    with made(folder), hold(_claim_file(folder, part), doing, patience=patience):
        yield


@contextmanager
def moving(folder: Path, doing: str) -> Iterator[None]:
    """Claim a folder with all that is in it, to move it as a whole: nobody writes in it, and nobody begins to.

    Parameters
    ----------
    folder : Path
        Need not exist.
    doing : str
        As for :func:`claimed`.

    Raises
    ------
    SettingsError
        If another job has it or something in it, or moves it already.
    """
    if not folder.parent.is_dir():
        yield
        return
    with claimed(folder.parent, doing, part=f"{folder.name}{_MOVED}"):
        for depth in range(_DEEPEST):
            for name in (".*claimed", "running.json"):
                for path in folder.glob("*/" * depth + name):
                    if (runner := runner_of(path)) is not None:
                        raise SettingsError(_sentence(path, _read(path) or {}, runner))
        yield


def is_claimed(folder: Path, part: str = "") -> bool:
    """Whether a process that runs has a folder, or a part of it."""
    return runner_of(_claim_file(folder, part)) is not None


def _claim_file(folder: Path, part: str) -> Path:
    stored = os.fsencode(part)  # as the disk has it, in whatever locale
    if len(stored) > _LONGEST:
        part = f"{part[: _LONGEST // 4]}~{hashlib.sha256(stored).hexdigest()[:16]}"
    return folder / f".{part}{'.' if part else ''}claimed"


def runner_of(path: Path) -> Runner | None:
    """Return the process that a claim's file names; None if there is none, or it no longer runs."""
    for _ in range(_LOOKS):
        found = _read(path)
        if found or found is None or not _is_begun(path):
            break
        time.sleep(_PAUSE)  # its process is just writing it
    runner = None if found is None else Runner.parse(found)
    return runner if runner is not None and _holds(path, runner) else None


def _holds(path: Path, runner: Runner) -> bool:
    """Whether the process that a claim names still has it."""
    return runner.alive and not (runner.beside and not is_young(path) and _is_unlocked(path))


def _is_unlocked(path: Path) -> bool:
    """Whether no process has a file locked; False where that cannot be told."""
    try:
        with regular(path).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except OSError:
        return False


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Lock a file for as long as the block lasts, where the system can; for :func:`_is_unlocked`."""
    with ExitStack() as stack:
        if fcntl is not None:
            with suppress(OSError):
                fcntl.flock(stack.enter_context(regular(path).open("rb")), fcntl.LOCK_SH | fcntl.LOCK_NB)
        yield


@contextmanager
def hold(path: Path, doing: str, *, patience: float = 0) -> Iterator[None]:
    """Hold a claim's file; parameters and errors as for :func:`claimed`."""
    token = secrets.token_hex(8)
    said = doing.encode(errors="backslashreplace").decode()  # names may hold bytes that are no text
    content = {**asdict(Runner.own()), "started": time.time(), "doing": said, "token": token}
    until = time.monotonic() + patience
    with opened_folder(path.parent) as home:
        while True:
            try:
                _take(path, content)
                break
            except SettingsError:
                if time.monotonic() >= until:
                    raise
                time.sleep(_PAUSE)
        try:
            with _locked(path):
                _refuse_moved(path)
                if not _is_own(path, token):  # who moved it had looked before, and was done before that look
                    raise SettingsError(f"{path.parent} was moved or removed just now. Look where it is and try again.")
                yield
        finally:
            with suppress(OSError):
                if _is_own(path, token):
                    path.unlink(missing_ok=True)
                elif home is not None and not is_at(home, path.parent):
                    os.unlink(path.name, dir_fd=home)


def _is_own(path: Path, token: str) -> bool:
    return (_read(path) or {}).get("token") == token


def _take(path: Path, content: Mapping[str, Any]) -> None:
    for _ in range(_TRIES):
        if _make(path, json.dumps(content)):
            return
        found = _read(path)
        if found is None:
            continue
        runner = Runner.parse(found)
        if runner is not None and _holds(path, runner):
            raise SettingsError(_sentence(path, found, runner))
        if runner is None and is_young(path):
            time.sleep(_PAUSE)
        else:
            _remove_dead(path, found)
    raise SettingsError(f"{path} was left by a process that is gone, and cannot be removed. Delete it, then try again.")


def _refuse_moved(claim: Path) -> None:
    """Refuse to write in a folder that is being moved; who moves it looks for claims after making his own."""
    for folder in (claim.parent, *claim.parent.parents[: _DEEPEST - 1]):
        path = _claim_file(folder.parent, f"{folder.name}{_MOVED}")
        if path != claim and (runner := runner_of(path)) is not None:
            raise SettingsError(_sentence(path, _read(path) or {}, runner))


def _make(path: Path, text: str) -> bool:
    """Make a file; False if it is there already, which the file system decides."""
    try:
        file = path.open("x", encoding="utf-8")
    except FileExistsError:
        return False
    except FileNotFoundError:  # who had the folder before removed it, for it was empty
        make_folder(path.parent)
        return False
    except OSError as error:
        raise write_error(path, error) from error
    try:
        with file:
            file.write(text)
    except OSError as error:
        path.unlink(missing_ok=True)
        raise write_error(path, error) from error
    return True


def _read(path: Path) -> dict[str, Any] | None:
    """Return the entries of a claim, empty ones if they cannot be read; None if there is no claim."""
    return message(path) or ({} if path.exists() else None)


def _is_begun(path: Path) -> bool:
    """Whether a claim was made a moment ago, and nothing is written in it yet."""
    try:
        return path.stat().st_size == 0 and is_young(path)
    except OSError:
        return False


def is_young(path: Path) -> bool:
    """Whether a file was written a moment ago, so that its writer may not be done."""
    try:
        return time.time() - path.stat().st_mtime < _WRITTEN_AFTER
    except OSError:
        return False


def _remove_dead(path: Path, found: Mapping[str, Any]) -> None:
    """Remove a dead claim, and no other that took its place meanwhile.

    Several processes may find the same dead claim. Only who makes a file named after it may remove it; a second one
    that comes later finds another claim there.
    """
    marker = path.with_name(f"{path.name}.{hashlib.sha256(repr(found).encode()).hexdigest()[:16]}")
    if not _make(marker, ""):
        time.sleep(_PAUSE)
        if not is_young(marker):  # its maker was killed just then
            marker.unlink(missing_ok=True)
        return
    try:
        if _read(path) == found:
            with suppress(OSError):  # a folder of that name, or no permission
                path.unlink(missing_ok=True)
        for other in path.parent.glob(f"{glob.escape(path.name)}.{'[0-9a-f]' * 16}"):
            if not is_young(other):  # its maker was killed, and what it is named after is gone
                other.unlink(missing_ok=True)
    finally:
        marker.unlink(missing_ok=True)


def _sentence(path: Path, found: Mapping[str, Any], runner: Runner) -> str:
    started, doing = found.get("started"), found.get("doing", f"{path.parent} is already being written")
    place = " in another container" if runner.beside else f" on {runner.host}"
    who = f"process {runner.pid}" + ("" if runner.here else place)
    if isinstance(started, int | float) and 0 < started < 1e11:
        who += f" since {time.strftime('%Y-%m-%d %H:%M', time.localtime(started))}"
    todo = "Wait for it, or stop it first." if runner.here else f"Wait for it; if it no longer runs, delete {path}."
    return f"{doing} by {who}. {todo}"
