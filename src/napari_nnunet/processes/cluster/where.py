"""What ``--cluster`` names: a scheduler that runs, workers on this computer, or a file about a queueing system."""

from __future__ import annotations

import math
import re
import tomllib
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from pydantic import field_validator

from napari_nnunet.errors import SettingsError
from napari_nnunet.schema.json_text import read_text
from napari_nnunet.schema.requests.option import Request, option

System = Literal["slurm", "pbs", "lsf", "sge"]
_SYSTEMS = ("slurm", "pbs", "lsf", "sge")
_ADDRESS = re.compile(r"(tcp|tls|ucx|ws|wss)://(.+):(\d{1,5})")
_LOCAL = re.compile(r"local(?::(\d{1,4}))?")
_WALLTIME = re.compile(r"(\d{1,4}-)?\d{1,3}(:\d{2}){1,2}", re.ASCII)
_MEMORY = re.compile(r"\d{1,9}(\.\d{1,9})? ?[KMGT]i?B", re.IGNORECASE | re.ASCII)
_LARGEST = 1 << 20  # bytes of a settings file
JOBS = Path("~/.napari-nnunet-jobs")  # where files of jobs go if nothing else is said
JOBS_OF = "Name local, local:N (so many at a time on this computer) or a .toml file about Slurm."
ANY = (
    "Give the address of a dask scheduler (tcp://host:8786), local:N for N workers on this computer, or a .toml file "
    "about Slurm, PBS, LSF or SGE."
)


@dataclass(frozen=True)
class Scheduler:
    """A dask scheduler that somebody started; ``address`` is such as ``tcp://host:8786``."""

    address: str


@dataclass(frozen=True)
class Local:
    """So many workers on this computer."""

    workers: int


class Queue(Request):
    """Workers as jobs of a queueing system."""

    kind: System = option("Kind", "", "slurm, pbs, lsf or sge.")
    workers: int = option("Workers", "", "Jobs, with a worker each.", default=1, ge=1, le=10_000)
    cores: int = option("Cores", "", "Of a job.", default=1, ge=1, le=10_000)
    memory: str = option("Memory", "", 'Of a job, such as "32GB".')
    gpu: bool = option("GPU", "", "Whether a job gets a GPU.", default=False)
    walltime: str = option("Time limit", "", 'Of a job, "HH:MM:SS", "HH:MM" or "D-HH:MM:SS".', default="12:00:00")
    queue: str | None = option("Queue", "", "Queue or partition.", default=None)
    account: str | None = option("Account", "", "Account or project that is charged.", default=None)
    directives: tuple[str, ...] = option(
        "Directives", "", 'Further lines for the scheduler, such as "--constraint=a100".', default=()
    )
    setup: tuple[str, ...] = option("Setup", "", "Lines of shell that run before.", default=())
    interface: str | None = option(
        "Interface", "", 'Network interface that the machines share, such as "ib0".', default=None
    )
    python: str | None = option("Python", "", "Interpreter on the machines.", default=None, otherwise="the one here")
    folder: Path | None = option(
        "Folder", "", "For logs, on a disk that all machines see.", default=None, otherwise="~/.napari-nnunet-jobs"
    )

    @field_validator("queue", "account", "directives", "interface", "python", "folder")
    @classmethod
    def _line(cls, value: str | Path | tuple[str, ...] | None) -> str | Path | tuple[str, ...] | None:
        """Refuse what would be more than a line of a job's script; lines of shell have a setting of their own."""
        for text in value if isinstance(value, tuple) else (str(value or ""),):
            if any(unicodedata.category(letter) == "Cc" for letter in text):
                raise SettingsError(f"{text!r:.100} is not one line. Give lines of shell as 'setup'.")
        return value

    @field_validator("walltime")
    @classmethod
    def _time(cls, value: str) -> str:
        if not _WALLTIME.fullmatch(value):
            raise SettingsError(f"walltime = {value!r} is not a time limit. Write hours, minutes, seconds: 12:00:00.")
        return value

    @field_validator("memory")
    @classmethod
    def _size(cls, value: str) -> str:
        if not _MEMORY.fullmatch(value):
            raise SettingsError(f"memory = {value!r} is not a size. Write a number and a unit: 32GB.")
        return value

    @property
    def gigabytes(self) -> float:
        """The memory of a job in GB."""
        number, unit = re.fullmatch(r"([\d.]+) ?([KMGT])(?:i?B)", self.memory, re.IGNORECASE).groups()  # type: ignore[union-attr]
        return float(number) * {"K": 1e-6, "M": 1e-3, "G": 1.0, "T": 1e3}[unit.upper()]

    @property
    def minutes(self) -> int:
        """The time limit of a job in minutes, rounded up."""
        days, _, rest = self.walltime.rpartition("-")
        hours, minutes, seconds = ([int(part) for part in rest.split(":")] + [0])[:3]
        return math.ceil(int(days or 0) * 24 * 60 + hours * 60 + minutes + seconds / 60)

    @property
    def logs(self) -> Path:
        """Where what the jobs print goes."""
        return (self.folder or JOBS).expanduser().absolute()


Where: TypeAlias = Scheduler | Local | Queue


def where(text: str, window: str = JOBS_OF) -> Where:
    """Return what ``--cluster`` names.

    Parameters
    ----------
    text : str
        ``tcp://host:port``, ``local``, ``local:N``, ``FILE.toml``, or ``slurm:FILE.toml`` (pbs, lsf, sge alike).
    window : str
        What a window says is allowed: :data:`JOBS_OF` where trainings are submitted, :data:`ANY` elsewhere.

    Raises
    ------
    SettingsError
        If it is nothing of these, or the file does not say what it must.
    """
    found = _ADDRESS.fullmatch(text)
    if found is not None and int(found[3]) < 65536:
        return Scheduler(text)
    found = _LOCAL.fullmatch(text)
    if found is not None:
        count = int(found[1] or 1)
        if count < 1:
            raise SettingsError(f"The cluster {text!r} asks for no worker. Give 1 or more.")
        return Local(count)
    kind, colon, rest = text.partition(":")
    if colon and kind in _SYSTEMS:
        return _read(Path(rest), kind, window)
    if text.lower().endswith(".toml"):
        return _read(Path(text), None, window)
    raise SettingsError(f"The cluster {text!r} is not understood.", shell=ANY, window=window)


def _read(path: Path, kind: str | None, window: str) -> Queue:
    """Read a settings file; ``kind`` is what was typed before its name."""
    if not path.expanduser().exists():
        raise SettingsError(f"{path} does not exist.", shell=ANY, window=window)
    try:
        content = tomllib.loads(read_text(path.expanduser(), SettingsError, largest=_LARGEST))
    except (ValueError, RecursionError) as error:  # no TOML, a number of thousands of digits, or nested too deeply
        raise SettingsError(
            f'{path} is not TOML: {error}. Its lines are such as kind = "slurm", cores = 8, memory = "32GB".'
        ) from error
    if "cls" in content:  # the one name that Python cannot hand on to be refused with the others
        raise SettingsError(f"{path}: There is no setting 'cls'.")
    said = content.get("kind")
    if kind is not None and said not in (None, kind):
        raise SettingsError(f"{path} is about {said}, not about {kind}. Change one of them.")
    try:
        return Queue.of(**content, **({} if kind is None or said is not None else {"kind": kind}))
    except SettingsError as error:
        raise SettingsError(f"{path}: {error.message}") from error
